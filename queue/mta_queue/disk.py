"""The disk: the only code of the queue that calls the operating system.

Everything above takes a `Disk` and so runs as well on a MemoryDisk that loses power between any two calls. All calls
may block; they raise OSError, which names the file, and never retry: what a failed write or sync means is the
journal's decision.
"""

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

IOV_MAX = 1024  # buffers that Linux takes in one call (UIO_MAXIOV)
FILE_MODE = 0o600  # mail is nobody else's business
DIRECTORY_MODE = 0o700


class LogLockedError(Exception):
    """Another process has this log open."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is in use by another process")
        self.path = path


class DiskFile(Protocol):
    """An open file; closed when told to or when nobody refers to it any more."""

    def close(self) -> None: ...


class Source(Protocol):
    """Something that files can be read from."""

    def read(self, file: DiskFile, offset: int, length_bytes: int) -> bytes:
        """Up to that many bytes; fewer only at the end of the file."""
        ...

    def size_bytes(self, file: DiskFile) -> int:
        """The file's length."""
        ...


class Disk(Source, Protocol):
    """What the queue asks of an operating system."""

    def make_directory(self, path: Path) -> None:
        """Creates the directory and those above it where they are missing, each on stable storage."""
        ...

    def names(self, directory: Path) -> list[str]:
        """The names in a directory, sorted."""
        ...

    def create(self, path: Path) -> DiskFile:
        """A new, empty file, open for reading and writing; FileExistsError where there is one."""
        ...

    def open(self, path: Path, *, writable: bool = False) -> DiskFile:
        """An existing file."""
        ...

    def append(self, file: DiskFile, offset: int, buffers: Sequence[bytes]) -> None:
        """Writes all buffers one behind the other from `offset` on; after an error any part of them may be there."""
        ...

    def sync(self, file: DiskFile) -> None:
        """Returns when all that was written is on stable storage."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Returns when the directory's entries are on stable storage."""
        ...

    def read_cached(self, file: DiskFile, offset: int, length_bytes: int) -> bytes | None:
        """The bytes where the operating system has all of them in memory; None where it would have to wait."""
        ...

    def unlink(self, path: Path) -> None:
        """Removes a name; one that is not there is no error."""
        ...

    def rename(self, path: Path, target: Path) -> None:
        """Gives a file another name."""
        ...

    def lock(self, path: Path) -> DiskFile:
        """An exclusive lock until the file is closed or the process ends; raises LogLockedError."""
        ...

    def free_bytes(self, path: Path) -> int:
        """What may still be written to the file system that `path` lies on."""
        ...

    def draw_marker(self) -> int:
        """32 random bits that no sender of mail can foresee."""
        ...


class OsFile:
    """A file descriptor that is closed with its last reference, so that a cache may drop it while a thread reads."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self.path = path

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def _opened(file: DiskFile) -> OsFile:
    assert isinstance(file, OsFile)
    return file


def _named(error: OSError, file: OsFile) -> OSError:
    """The system says of a descriptor only what is wrong; whoever reads it wants to know where."""
    error.filename = str(file.path)
    return error


class OsDisk:
    """The real one."""

    def __init__(self) -> None:
        self._nowait_flag = getattr(os, "RWF_NOWAIT", 0)  # 0: this system cannot say what is in its memory

    def make_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self.make_directory(path.parent)
        try:
            os.mkdir(path, DIRECTORY_MODE)
        except FileExistsError:
            return
        self.sync_directory(path.parent)

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))

    def create(self, path: Path) -> OsFile:
        return OsFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE), path)

    def open(self, path: Path, *, writable: bool = False) -> OsFile:
        return OsFile(os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC), path)

    def append(self, file: DiskFile, offset: int, buffers: Sequence[bytes]) -> None:
        opened = _opened(file)
        fd = opened.fd
        try:
            for start in range(0, len(buffers), IOV_MAX):
                chunk = buffers[start : start + IOV_MAX]
                wanted = sum(map(len, chunk))
                written = os.pwritev(fd, chunk, offset)
                if written < wanted:
                    _write_rest(fd, b"".join(chunk), written, offset)
                offset += wanted
        except OSError as error:
            raise _named(error, opened) from None

    def sync(self, file: DiskFile) -> None:
        opened = _opened(file)
        try:
            os.fdatasync(opened.fd)
        except OSError as error:
            raise _named(error, opened) from None

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, file: DiskFile, offset: int, length_bytes: int) -> bytes:
        opened = _opened(file)
        fd = opened.fd
        try:
            data = os.pread(fd, length_bytes, offset)
            while 0 < len(data) < length_bytes:
                more = os.pread(fd, length_bytes - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise _named(error, opened) from None
        return data

    def read_cached(self, file: DiskFile, offset: int, length_bytes: int) -> bytes | None:
        if not self._nowait_flag:
            return None
        buffer = bytearray(length_bytes)
        try:
            got = os.preadv(_opened(file).fd, (buffer,), offset, self._nowait_flag)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                self._nowait_flag = 0  # this file system will not answer another time either
            return None
        return bytes(buffer) if got == length_bytes else None

    def size_bytes(self, file: DiskFile) -> int:
        return os.fstat(_opened(file).fd).st_size

    def unlink(self, path: Path) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def rename(self, path: Path, target: Path) -> None:
        os.rename(path, target)

    def lock(self, path: Path) -> OsFile:
        file = OsFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE), path)
        try:
            fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise LogLockedError(path) from None
        return file

    def free_bytes(self, path: Path) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def draw_marker(self) -> int:
        return int.from_bytes(os.urandom(4), "little")


def _write_rest(fd: int, data: bytes, written: int, offset: int) -> None:
    """A short write is no error yet: asking again either goes on or says why not (ENOSPC, EFBIG)."""
    while written < len(data):
        count = os.pwrite(fd, memoryview(data)[written:], offset + written)
        if count == 0:
            raise OSError(errno.EIO, "the file takes no more bytes")
        written += count
