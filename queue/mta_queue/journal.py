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
from collections.abc import Callable
from pathlib import Path

from mta_queue import record
from mta_queue.catalog import Catalog, Entry
from mta_queue.disk import Disk
from mta_queue.group import Append, Group
from mta_queue.record import FILE_HEADER_BYTES, FileHeader
from mta_queue.segment import SegmentWriter
from mta_queue.threads import Jobs

GROUP_BYTES_MAX = 16 << 20  # one group's appends: bounds what the first waits for and how far a segment overshoots
FATES_UNSYNCED_BYTES_MAX = 1 << 20  # fates kept in memory to be written again; beyond it a group of fates is synced
CROWD = 4  # appends in the last group that say: more are about to come, wait for them
GATHER_S = 0.004  # at most, from one group's beginning to the next one's in a crowd: fewer syncs, fewer threads woken
FATES_WAIT_S = 0.005  # how long fates wait for appends that they can ride with; nobody waits for them
RETRY_S = 1.0  # between attempts on a disk that failed twice; appends in between fail at once


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
        self._log = log
        self._disk = disk
        self._jobs = jobs
        self._catalog = catalog
        self._synced = synced
        self._segment_bytes_max = segment_bytes_max
        self._fates_wait_s = fates_wait_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self.marker = 0
        self.next_number = 1
        self.settled = 0
        """Every fate with a number up to this one is on stable storage (durability "os": written)."""
        self.tell_number = 0
        """The highest number of a fate that has to be told."""
        self.pending_bytes = 0
        self.commits = self.syncs = self.failures = 0
        self.on_segment: Callable[[SegmentWriter], None] = lambda writer: None
        """A segment was begun: readers may use its file."""
        self.on_commit: Callable[[], None] = lambda: None
        """A group is done and its callbacks have been called."""

        self._appends: list[Append] = []
        self._append_bytes = 0
        self._fates: list[bytes] = []
        self._refs: set[int] = set()
        self._waiters: list[Callable[[], None]] = []
        self._scheduled = False
        self._fates_planned = False
        self._begun_s = 0.0
        self._crowd = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._in_flight: Group | None = None
        self._error: OSError | None = None
        self._retry_s = 0.0
        self._retry_timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._closed = False
        self._open_segments: list[int] = []

        # The commit thread's own while a group is under way:
        self._writer: SegmentWriter | None = None
        self._segment = 0
        self._carry: list[bytes] = []

    # The loop's side.

    def open(self, first_segment: int, next_number: int) -> None:
        """Begins the first segment; blocking, raises OSError."""
        self.marker = self._disk.draw_marker()
        self.next_number = next_number
        self.settled = next_number - 1
        self._segment = first_segment - 1
        group = Group([], 0)
        group.first_number, group.told = next_number, self._catalog.told
        writer = self._begin_segment(group)
        writer.append((), 0)
        if self._synced:
            self._sync_new(writer)
        self._note_segments(group)
        self._catalog.anchor = writer.number

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on groups are committed."""
        self._loop = loop
        self._arrange()

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

    def fate(self, data: bytes, segment: int | None, on_durable: Callable[[], None] | None = None) -> None:
        """A record about an item of that segment; synced only where somebody waits for it."""
        self._fates.append(data)
        self.pending_bytes += len(data)
        if segment is not None:
            self._refs.add(segment)
        if on_durable is not None:
            self._waiters.append(on_durable)
        if not self._scheduled and self._in_flight is None:
            self._arrange()

    @property
    def is_failing(self) -> bool:
        """The disk refused the last group and what was to be saved of it."""
        return self._retry_timer is not None

    async def close(self) -> None:
        """Commits what waits, seals the segment and returns; what the disk refuses to take is lost like in a crash."""
        assert self._loop is not None
        self._cancel_retry()
        self._retry_s = 0.0
        while self._in_flight is not None or self._has_work():
            if self._in_flight is None:
                self._begin()
            if self._in_flight is not None:
                self._idle = self._loop.create_future()
                await self._idle
            if self._retry_timer is not None:
                break
        self._cancel_retry()
        self._closed = True
        finished = self._loop.create_future()

        def seal() -> None:
            if self._writer is not None:
                self._seal(self._writer)
            loop.call_soon_threadsafe(finished.set_result, None)

        loop = self._loop
        self._jobs.submit(seal)
        await finished
        self._jobs.stop()

    def _has_work(self) -> bool:
        return bool(self._appends or self._fates or self._waiters or self._carry)

    def _arrange(self) -> None:
        """Plans the next group: now, or in a moment where it can gather more."""
        if self._loop is None or self._closed:
            return
        if self._appends or self._waiters or self._carry:
            self._scheduled = True
            wait_s = self._begun_s + GATHER_S - self._loop.time() if self._crowd >= CROWD else 0.0
            if wait_s > 0 and len(self._appends) < self._crowd:
                self._gathering = self._loop.call_later(wait_s, self._begin)
            else:
                self._begin_soon()
        elif self._fates and not self._fates_planned:
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

    def _begin(self) -> None:
        """Sends off what waits as one group."""
        self._scheduled = False
        self._gathering = None
        if self._in_flight is not None or not self._has_work():
            return
        assert self._loop is not None
        if self._retry_timer is not None:
            if self._loop.time() < self._retry_s:
                self._refuse_appends()
                return
            self._cancel_retry()
        group = self._in_flight = self._take_appends()
        group.fates = b"".join(self._fates)
        self._fates.clear()
        group.refs, self._refs = self._refs, set()
        group.waiters, self._waiters = self._waiters, []
        group.sync = bool(group.appends or group.waiters)
        group.last_number, group.tell_number = self.next_number - 1, self.tell_number
        group.first_number = group.appends[0][0] if group.appends else self.next_number
        group.told = self._catalog.told
        self._begun_s = self._loop.time()
        self._crowd = len(group.appends)
        self._jobs.submit(lambda: self._commit(group))

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

    def _refuse_appends(self) -> None:
        """The disk failed a moment ago: no use in asking again so soon."""
        error = self._error
        assert error is not None
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
        self._in_flight = None
        self.commits += 1
        self.pending_bytes -= group.length_bytes + len(group.fates)
        previous = self._note_segments(group)
        landed = group.landed
        if landed is not None:
            segment = self._catalog.segments[landed.number]
            segment.refs |= group.refs
            if group.fates or group.carried:
                segment.tell_number = max(segment.tell_number, group.tell_number)
            if group.carried:
                segment.refs |= self._refs_of_abandoned(group, previous)
            if group.sync or not self._synced:
                self.settled = group.last_number
                self._catalog.anchor = landed.number
        if group.error is not None:
            self.failures += 1
            self._error = group.error
            if landed is None:
                # What waited for its fates waits on: they go with the next group that succeeds.
                self._refs |= group.refs | self._refs_of_abandoned(group, previous)
                self._waiters[:0] = group.waiters
                group.waiters = []
                self._plan_retry()
            for append in group.appends:
                self._catalog.drop(append[0])
            self._begin()
            for append in group.appends:
                self._call(append[5], group.error)
        else:
            if landed is not None and group.appends:
                segment = self._catalog.segments[landed.number]
                place, offset = self._catalog.place, group.offset
                for seq, entry, head, content, _, _ in group.appends:
                    place(seq, entry, segment, offset)
                    offset += len(head) + len(content)
            if self._crowd >= CROWD or not self._appends:
                self._arrange()
            else:
                self._begin()
            call = self._call
            for append in group.appends:
                call(append[4], append[0])
        for waiter in group.waiters:
            self._call(waiter)
        self.on_commit()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _note_segments(self, group: Group) -> list[int]:
        """Tells the catalog which segments were begun and ended; returns those that were open before."""
        previous = self._open_segments
        for writer in group.opened:
            self._catalog.begin_segment(writer.number, self.marker)
            self.on_segment(writer)
        active = self._writer.number if self._writer is not None else 0
        if group.opened or (previous and previous[-1] != active):
            for number in [*previous, *(writer.number for writer in group.opened)]:
                if number != active:
                    self._catalog.close_segment(number)
            self._open_segments = [active] if active else []
        return previous

    def _refs_of_abandoned(self, group: Group, previous: list[int]) -> set[int]:
        """What fates that are carried into another segment may be about: more than they are, never less."""
        refs = set(previous)
        refs.update(*(self._catalog.segments[number].refs for number in previous))
        refs.update(writer.number for writer in group.opened)
        return refs

    def _plan_retry(self) -> None:
        assert self._loop is not None
        self._retry_s = self._loop.time() + RETRY_S
        self._retry_timer = self._loop.call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self._begin()

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

    # The commit thread's side.

    def _commit(self, group: Group) -> None:
        try:
            self._write(group)
        except OSError as error:
            group.error = error
            self._rescue(group)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._committed, group)

    def _write(self, group: Group) -> None:
        writer = self._writer
        length = group.length_bytes + len(group.fates)
        is_full = writer is not None and writer.size_bytes + length > self._segment_bytes_max
        if writer is not None and is_full and length and writer.size_bytes > FILE_HEADER_BYTES:
            self._seal(writer)
            writer = None
        is_new = writer is None
        if writer is None:
            writer = self._begin_segment(group)
        carry = b"".join(self._carry)
        buffers = [carry, group.fates] if carry else [group.fates] if group.fates else []
        for append in group.appends:
            buffers.append(append[2])
            buffers.append(append[3])
        length += len(carry)
        if buffers or is_new:
            group.offset = writer.append(buffers, length) + len(carry) + len(group.fates)
        if self._synced:
            too_much = writer.unsynced_bytes + len(group.fates) > FATES_UNSYNCED_BYTES_MAX
            group.sync = group.sync or is_new or bool(carry) or too_much
            if is_new:
                self._sync_new(writer)
            elif group.sync:
                writer.sync()
                self.syncs += 1
            else:
                writer.keep_unsynced(group.fates)
        group.carried = bool(carry)
        self._carry.clear()
        group.landed = writer

    def _rescue(self, group: Group) -> None:
        """After a failure: what must not be lost goes to a new segment; where that fails too, it waits."""
        may_be_there = self._writer is not None
        self._abandon()
        if group.fates:
            self._carry.append(group.fates)
        if may_be_there:
            forgotten, marker = record.FORGOTTEN, self.marker
            # Its own number would have to come from the loop; nobody is ever told of it, so the item's will do.
            self._carry.extend([record.encode_fate(marker, a[0], forgotten, a[0]) for a in group.appends])
        if not self._carry:
            return
        try:
            writer = self._begin_segment(group)
            carry = b"".join(self._carry)
            writer.append((carry,), len(carry))
            if self._synced:
                self._sync_new(writer)
        except OSError:
            self._abandon()
            return
        self._carry.clear()
        group.sync = group.carried = True
        group.landed = writer

    def _begin_segment(self, group: Group) -> SegmentWriter:
        self._segment += 1
        header = FileHeader(record.VERSION, self.marker, self._log, self._segment, group.first_number, group.told)
        self._writer = writer = SegmentWriter(self._disk, self._directory, header)
        group.opened.append(writer)
        return writer

    def _sync_new(self, writer: SegmentWriter) -> None:
        """The data and the name: without the name in the directory there is no data after a power loss."""
        writer.sync()
        self._disk.sync_directory(self._directory)
        self.syncs += 1

    def _seal(self, writer: SegmentWriter) -> None:
        try:
            writer.seal(record.encode_seal(self.marker, self.next_number, writer.number), synced=self._synced)
            self._writer = None
        except OSError:
            self._abandon()

    def _abandon(self) -> None:
        """The segment stays as it is; its fates that may not be on stable storage are to be written again."""
        if self._writer is not None:
            self._carry.extend(self._writer.unsynced)
            self._writer = None
