"""Inspection: what the files of a log hold, read without a lock and without changing a byte.

Beside a running server it sees the log as it was a moment ago: a record that is being written looks like a torn end,
which is no mistake, and a segment that has just been deleted is passed over.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mta_queue import recovery, segment
from mta_queue.disk import Disk
from mta_queue.record import Damage, FileHeader, Found


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
    aside: int
    """Files that were set aside earlier and are not read."""
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


def verify(disk: Disk, directory: Path) -> Report:
    """Reads all of a log, every content too, and says what is in it and what is wrong. Raises OSError."""
    names = disk.names(directory)
    rebuilding = recovery.Rebuilding()
    segments = file_bytes = records = 0
    problems: list[str] = []
    for number in segment.numbers(names):
        name = segment.file_name(number)
        try:
            reader = segment.SegmentReader(disk, disk.open(directory / name))
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
            continue
        segments += 1
        file_bytes += reader.size_bytes
        decision = recovery.FILE_DECISIONS[recovery.beginning(reader.header, reader.marker, is_blank=reader.is_blank)]
        if decision.report:
            problems.append(f"{name}: {decision.label}")
        if decision.read and reader.marker is not None:
            before = len(rebuilding.set_aside)
            try:
                records += rebuilding.take(number, name, reader, verify_content=True)
            except OSError as error:
                rebuilding.end()
                problems.append(f"{name}: {error.strerror}")
            problems += rebuilding.set_aside[before:]
    catalog = rebuilding.catalog
    return Report(
        directory,
        segments,
        file_bytes,
        records,
        len(catalog.items),
        catalog.parts_living,
        sum(entry.origin is not None for entry in catalog.items.values()),
        rebuilding.untold_count(),
        sum(name.endswith(segment.ASIDE_SUFFIX) for name in names),
        problems,
    )


def records(disk: Disk, directory: Path) -> Iterator[Met]:
    """Everything in a log's files, in order; contents are not looked at. Raises OSError."""
    for number in segment.numbers(disk.names(directory)):
        name = segment.file_name(number)
        try:
            reader = segment.SegmentReader(disk, disk.open(directory / name))
        except FileNotFoundError:
            continue
        decision = recovery.FILE_DECISIONS[recovery.beginning(reader.header, reader.marker, is_blank=reader.is_blank)]
        if reader.header is not None:
            yield Met(name, reader.header)
        else:
            yield Met(name, decision.label)
        if decision.read:
            for met in reader.records(verify_content=False):
                yield Met(name, met)
