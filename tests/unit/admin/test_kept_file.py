"""The files that suspensions and firings outlive a restart in."""

import os
from pathlib import Path

import pytest

from mta.admin import kept_file, suspension_file
from mta.admin.kept_file import KeptFileError
from mta.model.selection import Selection
from mta.reporting.questions import Suspension

ONE = Suspension("s1", Selection(sender="*@shop.test"), 1.5, 7.5, "why — 日本", "kim")
OTHER = Suspension("s2", Selection(all=True), 2.0, 9.0)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """In its order; nothing as well."""
    path = tmp_path / "suspensions.json"

    for suspensions in ([ONE, OTHER], [], [OTHER]):
        kept_file.save(path, suspensions)
        assert suspension_file.load(path) == suspensions

    assert os.listdir(tmp_path) == ["suspensions.json"]


def test_no_file_is_no_suspension(tmp_path: Path) -> None:
    """As on the first day."""
    assert suspension_file.load(tmp_path / "suspensions.json") == []


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1]", b'[{"id":"s1"}]', b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_understood_is_no_empty_file(tmp_path: Path, content: bytes) -> None:
    """Mail that was stopped would go out; the sentence names the file and what to do."""
    path = tmp_path / "suspensions.json"
    path.write_bytes(content)

    with pytest.raises(KeptFileError, match=f"{path} cannot be read: .*remove it to suspend nothing"):
        suspension_file.load(path)


def test_every_cut_of_a_file_is_noticed(tmp_path: Path) -> None:
    """Whatever part of it is there."""
    path = tmp_path / "suspensions.json"
    kept_file.save(path, [ONE, OTHER])
    whole = path.read_bytes()

    for end in range(len(whole.rstrip())):
        path.write_bytes(whole[:end])
        with pytest.raises(KeptFileError):
            suspension_file.load(path)


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    """It cannot be read."""
    with pytest.raises(KeptFileError):
        suspension_file.load(tmp_path)


def test_a_write_that_fails_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing half beside it."""
    path = tmp_path / "suspensions.json"
    kept_file.save(path, [ONE])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept_file.save(path, [ONE, OTHER])
    monkeypatch.undo()

    assert suspension_file.load(path) == [ONE]
    assert os.listdir(tmp_path) == ["suspensions.json"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents first, then the name, then the folder: a power cut at any step leaves the old or the new."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    kept_file.save(tmp_path / "suspensions.json", [ONE])

    assert steps == ["sync file", "rename", "sync folder"]
