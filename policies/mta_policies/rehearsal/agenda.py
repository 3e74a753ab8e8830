"""An agenda: a clock that jumps from one thing to do to the next. Times are Unix seconds."""

import heapq
from collections.abc import Callable
from typing import Any, Protocol

from mta_policies.rehearsal.traffic import NEVER_S

FIRST = -(1 << 60)
"""Put to the order of what comes before all else of its time."""


class Sleeper(Protocol):
    """Whoever waits until it is worth looking again."""

    timer_s: float
    """When it looks again; 0.0: no time is set."""


class Agenda:
    """What is to be done, in the order of time; at the same time in the order in which it was said."""

    __slots__ = ("_count", "_things", "now_s")

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s
        self._things: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def at(self, at_s: float, call: Callable[[Any], None], what: Any) -> None:
        """Call it then; what was due before is done now."""
        self._count += 1
        heapq.heappush(self._things, (max(at_s, self.now_s), self._count, call, what))

    def at_first(self, at_s: float, call: Callable[[Any], None], what: Any) -> None:
        """The same, before what else is to be done at that time."""
        self._count += 1
        heapq.heappush(self._things, (max(at_s, self.now_s), FIRST + self._count, call, what))

    def wake(self, sleeper: Sleeper, wait_s: float, call: Callable[[Any], None]) -> None:
        """Call it with the sleeper after so long, where it is not woken before; inf: something else will wake it."""
        at_s = self.now_s + wait_s
        if wait_s != NEVER_S and (not sleeper.timer_s or at_s < sleeper.timer_s):
            sleeper.timer_s = at_s
            self.at(at_s, self._on_timer, (sleeper, call))

    def _on_timer(self, due: tuple[Sleeper, Callable[[Any], None]]) -> None:
        sleeper, call = due
        if sleeper.timer_s and sleeper.timer_s <= self.now_s:
            sleeper.timer_s = 0.0
            call(sleeper)

    @property
    def next_s(self) -> float:
        """When the next thing is due; inf: there is none."""
        return self._things[0][0] if self._things else NEVER_S

    def turn(self) -> None:
        """Do the next thing. There is one."""
        self.now_s, _, call, what = heapq.heappop(self._things)
        call(what)
