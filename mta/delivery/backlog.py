"""The backlog: jobs that wait in a pool, most urgent first, and how the cold ones at its head come back."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mta.delivery.job import ENDED, LOADING, WAITING, Job
from mta.delivery.memory import WARM_S
from mta_queue.timetable import Lane

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

LOADED_AHEAD_MAX = 32  # cold jobs that one visit to the disk brings back, where all of them go out within a moment


class Backlog:
    """Jobs of one pool; `on_loaded` is called when some can be had that could not."""

    def __init__(self, engine: "Dispatcher", on_loaded: Callable[[Sequence[Job]], None]) -> None:
        self.lane: Lane[Job] = Lane()
        """May hold jobs that have ended: they are dropped when their turn comes."""
        self.is_loading = False
        self._loading_priority = -1
        self._engine = engine
        self._on_loaded = on_loaded
        self._ahead = 1
        self._loaded_s = 0.0

    def head_priority(self) -> int:
        """The priority of what goes next, or is being read back to go; -1 where there is nothing."""
        return max(self.lane.head_priority(), self._loading_priority)

    def head(self) -> Job | None:
        """Whose turn it is, still in the lane."""
        lane = self.lane
        while (job := lane.peek()) is not None and job.state != WAITING:
            lane.pop()
        return job

    def next(self, recipients_max: int, now_s: float) -> Job | None:
        """The next job, taken out, with its content in memory; None where there is none, or it is on its way.

        Of one with more recipients (0: no limit) the first part is taken. Hot jobs behind cold ones may pass them.
        """
        lane, engine = self.lane, self._engine
        while lane:
            job = lane.pop()
            if job.state != WAITING:
                continue
            if job.expires_s <= engine.clock.wall_s():
                engine.fates.expire(job)
                continue
            if job.content is None and not self._warm(job, now_s):
                if self.is_loading:
                    lane.push_front(job.priority, job)
                    return None
                self._load(job, now_s)
                continue
            if recipients_max and len(job.parts) > recipients_max:
                part = engine.split(job, job.parts[:recipients_max])
                job.parts = job.parts[recipients_max:]
                lane.push_front(job.priority, job)
                return part
            return job
        return None

    def _warm(self, job: Job, now_s: float) -> bool:
        """Content that can be had without waiting."""
        if job.envelope is None:
            return False
        content = self._engine.store.content_now(job.seq)
        if content is None:
            return False
        self._engine.memory.keep(job, content, now_s)
        return True

    def _load(self, first: Job, now_s: float) -> None:
        """Bring the next few cold jobs back: more of them as long as they go out before they are cold again."""
        self._ahead = min(LOADED_AHEAD_MAX, self._ahead * 2) if now_s - self._loaded_s < WARM_S else 1
        self.is_loading = True
        self._loading_priority = first.priority
        lane = self.lane
        jobs = [first]
        while len(jobs) < self._ahead and (job := self.head()) is not None:
            if job.content is not None or job.priority != first.priority:
                break
            jobs.append(lane.pop())
        for job in jobs:
            job.state = LOADING
        self._engine.memory.load(jobs, now_s, self._loaded)

    def _loaded(self, ready: Sequence[Job], lost: Sequence[Job]) -> None:
        self.is_loading = False
        self._loading_priority = -1
        self._loaded_s = self._engine.loop.time()
        for job in lost:
            self._engine.ended(job)
        for job in ready:
            if job.state != ENDED:
                job.state = WAITING
        self._on_loaded(ready)

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Jobs that had their turn and could not use it, in their order."""
        for job in reversed(jobs):
            self.lane.push_front(job.priority, job)

    def take_jobs(self, wanted: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take out what waits and is wanted (None: everything): it goes another way."""
        taken: list[Job] = []
        kept: list[Job] = []
        lane = self.lane
        while lane:
            job = lane.pop()
            if job.state == WAITING:
                (taken if wanted is None or wanted(job) else kept).append(job)
        for job in kept:
            lane.push(job.priority, job)
        return taken
