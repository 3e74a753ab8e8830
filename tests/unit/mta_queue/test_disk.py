"""The real disk, in a temporary directory."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mta_queue.disk import IOV_MAX, LogLockedError, OsDisk


@pytest.fixture
def disk() -> OsDisk:
    return OsDisk()


def test_append_and_read(disk: OsDisk, tmp_path: Path) -> None:
    """Bytes come back from where they were put; a read over the end is short."""
    file = disk.create(tmp_path / "file")

    disk.append(file, 0, (b"head", b"", b"content"))
    disk.append(file, 11, (b"more",))
    disk.sync(file)
    disk.sync_directory(tmp_path)

    assert disk.read(file, 0, 100) == b"headcontentmore"
    assert disk.read(file, 4, 7) == b"content"
    assert disk.read(file, 50, 7) == b""
    assert disk.size_bytes(file) == 15


def test_more_buffers_than_one_call_takes(disk: OsDisk, tmp_path: Path) -> None:
    """A group of any number of buffers is written in order."""
    file = disk.create(tmp_path / "file")
    buffers = [b"%07d" % number for number in range(IOV_MAX * 2 + 10)]

    disk.append(file, 0, buffers)

    assert disk.read(file, 0, 1 << 20) == b"".join(buffers)


def test_short_writes_go_on(disk: OsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that took only a part is continued where it stopped."""
    file = disk.create(tmp_path / "file")
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: os.pwrite(fd, b"".join(buffers)[:5], offset))

    disk.append(file, 0, (b"abc", b"defghi", b"jkl"))

    assert disk.read(file, 0, 100) == b"abcdefghijkl"


def test_full_disk(disk: OsDisk) -> None:
    """A disk without space is an OSError, not a short write that nobody notices."""
    file = disk.open(Path("/dev/full"), writable=True)

    with pytest.raises(OSError, match="No space") as raised:
        disk.append(file, 0, (b"x",))
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == "/dev/full"


def test_errors_name_the_file(disk: OsDisk, tmp_path: Path) -> None:
    """Also those of calls on a descriptor, of which the system itself does not say what it was."""
    folder, device = disk.open(tmp_path), disk.open(Path("/dev/full"), writable=True)

    with pytest.raises(IsADirectoryError) as unread:
        disk.read(folder, 0, 1)
    with pytest.raises(OSError, match="Invalid") as unsynced:
        disk.sync(device)

    assert (unread.value.filename, unsynced.value.filename) == (str(tmp_path), "/dev/full")


def test_read_cached(disk: OsDisk, tmp_path: Path) -> None:
    """What was just written is in memory; what is not all there is None."""
    file = disk.create(tmp_path / "file")
    disk.append(file, 0, (b"content",))

    assert disk.read_cached(file, 0, 7) in (b"content", None)  # None: a file system that cannot say
    assert disk.read_cached(file, 0, 8) is None
    assert disk.read_cached(file, 0, 0) in (b"", None)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EIO])
def test_read_cached_refused(disk: OsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where the system will not or cannot answer at once the answer is None; where it never can it is asked no more."""
    file = disk.create(tmp_path / "file")
    asked: list[int] = []

    def preadv(fd: int, buffers: Sequence[bytearray], offset: int, flags: int) -> int:
        asked.append(flags)
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "preadv", preadv)

    assert disk.read_cached(file, 0, 1) is None
    assert disk.read_cached(file, 0, 1) is None
    assert len(asked) == (1 if number == errno.EOPNOTSUPP else 2)


def test_read_cached_without_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that does not know the flag is not asked."""
    monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)
    disk = OsDisk()
    file = disk.create(tmp_path / "file")
    disk.append(file, 0, (b"content",))

    assert disk.read_cached(file, 0, 7) is None


def test_create_is_exclusive(disk: OsDisk, tmp_path: Path) -> None:
    """A file that exists is never begun again; nobody else may read it."""
    disk.create(tmp_path / "file")

    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o077 == 0


def test_directories(disk: OsDisk, tmp_path: Path) -> None:
    """Directories are made as deep as needed, closed to others, and again without harm."""
    deep = tmp_path / "a" / "b"

    disk.make_directory(deep)
    disk.make_directory(deep)
    disk.create(deep / "two")
    disk.create(deep / "one")
    disk.rename(deep / "two", deep / "zwei")
    disk.unlink(deep / "one")
    disk.unlink(deep / "one")

    assert disk.names(deep) == ["zwei"]
    assert deep.stat().st_mode & 0o077 == 0


def test_lock(disk: OsDisk, tmp_path: Path) -> None:
    """A lock is held until it is closed; the second one is told which log it is."""
    held = disk.lock(tmp_path / "LOCK")

    with pytest.raises(LogLockedError) as raised:
        disk.lock(tmp_path / "LOCK")
    held.close()
    again = disk.lock(tmp_path / "LOCK")

    assert raised.value.path == tmp_path / "LOCK"
    again.close()


def test_a_file_nobody_refers_to_is_closed(disk: OsDisk, tmp_path: Path) -> None:
    """A dropped file gives its descriptor back, so that a cache may just forget it."""
    file = disk.create(tmp_path / "file")
    fd = file.fd
    del file

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_closing_twice(disk: OsDisk, tmp_path: Path) -> None:
    """Closing again does not close somebody else's descriptor."""
    file = disk.create(tmp_path / "file")
    file.close()
    other = disk.create(tmp_path / "other")

    file.close()

    assert disk.size_bytes(other) == 0


def test_free_bytes_and_marker(disk: OsDisk, tmp_path: Path) -> None:
    """The disk knows its free space, and a marker is four bytes that differ."""
    assert disk.free_bytes(tmp_path) > 0
    markers = {disk.draw_marker() for _ in range(20)}
    assert len(markers) > 15
    assert max(markers) < 1 << 32
