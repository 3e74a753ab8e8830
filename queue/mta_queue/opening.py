"""Opening: the files of a log are read, and what they amount to is handed to the store. Blocks.

Of a sealed segment its index is enough. Those that were written last are read record by record all the same: somebody
may ask for their items by id. Of a segment without a seal every byte is read, and only what its checksums prove counts.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from mta_queue import inventory, record, recovery, segment
from mta_queue.disk import Disk, DiskFile
from mta_queue.index import Index, IndexWriter
from mta_queue.inventory import Listing
from mta_queue.quarantine import Quarantine, numbers_held
from mta_queue.rebuilding import Rebuilding
from mta_queue.record import Found, Record
from mta_queue.recovered import Recovered
from mta_queue.recovery import FILES, INDEXES, Row
from mta_queue.retention import Segment
from mta_queue.salvage import Salvage
from mta_queue.segment import SegmentReader

FILES_OPEN_MAX = 128  # kept open while what is untold is read
RECENT_BYTES = 128 << 20  # of the newest segments: what may have been written while somebody still waits to hear of it


class LogFormatError(Exception):
    """The log was written by a newer version of this program."""


class Opening:
    """Reads one log, once."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        rebuilt: Rebuilding,
        quarantine: Quarantine,
        listing: Listing | None,
        recent_bytes: int,
    ) -> None:
        """`listing`: what the inventory says."""
        self._directory = directory
        self._disk = disk
        self._rebuilt = rebuilt
        self._quarantine = quarantine
        self._recent_bytes = recent_bytes
        self._listing = listing
        rebuilt.on_aside = quarantine.note
        self._there: set[int] = set()
        """Segments of which there is a file, whatever it is called."""
        self._readers: dict[int, SegmentReader] = {}
        self.next_segment = 1
        """No file of the log has or had this number or a higher one."""

    def run(self) -> Recovered:
        """Raises LogFormatError, and OSError where the disk fails: then nothing can be promised."""
        names = self._disk.names(self._directory)
        for name in names:
            if name.endswith(segment.COPYING_SUFFIX):
                self._disk.unlink(self._directory / name)  # never whole, and all that is in it lies elsewhere
        numbers = segment.numbers(names)
        held = numbers_held(self._disk, self._directory)
        # Never a number again that a file ever had, set aside or not.
        self.next_segment = max([0, *numbers, *held]) + 1
        self._there = {*numbers, *held}
        newest = inventory.newest_header(self._disk, self._directory, numbers)
        if not inventory.is_current(self._listing, newest):
            self._listing = None
        recent = self._recent(numbers)
        for number in numbers:
            self._read_segment(number, is_recent=number in recent)
        self._look_for_missing()
        recovered = self._rebuilt.recovered(self._record_at, self._find_item)
        self._readers.clear()
        return recovered

    def _look_for_missing(self) -> None:
        self._rebuilt.segments_known, missing = inventory.compare(self._listing, self._there)
        row = FILES.decide("segment", "absent", True, False, True)
        for number in missing:
            self._rebuilt.aside(number, segment.file_name(number), row.label)
            try:
                self._quarantine.tell(number, row.label)
            except OSError:
                pass  # it is only a note for the admin, who hears of it anyway

    def _recent(self, numbers: list[int]) -> set[int]:
        """The newest segments; what their headers say of older ones is noted, so that these need not be asked."""
        found: set[int] = set()
        total = 0
        for number in reversed(numbers):
            file = self._disk.open(self._directory / segment.file_name(number))
            reader = SegmentReader(Salvage(self._disk), file)
            if reader.header is not None and reader.header.version in record.VERSIONS_READ:
                self._rebuilt.tell_up_to(reader.header.told)
                if not found and (index := reader.index()) is not None:
                    self._rebuilt.tell_up_to(index.told)
            total += reader.size_bytes
            if found and total > self._recent_bytes:
                break
            found.add(number)
        return found

    def _read_segment(self, number: int, *, is_recent: bool) -> None:
        disk, rebuilt = self._disk, self._rebuilt
        name = segment.file_name(number)
        path = self._directory / name
        file = disk.open(path, writable=True)
        reader = SegmentReader(Salvage(disk), file)
        row = judged(disk, self._directory, number, reader, self._listing)
        if reader.header is not None:
            self._there.add(reader.header.segment)
        if row.action == "refuse":
            raise LogFormatError(f"{path} is {row.label}: it was written by a newer version")
        if row.report:
            rebuilt.aside(number, name, row.label)
        if row.action == "remove":
            disk.unlink(path)
        elif row.action == "quarantine" or reader.marker is None:
            self._set_aside(number, name)
        elif reader.is_sealed:
            index = reader.index() if not is_recent else None
            row = INDEXES.decide(True, index_state(reader, index))
            if row.report and not is_recent:
                rebuilt.aside(number, name, row.label)
            if index is not None:
                rebuilt.take_index(number, name, reader, index)
            else:
                rebuilt.take(number, name, reader, verify_content=False, keep_ids=is_recent)
        else:
            # What is acted on from now on must not vanish with the next power loss.
            segment.make_stable(disk, file, reader.size_bytes)
            index = IndexWriter()
            rebuilt.take(number, name, reader, verify_content=True, keep_ids=True, index=index)
            if reader.is_whole and reader.header is not None and not rebuilt.is_torn_again:
                self._seal(file, reader.size_bytes, reader.end_with(index, rebuilt.next_number - 1))
        if number in rebuilt.catalog.segments:
            rebuilt.catalog.segments[number].file_bytes = disk.size_bytes(file)
        file.close()

    def _seal(self, file: DiskFile, at: int, seal: Sequence[bytes]) -> None:
        """Ends the segment, so that the next start need not read it all again."""
        try:
            for data in seal:
                self._disk.append(file, at, (data,))
                self._disk.sync(file)  # one by one: a seal must not vouch for an index that has not arrived
                at += len(data)
        except OSError:
            pass  # a full disk: what was found counts without it

    def _set_aside(self, number: int, name: str) -> None:
        try:
            self._quarantine.take(number, self._quarantine.reasons_of(number))
            self._disk.sync_directory(self._directory)
        except OSError as error:
            # No reason not to start: it is not read the next time either.
            self._rebuilt.aside(number, name, f"stays where it is: {error.strerror}")
        else:
            self._quarantine.forget(number)

    def _find_item(self, home: Segment, seq: int) -> Record | None:
        """The record of an item of which only the seq is known, or its copy."""
        try:
            file = self._disk.open(self._directory / segment.file_name(home.number))
            for met in SegmentReader(Salvage(self._disk), file).records(verify_content=False):
                if isinstance(met, Found) and met.record.kind == record.ITEM and met.record.seq == seq:
                    return met.record
        except OSError:
            pass
        return None

    def _record_at(self, home: Segment, offset: int) -> Record | None:
        """A record that was read before; what is opened for it is kept."""
        readers = self._readers
        try:
            reader = readers.get(home.number)
            if reader is None:
                if len(readers) >= FILES_OPEN_MAX:
                    readers.clear()
                file = self._disk.open(self._directory / segment.file_name(home.number))
                reader = readers[home.number] = SegmentReader(self._disk, file)
                reader.marker = home.marker  # also where its beginning is damaged
            return reader.record_at(offset)
        except OSError:
            return None


def judged(disk: Disk, directory: Path, number: int, reader: SegmentReader, listing: Listing | None) -> Row:
    """What the file is; `listing`: what the inventory says, where it is current. Where its beginning is lost, its
    records are looked for by the marker that is listed, or those of the log's other segments. Raises OSError."""
    listed = listing.marker_of(number) if listing is not None else None
    if reader.marker is None and not reader.is_blank:
        reader.try_markers(chain(() if listed is None else (listed,), _markers(disk, directory, number)))
    header = reader.header
    begins = recovery.beginning(header, reader.marker, is_blank=reader.is_blank)
    own_number = header is None or header.segment == number
    return FILES.decide("segment", begins, own_number, reader.is_sealed, listed is not None)


def index_state(reader: SegmentReader, index: Index | None) -> str:
    """What became of a segment's index, for INDEXES."""
    if index is not None:
        return "fits"
    return "does not fit" if reader.claims_index else "none"


def _markers(disk: Disk, directory: Path, number: int) -> Iterator[int]:
    """Of the other segments, the nearest ones first."""
    seen: set[int] = set()
    for other in sorted(segment.numbers(disk.names(directory)), key=lambda other: abs(other - number)):
        try:
            file = disk.open(directory / segment.file_name(other))
            header = record.decode_file_header(disk.read(file, 0, record.FILE_HEADER_BYTES))
        except OSError:
            continue
        if header is not None and header.marker not in seen:
            seen.add(header.marker)
            yield header.marker
