"""What is in memory: content that is about to go out, and how the rest comes back from the disk.

A message that was just accepted goes out from memory. One that waits over a second, or when there is too much, leaves
memory; its job stays in its lane as a few numbers and is read back when its turn is near. Whatever is cold is watched
for its expiry.
"""

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from mta.delivery.expiries import Expiries
from mta.delivery.job import ENDED, SIGNING, WAITING, Job
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta_queue.store import Loaded, Store

COOLS = (WAITING, SIGNING)
"""Jobs in these states may leave memory; what is being signed needs its content no more, and comes back in time."""
COOLED_AT_ONCE = 2_000  # jobs that leave memory in one turn of the loop: some ten milliseconds
READ_BYTES_MAX = 1 << 20  # of contents, on their way from the disk and not counted yet
WARM_S = 1.0  # mail that flows goes out within this; what waits longer waits for minutes

Loads = Callable[[Sequence[Job], Sequence[Job]], None]
"""What is called with jobs that were read back, and those that cannot be read. Some may have ended
a moment before."""


class Memory:
    """Counts resident content and keeps it under a bound.

    A job that is alive and has its envelope or content in memory is in `_watched` or `_aside`, once.
    """

    def __init__(self, store: Store, clock: Clock, bytes_max: int) -> None:
        self._store = store
        self._clock = clock
        self.bytes_max = bytes_max
        self.resident_bytes = 0
        self._watched: deque[tuple[float, Job]] = deque()
        self._aside: list[Job] = []
        self._expiries = Expiries()

    @property
    def has_room(self) -> bool:
        """Mail may be read back before it is needed."""
        return 2 * self.resident_bytes < self.bytes_max

    def add(self, job: Job, now_s: float, charge_bytes: int) -> None:
        """A new job, usually with its content in memory, of which it is charged so much."""
        job.is_watched = True
        self._watched.append((now_s, job))
        if charge_bytes:
            job.charge_bytes = charge_bytes
            self.resident_bytes += charge_bytes
            if self.resident_bytes > self.bytes_max:
                self._shrink()

    def split(self, job: Job, part: Job, now_s: float) -> None:
        """Some recipients of a job became a job of their own: they share its content, and what is charged for it."""
        part.charge_bytes = job.charge_bytes * len(part.parts) // len(job.parts)
        job.charge_bytes -= part.charge_bytes
        self._watch(part, now_s)

    def keep(self, job: Job, content: bytes, now_s: float) -> None:
        """A job's content was read back."""
        assert job.content is None, "a job is charged once"
        job.content = content
        job.charge_bytes = len(content)
        self.resident_bytes += len(content)
        self._watch(job, now_s)

    def drop(self, job: Job) -> None:
        """A job ended or leaves memory."""
        self.resident_bytes -= job.charge_bytes
        job.charge_bytes = 0
        job.content = None
        if job.expiry_step:
            self._expiries.forget(job)

    def watch(self, job: Job) -> None:
        """A job's expiry became known or changed: where it is cold, nobody but this looks at the time."""
        if job.envelope is None and job.expires_s:
            self._expiries.watch(job)

    def _watch(self, job: Job, now_s: float) -> None:
        if not job.is_watched:
            job.is_watched = True
            self._watched.append((now_s, job))

    def _cool(self, job: Job) -> None:
        """Keep only what a lane needs, or less: far from its turn a job ends as a number."""
        self.drop(job)
        job.cool()
        if job.home is not None:
            job.home.cooled(job)
        if job.state != ENDED:
            self.watch(job)

    def _shrink(self) -> None:
        """Too much: let the longest waiting go. What is being sent stays, and is looked at with the next sweep."""
        watched = self._watched
        while watched and self.resident_bytes > self.bytes_max:
            _, job = watched.popleft()
            if job.state in COOLS:
                job.is_watched = False
                self._cool(job)
            elif job.state != ENDED:
                self._aside.append(job)

    def sweep(self, now_s: float) -> bool:
        """Let go what has waited over a second; called a few times a second. -> whether there is more of it, for the
        next turn of the loop."""
        watched = self._watched
        before_s = now_s - WARM_S
        stays: list[Job] = []
        looked = 0
        while watched and watched[0][0] < before_s and looked < COOLED_AT_ONCE:
            _, job = watched.popleft()
            looked += 1
            if job.state in COOLS:
                job.is_watched = False
                self._cool(job)
            elif job.state != ENDED:
                stays.append(job)
        aside, self._aside = self._aside, []
        watched.extend((now_s, job) for job in stays)
        watched.extend((now_s, job) for job in aside if job.state != ENDED)
        return looked == COOLED_AT_ONCE

    def expired(self, jobs_max: int) -> list[Job]:
        """Cold jobs whose time is over, at most so many; also those whose signatures are late."""
        return [job for job in self._expiries.expired(self._clock.wall_s(), jobs_max) if job.state in COOLS]

    # back from the disk

    def load_envelopes(self, jobs: Sequence[Job], now_s: float, done: Loads) -> None:
        """Bring the envelopes of cold jobs back."""

        def loaded(items: list[Loaded]) -> None:
            metas = {item.seq: item.meta for item in items}
            ready: list[Job] = []
            lost: list[Job] = []
            for job in jobs:
                if job.state == ENDED:
                    continue
                try:
                    job.envelope = envelopes.decode(metas[job.seq])
                    self._watch(job, now_s)
                    ready.append(job)
                except (KeyError, msgspec.DecodeError):
                    lost.append(job)
            done(ready, lost)

        self._store.load_soon([job.seq for job in jobs], loaded)

    def load(self, jobs: Sequence[Job], now_s: float, done: Loads) -> None:
        """Bring envelopes back that are not in memory, and contents while there is room for them, at least one."""

        def loaded(ready: Sequence[Job], lost: Sequence[Job]) -> None:
            found = [job for job in jobs if job.envelope is not None]
            _Contents(self, self._store, found, list(lost), now_s, done).take_cached()

        cold = [job for job in jobs if job.envelope is None]
        if cold:
            self.load_envelopes(cold, now_s, loaded)
        else:
            _Contents(self, self._store, jobs, [], now_s, done).read()


class _Contents:
    """Contents of some jobs, read some at a time, in their order."""

    __slots__ = ("_done", "_lost", "_memory", "_now_s", "_ready", "_store", "_todo")

    def __init__(
        self, memory: Memory, store: Store, jobs: Sequence[Job], lost: list[Job], now_s: float, done: Loads
    ) -> None:
        self._memory = memory
        self._store = store
        self._todo = deque(jobs)
        self._ready: list[Job] = []
        self._lost = lost
        self._now_s = now_s
        self._done = done

    def take_cached(self) -> None:
        """Those that the system has in memory, without another way to a thread; then the others."""
        todo, store = self._todo, self._store
        while todo and self._has_room(store.content_size(todo[0].seq)):
            content = store.content_now(todo[0].seq) if todo[0].state != ENDED else b""
            if content is None:
                break
            self._take(content)
        self.read()

    def read(self) -> None:
        """From the disk, neighbours together."""
        self._todo = todo = deque(job for job in self._todo if job.state != ENDED)  # nobody wants the others' contents
        if not todo or not self._has_room(self._store.content_size(todo[0].seq)):
            self._done([*self._ready, *todo], self._lost)
            return
        room_bytes = self._memory.bytes_max - self._memory.resident_bytes
        self._store.contents_soon([job.seq for job in todo], min(room_bytes, READ_BYTES_MAX), self._read)

    def _read(self, contents: Sequence[bytes | None]) -> None:
        for content in contents:
            if content is None and self._todo[0].state != ENDED:
                self._lost.append(self._todo.popleft())
            elif content is not None and not self._has_room(len(content)):  # others came meanwhile
                break
            else:
                self._take(content or b"")
        self.read()

    def _has_room(self, length_bytes: int) -> bool:
        """One comes in any case."""
        return not self._ready or self._memory.resident_bytes + length_bytes <= self._memory.bytes_max

    def _take(self, content: bytes) -> None:
        job = self._todo.popleft()
        if job.state != ENDED:
            self._memory.keep(job, content, self._now_s)
            self._ready.append(job)
