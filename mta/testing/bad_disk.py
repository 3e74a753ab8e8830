"""BadDisk: a MemoryDisk that is small, full of files, read-only, worn out or gone, as a test wants it.

A disk that is full takes of a write what still fits and refuses the rest, as a real one does.
"""

import errno
from collections.abc import Sequence
from pathlib import Path

from mta.testing.memory_disk import MemoryDisk, MemoryFile
from mta_queue.disk import DiskFile

CHANGES = ("append", "create", "unlink", "rename", "sync_directory")


class BadDisk(MemoryDisk):
    """What is wrong with it are its attributes; a test changes them while the queue runs."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.capacity_bytes = 1 << 40
        """What all files together may hold."""
        self.files_max = 1 << 30
        """How many files there may be: the inodes."""
        self.is_read_only = False
        self.is_gone = False
        """Its directories are not there (any more)."""
        self.broken: set[str] = set()
        """Operations that end in EIO."""
        self.asked: list[tuple[str, str]] = []
        """(operation, file name) of every call that changes or syncs something, in order, whatever became of it."""
        self.on_call = self._judge

    def _judge(self, operation: str, path: Path) -> None:
        self.asked.append((operation, path.name))
        if self.is_gone and operation in ("create", "sync_directory"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        if self.is_read_only and operation in ("create", "append", "unlink", "rename"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        if operation in self.broken:
            raise OSError(errno.EIO, "Input/output error", str(path))
        if operation == "create" and len(self.paths()) >= self.files_max:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    @property
    def used_bytes(self) -> int:
        return sum(len(self.contents(path)) for path in self.paths())

    def append(self, file: DiskFile, offset: int, buffers: Sequence[bytes]) -> None:
        data = b"".join(buffers)
        assert isinstance(file, MemoryFile)
        grows = offset + len(data) - self.size_bytes(file)
        room = self.capacity_bytes - self.used_bytes
        if grows <= max(0, room):
            super().append(file, offset, (data,))
            return
        self._judge("append", file.path)
        file.node.write(offset, data[: max(0, len(data) - grows + room)])
        raise OSError(errno.ENOSPC, "No space left on device", str(file.path))

    def free_bytes(self, path: Path) -> int:
        if self.is_gone:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return max(0, self.capacity_bytes - self.used_bytes)
