"""Probing: how sending begins again where a provider refused all of it. Pure: now_s is Unix seconds.

What Google publishes for 421 4.7.28: no mail for at least ten minutes; then one connection; if that fails, ten minutes
again; otherwise connections are added one at a time. So there is a silence, then a step for every number of connections
from one on. A step is over when a connection that was begun in it has delivered enough and the step has lasted long
enough for the provider to have counted what went; behind the last step all is well. A refusal at any step is a silence
again. Whoever sends asks `wait_s` and `connections_max`, tells `opened`, `delivered` and `refused`, and where one of
these returns a reason, keeps `state()`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mta_policies.firing import Firing

SILENCE_S = 600.0
"""Nothing goes for so long; what Google publishes."""

GROWTH = 1.0
"""Every further refusal in a row makes the silence so many times longer; 1: "ten minutes again", as it is published."""

SILENCE_S_MAX = 3600.0  # where it grows: what ends meanwhile is noticed an hour late at most
STEP_S = 60.0  # a provider that counts by the minute has seen a step before the next
STEP_SHARE = 0.1  # of the silence: who forgives sooner than the published ten minutes counts in shorter times
STEP_MESSAGES = 10  # delivered in a step: a connection that carries only its first message has not shown much
CONNECTIONS = 10  # where the policy sets no limit of connections: all is well behind so many steps


class Probing:
    """One recovery."""

    __slots__ = (
        "_connections",
        "_delivered",
        "_heard_s",
        "_silence_s",
        "_since_s",
        "_until_s",
        "goal",
        "growth",
        "is_well",
        "refusals",
        "silence_s",
        "step_s",
    )

    def __init__(self, goal: int, now_s: float, silence_s: float = 0.0, growth: float = 0.0) -> None:
        """Begins with a silence. `goal`: the connections that all is well with; 0: no limit is set."""
        self.goal = goal or CONNECTIONS
        self.silence_s = silence_s or SILENCE_S
        self.step_s = min(STEP_S, self.silence_s * STEP_SHARE)
        """A step lasts so long at least."""
        self.growth = growth or GROWTH
        self.refusals = 1
        """In a row, with no step done between."""
        self.is_well = False
        """It is over."""
        self._silence_s = self.silence_s
        self._heard_s = self._since_s = now_s
        self._until_s = now_s + self._silence_s
        self._connections = 0
        self._delivered = 0

    @classmethod
    def of(cls, firing: "Firing", goal: int, now_s: float) -> "Probing":
        """The recovery of a firing whose action is `probe`, as far as it had come."""
        probing = cls(goal, firing.last_s, firing.effect.silence_s, firing.effect.growth)
        if firing.state:
            probing._load(firing.state)
            if firing.last_s > probing._heard_s:
                probing.refused(min(firing.last_s, now_s))  # it was heard elsewhere, or nothing was kept since
        probing._look_at_clock(now_s)
        return probing

    # asked

    def wait_s(self, now_s: float) -> float:
        """Seconds until something may go; 0.0: now."""
        return self._rest_s(now_s) if self._connections == 0 else 0.0

    def connections_max(self, now_s: float) -> int:
        """How many connections may be open; those that are above it may end what they do."""
        if self._connections == 0:
            return 0 if self._rest_s(now_s) > 0 else 1
        return self._connections

    # told; each returns the reason of a step, "" where nothing of note has changed

    def opened(self, now_s: float) -> str:
        """A connection was begun."""
        if self._connections or self._rest_s(now_s) > 0:
            return ""
        self._begin(1, now_s)
        return "one connection is tried"

    def delivered(self, now_s: float, begun_s: float) -> str:
        """A message was taken, on a connection that was begun then."""
        self._look_at_clock(now_s)
        if self._connections == 0:
            # A straggler from before the silence: it was mail all the same, so the silence is counted from here.
            self._until_s = now_s + self._silence_s
            return ""
        if begun_s < self._since_s:
            return ""
        self._delivered += 1
        if self._delivered < STEP_MESSAGES or now_s - self._since_s < self.step_s:
            return ""
        self.refusals = 0
        if self._connections >= self.goal:
            self.is_well = True
            return f"{self._connections} connections carry mail: all is well"
        self._begin(self._connections + 1, now_s)
        return f"{self._connections} connections"

    def refused(self, now_s: float) -> str:
        """The provider refused again, whatever else is under way."""
        self._heard_s = now_s
        self._look_at_clock(now_s)
        if self._connections == 0:
            self._until_s = now_s + self._silence_s  # of the same trouble: nothing was begun since
            return ""
        self.refusals += 1
        longest_s = max(SILENCE_S_MAX, self.silence_s)
        self._silence_s = min(longest_s, self.silence_s * self.growth ** min(self.refusals - 1, 64))
        self._begin(0, now_s)
        self._until_s = now_s + self._silence_s
        return f"refused again: silence for {self._silence_s / 60:.0f} minutes"

    # kept

    def state(self) -> dict[str, float]:
        """How far it has come, for `Firing.state`."""
        return {
            "connections": self._connections,
            "since_s": self._since_s,
            "heard_s": self._heard_s,
            "until_s": self._until_s,
            "silence_s": self._silence_s,
            "refusals": self.refusals,
            "delivered": self._delivered,
        }

    def _load(self, state: Mapping[str, float]) -> None:
        self._connections = int(state["connections"])
        self._since_s = state["since_s"]
        self._heard_s = state["heard_s"]
        self._until_s = state["until_s"]
        self._silence_s = state["silence_s"]
        self.refusals = int(state["refusals"])
        self._delivered = int(state["delivered"])

    def _begin(self, connections: int, now_s: float) -> None:
        self._connections = connections
        self._since_s = now_s
        self._delivered = 0

    def _rest_s(self, now_s: float) -> float:
        self._look_at_clock(now_s)
        return max(0.0, self._until_s - now_s)

    def _look_at_clock(self, now_s: float) -> None:
        """Where the clock was set back, a silence is as long from now as it was to be at its beginning."""
        self._since_s = min(self._since_s, now_s)
        self._until_s = min(self._until_s, now_s + self._silence_s)
