"""The reader: meta and content back from disk, from the page cache where it can, in threads where it must."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from mta_queue import record, segment
from mta_queue.catalog import Catalog, Entry, Segment
from mta_queue.disk import Disk, DiskFile
from mta_queue.record import HEADER_BYTES
from mta_queue.threads import Job, Jobs

FILES_OPEN_MAX = 128  # segments kept open for reading; far below the usual 1024 descriptors of a process


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


def part_states(entry: Entry) -> list[PartState]:
    """An item's living parts, lowest first."""
    parts = []
    for part in entry.living_parts():
        postponed = entry.postponed.get(part) if entry.postponed is not None else None
        if postponed is not None:
            parts.append(PartState(part, postponed.due_s, postponed.note))
        else:
            parts.append(PartState(part, entry.due_s, b""))
    return parts


class Reader:
    """Reads items of one log. All but the reading itself happens in the loop's thread."""

    def __init__(self, directory: Path, disk: Disk, catalog: Catalog, jobs: Jobs) -> None:
        self._directory = directory
        self._disk = disk
        self._catalog = catalog
        self._jobs = jobs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._files: dict[int, DiskFile] = {}
        self._results: deque[Callable[[], None]] = deque()
        self._results_called = False
        self.set_aside = 0
        """What could not be read."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on callbacks are called in this loop."""
        self._loop = loop

    def stop(self) -> None:
        """Waits for what is being read, calls its callbacks and closes all files."""
        self._jobs.stop()
        self._deliver_results()
        self._files.clear()

    def submit(self, job: Job) -> None:
        """Runs something else that waits for the disk; it gives its result to `hand_over`."""
        self._jobs.submit(job)

    # Meta.

    def load(self, seq: int) -> Loaded | None:
        """See Store.load."""
        entry = self._catalog.items.get(seq)
        if entry is None or (home := entry.segment) is None:
            return None
        data, file = self._read(self._file(home), home, entry.offset, HEADER_BYTES + entry.payload_bytes)
        self.keep_file(home.number, file)
        return self._loaded(seq, entry, home, data)

    def load_soon(self, seqs: Sequence[int], done: Callable[[list[Loaded]], None]) -> None:
        """See Store.load_soon."""
        wanted = []
        for seq in seqs:
            entry = self._catalog.items.get(seq)
            if entry is not None and (home := entry.segment) is not None:
                wanted.append((seq, entry, home, self._file(home)))

        def read() -> None:
            opened: dict[int, DiskFile] = {}
            got = []
            for seq, entry, home, file in wanted:
                length = HEADER_BYTES + entry.payload_bytes
                data, used = self._read(file or opened.get(home.number), home, entry.offset, length)
                if used is not None:
                    opened[home.number] = used
                got.append((seq, entry, home, data))
            self.hand_over(lambda: finish(got, opened))

        def finish(got: list[tuple[int, Entry, Segment, bytes]], opened: dict[int, DiskFile]) -> None:
            for number, file in opened.items():
                self.keep_file(number, file)
            loaded = [self._loaded(seq, entry, home, data) for seq, entry, home, data in got if entry.living]
            done([one for one in loaded if one is not None])

        self._jobs.submit(read)

    def _loaded(self, seq: int, entry: Entry, home: Segment, data: bytes) -> Loaded | None:
        found = record.decode(data, 0, home.marker)
        if found is None or found.kind != record.ITEM or found.seq != seq:
            self._unreadable(home)
            return None
        return Loaded(seq, found.item_id(), found.meta(), part_states(entry))

    # Content.

    def content_now(self, seq: int) -> bytes | None:
        """See Store.content_now."""
        entry = self._catalog.items.get(seq)
        if entry is None or (home := entry.segment) is None:
            return None
        file = self._file(home)
        if file is None:
            return None
        data = self._disk.read_cached(file, entry.offset + HEADER_BYTES + entry.payload_bytes, entry.content_bytes)
        if data is not None and crc32(data) != entry.content_crc:
            return None  # content_soon will find the same and report it
        return data

    def content_soon(self, seq: int, done: Callable[[bytes | None], None]) -> None:
        """See Store.content_soon."""
        entry = self._catalog.items.get(seq)
        home = entry.segment if entry is not None else None
        if entry is None or home is None:
            assert self._loop is not None
            self._loop.call_soon(done, None)
            return
        file = self._file(home)
        offset = entry.offset + HEADER_BYTES + entry.payload_bytes

        def read() -> None:
            data, used = self._read(file, home, offset, entry.content_bytes)
            good = len(data) == entry.content_bytes and crc32(data) == entry.content_crc
            self.hand_over(lambda: finish(data if good else None, used))

        def finish(data: bytes | None, used: DiskFile | None) -> None:
            self.keep_file(home.number, used)
            if data is None and entry.living:
                self._unreadable(home)
            done(data)

        self._jobs.submit(read)

    def _read(
        self, file: DiskFile | None, home: Segment, offset: int, length_bytes: int
    ) -> tuple[bytes, DiskFile | None]:
        """In any thread: the bytes, fewer where the disk does not give them, and the file that was used."""
        try:
            if file is None:
                file = self._disk.open(self._directory / segment.file_name(home.number))
            return self._disk.read(file, offset, length_bytes), file
        except OSError:
            return b"", file

    def _unreadable(self, home: Segment) -> None:
        """Its file is kept for somebody to look at."""
        home.damaged = True
        self.set_aside += 1

    # Back to the loop.

    def hand_over(self, result: Callable[[], None]) -> None:
        """In a reading thread: the result goes to the loop, many with one call."""
        self._results.append(result)
        if not self._results_called:
            self._results_called = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._deliver_results)

    def _deliver_results(self) -> None:
        self._results_called = False  # before looking: what is put in after this calls again
        while self._results:
            self._results.popleft()()

    # Files.

    def _file(self, home: Segment) -> DiskFile | None:
        """The segment's open file, now the most recently used; None where it is not open."""
        files = self._files
        file = files.pop(home.number, None)
        if file is not None:
            files[home.number] = file
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
