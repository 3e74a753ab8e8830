"""Disks that are full, read-only, worn out, slow or gone: nothing accepted is lost, and it goes on by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from mta.testing.bad_disk import BadDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import segment
from mta_queue.store import Recovered, Store

DIRECTORY = Path("/queue/0")
MANY_S = 30


class Rig:
    """A store on a disk that a test makes bad."""

    def __init__(self, disk: BadDisk, **options: Any) -> None:
        self.loop = SteppedLoop()
        self.disk = disk
        options.setdefault("fates_wait_s", 0.0)
        self.store = Store(DIRECTORY, disk=disk, jobs=self.loop.jobs, **options)
        self.recovered: Recovered = self.store.open()
        self.store.start(cast(Any, self.loop))
        self.loop.settle()
        self.durable: list[int] = []
        self.failed: list[OSError] = []

    def append(self, item_id: str = "id", size_bytes: int = 100) -> int:
        return self.store.append(item_id, b"meta", 1, b"c" * size_bytes, self.durable.append, self.failed.append)

    def appended(self, item_id: str = "id", size_bytes: int = 100) -> int:
        """One that is durable when this returns."""
        seq = self.append(item_id, size_bytes)
        self.loop.settle()
        assert seq in self.durable
        return seq

    def again(self) -> dict[int, float]:
        """What waits after SIGKILL: seq -> when its only part is due."""
        self.disk.kill()
        self.disk.on_call = self.disk._judge
        return {seq: parts[0][1] for seq, parts in Rig(self.disk).recovered.waiting}


def segments(disk: BadDisk) -> int:
    """Files of segments."""
    return len(segment.numbers(disk.names(DIRECTORY)))


def fill(disk: BadDisk) -> None:
    disk.capacity_bytes = disk.used_bytes


def use_up_inodes(disk: BadDisk) -> None:
    disk.files_max = len(disk.paths())
    disk.broken = {"append"}  # so that a new file is needed


def make_read_only(disk: BadDisk) -> None:
    disk.is_read_only = True


def break_writes(disk: BadDisk) -> None:
    disk.broken = {"append"}


def break_syncs(disk: BadDisk) -> None:
    disk.broken = {"sync"}


def take_away(disk: BadDisk) -> None:
    disk.is_gone = True
    disk.broken = {"append"}


def mend(disk: BadDisk) -> None:
    disk.capacity_bytes, disk.files_max = 1 << 40, 1 << 30
    disk.is_read_only = disk.is_gone = False
    disk.broken = set()


FAULTS = [fill, use_up_inodes, make_read_only, break_writes, break_syncs, take_away]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_disk_refuses_new_mail_and_keeps_the_old(fault: Callable[[BadDisk], None]) -> None:
    """Whatever is wrong: no append is durable, fates of mail already in are kept, and all is well when it is over."""
    disk = BadDisk()
    rig = Rig(disk)
    old, sent, later = (rig.appended(name) for name in ("old", "sent", "later"))

    fault(disk)
    rig.append("refused")
    rig.store.finish(sent, (0,), b"delivered")
    rig.store.postpone(later, (0,), 900.0, b"try again")
    for _ in range(MANY_S):
        rig.loop.wait(1.1)
        assert rig.store.is_failing
        rig.append("refused too")
        rig.loop.settle()
    assert len(rig.failed) == MANY_S + 1
    files = segments(disk)
    mend(disk)
    rig.loop.wait(1.1)
    rig.loop.settle()

    assert not rig.store.is_failing
    assert files <= 4, "trying again does not leave a file each time"
    new = rig.appended("new")
    assert rig.again() == {old: 0.0, later: 900.0, new: 0.0}


def test_is_failing_until_the_disk_proved_itself() -> None:
    """A disk that refused twice is tried every second without any mail, and mail is let in only when that worked."""
    disk = BadDisk()
    rig = Rig(disk)
    fill(disk)
    rig.append("refused")
    rig.loop.settle()

    for _ in range(5):
        tries = disk.calls["create"]
        rig.loop.wait(1.1)
        assert rig.store.is_failing
        assert disk.calls["create"] == tries + 1
    mend(disk)
    rig.loop.wait(1.1)

    assert not rig.store.is_failing
    assert len(rig.failed) == 1


def test_full_in_the_middle_of_a_group() -> None:
    """Of a group for which there is no room all fail, though some would have fitted; none of them comes back."""
    disk = BadDisk()
    rig = Rig(disk)
    old = rig.appended("old")
    disk.capacity_bytes = disk.used_bytes + 5_500

    for _ in range(10):
        rig.append("half", 1_000)
    rig.loop.settle()
    failed = len(rig.failed)
    mend(disk)
    rig.loop.wait(1.1)

    assert failed == 10
    assert list(rig.again()) == [old]


def test_a_segment_whose_sync_failed_is_left_alone() -> None:
    """After EIO on sync nothing is written to the file or synced in it again, as if that could make it good."""
    disk = BadDisk()
    rig = Rig(disk)
    seq = rig.appended("old")
    rig.store.finish(seq, (0,), b"note")
    rig.loop.settle()
    before = len(disk.asked)
    break_syncs(disk)
    rig.append("refused")
    rig.loop.settle()
    bad = disk.asked.index(("sync", "0000000000000001.seg"), before)
    mend(disk)

    rig.loop.wait(1.1)
    for _ in range(3):
        rig.appended("new")

    after = [operation for operation, name in disk.asked[bad + 1 :] if name == "0000000000000001.seg"]
    assert set(after) <= {"unlink"}
    disk.lose_power()
    assert len(list(Rig(disk).recovered.waiting)) == 3


def test_the_directorys_entry_counts() -> None:
    """Nothing is acknowledged that lies in a file whose name could vanish, in a new segment or after a failure."""
    disk = BadDisk()
    rig = Rig(disk, segment_bytes_max=2_000)
    unsafe: set[str] = set()
    at = len(disk.asked)
    for round_number in range(40):
        if round_number % 10 == 5:
            disk.broken = {"sync"}
        rig.append("id", 900)
        rig.loop.turn()
        while rig.loop.waiting_jobs or rig.loop.ready:
            acknowledged = len(rig.durable)
            if not rig.loop.run_job():
                rig.loop.turn()
            for operation, name in disk.asked[at:]:
                if operation == "create":
                    unsafe.add(name)
                elif operation == "sync_directory":
                    unsafe.clear()
            at = len(disk.asked)
            assert len(rig.durable) == acknowledged or not unsafe
        mend(disk)
        rig.loop.wait(1.1)

    assert sum(operation == "create" for operation, _ in disk.asked) > 15
    assert 30 <= len(rig.durable) < 40


def test_fates_wait_in_memory_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk fails fates pile up in memory: at a bound the store says so, and no more when they are written."""
    monkeypatch.setattr("mta_queue.journal.FATES_WAITING_BYTES_MAX", 2_000)
    disk = BadDisk()
    rig = Rig(disk)
    seqs = [rig.appended() for _ in range(30)]
    break_writes(disk)
    told: list[bool] = []

    for seq in seqs:
        rig.store.finish(seq, (0,), b"n" * 100)
        rig.loop.settle()
        rig.loop.wait(1.1)
        told.append(rig.store.is_overdue)
    mend(disk)
    rig.loop.wait(1.1)

    assert (told[0], told[-1]) == (False, True)
    assert told == sorted(told)
    assert not rig.store.is_overdue
    assert rig.again() == {}


def test_a_slow_disk_keeps_the_loop_free() -> None:
    """While a sync takes long the loop goes on: what comes meanwhile is counted, and goes out as the next group."""
    disk = BadDisk()
    rig = Rig(disk)
    rig.append("first", 1_000)
    rig.loop.turn()

    for number in range(20):  # the disk's thread is not done
        rig.append(f"id-{number}", 1_000)
        rig.loop.turn()
    pending = rig.store.pending_bytes
    rig.loop.settle()

    assert pending > 21_000
    assert rig.store.pending_bytes == 0
    assert len(rig.durable) == 21
    assert rig.store.commits == 2


def test_a_directory_that_vanishes() -> None:
    """A queue whose directory is taken away puts nothing into a file without a name, and goes on when it is back."""
    disk = BadDisk()
    rig = Rig(disk)
    rig.appended("old")
    disk.is_gone = True

    with pytest.raises(FileNotFoundError):
        rig.store.free_bytes()
    rig.append("into nowhere")
    rig.loop.settle()
    failed = len(rig.failed)
    disk.is_gone = False
    rig.loop.wait(1.1)
    new = rig.appended("new")

    assert failed == 1
    assert new in rig.again()


def test_a_start_on_a_full_disk() -> None:
    """It comes up failing: what waits is found and may go, no mail is taken, and all is well when there is room."""
    disk = BadDisk()
    rig = Rig(disk)
    old, sent = rig.appended("old"), rig.appended("sent")
    disk.kill()
    disk.on_call = disk._judge
    fill(disk)

    again = Rig(disk)
    found = [seq for seq, _ in again.recovered.waiting]
    again.append("refused")
    again.store.finish(sent, (0,), b"delivered")
    again.loop.wait(1.1)
    was_failing, files = again.store.is_failing, segments(disk)
    mend(disk)
    again.loop.wait(1.1)
    new = again.appended("new")

    assert found == [old, sent]
    assert (was_failing, files, len(again.failed)) == (True, 1, 1)
    assert again.again() == {old: 0.0, new: 0.0}


def test_a_start_on_a_full_disk_makes_room() -> None:
    """Segments of which nothing is needed are deleted by a start that has no room for a new one."""
    disk = BadDisk()
    rig = Rig(disk, segment_bytes_max=2_000)
    for _ in range(6):
        rig.store.finish(rig.appended("id", 1_500), (0,), b"")
    rig.loop.settle()
    disk.kill()
    disk.on_call = disk._judge
    files = segments(disk)
    fill(disk)

    again = Rig(disk, segment_bytes_max=2_000)
    again.store.told(again.store.mark_position())
    again.loop.settle()
    again.loop.wait(1.1)

    assert segments(disk) < files
    assert not again.store.is_failing
