"""The journal: group commit. Many appends, one write, one fdatasync, one turn of the loop to tell them all.

What is appended while the disk is busy waits and goes out together as the next group. One group is under way at a
time, in a thread of its own; everything else happens in the loop's thread. A single append goes at once; where many
come together a group gathers until it is as large as the last one, or for a few milliseconds (`GATHER_S`), because a
group costs the same whether it has four or forty.

A write or sync that failed is never asked again: after a failed fdatasync the kernel may have dropped the pages and
would report the next one as a success. The segment is abandoned as it is, and a new one begins with the fates that
were not yet on stable storage and with a FORGOTTEN for each item of the failed group, so that what a client was told
"try again" for does not come back from the abandoned file.
"""

import asyncio
from collections.abc import Callable, Set
from pathlib import Path

from mta_queue.catalog import Catalog
from mta_queue.committer import NO_ROOM, Committer
from mta_queue.disk import Disk
from mta_queue.entry import Entry, Note
from mta_queue.fates import Fates
from mta_queue.group import Append, Group
from mta_queue.segment import SegmentWriter
from mta_queue.settling import Settling
from mta_queue.threads import Jobs

GROUP_BYTES_MAX = 16 << 20  # one group's appends: bounds what the first waits for and how far a segment overshoots
CROWD = 4  # appends in the last group that say: more are about to come, wait for them
GATHER_S = 0.004  # at most, from one group's beginning to the next one's in a crowd: fewer syncs, fewer threads woken
FATES_WAIT_S = 0.005  # how long fates wait for appends that they can ride with; nobody waits for them
ENDS_MAX = 2  # segments of a life that ends: what one that cannot be sealed had not synced goes to another one, once
RETRY_S = 1.0  # between attempts on a disk that failed twice; appends fail at once until one succeeds
FATES_WAITING_BYTES_MAX = 16 << 20  # fates in memory that the disk did not take: beyond it nothing more should be begun


class Journal:
    """Appends to one log. `start` before the first call of anything else."""

    def __init__(
        self,
        directory: Path,
        log: int,
        disk: Disk,
        jobs: Jobs,
        catalog: Catalog,
        *,
        synced: bool,
        segment_bytes_max: int,
        fates_wait_s: float = FATES_WAIT_S,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._jobs = jobs
        self._catalog = catalog
        self._synced = synced
        self._committer = Committer(directory, log, disk, synced=synced, segment_bytes_max=segment_bytes_max)
        self._fates_wait_s = fates_wait_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self.marker = 0
        self.next_number = 1
        self.settled = 0
        """Every fate with a number up to this one is on stable storage (durability "os": written)."""
        self.tell_number = 0
        """The highest number of a fate that has to be told."""
        self.pending_bytes = 0
        self.written_bytes = 0
        """All that appends and fates have written."""
        self.commit_s = 0.0
        """What the last group took."""
        self.commits = self._groups_refused = 0
        self.on_segment: Callable[[SegmentWriter], None] = lambda writer: None
        """A segment was begun: readers may use its file."""
        self.on_commit: Callable[[], None] = lambda: None
        """A group is done and its callbacks have been called."""

        self._appends: list[Append] = []
        self._append_bytes = 0
        self._fates = Fates()
        self._refs: set[int] = set()
        self._waiters: list[Callable[[], None]] = []
        self._scheduled = False
        self._fates_planned = False
        self._begun_s = 0.0
        self._crowd = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._in_flight: Group | None = None
        self._error: OSError | None = None
        """What the disk said, as long as it is failing."""
        self._kept_bytes = 0
        self._is_doubted = False
        self._reservation: Callable[[int], None] | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._closed = False
        self._open_segments: list[SegmentWriter] = []
        self._settling = Settling(catalog)

    def open(self, marker: int, first_segment: int, next_number: int) -> None:
        """Begins the first segment; where there is no room for one the log is failing from the start. Blocking, raises
        OSError."""
        committer = self._committer
        self.marker = committer.marker = marker
        self.next_number = next_number
        self.settled = next_number - 1
        committer.segment = first_segment - 1
        group = Group([], 0)
        group.first_number, group.told = next_number, self._catalog.told
        try:
            anchor = committer.begin(group).number
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._disk.sync_directory(self._directory)
            self._error = error
            anchor = max(self._catalog.segments, default=0)
        self._note_segments(group)
        self._catalog.anchor = anchor

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on groups are committed."""
        self._loop = loop
        self._arrange()
        if self._error is not None:
            self._plan_retry()

    def append(
        self,
        seq: int,
        entry: Entry,
        head: bytes,
        content: bytes,
        on_durable: Callable[[int], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        """An item; exactly one of the callbacks is called, in a later turn."""
        self._appends.append((seq, entry, head, content, on_durable, on_failed))
        length = len(head) + len(content)
        self._append_bytes += length
        self.pending_bytes += length
        if not self._scheduled:
            if self._in_flight is None:
                self._arrange()
        elif self._gathering is not None and len(self._appends) >= self._crowd:
            self._gathering.cancel()
            self._gathering = None
            self._begin_soon()

    def fate(
        self,
        data: bytes,
        segment: int | None,
        on_durable: Callable[[], None] | None = None,
        note: Note | None = None,
    ) -> None:
        """A record about an item of that segment; synced only where somebody waits for it. `note`: what it says, which
        the catalog hears of when the record is there for good."""
        if data:
            fates, length = self._fates, len(data)
            if note is not None:
                fates.notes.append((note, fates.length_bytes))
            fates.records.append(data)
            fates.length_bytes += length
            self.pending_bytes += length
        if segment is not None:
            self._refs.add(segment)
        if on_durable is not None:
            self._waiters.append(on_durable)
        if not self._scheduled and self._in_flight is None:
            self._arrange()

    @property
    def syncs(self) -> int:
        return self._committer.syncs

    @property
    def failures(self) -> int:
        """Groups that the disk refused, and segments that it did not let end."""
        return self._groups_refused + self._committer.ends_refused

    @property
    def is_failing(self) -> bool:
        """The disk refused a group and a new segment, and has not taken one since."""
        return self._error is not None

    @property
    def is_overdue(self) -> bool:
        """It is failing, and more fates wait in memory than should ever be lost with a crash."""
        return self._error is not None and self._kept_bytes + self.pending_bytes > FATES_WAITING_BYTES_MAX

    @property
    def open_segment(self) -> int:
        """The number of the segment being written; 0 where there is none."""
        return self._open_segments[-1].number if self._open_segments else 0

    def doubt(self) -> None:
        """The segment's name may be gone: the next group begins a new one."""
        self._is_doubted = True

    def draw_number(self) -> int:
        """The number of a record that is written elsewhere."""
        number = self.next_number
        self.next_number = number + 1
        return number

    def reserve(self, then: Callable[[int], None]) -> None:
        """Ends the segment being written and calls `then` with the number behind it, of a segment that somebody else
        makes; what is appended from now on comes behind that. 0: the disk refused. One at a time."""
        assert self._reservation is None, "one at a time"
        self._reservation = then
        if not self._scheduled and self._in_flight is None:
            self._arrange()

    def also_about(self, segments: Set[int], others: Set[int]) -> None:
        """Fates that are about one of the others are about these segments too: those that are not written yet."""
        for refs in (self._refs, self._in_flight.refs if self._in_flight is not None else set()):
            if not refs.isdisjoint(others):
                refs.update(segments)

    async def close(self) -> bool:
        """Commits what waits and seals the segment; whether all of it is on stable storage (durability "os": written).
        What the disk refuses to take is lost like in a crash."""
        for _ in range(ENDS_MAX):
            await self._commit_all()
            self._closed = True
            await self._end()
            if self.is_failing or not self._committer.carry:
                break
        self._jobs.stop()
        return not self._has_work()

    async def _commit_all(self) -> None:
        """As far as the disk takes it."""
        assert self._loop is not None
        self._cancel_retry()
        while self._in_flight is not None or self._has_work():
            if self._in_flight is None:
                self._begin(is_trial=self.is_failing)
            if self._in_flight is not None:
                self._idle = self._loop.create_future()
                await self._idle
            if self.is_failing:
                break
        self._cancel_retry()

    async def _end(self) -> None:
        """Has the segment sealed; one that the disk does not let end leaves what it had not synced to be carried."""
        assert self._loop is not None
        loop, finished = self._loop, self._loop.create_future()

        def seal() -> None:
            self._committer.end(self.next_number)
            loop.call_soon_threadsafe(finished.set_result, None)

        self._jobs.submit(seal)
        await finished

    def _has_work(self) -> bool:
        fates = self._fates.records or self._waiters or self._committer.carry
        return bool(self._appends or fates or self._reservation)

    def _arrange(self) -> None:
        """Plans the next group: now, or in a moment where it can gather more."""
        if self._loop is None or self._closed:
            return
        if self._appends or self._waiters or self._committer.carry or self._reservation:
            self._scheduled = True
            wait_s = self._begun_s + GATHER_S - self._loop.time() if self._crowd >= CROWD else 0.0
            if wait_s > 0 and len(self._appends) < self._crowd:
                self._gathering = self._loop.call_later(wait_s, self._begin)
            else:
                self._begin_soon()
        elif self._fates.records and not self._fates_planned:
            self._fates_planned = True
            if self._fates_wait_s > 0:
                self._loop.call_later(self._fates_wait_s, self._begin_fates)
            else:
                self._loop.call_soon(self._begin_fates)

    def _begin_soon(self) -> None:
        assert self._loop is not None
        self._loop.call_soon(self._begin)

    def _begin_fates(self) -> None:
        self._fates_planned = False
        if not self._scheduled:
            self._begin()

    def _begin(self, *, is_trial: bool = False) -> None:
        """Sends off what waits as one group. On a disk that failed only a trial does, and of fates alone."""
        self._scheduled = False
        self._gathering = None
        if self._error is not None:
            self._refuse_appends(self._error)
        if self._in_flight is not None or not (is_trial or (self._error is None and self._has_work())):
            return
        assert self._loop is not None
        # A segment that ends with its group has no items of that group: they would be placed when it is closed.
        group = self._in_flight = self._take_appends() if self._reservation is None else Group([], 0)
        group.fates, self._fates = self._fates, Fates()
        group.refs, self._refs = self._refs, set()
        group.waiters, self._waiters = self._waiters, []
        group.reserves = self._reservation is not None
        group.sync = is_trial or bool(group.appends or group.waiters or group.reserves)
        group.is_doubted, self._is_doubted = self._is_doubted, False
        group.last_number, group.tell_number = self.next_number - 1, self.tell_number
        group.first_number = group.appends[0][0] if group.appends else self.next_number
        group.told = self._catalog.told
        self._begun_s = self._loop.time()
        self._crowd = len(group.appends)
        self._jobs.submit(lambda: self._commit(group))

    def _commit(self, group: Group) -> None:
        """In the commit thread."""
        self._committer.commit(group)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._committed, group)

    def _take_appends(self) -> Group:
        if self._append_bytes <= GROUP_BYTES_MAX:
            group = Group(self._appends, self._append_bytes)
            self._appends, self._append_bytes = [], 0
            return group
        taken = length = 0
        for append in self._appends:
            bytes_of_one = len(append[2]) + len(append[3])
            if taken and length + bytes_of_one > GROUP_BYTES_MAX:
                break
            taken += 1
            length += bytes_of_one
        group = Group(self._appends[:taken], length)
        del self._appends[:taken]
        self._append_bytes -= length
        return group

    def _refuse_appends(self, error: OSError) -> None:
        """The disk failed, and has not shown since that it works again."""
        appends, self._appends = self._appends, []
        self.pending_bytes -= self._append_bytes
        self._append_bytes = 0
        for append in appends:
            self._catalog.drop(append[0])
            self._call(append[5], error)
        if appends:
            self.on_commit()

    def _committed(self, group: Group) -> None:
        """A group's thread is done: the next one first, then those who waited for this one."""
        assert self._loop is not None
        self._in_flight = None
        self._kept_bytes = group.kept_bytes
        self.commit_s = self._loop.time() - self._begun_s
        self.commits += 1
        length = group.length_bytes + group.fates.length_bytes
        self.pending_bytes -= length
        self.written_bytes += length
        previous = self._note_segments(group)
        landed = group.landed
        if landed is not None:
            self._error = None
            segment = self._catalog.segments[landed.number]
            segment.refs |= group.refs
            segment.file_bytes = landed.size_bytes
            if group.fates.records or group.carried:
                segment.tell_number = max(segment.tell_number, group.tell_number)
            if group.carried:
                segment.refs |= self._refs_of_abandoned(group, previous)
            if group.sync or not self._synced:
                self.settled = group.last_number
                self._catalog.anchor = landed.number
        if group.settled:
            self._settling.settle(group.settled, self._loop)
        if group.error is not None:
            self._groups_refused += 1
            if landed is None:
                self._error = group.error
                # What waited for its fates waits on: they go with the next group that succeeds.
                self._refs |= group.refs | self._refs_of_abandoned(group, previous)
                self._waiters[:0] = group.waiters
                group.waiters = []
                self._plan_retry()
            for append in group.appends:
                self._catalog.drop(append[0])
            if group.appends:
                first, last = group.appends[0][0], group.appends[-1][0]
                for number in [*previous, *(writer.number for writer in group.opened)]:
                    self._catalog.segments[number].widen(first, last)
            self._begin()
            for append in group.appends:
                self._call(append[5], group.error)
        else:
            if landed is not None and group.appends:
                segment = self._catalog.segments[landed.number]
                self._catalog.place_all(group.appends, segment, group.offset)
            if self._crowd >= CROWD or not self._appends:
                self._arrange()
            else:
                self._begin()
            call = self._call
            for append in group.appends:
                call(append[4], append[0])
        for waiter in group.waiters:
            self._call(waiter)
        if group.reserves and self._reservation is not None:
            then, self._reservation = self._reservation, None
            self._call(then, group.reserved)
        self.on_commit()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _note_segments(self, group: Group) -> list[int]:
        """Tells the catalog which segments were begun and ended; returns those that were open before."""
        previous = self._open_segments
        active = self._committer.writer
        for writer in group.opened:
            self._catalog.begin_segment(writer.number, self.marker, is_refused=writer is not group.landed)
            self.on_segment(writer)
        if group.opened or (previous and previous[-1] is not active):
            for writer in [*previous, *group.opened]:
                self._catalog.segments[writer.number].file_bytes = writer.size_bytes
                if writer is not active:
                    self._catalog.close_segment(writer.number)
            self._open_segments = [active] if active is not None else []
        return [writer.number for writer in previous]

    def _refs_of_abandoned(self, group: Group, previous: list[int]) -> set[int]:
        """What fates that are carried into another segment may be about: more than they are, never less."""
        refs = set(previous)
        refs.update(*(self._catalog.segments[number].refs for number in previous))
        refs.update(writer.number for writer in group.opened)
        return refs

    def _plan_retry(self) -> None:
        assert self._loop is not None
        self._retry_timer = self._loop.call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self._begin(is_trial=True)

    def _cancel_retry(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        """One waiter's mistake must not keep the others waiting."""
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 - reported the way the loop reports a failed callback of its own
            assert self._loop is not None
            self._loop.call_exception_handler({"message": f"{callback!r} failed", "exception": error})
