"""Reservations: however workers, messages between them, crashes and saved states interleave, no limit is passed; and
what is allowed can be had."""

import math
from collections import deque
from collections.abc import Sequence
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_policies import leases
from mta_policies.cross_limit import CrossLimit, limit_of
from mta_policies.leases import LEASE_S, REPORT_S_MAX, Lease, Ledger
from mta_policies.local_time import period
from mta_policies.quota import State
from mta_policies.reservations import Ask, Report, Reservations
from mta_policies.schema import Quota
from mta_policies.units import Rate
from mta_policies.windows import window

START_S = 1000.0
HOUR_END_S = 1_800_000_000.0  # on the wall
WALL_S = HOUR_END_S - 2400.0
KEY = "tenant shop"


class Machine:
    """Some workers, of which the first owns all keys, and the messages between them, each pair's in order."""

    def __init__(self, limits: Sequence[CrossLimit], workers: int = 3, hour_ends_s: float = 2400.0) -> None:
        self.limits = limits
        self.wall_ahead_s = HOUR_END_S - START_S - hour_ends_s
        self.now_s = START_S
        self.ledger = Ledger(limits, ZoneInfo, self.now_s, is_fresh=True)
        self.names = [f"w{i}" for i in range(workers)]
        self.holders = {name: Reservations(limits) for name in self.names}
        self.to_owner: dict[str, deque[Ask | Report]] = {name: deque() for name in self.names}
        self.to_worker: dict[str, deque[Lease]] = {name: deque() for name in self.names}
        self.flying: dict[str, State] = {}
        self.disk: dict[str, State] = {}
        self.uses: list[tuple[str, float]] = []
        self.owners = 1

    @property
    def wall_s(self) -> float:
        return self.wall_ahead_s + self.now_s

    def send(self, at: int, keys: Sequence[str], most: int) -> int:
        """As many messages as go now."""
        sent = 0
        holder = self.holders[self.names[at]]
        while sent < most and holder.reserve(keys, self.now_s) == 0.0:
            self.uses += [(key, self.now_s) for key in keys]
            sent += 1
        return sent

    def talk(self, at: int) -> None:
        """A worker says what it has to say; it is on its way then."""
        name = self.names[at]
        self.to_owner[name].extend(self.holders[name].asks(self.now_s))
        self.to_owner[name].extend(self.holders[name].reports(self.now_s))

    def hear(self, at: int, count: int) -> None:
        """So many of a worker's messages arrive at the owner, which lends what it can."""
        name = self.names[at]
        for _ in range(min(count, len(self.to_owner[name]))):
            told = self.to_owner[name].popleft()
            if isinstance(told, Ask):
                self.ledger.ask(name, told.key, told.wanted, self.now_s, self.wall_s)
            else:
                is_done = told.is_done
                self.ledger.report(name, told.lease, told.key, told.spent, self.now_s, self.wall_s, is_done=is_done)
        self.serve()

    def serve(self) -> None:
        for name, lease in self.ledger.serve(self.now_s, self.wall_s):
            if name in self.to_worker:
                self.to_worker[name].append(lease)

    def grant(self, at: int, count: int) -> None:
        """So many leases arrive at a worker."""
        name = self.names[at]
        for _ in range(min(count, len(self.to_worker[name]))):
            self.holders[name].granted(self.to_worker[name].popleft(), self.now_s)

    def save(self) -> None:
        self.flying |= self.ledger.to_save(self.wall_s)

    def saved(self) -> None:
        self.disk |= self.flying
        self.ledger.saved(self.flying)
        self.flying = {}

    def kill(self, at: int) -> None:
        """A worker that owns nothing dies; another one comes in its place, and the owner hears of it."""
        old, new = self.names[at], self.names[at] + "x"
        del self.to_owner[old], self.to_worker[old], self.holders[old]
        self.to_owner[new], self.to_worker[new] = deque(), deque()
        self.names[at] = new
        self.holders[new] = Reservations(self.limits)
        self.ledger.died(old, self.now_s, self.wall_s)

    def kill_owner(self) -> None:
        """The owner dies, with all that is on its way to it."""
        self.owners += 1
        self.ledger = Ledger(self.limits, ZoneInfo, self.now_s, first_id=self.owners * 1_000_000)
        self.ledger.load(self.disk)
        self.flying = {}
        for queue in self.to_owner.values():
            queue.clear()

    def step(self, what: str, at: int) -> None:
        match what:
            case "talk":
                self.talk(at)
            case "hear":
                self.hear(at, 1000)
            case _:
                self.grant(at, 1000)

    def turn(self, step_s: float = 0.01) -> None:
        """All is said, saved and heard, and a little time passes."""
        for at in range(len(self.names)):
            self.talk(at)
            self.hear(at, 1000)
        self.save()
        self.saved()
        self.serve()
        for at in range(len(self.names)):
            self.grant(at, 1000)
        self.now_s += step_s


def _assert_never_above(times: Sequence[float], rate: Rate) -> None:
    """In no window more than the burst and the rate times its length."""
    burst, best = max(1.0, rate.per_second), -math.inf
    for i, at_s in enumerate(times):
        best = max(best, rate.per_second * (at_s - times[0]) - i)
        in_window = i + 1 + best - rate.per_second * (at_s - times[0])
        assert in_window <= burst + 1e-3 * (1 + rate.per_second), (i, at_s)


def _assert_quota(times: Sequence[float], quota: Quota, wall_ahead_s: float) -> None:
    used: dict[float, int] = {}
    for at_s in times:
        start_s, _ = period(quota.per, ZoneInfo(quota.zone), wall_ahead_s + at_s)
        used[start_s] = used.get(start_s, 0) + 1
    assert all(count <= quota.count for count in used.values())


STEPS = ("talk", "hear", "grant")
ROUNDS = 60


def _limit(chance: Random) -> CrossLimit:
    count = chance.choice([0, 1, 1, 2])
    rates = tuple(Rate(chance.choice([1, 7, 60, 200]), chance.choice([1, 1, 60, 3600])) for _ in range(count))
    quota = Quota(chance.choice([3, 40, 900, 5000]), "hour") if not rates or chance.random() < 0.3 else None
    return CrossLimit("tenant", "*", rates, quota)


@settings(max_examples=250)
@given(st.integers(0, 2**32))
def test_no_interleaving_of_workers_passes_a_limit(seed: int):
    """Asks, leases, reports and saves as late as may be; workers and the owner killed at any moment."""
    chance = Random(seed)
    limit = _limit(chance)
    machine = Machine([limit], hour_ends_s=chance.choice([1.0, 3.0, 2400.0]))
    pauses_s = chance.choice([(0.0, 0.01, 0.05), (0.05, 0.3, 1.0), (0.05, 0.9, LEASE_S, 5.0), (0.0, 0.3, 1200.0)])
    late, deadly = chance.choice([0.0, 0.2, 0.6]), chance.choice([0.0, 0.05, 0.3])
    for _ in range(ROUNDS):
        for at in range(3):
            for step in STEPS:
                if chance.random() >= late:
                    machine.step(step, at)
            # Also between two steps of others: what was lent a moment ago is used, or not yet.
            machine.send(at, [KEY], chance.choice([0, 1, 1000, 1000]))
        if chance.random() >= late:
            machine.saved()
        machine.save()
        machine.serve()
        if chance.random() < deadly:
            machine.kill_owner() if chance.random() < 0.3 else machine.kill(chance.randrange(3))
        machine.now_s += chance.choice(pauses_s)

    times = [at_s for _, at_s in machine.uses]
    for rate in limit.rate:
        _assert_never_above(times, rate)
    if limit.quota:
        _assert_quota(times, limit.quota, machine.wall_ahead_s)


@settings(max_examples=25)
@given(st.builds(Rate, st.integers(1, 100), st.sampled_from([1, 60])), st.sampled_from([0.001, 0.02]))
def test_what_is_allowed_can_be_had(rate: Rate, step_s: float):
    """Three workers with endless mail and a quick link get nine tenths of the rate, or one less, and never more."""
    machine = Machine([CrossLimit("tenant", "*", (rate,))])
    length_s = 10.0 if rate.per_second > 2 else 120.0
    step_s = max(step_s, length_s / 4000)

    while machine.now_s < START_S + length_s:
        machine.turn(step_s)
        for at in range(3):
            machine.send(at, [KEY], 1000)

    times = [at_s for _, at_s in machine.uses]
    _assert_never_above(times, rate)
    assert len(times) >= 0.9 * rate.per_second * length_s - 1


def test_workers_share_in_turns():
    """Each of three that want more than there is gets about a third."""
    machine = Machine([CrossLimit("tenant", "*", (Rate(30, 1),))])
    sent = [0, 0, 0]

    for _ in range(2000):
        machine.turn()
        for at in range(3):
            sent[at] += machine.send(at, [KEY], 1000)

    assert min(sent) > 0.8 * max(sent)


def test_what_one_does_not_use_another_gets():
    """A worker that asked and has nothing to send any more gives back what it was lent."""
    machine = Machine([CrossLimit("tenant", "*", (), Quota(10, "day"))], workers=2)
    machine.send(0, [KEY], 1)
    for _ in range(100):
        machine.turn()

    sent = 0
    for _ in range(100):
        sent += machine.send(1, [KEY], 100)
        machine.turn()

    assert sent == 10


def test_all_keys_or_none():
    """While the campaign has nothing left the tenant's tokens are not used up."""
    limits = [CrossLimit("tenant", "*", (), Quota(10, "day")), CrossLimit("campaign", "*", (), Quota(2, "day"))]
    machine = Machine(limits, workers=1)
    keys = [KEY, "campaign shop/spring"]

    for _ in range(200):
        machine.send(0, keys, 100)
        machine.turn()
    both = len(machine.uses)
    alone = 0
    for _ in range(200):
        alone += machine.send(0, [KEY], 100)
        machine.turn()

    assert both == 4
    assert alone == 8


def test_what_was_reserved_and_not_sent_comes_back():
    """`returned` before a report: the token goes to another message."""
    machine = Machine([CrossLimit("tenant", "*", (), Quota(1, "day"))], workers=1)
    machine.send(0, [KEY], 1)
    for _ in range(5):
        machine.turn()
    holder = machine.holders["w0"]

    first = holder.reserve([KEY], machine.now_s)
    holder.returned([KEY], machine.now_s)
    second = holder.reserve([KEY], machine.now_s)

    assert (first, second) == (0.0, 0.0)
    assert holder.reserve([KEY], machine.now_s) > 0


def test_what_a_killed_worker_did_not_report_is_used():
    """Nobody knows: a hundredth of the quota at most is lost."""
    ledger = Ledger([CrossLimit("tenant", "*", (), Quota(1000, "day"))], ZoneInfo, START_S, is_fresh=True)
    ledger.ask("w1", KEY, 100, START_S, WALL_S)
    ledger.saved(ledger.to_save(WALL_S))
    [(_, lease)] = ledger.serve(START_S, WALL_S)
    ledger.report("w1", lease.id, KEY, 3, START_S, WALL_S, is_done=False)

    ledger.died("w1", START_S + 1, WALL_S + 1)

    assert lease.count == 10
    assert sum(ledger.state(WALL_S + 1)[KEY].values()) == 10


def test_a_lease_of_which_nothing_is_heard_is_used_up():
    """And a report that comes after that is not heard."""
    ledger = Ledger([CrossLimit("tenant", "*", (Rate(1, 60),))], ZoneInfo, START_S, is_fresh=True)
    ledger.ask("w1", KEY, 1, START_S, WALL_S)
    [(_, lease)] = ledger.serve(START_S, WALL_S)
    ledger.ask("w2", KEY, 1, START_S, WALL_S)
    late_s = START_S + LEASE_S + REPORT_S_MAX + 0.1

    served = ledger.serve(late_s, WALL_S)
    ledger.report("w1", lease.id, KEY, 0, late_s, WALL_S, is_done=True)

    assert served == ledger.serve(late_s, WALL_S) == []
    assert len(ledger.serve(late_s + 60, WALL_S)) == 1


def test_a_new_owner_waits_for_the_leases_of_the_old_one():
    """And goes on with the quota as it was saved."""
    limit = CrossLimit("tenant", "*", (), Quota(100, "day"))
    ledger = Ledger([limit], ZoneInfo, START_S)
    ledger.load({KEY: {str(int(period("day", ZoneInfo("UTC"), WALL_S)[0])): 95}})
    ledger.ask("w1", KEY, 100, START_S, WALL_S)
    ledger.saved(ledger.to_save(WALL_S))

    assert ledger.serve(START_S, WALL_S) == []
    assert ledger.next_s(START_S) == START_S + LEASE_S
    [(_, lease)] = ledger.serve(START_S + LEASE_S, WALL_S)
    assert lease.count == 1


def test_a_report_about_a_former_owners_lease_is_not_heard():
    """The leases of a new owner have other numbers: nothing of them comes back by it."""
    limit = CrossLimit("tenant", "*", (Rate(1, 60),))
    old = Ledger([limit], ZoneInfo, START_S, is_fresh=True)
    old.ask("w1", KEY, 1, START_S, WALL_S)
    [(_, lease)] = old.serve(START_S, WALL_S)
    new = Ledger([limit], ZoneInfo, START_S, is_fresh=True, first_id=1000)
    new.ask("w2", KEY, 1, START_S, WALL_S)
    new.serve(START_S, WALL_S)

    new.report("w1", lease.id, KEY, 0, START_S, WALL_S, is_done=True)
    new.ask("w1", KEY, 1, START_S, WALL_S)

    assert new.serve(START_S, WALL_S) == []


def test_whoever_waits_is_told_for_what():
    """Once: for the next of a slow rate, for another day, for the hours; not where others have the tokens."""
    hours = window("00:00-00:01 UTC")
    for limit, why, wait_s in (
        (CrossLimit("tenant", "*", (Rate(1, 60),)), "rate", 60.0),
        (CrossLimit("tenant", "*", (), Quota(1, "hour")), "quota", 2400.0),
        (CrossLimit("tenant", "*", (), None, (hours,)), "window", None),
    ):
        ledger = Ledger([limit], ZoneInfo, START_S, is_fresh=True)
        ledger.ask("w1", KEY, 1, START_S, WALL_S)
        ledger.saved(ledger.to_save(WALL_S))
        for _, lease in ledger.serve(START_S, WALL_S):
            assert ledger.shut() == []
            ledger.ask("w2", KEY, 1, START_S, WALL_S)
            assert ledger.serve(START_S + 0.1, WALL_S) == []
            assert ledger.shut() == []
            ledger.report("w1", lease.id, KEY, 1, START_S + 0.1, WALL_S, is_done=True)
            assert ledger.serve(START_S + 0.1, WALL_S) == []

        told = ledger.shut()
        ledger.ask("w2", KEY, 1, START_S + 1, WALL_S + 1)
        ledger.serve(START_S + 1, WALL_S + 1)

        assert [shut.why for _, shut in told] == [why]
        assert wait_s is None or told[0][1].until_s == pytest.approx(WALL_S + wait_s)
        assert ledger.shut() == [] or why == "window"


def test_many_who_wait_cost_no_more_than_those_it_is_time_for():
    """Whose turn has not come is not looked at."""
    ledger = Ledger([CrossLimit("campaign", "*", (Rate(1, 3600),))], ZoneInfo, START_S, is_fresh=True)
    for i in range(500):
        ledger.ask("w1", f"campaign shop/{i}", 2, START_S, WALL_S)
    ledger.serve(START_S, WALL_S)
    looked: list[str] = []
    serve = ledger._serve
    ledger._serve = lambda name, *more: (looked.append(name), serve(name, *more))[1]  # type: ignore[method-assign]

    ledger.ask("w2", "campaign shop/7", 1, START_S + 0.1, WALL_S)
    ledger.serve(START_S + 0.1, WALL_S)

    assert looked == ["campaign shop/7"]


def test_a_lease_ends_with_the_day_and_the_window():
    """Nothing of one day's quota is used on the next, nothing outside the hours."""
    limit = CrossLimit("tenant", "*", (), Quota(100, "day"), (window("00:00-23:59 UTC"),))
    ledger = Ledger([limit], ZoneInfo, START_S, is_fresh=True)
    closing_s = period("day", ZoneInfo("UTC"), WALL_S)[1] - 60
    ledger.ask("w1", KEY, 1, START_S, closing_s - 0.5)
    ledger.saved(ledger.to_save(closing_s - 0.5))

    [(_, lease)] = ledger.serve(START_S, closing_s - 0.5)
    ledger.ask("w2", KEY, 1, START_S, closing_s)

    assert lease.until_s == pytest.approx(START_S + 0.5)
    assert ledger.serve(START_S, closing_s) == []


def test_the_longest_name_that_matches_holds():
    """An exact name before patterns, a longer pattern before a shorter one; none where none matches."""
    limits = [CrossLimit("tenant", "*"), CrossLimit("tenant", "shop"), CrossLimit("tenant", "shop-*")]

    assert limit_of(limits, "tenant shop") == limits[1]
    assert limit_of(limits, "tenant shop-eu") == limits[2]
    assert limit_of(limits, "tenant other") == limits[0]
    assert limit_of(limits, "source out-1") is None
    assert Reservations(limits).limited(["tenant x", "source out-1"]) == ("tenant x",)


def test_a_reload_keeps_what_was_used():
    """Half the quota is used: of a smaller one less is left; a limit that is gone holds nobody."""
    ledger = Ledger([CrossLimit("tenant", "*", (), Quota(100, "day"))], ZoneInfo, START_S, is_fresh=True)
    for _ in range(50):
        ledger.ask("w1", KEY, 1, START_S, WALL_S)
        ledger.saved(ledger.to_save(WALL_S))
        [(_, lease)] = ledger.serve(START_S, WALL_S)
        ledger.report("w1", lease.id, KEY, 1, START_S, WALL_S, is_done=True)

    ledger.change([CrossLimit("tenant", "*", (), Quota(50, "day"))], START_S, WALL_S)
    ledger.ask("w1", KEY, 1, START_S, WALL_S)
    ledger.saved(ledger.to_save(WALL_S))

    assert ledger.serve(START_S, WALL_S) == []
    ledger.change([], START_S, WALL_S)
    assert len(ledger) == 0


def test_a_reload_uses_up_bursts_of_new_limits_alone():
    """What a limit that was there would lend it lends after a reload, too."""
    slow, other = CrossLimit("tenant", "*", (Rate(1, 3600),)), CrossLimit("source", "*", (Rate(1, 3600),))
    ledger = Ledger([slow], ZoneInfo, START_S, is_fresh=True)

    ledger.change([other, slow], START_S, WALL_S)
    for key in (KEY, "source out-1"):
        ledger.ask("w1", key, 1, START_S, WALL_S)

    assert [lease.key for _, lease in ledger.serve(START_S, WALL_S)] == [KEY]


def test_a_period_that_the_clock_brings_back_is_not_fresh():
    """Its account was forgotten meanwhile, for nothing was used of the hour that it was then."""
    ledger = Ledger([CrossLimit("tenant", "*", (), Quota(1, "hour"))], ZoneInfo, START_S, is_fresh=True)
    ledger.ask("w1", KEY, 1, START_S, WALL_S)
    ledger.saved(ledger.to_save(WALL_S))
    [(_, lease)] = ledger.serve(START_S, WALL_S)
    ledger.report("w1", lease.id, KEY, 1, START_S, WALL_S, is_done=True)
    ledger.serve(START_S + 100, WALL_S - 3600)
    forgotten = len(ledger)

    ledger.ask("w1", KEY, 1, START_S + 101, WALL_S + 101)
    ledger.saved(ledger.to_save(WALL_S + 101))

    assert forgotten == 0
    assert ledger.serve(START_S + 101, WALL_S + 101) == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """Keys beyond the most share an account; keys that are idle are forgotten, used quotas are not."""
    monkeypatch.setattr(leases, "ACCOUNTS_MAX", 10)
    limits = [CrossLimit("campaign", "*", (Rate(10, 1),)), CrossLimit("tenant", "*", (), Quota(10, "day"))]
    ledger = Ledger(limits, ZoneInfo, START_S, is_fresh=True)
    ledger.ask("w1", KEY, 1, START_S, WALL_S)
    ledger.saved(ledger.to_save(WALL_S))
    [(_, kept)] = ledger.serve(START_S, WALL_S)
    ledger.report("w1", kept.id, KEY, 1, START_S, WALL_S, is_done=True)

    for i in range(100):
        ledger.ask("w1", f"campaign shop/{i}", 1, START_S, WALL_S)
    served = ledger.serve(START_S, WALL_S)
    for _, lease in served:
        ledger.report("w1", lease.id, lease.key, 1, START_S, WALL_S, is_done=True)
    most = len(ledger)
    for i in range(100):
        ledger.ask("w1", f"campaign shop/{i}", 0, START_S, WALL_S)
    ledger.serve(START_S + 1000, WALL_S + 1000)

    assert most == 11
    assert len(served) == 9 + 10
    assert len(ledger) == 1
