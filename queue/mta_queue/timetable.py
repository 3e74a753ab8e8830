"""The timetable: what is due next. A wheel for what waits for a time, lanes for what waits for its turn. Pure.

Neither ever looks at an entry that is not its turn: a million waiting items cost memory and nothing else.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")

PRIORITY_MAX = 9  # X-MTA-Priority: 0 to 9, higher goes first
DUE_S_MAX = 32_503_680_000.0  # the year 3000: what is due later (or at infinity) waits until then


class Wheel(Generic[T]):
    """Entries by due time. `add` and `advance` cost the same however many entries wait.

    Times are rounded up to spokes of `granularity_s`, so an entry comes at most that much late and never early. Only
    spokes that hold something exist (a wheel of slots would have to be turned through every empty one), so a clock
    that jumps by a year costs no more than one that ticks; one that jumps back only makes entries wait.
    """

    __slots__ = ("_granularity_s", "_heap", "_length", "_spokes")

    def __init__(self, granularity_s: float, now_s: float = 0.0) -> None:
        """`now_s` is where a wheel of slots would have to stand at first; this one begins anywhere."""
        if granularity_s <= 0:
            raise ValueError("granularity_s must be positive")
        self._granularity_s = granularity_s
        self._spokes: dict[int, list[tuple[float, T]]] = {}
        self._heap: list[int] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, due_s: float, entry: T) -> None:
        """Comes back from `advance` when `due_s` has passed; a time that is past comes with the next one."""
        if not due_s < DUE_S_MAX:
            due_s = DUE_S_MAX
        spoke = -int(-due_s // self._granularity_s) if due_s > 0 else 0
        if spoke * self._granularity_s < due_s:
            spoke += 1  # the product was rounded down: never early
        entries = self._spokes.get(spoke)
        if entries is None:
            self._spokes[spoke] = [(due_s, entry)]
            heappush(self._heap, spoke)
        else:
            entries.append((due_s, entry))
        self._length += 1

    def advance(self, now_s: float, entries_max: int = 0) -> list[T]:
        """Takes out what is due, in order of due time, equal ones in the order in which they were added.

        `entries_max` bounds the work of one call (0: no bound): the rest comes with the next ones. A caller whose
        clock may jump forward gives it, for then everything is due at once.
        """
        heap, spokes = self._heap, self._spokes
        due: list[T] = []
        while heap and heap[0] * self._granularity_s <= now_s:
            entries = spokes[heap[0]]
            if len(entries) > 1:
                entries.sort(key=_due_s)
            room = entries_max - len(due) if entries_max else len(entries)
            if room < len(entries):
                due.extend([entry for _, entry in entries[:room]])
                del entries[:room]
                break
            due.extend([entry for _, entry in entries])
            del spokes[heappop(heap)]
        self._length -= len(due)
        return due

    def next_due_s(self) -> float | None:
        """When `advance` will next have something; None where nothing waits."""
        return self._heap[0] * self._granularity_s if self._heap else None


def _due_s(timed: tuple[float, object]) -> float:
    return timed[0]


class Lane(Generic[T]):
    """What is ready for one destination: priorities 0 to 9, the highest first, first come first served within."""

    __slots__ = ("_filled", "_length", "_queues")

    def __init__(self) -> None:
        self._queues: list[deque[T] | None] = [None] * (PRIORITY_MAX + 1)  # made when needed: most lanes use one
        self._filled = 0  # bit n: priority n has something; so that nothing is searched
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
        self._filled |= 1 << priority
        self._length += 1

    def push_front(self, priority: int, item: T) -> None:
        """Before all others of its priority: it had its turn and could not use it."""
        queue = self._queues[priority]
        if queue is None:
            queue = self._queues[priority] = deque()
        queue.appendleft(item)
        self._filled |= 1 << priority
        self._length += 1

    def pop(self) -> T:
        """Whose turn it is, taken out; IndexError where nobody waits."""
        priority = self._filled.bit_length() - 1
        queue = self._queues[priority]
        if not queue:
            raise IndexError("pop from an empty lane")
        item = queue.popleft()
        if not queue:
            self._filled ^= 1 << priority
        self._length -= 1
        return item

    def peek(self) -> T | None:
        """Whose turn it is; None where nobody waits."""
        queue = self._queues[self._filled.bit_length() - 1]
        return queue[0] if queue else None

    def head_priority(self) -> int:
        """The priority of whose turn it is; -1 where nobody waits."""
        return self._filled.bit_length() - 1
