"""Firings: extended and never stacked, cancelled, muted, kept; told to others in any order they agree; a clock that
jumps leaves nothing in force for longer than it was made for."""

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.answers import Answer
from mta_policies.firing import Change, Firing, Snapshot
from mta_policies.firings import ENDED_MAX, FIRINGS_MAX, FOR_S, Firings
from mta_policies.rulebook import Action
from mta_policies.units import Rate

START_S = 1_800_000_000.0
YEAR_S = 365 * 86400.0
KEY = "source out-1 > google"
TOO_FAST = Answer(421, "4.7.28", "unusual rate " + "x" * 1000, "content", "mx.google.com")
SUSPEND = Action("suspend", for_s=3600.0, scope="source")
SLOW = Action("slow", for_s=600.0, rate=(Rate(1, 60),))


def _fire(firings: Firings, now_s: float, action: Action = SUSPEND, key: str = KEY, name: str = "f1") -> Change:
    return firings.fire("google", "too-fast", action, key, TOO_FAST, now_s, name)


def _firing(change: Change | None) -> Firing:
    assert change is not None
    assert change.firing is not None
    return change.firing


def test_what_fires_holds_for_its_key_and_time():
    """From the moment it fired until its time is over, for its scope key and no other."""
    firings = Firings()

    change = _fire(firings, START_S)

    firing = _firing(change)
    assert (change.what, change.is_event) == ("fired", True)
    assert change.why.startswith("421 4.7.28 unusual rate")
    assert len(firing.reply.text) == 300
    assert firings.for_keys(["site x > google", KEY], START_S) == [firing]
    assert firings.for_keys(["source out-2 > google"], START_S) == []
    assert firings.in_force(START_S + 3599) == [firing]
    assert firings.in_force(START_S + 3600) == []
    assert firings.next_end_s() == START_S + 3600


def test_one_in_force_is_extended_not_stacked():
    """The same rule, action and key again: one firing, whose end moves; a small move is no event."""
    firings = Firings()
    _fire(firings, START_S)

    hit = _fire(firings, START_S + 60, name="f2")
    extended = _fire(firings, START_S + 1800, name="f3")

    assert (hit.what, hit.is_event) == ("hit", False)
    assert extended.what == "extended"
    firing = _firing(extended)
    assert (firing.id, firing.hits, firing.since_s) == ("f1", 3, START_S)
    assert firing.until_s == START_S + 1800 + 3600
    assert len(firings) == 1


def test_another_rule_action_or_key_is_another_firing():
    """They hold side by side; the key finds them all."""
    firings = Firings()

    _fire(firings, START_S)
    _fire(firings, START_S, SLOW, name="f2")
    _fire(firings, START_S, key="site x > google", name="f3")

    assert [firing.id for firing in firings.for_keys([KEY], START_S)] == ["f1", "f2"]
    assert len(firings.of_rule("google", "too-fast")) == 3


def test_it_ends_once():
    """When its time is over `expire` says so, one time; extended ones wait for their new end."""
    firings = Firings()
    _fire(firings, START_S)
    _fire(firings, START_S + 1800)

    assert firings.expire(START_S + 3600) == []
    ended = firings.expire(START_S + 5400)

    assert [(change.what, change.by) for change in ended] == [("ended", "clock")]
    assert firings.expire(START_S + 5401) == []
    assert len(firings) == 0
    assert firings.next_end_s() == math.inf


def test_a_recovery_that_fails_lasts_its_whole_time_from_there():
    """A step that went well moves no end, a failed one moves it as a match would, for whoever hears of it; what is over
    stays so."""
    firings, others = Firings(), Firings()
    probe = Action("probe", for_s=3600.0, scope="source")
    others.apply(_fire(firings, START_S, probe), START_S)

    well = firings.step("f1", {"since_s": START_S + 600}, START_S + 600, "one connection is tried")
    failed = firings.step("f1", {"since_s": START_S + 3000}, START_S + 3000, "refused again", has_failed=True)

    assert _firing(well).until_s == START_S + 3600
    assert (_firing(failed).until_s, _firing(failed).length_s) == (START_S + 6600, 3600)
    assert failed is not None
    assert others.apply(failed, START_S + 3001)
    for each in (firings, others):
        assert each.expire(START_S + 6599) == []
        late = each.step("f1", {"since_s": START_S + 6600}, START_S + 6600, "refused again", has_failed=True)
        assert _firing(late).until_s == START_S + 6600
        assert [change.what for change in each.expire(START_S + 6600)] == ["ended"]


def test_what_lasts_without_a_time_has_a_default_one():
    """An action without `for` lasts as long as its kind does."""
    firings = Firings()

    for i, (name, length_s) in enumerate(FOR_S.items()):
        firing = _firing(_fire(firings, START_S, Action(name), name=f"f{i}"))  # type: ignore[arg-type]
        assert firing.until_s == START_S + length_s


def test_an_admin_cancels_and_it_may_fire_again():
    """Cancelled is gone; who did it and why is told; the next match makes a new one."""
    firings = Firings()
    _fire(firings, START_S)

    change = firings.cancel("f1", START_S + 1, "alice", "the provider said sorry")

    assert change is not None
    assert (change.what, change.by, change.why) == ("cancelled", "command: alice", "the provider said sorry")
    assert firings.in_force(START_S + 1) == []
    assert firings.cancel("f1", START_S + 2, "alice") is None
    assert _fire(firings, START_S + 3, name="f2").what == "fired"


@pytest.mark.parametrize("until_s", [START_S + 10, START_S + 7 * 86400.0])
def test_an_admin_sets_another_end(until_s: float):
    """Earlier or later than the rule said; `expire` keeps to it."""
    firings = Firings()
    _fire(firings, START_S)

    change = firings.extend("f1", until_s, START_S + 5, "alice")

    assert _firing(change).by == "command: alice"
    assert firings.next_end_s() <= until_s
    assert firings.expire(until_s - 1) == []
    assert [each.what for each in firings.expire(until_s)] == ["ended"]


def test_a_muted_rule_is_seen_and_has_no_effect():
    """Firings of a muted rule, those to come too, are listed and not in force; when the mute is over they are."""
    firings = Firings()
    _fire(firings, START_S)

    change = firings.mute("google/too-fast", START_S + 600, START_S, "alice")
    _fire(firings, START_S + 1, key="source out-2 > google", name="f2")

    assert change.what == "muted"
    assert len(firings.all()) == 2
    assert firings.in_force(START_S + 2) == []
    assert firings.next_end_s() == START_S + 600
    assert [each.what for each in firings.expire(START_S + 600)] == ["unmuted"]
    assert len(firings.in_force(START_S + 600)) == 2


def test_a_mute_of_one_firing_leaves_the_others():
    """Muted by id: this rule for this key, also when it fires anew; a time that is over unmutes."""
    firings = Firings()
    _fire(firings, START_S)
    _fire(firings, START_S, key="source out-2 > google", name="f2")

    firings.mute("f1", START_S + 600, START_S, "alice")
    firings.cancel("f1", START_S, "alice")
    _fire(firings, START_S + 1, name="f3")
    only = [firing.id for firing in firings.in_force(START_S + 2)]
    change = firings.mute("f3", 0.0, START_S + 3, "alice")

    assert only == ["f2"]
    assert change.what == "unmuted"
    assert sorted(firing.id for firing in firings.in_force(START_S + 3)) == ["f2", "f3"]


def test_a_rule_of_another_policy_is_not_muted():
    """POLICY/RULE means that policy's; the bare name means every policy's."""
    firings = Firings()
    _fire(firings, START_S)

    firings.mute("yahoo/too-fast", START_S + 600, START_S, "alice")
    still = firings.in_force(START_S)
    firings.mute("too-fast", START_S + 600, START_S, "alice")

    assert len(still) == 1
    assert firings.in_force(START_S) == []


def test_all_survives_a_restart():
    """What is dumped can be written as JSON, and loaded it is the same."""
    firings = Firings()
    _fire(firings, START_S)
    firings.step("f1", {"connections": 2.0, "since_s": START_S}, START_S + 5, "2 connections")
    _fire(firings, START_S, SLOW, name="f2")
    firings.mute("f2", START_S + 600, START_S, "alice")

    kept = msgspec.json.encode(firings.dump())
    again = Firings()
    again.load(msgspec.json.decode(kept, type=Snapshot), START_S + 10)

    assert again.dump() == firings.dump()
    assert again.for_keys([KEY], START_S + 10) == firings.for_keys([KEY], START_S + 10)
    assert again.next_end_s() == firings.next_end_s()


def test_what_was_cancelled_elsewhere_does_not_come_back():
    """A hit that was on its way when the admin cancelled is not heard."""
    here, there = Firings(), Firings()
    there.apply(_fire(here, START_S), START_S)
    late = _fire(here, START_S + 1)
    cancelled = there.cancel("f1", START_S + 1, "alice")

    there.apply(late, START_S + 2)
    assert cancelled is not None
    here.apply(cancelled, START_S + 2)

    assert len(here) == len(there) == 0


def test_two_owners_that_fire_at_once_agree():
    """Each made its own firing of the same rule and key: afterwards both have the same one."""
    here, there = Firings(), Firings()
    first, second = _fire(here, START_S, name="f9"), _fire(there, START_S + 0.5, name="f1")

    here.apply(second, START_S + 1)
    there.apply(first, START_S + 1)

    assert here.dump() == there.dump()
    assert [firing.id for firing in here.all()] == ["f9"]
    assert here.all()[0].until_s == START_S + 3600.5


@given(st.data())
def test_whoever_hears_of_all_changes_agrees(data: st.DataObject):
    """Workers fire, step and end for some keys and tell each other, each keeping the order of the others' changes:
    in the end all know the same."""
    workers = [Firings() for _ in range(3)]
    inboxes: list[list[list[Change]]] = [[[] for _ in workers] for _ in workers]
    ids = map(str, itertools.count())
    now_s = START_S
    # A destination has one owner: a key is fired by one worker, and heard of by all.
    for _ in range(data.draw(st.integers(0, 25))):
        now_s += data.draw(st.sampled_from([0.0, 1.0, 700.0]))
        at = data.draw(st.integers(0, 2))
        kind = data.draw(st.sampled_from(["fire", "fire", "step", "end", "hear"]))
        worker, change = workers[at], None
        mine = [firing for firing in worker.all() if firing.key.startswith(f"site {at}")]
        if kind == "fire":
            key = f"site {at}{data.draw(st.sampled_from('ab'))} > google"
            change = _fire(worker, now_s, data.draw(st.sampled_from([SUSPEND, SLOW])), key, next(ids))
        elif kind == "step" and mine:
            change = worker.step(mine[0].id, {"since_s": now_s}, now_s, "on")
        elif kind == "end" and mine:
            change = worker.end(mine[0].id, now_s, "well")
        elif kind == "hear":
            other = data.draw(st.integers(0, 2))
            for told in inboxes[at][other][:2]:
                worker.apply(told, now_s)
            del inboxes[at][other][:2]
        if change is not None:
            for i, inbox in enumerate(inboxes):
                if i != at:
                    inbox[at].append(change)

    for worker, inbox in zip(workers, inboxes, strict=True):
        for told in itertools.chain.from_iterable(inbox):
            worker.apply(told, now_s)
        worker.expire(now_s)

    assert workers[0].dump() == workers[1].dump() == workers[2].dump()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["fire", "slow", "extend", "mute", "expire", "look", "restart"]),
            st.sampled_from([0.0, 1.0, 60.0, 3600.0, -1.0, -3600.0, YEAR_S, -YEAR_S, 40 * YEAR_S, -40 * YEAR_S]),
        ),
        max_size=30,
    )
)
def test_a_clock_that_jumps_does_no_lasting_harm(steps: list[tuple[str, float]]):
    """Whatever the clock did: a day of right time later nothing is in force or muted that nobody touched since."""
    firings, now_s = Firings(), START_S
    ids = map(str, itertools.count())
    for what, jump_s in steps:
        now_s += jump_s
        match what:
            case "fire":
                _fire(firings, now_s, name=next(ids))
            case "slow":
                _fire(firings, now_s, SLOW, name=next(ids))
            case "extend":
                for firing in firings.all():
                    firings.extend(firing.id, now_s + 7200, now_s, "alice")
            case "mute":
                firings.mute("too-fast", now_s + 7200, now_s, "alice")
            case "expire":
                firings.expire(now_s)
            case "restart":
                snapshot, firings = firings.dump(), Firings()
                firings.load(snapshot, now_s)
            case _:
                firings.in_force(now_s)

    firings.expire(now_s)
    most_s = max((firing.until_s - now_s for firing in firings.all()), default=0.0)
    firings.expire(now_s + 86400)

    assert most_s <= 7200
    assert len(firings) == 0
    assert firings.mutes() == []


def test_memory_is_bounded():
    """Of more firings than anybody can look at the one that ends first goes."""
    firings = Firings()
    for i in range(FIRINGS_MAX + ENDED_MAX + 10):
        _fire(firings, START_S + i, key=f"recipient {i}@x > google", name=f"f{i}")

    assert len(firings) == FIRINGS_MAX
    assert f"f{ENDED_MAX + 9}" not in firings
    assert f"f{ENDED_MAX + 10}" in firings
    assert len(firings._ended) == ENDED_MAX
    assert len(firings._ends) <= 2 * FIRINGS_MAX + 17
