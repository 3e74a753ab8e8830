"""The reader: meta, notes and content back from disk, from the page cache where it can, in threads where it must."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from zlib import crc32

from mta_queue import record, segment
from mta_queue.catalog import Catalog
from mta_queue.disk import Disk, DiskFile
from mta_queue.entry import Note
from mta_queue.packed import Columns
from mta_queue.record import HEADER_BYTES
from mta_queue.retention import Segment
from mta_queue.threads import Job, Jobs
from mta_queue.visit import Loaded, PartState, Piece, Visit, Wants, runs

FILES_OPEN_MAX = 128  # segments kept open for reading; far below the usual 1024 descriptors of a process


class _Load:
    """What was asked for together, over all visits that it takes."""

    def __init__(self, seqs: Sequence[int], wants: Wants | None, done: Callable[[list[Loaded]], None]) -> None:
        self.seqs = seqs
        self.wants = wants
        self.done = done
        self.found: dict[int, Loaded] = {}
        self.rows: dict[int, Columns | None] = {}
        """Of what was visited, as they were then; set where one visit is not enough."""


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
        visit = self._visit((seq,), None)
        if visit.is_empty:
            return None
        self._read_records(visit)
        load = _Load((seq,), None, lambda items: None)
        again = self._found(visit, load)
        assert not again, "nothing moves while the loop waits"
        return load.found.get(seq)

    def load_soon(self, seqs: Sequence[int], done: Callable[[list[Loaded]], None], wants: Wants | None = None) -> None:
        """See Store.load_soon."""
        self._load(_Load(seqs, wants, done), seqs)

    def _load(self, load: _Load, seqs: Sequence[int]) -> None:
        """One visit more, for these."""
        visit = self._visit(seqs, load.wants)

        def read() -> None:
            self._read_records(visit)
            self.hand_over(finish)

        def finish() -> None:
            again = self._found(visit, load)
            if again or load.rows:
                again = self._unsettled(visit, load, again)
            if again:
                self._load(load, again)
            elif len(load.found) == len(load.seqs) and not load.rows:
                load.done(list(load.found.values()))
            else:
                load.done([load.found[seq] for seq in load.seqs if seq in load.found])

        self._jobs.submit(read)

    def _unsettled(self, visit: Visit, load: _Load, again: Sequence[int]) -> list[int]:
        """What the next visit is for, none where the answer is what all items say now: what was found holds as long as
        its row is the same, and what has no row as long as the loop waits."""
        load.rows.update(zip(visit.seqs, visit.rows, strict=True))
        found, catalog = load.found, self._catalog
        seqs = list(found)
        changed: list[int] = []
        for seq, row in zip(seqs, catalog.rows(seqs), strict=True):
            if row is None and seq not in catalog:
                del found[seq]
            elif row is None or row != load.rows[seq]:
                changed.append(seq)
        if not again:
            visited = frozenset(visit.seqs)
            if all(seq in visited for seq in changed):
                return []
        return [*dict.fromkeys((*again, *changed))]

    def _visit(self, seqs: Sequence[int], wants: Wants | None) -> Visit:
        catalog = self._catalog
        visit = Visit(seqs, catalog.rows(seqs), wants)
        if None in visit.rows:
            for seq, row in zip(seqs, visit.rows, strict=True):
                entry = catalog.get(seq) if row is None else None
                if entry is not None and (home := entry.segment) is not None:
                    visit.want_entry(entry, home)
        for number in visit.segments():
            visit.markers[number] = catalog.segments[number].marker
            if (file := self._file(number)) is not None:
                visit.files[number] = file
        return visit

    def _read_records(self, visit: Visit) -> None:
        """In any thread."""
        self._read_pieces(visit, visit.pieces())
        if visit.wants is not None:
            self._read_pieces(visit, visit.notes())
        visit.assemble()

    def _read_pieces(self, visit: Visit, pieces: list[Piece]) -> None:
        files = visit.files
        for run, begin, end in runs(pieces):
            number = run[0][0]
            data, used = self._read(files.get(number), number, begin, end - begin)
            if used is not None:
                files[number] = visit.opened[number] = used
            visit.take(run, begin, data, visit.markers[number])

    def _found(self, visit: Visit, load: _Load) -> list[int]:
        """Adds what the visit found of the items that are as they were then; -> those that are to be read again."""
        for number, file in visit.opened.items():
            self.keep_file(number, file)
        if len(visit.unwanted) == len(visit.seqs):
            return []
        again: list[int] = []
        catalog, found = self._catalog, load.found
        rows = catalog.rows(visit.seqs)
        if None not in rows and rows == visit.rows:  # nearly always
            for seq, item in zip(visit.seqs, visit.items, strict=True):
                if item is not None:
                    found[seq] = item
        else:
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
                elif seq not in visit.unwanted and (now is not None or seq in catalog):
                    again.append(seq)
        for place, number, why in visit.failed:
            if rows[place] == visit.rows[place]:
                self._unreadable(catalog.segments[number], why)
        return again

    def _loaded(self, seq: int, visit: Visit) -> "Loaded | _Again | None":
        """What the visit found of an item that had an entry, as it is now; _AGAIN where that lies elsewhere since. None
        where nobody wants it, too."""
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
        meta = found.meta()
        if visit.wants is not None and not visit.wants(seq, meta):
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
        return Loaded(seq, found.item_id(), meta, parts)

    def _note(self, note: Note, part: int, visit: Visit) -> "bytes | _Again":
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
            return None  # contents_soon will find the same and report it
        return data

    def contents_soon(self, seqs: Sequence[int], bytes_max: int, done: Callable[[list[bytes | None]], None]) -> None:
        """See Store.contents_soon."""
        count = total = 0
        for seq in seqs:
            entry = self._catalog.get(seq)
            total += entry.content_bytes if entry is not None else 0
            if count and total > bytes_max:
                break
            count += 1
        self._read_contents(seqs[:count], [None] * count, range(count), done)

    def _read_contents(
        self,
        seqs: Sequence[int],
        contents: list[bytes | None],
        wanted: Iterable[int],
        done: Callable[[list[bytes | None]], None],
    ) -> None:
        """Reads those at these places."""
        catalog = self._catalog
        pieces: list[Piece] = []
        homes: dict[int, tuple[Segment, int, int]] = {}
        for at in wanted:
            entry = catalog.get(seqs[at])
            if entry is not None and (home := entry.segment) is not None:
                offset = entry.offset + HEADER_BYTES + entry.payload_bytes
                pieces.append((home.number, offset, entry.content_bytes, at))
                homes[at] = home, entry.offset, entry.content_crc
        if not pieces:
            assert self._loop is not None
            self._loop.call_soon(done, contents)
            return
        files = {number: self._file(number) for number in {piece[0] for piece in pieces}}

        def read() -> None:
            for run, begin, end in runs(pieces):
                number = run[0][0]
                data, files[number] = self._read(files[number], number, begin, end - begin)
                for _, offset, length, at in run:
                    content = data[offset - begin : offset - begin + length]
                    if len(content) == length and crc32(content) == homes[at][2]:
                        contents[at] = content
            self.hand_over(finish)

        def finish() -> None:
            for number, file in files.items():
                self.keep_file(number, file)
            again: list[int] = []
            for at, (home, offset, _) in homes.items():
                if contents[at] is None and (now := catalog.get(seqs[at])) is not None:
                    if now.segment is not home or now.offset != offset:
                        again.append(at)  # it was copied meanwhile, and the old file may be gone
                    else:
                        self._unreadable(home, f"the content of item {seqs[at]} at {offset} cannot be read")
            if again:
                self._read_contents(seqs, contents, again, done)
            else:
                done(contents)

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
