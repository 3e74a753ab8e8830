"""Gates: limits that several pools share, and the order in which pools pass.

A provider's limits hold over all its sites, and a source's over all the sites of a provider. A pool that finds such
a limit reached waits here; when there is room the pool with the most urgent mail goes next, alike ones in turn.
Connections that have nothing to do, or had their turn, make room for another site's mail: as many as pools wait.
"""

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mta_policies.limits import Meter
from mta_queue.timetable import Lane

if TYPE_CHECKING:
    from mta.delivery.calendars import Calendar

TIMER_SLACK_S = 0.001  # a timer is not set anew for less
EXPECTED_S = 1.0  # so long a turn is kept for a pool that has to read its mail first


class Waiter(Protocol):
    """A pool, as a gate knows it."""

    waits: "dict[Gate, int]"
    """Where it waits, and with which priority."""

    def granted(self, gate: "Gate") -> None:
        """There is room at this gate: use it once."""
        ...


class Idler(Protocol):
    """A connection, as a gate knows it."""

    def leave(self) -> None:
        """Say goodbye; its place is free when the peer has closed."""
        ...


class Gate:
    """One shared limit (of transactions, or of connections) and those who wait for it.

    `ask(now_s)` tells how long the limit stays reached: 0.0 not at all, inf until a connection closes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[float], float]) -> None:
        self._loop = loop
        self.ask = ask
        self._waiters: Lane[tuple[int, Waiter]] = Lane()
        self.waiting = 0
        """How many pools wait."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self.expected: Waiter | None = None
        """Whose turn it is, though it has to read its mail first: nobody passes."""
        self._expected_timer: asyncio.TimerHandle | None = None
        self._idle: dict[Idler, None] = {}
        self._leaving: set[Idler] = set()
        self._is_waking = False

    def head_priority(self) -> int:
        """The priority of the most urgent waiting pool, -1 where none waits."""
        while (head := self._waiters.peek()) is not None:
            priority, pool = head
            if pool.waits.get(self) == priority:
                return priority
            self._waiters.pop()  # it waits with another priority, or no more
        return -1

    def stops(self, pool: Waiter, priority: int, now_s: float, granted: "Gate | None") -> bool:
        """Whether a pool has to wait here; if so it is queued and will be `granted`."""
        wait_s = self.ask(now_s)
        if pool is self.expected:
            self._expect(None)
            is_next = True
        else:
            is_next = self.expected is None and (granted is self or self.head_priority() < priority)
        if wait_s <= 0 and is_next:
            return False
        waits = pool.waits.get(self)
        if waits != priority:
            self.waiting += waits is None
            pool.waits[self] = priority
            self._waiters.push(priority, (priority, pool))
        self._arrange(wait_s)
        return True

    def expect(self, pool: Waiter) -> None:
        """A pool passed but has to read its mail first: nobody passes before it comes back, or is late."""
        if self.expected is None:
            self._expect(pool)

    def _expect(self, pool: Waiter | None) -> None:
        if self._expected_timer is not None:
            self._expected_timer.cancel()
        self.expected = pool
        # Whoever waits behind it is woken in any case: at once behind the one that came, or when it does not come.
        self._expected_timer = self._loop.call_later(EXPECTED_S if pool else 0.0, self._on_expected)

    def _on_expected(self) -> None:
        self._expected_timer = self.expected = None
        self.wake()

    def leave(self, pool: Waiter) -> None:
        """A pool has nothing to send any more."""
        if pool.waits.pop(self, None) is not None:
            self.waiting -= 1

    def _arrange(self, wait_s: float) -> None:
        """Somebody waits: have him woken."""
        if wait_s == math.inf:
            while self._idle and len(self._leaving) < self.waiting:
                connection = next(iter(self._idle))
                self.leaving(connection)
                connection.leave()
        elif not self._is_waking and self.expected is None:
            at_s = self._loop.time() + wait_s
            if self._timer is not None:
                if self._timer_s <= at_s + TIMER_SLACK_S:
                    return
                self._timer.cancel()
            self._timer_s = at_s
            self._timer = self._loop.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.wake()

    def wake(self) -> None:
        """There may be room: let waiting pools pass, the most urgent first, as long as there is."""
        if self._is_waking or not self.waiting or self.expected is not None:
            return
        self._is_waking = True
        wait_s = 0.0
        try:
            for _ in range(self.waiting):  # one that comes back waits for the next time: nobody spins here
                wait_s = self.ask(self._loop.time())
                if wait_s > 0 or self.head_priority() < 0:
                    break
                _, pool = self._waiters.pop()
                self.leave(pool)
                pool.granted(self)
                if self.expected is not None:
                    break
        finally:
            self._is_waking = False
            if self.waiting:
                self._arrange(wait_s)

    # connections

    def wants(self, pool: Waiter, priority: int, had_turn: bool, now_s: float) -> bool:
        """Whether a connection of a pool, whose next mail has this priority, should make room after its transaction.

        It should for more urgent mail, and, once it `had_turn`, for mail as urgent as its own.
        """
        head = self.head_priority()
        if head < 0 or head < priority or (head == priority and not had_turn):
            return False
        others = self.waiting - (self in pool.waits)
        return len(self._leaving) < others and self.ask(now_s) == math.inf

    def idle(self, connection: Idler) -> None:
        """A connection may have to make room from now on."""
        self._idle[connection] = None
        if self.waiting:
            self._arrange_room()

    def _arrange_room(self) -> None:
        if self.head_priority() >= 0 and self.ask(self._loop.time()) == math.inf:
            self._arrange(math.inf)

    def busy(self, connection: Idler) -> None:
        """It works again."""
        self._idle.pop(connection, None)

    def leaving(self, connection: Idler) -> None:
        """It is closing: its place will be free by itself."""
        self._idle.pop(connection, None)
        self._leaving.add(connection)

    def forget(self, connection: Idler) -> None:
        """It passes here no more."""
        self._idle.pop(connection, None)
        self._leaving.discard(connection)

    def gone(self, connection: Idler) -> None:
        """It is closed."""
        self.forget(connection)
        self.wake()

    def close(self) -> None:
        """No more waking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._expected_timer is not None:
            self._expected_timer.cancel()
            self._expected_timer = None


class SharedLimit:
    """A limit over several pools: the meter, hours and quota, and who waits for a transaction or a connection."""

    __slots__ = ("calendar", "connections", "meter", "turns")

    def __init__(self, loop: asyncio.AbstractEventLoop, meter: Meter) -> None:
        self.meter = meter
        self.calendar: Calendar | None = None
        """None: neither hours nor a quota."""
        self.turns = Gate(loop, meter.transaction_wait_s)
        self.connections = Gate(loop, meter.connection_wait_s)

    @property
    def has_turns(self) -> bool:
        """Whether a transaction may have to wait."""
        return self.meter.has_rate or self.calendar is not None

    def keep(self, calendar: "Calendar | None") -> None:
        """These hours and this quota hold from now on."""
        self.calendar = calendar
        self.turns.ask = self.meter.transaction_wait_s if calendar is None else self._turn_wait_s

    def _turn_wait_s(self, now_s: float) -> float:
        assert self.calendar is not None, "asked where there is one"
        return max(self.meter.transaction_wait_s(now_s), self.calendar.wait_s())

    def close(self) -> None:
        """No more waking."""
        self.turns.close()
        self.connections.close()
        if self.calendar is not None:
            self.calendar.close()
