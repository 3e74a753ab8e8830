"""The timetable: what is due next. A wheel for what waits for a time, lanes for what waits for its turn. Pure.

Neither ever looks at an entry that is not its turn: a million waiting items cost memory and nothing else.
"""

from array import array
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

PRIORITY_MAX = 9  # X-MTA-Priority: 0 to 9, higher goes first
WIDENINGS = (1, 512, 512 * 256)  # of the wheel's spokes: with a quarter of a second also two minutes and nine hours
DUE_S_MAX = 32_503_680_000.0  # the year 3000: what is due later (or at infinity) waits until then


class Opened(NamedTuple):
    """A wide spoke whose time comes near: numbers that are due, each at its own time, from `begin_s` to `end_s`."""

    begin_s: float
    end_s: float
    seqs: "array[int]"


class Wheel:
    """Item numbers by due time, 8 bytes each; when exactly one is due is asked of the queue when the time is near.

    Times are rounded up to spokes of `granularity_s`, so an entry comes at most that much late and never early. What
    is due later than in some minutes lies in wider spokes, which are opened before their time and whose entries are
    then added anew: a million that wait for a year each for another second are some thousand arrays. Only spokes that
    hold something exist, so a clock that jumps by a year costs no more than one that ticks; one that jumps back only
    makes entries wait.
    """

    __slots__ = ("_heap", "_length", "_spokes", "_widths_s")

    def __init__(self, granularity_s: float) -> None:
        """A finest spoke is so wide; the others as `WIDENINGS` says."""
        if granularity_s <= 0:
            raise ValueError("granularity_s must be positive")
        self._widths_s = tuple(granularity_s * widening for widening in WIDENINGS)
        self._spokes: dict[tuple[int, int], array[int]] = {}
        self._heap: list[tuple[float, int, int]] = []
        """When it is opened or due, how wide it is, its number."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def spokes(self) -> int:
        """How many exist."""
        return len(self._spokes)

    def add(self, due_s: float, seq: int, now_s: float) -> None:
        """Comes back from `advance` when `due_s` has passed; a time that is past comes with the next one."""
        if not due_s < DUE_S_MAX:
            due_s = DUE_S_MAX
        kind, number = self._spoke(max(due_s, 0.0), now_s)
        seqs = self._spokes.get((kind, number))
        if seqs is None:
            seqs = self._spokes[kind, number] = array("Q")
            width_s = self._widths_s[kind]
            # A wide one is opened a spoke before its time, so that nothing of it is late.
            heappush(self._heap, ((number - (kind > 0)) * width_s, kind, number))
        seqs.append(seq)
        self._length += 1

    def _spoke(self, due_s: float, now_s: float) -> tuple[int, int]:
        fine_s = self._widths_s[0]
        for kind in range(len(self._widths_s) - 1, 0, -1):
            width_s = self._widths_s[kind]
            if due_s - now_s >= 3 * width_s:
                return kind, int(due_s // width_s)
        number = -int(-due_s // fine_s)
        if number * fine_s < due_s:
            number += 1  # the product was rounded down: never early
        return 0, number

    def advance(self, now_s: float) -> "tuple[list[array[int]], list[Opened]]":
        """Takes out what is due, by due time and within a spoke in the order in which it was added; and the wide
        spokes that open: what they hold is to be added again, or is due as well where their end has passed."""
        heap = self._heap
        due: list[array[int]] = []
        opened: list[Opened] = []
        while heap and heap[0][0] <= now_s:
            _, kind, number = heappop(heap)
            seqs = self._spokes.pop((kind, number))
            self._length -= len(seqs)
            width_s = self._widths_s[kind]
            if kind == 0:
                due.append(seqs)
            else:
                opened.append(Opened(number * width_s, (number + 1) * width_s, seqs))
        return due, opened

    def next_s(self) -> float | None:
        """When `advance` will next have something; None where nothing waits."""
        return self._heap[0][0] if self._heap else None


class Lane(Generic[T]):
    """What is ready for one destination: priorities 0 to 9, the highest first, first come first served within."""

    __slots__ = ("_length", "_queues", "filled")

    def __init__(self) -> None:
        self._queues: list[deque[T] | None] = [None] * (PRIORITY_MAX + 1)  # made when needed: most lanes use one
        self.filled = 0
        """Bit n: priority n has something; so that nothing is searched, and 0 where nobody waits."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        """All that wait, in no particular order; the lane must not change meanwhile."""
        for queue in self._queues:
            if queue:
                yield from queue

    def push(self, priority: int, item: T) -> None:
        """Behind all others of its priority."""
        queue = self._queues[priority]
        if queue is None:
            queue = self._queues[priority] = deque()
        queue.append(item)
        self.filled |= 1 << priority
        self._length += 1

    def push_front(self, priority: int, item: T) -> None:
        """Before all others of its priority: it had its turn and could not use it."""
        queue = self._queues[priority]
        if queue is None:
            queue = self._queues[priority] = deque()
        queue.appendleft(item)
        self.filled |= 1 << priority
        self._length += 1

    def pop(self) -> T:
        """Whose turn it is, taken out; IndexError where nobody waits."""
        priority = self.filled.bit_length() - 1
        queue = self._queues[priority]
        if not queue:
            raise IndexError("pop from an empty lane")
        item = queue.popleft()
        if not queue:
            self.filled ^= 1 << priority
        self._length -= 1
        return item

    def peek(self) -> T | None:
        """Whose turn it is; None where nobody waits."""
        queue = self._queues[self.filled.bit_length() - 1]
        return queue[0] if queue else None

    def head_priority(self) -> int:
        """The priority of whose turn it is; -1 where nobody waits."""
        return self.filled.bit_length() - 1
