"""Triggers: whether a rule that matched acts already. Pure: callers pass now_s, Unix seconds.

Every trigger counts for each scope key apart: five refusals an hour to `out-1` say nothing of `out-2`. Three kinds:

- `count in`: exact; the times of the latest matches are kept, as many as it counts.
- `share of in`: the time is cut into slices, fixed on the clock, and matches and answers are counted in each; so the
  time is kept to one part in twenty, and what fires depends on the answers alone, not on when somebody looked.
- `consecutive`: matches in a row.

Memory is bounded, whatever comes: of each trigger the keys that were heard of least lately are forgotten. A clock
that is set back makes what was counted as old as now, so that it ages as it should.
"""

from array import array
from typing import Final

from mta_policies.rulebook import Trigger

CELLS_MAX: Final = 20_000  # numbers that one trigger keeps over all its keys: 160 KB
SLICES: Final = 20


class Triggers:
    """The counts of one destination's rules."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, Trigger], Table] = {}

    def hit(self, rule: str, trigger: Trigger, key: str, now_s: float, matched: bool) -> bool:
        """An answer came for this scope key; `matched`: this rule's. -> whether it acts.

        What did not match needs to be told only where `trigger.hears_all`.
        """
        if trigger.is_every_match:
            return matched
        return self.table(rule, trigger).hit(key, now_s, matched)

    def table(self, rule: str, trigger: Trigger) -> "Table":
        """What is counted for one trigger, for whoever asks it often; it holds until `keep` forgets it."""
        table = self._tables.get((rule, trigger))
        if table is None:
            table = self._tables[rule, trigger] = Table(trigger)
        return table

    def forget(self, rule: str, key: str) -> None:
        """Begin anew for this rule and scope key: somebody cancelled what it did."""
        for (name, _), table in self._tables.items():
            if name == rule:
                table.forget(key)

    def keep(self, wanted: set[tuple[str, Trigger]]) -> None:
        """Forget all other rules and triggers: the policy was changed."""
        self._tables = {which: table for which, table in self._tables.items() if which in wanted}

    @property
    def cells(self) -> int:
        """How many numbers are kept, at most `CELLS_MAX` a trigger."""
        return sum(table.cells for table in self._tables.values())


class Table:
    """The counters of one trigger, the one that was heard of most lately last."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.is_share = bool(trigger.share)
        """Every answer counts; else those that do not match say nothing where `cells` is 0."""
        self.cells = 0
        self._counters: dict[str, _Times | _Slices | _Row] = {}
        self._latest = ""
        """The key of a share that was heard of last."""
        self._latest_share: _Slices | None = None

    def other(self, key: str, now_s: float) -> None:
        """An answer came that the rule does not match: as `hit`, and cheap where it is one of many."""
        if self._latest_share is not None and key == self._latest:
            self._latest_share.other(now_s)  # it is the last one already
        else:
            self.hit(key, now_s, False)

    def hit(self, key: str, now_s: float, matched: bool) -> bool:
        counter = self._counters.pop(key, None)
        if counter is None:
            if not matched and not self.trigger.share:
                return False
            counter = _counter(self.trigger)
        else:
            self.cells -= counter.cells
        acts = counter.hit(now_s, matched)
        if counter.cells:
            self._counters[key] = counter
            self.cells += counter.cells
            while self.cells > CELLS_MAX and len(self._counters) > 1:
                self.forget(next(iter(self._counters)))
        if type(counter) is _Slices:
            self._latest, self._latest_share = key, counter
        return acts

    def forget(self, key: str) -> None:
        counter = self._counters.pop(key, None)
        if counter is not None:
            self.cells -= counter.cells
            if counter is self._latest_share:
                self._latest_share = None


def _counter(trigger: Trigger) -> "_Times | _Slices | _Row":
    if trigger.count:
        return _Times(trigger.count, trigger.within_s)
    if trigger.share:
        return _Slices(trigger.share, trigger.of, trigger.within_s)
    return _Row(trigger.consecutive)


class _Times:
    """So many matches in so long a time: the times of as many matches, in a ring."""

    __slots__ = ("_at", "_count", "_latest_s", "_times", "_within_s")

    def __init__(self, count: int, within_s: float) -> None:
        self._count = count
        self._within_s = within_s
        self._times = array("d")
        self._at = 0  # where the oldest is, and the next one will be, once the ring is full
        self._latest_s = 0.0

    @property
    def cells(self) -> int:
        return len(self._times)

    def hit(self, now_s: float, matched: bool) -> bool:
        if not matched:
            return False
        if now_s < self._latest_s:
            self._times = array("d", (min(time_s, now_s) for time_s in self._times))
        self._latest_s = now_s
        if len(self._times) < self._count:
            self._times.append(now_s)
        else:
            self._times[self._at] = now_s
            self._at = (self._at + 1) % self._count
        return len(self._times) == self._count and now_s - self._times[self._at] <= self._within_s


class _Slices:
    """A share of so many answers in so long a time: answers and matches in each slice of it, the newest first."""

    __slots__ = ("_answers", "_matches", "_newest", "_of", "_share", "_slice_s")

    cells = 2 * SLICES

    def __init__(self, share: float, of: int, within_s: float) -> None:
        self._share = share
        self._of = of
        self._slice_s = within_s / SLICES
        self._answers = [0] * SLICES
        self._matches = [0] * SLICES
        self._newest = 0.0

    def other(self, now_s: float) -> None:
        newest = now_s // self._slice_s
        if newest != self._newest:
            self._turn(int(newest - self._newest))
            self._newest = newest
        self._answers[0] += 1

    def hit(self, now_s: float, matched: bool) -> bool:
        self.other(now_s)
        if not matched:
            return False
        self._matches[0] += 1
        answers = sum(self._answers)
        return answers >= self._of and sum(self._matches) >= self._share * answers

    def _turn(self, slices: int) -> None:
        """So many slices of time went by; where the clock was set back, none."""
        gone = min(max(slices, 0), SLICES)
        self._answers = [0] * gone + self._answers[: SLICES - gone]
        self._matches = [0] * gone + self._matches[: SLICES - gone]


class _Row:
    """Matches with nothing else between them."""

    __slots__ = ("_consecutive", "_length")

    def __init__(self, consecutive: int) -> None:
        self._consecutive = consecutive
        self._length = 0

    @property
    def cells(self) -> int:
        return 1 if self._length else 0

    def hit(self, now_s: float, matched: bool) -> bool:
        del now_s
        self._length = self._length + 1 if matched else 0
        return matched and self._length >= self._consecutive
