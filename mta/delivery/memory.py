"""What is in memory: content that is about to go out, and how the rest comes back from the disk.

A message that was just accepted goes out from memory. One that waits over a second, or when there is too much, leaves
memory; its job stays in its lane as a few numbers and is read back when its turn is near.
"""

from collections import deque
from collections.abc import Callable, Sequence

from mta.delivery.job import ENDED, SENDING, WAITING, Job
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta_queue.store import Loaded, Store
from mta_queue.timetable import Wheel

WARM_S = 1.0  # mail that flows goes out within this; what waits longer waits for minutes
EXPIRY_STEP_S = 1.0


class Memory:
    """Counts resident content and keeps it under a bound."""

    def __init__(self, store: Store, clock: Clock, bytes_max: int) -> None:
        self._store = store
        self._clock = clock
        self.bytes_max = bytes_max
        self.resident_bytes = 0
        self._resident: deque[tuple[float, Job]] = deque()
        self._expiries: Wheel[Job] = Wheel(EXPIRY_STEP_S, clock.wall_s())

    def add(self, job: Job, now_s: float) -> None:
        """A new job, usually with its content in memory."""
        self._resident.append((now_s, job))
        content = job.content
        if content is not None:
            self.resident_bytes += len(content)
            if self.resident_bytes > self.bytes_max:
                self._shrink()

    def split(self, job: Job, part: Job) -> None:
        """A job became several: each counts its content."""
        if part.content is not None:
            self.resident_bytes += len(part.content)
            self._resident.append((self._clock.monotonic_s(), part))

    def drop(self, job: Job) -> None:
        """A job ended or leaves memory."""
        if job.content is not None:
            self.resident_bytes -= len(job.content)
            job.content = None

    def cool(self, job: Job) -> None:
        """Keep only what a lane needs."""
        self.drop(job)
        job.cool()
        if job.expires_s:
            self._expiries.add(job.expires_s, job)

    def _shrink(self) -> None:
        resident = self._resident
        while resident and self.resident_bytes > self.bytes_max:
            _, job = resident.popleft()
            if job.state == WAITING and job.content is not None:
                self.cool(job)

    def sweep(self, now_s: float) -> None:
        """Let go what has waited over a second; called a few times a second."""
        resident = self._resident
        before_s = now_s - WARM_S
        while resident and resident[0][0] < before_s:
            _, job = resident.popleft()
            if job.state == WAITING:
                if job.envelope is not None:
                    self.cool(job)
            elif job.state != ENDED:
                resident.append((now_s, job))

    def expired(self) -> list[Job]:
        """Cold jobs whose time is over."""
        return [job for job in self._expiries.advance(self._clock.wall_s()) if job.state == WAITING]

    def load(self, jobs: Sequence[Job], done: Callable[[Sequence[Job]], None]) -> None:
        """Bring envelopes and the first contents back; `done` is called with the same jobs.

        A job whose item cannot be read any more is ended: the store has set it aside.
        """
        seqs = [job.seq for job in jobs]

        def envelopes_loaded(loaded: list[Loaded]) -> None:
            metas = {item.seq: item.meta for item in loaded}
            for job in jobs:
                meta = metas.get(job.seq)
                if meta is None:
                    job.state = ENDED
                else:
                    job.envelope = envelopes.decode(meta)
            self._load_contents(deque(job for job in jobs if job.state != ENDED), lambda: done(jobs))

        self._store.load_soon(seqs, envelopes_loaded)

    def _load_contents(self, todo: deque[Job], done: Callable[[], None]) -> None:
        """Contents follow one after another while there is room for them, at least one."""
        now_s = self._clock.monotonic_s()
        while todo:
            job = todo[0]
            content = self._store.content_now(job.seq)
            if content is None:

                def read(content: bytes | None) -> None:
                    if content is None:
                        todo.popleft().state = ENDED
                    else:
                        self._keep(todo.popleft(), content, now_s)
                    self._load_contents(todo, done)

                self._store.content_soon(job.seq, read)
                return
            todo.popleft()
            self._keep(job, content, now_s)
        done()

    def _keep(self, job: Job, content: bytes, now_s: float) -> None:
        job.content = content
        self.resident_bytes += len(content)
        self._resident.append((now_s, job))

    def loaded_in_place(self, job: Job, content: bytes) -> None:
        """Content that was read without waiting, for a job that is sent at once."""
        job.content = content
        self.resident_bytes += len(content)
        assert job.state != SENDING, "read before it is sent"
