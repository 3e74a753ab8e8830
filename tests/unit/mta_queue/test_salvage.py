"""Reading around what a disk cannot give."""

import errno
from pathlib import Path

import pytest

from mta.testing.memory_disk import MemoryDisk, MemoryFile
from mta_queue.disk import DiskFile
from mta_queue.salvage import BLOCK_BYTES, BLOCKS_LOST_MAX, Salvage

CONTENTS = bytes(range(256)) * (BLOCK_BYTES // 256) * 4


class WornDisk(MemoryDisk):
    """A disk some of whose blocks cannot be read."""

    def __init__(self, *bad: int, number: int = errno.EIO) -> None:
        super().__init__()
        self.bad = {*bad}
        self.number = number
        self.failures = 0

    def read(self, file: DiskFile, offset: int, length_bytes: int) -> bytes:
        if self.bad & {*range(offset // BLOCK_BYTES, (offset + length_bytes - 1) // BLOCK_BYTES + 1)}:
            self.failures += 1
            raise OSError(self.number, "made up")
        return super().read(file, offset, length_bytes)


def file_on(disk: MemoryDisk, contents: bytes = CONTENTS) -> MemoryFile:
    disk.make_directory(Path("/d"))
    file = disk.create(Path("/d/file"))
    disk.append(file, 0, (contents,))
    return file


def test_good_blocks_are_read() -> None:
    """Everything but the lost block is there, whatever is asked for, and nobody asks for the lost one twice."""
    disk = WornDisk(2)
    salvage, file = Salvage(disk), file_on(disk)
    lost = bytes((0xFF,)) * BLOCK_BYTES
    expected = CONTENTS[: 2 * BLOCK_BYTES] + lost + CONTENTS[3 * BLOCK_BYTES :]

    assert salvage.read(file, 0, len(CONTENTS) + 99) == expected
    assert salvage.read(file, 2 * BLOCK_BYTES - 5, 10) == expected[2 * BLOCK_BYTES - 5 : 2 * BLOCK_BYTES + 5]
    assert salvage.read(file, 3 * BLOCK_BYTES - 1, 2) == expected[3 * BLOCK_BYTES - 1 : 3 * BLOCK_BYTES + 1]
    assert salvage.size_bytes(file) == len(CONTENTS)
    assert (salvage.blocks_lost, disk.failures) == (1, 2)


def test_other_errors_are_errors() -> None:
    """Only a block that cannot be read is read around."""
    disk = WornDisk(1, number=errno.EACCES)

    with pytest.raises(OSError, match="made up"):
        Salvage(disk).read(file_on(disk), 0, len(CONTENTS))


def test_a_dead_disk_is_an_error() -> None:
    """A file of which next to nothing can be read is not taken for a damaged one."""
    disk = WornDisk(*range(BLOCKS_LOST_MAX + 1))
    file = file_on(disk, bytes(BLOCK_BYTES * (BLOCKS_LOST_MAX + 1)))

    with pytest.raises(OSError, match="made up"):
        Salvage(disk).read(file, 0, 1 << 30)
