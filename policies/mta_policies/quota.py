"""Quota: so many messages in a calendar hour, day, week or month of a place. Pure: zones and now_s are arguments.

What was used survives restarts, and a killed process must not begin afresh: a counter that is `kept` goes on only as
far as a state was saved that says it has got there already. So a crash loses a little of the quota, and never passes
it. The clock may jump: the last periods are remembered, and one that comes again goes on where it was. A quota that
several processes share is drawn from an account instead: `allotments`.
"""

import math

from mta_policies.local_time import Zones, period
from mta_policies.schema import Quota

PERIODS_KEPT = 4  # this one and the last; more only for clocks that jump
AHEAD_SHARE = 100  # a kept counter says at least a hundredth of the quota ahead of time: what a crash loses
SAVE_WAIT_S = 0.05  # how long to wait for the saving of a state, before asking again

State = dict[str, int]
"""Start of a period (Unix seconds, as text) -> what was used in it."""


class Periods:
    """A number for each period of a quota: for this one, and for the last ones, which may come again."""

    __slots__ = ("_counts", "_end_s", "_start_s", "_zones", "quota")

    def __init__(self, quota: Quota, zones: Zones, now_s: float) -> None:
        self.quota = quota
        self._zones = zones
        self._counts: dict[int, int] = {}
        """Start of a period -> its number."""
        self._start_s = self._end_s = 0
        self._look(now_s)

    def ends_s(self, now_s: float) -> float:
        """When this period ends."""
        self._look(now_s)
        return float(self._end_s)

    def _look(self, now_s: float) -> None:
        """Another period, where this one is over or the clock was set back."""
        if self._start_s <= now_s < self._end_s:
            return
        start_s, end_s = period(self.quota.per, self._zones(self.quota.zone), now_s)
        self._start_s, self._end_s = int(start_s), int(end_s)
        # The latest is the last one, so that what is forgotten is what was left longest ago.
        self._counts[self._start_s] = self._counts.pop(self._start_s, 0)
        while len(self._counts) > PERIODS_KEPT:
            del self._counts[next(iter(self._counts))]


class Counter(Periods):
    """One quota of one owner: what was used."""

    __slots__ = ("_count", "_is_kept", "_saved")

    def __init__(self, quota: Quota, zones: Zones, now_s: float, *, is_kept: bool = False) -> None:
        super().__init__(quota, zones, now_s)
        self._count = quota.count
        self._is_kept = is_kept
        self._saved: dict[int, int] = {}

    def wait_s(self, now_s: float) -> float:
        """0.0: one more may go; else seconds until one may: until the next period, or until `to_save` is saved."""
        self._look(now_s)
        used = self._counts[self._start_s]
        if used >= self._count:
            return max(SAVE_WAIT_S, self._end_s - now_s)
        if self._is_kept and used >= self._saved.get(self._start_s, 0):
            return SAVE_WAIT_S
        return 0.0

    def room(self, now_s: float) -> int:
        """How many more may go in this period, saved or not."""
        self._look(now_s)
        return max(0, self._count - self._counts[self._start_s])

    def free(self, now_s: float) -> int:
        """How many more may go now: as far as a saved state goes, where the counter is kept."""
        room = self.room(now_s)
        if not self._is_kept:
            return room
        return max(0, min(room, self._saved.get(self._start_s, 0) - self._counts[self._start_s]))

    def used(self, now_s: float) -> int:
        """In this period."""
        self._look(now_s)
        return self._counts[self._start_s]

    def take(self, now_s: float, count: int = 1) -> None:
        """So many went. More than there is room for count as well: they went."""
        self._look(now_s)
        self._counts[self._start_s] += count

    # kept

    def state(self, now_s: float) -> State:
        """What was used: for the next owner, or a restart that nothing came before."""
        self._look(now_s)
        return {str(start_s): used for start_s, used in self._counts.items()}

    def to_save(self, now_s: float) -> State | None:
        """A state to be saved now, in which some is used ahead of time; None: what was saved is enough for a while."""
        self._look(now_s)
        used, saved = self._counts[self._start_s], self._saved.get(self._start_s, 0)
        ahead = max(1, math.ceil(self._count / AHEAD_SHARE))
        if not self._is_kept or used + ahead // 2 < saved or saved >= self._count:
            return None
        return self.state(now_s) | {str(self._start_s): max(used, min(used + ahead, self._count))}

    def saved(self, state: State) -> None:
        """That state is safe on disk."""
        self._saved = {int(start_s): used for start_s, used in state.items()}

    def load(self, state: State, now_s: float) -> None:
        """Goes on where a state was; what was used here already adds to it."""
        for start_s, used in state.items():
            self._counts[int(start_s)] = self._counts.get(int(start_s), 0) + used
        self._end_s = self._start_s
        self._look(now_s)
