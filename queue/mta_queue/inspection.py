"""Inspection: what the files of a log hold, read without a lock and without changing a byte.

Beside a running server it sees the log as it was a moment ago: a record that is being written looks like a torn end,
which is no mistake, a segment that has just been deleted is passed over, and what lay in one that was deleted while the
others were read is not counted: it ended or was copied meanwhile.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mta_queue import inventory, quarantine, segment
from mta_queue.disk import Disk
from mta_queue.inventory import Listing
from mta_queue.opening import index_state, judged
from mta_queue.quarantine import Held
from mta_queue.rebuilding import Rebuilding
from mta_queue.record import Damage, FileHeader, Found, Record
from mta_queue.recovery import FILES, INDEXES
from mta_queue.salvage import Salvage

PROGRESS_BYTES = 4 << 20  # read between two calls of `on_progress`


class Report(NamedTuple):
    """What `verify` found in one log."""

    directory: Path
    segments: int
    file_bytes: int
    records: int
    items: int
    """Living ones, those that arrive from another log included."""
    parts: int
    """Their living parts."""
    arriving: int
    untold: int
    """Records that the event log may lack."""
    quarantine: list[Held]
    """Files that were set aside earlier and are not read."""
    missing: list[str]
    """What is to be said of items that are spoken of and lie in no file. No problem: after a power loss, or beside a
    running server, it may mean nothing."""
    problems: list[str]
    """A line each; empty where all is well."""


class Met(NamedTuple):
    """One thing in a log's files, for `dump`."""

    name: str
    """The segment's file."""
    what: FileHeader | Found | Damage | str
    """The file's header, then its records and damages; or in one sentence why it is not read."""


def logs_in(disk: Disk, directory: Path) -> list[Path]:
    """The directory itself where it is a log, else the logs in it, by number. Raises OSError."""
    names = disk.names(directory)
    if segment.LOCK_NAME in names or segment.numbers(name.removesuffix(segment.ASIDE_SUFFIX) for name in names):
        return [directory]
    numbered = sorted(int(name) for name in names if name.isascii() and name.isdigit())
    found = []
    for number in numbered:
        try:
            disk.names(directory / str(number))
        except OSError:
            continue  # a file, or nothing that may be looked into
        found.append(directory / str(number))
    return found


class _Watched:
    """A segment's reader that tells how far it has come."""

    def __init__(self, reader: segment.SegmentReader, on_progress: Callable[[int], None]) -> None:
        self._reader = reader
        self._on_progress = on_progress
        self.header, self.marker, self.is_sealed = reader.header, reader.marker, reader.is_sealed

    def records(self, *, verify_content: bool) -> Iterator[Found | Damage]:
        next_at = PROGRESS_BYTES
        for met in self._reader.records(verify_content=verify_content):
            if met.offset >= next_at:
                self._on_progress(met.offset)
                next_at = met.offset + PROGRESS_BYTES
            yield met

    def record_at(self, offset: int) -> Record | None:
        return self._reader.record_at(offset)


def verify(disk: Disk, directory: Path, on_progress: Callable[[int], None] = lambda done_bytes: None) -> Report:
    """Reads all of a log, every content too, and says what is in it and what is wrong. `on_progress` hears now and then
    how many bytes have been read. Raises OSError."""
    rebuilding = Rebuilding()
    segments = file_bytes = records = 0
    listing = inventory.read(disk, directory)
    numbers = segment.numbers(disk.names(directory))
    there = {*numbers}
    problems: list[str] = []
    for number in numbers:
        name = segment.file_name(number)
        try:
            reader = segment.SegmentReader(Salvage(disk), disk.open(directory / name))
            if reader.header is None and not inventory.is_current(listing, _newest(disk, directory)):
                listing = None
            row = judged(disk, directory, number, reader, listing)
            state = index_state(reader, reader.index())
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
            continue
        segments += 1
        if reader.header is not None:
            there.add(reader.header.segment)
        if row.report:
            problems.append(f"{name}: {row.label}")
        if row.action == "read":
            listed = INDEXES.decide(reader.is_sealed, state)
            if listed.report:
                problems.append(f"{name}: {listed.label}")
            before, read_bytes = len(rebuilding.set_aside), file_bytes
            watched = _Watched(reader, lambda offset, before=read_bytes: on_progress(before + offset))
            try:
                records += rebuilding.take(number, name, watched, verify_content=True)
            except OSError as error:
                rebuilding.end()
                problems.append(f"{name}: {error.strerror}")
            problems += rebuilding.set_aside[before:]
        file_bytes += reader.size_bytes
        on_progress(file_bytes)
    problems += _look_for_missing(disk, directory, rebuilding, listing, there)
    _leave_out(rebuilding, set(segment.numbers(disk.names(directory))))
    catalog = rebuilding.catalog
    return Report(
        directory,
        segments,
        file_bytes,
        records,
        len(catalog),
        catalog.parts_living,
        sum(entry.origin is not None for _, entry in catalog.entries()),
        rebuilding.untold_count(),
        quarantine.held(disk, directory),
        rebuilding.gaps(),
        problems,
    )


def _look_for_missing(
    disk: Disk, directory: Path, rebuilding: Rebuilding, listing: Listing | None, there: set[int]
) -> list[str]:
    """A line for each segment that must be there and is not. `listing` was read before it was looked what is: what a
    running server has removed since is off the list by now."""
    now = inventory.read(disk, directory)
    if now is None or not inventory.is_current(listing, _newest(disk, directory)):
        listing = None
    known, missing = inventory.compare(listing, {*there, *quarantine.numbers_held(disk, directory)})
    lost = [number for number in missing if now is not None and now.marker_of(number) is not None]
    rebuilding.segments_known = "not known" if missing and not lost else known
    row = FILES.decide("segment", "absent", True, False, True)
    return [f"{segment.file_name(number)}: {row.label}" for number in lost]


def _newest(disk: Disk, directory: Path) -> FileHeader | None:
    return inventory.newest_header(disk, directory, segment.numbers(disk.names(directory)))


def size_bytes(disk: Disk, directory: Path) -> int:
    """How much `verify` has to read now. Raises OSError."""
    total = 0
    for number in segment.numbers(disk.names(directory)):
        try:
            total += disk.size_bytes(disk.open(directory / segment.file_name(number)))
        except OSError:
            continue  # deleted meanwhile, or `verify` will say what is wrong
    return total


def _leave_out(rebuilding: Rebuilding, there: set[int]) -> None:
    """What lies in segments that were deleted while the log was read does not wait any more."""
    catalog = rebuilding.catalog
    gone = {number for number, one in catalog.segments.items() if one.living and number not in there}
    for seq in catalog.seqs() if gone else ():
        entry = catalog.get(seq)
        if entry is not None and entry.segment is not None and entry.segment.number in gone:
            catalog.end(seq, entry)


def records(disk: Disk, directory: Path) -> Iterator[Met]:
    """Everything in a log's files, in order; contents are not looked at. Raises OSError."""
    for number in segment.numbers(disk.names(directory)):
        name = segment.file_name(number)
        try:
            reader = segment.SegmentReader(Salvage(disk), disk.open(directory / name))
            row = judged(disk, directory, number, reader, inventory.read(disk, directory))
        except FileNotFoundError:
            continue
        if reader.header is not None:
            yield Met(name, reader.header)
        else:
            yield Met(name, row.label)
        if row.action == "read":
            for met in reader.records(verify_content=False):
                yield Met(name, met)
