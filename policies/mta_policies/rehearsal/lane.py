"""A lane: what waits in a pool, in the order in which it goes. A crowd stands there as one row, however many it is."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mta_policies.rehearsal.traffic import Crowd, Mail, Stream

if TYPE_CHECKING:
    from mta_policies.rehearsal.holds import Hold


class Job:
    """Recipients of one message that go together."""

    __slots__ = ("attempts", "first_s", "holds", "mails")

    def __init__(self, mails: list[Mail], attempts: int, first_s: float = 0.0) -> None:
        self.mails = mails
        self.attempts = attempts
        self.first_s = first_s
        """When it was tried first; 0: not yet."""
        self.holds: tuple[Hold, ...] = ()
        """What counts it while it is under way."""

    @property
    def stream(self) -> Stream:
        return self.mails[0].stream


class Row:
    """Messages of a crowd that stand behind each other; each becomes jobs when it is its turn."""

    __slots__ = ("crowd", "end", "left", "most", "number")

    def __init__(self, crowd: Crowd, number: int, end: int, most: int) -> None:
        self.crowd = crowd
        self.number = number
        """Of the message whose turn is next."""
        self.end = end
        self.most = most
        """Recipients of one job."""
        self.left = crowd.recipients
        """Of that message."""

    @property
    def jobs(self) -> int:
        """How many are in it."""
        later = (self.end - self.number - 1) * -(-self.crowd.recipients // self.most)
        return later + -(-self.left // self.most)

    @property
    def is_over(self) -> bool:
        return self.number == self.end

    def join(self, other: "Row | Job") -> bool:
        """Whether it now stands for the messages of another as well: those that follow its own."""
        if not isinstance(other, Row) or other.crowd is not self.crowd or other.left != other.crowd.recipients:
            return False
        if self.end != other.number or self.most != other.most:
            return False
        self.end = other.end
        return True

    def take(self) -> Job:
        """The next job. There is one."""
        count = min(self.most, self.left)
        job = Job([self.crowd.mail(self.number) for _ in range(count)], 0)
        self.left -= count
        if not self.left:
            self.left = self.crowd.recipients
            self.number += 1
        return job


class Lane:
    """Of one pool."""

    __slots__ = ("_items", "waiting")

    def __init__(self) -> None:
        self._items: deque[Job | Row] = deque()
        self.waiting = 0
        """Jobs."""

    def append(self, job: Job) -> None:
        """Behind all others."""
        self._items.append(job)
        self.waiting += 1

    def extend(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.append(job)

    def gather(self, crowd: Crowd, number: int, count: int, most: int) -> None:
        """So many messages of a crowd, from that one on, behind all others; `most` recipients go in one job."""
        self.append_row(Row(crowd, number, number + count, most))

    def append_row(self, row: Row) -> None:
        """Behind all others."""
        self.waiting += row.jobs
        last = self._items[-1] if self._items else None
        if not (isinstance(last, Row) and last.join(row)):
            self._items.append(row)

    @property
    def first_row(self) -> Row | None:
        """The first, where that is a row."""
        first = self._items[0]
        return first if isinstance(first, Row) else None

    def pop_row(self) -> Row:
        """The first, which is a row, with all that is in it."""
        row = self._items.popleft()
        assert isinstance(row, Row)
        self.waiting -= row.jobs
        return row

    def put_back(self, job: Job) -> None:
        """Before all others."""
        self._items.appendleft(job)
        self.waiting += 1

    def popleft(self) -> Job:
        """The first. There is one."""
        self.waiting -= 1
        first = self._items[0]
        if first.__class__ is Job:
            return self._items.popleft()  # pyright: ignore[reportReturnType] - just looked
        assert isinstance(first, Row)
        job = first.take()
        if first.is_over:
            self._items.popleft()
        return job

    def is_first(self, job: Job) -> bool:
        """Whether this one is the next."""
        return bool(self._items) and self._items[0] is job

    def drained(self) -> Iterator[Job]:
        """All of them; nothing is left."""
        while self.waiting:
            yield self.popleft()
