"""Compaction: which segments give the most space for the least copying, when, and how fast. Pure.

Promise: the files need at most twice what the living items need, and `SPARE_SEGMENTS` segments. A segment is only
chosen where less is copied than becomes free, so that over all time no more is copied than was appended; and since
what was copied lies among its like, in segments of their own, it is mostly far less. `compactor` does the work.
"""

from collections.abc import Iterable
from typing import NamedTuple

FILE_FACTOR = 2  # files may need so many times what the living need
SPARE_SEGMENTS = 6  # and so many segments: the two being written, those just ended, those being emptied and deleted
YOUNG_SEGMENTS = 2  # of those that ended last: most of their mail is about to go by itself
EARLY = 0.75  # of the bound: from here on what gives much for little is copied, in good time
PRESSING = 0.9  # of the bound: from here on whatever gives back more than it takes, as fast as mail comes in
EARLY_COST_MAX = 0.25  # of a segment that has to be copied, in good time
PRESSING_COST_MAX = 0.5  # the same when it presses; more would copy more than it frees
CALM_LOSS_MAX = 0.05  # of its living bytes since the last look: a segment that loses more empties by itself
GAIN_MIN = 1 / 4  # of a segment: a round frees so much or is not begun

TIME_SHARE = 0.1  # of the disk's time that copying takes
TIME_SHARE_PRESSING = 0.5
WRITTEN_SHARE = 0.1  # of what mail writes: so much is copied beside it
IDLE_BYTES_S = 4 << 20  # copied where nothing else is written
BUSY_BYTES_S = 64 << 10  # copied however little the share is, so that a round ends
COMMIT_SLOW_S = 0.25  # a disk that takes so long for a group of new mail is left alone
COMMIT_RESTS = 10  # times what such a group took
LATELY_S = 10.0  # what "lately" means for what was written

FREE_FACTOR = 2  # a round needs so many times its copies free on the disk
FAILED_WAIT_S = 60.0  # after a round that the disk refused


class SegmentFacts(NamedTuple):
    """What counts of a segment that has ended and has nothing left to tell."""

    number: int
    file_bytes: int
    living_bytes: int
    """The records of its living items."""
    fates_bytes: int
    """Fates in it that items elsewhere still need, as far as that is known."""

    @property
    def cost_bytes(self) -> int:
        """What has to be copied before it can go."""
        return self.living_bytes + self.fates_bytes

    @property
    def gain_bytes(self) -> int:
        """What is free afterwards that was not before."""
        return self.file_bytes - self.cost_bytes


class Choice(NamedTuple):
    """What the next round copies."""

    numbers: tuple[int, ...]
    """Segments, oldest first."""
    cost_bytes: int
    pressing: bool


def bound_bytes(living_bytes: int, segment_bytes: int) -> int:
    """How large all files may be together."""
    return FILE_FACTOR * living_bytes + SPARE_SEGMENTS * segment_bytes


class Chooser:
    """Chooses; remembers how fast segments lose their living, to leave alone what empties by itself."""

    def __init__(self, segment_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._living: dict[int, int] = {}

    def choose(self, segments: Iterable[SegmentFacts], file_bytes: int, living_bytes: int) -> Choice | None:
        """Which segments to copy the living from now; None: nothing is worth it.

        `segments`: those that may be chosen, oldest first; `file_bytes`, `living_bytes`: of the whole log. To be called
        every second or so, also when nothing comes of it.
        """
        bound = bound_bytes(living_bytes, self._segment_bytes)
        seen, self._living = self._living, {}
        wanted = file_bytes - EARLY * bound
        pressing = file_bytes > PRESSING * bound
        cost_max = PRESSING_COST_MAX if pressing else EARLY_COST_MAX
        candidates = []
        for facts in segments:
            self._living[facts.number] = facts.living_bytes
            if facts.cost_bytes > cost_max * facts.file_bytes:
                continue
            before = seen.get(facts.number)
            is_calm = before is not None and before - facts.living_bytes <= CALM_LOSS_MAX * before
            if is_calm or pressing:
                candidates.append(facts)
        if wanted <= 0:
            return None
        candidates.sort(key=lambda facts: facts.cost_bytes / max(1, facts.file_bytes))
        chosen, cost, gain = [], 0, 0
        for facts in candidates:
            if gain >= wanted or cost + facts.cost_bytes > self._segment_bytes:
                break
            chosen.append(facts.number)
            cost += facts.cost_bytes
            gain += facts.gain_bytes
        if gain < GAIN_MIN * self._segment_bytes:
            return None
        return Choice(tuple(sorted(chosen)), cost, pressing)


class Pace:
    """How long copying rests between two slices, so that new mail has the disk."""

    def __init__(self) -> None:
        self._written_bytes = 0
        self._at_s = 0.0
        self.written_bytes_s = 0.0
        """What mail wrote lately."""

    def note(self, written_bytes: int, now_s: float) -> None:
        """`written_bytes`: all that mail has written so far."""
        passed_s = now_s - self._at_s
        if passed_s <= 0:
            return
        weight = min(1.0, passed_s / LATELY_S)
        self.written_bytes_s += weight * ((written_bytes - self._written_bytes) / passed_s - self.written_bytes_s)
        self._written_bytes, self._at_s = written_bytes, now_s

    def rest_s(self, copied_bytes: int, took_s: float, commit_s: float, *, pressing: bool) -> float:
        """After a slice of so many bytes that took so long; `commit_s`: what the last group of new mail took."""
        share = TIME_SHARE_PRESSING if pressing else TIME_SHARE
        rest_s = max(took_s * (1 / share - 1), copied_bytes / self._bytes_s(pressing=pressing))
        if commit_s > COMMIT_SLOW_S:
            rest_s = max(rest_s, commit_s * (1 if pressing else COMMIT_RESTS))
        return rest_s

    def _bytes_s(self, *, pressing: bool) -> float:
        written = self.written_bytes_s
        rate = max(IDLE_BYTES_S - written, WRITTEN_SHARE * written, BUSY_BYTES_S)
        return max(rate, written, IDLE_BYTES_S) if pressing else rate
