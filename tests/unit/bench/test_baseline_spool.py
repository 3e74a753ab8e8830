"""The baseline's spool: what is in it is whole, and what was not is gone."""

import errno
import os
from pathlib import Path

import pytest

from bench.baseline_spool import Spool

CONTENT = b"Subject: Hello\r\n\r\nOne.\nTwo.\r\n"


def test_what_was_written_is_read(tmp_path: Path):
    """Sender, recipients and every byte of the content, lone line feeds included."""
    spool = Spool(tmp_path, is_synced=True)
    path = spool.new_path()

    spool.add(path, "", ["a@x.test", "ü@y.test"], CONTENT)

    assert Spool.read(path) == ("", ["a@x.test", "ü@y.test"], CONTENT)


def test_a_message_is_synced_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One fsync a message where durability is asked for, of the complete file; none where it is not."""
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))

    for is_synced in (True, False):
        spool = Spool(tmp_path / str(is_synced), is_synced)
        path = spool.new_path()
        spool.add(path, "s@x.test", ["a@x.test"], CONTENT)

    assert sizes == [path.stat().st_size]


def test_no_two_messages_share_a_name(tmp_path: Path):
    """Neither of one spool nor of the next one in the same folder."""
    spools = [Spool(tmp_path, is_synced=False) for _ in range(3)]

    names = [spool.new_path() for spool in spools for _ in range(100)]

    assert len(set(names)) == 300


def test_a_new_process_finds_what_is_left(tmp_path: Path):
    """In the order it came, without what was finished."""
    spool = Spool(tmp_path, is_synced=True)
    paths = [spool.new_path() for _ in range(3)]
    for number, path in enumerate(paths):
        spool.add(path, "s@x.test", [f"r{number}@x.test"], CONTENT)
    paths[1].unlink()

    left = list(Spool(tmp_path, is_synced=True).left())

    assert [(item.recipients, item.content) for item in left] == [(["r0@x.test"], None), (["r2@x.test"], None)]


@pytest.mark.parametrize("size", [0, 5, 40, -1])
def test_a_file_that_is_not_complete_goes(tmp_path: Path, size: int):
    """Nobody was told 250 for it: wherever it was cut off, it is not taken for a message."""
    spool = Spool(tmp_path, is_synced=True)
    path = spool.new_path()
    spool.add(path, "s@x.test", ["a@x.test"], CONTENT)
    path.write_bytes(path.read_bytes()[:size])

    left = list(spool.left())

    assert left == []
    assert not path.exists()


def test_fewer_recipients_replace_the_file(tmp_path: Path):
    """Nothing else is left in the folder."""
    spool = Spool(tmp_path, is_synced=True)
    path = spool.new_path()
    spool.add(path, "s@x.test", ["a@x.test", "b@x.test"], CONTENT)

    spool.replace(path, "s@x.test", ["b@x.test"], CONTENT)

    assert Spool.read(path)[1] == ["b@x.test"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The error is the caller's, and no half a message is found later."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    spool = Spool(tmp_path, is_synced=True)

    with pytest.raises(OSError, match="No space"):
        spool.add(spool.new_path(), "s@x.test", ["a@x.test"], CONTENT)

    assert list(tmp_path.iterdir()) == []
