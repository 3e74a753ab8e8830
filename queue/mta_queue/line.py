"""A line: entries that wait for their turn, of which those far from it are only numbers. Pure.

In order: the first few `entries`; what is `spilled` behind them; what came `later`, behind that, and is still warm.
Where nothing is spilled all are `entries`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

from mta_queue.spilled import Spilled

T = TypeVar("T")

SLACK = 64  # entries more than are kept, before the first of them is spilled: few come in vain


class Line(Generic[T]):
    """First come, first served."""

    __slots__ = ("entries", "later", "loading", "spilled")

    def __init__(self) -> None:
        self.entries: deque[T] = deque()
        self.spilled: Spilled | None = None
        self.loading = 0
        """Numbers that were taken out and are being read back: they come behind `entries`."""
        self.later: deque[T] | None = None
        """None where nothing is before them but `entries`."""

    def __iter__(self) -> Iterator[T]:
        return chain(self.entries, self.later or ())

    def append(self, entry: T) -> None:
        """Behind all others."""
        (self.entries if self.later is None else self.later).append(entry)

    def overflow(self, kept: int, is_cold: Callable[[T], bool]) -> list[T]:
        """Takes out what is cold behind the first `kept` entries, the oldest first, as far as nothing warm is before
        it: to be given to `spill`, or dropped, and then `close_up`."""
        later = self.later
        if later is None:
            entries = self.entries
            if len(entries) < kept + SLACK or not is_cold(entries[kept]):
                return []
            later = self.later = deque(islice(entries, kept, None))
            self.entries = deque(islice(entries, kept))
        cold: list[T] = []
        while later and is_cold(later[0]):
            cold.append(later.popleft())
        return cold

    def spill(self, seq: int, expires_s: float) -> None:
        """One that `overflow` took out waits as a number from now on."""
        if self.spilled is None:
            self.spilled = Spilled()
        self.spilled.append(seq, expires_s)

    def take(self, most: int) -> list[int]:
        """Takes out the first numbers, to be read back and `returned`."""
        if self.spilled is None:
            return []
        taken = self.spilled.take(most)
        self.loading += len(taken)
        return taken

    def returned(self, count: int, entries: Iterable[T]) -> None:
        """So many numbers were read back, and these are what became of them."""
        self.loading -= count
        self.entries.extend(entries)
        self.close_up()

    def close_up(self) -> bool:
        """Where nothing is spilled any more what came later follows at once. -> whether it does."""
        if self.spilled is not None and not self.spilled:
            self.spilled = None
        if self.later is None or self.spilled is not None or self.loading:
            return False
        if self.entries:
            self.entries.extend(self.later)
        else:
            self.entries = self.later
        self.later = None
        return True

    def remove(self, is_wanted: Callable[[T], bool]) -> list[T]:
        """Takes out the entries that are wanted, in their order."""
        removed = [entry for entry in self if is_wanted(entry)]
        if removed:
            gone = set(map(id, removed))
            self.entries = deque(entry for entry in self.entries if id(entry) not in gone)
            if self.later is not None:
                self.later = deque(entry for entry in self.later if id(entry) not in gone)
        return removed

    @property
    def waiting_spilled(self) -> int:
        """How many are only numbers."""
        return len(self.spilled) if self.spilled is not None else 0

    @property
    def is_empty(self) -> bool:
        """Nothing waits, and nothing comes back."""
        return not (self.entries or self.later or self.spilled or self.loading)
