"""Curves: a tally over time, as a picture shows it. Times are Unix seconds."""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from mta_policies.rehearsal.tally import Tally

SLOTS: Final = 240
"""Points of a curve: more nobody sees."""

MOST: Final = 0.995
"""A picture ends when so much of the mail has come to its end; where little time is left it shows that too."""

LITTLE: Final = 1.2


class Slots(NamedTuple):
    """Equal parts of time."""

    start: int
    """The first bin of the tallies."""
    bins: int
    """In each slot."""
    number: int
    bin_s: float

    @property
    def start_s(self) -> float:
        return self.start * self.bin_s

    @property
    def length_s(self) -> float:
        """Of each."""
        return self.bins * self.bin_s

    @property
    def end_s(self) -> float:
        return self.start_s + self.number * self.length_s


def slots(tallies: Iterable[Tally]) -> Slots | None:
    """The time of which all of these tell something; they have the same bins. None: nothing happened."""
    spans = [span for tally in tallies if (span := _span(tally)) is not None]
    if not spans:
        return None
    bin_s = next(iter(spans)).bin_s
    first, last = min(span.first for span in spans), max(span.last for span in spans)
    bins = max(1, math.ceil((last - first + 1) / SLOTS))
    return Slots(first, bins, max(2, math.ceil((last - first + 1) / bins)), bin_s)


class _Span(NamedTuple):
    first: int
    last: int
    bin_s: float


def _span(tally: Tally) -> _Span | None:
    """From the first bin to the one in which nearly everything was over."""
    arrived, ended = tally.series["arrived"], tally.series["ended"]
    if not arrived and not ended:
        return None
    first = min([*arrived, *ended])
    last = max([*arrived, first])
    wanted, seen = MOST * sum(ended.values()), 0
    for at in sorted(ended):
        seen += ended[at]
        last = max(last, at)
        if seen >= wanted:
            break
    very_last = max([*ended, last])
    return _Span(first, very_last if very_last - first <= LITTLE * (last - first) else last, tally.bin_s)


def per_minute(tally: Tally, name: str, over: Slots) -> list[float]:
    """How much a minute, in each slot, of one of the tally's series."""
    sums = [0.0] * over.number
    for at, count in tally.series[name].items():
        slot = (at - over.start) // over.bins
        if 0 <= slot < over.number:
            sums[slot] += count
    return [count / over.length_s * 60.0 for count in sums]


def waiting(tally: Tally, over: Slots) -> list[int]:
    """How much waited at the end of each slot."""
    levels = [0] * over.number
    level, slot = 0, 0
    for at_s, count in tally.backlog():
        at = (round(at_s / over.bin_s) - 1 - over.start) // over.bins
        while slot < min(at, over.number):
            levels[slot] = level
            slot += 1
        level = count
    while slot < over.number:
        levels[slot] = level
        slot += 1
    return levels


def after(tally: Tally, over: Slots) -> int:
    """What came to its end behind the picture's."""
    end = over.start + over.number * over.bins
    return sum(count for at, count in tally.series["ended"].items() if at >= end)
