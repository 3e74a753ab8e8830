"""The committer: the journal's other half, in the commit thread. It writes one group at a time and knows what a disk
that refuses leaves undone."""

import errno
from pathlib import Path

from mta_queue import record
from mta_queue.disk import Disk
from mta_queue.fates import Fates
from mta_queue.group import Group
from mta_queue.index import ROWS_MAX
from mta_queue.record import FILE_HEADER_BYTES, FileHeader
from mta_queue.segment import SegmentWriter, file_name

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a start goes on with: mail that goes out makes room
FATES_UNSYNCED_BYTES_MAX = 1 << 20  # fates kept in memory to be written again; beyond it a group of fates is synced


class Committer:
    """Used by the commit thread while a group is under way, and by nobody else then."""

    def __init__(self, directory: Path, log: int, disk: Disk, *, synced: bool, segment_bytes_max: int) -> None:
        self._directory = directory
        self._log = log
        self._disk = disk
        self._synced = synced
        self._segment_bytes_max = segment_bytes_max
        self.marker = 0
        self.segment = 0
        """The number of the last segment that was begun."""
        self.writer: SegmentWriter | None = None
        """The segment that takes records; None after a failure."""
        self.carry: list[Fates] = []
        """What has to be written again, before anything else."""
        self.syncs = 0
        self.ends_refused = 0
        """Segments that were full or no longer needed and could not be ended as they should."""

    def begin(self, group: Group) -> SegmentWriter:
        """The log's first segment of this life, on stable storage. Raises OSError."""
        try:
            writer = self._begin_segment(group)
            writer.append((), 0)
            if self._synced:
                self._sync_new(writer)
        except OSError:
            self._abandon_new(group)
            raise
        group.landed = writer
        return writer

    def commit(self, group: Group) -> None:
        """Writes the group, and syncs it where asked; what became of it is in the group."""
        try:
            self._write(group)
        except OSError as error:
            group.error = error
            self._rescue(group)
        else:
            if group.reserves:
                self._reserve(group)
        group.kept_bytes = sum([each.length_bytes for each in self.carry])

    def end(self, next_number: int) -> None:
        """Seals the segment, where there is one; what that leaves in `carry` may not be on stable storage."""
        if self.writer is not None:
            self._seal(self.writer, next_number)

    def _reserve(self, group: Group) -> None:
        assert self.writer is not None, "what the group was written to"
        if self._seal(self.writer, group.last_number + 1):
            self.segment += 1
            group.reserved = self.segment

    def _write(self, group: Group) -> None:
        if group.is_doubted:
            self._abandon()
        writer = self.writer
        length = group.length_bytes + group.fates.length_bytes
        if writer is not None and length and writer.size_bytes > FILE_HEADER_BYTES:
            rows = len(writer.index) + len(group.appends) + len(group.fates.records)
            if writer.size_bytes + length > self._segment_bytes_max or rows > ROWS_MAX:
                self._seal(writer, group.last_number + 1)
                group.settled += writer.settled
                writer = None
        is_new = writer is None
        if writer is None:
            writer = self._begin_segment(group)
        carry = self.carry
        fates = [*carry, group.fates] if carry else [group.fates]
        heads = [append[2] for append in group.appends]
        buffers = [b"".join(each.records) for each in fates if each.records]
        for append in group.appends:
            buffers.append(append[2])
            buffers.append(append[3])
        if buffers or is_new:
            carried = sum([each.length_bytes for each in carry])
            group.offset = self._place(writer, fates, writer.append(buffers, length + carried))
        writer.index.add_items(heads)
        if self._synced:
            too_much = writer.unsynced_bytes + group.fates.length_bytes > FATES_UNSYNCED_BYTES_MAX
            group.sync = group.sync or is_new or bool(carry) or too_much
            if is_new:  # always so where there is something to carry: it comes after a failure
                self._sync_new(writer)
                writer.settled += fates
            else:
                writer.keep_unsynced(group.fates)
                if group.sync:
                    writer.sync()
                    self.syncs += 1
        else:
            writer.settled += fates
        group.carried = bool(carry)
        carry.clear()
        group.settled += writer.settled
        writer.settled = []
        group.landed = writer

    def _place(self, writer: SegmentWriter, fates: list[Fates], offset: int) -> int:
        """The fates were written there one behind the other; returns where the last one ends."""
        for each in fates:
            writer.index.add(each.records)
            each.segment, each.offset = writer.number, offset
            offset += each.length_bytes
        return offset

    def _rescue(self, group: Group) -> None:
        """After a failure: what must not be lost goes to a new segment; where that fails too, it waits."""
        may_be_there = self.writer is not None
        was_new = bool(group.opened)
        self._abandon_new(group)
        if group.fates.records and group.fates not in self.carry:
            self.carry.append(group.fates)
        if may_be_there:
            forgotten, marker = record.FORGOTTEN, self.marker
            # Its own number would have to come from the loop; nobody is ever told of it, so the item's will do.
            self.carry.append(Fates([record.encode_fate(marker, a[0], forgotten, a[0]) for a in group.appends]))
        if was_new or not any(each.records for each in self.carry):
            return  # the disk refuses new segments as well
        try:
            writer = self._begin_segment(group)
            carry = self.carry
            at = writer.append([b"".join(each.records) for each in carry], sum([each.length_bytes for each in carry]))
            self._place(writer, carry, at)
            if self._synced:
                self._sync_new(writer)
        except OSError:
            self._abandon_new(group)
            return
        group.settled += self.carry
        self.carry = []
        group.sync = group.carried = True
        group.landed = writer

    def _begin_segment(self, group: Group) -> SegmentWriter:
        self.segment += 1
        header = FileHeader(record.VERSION, self.marker, self._log, self.segment, group.first_number, group.told)
        self.writer = writer = SegmentWriter(self._disk, self._directory, header)
        group.opened.append(writer)
        return writer

    def _sync_new(self, writer: SegmentWriter) -> None:
        """The data and the name: without the name in the directory there is no data after a power loss."""
        writer.sync()
        self._disk.sync_directory(self._directory)
        self.syncs += 1

    def _seal(self, writer: SegmentWriter, next_number: int) -> bool:
        try:
            writer.seal(self.marker, next_number, synced=self._synced)
        except OSError:
            self.ends_refused += 1
            self._abandon()
            return False
        self.writer = None
        return True

    def _abandon(self) -> None:
        """The segment stays as it is; its fates that may not be on stable storage are to be written again."""
        if self.writer is not None:
            self.carry.extend(self.writer.unsynced)
            self.writer = None

    def _abandon_new(self, group: Group) -> None:
        """As `_abandon`; a segment that failed at its very beginning is removed, or each attempt would leave a file."""
        writer = self.writer
        self._abandon()
        if writer is not None and writer in group.opened:
            try:
                self._disk.unlink(self._directory / file_name(writer.number))
            except OSError:
                return
            group.opened.remove(writer)
            try:
                self._disk.sync_directory(self._directory)
            except OSError:
                pass  # it is asked again before anything in a newer segment counts
