"""Spilled: what waits far from its turn, as numbers alone: which item, and the minute in which it is given up. Pure.

Twelve bytes an entry, in chunks; a chunk knows the earliest of its minutes, so that nobody looks at a million entries
to find that none of them is over.
"""

from array import array
from collections.abc import Callable

from mta_queue.seqs import SEQS_TYPE

CHUNK_MAX = 1024  # entries; looking through one takes some 30 microseconds
EXPIRED_MAX = 4 * CHUNK_MAX  # taken out by one call: a millisecond
MINUTE_MAX = 0xFFFFFFFF


class _Chunk:
    __slots__ = ("at", "first_minute", "minutes", "seqs")

    def __init__(self) -> None:
        self.seqs: array[int] = array(SEQS_TYPE)
        self.minutes: array[int] = array("I")
        self.at = 0
        """How much of it was taken out."""
        self.first_minute = MINUTE_MAX


class Spilled:
    """First in, first out, but for what is over."""

    __slots__ = ("_chunks", "_length")

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, seq: int, expires_s: float) -> None:
        """Behind all others; it is over when `expires_s` (Unix seconds) has passed, to the minute and never early."""
        minute = min(max(0, int(min(expires_s, MINUTE_MAX * 60.0) // 60.0) + 1), MINUTE_MAX)
        chunks = self._chunks
        if not chunks or len(chunks[-1].seqs) >= CHUNK_MAX:
            chunks.append(_Chunk())
        chunk = chunks[-1]
        chunk.seqs.append(seq)
        chunk.minutes.append(minute)
        if minute < chunk.first_minute:
            chunk.first_minute = minute
        self._length += 1

    def take(self, most: int) -> list[int]:
        """Takes out the first ones, at most so many."""
        taken: list[int] = []
        chunks = self._chunks
        done = 0
        while done < len(chunks) and len(taken) < most:
            chunk = chunks[done]
            to = min(len(chunk.seqs), chunk.at + most - len(taken))
            taken += chunk.seqs[chunk.at : to]
            chunk.at = to
            done += to == len(chunk.seqs)
        del chunks[:done]
        self._length -= len(taken)
        return taken

    def take_all(self) -> "array[int]":
        """Takes out everything, in its order."""
        taken: array[int] = array(SEQS_TYPE)
        for chunk in self._chunks:
            taken += chunk.seqs[chunk.at :]
        self._chunks = []
        self._length = 0
        return taken

    def expired(self, now_s: float) -> list[int]:
        """Takes out what is over, of a few chunks at most: there is more as long as there is some."""
        minute = now_s // 60.0
        expired: list[int] = []
        for chunk in self._chunks:
            if chunk.first_minute <= minute:
                expired += _keep(chunk, lambda seq, over: over > minute)
                if len(expired) >= EXPIRED_MAX:
                    break
        if expired:
            self._chunks = [chunk for chunk in self._chunks if chunk.seqs]
            self._length -= len(expired)
        return expired

    def weed(self, number: int, is_wanted: Callable[[int], bool]) -> list[int]:
        """Takes out what is not wanted of one chunk; of one that is not there nothing."""
        if number >= len(self._chunks):
            return []
        chunk = self._chunks[number]
        removed = [seq for seq in chunk.seqs[chunk.at :] if not is_wanted(seq)]
        if removed:
            gone = set(removed)
            _keep(chunk, lambda seq, minute: seq not in gone)
            self._chunks = [each for each in self._chunks if each.seqs]
            self._length -= len(removed)
        return removed

    def place(self, seq: int) -> int | None:
        """How many are before this one; None where it is not here."""
        before = 0
        for chunk in self._chunks:
            try:
                return before + chunk.seqs.index(seq, chunk.at) - chunk.at
            except ValueError:
                before += len(chunk.seqs) - chunk.at
        return None

    @property
    def chunks(self) -> int:
        """How many pieces `expired` looks at."""
        return len(self._chunks)


def _keep(chunk: _Chunk, is_kept: Callable[[int, int], bool]) -> list[int]:
    """Leave only these (seq, minute) in a chunk. -> the others' seqs."""
    others: list[int] = []
    seqs: array[int] = array(SEQS_TYPE)
    minutes: array[int] = array("I")
    for seq, minute in zip(chunk.seqs[chunk.at :], chunk.minutes[chunk.at :], strict=True):
        if is_kept(seq, minute):
            seqs.append(seq)
            minutes.append(minute)
        else:
            others.append(seq)
    chunk.seqs, chunk.minutes, chunk.at = seqs, minutes, 0
    chunk.first_minute = min(minutes, default=MINUTE_MAX)
    return others
