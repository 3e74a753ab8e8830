"""The backlog: jobs that wait in a pool, in fair shares; how the cold ones near their turn come back from the disk, how
the next few are signed before their turn, and how those far from it wait as numbers alone.

Where there are no keys jobs go from the lane, or from what was read ahead. Else a few of them are signed ahead
(`Stages`), so that a connection never waits for a signature, and limits are asked only for mail that can go. What is
ready waits, for a moment at most, for more urgent mail that is being signed or read back.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mta.delivery.job import LOADING, SIGNING, WAITING, Job
from mta.delivery.memory import WARM_S
from mta.delivery.spills import Spill
from mta.delivery.stages import Stages, is_signed
from mta.model.outcome import Reply

if TYPE_CHECKING:
    from mta.delivery.pool import Pool

LOADED_AHEAD_MAX = 128  # cold jobs that one visit to the disk brings back, where all of them go out within a moment
SIGNED_AHEAD_MIN = 2  # jobs that are signed before their turn: one goes out, the next is there
SIGNED_AHEAD_MAX = 64  # more would keep no connection busier, and what is urgent would come later
SIGNATURE_S = 0.005  # as long as a batch takes: who still waits then may ask for more once more
URGENT_WAIT_S = 1.0  # so long what is ready waits for a more urgent signature or its content: many times what both take
PARKED_AT_ONCE = 256  # suspended jobs that one pump takes away before the loop turns


class Backlog:
    """Jobs of one pool; the pool is told when some can be had that could not."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        engine = self._engine = pool.site.destination.engine
        self.lane = Stages(signs=not engine.signatures.is_off)
        """May hold jobs that have ended: they are dropped when their turn comes."""
        self.spill = Spill(engine, self.lane, pool)
        """What is behind them, as numbers."""
        self.is_loading = False
        self.parked = 0
        """How many suspended jobs this pump took away; the next one begins at 0."""
        self._loading_filled = 0
        """Bit n: what is being read back has priority n."""
        self._loading_since_s = 0.0
        self._ahead = 1
        self._loaded_s = 0.0
        self._reads_on = False
        """The last jobs that went were read back: the next ones are read before their turn."""
        self._is_ahead = False
        """What is being read back comes behind what was picked before."""
        self._was_ready = False
        """It was signed, and goes back to those that are ready."""
        self._keeps_turn = False
        """Whose turn it is had it before, or is signed, and is read back: nobody passes it, for else mail that comes
        as fast as a rate lets it go would pass it again and again."""
        self._signed_ahead = 0
        self._waited_for: Job | None = None
        """Whose signature was the next to come when connections last had to wait for one, and more were asked for."""
        self._asked_s = 0.0

    @property
    def signs(self) -> bool:
        """Mail is signed before its turn."""
        return self.lane.signs

    def restage(self) -> None:
        """The first key came, or the last one went."""
        lane = self.lane
        ahead = lane.take_ahead()
        lane.signs = not self._engine.signatures.is_off
        for job in reversed(ahead):
            if job.state in (WAITING, SIGNING):
                job.state = WAITING
                lane.push_front(job.priority, job)

    def cooled(self, job: Job) -> None:
        """See `mta.delivery.job.Home`."""
        if not self._pool.is_closed:
            self.spill.overflow(job)

    def head_priority(self) -> int:
        """The priority of what goes next, or is being read back to go; -1 where there is nothing."""
        return max(self.lane.head_priority(), self._loading_priority())

    def _loading_priority(self) -> int:
        return self._loading_filled.bit_length() - 1

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
        if not self.lane.signs:
            return self.head()
        job = self.first()
        if job is not None and job.prefer_host and not is_signed(job):
            self.sign_ahead(self._engine.loop.time())
            job = self.lane.ready.peek()
        return job

    def first(self) -> Job | None:
        """Whose turn it is; where nobody else waits, one that is being signed."""
        job = self.head()
        if job is None:
            return next((job for job in self.lane.signing if job.state == SIGNING), None)
        return job

    def _is_parked(self, job: Job) -> bool:
        """Whether somebody keeps this job back; it is then not ours any more."""
        parking = self._engine.parking
        if parking.active and parking.parks(self._pool, job):
            self.parked += 1
            return True
        return False

    def next(self, recipients_max: int, now_s: float) -> Job | None:
        """The next job, taken out, with its content in memory; None where there is none, or it is on its way.

        Of one with more recipients (0: no limit) the first part is taken. Hot jobs behind a cold one that is no more
        urgent may pass it while it is first read back, and signed ones those that are being signed. Where jobs are
        signed it is asked after `has_ready` said yes.
        """
        lane, engine = self.lane, self._engine
        if lane.signs:
            return self._first_part(lane.ready.pop(), recipients_max)
        picked = lane.picked
        while (lane.filled or picked.filled) and self.parked < PARKED_AT_ONCE:
            if self.is_loading and (
                self._keeps_turn
                or self._waits_for_disk(now_s)
                or self._waits_for_urgent(lane.unsigned_priority(), now_s)
            ):
                return None
            picked_filled = picked.filled
            job = lane.pop_unsigned()
            if job.state != WAITING:
                continue
            if job.expires_s <= engine.clock.wall_s():
                engine.fates.expire(job, self._pool.way)
                continue
            if engine.parking.active and self._is_parked(job):
                continue
            if job.content is None and not self._warm(job, now_s):
                had_turn = picked_filled >> job.priority == 1  # it was popped from there
                self._load(job, now_s, keeps_turn=had_turn)
                if had_turn:
                    return None
                continue
            if self._reads_on:
                self._read_on(now_s)
            if recipients_max and len(job.parts) > recipients_max:
                return self._first_part(job, recipients_max)
            return job
        return None

    def _waits_for_disk(self, now_s: float) -> bool:
        """Whether the next job is cold; while others are being read back it keeps its place."""
        job = self.lane.peek_unsigned()
        if job is None or job.state != WAITING or job.content is not None:
            return False
        return not (self._engine.memory.has_room and self._warm(job, now_s))

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
        lane = self.lane
        if self._has_ready(now_s):
            return True
        if self._keeps_turn or not lane.has_unsigned:
            return False
        ready_priority = lane.ready.head_priority()
        is_wanting = min(lane.unsigned_priority(), lane.signing_filled.bit_length() - 1) > ready_priority
        if is_wanting and not self._engine.signatures.is_saturated:
            # A connection has nothing to do for want of signatures: more of them at once from now on. Once for each
            # wait, however often it is asked in a moment: mail that comes later is behind all that are signed ahead.
            # What is ready, and waits for more urgent mail, is no reason for more of its like.
            waited_for = next(iter(lane.signing))
            if waited_for is not self._waited_for or now_s - self._asked_s >= SIGNATURE_S:
                self._waited_for, self._asked_s = waited_for, now_s
                awaited = lane.ahead_of(ready_priority + 1)
                self._signed_ahead = min(SIGNED_AHEAD_MAX, 2 * max(awaited, SIGNED_AHEAD_MIN))
        self.sign_ahead(now_s)
        return self._has_ready(now_s)

    def _has_ready(self, now_s: float) -> bool:
        if self._keeps_turn:
            return False
        engine, lane = self._engine, self.lane
        ready = lane.ready
        others = lane.filled | lane.picked.filled | lane.signing_filled | self._loading_filled
        while (job := ready.peek()) is not None and self.parked < PARKED_AT_ONCE:
            if job.state != WAITING:
                ready.pop()
            elif job.expires_s <= engine.clock.wall_s():
                ready.pop()
                engine.fates.expire(job, self._pool.way)
            elif others >> job.priority > 1 and self._is_passed(job, now_s):
                if ready.peek() is job:
                    return False
            elif engine.parking.active and self._is_parked(job):
                ready.pop()
            elif job.content is None and not self._warm(job, now_s):
                if self.is_loading:
                    self._keeps_turn = True
                else:
                    self._load_from(ready.pop(), ready.peek, ready.pop, now_s, keeps_turn=True, was_ready=True)
                return False
            else:
                break
        return job is not None and self.parked < PARKED_AT_ONCE

    def _is_passed(self, job: Job, now_s: float) -> bool:
        """Whether more urgent mail goes before the first that is ready: it is ready by now, or will be in a moment."""
        lane = self.lane
        if lane.unsigned_priority() > job.priority:
            self.sign_ahead(now_s)
        return lane.ready.peek() is not job or self._waits_for_urgent(job.priority, now_s)

    def _waits_for_urgent(self, priority: int, now_s: float) -> bool:
        """Whether what is ready stays for now, because more urgent mail is being signed or read back: else that would
        go behind mail of less weight whenever it takes a moment, at a slow rate message after message.

        Not where it takes long: a helper that hangs or a slow disk stops nothing that can go. The pool is pumped when
        it is over.
        """
        wait_s = 0.0
        if self.is_loading and max(self._loading_priority(), self.lane.unsigned_priority()) > priority:
            wait_s = self._loading_since_s + URGENT_WAIT_S - now_s
        if wait_s <= 0 and self.lane.signing_filled >> priority > 1:
            for job, since_s in self.lane.signing.items():
                if job.priority > priority:
                    wait_s = since_s + URGENT_WAIT_S - now_s
                    break
        if wait_s > 0:
            self._pool.wake_in(wait_s, now_s)
        return wait_s > 0

    def sign_ahead(self, now_s: float) -> None:
        """Begin to sign what goes next: twice as much as there are connections, or more where those had to wait. What
        is less urgent than that does not count."""
        lane = self.lane
        if not lane.signs:
            return
        if not lane.has_unsigned:
            self._signed_ahead, self._waited_for = 0, None
            return
        engine = self._engine
        most = min(SIGNED_AHEAD_MAX, max(SIGNED_AHEAD_MIN, 2 * len(self._pool.channels), self._signed_ahead))
        room = most - lane.ahead
        while lane.has_unsigned and self.parked < PARKED_AT_ONCE:
            if room <= 0 and lane.ahead_of(lane.unsigned_priority()) >= most:
                return
            if self.is_loading and self._waits_for_disk(now_s):
                return
            job = lane.pop_unsigned()
            if job.state != WAITING:
                continue
            if job.expires_s <= engine.clock.wall_s():
                engine.fates.expire(job, self._pool.way)
            elif engine.parking.active and self._is_parked(job):
                pass
            elif job.content is not None or self._warm(job, now_s):
                self._sign(job, now_s)
                room -= 1
                if self._reads_on:
                    self._read_on(now_s)
            else:
                self._load(job, now_s)

    def _sign(self, job: Job, now_s: float) -> None:
        """A job with its content in memory: it is ready at once, or soon, or must wait for long."""
        lane = self.lane
        if is_signed(job):
            lane.ready.push(job.priority, job)
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
            lane.ready.push(job.priority, job)
        else:
            job.state = SIGNING
            lane.begin(job, now_s)

    def _signed(self, job: Job, reply: Reply | None) -> None:
        """A job is signed, or cannot be."""
        if not self.lane.leave(job):
            return  # it was taken away meanwhile
        try:
            self._go_on(job, reply)
        except Exception as error:  # noqa: BLE001 - other jobs of the message are told next
            self._engine.report(error)

    def _go_on(self, job: Job, reply: Reply | None) -> None:
        lane = self.lane
        if job.state == SIGNING:  # else it has ended, or is about to
            job.state = WAITING
            if job.envelope is None:  # it was long: nobody but memory looks at its time now
                self._engine.memory.watch(job)
            if reply is not None:
                self._put_off(job, reply)
            elif self._pool.is_closed:
                self._engine.route(job)
            else:
                lane.ready.push(job.priority, job)
                self._pool.signed(job)
                return
        self._pool.pump()  # a connection that waited for this one has to be given another

    def _put_off(self, job: Job, reply: Reply) -> None:
        engine = self._engine
        try:
            engine.fates.defer_local(job, reply, self._pool.retry_for(job.tenant))
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

    def _load(self, first: Job, now_s: float, *, keeps_turn: bool = False) -> None:
        """Bring the next few cold jobs back: more of them as long as they go out before they are cold again."""
        lane = self.lane
        self._load_from(first, lane.peek_unsigned, lane.pop_unsigned, now_s, keeps_turn=keeps_turn)

    def _read_on(self, now_s: float) -> None:
        """Where half of what was read back is gone, the next ones are read, so that the disk is no brake."""
        lane = self.lane
        if self.is_loading or 2 * len(lane.picked) > self._ahead or not self._engine.memory.has_room:
            return
        job = self._living(lane.peek_waiting, lane.pop_waiting)
        if job is None or job.content is not None:
            self._reads_on = job is not None
            return
        lane.pop_waiting()
        self._load_from(job, lane.peek_waiting, lane.pop_waiting, now_s, is_ahead=True)

    def _load_from(
        self,
        first: Job,
        peek: Callable[[], Job | None],
        pop: Callable[[], Job],
        now_s: float,
        *,
        is_ahead: bool = False,
        was_ready: bool = False,
        keeps_turn: bool = False,
    ) -> None:
        self._ahead = min(LOADED_AHEAD_MAX, self._ahead * 2) if now_s - self._loaded_s < WARM_S else 1
        self.is_loading = True
        self._is_ahead, self._was_ready, self._keeps_turn = is_ahead, was_ready, keeps_turn
        self._loading_filled = 1 << first.priority
        self._loading_since_s = now_s
        jobs = [first]
        while len(jobs) < self._ahead and (job := self._living(peek, pop)) is not None:
            if job.content is not None or job.priority != first.priority:
                break
            jobs.append(pop())
        for job in jobs:
            job.state = LOADING
        self._engine.memory.load(jobs, now_s, self._loaded)

    def _living(self, peek: Callable[[], Job | None], pop: Callable[[], Job]) -> Job | None:
        """What follows in the lane, whatever is ready before it."""
        while (job := peek()) is not None and (job.state != WAITING or self._is_parked(job)):
            pop()
            if self.parked >= PARKED_AT_ONCE:
                return None
        return job

    def _loaded(self, ready: Sequence[Job], lost: Sequence[Job]) -> None:
        self.is_loading = self._keeps_turn = False
        self._loading_filled = 0
        self._loaded_s = self._engine.loop.time()
        self._reads_on = True
        for job in lost:
            self._engine.ended(job)
        living = [job for job in ready if job.state == LOADING]  # the others have another fate meanwhile
        for job in living:
            job.state = WAITING
        self._pool.loaded(living)

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Jobs that were picked or ready, in their order, and can go."""
        lane, picked = self.lane, self.lane.picked
        if self._is_ahead:
            for job in jobs:
                picked.push(job.priority, job)
        else:
            for job in reversed(jobs):
                if self._was_ready:
                    lane.push_front(job.priority, job)
                else:
                    picked.push_front(job.priority, job)

    def take_jobs(self, wanted: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take out what waits and is wanted (None: everything): it goes another way.

        Also what is being signed: the signature is kept with the job when it comes.
        """
        taken = self.lane.remove(lambda job: job.state > SIGNING or wanted is None or wanted(job))
        living = [job for job in taken if job.state in (WAITING, SIGNING)]
        for job in living:
            job.state = WAITING
            job.home = None
        return living
