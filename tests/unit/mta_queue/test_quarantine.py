"""The quarantine: where damaged files go, and what is said about them."""

from pathlib import Path

import pytest

from mta.testing.memory_disk import MemoryDisk
from mta_queue import segment
from mta_queue.quarantine import INDEX_NAME, REASONS_MAX, Held, Quarantine, held, numbers_held

LOG = Path("/queue/3")
INSIDE = LOG / "quarantine"
NAME = segment.file_name(9)


def log_with(*numbers: int) -> tuple[MemoryDisk, Quarantine]:
    """A log with these segments, each with its number for contents."""
    disk = MemoryDisk()
    disk.make_directory(LOG)
    for number in numbers:
        disk.append(disk.create(LOG / segment.file_name(number)), 0, (b"%d" % number,))
    disk.sync_directory(LOG)
    return disk, Quarantine(LOG, disk, lambda: 1_700_000_000.0)


def test_take() -> None:
    """The file is there under its name with its bytes, and what is wrong with it is said in a line each."""
    disk, quarantine = log_with(9)
    quarantine.note(9, "one")
    quarantine.note(9, "two: and why")

    quarantine.take(9, quarantine.reasons_of(9))

    assert disk.contents(INSIDE / NAME) == b"9"
    assert disk.names(LOG) == ["quarantine"]
    when = "2023-11-14T22:13:20+00:00"
    assert held(disk, LOG) == [Held(f"quarantine/{NAME}", [f"{when} one", f"{when} two: and why"])]
    assert disk.contents(INSIDE / INDEX_NAME).startswith(b"Segment files that could not be read")
    quarantine.forget(9)
    assert quarantine.reasons_of(9) == []


def test_taken_already() -> None:
    """After a crash or an error in the middle of several the first ones are not missed."""
    disk, quarantine = log_with(9)
    quarantine.take(9, ["one"])

    quarantine.take(9, ["one"])

    assert [name for name, _ in held(disk, LOG)] == [f"quarantine/{NAME}"]


def test_index_grows() -> None:
    """Each file adds its lines, also of another life of the process."""
    disk, quarantine = log_with(9, 10)

    quarantine.take(9, ["one"])
    Quarantine(LOG, disk, lambda: 0.0).take(10, ["other"])

    assert [(name, len(reasons)) for name, reasons in held(disk, LOG)] == [
        (f"quarantine/{NAME}", 1),
        (f"quarantine/{segment.file_name(10)}", 1),
    ]


def test_reasons_are_bounded() -> None:
    """A file of which nothing is whole does not fill the disk a second time."""
    disk, quarantine = log_with(9)
    for at in range(1000):
        quarantine.note(9, f"at {at}")

    quarantine.take(9, quarantine.reasons_of(9))

    ((_, reasons),) = held(disk, LOG)
    assert len(reasons) == REASONS_MAX + 1
    assert reasons[-1].endswith("and more of the kind")


def test_a_file_that_comes_twice() -> None:
    """One that was put back and is taken again does not replace the first."""
    disk, quarantine = log_with(9)
    quarantine.take(9, ["one"])
    disk.append(disk.create(LOG / NAME), 0, (b"again",))

    quarantine.take(9, ["two"])

    assert [disk.contents(INSIDE / NAME), disk.contents(INSIDE / f"{NAME}.2")] == [b"9", b"again"]
    assert [name for name, _ in held(disk, LOG)] == [f"quarantine/{NAME}", f"quarantine/{NAME}.2"]


def test_what_cannot_be_written_about_it_does_not_matter() -> None:
    """On a full disk the file is kept without a word about it."""
    disk, quarantine = log_with(9)

    def full(operation: str, path: Path) -> None:
        if operation in ("create", "append"):
            raise OSError(28, "No space left on device")

    disk.on_call = full
    quarantine.take(9, ["one"])

    assert disk.contents(INSIDE / NAME) == b"9"


def test_what_cannot_be_moved_stays() -> None:
    """A file that the system does not let go is where it was, and the caller knows."""
    disk, quarantine = log_with(9)

    def refuse(operation: str, path: Path) -> None:
        if operation == "rename":
            raise OSError(5, "made up")

    disk.on_call = refuse
    with pytest.raises(OSError, match="made up"):
        quarantine.take(9, ["one"])

    assert disk.contents(LOG / NAME) == b"9"


def test_numbers_held() -> None:
    """The numbers of files that are set aside, also by older versions: none of them is given again."""
    disk, quarantine = log_with(9, 12)
    disk.create(LOG / (segment.file_name(7) + segment.ASIDE_SUFFIX))
    quarantine.take(9, ["one"])

    assert numbers_held(disk, LOG) == [7, 9]
    assert [name for name, _ in held(disk, LOG)] == [
        segment.file_name(7) + segment.ASIDE_SUFFIX,
        f"quarantine/{NAME}",
    ]


def test_after_a_power_loss() -> None:
    """What was taken is there when `take` has returned, and its name is gone when the log's directory is synced."""
    for seed in range(20):
        disk, quarantine = log_with(9)
        disk.random.seed(seed)
        disk.sync(disk.open(LOG / NAME))
        quarantine.take(9, ["one"])
        disk.sync_directory(LOG)

        disk.lose_power()

        assert [name for name, _ in held(disk, LOG)] == [f"quarantine/{NAME}"]
        assert NAME not in disk.names(LOG)
