"""Copies: a segment made of what must be kept of others, so that those can be deleted. Its work is done in threads.

It is written under another name and gets its own only when it is whole and on stable storage: what is half done is
never read. Whatever happens before that, all that is in it still lies where it was.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from mta_queue import record, segment
from mta_queue.disk import Disk, DiskFile
from mta_queue.entry import Note, Segment, State
from mta_queue.record import FILE_HEADER_BYTES, HEADER_BYTES, CopiedState, FileHeader, Found
from mta_queue.segment import COPYING_SUFFIX, SegmentReader, SegmentWriter

ROWS_AT_ONCE = 4_096  # records that one job looks at


class LostItemError(Exception):
    """An item cannot be copied because it cannot be read."""

    def __init__(self, segment: int) -> None:
        super().__init__(f"an item in segment {segment} cannot be read")
        self.segment = segment


class FoundFate(NamedTuple):
    """A fate that lies in a segment which is to go, about an item elsewhere."""

    number: int
    seq: int
    kind: int
    parts: tuple[int, ...]
    due_s: float
    segment: int
    offset: int
    payload_bytes: int
    home: int
    """The newest segment in which the item may lie; 0: that is not known."""


class ItemCopy:
    """An item that is to be copied as it is, and where its copy lies."""

    __slots__ = (
        "content_bytes",
        "content_crc",
        "home",
        "new_offset",
        "number",
        "offset",
        "payload_bytes",
        "seq",
        "states",
    )

    def __init__(
        self,
        seq: int,
        number: int,
        home: Segment,
        offset: int,
        payload_bytes: int,
        content_bytes: int,
        content_crc: int,
        states: Sequence[State],
    ) -> None:
        self.seq = seq
        self.number = number
        """The copy's."""
        self.home = home
        self.offset = offset
        self.payload_bytes = payload_bytes
        """Of the record; when it is copied: of the copy."""
        self.content_bytes = content_bytes
        self.content_crc = content_crc
        self.states = states
        self.new_offset = 0

    @property
    def length_bytes(self) -> int:
        return HEADER_BYTES + self.payload_bytes + self.content_bytes


class FateCopy:
    """A fate that is still needed, and where it lies then."""

    __slots__ = ("data", "due_s", "fate", "new_offset", "note", "payload_bytes")

    def __init__(self, fate: FoundFate, data: bytes, note: Note | None = None, due_s: float | None = None) -> None:
        self.fate = fate
        self.data = data
        """The new record; empty: the old one, with its note, due at `due_s` where that is given."""
        self.note = note
        """What the old record is to the catalog."""
        self.due_s = due_s
        self.payload_bytes = 0
        self.new_offset = 0


class Copies:
    """The segment that is being made. One job at a time uses it; the loop only between them."""

    def __init__(
        self, disk: Disk, directory: Path, header: FileHeader, markers: dict[int, int], *, synced: bool
    ) -> None:
        """`markers`: of the older segments; those that come have this one's."""
        self._disk = disk
        self._directory = directory
        self._header = header
        self._markers = markers
        self._synced = synced
        self._files: dict[int, DiskFile] = {}
        self.writer: SegmentWriter | None = None
        self.name = segment.file_name(header.segment)

    @property
    def number(self) -> int:
        return self._header.segment

    @property
    def marker(self) -> int:
        return self._header.marker

    # Reading the fates of a segment.

    def fates(self, number: int, homes: Sequence[Segment]) -> Iterator[list[FoundFate]]:
        """The fates in a segment that may be about an item in one of `homes`, some thousand records at a time.
        Raises OSError, LostItemError where not everything can be read."""
        held = [
            (each.number, each.first_seq, each.last_seq, each.copies or array("Q"))
            for each in sorted(homes, key=lambda home: -home.number)
        ]
        found: list[FoundFate] = []
        for at, fate in enumerate(self._records(number), 1):
            if fate is None or not held:
                pass
            elif fate.kind == record.FORGOTTEN and fate.number == fate.seq:
                found.append(fate)  # of a group that failed: its item may lie anywhere, and was never placed
            elif home := _holder(fate.seq, held):
                found.append(fate._replace(home=home))
            if at % ROWS_AT_ONCE == 0:
                yield found
                found = []
        yield found

    def _records(self, number: int) -> Iterator[FoundFate | None]:
        """Every record of the segment in order, None for each that is no fate."""
        reader = SegmentReader(self._disk, self._file(number))
        listed = reader.index()
        if listed is not None:
            offset = FILE_HEADER_BYTES
            for number_, seq, due_s, kind, _, _, count, payload, content, _, extra in listed.rows():
                if kind in record.FATE_KINDS:
                    yield FoundFate(number_, seq, kind, listed.parts(count, extra), due_s, number, offset, payload, 0)
                else:
                    yield None
                offset += HEADER_BYTES + payload + content
            return
        for met in reader.records(verify_content=False):
            if not isinstance(met, Found):
                raise LostItemError(number)
            one = met.record
            if one.kind in record.FATE_KINDS:
                yield FoundFate(
                    one.number,
                    one.seq,
                    one.kind,
                    one.listed_parts(),
                    one.due_s,
                    number,
                    met.offset,
                    len(one.payload),
                    0,
                )
            else:
                yield None

    def _file(self, number: int) -> DiskFile:
        file = self._files.get(number)
        if file is None:
            if len(self._files) >= 32:
                self._files.clear()
            file = self._files[number] = self._disk.open(self._directory / segment.file_name(number))
        return file

    def _record(self, number: int, offset: int, length_bytes: int) -> tuple[record.Record, bytes]:
        """A record and what was read behind it."""
        data = self._disk.read(self._file(number), offset, length_bytes)
        found = record.decode(data, 0, self._markers.get(number, self.marker))
        if found is None:
            raise LostItemError(number)
        return found, data[HEADER_BYTES + len(found.payload) :]

    # Writing.

    def write(self, fates: Iterable[FateCopy], items: Iterable[ItemCopy]) -> int:
        """Appends these, synced; returns how many bytes. Raises OSError, LostItemError."""
        heads: list[bytes] = []
        buffers: list[bytes] = []
        writer = self._writer()
        offset = writer.size_bytes or FILE_HEADER_BYTES
        begin = offset
        for fate in fates:
            data = fate.data or self._same_fate(fate)
            fate.new_offset, fate.payload_bytes = offset, len(data) - HEADER_BYTES
            heads.append(data)
            buffers.append(data)
            offset += len(data)
        for item in items:
            head, content = self._copied(item)
            item.new_offset, item.payload_bytes = offset, len(head) - HEADER_BYTES
            heads.append(head)
            buffers += (head, content)
            offset += len(head) + len(content)
        if heads:
            writer.append(buffers, offset - begin)
            writer.index.add(heads)
            if self._synced:
                writer.sync()
        return offset - begin

    def _writer(self) -> SegmentWriter:
        if self.writer is None:
            self.writer = SegmentWriter(self._disk, self._directory, self._header, COPYING_SUFFIX)
        return self.writer

    def _same_fate(self, copy: FateCopy) -> bytes:
        fate = copy.fate
        found, _ = self._record(fate.segment, fate.offset, HEADER_BYTES + fate.payload_bytes)
        due_s = found.due_s if copy.due_s is None else copy.due_s
        return record.encode_fate(
            self._header.marker, fate.number, fate.kind, fate.seq, fate.parts, found.note(), due_s
        )

    def _copied(self, item: ItemCopy) -> tuple[bytes, bytes]:
        found, content = self._record(item.home.number, item.offset, item.length_bytes)
        if found.seq != item.seq or len(content) != item.content_bytes or crc32(content) != item.content_crc:
            raise LostItemError(item.home.number)
        states = [copied for state in item.states for copied in self._copied_states(state)]
        head = record.encode_copy(
            self._header.marker,
            item.number,
            item.seq,
            found.item_id(),
            found.meta(),
            item.content_bytes,
            item.content_crc,
            states,
        )
        return head, content

    def _copied_states(self, state: State) -> list[CopiedState]:
        """The state with its note; several where the note lies in an older copy, which has one for each part."""
        due_s, note, parts = state
        if note is None:
            return [CopiedState(due_s, parts, b"")]
        data = note.data  # it may be let go of in the loop meanwhile: then it has a place
        if data is not None:
            return [CopiedState(due_s, parts, data)]
        found, _ = self._record(note.segment, note.offset, HEADER_BYTES + note.payload_bytes)
        if not found.is_copy:
            return [CopiedState(due_s, parts, found.note())]
        notes = {part: copied.note for copied in found.copied_states() for part in copied.parts}
        alike: dict[bytes, list[int]] = {}
        for part in parts:
            alike.setdefault(notes.get(part, b""), []).append(part)
        return [CopiedState(due_s, living, text) for text, living in alike.items()]

    # Ending.

    def finish(self, next_number: int) -> None:
        """The segment is whole and on stable storage, still under the other name. Raises OSError."""
        self._writer().seal(self._header.marker, next_number, synced=self._synced)

    def publish(self) -> None:
        """It has its name, for good. Raises OSError; then it may have it and may not: `discard` it."""
        self._disk.rename(self._directory / (self.name + COPYING_SUFFIX), self._directory / self.name)
        self._disk.sync_directory(self._directory)

    def discard(self) -> None:
        """It is gone, under both names, for good. Raises OSError."""
        self.writer = None
        self._disk.unlink(self._directory / (self.name + COPYING_SUFFIX))
        self._disk.unlink(self._directory / self.name)
        self._disk.sync_directory(self._directory)


def _holder(seq: int, held: Sequence[tuple[int, int, int, "array[int]"]]) -> int:
    """The first of them that may hold the item; 0: none."""
    for number, first, last, copies in held:
        if first <= seq <= last:
            return number
        if copies:
            at = bisect_left(copies, seq)
            if at < len(copies) and copies[at] == seq:
                return number
    return 0
