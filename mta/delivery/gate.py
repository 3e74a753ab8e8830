"""Gates: limits that several pools share, and the order in which pools pass.

A provider's limits hold over all its sites, and a source's over all the sites of a provider. A pool that finds such
a limit reached waits here; when there is room the pool with the most urgent mail goes next, alike ones in turn. Idle
connections to one site make room for another site's mail.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from mta_queue.timetable import Lane


class Waiter(Protocol):
    """A pool, as a gate knows it."""

    waits: "dict[Gate, int]"
    """Where it waits, and with which priority."""

    def granted(self, gate: "Gate") -> None:
        """There is room at this gate: use it once."""
        ...


class Idler(Protocol):
    """An idle connection, as a gate knows it."""

    def quit(self) -> None:
        """Say goodbye; its place is free when the peer has closed."""
        ...


class Gate:
    """One shared limit (of transactions, or of connections) and those who wait for it.

    `ask(now_s)` tells how long the limit stays reached: 0.0 not at all, inf until a connection closes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[float], float]) -> None:
        self._loop = loop
        self._ask = ask
        self._waiters: Lane[tuple[int, Waiter]] = Lane()
        self._timer: asyncio.TimerHandle | None = None
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
        wait_s = 0.0
        if granted is self or self.head_priority() < priority:
            wait_s = self._ask(now_s)
            if wait_s <= 0:
                return False
        if pool.waits.get(self) != priority:
            pool.waits[self] = priority
            self._waiters.push(priority, (priority, pool))
        self._arrange(wait_s)
        return True

    def leave(self, pool: Waiter) -> None:
        """A pool has nothing to send any more."""
        pool.waits.pop(self, None)

    def _arrange(self, wait_s: float) -> None:
        if wait_s == math.inf:
            if self._idle and not self._leaving:
                self._make_room()
        elif self._timer is None and not self._is_waking:
            self._timer = self._loop.call_later(wait_s, self._on_timer)

    def _make_room(self) -> None:
        idler = next(iter(self._idle))
        del self._idle[idler]
        self._leaving.add(idler)
        idler.quit()

    def _on_timer(self) -> None:
        self._timer = None
        self.wake()

    def wake(self) -> None:
        """There may be room: let waiting pools pass, the most urgent first, as long as there is."""
        if self._is_waking or not self._waiters:
            return
        self._is_waking = True
        wait_s = 0.0
        try:
            for _ in range(len(self._waiters)):
                if self.head_priority() < 0:
                    return
                wait_s = self._ask(self._loop.time())
                if wait_s > 0:
                    break
                _, pool = self._waiters.pop()
                del pool.waits[self]
                pool.granted(self)
        finally:
            self._is_waking = False
        if self.head_priority() >= 0:
            self._arrange(wait_s)

    def idle(self, connection: Idler) -> None:
        """A connection has nothing to do: it may have to make room."""
        self._idle[connection] = None
        if not self._leaving and self.head_priority() >= 0 and self._ask(self._loop.time()) == math.inf:
            self._make_room()

    def busy(self, connection: Idler) -> None:
        """A connection works again, or is leaving by itself."""
        self._idle.pop(connection, None)

    def gone(self, connection: Idler) -> None:
        """A connection closed."""
        self._idle.pop(connection, None)
        self._leaving.discard(connection)
        self.wake()

    def close(self) -> None:
        """No more waking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
