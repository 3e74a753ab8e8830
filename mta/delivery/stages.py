"""Stages: the lane of a pool whose mail is signed before its turn.

What waits is as in any lane. From its head a few jobs at a time are signed, and come to `ready`, from where they go
out: first come first served within a priority, and before everything that is not signed yet. It counts, shows and
gives back the jobs of all stages.
"""

from collections.abc import Iterator
from itertools import chain

from mta.delivery.job import Job
from mta_queue.timetable import PRIORITY_MAX, Lane


class Stages(Lane[Job]):
    """Waiting, being signed, ready."""

    __slots__ = ("_by_priority", "_signing_filled", "ready", "signing")

    def __init__(self) -> None:
        super().__init__()
        self.ready: Lane[Job] = Lane()
        """Signed, or nothing to sign; may hold jobs that have ended."""
        self.signing: dict[Job, None] = {}
        self._by_priority = [0] * (PRIORITY_MAX + 1)
        self._signing_filled = 0

    def __len__(self) -> int:
        return self._length + len(self.ready) + len(self.signing)

    def __iter__(self) -> Iterator[Job]:
        return chain(super().__iter__(), self.ready, self.signing)

    @property
    def unsigned(self) -> int:
        """How many nobody has begun to sign."""
        return self._length

    @property
    def ahead(self) -> int:
        """How many are being signed or ready."""
        return len(self.signing) + len(self.ready)

    def push_front(self, priority: int, item: Job) -> None:
        """Before all others of its priority and stage."""
        if is_signed(item):
            self.ready.push_front(priority, item)
        else:
            super().push_front(priority, item)

    def pop(self) -> Job:
        """Whose turn it is: of those that are ready, else of those that wait."""
        return self.ready.pop() if self.ready else super().pop()

    def peek(self) -> Job | None:
        """What `pop` would take; None where nothing is ready and nothing waits."""
        return self.ready.peek() or super().peek()

    def head_priority(self) -> int:
        """The highest of all stages."""
        return max(self.unsigned_priority(), self.ahead_priority())

    def unsigned_priority(self) -> int:
        """The highest of those that wait, -1 where none does."""
        return super().head_priority()

    def ahead_priority(self) -> int:
        """The highest of those that are being signed or ready, -1 where none is."""
        return max(self.ready.head_priority(), self._signing_filled.bit_length() - 1)

    def peek_unsigned(self) -> Job | None:
        """The next to be signed; None where nothing waits."""
        return super().peek()

    def pop_unsigned(self) -> Job:
        """The next to be signed."""
        return super().pop()

    def push_back(self, job: Job) -> None:
        """Before all that wait, though it may be signed: it has to be read back first."""
        super().push_front(job.priority, job)

    def begin(self, job: Job) -> None:
        """It is being signed from now on."""
        self.signing[job] = None
        self._by_priority[job.priority] += 1
        self._signing_filled |= 1 << job.priority

    def leave(self, job: Job) -> bool:
        """It is not being signed any more; False where it was not, because it was taken away meanwhile."""
        if job not in self.signing:
            return False
        del self.signing[job]
        self._by_priority[job.priority] -= 1
        if not self._by_priority[job.priority]:
            self._signing_filled &= ~(1 << job.priority)
        return True

    def drain(self) -> Iterator[Job]:
        """Take out everything: what is ready, what is being signed, what waits, each in its order.

        Jobs keep their state.
        """
        while self.ready:
            yield self.ready.pop()
        for job in list(self.signing):
            if self.leave(job):
                yield job
        while self._length:
            yield super().pop()


def is_signed(job: Job) -> bool:
    """Whether a job can go as far as its signature is concerned."""
    return job.signature is not None and job.signature.fields is not None
