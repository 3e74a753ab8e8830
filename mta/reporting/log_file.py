"""The event log's file: whole lines appended by many processes, followed when it is rotated away. Blocking.

All workers append to one file. While one writes it holds the file's lock (flock), so that

- a write that the full disk cut short can be taken back: a half line never stays for another worker's line
  to be glued to, and
- the supervisor, who renames the file under the same lock, can compress it at once: whoever gets the lock
  looks again whether the path still names this file, and nobody appends to an old one.

Where the file system knows no locks (some network file systems) the log works without these two.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

PIPE_WRITE_BYTES_MAX = 4_096
"""Up to this size a write to a pipe is not mixed with another process's (POSIX PIPE_BUF on Linux)."""
_REOPENS_MAX = 10  # a file that is renamed ten times while it is being opened belongs to nobody sane
_STDOUT = 1


class LineWriter(Protocol):
    """Where lines go."""

    def append(self, lines: Sequence[bytes]) -> int:
        """Writes whole lines; returns how many are in the file. Fewer than given means: try again later.

        Raises OSError when not even the first could be written.
        """
        ...

    def reopen(self) -> None:
        """Opens the path again before the next write."""
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...


class LogFile:
    """A `LineWriter` to a path; the file and its folder are made when they are missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def append(self, lines: Sequence[bytes]) -> int:
        """One O_APPEND write of all lines; what did not fit is taken back to the last whole line."""
        for _ in range(_REOPENS_MAX):
            descriptor = self._open()
            with locked(descriptor):
                if self._is_current(descriptor):
                    return _append_whole(descriptor, lines)
            self.reopen()
        raise OSError(f"{self._path} is replaced faster than it can be opened")

    def reopen(self) -> None:
        """Lets go of the file; the next `append` opens what the path then names."""
        self.close()

    def close(self) -> None:
        """Closes the file; a later `append` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        if self._descriptor < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return self._descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        ours = os.fstat(descriptor)
        return (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev)


class LogPipe:
    """A `LineWriter` to an open descriptor, standard output by default, which is never closed."""

    def __init__(self, descriptor: int = _STDOUT) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def append(self, lines: Sequence[bytes]) -> int:
        """Writes in pieces of whole lines that other processes' lines do not get into; waits for a slow reader.

        A descriptor that was made non-blocking may take half a line: the other half goes first next time.
        """
        taken = 0
        try:
            if self._rest:
                self._rest = self._rest[os.write(self._descriptor, self._rest) :]
            while not self._rest and taken < len(lines):
                count, piece = _piece(lines, taken)
                written = os.write(self._descriptor, piece)
                self._rest = piece[written:]
                taken += count
        except OSError:
            if not taken:
                raise
        return taken

    def reopen(self) -> None:
        """Standard output stays what it is."""

    def close(self) -> None:
        """Tries once more to end a line that was cut short; the descriptor is not ours to close."""
        if self._rest:
            self._rest = self._rest[os.write(self._descriptor, self._rest) :]


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Holds the file's lock; where there are no locks, nothing."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _append_whole(descriptor: int, lines: Sequence[bytes]) -> int:
    data = b"".join(lines)
    end = os.fstat(descriptor).st_size
    written = os.write(descriptor, data)
    if written == len(data):
        return len(lines)
    whole = count = 0
    for line in lines:
        if whole + len(line) > written:
            break
        whole += len(line)
        count += 1
    os.ftruncate(descriptor, end + whole)
    return count


def _piece(lines: Sequence[bytes], first: int) -> tuple[int, bytes]:
    size = count = 0
    for line in lines[first:]:
        if count and size + len(line) > PIPE_WRITE_BYTES_MAX:
            break
        size += len(line)
        count += 1
    return count, b"".join(lines[first : first + count])
