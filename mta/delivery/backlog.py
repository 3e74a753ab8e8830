"""The backlog: jobs that wait in a pool, most urgent first; how the cold ones at its head come back, and how the next
few are signed before their turn.

Where there are no keys the jobs go straight from the lane. Else a few of them are signed ahead (`Stages`), so that a
connection never waits for a signature, and limits are asked only for mail that can go.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mta.delivery.job import LOADING, SIGNING, WAITING, Job
from mta.delivery.memory import WARM_S
from mta.delivery.stages import Stages, is_signed
from mta.model.outcome import Reply
from mta_queue.timetable import Lane

if TYPE_CHECKING:
    from mta.delivery.pool import Pool

LOADED_AHEAD_MAX = 32  # cold jobs that one visit to the disk brings back, where all of them go out within a moment
SIGNED_AHEAD_MIN = 2  # jobs that are signed before their turn: one goes out, the next is there
SIGNED_AHEAD_MAX = 64  # more would keep no connection busier, and what is urgent would come later
PARKED_AT_ONCE = 256  # suspended jobs that one pump takes away before the loop turns


class Backlog:
    """Jobs of one pool; the pool is told when some can be had that could not."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        engine = self._engine = pool.site.destination.engine
        self.stages: Stages | None = None if engine.signatures.is_off else Stages()
        """The lane, where jobs are signed before their turn."""
        self.lane: Lane[Job] = Lane() if self.stages is None else self.stages
        """May hold jobs that have ended: they are dropped when their turn comes."""
        self.is_plain = self.stages is None
        """Nothing is signed."""
        self.is_loading = False
        self.parked = 0
        """How many suspended jobs this pump took away; the next one begins at 0."""
        self._loading_priority = -1
        self._ahead = 1
        self._loaded_s = 0.0
        self._signed_ahead = 0

    def restage(self) -> None:
        """The first key came, or the last one went: `lane` is another one now."""
        jobs = self.take_jobs()
        self.is_plain = self._engine.signatures.is_off
        self.stages = None if self.is_plain else Stages()
        self.lane = Lane() if self.stages is None else self.stages
        for job in jobs:
            self.lane.push(job.priority, job)

    def head_priority(self) -> int:
        """The priority of what goes next, or is being read back to go; -1 where there is nothing."""
        return max(self.lane.head_priority(), self._loading_priority)

    def head(self) -> Job | None:
        """Whose turn it is, still in the lane; None where that is only known when the loop has turned."""
        lane = self.lane
        while (job := lane.peek()) is not None and (job.state != WAITING or self._is_parked(job)):
            lane.pop()
            if self.parked >= PARKED_AT_ONCE:
                return None
        return job

    def reason_to_open(self) -> Job | None:
        """Whose turn it is, to open a connection for: also one that is being signed, but none that waits for its
        signature and is to go to a host of its own."""
        stages = self.stages
        if stages is None:
            return self.head()
        job = self.first()
        if job is not None and job.prefer_host and not is_signed(job):
            self.sign_ahead(self._engine.loop.time())
            job = stages.ready.peek()
        return job

    def first(self) -> Job | None:
        """Whose turn it is; where nobody else waits, one that is being signed."""
        job = self.head()
        if job is None and self.stages is not None:
            return next((job for job in self.stages.signing if job.state == SIGNING), None)
        return job

    def _is_parked(self, job: Job) -> bool:
        """Whether an admin keeps this job back; it is then not ours any more."""
        suspensions = self._engine.suspensions
        if suspensions.active and suspensions.parks(self._pool, job):
            self.parked += 1
            return True
        return False

    def next(self, recipients_max: int, now_s: float) -> Job | None:
        """The next job, taken out, with its content in memory; None where there is none, or it is on its way.

        Of one with more recipients (0: no limit) the first part is taken. Hot jobs behind cold ones may pass them,
        and signed ones those that are being signed. Where jobs are signed it is asked after `has_ready` said yes.
        """
        if self.stages is not None:
            return self._first_part(self.stages.ready.pop(), recipients_max)
        lane, engine = self.lane, self._engine
        while lane and self.parked < PARKED_AT_ONCE:
            job = lane.pop()
            if job.state != WAITING:
                continue
            if job.expires_s <= engine.clock.wall_s():
                engine.fates.expire(job, self._pool.way)
                continue
            if engine.suspensions.active and self._is_parked(job):
                continue
            if job.content is None and not self._warm(job, now_s):
                if self.is_loading:
                    lane.push_front(job.priority, job)
                    return None
                self._load(job, now_s)
                continue
            if recipients_max and len(job.parts) > recipients_max:
                return self._first_part(job, recipients_max)
            return job
        return None

    def _first_part(self, job: Job, recipients_max: int) -> Job:
        """A job, or as many of its recipients as may go together; the others are next."""
        if not recipients_max or len(job.parts) <= recipients_max:
            return job
        part = self._engine.split(job, job.parts[:recipients_max])
        job.parts = job.parts[recipients_max:]
        self.lane.push_front(job.priority, job)
        return part

    # signing

    def has_ready(self, now_s: float) -> bool:
        """Whether a signed job can go now; if none can, some are being signed or read back, or nothing is left."""
        stages = self.stages
        assert stages is not None, "asked only where jobs are signed"
        if self._has_ready(stages, now_s):
            return True
        if not stages.unsigned:
            return False
        if stages.signing and not self._engine.signatures.is_saturated:
            # A connection has nothing to do for want of signatures: more of them at once from now on.
            self._signed_ahead = min(SIGNED_AHEAD_MAX, 2 * max(stages.ahead, SIGNED_AHEAD_MIN))
        self.sign_ahead(now_s)
        return self._has_ready(stages, now_s)

    def _has_ready(self, stages: Stages, now_s: float) -> bool:
        engine, ready = self._engine, stages.ready
        while (job := ready.peek()) is not None and self.parked < PARKED_AT_ONCE:
            if job.state != WAITING:
                ready.pop()
            elif job.expires_s <= engine.clock.wall_s():
                ready.pop()
                engine.fates.expire(job, self._pool.way)
            elif engine.suspensions.active and self._is_parked(job):
                ready.pop()
            elif job.content is None and not self._warm(job, now_s):
                stages.push_back(ready.pop())
            else:
                return True
        return False

    def sign_ahead(self, now_s: float) -> None:
        """Begin to sign what goes next: twice as much as there are connections, or more where those had to wait."""
        stages = self.stages
        if stages is None:
            return
        if not stages.unsigned:
            self._signed_ahead = 0
            return
        engine = self._engine
        room = max(SIGNED_AHEAD_MIN, 2 * len(self._pool.channels), self._signed_ahead)
        room = min(SIGNED_AHEAD_MAX, room) - stages.ahead
        while stages.unsigned and self.parked < PARKED_AT_ONCE:
            if room <= 0 and stages.unsigned_priority() <= stages.ahead_priority():
                return
            job = stages.pop_unsigned()
            if job.state != WAITING:
                continue
            if job.expires_s <= engine.clock.wall_s():
                engine.fates.expire(job, self._pool.way)
            elif engine.suspensions.active and self._is_parked(job):
                pass
            elif job.content is not None or self._warm(job, now_s):
                self._sign(job, stages)
                room -= 1
            elif self.is_loading:
                stages.push_back(job)
                return
            else:
                self._load(job, now_s)

    def _sign(self, job: Job, stages: Stages) -> None:
        """A job with its content in memory: it is ready at once, or soon, or must wait for long."""
        if is_signed(job):
            stages.ready.push(job.priority, job)
            return
        engine = self._engine
        try:
            reply = engine.signatures.begin(job, partial(self._signed, job))
        except Exception as error:  # noqa: BLE001 - one message that cannot be signed must not stop all others
            engine.set_aside(job, error)
            return
        if reply is not None:
            self._put_off(job, reply)
        elif is_signed(job):
            stages.ready.push(job.priority, job)
        else:
            job.state = SIGNING
            stages.begin(job)

    def _signed(self, job: Job, reply: Reply | None) -> None:
        """A job is signed, or cannot be."""
        stages = self.stages
        if stages is None or not stages.leave(job):
            return  # it was taken away meanwhile
        try:
            self._go_on(job, stages, reply)
        except Exception as error:  # noqa: BLE001 - other jobs of the message are told next
            self._engine.report(error)

    def _go_on(self, job: Job, stages: Stages, reply: Reply | None) -> None:
        if job.state == SIGNING:  # else it has ended, or is about to
            job.state = WAITING
            if job.envelope is None:  # it was long: nobody but memory looks at its time now
                self._engine.memory.watch(job)
            if reply is not None:
                self._put_off(job, reply)
            elif self._pool.is_closed:
                self._engine.route(job)
            else:
                stages.ready.push(job.priority, job)
                self._pool.signed(job)
                return
        if stages.unsigned:  # a connection that waited for this one has to be given another
            self._pool.pump()

    def _put_off(self, job: Job, reply: Reply) -> None:
        engine = self._engine
        try:
            engine.fates.defer_local(job, reply, self._pool.retry)
        except Exception as error:  # noqa: BLE001 - nor must one that cannot be put off
            engine.set_aside(job, error)

    # back from the disk

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
        jobs = [first]
        while len(jobs) < self._ahead and (job := self._next_unsigned()) is not None:
            if job.content is not None or job.priority != first.priority:
                break
            jobs.append(self._pop_unsigned())
        for job in jobs:
            job.state = LOADING
        self._engine.memory.load(jobs, now_s, self._loaded)

    def _next_unsigned(self) -> Job | None:
        """What follows in the lane, whatever is ready before it."""
        peek: Callable[[], Job | None] = self.lane.peek if self.stages is None else self.stages.peek_unsigned
        while (job := peek()) is not None and (job.state != WAITING or self._is_parked(job)):
            self._pop_unsigned()
            if self.parked >= PARKED_AT_ONCE:
                return None
        return job

    def _pop_unsigned(self) -> Job:
        return self.lane.pop() if self.stages is None else self.stages.pop_unsigned()

    def _loaded(self, ready: Sequence[Job], lost: Sequence[Job]) -> None:
        self.is_loading = False
        self._loading_priority = -1
        self._loaded_s = self._engine.loop.time()
        for job in lost:
            self._engine.ended(job)
        living = [job for job in ready if job.state == LOADING]  # the others have another fate meanwhile
        for job in living:
            job.state = WAITING
        self._pool.loaded(living)

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Jobs that had their turn and could not use it, in their order."""
        for job in reversed(jobs):
            self.lane.push_front(job.priority, job)

    def take_jobs(self, wanted: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take out what waits and is wanted (None: everything): it goes another way.

        Also what is being signed: the signature is kept with the job when it comes.
        """
        taken: list[Job] = []
        kept: list[Job] = []
        lane, stages = self.lane, self.stages
        jobs = stages.drain() if stages is not None else _drain(lane)
        for job in jobs:
            if job.state in (WAITING, SIGNING):
                (taken if wanted is None or wanted(job) else kept).append(job)
        for job in taken:
            job.state = WAITING
        for job in kept:
            if stages is None:
                lane.push(job.priority, job)
            elif job.state == SIGNING:
                stages.begin(job)
            elif is_signed(job):
                stages.ready.push(job.priority, job)
            else:
                lane.push(job.priority, job)
        return taken


def _drain(lane: Lane[Job]) -> "list[Job]":
    return [lane.pop() for _ in range(len(lane))]
