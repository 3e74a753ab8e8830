"""The log's file: whole lines, several writers, rotation under their hands."""

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from mta.reporting import log_file
from mta.reporting.log_file import LogFile, LogPipe


def test_appends_to_what_is_there(tmp_path: Path) -> None:
    """A log that exists is gone on with; folder and file are made where they are missing."""
    path = tmp_path / "var" / "log" / "events.jsonl"
    first, second = LogFile(path), LogFile(path)

    first.append([b"1\n", b"2\n"])
    second.append([b"3\n"])
    first.append([b"4\n"])
    first.close()
    second.close()

    assert path.read_bytes() == b"1\n2\n3\n4\n"
    assert path.stat().st_mode & 0o007 == 0


def test_rotated_file_is_left(tmp_path: Path) -> None:
    """A file that was renamed gets no more lines; they go to the path, without being told."""
    path = tmp_path / "e"
    log = LogFile(path)
    log.append([b"1\n"])

    path.rename(tmp_path / "e.1")
    log.append([b"2\n"])
    log.close()

    assert (tmp_path / "e.1").read_bytes() == b"1\n"
    assert path.read_bytes() == b"2\n"


def test_removed_file_is_made_again(tmp_path: Path) -> None:
    """Lines do not vanish into a file that somebody has deleted."""
    path = tmp_path / "e"
    log = LogFile(path)
    log.append([b"1\n"])

    path.unlink()
    log.append([b"2\n"])
    log.close()

    assert path.read_bytes() == b"2\n"


def test_writer_waits_for_the_lock_and_then_looks_again(tmp_path: Path) -> None:
    """While the file is locked for its rotation a writer waits, and then writes to the new one."""
    path = tmp_path / "e"
    log = LogFile(path)
    log.append([b"1\n"])
    rotator = os.open(path, os.O_RDONLY)
    fcntl.flock(rotator, fcntl.LOCK_EX)
    writer = threading.Thread(target=log.append, args=[[b"2\n"]])
    writer.start()

    path.rename(tmp_path / "e.1")
    os.close(rotator)
    writer.join()
    log.close()

    assert (tmp_path / "e.1").read_bytes() == b"1\n"
    assert path.read_bytes() == b"2\n"


@pytest.mark.parametrize(("room", "count"), [(0, 0), (1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (11, 2), (12, 3)])
def test_cut_write_is_taken_back_to_a_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, count: int
) -> None:
    """A disk with room for part of the lines keeps whole lines only, and says how many."""
    path = tmp_path / "e"
    path.write_bytes(b"before\n")
    write = os.write
    monkeypatch.setattr(log_file.os, "write", lambda descriptor, data: write(descriptor, data[:room]))
    log = LogFile(path)

    taken = log.append([b"aaa\n", b"bbb\n", b"ccc\n"])
    log.close()

    assert taken == count
    assert path.read_bytes() == b"before\n" + b"aaa\nbbb\nccc\n"[: count * 4]


def test_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails altogether is reported, and the next one works."""
    log = LogFile(tmp_path / "e")
    write = os.write

    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_file.os, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        log.append([b"1\n"])
    monkeypatch.setattr(log_file.os, "write", write)
    taken = log.append([b"1\n"])
    log.close()

    assert taken == 1
    assert (tmp_path / "e").read_bytes() == b"1\n"


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no locks lines are written all the same."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(log_file.fcntl, "flock", refuse)
    log = LogFile(tmp_path / "e")

    taken = log.append([b"1\n"])
    log.close()

    assert taken == 1


def test_pipe_gets_whole_lines() -> None:
    """Lines to standard output are written in pieces that end with a line and fit into a pipe's atomic write."""
    reader, writer = os.pipe()
    lines = [b"x" * 1_000 + b"\n" for _ in range(10)]

    taken = LogPipe(writer).append(lines)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()

    assert taken == 10
    assert data == b"".join(lines)


def test_pieces_for_a_pipe_are_atomic(monkeypatch: pytest.MonkeyPatch) -> None:
    """No piece is longer than a pipe takes at once, except for a single line that is."""
    pieces: list[bytes] = []

    def collect(_: int, data: bytes) -> int:
        pieces.append(data)
        return len(data)

    monkeypatch.setattr(log_file.os, "write", collect)
    lines = [b"x" * 1_500 + b"\n"] * 5 + [b"y" * 9_000 + b"\n", b"z\n"]

    LogPipe(99).append(lines)

    assert [len(piece) for piece in pieces] == [3_002, 3_002, 1_501, 9_001, 2]
    assert b"".join(pieces) == b"".join(lines)


def test_full_pipe_goes_on_in_the_middle_of_a_line() -> None:
    """A non-blocking pipe that is full takes the rest of its line first when it has room again."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    pipe = LogPipe(writer)
    lines = [b"%05d" % number + b"x" * 994 + b"\n" for number in range(200)]
    seen = b""

    taken = 0
    while taken < len(lines):
        try:
            taken += pipe.append(lines[taken:])
        except BlockingIOError:
            pass
        seen += os.read(reader, 10_000)
    os.set_blocking(writer, True)
    pipe.close()
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        seen += stream.read()

    assert seen == b"".join(lines)
