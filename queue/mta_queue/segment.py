"""A segment: one file of records. Appending to it, ending it, reading it from end to end.

A segment is begun with its header, takes records while it is the log's last one, and is *sealed* with a record that
says that every byte before it is complete. One that ends without a seal was cut short by a crash or abandoned after a
failed write: there only what its checksums prove counts, content included.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from zlib import crc32

from mta_queue import record
from mta_queue.disk import Disk, DiskFile
from mta_queue.record import FILE_HEADER_BYTES, HEADER_BYTES, Damage, FileHeader, Found, Record

NAME_DIGITS = 16
SUFFIX = ".seg"
LOCK_NAME = "LOCK"
ASIDE_SUFFIX = ".aside"

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

    __slots__ = ("_disk", "file", "header", "number", "size_bytes", "unsynced", "unsynced_bytes")

    def __init__(self, disk: Disk, directory: Path, header: FileHeader) -> None:
        """Creates the file; nothing is on stable storage before `sync` and the directory's sync."""
        self._disk = disk
        self.number = header.segment
        self.header = record.encode_file_header(header)
        self.size_bytes = 0
        self.unsynced: list[bytes] = []
        """Fates since the last sync: to be written again elsewhere if the next sync fails."""
        self.unsynced_bytes = 0
        self.file: DiskFile = disk.create(directory / file_name(header.segment))

    def append(self, buffers: Sequence[bytes], length_bytes: int) -> int:
        """Writes the buffers behind what is there, the first time the header too; returns where the buffers begin."""
        if not self.size_bytes:
            buffers = [self.header, *buffers]
            length_bytes += FILE_HEADER_BYTES
        offset = self.size_bytes
        self._disk.append(self.file, offset, buffers)
        self.size_bytes += length_bytes
        return offset or FILE_HEADER_BYTES

    def keep_unsynced(self, fates: bytes) -> None:
        """Remembers fates that were written and not synced."""
        self.unsynced.append(fates)
        self.unsynced_bytes += len(fates)

    def sync(self) -> None:
        """All that was appended is on stable storage."""
        self._disk.sync(self.file)
        self.unsynced.clear()
        self.unsynced_bytes = 0

    def seal(self, seal: bytes, *, synced: bool) -> None:
        """Ends the segment. `synced`: first everything in it goes to stable storage, then the seal.

        In one sync both could arrive in the wrong order, and the seal would vouch for what is not there.
        """
        if synced:
            self.sync()
        self.append((seal,), len(seal))
        if synced:
            self.sync()


def make_stable(disk: Disk, file: DiskFile, size_bytes: int) -> None:
    """What can be read of a segment that was cut short is on stable storage when this returns. Raises OSError.

    A sync alone would not do: after one that failed the kernel takes the pages for clean, so that they can be read
    until the power is gone, and the next sync says that all is well. Written again, byte for byte, they are not.
    """
    for offset in range(0, size_bytes, COPY_BYTES):
        disk.append(file, offset, (disk.read(file, offset, min(COPY_BYTES, size_bytes - offset)),))
    disk.sync(file)


class SegmentReader:
    """Reads a segment's records in order, passing over what is damaged."""

    def __init__(self, disk: Disk, file: DiskFile) -> None:
        """Reads the beginning and the end of the file; raises OSError."""
        self._disk, self._file = disk, file
        self.size_bytes = disk.size_bytes(file)
        start = disk.read(file, 0, FILE_HEADER_BYTES + PEEK_BYTES)
        self.header = record.decode_file_header(start)
        self.is_blank = len(start) < FILE_HEADER_BYTES or not any(start)
        """Too short for a header, or nothing but zeros: begun at the moment of a crash, never used."""
        self.marker = record.guessed_marker(start) if self.header is None else self.header.marker
        """None where nothing in the file can be told from noise."""
        self.is_sealed = False
        """It ends with a seal, so that everything before it was once complete."""
        self.is_whole = True
        """After `records`: no damage was found and the last record ends the file."""
        if self.marker is not None and self.size_bytes >= FILE_HEADER_BYTES + record.SEAL_BYTES:
            end = disk.read(file, self.size_bytes - record.SEAL_BYTES, record.SEAL_BYTES)
            last = record.decode(end, 0, self.marker)
            self.is_sealed = last is not None and last.kind == record.SEALED

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
            if found is None:
                following = self._search(offset + 1, marker)
                self.is_whole = False
                yield Damage(offset, (following or size) - offset, following is not None)
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

    def _search(self, offset: int, marker: int) -> int | None:
        """Where the next whole record begins: only those written by us carry the marker, no mail can."""
        needle = marker.to_bytes(4, "little")
        while offset < self.size_bytes:
            data = self._disk.read(self._file, offset, SEARCH_BYTES)
            at = data.find(needle)
            while at >= 0:
                if self.record_at(offset + at) is not None:
                    return offset + at
                at = data.find(needle, at + 1)
            if len(data) < SEARCH_BYTES:
                return None
            offset += len(data) - len(needle) + 1
        return None

    def record_at(self, offset: int) -> Record | None:
        """The record that begins there, if one does. Raises OSError."""
        if self.marker is None:
            return None
        head = self._disk.read(self._file, offset, HEADER_BYTES)
        wanted = record.claimed_bytes(head, 0, self.marker) if len(head) == HEADER_BYTES else 0
        if not 0 < wanted <= self.size_bytes - offset:
            return None
        return record.decode(self._disk.read(self._file, offset, wanted), 0, self.marker)
