"""The registry: which recipients of the queue's items are in hand, so that none is taken up twice.

The timing wheel may name a recipient more than once: an admin who says "now" or "not yet" cannot take an entry out of
it. What counts is the due time in the queue, and that nothing is in hand already: a job, or a move to another worker.
"""

from collections.abc import Collection, Iterable, Sequence

from mta.delivery.job import Job

HELD_S = float(1 << 40)
"""A due time from here on says "held by an admin"; what is beyond it is the due time before, to a quarter of a
millisecond. That is 34,000 years from now: no schedule comes there."""

EXPORTED_S = float(1 << 41)
"""The same, where an export holds it: who exports again knows that nobody meant it to stay."""


def is_held(due_s: float) -> bool:
    """Whether an admin, or an export, holds a recipient with this due time."""
    return due_s >= HELD_S


def is_exported(due_s: float) -> bool:
    """Whether an export holds a recipient with this due time."""
    return due_s >= EXPORTED_S


def due_before(due_s: float) -> float:
    """The due time of what is held as it was before, of other mail as it is."""
    if due_s >= EXPORTED_S:
        return due_s - EXPORTED_S
    return due_s - HELD_S if due_s >= HELD_S else due_s


class Registry:
    """Jobs by the seq of their item; every operation costs the same however many there are."""

    __slots__ = ("_jobs", "_leaving")

    def __init__(self) -> None:
        self._jobs: dict[int, Job | list[Job]] = {}
        """A list only where a message has several jobs."""
        self._leaving: dict[int, list[int]] = {}

    def add(self, job: Job) -> None:
        """A job came to life."""
        jobs, seq = self._jobs, job.seq
        found = jobs.setdefault(seq, job)
        if found is not job:
            if type(found) is list:
                found.append(job)
            else:
                assert isinstance(found, Job), "either a job or a list of them"
                jobs[seq] = [found, job]

    def remove(self, job: Job) -> None:
        """A job ended; one that is not known is no error."""
        jobs, seq = self._jobs, job.seq
        found = jobs.get(seq)
        if found is job:
            del jobs[seq]
        elif type(found) is list and job in found:
            found.remove(job)
            if not found:
                del jobs[seq]

    def jobs(self, seq: int) -> Sequence[Job]:
        """The jobs of an item that are alive."""
        found = self._jobs.get(seq)
        if found is None:
            return ()
        return tuple(found) if isinstance(found, list) else (found,)

    def leave(self, seq: int, parts: Sequence[int]) -> None:
        """These parts are on their way to another worker."""
        self._leaving.setdefault(seq, []).extend(parts)

    def left(self, seq: int, parts: Sequence[int]) -> None:
        """They are the other worker's, or stay here for good."""
        leaving = self._leaving.get(seq)
        if leaving is None:
            return
        gone = set(parts)
        leaving[:] = [part for part in leaving if part not in gone]
        if not leaving:
            del self._leaving[seq]

    def leaving(self, seq: int) -> Sequence[int]:
        """The parts of an item that are on their way to another worker."""
        return self._leaving.get(seq, ())

    def busy(self, seqs: Iterable[int]) -> Collection[int]:
        """Those of these items that have a job, or parts that are leaving."""
        jobs, leaving = self._jobs, self._leaving
        if not jobs and not leaving:
            return ()
        return {seq for seq in seqs if seq in jobs or seq in leaving}

    def in_hand(self, seq: int) -> set[int]:
        """The parts of an item that have a job or are leaving."""
        parts = set(self._leaving.get(seq, ()))
        for job in self.jobs(seq):
            parts.update(job.parts)
        return parts

    def __len__(self) -> int:
        """How many items have a job."""
        return len(self._jobs)
