"""Stages: the lane of a pool, and the jobs that were picked from it ahead of their turn.

What waits is in fair shares. From its head a few jobs at a time are picked: to be read back from the disk (`picked`),
and, where mail is signed, to be signed (`signing`) until they are `ready`. So the order in which jobs are picked is the
order in which they go. It counts, shows and gives back the jobs of all stages.
"""

from collections.abc import Callable, Iterator
from itertools import chain

from mta.delivery.job import Job
from mta_queue.fair_lane import FairLane
from mta_queue.timetable import PRIORITY_MAX, Lane


class Stages(FairLane[Job]):
    """Waiting, picked, being signed, ready."""

    __slots__ = ("_by_priority", "picked", "ready", "signing", "signing_filled", "signs")

    def __init__(self, signs: bool = True) -> None:
        super().__init__()
        self.signs = signs
        """Mail is signed before its turn."""
        self.picked: Lane[Job] = Lane()
        """Had their turn: read back, or came back from a connection; go before all others of their priority."""
        self.ready: Lane[Job] = Lane()
        """Signed, or nothing to sign; may hold jobs that have ended."""
        self.signing: dict[Job, float] = {}
        """Since when, the longest first."""
        self.signing_filled = 0
        """Bit n: one of priority n is being signed."""
        self._by_priority = [0] * (PRIORITY_MAX + 1)

    def __len__(self) -> int:
        return self._length + len(self.picked) + len(self.ready) + len(self.signing)

    def __bool__(self) -> bool:
        return bool(self.filled or self.picked.filled or self.ready.filled or self.signing)

    def __iter__(self) -> Iterator[Job]:
        return chain(self.picked, super().__iter__(), self.ready, self.signing)

    @property
    def has_unsigned(self) -> bool:
        """Some wait that nobody has begun to sign."""
        return bool(self.filled or self.picked.filled)

    @property
    def ahead(self) -> int:
        """How many are being signed or ready."""
        return len(self.signing) + len(self.ready)

    def ahead_of(self, priority: int) -> int:
        """How many of those are at least as urgent."""
        if not (self.signing_filled | self.ready.filled) & ((1 << priority) - 1):
            return self.ahead
        return sum(self._by_priority[priority:]) + sum(job.priority >= priority for job in self.ready)

    def push_front(self, priority: int, job: Job) -> None:
        """Before all others of its priority and stage: it had its turn and could not use it."""
        (self.ready if self.signs and is_signed(job) else self.picked).push_front(priority, job)

    def pop(self) -> Job:
        """Whose turn it is: of those that are ready, else of those that wait."""
        return self.ready.pop() if self.ready.filled else self.pop_unsigned()

    def peek(self) -> Job | None:
        """What `pop` would take; None where nothing is ready and nothing waits."""
        return self.ready.peek() or self.peek_unsigned()

    def head_priority(self) -> int:
        """The highest of all stages."""
        return (self.filled | self.picked.filled | self.ready.filled | self.signing_filled).bit_length() - 1

    def unsigned_priority(self) -> int:
        """The highest of those that wait, -1 where none does."""
        return max(super().head_priority(), self.picked.head_priority())

    def peek_unsigned(self) -> Job | None:
        """The next to be signed, or to go where nothing is signed; None where nothing waits."""
        if self.picked.filled and self._is_picked_next():
            return self.picked.peek()
        return super().peek()

    def pop_unsigned(self) -> Job:
        """Takes it out."""
        if self.picked.filled and self._is_picked_next():
            return self.picked.pop()
        return FairLane.pop(self)  # said so because `super()` costs as much as the rest

    def peek_waiting(self) -> Job | None:
        """The next that nobody picked yet."""
        return super().peek()

    def pop_waiting(self) -> Job:
        """Takes it out."""
        return super().pop()

    def _is_picked_next(self) -> bool:
        return self.picked.head_priority() >= super().head_priority()

    def begin(self, job: Job, now_s: float) -> None:
        """It is being signed from now on."""
        self.signing[job] = now_s
        self._by_priority[job.priority] += 1
        self.signing_filled |= 1 << job.priority

    def leave(self, job: Job) -> bool:
        """It is not being signed any more; False where it was not, because it was taken away meanwhile."""
        if job not in self.signing:
            return False
        del self.signing[job]
        self._by_priority[job.priority] -= 1
        if not self._by_priority[job.priority]:
            self.signing_filled &= ~(1 << job.priority)
        return True

    def take_ahead(self) -> list[Job]:
        """Take out what is ready, what is being signed and what was picked, in this order; jobs keep their state."""
        jobs = _drained(self.ready)
        jobs += [job for job in list(self.signing) if self.leave(job)]
        return jobs + _drained(self.picked)

    def remove(self, is_wanted: Callable[[Job], bool]) -> list[Job]:
        """Take out the jobs of all stages that are wanted, each in its order; they keep their state."""
        ready, signing, picked = _drained(self.ready), list(self.signing), _drained(self.picked)
        removed = [job for job in chain(ready, signing, picked) if is_wanted(job)]
        gone = set(removed)
        for lane, jobs in ((self.ready, ready), (self.picked, picked)):
            for job in jobs:
                if job not in gone:
                    lane.push(job.priority, job)
        for job in signing:
            if job in gone:
                self.leave(job)
        return removed + super().remove(is_wanted)


def _drained(lane: Lane[Job]) -> list[Job]:
    return [lane.pop() for _ in range(len(lane))]


def is_signed(job: Job) -> bool:
    """Whether a job can go as far as its signature is concerned."""
    return job.signature is not None and job.signature.fields is not None
