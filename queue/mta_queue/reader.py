"""The reader: meta, notes and content back from disk, from the page cache where it can, in threads where it must."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from zlib import crc32

from mta_queue import record, segment
from mta_queue.catalog import Catalog
from mta_queue.disk import Disk, DiskFile
from mta_queue.entry import Entry, Note, parts_in
from mta_queue.packed import Columns
from mta_queue.record import HEADER_BYTES, Record
from mta_queue.retention import Segment
from mta_queue.threads import Job, Jobs

FILES_OPEN_MAX = 128  # segments kept open for reading; far below the usual 1024 descriptors of a process
GAP_BYTES_MAX = 16 << 10  # records so close to each other are read with one call, and what lies between them too
RUN_BYTES_MAX = 256 << 10  # read with one call

_ENTRY = -1
_NO_NOTES: Mapping[int, bytes] = MappingProxyType({})


class PartState(NamedTuple):
    """A living part."""

    part: int
    due_s: float
    note: bytes
    """Of its last postponement; empty before the first."""


class Loaded(NamedTuple):
    """An item read back from disk, without its content."""

    seq: int
    item_id: str
    meta: bytes
    parts: list[PartState]


Place = tuple[int, int]
"""Of a record: segment, offset."""


class _Visit:
    """Items that are read from the disk together: those with a row are made whole in the reading thread."""

    def __init__(self, seqs: Sequence[int], rows: list[Columns | None]) -> None:
        self.seqs = seqs
        self.rows = rows
        """As they were when the visit began."""
        self.wanted: list[tuple[int, int, int, int]] = []
        """Segment and offset of a record, length of its header and payload, and what it is wanted for: twice the place
        of an item with a row, one more for its note; _ENTRY: for an item with an entry."""
        self.markers: dict[int, int] = {}
        self.files: dict[int, DiskFile] = {}
        self.opened: dict[int, DiskFile] = {}
        self.items: list[Loaded | None] = [None] * len(seqs)
        """Those with a row, as they were then; None where the disk did not give it."""
        self.failed: list[tuple[int, int, str]] = []
        """What could not be read of those: the place of the item, the segment, why."""
        self.data: dict[Place, bytes] = {}
        """What the disk gave of those with an entry, fewer bytes or none where it failed."""
        self.unsafe: list[tuple[Note, bytes]] = []
        """Notes that were still in memory when the visit began."""

    def want_rows(self) -> None:
        want = self.wanted.append
        for place, row in enumerate(self.rows):
            if row is None:
                continue
            offset, home, payload_bytes, _, _, _, _, note_home, note_offset, note_bytes = row
            want((home, offset, HEADER_BYTES + payload_bytes, 2 * place))
            if note_home and (note_offset != offset or note_home != home):  # else it is a copy, which holds its note
                want((note_home, note_offset, HEADER_BYTES + note_bytes, 2 * place + 1))

    def want_entry(self, entry: Entry, home: Segment) -> None:
        self.wanted.append((home.number, entry.offset, HEADER_BYTES + entry.payload_bytes, _ENTRY))
        for found in entry.postponed.values() if entry.postponed is not None else ():
            note = found.note
            if note is not None:
                if note.data is not None:
                    self.unsafe.append((note, note.data))
                else:
                    self.wanted.append((note.segment, note.offset, HEADER_BYTES + note.payload_bytes, _ENTRY))

    def runs(self) -> Iterable[list[tuple[int, int, int, int]]]:
        """What is wanted, by place, neighbours together."""
        wanted = self.wanted
        wanted.sort()
        first = number = begin = end = 0
        for at, (home, offset, length, _) in enumerate(wanted):
            if home != number or offset > end + GAP_BYTES_MAX or offset + length > begin + RUN_BYTES_MAX:
                if at > first:
                    yield wanted[first:at]
                first, number, begin, end = at, home, offset, offset
            if offset + length > end:
                end = offset + length
        if first < len(wanted):
            yield wanted[first:]

    def assemble(self, records: Sequence[Record | None]) -> None:
        """Make the items with a row of their records, which were found for what they were wanted for."""
        for place, (seq, row) in enumerate(zip(self.seqs, self.rows, strict=True)):
            if row is None:
                continue
            offset, home, _, _, _, due_s, mask, note_home, note_offset, _ = row
            found = records[2 * place]
            if found is None or found.kind != record.ITEM or found.seq != seq:
                self.failed.append((place, home, f"item {seq} at {offset} cannot be read"))
                continue
            notes: Mapping[int, bytes] = _NO_NOTES
            note = b""
            if note_home:
                is_own = note_home == home and note_offset == offset
                noted = found if is_own else records[2 * place + 1]
                if noted is not None and noted.seq == seq and noted.kind == record.POSTPONED:
                    note = noted.note()
                elif noted is not None and noted.seq == seq and noted.is_copy:
                    notes = {part: state.note for state in noted.copied_states() for part in state.parts}
                else:  # what it was deferred for is lost; that it waits is not
                    self.failed.append((place, note_home, f"a note of item {seq} at {note_offset} cannot be read"))
            if notes:
                parts = [PartState(part, due_s, notes.get(part, b"")) for part in parts_in(mask)]
            elif mask == 1:  # nearly all
                parts = [PartState(0, due_s, note)]
            else:
                parts = [PartState(part, due_s, note) for part in parts_in(mask)]
            self.items[place] = Loaded(seq, found.item_id(), found.meta(), parts)


class Reader:
    """Reads items of one log. What is read is taken apart in the reading thread; all else happens in the loop's."""

    def __init__(self, directory: Path, disk: Disk, catalog: Catalog, jobs: Jobs) -> None:
        self._directory = directory
        self._disk = disk
        self._catalog = catalog
        self._jobs = jobs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._files: dict[int, DiskFile] = {}
        self._results: deque[Callable[[], None]] = deque()
        self._results_called = False
        self.quarantined = 0
        """What could not be read."""
        self.on_unreadable: Callable[[int, str], None] = lambda number, why: None
        """Hears why the file of a segment is to be kept."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on callbacks are called in this loop."""
        self._loop = loop

    def stop(self) -> None:
        """Waits for what is being read, calls its callbacks and closes all files."""
        self._jobs.stop()
        while self._results:
            self._results.popleft()()
        self._files.clear()

    def submit(self, job: Job) -> None:
        """Runs something else that waits for the disk; it gives its result to `hand_over`."""
        self._jobs.submit(job)

    # Meta and notes.

    def load(self, seq: int) -> Loaded | None:
        """See Store.load."""
        visit = self._visit([seq])
        if not visit.wanted:
            return None
        self._read_records(visit)
        found: dict[int, Loaded] = {}
        again = self._found(visit, found)
        assert not again, "nothing moves while the loop waits"
        return found.get(seq)

    def load_soon(self, seqs: Sequence[int], done: Callable[[list[Loaded]], None]) -> None:
        """See Store.load_soon."""
        self._load(seqs, seqs, {}, done)

    def _load(
        self,
        seqs: Sequence[int],
        missing: Sequence[int],
        found: dict[int, Loaded],
        done: Callable[[list[Loaded]], None],
    ) -> None:
        visit = self._visit(missing)

        def read() -> None:
            self._read_records(visit)
            self.hand_over(finish)

        def finish() -> None:
            is_first = not found
            again = self._found(visit, found)
            if again:
                self._load(seqs, again, found, done)
            elif is_first:
                done(list(found.values()) if len(found) == len(seqs) else [found[seq] for seq in seqs if seq in found])
            else:
                done([self._as_now(found[seq]) for seq in seqs if seq in found and seq in self._catalog])

        self._jobs.submit(read)

    def _as_now(self, item: Loaded) -> Loaded:
        """An item that an earlier visit of several found, with the living parts and times of this moment."""
        dues = self._catalog.dues(item.seq)
        if not dues:
            return item  # it is arriving
        notes = {state.part: state.note for state in item.parts}
        return item._replace(parts=[PartState(part, due_s, notes.get(part, b"")) for part, due_s in dues])

    def _visit(self, seqs: Sequence[int]) -> _Visit:
        catalog = self._catalog
        visit = _Visit(seqs, catalog.rows(seqs))
        visit.want_rows()
        for seq, row in zip(seqs, visit.rows, strict=True):
            entry = catalog.get(seq) if row is None else None
            if entry is not None and (home := entry.segment) is not None:
                visit.want_entry(entry, home)
        for number in {each[0] for each in visit.wanted}:
            visit.markers[number] = catalog.segments[number].marker
            if (file := self._file(number)) is not None:
                visit.files[number] = file
        return visit

    def _read_records(self, visit: _Visit) -> None:
        """In any thread."""
        files, data = visit.files, visit.data
        records: list[Record | None] = [None] * (2 * len(visit.seqs))
        decode = record.decode
        for run in visit.runs():
            number, begin = run[0][:2]
            marker = visit.markers[number]
            end = max(offset + length for _, offset, length, _ in run)
            read, used = self._read(files.get(number), number, begin, end - begin)
            if used is not None:
                files[number] = visit.opened[number] = used
            for _, offset, length, wanted_for in run:
                at = offset - begin
                if wanted_for == _ENTRY:
                    data[number, offset] = read[at : at + length]
                else:
                    records[wanted_for] = decode(read, at, marker)
        visit.assemble(records)

    def _found(self, visit: _Visit, found: dict[int, Loaded]) -> list[int]:
        """Adds what the visit found of the items that are as they were then; -> those that are to be read again."""
        self._keep_files(visit)
        again: list[int] = []
        catalog = self._catalog
        rows = catalog.rows(visit.seqs)
        for seq, row, now, item in zip(visit.seqs, visit.rows, rows, visit.items, strict=True):
            if row is None:
                loaded = self._loaded(seq, visit)
                if isinstance(loaded, _Again):
                    again.append(seq)
                elif loaded is not None:
                    found[seq] = loaded
            elif now == row:
                if item is not None:
                    found[seq] = item
            elif now is not None or seq in catalog:
                again.append(seq)
        for place, number, why in visit.failed:
            if rows[place] == visit.rows[place]:
                self._unreadable(catalog.segments[number], why)
        return again

    def _keep_files(self, visit: _Visit) -> None:
        for number, file in visit.opened.items():
            self.keep_file(number, file)

    def _loaded(self, seq: int, visit: _Visit) -> "Loaded | _Again | None":
        """What the visit found of the item, as it is now; _AGAIN where that lies elsewhere since."""
        entry = self._catalog.get(seq)
        if entry is None or (home := entry.segment) is None:
            return None
        data = visit.data.get((home.number, entry.offset))
        if data is None:
            return _AGAIN
        found = record.decode(data, 0, home.marker)
        if found is None or found.kind != record.ITEM or found.seq != seq:
            self._unreadable(home, f"item {seq} at {entry.offset} cannot be read")
            return None
        parts = []
        for due_s, note, living in entry.states():
            for part in living:
                text = self._note(note, part, visit) if note is not None else b""
                if isinstance(text, _Again):
                    return text
                parts.append(PartState(part, due_s, text))
        if len(parts) > 1:
            parts.sort()
        return Loaded(seq, found.item_id(), found.meta(), parts)

    def _note(self, note: Note, part: int, visit: _Visit) -> "bytes | _Again":
        if note.data is not None:
            return note.data
        data = visit.data.get((note.segment, note.offset))
        if data is None:
            # It was in memory when the visit began, and may have come to rest since.
            return next((text for unsafe, text in visit.unsafe if unsafe.is_same(note)), _AGAIN)
        home = self._catalog.segments[note.segment]
        found = record.decode(data, 0, home.marker)
        if found is not None and found.seq == note.seq:
            if found.kind == record.POSTPONED:
                return found.note()
            if found.is_copy:
                return next((state.note for state in found.copied_states() if part in state.parts), b"")
        # What it was deferred for is lost; that it waits is not.
        self._unreadable(home, f"a note of item {note.seq} at {note.offset} cannot be read")
        return b""

    # Content.

    def content_now(self, seq: int) -> bytes | None:
        """See Store.content_now."""
        entry = self._catalog.get(seq)
        if entry is None or (home := entry.segment) is None:
            return None
        file = self._file(home.number)
        if file is None:
            return None
        data = self._disk.read_cached(file, entry.offset + HEADER_BYTES + entry.payload_bytes, entry.content_bytes)
        if data is not None and crc32(data) != entry.content_crc:
            return None  # content_soon will find the same and report it
        return data

    def content_soon(self, seq: int, done: Callable[[bytes | None], None]) -> None:
        """See Store.content_soon."""
        entry = self._catalog.get(seq)
        home = entry.segment if entry is not None else None
        if entry is None or home is None:
            assert self._loop is not None
            self._loop.call_soon(done, None)
            return
        file = self._file(home.number)
        place = entry.offset
        offset = place + HEADER_BYTES + entry.payload_bytes
        length, crc = entry.content_bytes, entry.content_crc

        def read() -> None:
            data, used = self._read(file, home.number, offset, length)
            good = len(data) == length and crc32(data) == crc
            self.hand_over(lambda: finish(data if good else None, used))

        def finish(data: bytes | None, used: DiskFile | None) -> None:
            self.keep_file(home.number, used)
            if data is None and (now := self._catalog.get(seq)) is not None:
                if now.segment is not home or now.offset != place:
                    self.content_soon(seq, done)  # it was copied meanwhile, and the old file may be gone
                    return
                self._unreadable(home, f"the content of item {seq} at {entry.offset} cannot be read")
            done(data)

        self._jobs.submit(read)

    def _read(
        self, file: DiskFile | None, number: int, offset: int, length_bytes: int
    ) -> tuple[bytes, DiskFile | None]:
        """In any thread: the bytes, fewer where the disk does not give them, and the file that was used."""
        try:
            if file is None:
                file = self._disk.open(self._directory / segment.file_name(number))
            return self._disk.read(file, offset, length_bytes), file
        except OSError:
            return b"", file

    def _unreadable(self, home: Segment, why: str) -> None:
        """Its file is kept for somebody to look at."""
        home.damaged = True
        self.quarantined += 1
        self.on_unreadable(home.number, why)

    # Back to the loop.

    def hand_over(self, result: Callable[[], None]) -> None:
        """In a reading thread: the result goes to the loop, many with one call."""
        self._results.append(result)
        if not self._results_called:
            self._results_called = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._deliver_results)

    def _deliver_results(self) -> None:
        """The first of them: what one sets going may be as long as a turn should be."""
        self._results_called = False  # before looking: what is put in after this calls again
        if self._results:
            self._results.popleft()()
        if self._results and not self._results_called:
            self._results_called = True
            assert self._loop is not None
            self._loop.call_soon(self._deliver_results)

    # Files.

    def _file(self, number: int) -> DiskFile | None:
        """The segment's open file, now the most recently used; None where it is not open."""
        files = self._files
        file = files.pop(number, None)
        if file is not None:
            files[number] = file
        return file

    def keep_file(self, number: int, file: DiskFile | None) -> None:
        """Kept open for the next reader. One that falls out is closed when its last user lets it go."""
        if file is None or number not in self._catalog.segments:
            return
        self._files[number] = file
        if len(self._files) > FILES_OPEN_MAX:
            del self._files[next(iter(self._files))]

    def drop_file(self, number: int) -> None:
        """The segment is gone."""
        self._files.pop(number, None)


class _Again:
    """It has to be read again."""


_AGAIN = _Again()
