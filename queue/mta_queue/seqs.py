"""Seqs in bulk: a queue and a set of item numbers, for hundreds of thousands that only wait. Pure.

An entry of the queue is 8 bytes, one of the set a few bits: numbers of items that wait together lie close together.
"""

from array import array
from collections import deque
from collections.abc import Iterable

SEQS_TYPE = "Q"
ARRAY_MAX = 4096  # entries of one array of a queue: what was taken out is let go in pieces of 32 KB
PAGE_BITS = 512  # numbers that one page of a set stands for


class Seqs:
    """First in, first out; the same number may be in it several times."""

    __slots__ = ("_arrays", "_at", "_length")

    def __init__(self) -> None:
        self._arrays: deque[array[int]] = deque()
        self._at = 0
        """How much of the first array was taken out."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, seq: int) -> None:
        """Behind all others."""
        arrays = self._arrays
        if not arrays or len(arrays[-1]) >= ARRAY_MAX:
            arrays.append(array(SEQS_TYPE))
        arrays[-1].append(seq)
        self._length += 1

    def extend(self, seqs: "array[int]") -> None:
        """All of these, in their order; the array is this queue's from now on."""
        if seqs:
            self._arrays.append(seqs)
            self._length += len(seqs)

    def take(self, most: int) -> list[int]:
        """Takes out the first ones, at most so many."""
        taken: list[int] = []
        arrays = self._arrays
        while arrays and len(taken) < most:
            first = arrays[0]
            to = min(len(first), self._at + most - len(taken))
            taken += first[self._at : to]
            if to == len(first):
                arrays.popleft()
                to = 0
            self._at = to
        self._length -= len(taken)
        return taken


class SeqSet:
    """A set of numbers, in pages of bits."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def __contains__(self, seq: int) -> bool:
        page = self._pages.get(seq // PAGE_BITS)
        return page is not None and bool(page[seq % PAGE_BITS >> 3] >> (seq & 7) & 1)

    def __bool__(self) -> bool:
        return bool(self._pages)

    def add(self, seq: int) -> None:
        """It is in from now on."""
        number = seq // PAGE_BITS
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE_BITS // 8)
        page[seq % PAGE_BITS >> 3] |= 1 << (seq & 7)

    def discard(self, seq: int) -> bool:
        """It is not in any more. -> whether it was."""
        number = seq // PAGE_BITS
        page = self._pages.get(number)
        at, bit = seq % PAGE_BITS >> 3, 1 << (seq & 7)
        if page is None or not page[at] & bit:
            return False
        page[at] ^= bit
        if not page[at] and not any(page):
            del self._pages[number]
        return True

    def discard_all(self, seqs: Iterable[int]) -> list[int]:
        """None of these is in any more. -> those that were, in their order."""
        return [seq for seq in seqs if self.discard(seq)]

    def clear(self) -> None:
        """Empty."""
        self._pages = {}
