"""The disk that tests lose: it must be as cruel as a real one, and no crueller."""

from pathlib import Path

import pytest

from mta.testing.memory_disk import MemoryDisk, MemoryFile
from mta_queue.disk import LogLockedError

DIRECTORY = Path("/d")
PATH = DIRECTORY / "file"


def begun(seed: int = 0) -> tuple[MemoryDisk, MemoryFile]:
    """A disk with one file whose name and first bytes are on stable storage."""
    disk = MemoryDisk(seed)
    disk.make_directory(DIRECTORY)
    file = disk.create(PATH)
    disk.append(file, 0, (b"stable",))
    disk.sync(file)
    disk.sync_directory(DIRECTORY)
    return disk, file


def test_synced_is_kept() -> None:
    """What was synced, name and bytes, outlives every power loss."""
    for seed in range(20):
        disk, _ = begun(seed)

        disk.lose_power()

        assert disk.contents(PATH) == b"stable"


def test_unsynced_is_kept_lost_or_torn() -> None:
    """What was not synced may be there, be gone, be zeros, or be there in sectors."""
    outcomes = set()
    for seed in range(200):
        disk, file = begun(seed)
        disk.append(file, 6, (b"x" * 2000,))

        disk.lose_power()

        outcomes.add(disk.contents(PATH)[6:])
    assert b"x" * 2000 in outcomes
    assert b"" in outcomes
    assert bytes(2000) in outcomes
    assert len(outcomes) > 8


def test_unsynced_names_may_be_lost() -> None:
    """A file's name is on stable storage when its directory was synced, whatever became of its bytes."""
    found = set()
    for seed in range(40):
        disk, _ = begun(seed)
        file = disk.create(DIRECTORY / "new")
        disk.sync(file)
        disk.unlink(PATH)

        disk.lose_power()

        found.add(tuple(disk.names(DIRECTORY)))
    assert found == {(), ("file",), ("new",), ("file", "new")}


def test_rename_happens_or_not() -> None:
    """A rename that was not synced leaves the file under one of its names."""
    found = set()
    for seed in range(40):
        disk, _ = begun(seed)
        disk.rename(PATH, DIRECTORY / "other")

        disk.lose_power()

        found.add(tuple(disk.names(DIRECTORY)))
    assert found == {("file",), ("other",)}


def test_failed_sync_is_never_made_good() -> None:
    """After a sync that failed the next one succeeds and does not bring back what the first one lost."""
    lost = 0
    for seed in range(40):
        disk, file = begun(seed)
        disk.append(file, 6, (b"adrift",))
        disk.on_call = _fail_sync
        with pytest.raises(OSError, match="made up"):
            disk.sync(file)
        disk.on_call = lambda operation, path: None

        disk.sync(file)
        assert disk.contents(PATH) == b"stableadrift"
        assert disk.has_adrift
        disk.lose_power()

        lost += disk.contents(PATH) != b"stableadrift"
        assert not disk.has_adrift
    assert 0 < lost < 40


def _fail_sync(operation: str, path: Path) -> None:
    if operation == "sync":
        raise OSError(5, "made up")


def test_kill_loses_nothing_but_locks() -> None:
    """A killed process leaves all that it wrote, and nobody's lock."""
    disk, file = begun()
    disk.append(file, 6, (b" and more",))
    disk.lock(DIRECTORY / "LOCK")
    with pytest.raises(LogLockedError):
        disk.lock(DIRECTORY / "LOCK")

    disk.kill()

    assert disk.contents(PATH) == b"stable and more"
    disk.lock(DIRECTORY / "LOCK").close()
    disk.lock(DIRECTORY / "LOCK")


def test_failed_append_leaves_a_part() -> None:
    """Of a write that failed any first part may be in the file."""
    lengths = set()
    for seed in range(60):
        disk, file = begun(seed)

        def on_call(operation: str, path: Path) -> None:
            raise OSError(28, "made up")

        disk.on_call = on_call
        with pytest.raises(OSError, match="made up"):
            disk.append(file, 6, (b"12", b"34"))
        lengths.add(disk.contents(PATH)[6:])
    assert lengths == {b"", b"1", b"12", b"123", b"1234"}


def test_missing_files() -> None:
    """What is not there cannot be opened, listed or created twice."""
    disk, _ = begun()

    with pytest.raises(FileNotFoundError):
        disk.open(DIRECTORY / "none")
    with pytest.raises(FileNotFoundError):
        disk.names(Path("/none"))
    with pytest.raises(FileExistsError):
        disk.create(PATH)


def test_bit_rot_and_truncation_stay() -> None:
    """What a test changes behind the system's back is so for good."""
    disk, _ = begun()

    disk.change(PATH, 0, b"ST")
    disk.truncate(PATH, 4)
    disk.lose_power()

    assert disk.contents(PATH) == b"STab"


def test_same_seed_same_loss() -> None:
    """A crash is a seed: the same one loses the same bytes."""

    def loss(seed: int) -> bytes:
        disk, file = begun(seed)
        disk.append(file, 6, (b"y" * 5000,))
        disk.lose_power()
        return disk.contents(PATH)

    assert [loss(seed) for seed in range(10)] == [loss(seed) for seed in range(10)]
