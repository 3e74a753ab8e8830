"""Expiries: when waiting jobs are given up.

A job that ends before its time is taken out at once: a wheel that kept it until then would hold days of mail that has
long been delivered.
"""

from heapq import heappop, heappush

from mta.delivery.job import Job

STEP_S = 1.0


class Expiries:
    """Jobs by the second in which they expire; every operation costs the same however many there are."""

    def __init__(self) -> None:
        self._jobs: dict[int, dict[Job, None]] = {}
        self._heap: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def watch(self, job: Job) -> None:
        """Tell of this job when its `expires_s` has passed; again after that has changed."""
        step = int(job.expires_s // STEP_S) + 1  # never early
        if job.expiry_step == step:
            return
        self.forget(job)
        job.expiry_step = step
        jobs = self._jobs.get(step)
        if jobs is None:
            jobs = self._jobs[step] = {}
            heappush(self._heap, step)
        jobs[job] = None

    def forget(self, job: Job) -> None:
        """It has another fate, or is in memory, where whoever takes it looks at the time."""
        if job.expiry_step:
            jobs = self._jobs.get(job.expiry_step)
            if jobs is not None:
                jobs.pop(job, None)
            job.expiry_step = 0

    def expired(self, now_s: float, jobs_max: int) -> list[Job]:
        """Takes out at most so many jobs whose time is over, the oldest second first."""
        expired: list[Job] = []
        heap = self._heap
        while heap and heap[0] * STEP_S <= now_s:
            jobs = self._jobs[heap[0]]
            while jobs and len(expired) < jobs_max:
                job = next(iter(jobs))
                del jobs[job]
                job.expiry_step = 0
                expired.append(job)
            if jobs:
                break
            del self._jobs[heappop(heap)]
        return expired
