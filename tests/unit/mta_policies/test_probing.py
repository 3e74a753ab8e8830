"""Probing: silence, one connection, one more at a time, silence again when it fails; kept over restarts and clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.answers import Answer
from mta_policies.firings import Firings
from mta_policies.probing import CONNECTIONS, SILENCE_S, SILENCE_S_MAX, STEP_MESSAGES, STEP_S, Probing
from mta_policies.rulebook import Action

START_S = 1_800_000_000.0
BLOCKED = Answer(421, "4.7.28", "unusual rate", "content")


def _carry(probing: Probing, begun_s: float, now_s: float, messages: int = STEP_MESSAGES) -> list[str]:
    """What comes of so many messages delivered on a connection that was begun then."""
    return [why for _ in range(messages) if (why := probing.delivered(now_s, begun_s))]


def test_the_published_recovery():
    """Ten minutes of silence, one connection, then one more at a time, until as many carry mail as are allowed."""
    probing = Probing(3, START_S)
    now_s = START_S + SILENCE_S

    assert (probing.wait_s(now_s - 0.1) > 0, probing.connections_max(now_s - 0.1)) == (True, 0)
    assert (probing.wait_s(now_s), probing.connections_max(now_s)) == (0.0, 1)
    assert probing.opened(now_s) == "one connection is tried"
    for connections in (1, 2, 3):
        assert probing.connections_max(now_s) == connections
        assert not probing.is_well
        now_s += STEP_S
        assert len(_carry(probing, now_s - STEP_S, now_s)) == 1
    assert probing.is_well


def test_a_refusal_is_a_silence_again():
    """At whatever step: no connection for ten minutes, then one."""
    probing = Probing(5, START_S)
    first_s = START_S + SILENCE_S
    probing.opened(first_s)
    _carry(probing, first_s, first_s + STEP_S)

    why = probing.refused(first_s + 100)

    assert why == "refused again: silence for 10 minutes"
    assert probing.connections_max(first_s + 100) == 0
    assert probing.wait_s(first_s + 100) == SILENCE_S
    assert probing.connections_max(first_s + 100 + SILENCE_S) == 1


def test_what_was_under_way_only_lengthens_the_silence():
    """A refusal or a delivery on an old connection inside the silence is mail: it begins anew, and nothing else."""
    probing = Probing(5, START_S, growth=2)

    assert probing.refused(START_S + 20) == ""
    assert probing.delivered(START_S + 30, START_S - 5) == ""

    assert probing.wait_s(START_S + 30) == SILENCE_S
    assert probing.refusals == 1


@pytest.mark.parametrize(
    ("messages", "after_s", "begun_s"),
    [(STEP_MESSAGES - 1, STEP_S, 0.0), (1000, STEP_S - 1, 0.0), (1000, STEP_S, -1.0)],
    ids=["few messages", "short time", "old connection"],
)
def test_a_step_takes_messages_and_time_on_a_connection_of_its_own(messages: int, after_s: float, begun_s: float):
    """With less than that there is no connection more."""
    probing = Probing(5, START_S)
    now_s = START_S + SILENCE_S
    probing.opened(now_s)

    whys = _carry(probing, now_s + begun_s, now_s + after_s, messages)

    assert whys == []
    assert probing.connections_max(now_s + after_s) == 1


def test_a_silence_may_grow():
    """With `growth` each refusal in a row makes it longer, up to an hour; a step that was done begins afresh."""
    probing = Probing(5, START_S, growth=2)
    now_s, silences = START_S, []
    for _ in range(5):
        silences.append(probing.wait_s(now_s))
        now_s += probing.wait_s(now_s)
        probing.opened(now_s)
        probing.refused(now_s)
    now_s += probing.wait_s(now_s)
    probing.opened(now_s)
    _carry(probing, now_s, now_s + STEP_S)
    probing.refused(now_s + STEP_S)

    assert silences == [600, 1200, 2400, 3600, SILENCE_S_MAX]
    assert probing.wait_s(now_s + STEP_S) == SILENCE_S


@pytest.mark.parametrize(("silence_s", "step_s"), [(10.0, 1.0), (SILENCE_S, STEP_S), (86400.0, STEP_S)])
def test_a_step_is_a_tenth_of_a_short_silence(silence_s: float, step_s: float):
    """And never longer than the minute of the published one."""
    probing = Probing(5, START_S, silence_s=silence_s)
    now_s = START_S + silence_s
    probing.opened(now_s)

    assert _carry(probing, now_s, now_s + 0.9 * step_s) == []
    assert _carry(probing, now_s, now_s + step_s, 1) == ["2 connections"]


def test_a_silence_of_ones_own_length():
    """`silence` of the action, even above the most that growing comes to; there is a goal without a limit."""
    probing = Probing(0, START_S, silence_s=7200.0, growth=3)

    assert probing.goal == CONNECTIONS
    assert probing.wait_s(START_S) == 7200
    probing.opened(START_S + 7200)
    probing.refused(START_S + 7200)
    assert probing.wait_s(START_S + 7200) == 7200


def _fired(now_s: float, growth: int = 0) -> tuple[Firings, Probing]:
    firings = Firings()
    action = Action("probe", scope="source", growth=growth)
    change = firings.fire("google", "blocked", action, "source out-1 > google", BLOCKED, now_s, "f1")
    assert change.firing is not None
    return firings, Probing.of(change.firing, 5, now_s)


def test_it_goes_on_after_a_restart():
    """What a step kept in the firing is where another process goes on."""
    firings, probing = _fired(START_S)
    now_s = START_S + SILENCE_S
    why = probing.opened(now_s) and _carry(probing, now_s, now_s + STEP_S)[0]
    firings.step("f1", probing.state(), now_s + STEP_S, why)
    again = Firings()
    again.load(firings.dump(), now_s + 70)

    restored = Probing.of(again.all()[0], 5, now_s + 70)

    assert restored.state() == probing.state()
    assert restored.connections_max(now_s + 70) == 2


@pytest.mark.parametrize("is_inside", [True, False], ids=["inside the silence", "at a step"])
def test_a_refusal_that_was_heard_elsewhere_counts(is_inside: bool):
    """The firing was hit after its last step: inside a silence that is a straggler, at a step it is a refusal."""
    firings, probing = _fired(START_S, growth=2)
    now_s = START_S + SILENCE_S
    probing.opened(now_s)
    if is_inside:
        probing.refused(now_s)
    firings.step("f1", probing.state(), now_s, "on")
    hit = firings.fire("google", "blocked", firings.all()[0].effect, "source out-1 > google", BLOCKED, now_s + 9, "f2")
    assert hit.firing is not None

    restored = Probing.of(hit.firing, 5, now_s + 10)

    assert restored.refusals == 2
    assert restored.wait_s(now_s + 10) == 2 * SILENCE_S - 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["open", "deliver", "refuse", "look", "restart"]),
            st.sampled_from([0.0, 1.0, 60.0, 600.0, -1.0, -3600.0, 31e6, -31e6]),
        ),
        max_size=40,
    )
)
def test_a_clock_that_jumps_does_no_lasting_harm(steps: list[tuple[str, float]]):
    """Whatever the clock did, from now on a provider that takes everything is well after silence and steps."""
    firings, probing = _fired(START_S)
    now_s = START_S
    for what, jump_s in steps:
        now_s += jump_s
        match what:
            case "open":
                probing.opened(now_s)
            case "deliver":
                probing.delivered(now_s, now_s)
            case "refuse":
                probing.refused(now_s)
            case "look":
                probing.wait_s(now_s)
            case _:
                firings.step("f1", probing.state(), now_s, "kept")
                probing = Probing.of(firings.all()[0], 5, now_s)
    longest_s = now_s + SILENCE_S_MAX + 6 * STEP_S
    while not probing.is_well and now_s <= longest_s:
        if wait_s := probing.wait_s(now_s):
            now_s += wait_s
        else:
            probing.opened(now_s)
            now_s += STEP_S
            _carry(probing, now_s - STEP_S, now_s)

    assert probing.is_well


@given(st.lists(st.tuples(st.sampled_from(["open", "deliver", "refuse"]), st.floats(0.0, 900.0)), max_size=60))
def test_never_more_than_one_connection_more(steps: list[tuple[str, float]]):
    """Between two looks the number grows by one at most, and behind a refusal there is none for ten minutes."""
    probing, now_s, refused_s, allowed = Probing(5, START_S), START_S, START_S, 0
    for what, after_s in steps:
        now_s += after_s
        if probing.is_well:
            break
        if what == "refuse":
            probing.refused(now_s)
            refused_s = now_s
        elif what == "open" and probing.connections_max(now_s):
            probing.opened(now_s)
        elif what == "deliver" and probing.connections_max(now_s):
            _carry(probing, now_s, now_s)
        before, allowed = allowed, probing.connections_max(now_s)

        assert allowed <= before + 1
        assert allowed == 0 or now_s - refused_s >= SILENCE_S
