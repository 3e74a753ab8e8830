"""A segment: one file of records. Appending to it, ending it, reading it from end to end.

A segment is begun with its header, takes records while it is the log's last one, and is *sealed* with a record that
says that every byte before it is complete. One that ends without a seal was cut short by a crash or abandoned after a
failed write: there only what its checksums prove counts, content included.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from zlib import crc32

from mta_queue import index, record
from mta_queue.disk import Disk, DiskFile, Source
from mta_queue.fates import Fates
from mta_queue.index import Index, IndexWriter
from mta_queue.record import FILE_HEADER_BYTES, HEADER_BYTES, Damage, FileHeader, Found, Record
from mta_queue.salvage import Salvage

NAME_DIGITS = 16
SUFFIX = ".seg"
LOCK_NAME = "LOCK"
ASIDE_SUFFIX = ".aside"
COPYING_SUFFIX = ".copying"  # behind the name of a segment that is not whole yet

WINDOW_BYTES = 64 << 10  # read at once where records lie close together or everything is read anyway
PEEK_BYTES = 1 << 10  # read behind a content that was skipped: a header and the usual envelope
SEARCH_BYTES = 1 << 20  # read at once while looking for the next whole record behind a damage
COPY_BYTES = 1 << 20  # written again at once


def file_name(number: int) -> str:
    """The name of a segment's file."""
    return f"{number:0{NAME_DIGITS}d}{SUFFIX}"


def numbers(names: Iterable[str]) -> list[int]:
    """The numbers of the segments among the names of a directory, oldest first."""
    found = []
    for name in names:
        stem = name.removesuffix(SUFFIX)
        if stem != name and len(stem) == NAME_DIGITS and stem.isascii() and stem.isdigit():
            found.append(int(stem))
    return sorted(found)


class SegmentWriter:
    """The log's last segment, as the commit thread sees it."""

    __slots__ = ("_disk", "file", "header", "index", "number", "settled", "size_bytes", "unsynced", "unsynced_bytes")

    def __init__(self, disk: Disk, directory: Path, header: FileHeader, suffix: str = "") -> None:
        """Creates the file; nothing is on stable storage before `sync` and the directory's sync. `suffix`: of its name,
        until it gets the right one."""
        self._disk = disk
        self.number = header.segment
        self.header = record.encode_file_header(header)
        self.size_bytes = 0
        self.index = IndexWriter()
        """Of every record that was appended."""
        self.unsynced: list[Fates] = []
        """Fates since the last sync: to be written again elsewhere if the next sync fails."""
        self.unsynced_bytes = 0
        self.settled: list[Fates] = []
        """Fates that a sync has reached; whoever asked for it takes them."""
        self.file: DiskFile = disk.create(directory / (file_name(header.segment) + suffix))

    def append(self, buffers: Sequence[bytes], length_bytes: int) -> int:
        """Writes the buffers behind what is there, the first time the header too; returns where the buffers begin."""
        if not self.size_bytes:
            buffers = [self.header, *buffers]
            length_bytes += FILE_HEADER_BYTES
        offset = self.size_bytes
        self._disk.append(self.file, offset, buffers)
        self.size_bytes += length_bytes
        return offset or FILE_HEADER_BYTES

    def keep_unsynced(self, fates: Fates) -> None:
        """Remembers fates that were written and not synced."""
        self.unsynced.append(fates)
        self.unsynced_bytes += fates.length_bytes

    def sync(self) -> None:
        """All that was appended is on stable storage."""
        self._disk.sync(self.file)
        self.settled += self.unsynced
        self.unsynced.clear()
        self.unsynced_bytes = 0

    def seal(self, marker: int, number: int, *, synced: bool) -> None:
        """Ends the segment. `synced`: first everything in it goes to stable storage, then the seal.

        In one sync both could arrive in the wrong order, and the seal would vouch for what is not there.
        """
        listed = self.index.encode(marker, self.number)
        at = self.append((listed,), len(listed)) if listed else 0
        if synced:
            self.sync()
        seal = record.encode_seal(marker, number, self.number, at)
        self.append((seal,), len(seal))
        if synced:
            self.sync()


def make_stable(disk: Disk, file: DiskFile, size_bytes: int) -> None:
    """What can be read of a segment that was cut short is on stable storage when this returns. Raises OSError.

    A sync alone would not do: after one that failed the kernel takes the pages for clean, so that they can be read
    until the power is gone, and the next sync says that all is well. Written again, byte for byte, they are not.
    """
    salvage = Salvage(disk)
    for offset in range(0, size_bytes, COPY_BYTES):
        # What cannot be read is left as it is.
        for at, data in salvage.pieces(file, offset, min(COPY_BYTES, size_bytes - offset)):
            disk.append(file, at, (data,))
    disk.sync(file)


class SegmentReader:
    """Reads a segment's records in order, passing over what is damaged."""

    def __init__(self, disk: Source, file: DiskFile) -> None:
        """Reads the beginning and the end of the file; raises OSError."""
        self._disk, self._file = disk, file
        self.size_bytes = disk.size_bytes(file)
        start = disk.read(file, 0, FILE_HEADER_BYTES + PEEK_BYTES)
        self.header = record.decode_file_header(start)
        self.is_blank = len(start) < FILE_HEADER_BYTES or not (any(start) or self._has_bytes())
        """Too short for a header, or nothing but zeros: begun at the moment of a crash, never used."""
        self.marker = record.guessed_marker(start) if self.header is None else self.header.marker
        """None where nothing in the file can be told from noise."""
        self.is_sealed = False
        """It ends with a seal, so that everything before it was once complete."""
        self.is_whole = True
        """After `records`: no damage was found and the last record ends the file."""
        self._index_at = 0
        if self.marker is not None:
            self._read_seal(self.marker)

    def _has_bytes(self) -> bool:
        """Something in it is not zero."""
        offsets = range(0, self.size_bytes, SEARCH_BYTES)
        return any(any(self._disk.read(self._file, offset, SEARCH_BYTES)) for offset in offsets)

    def _read_seal(self, marker: int) -> None:
        if self.size_bytes >= FILE_HEADER_BYTES + HEADER_BYTES:
            begin = max(FILE_HEADER_BYTES, self.size_bytes - record.SEAL_BYTES)
            at = record.decode_seal(self._disk.read(self._file, begin, self.size_bytes - begin), marker)
            self.is_sealed = at is not None
            self._index_at = at or 0

    def try_markers(self, markers: Iterable[int]) -> None:
        """Looks in a file whose beginning is lost for records with one of these markers, which other segments of the
        log have. Raises OSError."""
        for marker in markers:
            if self.marker is None and self._search(FILE_HEADER_BYTES, marker) is not None:
                self.marker = marker
                self._read_seal(marker)

    @property
    def claims_index(self) -> bool:
        """Its seal says that it has an index."""
        return self._index_at >= FILE_HEADER_BYTES

    def index(self) -> Index | None:
        """What a sealed segment says of its own records; None where that is missing, damaged or not of this segment.
        Raises OSError."""
        if self.header is None or not FILE_HEADER_BYTES <= self._index_at < self.size_bytes:
            return None
        return index.decode(self.record_at(self._index_at), self.header.segment, self._index_at)

    def records(self, *, verify_content: bool) -> Iterator[Found | Damage]:
        """All records and damages, by offset; contents are read only with `verify_content`. Raises OSError."""
        marker, size = self.marker, self.size_bytes
        disk, file, decode, header_bytes = self._disk, self._file, record.decode, HEADER_BYTES
        if marker is None:
            return
        offset = FILE_HEADER_BYTES
        window, begin, end = b"", 0, 0
        while offset < size:
            # `window` is what was read from `begin` to `end`: much where all of it is used, little behind a skip.
            found = decode(window, offset - begin, marker) if offset < end else None
            if found is None:
                window = disk.read(file, offset, WINDOW_BYTES if verify_content or offset <= end else PEEK_BYTES)
                if len(window) >= header_bytes:
                    wanted = record.claimed_bytes(window, 0, marker)
                    if len(window) < wanted <= size - offset:
                        window = disk.read(file, offset, wanted)
                begin, end = offset, offset + len(window)
                found = decode(window, 0, marker)
            if found is None and offset == self._index_at:
                offset = size - record.SEAL_BYTES  # nothing is lost: all that an index says is in the records
                continue
            if found is None:
                following = self._search(offset + 1, marker)
                self.is_whole = False
                item_id = record.guessed_id(window, marker)
                yield Damage(offset, (following or size) - offset, following is not None, item_id)
                if following is None:
                    return
                offset = following
                continue
            content = offset + header_bytes + len(found.payload)
            after = content + found.content_bytes
            good = after <= size
            if good and verify_content and found.content_bytes:
                good = crc32(self._disk.read(self._file, content, found.content_bytes)) == found.content_crc
            if not good:
                self.is_whole = False
            yield Found(offset, found, good)
            # A content that is cut short may hide records only where the file was damaged: look for them.
            if after > size:
                following = self._search(content, marker)
                if following is None:
                    return
                after = following
            offset = after

    def end_with(self, listed: IndexWriter, number: int) -> Sequence[bytes]:
        """What makes a segment sealed of one that is whole and was read to its end."""
        assert self.marker is not None, "a segment that was read"
        header = self.header
        if header is None or header.version == 1:  # which knew no index
            return (record.encode_seal(self.marker, number, header.segment if header is not None else 0),)
        data = listed.encode(self.marker, header.segment)
        return data, record.encode_seal(self.marker, number, header.segment, self.size_bytes if data else 0)

    def _search(self, offset: int, marker: int) -> int | None:
        """Where the next whole record begins: only those written by us carry the marker, no mail can."""
        needle = marker.to_bytes(4, "little")
        while offset < self.size_bytes:
            data = self._disk.read(self._file, offset, SEARCH_BYTES)
            at = data.find(needle)
            while at >= 0:
                if self._record_at(offset + at, marker) is not None:
                    return offset + at
                at = data.find(needle, at + 1)
            if len(data) < SEARCH_BYTES:
                return None
            offset += len(data) - len(needle) + 1
        return None

    def record_at(self, offset: int) -> Record | None:
        """The record that begins there, if one does. Raises OSError."""
        return self._record_at(offset, self.marker) if self.marker is not None else None

    def _record_at(self, offset: int, marker: int) -> Record | None:
        head = self._disk.read(self._file, offset, HEADER_BYTES)
        wanted = record.claimed_bytes(head, 0, marker) if len(head) == HEADER_BYTES else 0
        if not 0 < wanted <= self.size_bytes - offset:
            return None
        return record.decode(self._disk.read(self._file, offset, wanted), 0, marker)
