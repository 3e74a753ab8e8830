"""The mark of a clean stop: found once, and only where it was left."""

from pathlib import Path

from mta import stop_mark
from mta.testing.memory_disk import MemoryDisk

LOG = Path("/queue/0")


def test_a_clean_stop_is_found_once() -> None:
    """The life after it must leave its own."""
    disk = MemoryDisk()
    disk.make_directory(LOG)

    stop_mark.leave(disk, LOG)

    assert stop_mark.take(disk, LOG)
    assert not stop_mark.take(disk, LOG)


def test_a_mark_that_was_taken_does_not_come_back() -> None:
    """A power loss after the start that took it is a crash, and must look like one."""
    disk = MemoryDisk()
    disk.make_directory(LOG)
    stop_mark.leave(disk, LOG)
    stop_mark.take(disk, LOG)

    disk.lose_power()

    assert not stop_mark.take(disk, LOG)


def test_a_mark_that_was_left_outlives_the_machine() -> None:
    """Who stopped the server and pulled the plug is told nothing of a crash."""
    disk = MemoryDisk()
    disk.make_directory(LOG)
    stop_mark.leave(disk, LOG)

    disk.lose_power()

    assert stop_mark.take(disk, LOG)


def test_a_mark_that_is_there_already() -> None:
    """A stop that is asked for twice, or a folder that was put back from a backup, is no error."""
    disk = MemoryDisk()
    disk.make_directory(LOG)
    stop_mark.leave(disk, LOG)

    stop_mark.leave(disk, LOG)

    assert stop_mark.take(disk, LOG)
