"""The inventory: which segments of a log must be there. One that it lists and that is not found was lost, not removed.

Numbers alone do not tell: they have gaps where files that nobody needed were deleted. So a file of its own lists the
segments that are on stable storage. One is listed some time after it was begun, and taken off, on stable storage,
before its file goes; whatever crash comes between, what is listed and not there is missing.

Nothing in it is needed to read the log: where it is not there, or another program had the log since, nothing is known
for certain, and all else is as with it.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from mta_queue import segment
from mta_queue.disk import Disk
from mta_queue.record import FILE_HEADER_BYTES, FileHeader, decode_file_header
from mta_queue.recovery import Known

NAME = "SEGMENTS"
NEW_SUFFIX = ".new"  # behind the name of a list that is not whole yet
MAGIC = b"mtaqlist"
VERSION = 1
BYTES_MAX = 1 << 20  # of a list that is read: 43,000 ranges, and there are no more of them than segments

_HEAD = Struct("<8sHHIIIQQ")
_RANGE = Struct("<QQII")
_CHECKSUM = Struct("<I")
HEAD_BYTES = _HEAD.size


class Range(NamedTuple):
    """Segments whose numbers follow one another, of one life."""

    first: int
    last: int
    marker: int
    """What their records begin with: with it a segment can be read whose beginning is lost."""


class Listing(NamedTuple):
    """What an inventory says."""

    marker: int
    """The life's that wrote it."""
    log: int
    first: int
    """The number of the first segment that this life may begin."""
    end: int
    """Of higher numbers nothing is said. A lower one that is not listed was removed, or never was."""
    ranges: tuple[Range, ...]
    """What must be there, ascending."""

    def numbers(self) -> Iterator[int]:
        """All that must be there."""
        for first, last, _ in self.ranges:
            yield from range(first, last + 1)

    def marker_of(self, number: int) -> int | None:
        """The marker of this segment; None where it is not listed."""
        at = bisect_right(self.ranges, number, key=_first) - 1
        return self.ranges[at].marker if at >= 0 and number <= self.ranges[at].last else None


def listing_of(marker: int, log: int, first: int, segments: Iterable[tuple[int, int]], end: int) -> Listing:
    """`segments`: all that must be there up to `end`, (number, marker) ascending."""
    ranges: list[Range] = []
    for number, its in segments:
        if ranges and (ranges[-1].last, ranges[-1].marker) == (number - 1, its):
            ranges[-1] = ranges[-1]._replace(last=number)
        else:
            ranges.append(Range(number, number, its))
    return Listing(marker, log, first, end, tuple(ranges))


def encode(listing: Listing) -> bytes:
    """The whole file."""
    marker, log, first, end, ranges = listing
    data = _HEAD.pack(MAGIC, VERSION, 0, marker, log, len(ranges), first, end)
    data += b"".join([_RANGE.pack(*each, 0) for each in ranges])
    return data + _CHECKSUM.pack(crc32(data))


def decode(data: bytes) -> Listing | None:
    """What the file says; None where it is damaged or of another version."""
    if len(data) < HEAD_BYTES:
        return None
    magic, version, _, marker, log, count, first, end = _HEAD.unpack_from(data)
    at = HEAD_BYTES + count * _RANGE.size
    if magic != MAGIC or version != VERSION or len(data) < at + _CHECKSUM.size:
        return None
    if crc32(data[:at]) != _CHECKSUM.unpack_from(data, at)[0]:
        return None
    ranges = [Range(*each[:3]) for each in _RANGE.iter_unpack(data[HEAD_BYTES:at])]
    return Listing(marker, log, first, end, tuple(ranges))


def read(disk: Disk, directory: Path) -> Listing | None:
    """What is listed there; None where no list is, or none that can be read."""
    try:
        file = disk.open(directory / NAME)
        return decode(disk.read(file, 0, min(BYTES_MAX, disk.size_bytes(file))))
    except OSError:
        return None


def is_current(listing: Listing | None, newest: FileHeader | None) -> bool:
    """Whether a list is of the log's last life; `newest`: the header of the newest segment that can be read. Else
    another program, which keeps none, has had the log since."""
    if listing is None:
        return False
    return newest is None or newest.segment < listing.first or newest.marker == listing.marker


def compare(listing: Listing | None, there: Collection[int]) -> tuple[Known, list[int]]:
    """What is known of a log's segments, and those that are missing. `listing`: one that is current; `there`: all that
    are, set aside or not."""
    if listing is None:
        return "not known", []
    missing = [number for number in listing.numbers() if number not in there]
    if missing:
        return "missing", missing
    begun = range(listing.end + 1, max(there, default=0))  # and perhaps removed, or never used
    if any(number not in there for number in begun):
        return "not known", []
    return "all there", []


def newest_header(disk: Disk, directory: Path, numbers: Sequence[int]) -> FileHeader | None:
    """Of the newest segment that has one; `numbers` ascending."""
    for number in reversed(numbers):
        try:
            file = disk.open(directory / segment.file_name(number))
            header = decode_file_header(disk.read(file, 0, FILE_HEADER_BYTES))
        except OSError:
            continue
        if header is not None:
            return header
    return None


class Inventory:
    """Of the log that the caller has locked. All calls wait for the disk; one at a time, in any thread."""

    def __init__(self, directory: Path, log: int, disk: Disk) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._new_path = directory / (NAME + NEW_SUFFIX)
        self._log = log
        self._disk = disk
        self._marker = self._first = 0

    def begin(self, marker: int, first: int, segments: Sequence[tuple[int, int]]) -> None:
        """Another life, which has found these segments and may begin `first` and those behind it. Raises OSError where
        the names that were found cannot be brought to stable storage."""
        self._marker, self._first = marker, first
        self._disk.sync_directory(self._directory)
        try:
            self.write(segments, segments[-1][0] if segments else 0)
        except OSError:
            pass  # the last life's holds until this one begins a segment or removes one

    def write(self, segments: Iterable[tuple[int, int]], end: int) -> None:
        """From now on these (number, marker) must be there, on stable storage all of them, and no others up to `end`.
        Raises OSError; then it is not certain which list holds, this one or the last."""
        disk = self._disk
        disk.unlink(self._new_path)
        # A file of its own each time: what a failed sync left of another list cannot come back to this one.
        file = disk.create(self._new_path)
        try:
            disk.append(file, 0, (encode(listing_of(self._marker, self._log, self._first, segments, end)),))
            disk.sync(file)
        finally:
            file.close()
        disk.rename(self._new_path, self._path)
        disk.sync_directory(self._directory)

    def drop(self) -> None:
        """No list is there any more, for good: nothing must be. Raises OSError."""
        self._disk.unlink(self._new_path)
        self._disk.unlink(self._path)
        self._disk.sync_directory(self._directory)


def _first(each: Range) -> int:
    return each.first
