"""Rotation of the event log."""

import gzip
import threading
from pathlib import Path

import pytest

from mta.reporting.log_file import LogFile
from mta.reporting.rotate import Rotator


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.name: gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for file in sorted(folder.iterdir())
    }


def test_small_file_stays(tmp_path: Path) -> None:
    """Below its size the log is left alone; a log that does not exist yet, too."""
    path = tmp_path / "e"
    rotator = Rotator(path, size_bytes_max=10, keep=3, compress=False)

    before = rotator.tick()
    path.write_bytes(b"123456789")
    small = rotator.tick()

    assert not before
    assert not small
    assert contents(tmp_path) == {"e": b"123456789"}


@pytest.mark.parametrize(("compress", "suffix"), [(False, ""), (True, ".gz")])
def test_old_files_are_shifted_and_the_oldest_removed(tmp_path: Path, compress: bool, suffix: str) -> None:
    """Each rotation gives every old file the next number; beyond `keep` they go."""
    path = tmp_path / "e"
    rotator = Rotator(path, size_bytes_max=1, keep=3, compress=compress)

    for number in range(5):
        path.write_bytes(b"log %d" % number)
        rotated = rotator.tick()

        assert rotated

    assert contents(tmp_path) == {f"e.1{suffix}": b"log 4", f"e.2{suffix}": b"log 3", f"e.3{suffix}": b"log 2"}


def test_nothing_is_kept(tmp_path: Path) -> None:
    """With `keep = 0` the log begins anew."""
    path = tmp_path / "e"
    path.write_bytes(b"log")

    Rotator(path, size_bytes_max=1, keep=0, compress=True).tick()

    assert contents(tmp_path) == {}


def test_compression_that_was_switched_on_later(tmp_path: Path) -> None:
    """Old files that are still plain are compressed as well; compressed ones stay when it is switched off."""
    path = tmp_path / "e"
    path.write_bytes(b"a")
    Rotator(path, size_bytes_max=1, keep=9, compress=False).tick()
    path.write_bytes(b"b")
    Rotator(path, size_bytes_max=1, keep=9, compress=True).tick()
    path.write_bytes(b"c")

    Rotator(path, size_bytes_max=1, keep=9, compress=False).tick()

    assert contents(tmp_path) == {"e.1": b"c", "e.2.gz": b"b", "e.3.gz": b"a"}


def test_interrupted_compression_is_tidied(tmp_path: Path) -> None:
    """Half a compressed file is thrown away and made again; a plain one beside its finished copy goes."""
    path = tmp_path / "e"
    path.write_bytes(b"new")
    (tmp_path / "e.1").write_bytes(b"one")
    (tmp_path / "e.1.gz.tmp").write_bytes(b"half")
    (tmp_path / "e.2").write_bytes(b"two")
    (tmp_path / "e.2.gz").write_bytes(gzip.compress(b"two"))

    Rotator(path, size_bytes_max=1, keep=9, compress=True).tick()

    assert contents(tmp_path) == {"e.1.gz": b"new", "e.2.gz": b"one", "e.3.gz": b"two"}


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    """What only looks like an old log of ours stays."""
    path = tmp_path / "e"
    others = {"e.0": b"x", "e.txt": b"x", "e.1.bak": b"x", "xe.1": b"x", "e.01": b"x"}
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
    path.write_bytes(b"log")

    Rotator(path, size_bytes_max=1, keep=1, compress=False).tick()

    assert contents(tmp_path) == others | {"e.1": b"log"}


def test_writers_lose_nothing_to_rotation(tmp_path: Path) -> None:
    """Four writers and a rotation after every few lines: each line is in exactly one file, whole, in its order."""
    path = tmp_path / "e"
    path.touch()

    def write(worker: int) -> None:
        log = LogFile(path)
        for number in range(100):
            log.append([b"%d %d\n" % (worker, number)])
        log.close()

    writers = [threading.Thread(target=write, args=[worker]) for worker in range(4)]
    rotator = Rotator(path, size_bytes_max=200, keep=1_000, compress=True)
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        rotator.tick()
    for writer in writers:
        writer.join()

    found = contents(tmp_path)
    newest = found.pop("e", b"")
    old = sorted(found, key=lambda name: -int(name.split(".")[1]))
    lines = b"".join([*(found[name] for name in old), newest]).decode().splitlines()
    for worker in range(4):
        numbers = [int(line.split()[1]) for line in lines if line.startswith(f"{worker} ")]
        assert numbers == list(range(100))
