"""Whether a rule that matched acts already: exact where it can be, bounded always."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies import triggers
from mta_policies.rulebook import Trigger
from mta_policies.triggers import SLICES, Triggers

BEGIN_S = 1_700_000_000.0
TWICE = Trigger(count=2, within_s=3600.0)
THREE_IN_A_ROW = Trigger(consecutive=3)
A_TENTH = Trigger(share=0.1, of=20, within_s=600.0)

STEPS = st.lists(st.tuples(st.floats(0.0, 2_000.0), st.sampled_from("ab"), st.booleans()), max_size=60)
KINDS = st.sampled_from([Trigger(), TWICE, Trigger(count=5, within_s=600.0), THREE_IN_A_ROW, A_TENTH])


def _hits(kept: Triggers, trigger: Trigger, *offsets_s: float, key: str = "source out-1 > google") -> list[bool]:
    return [kept.hit("rule", trigger, key, BEGIN_S + offset_s, True) for offset_s in offsets_s]


# -- every match, so many in a time --


def test_without_a_trigger_every_match_acts() -> None:
    """And nothing is kept for it."""
    kept = Triggers()

    assert kept.hit("rule", Trigger(), "source a > x", BEGIN_S, True)
    assert not kept.hit("rule", Trigger(), "source a > x", BEGIN_S, False)
    assert kept.cells == 0


def test_two_in_an_hour() -> None:
    """The second acts, and every further one that has one before it within the hour."""
    assert _hits(Triggers(), TWICE, 0, 3600, 3601, 9000, 12_601) == [False, True, True, False, False]


def test_scope_keys_and_rules_are_counted_apart() -> None:
    """One refusal of each is no second one."""
    kept = Triggers()

    first = kept.hit("rule", TWICE, "source out-1 > google", BEGIN_S, True)
    other_key = kept.hit("rule", TWICE, "source out-2 > google", BEGIN_S, True)
    other_rule = kept.hit("another", TWICE, "source out-1 > google", BEGIN_S, True)
    other_trigger = kept.hit("rule", Trigger(count=2, within_s=60.0), "source out-1 > google", BEGIN_S, True)

    assert [first, other_key, other_rule, other_trigger] == [False] * 4


@given(st.lists(st.floats(0.0, 500.0), max_size=80), st.integers(1, 7), st.floats(1.0, 2_000.0))
def test_counting_is_exact(gaps_s: list[float], count: int, within_s: float) -> None:
    """As if every time were kept: a match acts where so many lie within the time before it, itself included."""
    kept, now_s, times = Triggers(), BEGIN_S, list[float]()
    for gap_s in gaps_s:
        now_s += gap_s
        times.append(now_s)

        acts = kept.hit("rule", Trigger(count=count, within_s=within_s), "key", now_s, True)

        assert acts == (len(times) >= count and now_s - times[-count] <= within_s)


@pytest.mark.parametrize("jump_s", [-31_536_000.0, -3_601.0, 31_536_000.0])
def test_a_clock_that_jumps_does_no_lasting_harm(jump_s: float) -> None:
    """Back by a year: what was counted is as old as now, and an hour later it is forgotten."""
    kept = Triggers()
    kept.hit("rule", TWICE, "key", BEGIN_S, True)
    kept.hit("rule", TWICE, "key", BEGIN_S + jump_s, True)

    later = kept.hit("rule", TWICE, "key", BEGIN_S + jump_s + 3_601.0, True)
    soon = kept.hit("rule", TWICE, "key", BEGIN_S + jump_s + 3_700.0, True)

    assert (later, soon) == (False, True)


def test_times_that_a_clock_left_in_the_future_age() -> None:
    """Else two matches of next year would make every one of this year the third within an hour."""
    kept, three = Triggers(), Trigger(count=3, within_s=3600.0)
    for jump_s in (0.0, 0.0, -31_536_000.0):
        kept.hit("rule", three, "key", BEGIN_S + jump_s, True)

    assert not kept.hit("rule", three, "key", BEGIN_S - 31_536_000.0 + 3_601.0, True)


# -- in a row --


def test_a_row_is_broken_by_any_other_answer() -> None:
    """A delivery, or another rule's reply."""
    kept = Triggers()

    acts = [kept.hit("rule", THREE_IN_A_ROW, "key", BEGIN_S, char == "m") for char in "mm-mmmm"]

    assert acts == [False, False, False, False, False, True, True]


def test_nothing_is_kept_where_there_is_no_row() -> None:
    """So nobody needs to tell of deliveries."""
    kept = Triggers()
    kept.hit("rule", THREE_IN_A_ROW, "key", BEGIN_S, True)
    kept.hit("rule", THREE_IN_A_ROW, "key", BEGIN_S, False)

    assert kept.cells == 0


# -- a share --


def test_a_share_needs_so_many_answers() -> None:
    """The first refusal is 100 % of one answer; that says nothing."""
    kept = Triggers()

    early = kept.hit("rule", A_TENTH, "key", BEGIN_S, True)
    for _ in range(18):
        kept.hit("rule", A_TENTH, "key", BEGIN_S, False)
    enough = kept.hit("rule", A_TENTH, "key", BEGIN_S, True)

    assert (early, enough) == (False, True)


def test_a_smaller_share_does_not_act() -> None:
    """Two of 21 are less than a tenth."""
    kept = Triggers()
    for matched in (1, *[0] * 19):
        kept.hit("rule", A_TENTH, "key", BEGIN_S, bool(matched))

    assert not kept.hit("rule", A_TENTH, "key", BEGIN_S, True)


@given(st.lists(st.tuples(st.floats(0.0, 120.0), st.booleans()), max_size=120))
def test_a_share_forgets_what_is_older_than_its_time(answers: list[tuple[float, bool]]) -> None:
    """As if all of the slice that is running and of the nineteen before it were kept."""
    slice_s = A_TENTH.within_s / SLICES
    kept, now_s, all_of = Triggers(), BEGIN_S, deque[tuple[int, bool]]()
    for gap_s, matched in answers:
        now_s += gap_s
        all_of.append((int(now_s // slice_s), matched))
        recent = [match for at, match in all_of if int(now_s // slice_s) - at < SLICES]

        acts = kept.hit("rule", A_TENTH, "key", now_s, matched)

        assert acts == (matched and len(recent) >= 20 and sum(recent) >= 0.1 * len(recent))


def test_a_share_that_was_forgotten_counts_anew() -> None:
    """From the next answer on, whether it matches or not."""
    table = triggers.Table(A_TENTH)
    for _ in range(19):
        table.other("a", BEGIN_S)
    table.forget("a")

    table.other("a", BEGIN_S)

    assert table.cells == 2 * SLICES
    assert not table.hit("a", BEGIN_S, True)


def test_a_share_goes_on_when_the_clock_is_set_back() -> None:
    """What was counted is as old as now."""
    kept = Triggers()
    for _ in range(19):
        kept.hit("rule", A_TENTH, "key", BEGIN_S, True)

    assert kept.hit("rule", A_TENTH, "key", BEGIN_S - 86_400.0, True)
    assert not kept.hit("rule", A_TENTH, "key", BEGIN_S - 86_400.0 + 600.0, True)


# -- whatever it is --


@given(KINDS, STEPS)
def test_other_answers_are_counted_as_what_does_not_match(
    trigger: Trigger, steps: list[tuple[float, str, bool]]
) -> None:
    """The cheap way: what acts, what is kept and who is forgotten first are the same."""
    plain, cheap = triggers.Table(trigger), triggers.Table(trigger)
    now_s = BEGIN_S
    for i, (gap_s, key, matched) in enumerate(steps):
        now_s += gap_s
        if i % 5 == 4:
            plain.forget(key)
            cheap.forget(key)
        acts = plain.hit(key, now_s, matched)
        if matched:
            assert cheap.hit(key, now_s, True) == acts
        else:
            cheap.other(key, now_s)

        assert cheap.cells == plain.cells
        assert list(cheap._counters) == list(plain._counters)


@given(KINDS, STEPS, st.data())
def test_the_same_answers_in_any_chunks_act_the_same(
    trigger: Trigger, steps: list[tuple[float, str, bool]], data: st.DataObject
) -> None:
    """Other keys' answers, other rules' and pauses between say nothing of this key."""
    alone, among = Triggers(), Triggers()
    now_s, expected, came = BEGIN_S, list[bool](), list[bool]()
    for gap_s, key, matched in steps:
        now_s += gap_s
        came.append(among.hit("rule", trigger, key, now_s, matched))
        if key == "a":
            expected.append(alone.hit("rule", trigger, "a", now_s, matched))
        if data.draw(st.booleans()):
            among.hit("other", trigger, "a", now_s, True)

    assert [acts for acts, (_, key, _) in zip(came, steps, strict=True) if key == "a"] == expected


@pytest.mark.parametrize("trigger", [TWICE, Trigger(count=1000, within_s=1e6), THREE_IN_A_ROW, A_TENTH])
def test_memory_is_bounded(trigger: Trigger, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys come, and however much of each."""
    monkeypatch.setattr(triggers, "CELLS_MAX", 2_000)
    kept = Triggers()
    for i in range(3_000):
        for _ in range(1 + i % 7 * trigger.count // 5):
            kept.hit("rule", trigger, f"key {i}", BEGIN_S + i, True)

        assert kept.cells <= 2_000
    assert kept.cells >= 1_000


def test_what_is_heard_of_least_lately_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of keys cannot hide the one that goes on."""
    monkeypatch.setattr(triggers, "CELLS_MAX", 10)
    kept = Triggers()
    five = Trigger(count=5, within_s=1e6)
    acts = []
    for i in range(5):
        acts.append(kept.hit("rule", five, "the one", BEGIN_S + i, True))
        kept.hit("rule", five, f"flood {i}", BEGIN_S + i, True)

    assert acts == [False, False, False, False, True]
    assert kept.cells <= 10


def test_a_count_begins_anew_when_it_is_forgotten() -> None:
    """For the rule and key that was cancelled, not for others."""
    kept = Triggers()
    for key in ("a", "b"):
        kept.hit("rule", TWICE, key, BEGIN_S, True)

    kept.forget("rule", "a")

    assert not kept.hit("rule", TWICE, "a", BEGIN_S, True)
    assert kept.hit("rule", TWICE, "b", BEGIN_S, True)


def test_a_reload_keeps_what_rules_that_stay_have_counted() -> None:
    """A rule with another trigger begins anew."""
    kept = Triggers()
    kept.hit("stays", TWICE, "key", BEGIN_S, True)
    kept.hit("goes", TWICE, "key", BEGIN_S, True)

    kept.keep({("stays", TWICE)})

    assert kept.hit("stays", TWICE, "key", BEGIN_S, True)
    assert not kept.hit("goes", TWICE, "key", BEGIN_S, True)
