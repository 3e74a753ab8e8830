"""Gates: whoever waits is woken, the most urgent first, alike ones in turn, and never one too many."""

import asyncio
import math
from collections import Counter
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.delivery.gate import EXPECTED_S, Gate
from mta.testing.stepped_loop import SteppedLoop


class Connections:
    """A limit of open connections."""

    def __init__(self, loop: SteppedLoop, most: int) -> None:
        self.loop = loop
        self.most = most
        self.open = 0
        self.open_max = 0
        self.gate = Gate(cast(asyncio.AbstractEventLoop, loop), lambda now_s: math.inf if self.open >= self.most else 0)


class Connection:
    """One that opens at once and closes when it is told or has done its work."""

    def __init__(self, pool: "FakePool") -> None:
        self.pool = pool
        self.is_leaving = False

    def leave(self) -> None:
        if not self.is_leaving:
            self.is_leaving = True
            for limit in self.pool.limits:
                limit.gate.leaving(self)

    def close(self) -> None:
        self.pool.connections.remove(self)
        for limit in self.pool.limits:
            limit.open -= 1
        for limit in self.pool.limits:
            limit.gate.gone(self)
        self.pool.pump()


class FakePool:
    """Wants a connection for every job; a job is done when the test says so."""

    def __init__(self, name: str, limits: list[Connections], log: list[str]) -> None:
        self.name = name
        self.limits = limits
        self.log = log
        self.jobs: list[int] = []
        self.waits: dict[Gate, int] = {}
        self.connections: list[Connection] = []

    def push(self, priority: int = 5) -> None:
        self.jobs.append(priority)
        self.jobs.sort(reverse=True)
        self.pump()

    def granted(self, gate: Gate) -> None:
        self.pump(gate)

    def pump(self, granted: Gate | None = None) -> None:
        while self.jobs:
            now_s = self.limits[0].loop.now_s
            if any(limit.gate.stops(self, self.jobs[0], now_s, granted) for limit in self.limits):
                return
            granted = None
            self.jobs.pop(0)
            self.log.append(self.name)
            self.connections.append(Connection(self))
            for limit in self.limits:
                limit.open += 1
                limit.open_max = max(limit.open_max, limit.open)
        for gate in list(self.waits):
            gate.leave(self)


@pytest.fixture
def loop() -> SteppedLoop:
    return SteppedLoop()


def test_alike_ones_in_turn(loop: SteppedLoop):
    """Whoever waited longest has the place, and waits again behind the others."""
    limit, log = Connections(loop, 1), []
    pools = [FakePool(name, [limit], log) for name in "abc"]
    for pool in pools:
        for _ in range(3):
            pool.push()

    while any(pool.jobs for pool in pools):
        next(pool for pool in pools if pool.connections).connections[0].close()
        loop.settle()

    assert "".join(log) == "a" + "abc" + "abc" + "bc"  # a waited before the others came
    assert limit.open_max == 1


def test_the_most_urgent_first(loop: SteppedLoop):
    """Whenever it came."""
    limit, log = Connections(loop, 1), []
    first, second, urgent = (FakePool(name, [limit], log) for name in ("first", "second", "urgent"))
    for pool in (first, first, second):
        pool.push()
    urgent.push(9)

    first.connections[0].close()

    assert log == ["first", "urgent"]


def test_a_pool_that_became_urgent_moves_ahead(loop: SteppedLoop):
    """And back again when its urgent mail is gone."""
    limit, log = Connections(loop, 1), []
    a, b, c = (FakePool(name, [limit], log) for name in "abc")
    for pool in (a, b, c):
        pool.push()
    c.push(9)

    a.connections[0].close()
    c.connections[0].close()
    b.connections[0].close()

    assert log == ["a", "c", "b", "c"]


def test_who_has_nothing_to_send_any_more_keeps_nobody(loop: SteppedLoop):
    """Its place in the line is gone."""
    limit, log = Connections(loop, 1), []
    a, b, c = (FakePool(name, [limit], log) for name in "abc")
    for pool in (a, b, c):
        pool.push()
    b.jobs.clear()
    b.pump()
    limit.gate.leave(b)

    a.connections[0].close()

    assert log == ["a", "c"]
    assert limit.gate.waiting == 0


def test_idle_connections_make_room_as_many_as_are_needed(loop: SteppedLoop):
    """Three idle, two wait: the two that were idle longest leave."""
    limit, log = Connections(loop, 3), []
    holder = FakePool("holder", [limit], log)
    for _ in range(3):
        holder.push()
    for connection in holder.connections:
        limit.gate.idle(connection)

    FakePool("a", [limit], log).push()
    FakePool("b", [limit], log).push()

    assert [connection.is_leaving for connection in holder.connections] == [True, True, False]
    assert log == ["holder"] * 3
    for connection in holder.connections[:2]:
        connection.close()
    assert log == ["holder"] * 3 + ["a", "b"]


def test_one_that_becomes_idle_makes_room_for_who_waits(loop: SteppedLoop):
    """But not while one that leaves already will do."""
    limit, log = Connections(loop, 2), []
    holder = FakePool("holder", [limit], log)
    holder.push()
    holder.push()
    FakePool("a", [limit], log).push()

    limit.gate.idle(holder.connections[0])
    limit.gate.idle(holder.connections[1])

    assert [connection.is_leaving for connection in holder.connections] == [True, False]


@pytest.mark.parametrize(
    ("waits", "own", "had_turn", "wanted"),
    [(5, 5, False, False), (5, 5, True, True), (9, 5, False, True), (4, 5, True, False), (0, -1, False, True)],
)
def test_whether_a_busy_connection_should_make_room(
    loop: SteppedLoop, waits: int, own: int, had_turn: bool, wanted: bool
):
    """For more urgent mail at once, for mail as urgent after its turn."""
    limit, log = Connections(loop, 1), []
    holder, other = FakePool("holder", [limit], log), FakePool("other", [limit], log)
    holder.push()
    other.push(waits)

    assert limit.gate.wants(holder, own, had_turn, 0.0) is wanted


def test_nobody_makes_room_for_himself(loop: SteppedLoop):
    """A pool that alone waits for one more connection keeps those that it has."""
    limit, log = Connections(loop, 1), []
    holder = FakePool("holder", [limit], log)
    holder.push()
    holder.push()

    assert limit.gate.waiting == 1
    assert limit.gate.wants(holder, 5, True, 0.0) is False


def test_who_waits_for_a_rate_is_woken_when_its_time_has_come(loop: SteppedLoop):
    """Also where the time becomes an earlier one meanwhile."""
    until_s = 100.0
    gate = Gate(cast(asyncio.AbstractEventLoop, loop), lambda now_s: max(0.0, until_s - now_s))
    limit, log = Connections(loop, 10), []
    limit.gate = gate
    a, b = FakePool("a", [limit], log), FakePool("b", [limit], log)
    a.push()

    until_s = 10.0
    b.push()
    loop.wait(9.0)
    early = list(log)
    loop.wait(1.0)
    loop.wait(0.0)

    assert early == []
    assert log == ["a", "b"]


def test_a_pool_that_reads_its_mail_keeps_its_turn(loop: SteppedLoop):
    """The others wait until it is back, and no longer than a moment when it is not."""
    limit, log = Connections(loop, 1), []
    a, b = FakePool("a", [limit], log), FakePool("b", [limit], log)

    limit.gate.expect(a)
    b.push()
    loop.wait(EXPECTED_S / 2)
    before = list(log)
    a.push()
    loop.wait(0.0)
    a.connections[0].close()
    loop.wait(0.0)
    limit.gate.expect(a)
    FakePool("c", [limit], log).push()
    b.connections[0].close()
    loop.wait(EXPECTED_S)
    loop.wait(0.0)

    assert before == []
    assert log == ["a", "b", "c"]


def test_an_error_in_one_pool_does_not_stop_the_others(loop: SteppedLoop):
    """They are woken with the next turn."""
    limit, log = Connections(loop, 1), []
    holder, broken, good = (FakePool(name, [limit], log) for name in ("holder", "broken", "good"))
    for pool in (holder, broken, good):
        pool.push()

    def fail(gate: Gate) -> None:
        raise RuntimeError

    broken.granted = fail
    with pytest.raises(RuntimeError):
        holder.connections[0].close()
    loop.wait(0.0)

    assert log == ["holder", "good"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["push", "close", "turn"]), st.integers(0, 7), st.integers(0, 9)), max_size=80
)


@given(STEPS, st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=200)
def test_limits_hold_and_nobody_is_forgotten(steps: list[tuple[str, int, int]], per_source: int, over_all: int):
    """Whatever comes and goes: never one too many at either gate, and in the end everybody was served."""
    loop, log = SteppedLoop(), []
    provider = Connections(loop, over_all)
    sources = [Connections(loop, per_source) for _ in range(2)]
    pools = [FakePool(str(number), [sources[number % 2], provider], log) for number in range(8)]
    wanted: Counter[str] = Counter()

    for step, number, priority in steps:
        pool = pools[number]
        if step == "push":
            wanted[pool.name] += 1
            pool.push(priority)
        elif step == "close" and pool.connections:
            pool.connections[0].close()
        else:
            loop.wait(0.0)
    for _ in range(20 * len(steps) + 20):
        loop.wait(0.0)
        for pool in pools:
            for connection in list(pool.connections):
                connection.close()

    assert Counter(log) == wanted
    assert provider.open_max <= over_all
    assert all(source.open_max <= per_source for source in sources)
    assert all(limit.gate.waiting == 0 for limit in (provider, *sources))
