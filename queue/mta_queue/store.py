"""The store: the face of the queue. Items with parts, durable before they are acknowledged, found again after a crash.

It knows nothing of mail: an item has an id, a meta and a content, all opaque, and parts that are numbers. Everything
but `open` and `load` is called in the loop's thread and never waits for the disk; what does comes back as a callback.
A worker has one store; it may open others to drain them (logs that no worker owns any more).
"""

import asyncio
import gc
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NewType
from zlib import crc32

from mta_queue import inventory, record, segment
from mta_queue.compactor import Compactor
from mta_queue.cooling import Cooling
from mta_queue.disk import Disk, DiskFile, LogLockedError
from mta_queue.entry import Entry, Note
from mta_queue.inventory import Inventory
from mta_queue.journal import FATES_WAIT_S, Journal
from mta_queue.opening import RECENT_BYTES, LogFormatError, Opening
from mta_queue.packed import Stands
from mta_queue.quarantine import Quarantine
from mta_queue.reader import Reader
from mta_queue.rebuilding import Rebuilding
from mta_queue.record import HEADER_BYTES, Origin
from mta_queue.recovered import Recovered, Untold
from mta_queue.removal import Removal
from mta_queue.threads import Jobs, Threads
from mta_queue.visit import Loaded, PartState, Wants

__all__ = [
    "Loaded",
    "LogFormatError",
    "LogLockedError",
    "Origin",
    "PartState",
    "Position",
    "Recovered",
    "Store",
    "Untold",
    "Wants",
]

SEGMENT_BYTES_MAX = 64 << 20  # what a deletion frees at once, and what a start after a crash reads in full
READERS = 2  # threads that read mail back: enough to keep a disk busy beside the commits
NUMBERS_SKIPPED = 1 << 20  # at each start: more than a crash can have lost of the last ones, so that none comes twice

Position = NewType("Position", int)
"""A moment in the log: every record up to this number had been appended."""


class Store:
    """One log: `DIRECTORY/` with `LOCK` and segments. The directory's name is the log's number where it is one."""

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk,
        durability: Literal["fsync", "os"] = "fsync",
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        jobs: Callable[[int, str], Jobs] = Threads,
        fates_wait_s: float = FATES_WAIT_S,
        recent_bytes: int = RECENT_BYTES,
    ) -> None:
        """`jobs` makes the threads: (how many, what they are called). `fates_wait_s`: how long fates may wait for
        appends that they can ride with. `recent_bytes`: how much of the newest segments `Recovered.recent` is about."""
        self._recent_bytes = recent_bytes
        self.directory = directory
        self.log = int(directory.name) if directory.name.isascii() and directory.name.isdigit() else 0
        self._disk = disk
        self._synced = durability == "fsync"
        self._segment_bytes_max = segment_bytes_max
        self._make_jobs = jobs
        self._fates_wait_s = fates_wait_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: DiskFile | None = None
        self._rebuilt = Rebuilding()
        self._quarantine = Quarantine(directory, disk)
        self._catalog = self._rebuilt.catalog
        self._journal = self._make_journal()
        self._reader = Reader(directory, disk, self._catalog, jobs(READERS, f"queue-{self.log}-read"))
        self._cooling = Cooling(self._catalog, lambda: self._journal.next_number, self._sync)
        self._compactor = Compactor(
            directory,
            self.log,
            disk,
            self._catalog,
            self._journal,
            self._reader,
            self._sweep,
            synced=self._synced,
            segment_bytes_max=segment_bytes_max,
        )
        self._inventory = Inventory(directory, self.log, disk)
        self._removal = Removal(directory, disk, self._catalog, self._reader, self._quarantine, self._inventory)
        self._late_forgets: dict[int, Callable[[], None] | None] = {}

    def _make_journal(self) -> Journal:
        return Journal(
            self.directory,
            self.log,
            self._disk,
            self._make_jobs(1, f"queue-{self.log}-commit"),
            self._catalog,
            synced=self._synced,
            segment_bytes_max=self._segment_bytes_max,
            fates_wait_s=self._fates_wait_s,
        )

    # Opening.

    def open(self) -> Recovered:
        """Locks the log, reads it and begins a new segment. Blocks.

        Raises LogLockedError where another process has it, LogFormatError where it is too new, OSError where the disk
        fails: then nothing can be promised. A disk that is only full is no reason: the log is failing then, and mail
        that waits goes out.
        """
        self._disk.make_directory(self.directory)
        self._lock = self._disk.lock(self.directory / segment.LOCK_NAME)
        try:
            return self._recover()
        except (OSError, LogFormatError):
            self._lock.close()
            raise

    def _recover(self) -> Recovered:
        listing = inventory.read(self._disk, self.directory)
        opening = Opening(self.directory, self._disk, self._rebuilt, self._quarantine, listing, self._recent_bytes)
        collecting = gc.isenabled()
        gc.disable()  # very many new objects, none of them garbage: looking for some again and again doubles the time
        try:
            recovered = opening.run()
        finally:
            if collecting:
                gc.enable()
        self._reader.quarantined = self._rebuilt.quarantined
        self._reader.on_unreadable = self._quarantine.note
        self._journal.on_segment = lambda writer: self._reader.keep_file(writer.number, writer.file)
        self._journal.on_commit = self._after_commit
        marker = self._disk.draw_marker()
        found = sorted((one.number, one.marker) for one in self._catalog.segments.values())
        self._inventory.begin(marker, opening.next_segment, found)
        self._journal.open(marker, opening.next_segment, self._rebuilt.next_number + NUMBERS_SKIPPED)
        return recovered

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on appends are committed and callbacks called, in this loop."""
        self._loop = loop
        self._reader.start(loop)
        self._journal.start(loop)
        self._cooling.start(loop)
        self._compactor.start(loop)
        self._sweep()

    async def close(self, on_clean: Callable[[], None] = lambda: None) -> None:
        """Everything appended is written, synced and sealed, the lock released. `on_clean` is called just before that
        where all of it is so; where the disk refused some it is not."""
        if self._loop is None:
            self.start(asyncio.get_running_loop())
        self._cooling.stop()
        self._removal.stop()
        self._compactor.stop()
        is_clean = await self._journal.close()
        self._loop = None
        self._reader.stop()
        self._removal.list_all()
        if is_clean:
            on_clean()
        if self._lock is not None:
            self._lock.close()

    def disown(self) -> None:
        """No segment of a log that is closed must be there any more: for who is about to remove it. Blocks, raises
        OSError."""
        self._inventory.drop()

    # Putting in.

    def append(
        self,
        item_id: str,
        meta: bytes,
        parts: int,
        content: bytes,
        on_durable: Callable[[int], None],
        on_failed: Callable[[OSError], None],
        origin: Origin | None = None,
        due_s: float = 0.0,
    ) -> int:
        """A new item with parts 0 to `parts` - 1, all due at `due_s`; returns its seq.

        Exactly one of the callbacks is called in a later turn: `on_durable(seq)` when the item is on stable storage,
        `on_failed(error)` when it is not and will not be found again. With `origin` the item is arriving: it lives,
        but after a crash it is not among what waits until `arrive`. `content` is not copied and must not change.
        Raises ValueError where something is over the format's limits.
        """
        journal = self._journal
        seq = journal.next_number
        size, crc = len(content), crc32(content)
        head = record.encode_item(journal.marker, seq, item_id, meta, parts, size, crc, due_s, origin)
        journal.next_number = seq + 1
        entry = Entry(parts, len(head) - HEADER_BYTES, size, crc, due_s, origin)
        self._catalog.add(seq, entry)
        journal.append(seq, entry, head, content, on_durable, on_failed)
        return seq

    # Fates.

    def finish(self, seq: int, parts: Sequence[int], note: bytes, on_durable: Callable[[], None] | None = None) -> None:
        """These parts have their final fate; `note` is told again after a crash until `told` covered it.

        Dead parts are left out; an item that does not live is no error. `on_durable` is called when this, and all that
        was appended before it, is on stable storage; without it nobody waits, and nothing is synced for it alone.
        """
        entry = self._catalog.hot.get(seq) or self._catalog.get(seq)
        if entry is not None and (living := self._living(entry, parts)):
            self._fate(seq, entry, record.FINISHED, living, note, 0.0, on_durable)
            self._catalog.end_parts(seq, entry, living)
        elif on_durable is not None:
            self._journal.fate(b"", None, on_durable)

    def postpone(self, seq: int, parts: Sequence[int], due_s: float, note: bytes | None) -> None:
        """These parts wait until `due_s` (Unix seconds); `note` comes back with `load` and is told again after a crash
        until `told` covered it. With None each part keeps the note that it has, and there is nothing to tell."""
        entry = self._durable(seq)
        if entry is None or not (living := self._living(entry, parts)):
            return
        if note is None:
            self._fate(seq, entry, record.RESCHEDULED, living, b"", due_s)
            self._catalog.reschedule(seq, entry, living, due_s)
        else:
            said = Note(seq, note, payload_bytes=4 * len(living) + len(note)) if note else None
            self._fate(seq, entry, record.POSTPONED, living, note, due_s, said=said)
            self._catalog.postpone(seq, entry, living, due_s, said)

    def move_out(self, seq: int, parts: Sequence[int], on_durable: Callable[[], None]) -> None:
        """These parts now live in another log; `on_durable` when this is on stable storage."""
        entry = self._durable(seq)
        living = self._living(entry, parts) if entry is not None else ()
        if entry is None or not living:
            self._journal.fate(b"", None, on_durable)
            return
        self._fate(seq, entry, record.MOVED, living, on_durable=on_durable)
        self._catalog.end_parts(seq, entry, living)

    def arrive(self, seq: int) -> None:
        """An arriving item is released: from now on it waits like any other."""
        entry = self._durable(seq)
        if entry is not None and entry.origin is not None:
            self._fate(seq, entry, record.ARRIVED)
            self._catalog.release(seq, entry)

    def forget(self, seq: int, on_durable: Callable[[], None] | None = None) -> None:
        """As if it had never been accepted; also before it is durable (its own callbacks are called all the same)."""
        entry = self._catalog.get(seq)
        if entry is None:
            if on_durable is not None:
                self._journal.fate(b"", None, on_durable)
        elif entry.segment is None:
            self._late_forgets[seq] = on_durable
        else:
            self._fate(seq, entry, record.FORGOTTEN, on_durable=on_durable)
            self._catalog.end(seq, entry)

    def _durable(self, seq: int) -> Entry | None:
        entry = self._catalog.hot.get(seq) or self._catalog.get(seq)
        assert entry is None or entry.segment is not None, "a fate before the item was durable"
        return entry

    def _living(self, entry: Entry, parts: Sequence[int]) -> Sequence[int]:
        mask = entry.living
        for part in parts:
            if not mask >> part & 1:
                return [part for part in parts if mask >> part & 1]
        return parts

    def _fate(
        self,
        seq: int,
        entry: Entry,
        kind: int,
        parts: Sequence[int] = (),
        note: bytes = b"",
        due_s: float = 0.0,
        on_durable: Callable[[], None] | None = None,
        said: Note | None = None,
    ) -> None:
        journal = self._journal
        number = journal.next_number
        data = record.encode_fate(journal.marker, number, kind, seq, parts, note, due_s)
        journal.next_number = number + 1
        home = entry.segment
        assert home is not None, "a fate before the item was durable"
        if kind in record.TOLD_KINDS:
            journal.tell_number = number
            if number > home.tell_number:  # until the fate is told the item's meta is needed
                home.tell_number = number
        journal.fate(data, home.number, on_durable, said)

    # Telling.

    def mark_position(self) -> Position:
        """Now: what was appended before this call."""
        return Position(self._journal.next_number - 1)

    def told(self, position: Position) -> None:
        """The event log has everything that was appended before `position`: it is not told again after a crash.

        To be called a few times a second at most; segments are only deleted when it is called at all.
        """
        if position > self._catalog.told:
            self._catalog.told = position
            journal = self._journal
            # No number of its own: telling is nothing to be told, and an idle log stays idle.
            journal.fate(record.encode_fate(journal.marker, position, record.TOLD, position), None)
        self._sweep()

    # Looking.

    def is_living(self, seq: int) -> bool:
        """It has a part without a final fate."""
        return seq in self._catalog

    def living_parts(self, seq: int) -> tuple[int, ...]:
        """The parts without a final fate; empty where the item does not live."""
        entry = self._catalog.get(seq)
        return tuple(entry.living_parts()) if entry is not None else ()

    def seqs(self) -> "array[int]":
        """All living items, the oldest first."""
        return self._catalog.seqs()

    def dues(self, seq: int) -> list[tuple[int, float]]:
        """(part, due_s) of the living parts of an item that waits, lowest first, from memory; none where it does not
        live, is not durable yet or is still arriving."""
        return self._catalog.dues(seq)

    def stands(self, seqs: Sequence[int]) -> list[Stands | None]:
        """(due_s, mask of the living parts, segment and offset of the note; segment 0: there is none) of each item
        that waits and all of whose parts are alike, from memory; None for every other: ask `dues`."""
        return self._catalog.stands(seqs)

    def content_size(self, seq: int) -> int:
        """Bytes of content; 0 where the item does not live."""
        entry = self._catalog.get(seq)
        return entry.content_bytes if entry is not None else 0

    @property
    def items(self) -> int:
        """Living items, those not yet durable included."""
        return len(self._catalog)

    @property
    def parts_living(self) -> int:
        """Their living parts."""
        return self._catalog.parts_living

    @property
    def living_bytes(self) -> int:
        """The records of the living items that are on disk, contents included."""
        return self._catalog.living_bytes

    @property
    def file_bytes(self) -> int:
        """What the files of all segments take."""
        return sum(one.file_bytes for one in self._catalog.segments.values())

    @property
    def copied_bytes(self) -> int:
        """What was copied so that segments could be deleted."""
        return self._compactor.copied_bytes

    @property
    def pending_bytes(self) -> int:
        """Appended and not yet durable: what the door looks at before it takes more."""
        return self._journal.pending_bytes

    @property
    def commits(self) -> int:
        return self._journal.commits

    @property
    def syncs(self) -> int:
        return self._journal.syncs

    @property
    def failures(self) -> int:
        """Groups that the disk refused, and segments that it did not let end."""
        return self._journal.failures

    @property
    def is_failing(self) -> bool:
        """The disk refused a group and a new segment: appends fail at once and fates wait in memory until it takes one;
        it is tried every second."""
        return self._journal.is_failing

    @property
    def is_overdue(self) -> bool:
        """So many fates wait in memory for a disk that fails that nothing should be begun which ends in another."""
        return self._journal.is_overdue

    @property
    def quarantined(self) -> int:
        """What could not be read: files, records and contents, found at the start or since. The files go into the
        quarantine when they are not needed any more."""
        return self._reader.quarantined

    @property
    def segments(self) -> int:
        """Files that exist, the one being written included."""
        return len(self._catalog.segments)

    @property
    def segments_removed(self) -> int:
        return self._removal.removed

    def free_bytes(self) -> int:
        """What the disk can still take. Raises OSError, also where the directory or the segment's name is gone."""
        journal = self._journal
        try:
            if number := journal.open_segment:
                self._disk.open(self.directory / segment.file_name(number)).close()
            return self._disk.free_bytes(self.directory)
        except OSError:
            journal.doubt()  # what is written to a file without a name is lost
            raise

    # Reading back.

    def load(self, seq: int) -> Loaded | None:
        """Meta and living parts; None where it does not live or cannot be read. Blocks."""
        return self._reader.load(seq)

    def load_soon(self, seqs: Sequence[int], done: Callable[[list[Loaded]], None], wants: Wants | None = None) -> None:
        """`load` of many in a thread; `done` gets, in the same order, those that live then, can be read and are wanted:
        see `Wants`. What is not wanted costs a third."""
        self._reader.load_soon(seqs, done, wants)

    def content_now(self, seq: int) -> bytes | None:
        """The content where it can be had without waiting for the disk, else None: then `content_soon`."""
        return self._reader.content_now(seq)

    def content_soon(self, seq: int, done: Callable[[bytes | None], None]) -> None:
        """The content, read in a thread; `done(None)` where it is not to be had: not living, or unreadable."""
        self._reader.contents_soon((seq,), 0, lambda contents: done(contents[0]))

    def contents_soon(self, seqs: Sequence[int], bytes_max: int, done: Callable[[list[bytes | None]], None]) -> None:
        """The contents of the first of these, as many as have `bytes_max` together and one at least, neighbours read
        together; None for each that is not to be had."""
        self._reader.contents_soon(seqs, bytes_max, done)

    # Tidying up.

    def _sync(self) -> None:
        self._journal.fate(b"", None, lambda: None)

    def _after_commit(self) -> None:
        self._cooling.plan()
        if self._late_forgets:
            for seq, on_durable in list(self._late_forgets.items()):
                entry = self._catalog.get(seq)
                if entry is None or entry.segment is not None:
                    del self._late_forgets[seq]
                    self.forget(seq, on_durable)

    def _sweep(self) -> None:
        """Has the segments deleted that nobody needs any more."""
        if self._loop is not None:
            self._removal.sweep()
