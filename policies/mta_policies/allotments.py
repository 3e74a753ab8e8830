"""Allotments: a quota that any number of workers share. Pure: now_s is Unix seconds.

One account for each quota says how much of every period was drawn; it is on disk before what was drawn may be used.
Workers draw a hundredth at a time and give back what they do not need. So no interleaving of workers, no crash and no
change of owners passes a quota, and a crash loses at most that hundredth. The clock may jump: the last periods are
remembered, and one that comes again goes on where it was.
"""

from collections.abc import Mapping

import msgspec

from mta_policies.local_time import Zones
from mta_policies.quota import AHEAD_SHARE, PERIODS_KEPT, Periods
from mta_policies.schema import Quota

AGAIN_S = 60.0  # an account that is used up is asked again so often: others may have given back
IDLE_S = 60.0  # what nobody used for so long is given back
WAIT_S = 5.0  # how long to wait for what is being drawn, before looking again; who draws is told when it is there
KEPT_S = 86400.0  # so long after its end a period is remembered: clocks that were wrong by hours are set right


class Draw(msgspec.Struct, frozen=True, array_like=True):
    """A worker wants some of a quota, or gives some back."""

    key: str
    """Of the account."""
    start_s: int
    """The period's, Unix seconds, as its end."""
    end_s: int
    whole: int
    """How many messages the quota is."""
    wanted: int
    """Less than 0: given back."""


class Accounts:
    """What was drawn of every quota."""

    def __init__(self) -> None:
        self._drawn: dict[str, dict[int, tuple[int, int]]] = {}
        """Key -> start of the period -> its end and what was drawn; the last one is the one asked for last."""

    def __len__(self) -> int:
        return len(self._drawn)

    def draw(self, draw: Draw) -> int:
        """-> how much of it may be used, once this is on disk; 0: it is used up. Less than 0: was given back."""
        periods = dict(self._drawn.get(draw.key, {}))  # never changed in place: somebody may be writing it down
        end_s, drawn = periods.pop(draw.start_s, (draw.end_s, 0))
        got = min(draw.wanted, max(0, draw.whole - drawn)) if draw.wanted > 0 else -min(-draw.wanted, drawn)
        periods[draw.start_s] = end_s, drawn + got
        while len(periods) > PERIODS_KEPT:
            del periods[next(iter(periods))]
        self._drawn[draw.key] = periods
        return got

    def drawn(self, key: str, start_s: int) -> int:
        """How much of a period was drawn."""
        return self._drawn.get(key, {}).get(start_s, (0, 0))[1]

    def forget(self, now_s: float) -> None:
        """What was over long ago is of no more use."""
        for key, periods in list(self._drawn.items()):
            if all(end_s + KEPT_S < now_s for end_s, _ in periods.values()):
                del self._drawn[key]

    def dump(self) -> dict[str, dict[int, tuple[int, int]]]:
        """All of it; may be kept while this goes on."""
        return dict(self._drawn)

    def load(self, drawn: Mapping[str, Mapping[int, tuple[int, int]]]) -> None:
        """Goes on where another was."""
        self._drawn.update({key: dict(periods) for key, periods in drawn.items()})


class Allotment(Periods):
    """One worker's part of one quota: what was drawn and not used. Ask before, tell after; `draw` says what to ask the
    account for."""

    __slots__ = ("_asked", "_dry_until_s", "_portion", "_used_s", "_wants", "key")

    def __init__(self, key: str, quota: Quota, owners: int, zones: Zones, now_s: float, *, portion: int = 0) -> None:
        """`owners`: how many workers share it; together they hold a hundredth ahead of time, or each a `portion`."""
        super().__init__(quota, zones, now_s)
        self.key = key
        self._portion = portion or max(1, quota.count // AHEAD_SHARE // owners)
        self._asked: int | None = None
        """The period of a draw that is under way."""
        self._wants = False
        self._dry_until_s = 0.0
        """The account had no more for this period; until then it is not asked again."""
        self._used_s = now_s

    @property
    def wants(self) -> bool:
        """Whether `draw` may have something to say, but for what is given back."""
        return self._wants

    def free(self, now_s: float) -> int:
        """How many more may go now."""
        self._look(now_s)
        return max(0, self._counts.get(self._start_s, 0))

    def wait_s(self, now_s: float) -> float:
        """0.0: one more may go; else seconds until it is worth asking again: the next period, where this one is used
        up as far as is known. Who asks in vain has some drawn."""
        if self.free(now_s):
            return 0.0
        if self.is_used_up(now_s):
            return min(self._dry_until_s, self._end_s) - now_s
        self._wants = True
        return WAIT_S

    def is_used_up(self, now_s: float) -> bool:
        """The account had no more for this period."""
        self._look(now_s)
        return self._counts.get(self._start_s, 0) <= 0 and now_s < self._dry_until_s

    def take(self, now_s: float) -> None:
        """One went, of the period that was looked at last; only where `free` says so: else it is a debt."""
        left = self._counts.get(self._start_s, 0) - 1
        self._counts[self._start_s] = left
        self._used_s = now_s
        self._wants = self._wants or (left != 0 and left <= self._portion // 2)

    def draw(self, now_s: float) -> Draw | None:
        """What to ask the account for now; one at a time: `drawn` follows."""
        self._look(now_s)
        if self._asked is not None or not self._wants:
            return None
        self._wants = False
        wanted = self._portion - self._counts.get(self._start_s, 0)
        if wanted <= 0 or now_s < self._dry_until_s:
            return None
        self._asked = self._start_s
        return self._draw(self._start_s, wanted)

    def is_asked(self, draw: Draw) -> bool:
        """Whether this is what it asked for last, and it has no answer yet."""
        return self._asked == draw.start_s and self.quota.count == draw.whole

    def drawn(self, start_s: int, got: int, now_s: float) -> None:
        """The account's answer is safe on disk."""
        self._asked = None
        if got > 0:
            self._counts[start_s] = self._counts.get(start_s, 0) + got
            self._used_s = now_s
        elif start_s == self._start_s:
            self._dry_until_s = now_s + AGAIN_S

    def give_back(self, now_s: float, *, is_all: bool = False) -> Draw | None:
        """What was idle for long, or is not needed any more (`is_all`), goes back to the account, once."""
        self._look(now_s)
        left = self._counts.get(self._start_s, 0)
        if left <= 0 or not (is_all or abs(now_s - self._used_s) > IDLE_S):
            return None
        del self._counts[self._start_s]
        return self._draw(self._start_s, -left)

    def _draw(self, start_s: int, wanted: int) -> Draw:
        return Draw(self.key, start_s, self._end_s, self.quota.count, wanted)

    def _look(self, now_s: float) -> None:
        if not self._start_s <= now_s < self._end_s:
            self._dry_until_s = 0.0
            super()._look(now_s)
