"""Group commit, turn by turn, and what happens when the disk refuses."""

from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from mta.testing.memory_disk import Loss, MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import committer, inspection, journal, record
from mta_queue.journal import CROWD, GATHER_S
from mta_queue.record import Found
from mta_queue.store import Recovered, Store

DIRECTORY = Path("/queue/0")


class Rig:
    """A store on a memory disk, with what its callbacks were told."""

    def __init__(self, disk: MemoryDisk | None = None, **options: Any) -> None:
        self.loop = SteppedLoop()
        self.disk = disk or MemoryDisk()
        options.setdefault("fates_wait_s", 0.0)
        self.store = Store(DIRECTORY, disk=self.disk, jobs=self.loop.jobs, **options)
        self.recovered: Recovered = self.store.open()
        self.store.start(cast(Any, self.loop))
        self.loop.settle()
        self.disk.calls.clear()
        self.durable: list[int] = []
        self.failed: list[OSError] = []

    def append(self, item_id: str = "id", content: bytes = b"content") -> int:
        return self.store.append(item_id, b"meta", 1, content, self.durable.append, self.failed.append)

    def fail(self, *operations: str, times: int = 1) -> None:
        """The next calls of these operations fail, as often as `times`."""
        left = times

        def on_call(operation: str, path: Path) -> None:
            nonlocal left
            if operation in operations and left > 0:
                left -= 1
                raise OSError(28, "No space left on device")

        self.disk.on_call = on_call

    def again(self) -> "Rig":
        """The process was killed and started again."""
        self.disk.kill()
        return Rig(self.disk)

    def kinds(self) -> list[tuple[str, str]]:
        """(file, kind) of everything that is on the disk."""
        return [
            (met.name[14:16], record.KIND_NAMES[met.what.record.kind])
            for met in inspection.records(self.disk, DIRECTORY)
            if isinstance(met.what, Found)
        ]


def test_one_turn_is_one_group() -> None:
    """What is appended in one turn of the loop costs one write and one sync."""
    rig = Rig()
    seqs = [rig.append() for _ in range(50)]

    rig.loop.settle()

    assert rig.durable == seqs
    assert (rig.disk.calls["append"], rig.disk.calls["sync"]) == (1, 1)
    assert rig.store.commits == 1


def test_nothing_is_durable_before_its_sync() -> None:
    """Nobody is told anything before the disk has said so."""
    rig = Rig()
    rig.append()

    rig.loop.turn()
    assert rig.durable == []
    rig.loop.run_job()
    assert rig.durable == []
    rig.loop.turn()
    assert len(rig.durable) == 1


def test_what_comes_meanwhile_goes_together() -> None:
    """Appends that arrive while the disk is busy are one group, the next."""
    rig = Rig()
    rig.append()
    rig.loop.turn()
    for _ in range(10):
        rig.append()
        rig.loop.turn()

    rig.loop.settle()

    assert len(rig.durable) == 11
    assert rig.store.commits == 2


def test_next_group_is_under_way_before_the_callbacks() -> None:
    """The disk has its next work before those who waited for the last are told."""
    rig = Rig()
    waiting_jobs: list[int] = []
    rig.store.append("a", b"", 1, b"", lambda seq: waiting_jobs.append(len(rig.loop.waiting_jobs)), rig.failed.append)
    rig.loop.turn()
    rig.append("b")

    rig.loop.run_job()
    rig.loop.turn()

    assert waiting_jobs == [1]


def test_fates_alone_are_not_synced() -> None:
    """Fates are written each turn and synced with the next group of appends."""
    rig = Rig()
    seq = rig.append()
    rig.loop.settle()
    rig.disk.calls.clear()

    rig.store.finish(seq, (0,), b"note")
    rig.loop.settle()
    assert (rig.disk.calls["append"], rig.disk.calls["sync"]) == (1, 0)
    rig.append()
    rig.loop.settle()
    assert (rig.disk.calls["append"], rig.disk.calls["sync"]) == (2, 1)


def test_fates_wait_a_moment_for_appends() -> None:
    """Fates alone wait five milliseconds, so that they can ride with appends; then they go by themselves."""
    rig = Rig(fates_wait_s=0.005)
    seq = rig.append()
    rig.loop.settle()
    rig.disk.calls.clear()

    rig.store.finish(seq, (0,), b"note")
    rig.loop.settle()
    waited = rig.disk.calls["append"]
    rig.loop.wait(0.005)

    assert (waited, rig.disk.calls["append"]) == (0, 1)


def test_fates_ride_with_the_next_append() -> None:
    """An append does not wait for the fates' moment: both go at once, in one write."""
    rig = Rig(fates_wait_s=0.005)
    seq = rig.append()
    rig.loop.settle()
    rig.disk.calls.clear()

    rig.store.finish(seq, (0,), b"note")
    rig.append()
    rig.loop.settle()

    assert (rig.disk.calls["append"], rig.disk.calls["sync"]) == (1, 1)


def test_a_crowd_gathers() -> None:
    """Behind a group of many the next one begins four milliseconds after it; behind a group of few at once."""
    rig = Rig()
    for _ in range(CROWD):
        rig.append()
    rig.loop.settle()
    rig.disk.calls.clear()

    rig.append()
    rig.loop.settle()
    gathered = rig.disk.calls["sync"]
    rig.append()
    rig.loop.wait(GATHER_S)
    synced = rig.disk.calls["sync"]
    rig.append()
    rig.loop.settle()

    assert (gathered, synced, rig.disk.calls["sync"]) == (0, 1, 2)


def test_a_crowd_that_is_complete_waits_no_longer() -> None:
    """A group that is as large as the last one begins before its four milliseconds are over."""
    rig = Rig()
    for _ in range(CROWD):
        rig.append()
    rig.loop.settle()
    rig.disk.calls.clear()

    for _ in range(CROWD - 1):
        rig.append()
        rig.loop.settle()
    incomplete = rig.disk.calls["sync"]
    rig.append()
    rig.loop.settle()

    assert (incomplete, rig.disk.calls["sync"]) == (0, 1)


def test_many_unsynced_fates_are_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would have to be written again after a failure does not grow without bound."""
    monkeypatch.setattr(committer, "FATES_UNSYNCED_BYTES_MAX", 500)
    rig = Rig()
    seqs = [rig.append() for _ in range(10)]
    rig.loop.settle()
    rig.disk.calls.clear()

    for seq in seqs:
        rig.store.finish(seq, (0,), b"n" * 50)
        rig.loop.settle()

    assert 1 <= rig.disk.calls["sync"] <= 3


def test_waiting_for_a_fate_syncs_it() -> None:
    """Somebody who must know that a fate is on stable storage is told when it is."""
    rig = Rig()
    moved, forgotten = rig.append(), rig.append()
    rig.loop.settle()
    rig.disk.calls.clear()
    told: list[str] = []

    rig.store.move_out(moved, (0,), lambda: told.append("moved"))
    rig.store.forget(forgotten, lambda: told.append("forgotten"))
    assert told == []
    rig.loop.settle()

    assert told == ["moved", "forgotten"]
    assert rig.disk.calls["sync"] == 1


def test_durability_os_never_syncs_a_group() -> None:
    """With durability "os" an append is durable when it is written."""
    rig = Rig(durability="os")
    rig.append()

    rig.loop.settle()

    assert len(rig.durable) == 1
    assert rig.disk.calls["sync"] == 0


def test_new_segment_when_the_old_is_full() -> None:
    """A full segment is sealed, and the first append of the next is durable only with the directory's entry."""
    rig = Rig(segment_bytes_max=1000)
    rig.append(content=b"c" * 700)
    rig.loop.settle()
    order: list[str] = []
    rig.disk.on_call = lambda operation, path: order.append(operation)

    rig.append(content=b"c" * 700)
    rig.loop.settle()

    assert order == ["append", "sync", "append", "sync", "create", "append", "sync", "sync_directory"]
    assert rig.kinds() == [("01", "item"), ("01", "index"), ("01", "sealed"), ("02", "item")]


def test_group_larger_than_a_segment() -> None:
    """One item may be larger than a segment should be; it does not leave an empty one behind."""
    rig = Rig(segment_bytes_max=1000)

    rig.append(content=b"c" * 5000)
    rig.loop.settle()

    assert rig.kinds() == [("01", "item")]


def test_large_groups_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits goes out in groups of bounded size, in order."""
    monkeypatch.setattr(journal, "GROUP_BYTES_MAX", 1000)
    rig = Rig()
    seqs = [rig.append(content=b"c" * 300) for _ in range(7)]
    big = rig.append(content=b"c" * 5000)

    rig.loop.settle()

    assert rig.durable == [*seqs, big]
    assert rig.store.commits == 5
    assert rig.store.pending_bytes == 0


def test_pending_bytes() -> None:
    """What is not durable yet is counted, so that the door can hold back."""
    rig = Rig()
    assert rig.store.pending_bytes == 0

    rig.append(content=b"c" * 1000)
    assert rig.store.pending_bytes > 1000
    rig.loop.turn()
    assert rig.store.pending_bytes > 1000
    rig.loop.settle()
    assert rig.store.pending_bytes == 0


@pytest.mark.parametrize("operation", ["append", "sync"])
def test_failed_group(operation: str) -> None:
    """After a failed write or sync the appends have failed, the segment is abandoned, and nothing failed comes back."""
    rig = Rig()
    before = rig.append("before")
    rig.loop.settle()
    rig.fail(operation)

    rig.append("failed")
    rig.loop.settle()
    after = rig.append("after")
    rig.loop.settle()

    assert [error.errno for error in rig.failed] == [28]
    assert rig.durable == [before, after]
    assert rig.store.failures == 1
    assert not rig.store.is_failing
    assert rig.store.items == 2
    assert rig.kinds()[-2:] == [("02", "forgotten"), ("02", "item")]
    assert [item_id for _, item_id in rig.again().recovered.recent] == ["before", "after"]


def test_fates_of_a_failed_sync_are_written_again() -> None:
    """Fates written since the last good sync may be lost with a failed one: the next segment has them again."""
    rig = Rig()
    first, second = rig.append("first"), rig.append("second")
    rig.loop.settle()
    rig.store.finish(first, (0,), b"one")
    rig.loop.settle()
    rig.fail("sync")

    rig.store.finish(second, (0,), b"two")
    rig.append("failed")
    rig.loop.settle()

    assert [kind for name, kind in rig.kinds() if name == "02"] == ["finished", "finished", "forgotten"]
    rig.disk.lose_power()
    assert list(Rig(rig.disk).recovered.waiting) == []


def test_failed_before_the_group_was_written() -> None:
    """When not even a new segment can be begun nothing is to be forgotten, and the disk is left alone for a second."""
    rig = Rig(segment_bytes_max=100)
    rig.append("a")
    rig.loop.settle()
    rig.fail("create", times=99)

    rig.append("b")
    rig.loop.settle()
    creates = rig.disk.calls["create"]
    rig.append("c")
    rig.append("d")
    rig.loop.settle()

    assert len(rig.failed) == 3
    assert rig.store.is_failing
    assert rig.disk.calls["create"] == creates
    assert rig.store.pending_bytes == 0


def test_failed_new_segment_is_gone_for_good() -> None:
    """A new segment whose name could not be made safe does not come back with what a client was told to send again."""
    rig = Rig(segment_bytes_max=100)
    first = rig.append("first")
    rig.loop.settle()
    rig.fail("sync_directory")

    rig.append("failed")
    rig.loop.settle()
    rig.disk.lose_power(CreatedOnly(Random(1)))

    assert len(rig.failed) == 1
    assert [seq for seq, _ in Rig(rig.disk).recovered.waiting] == [first]


class CreatedOnly(Loss):
    """Of the unsynced changes of the directory the first one happened, and every write."""

    is_first = True

    def keeps_name(self) -> bool:
        was_first, self.is_first = self.is_first, False
        return was_first


def test_goes_on_by_itself() -> None:
    """When the disk works again fates that waited in memory are written without anybody asking."""
    rig = Rig()
    moved, done = rig.append("moved"), rig.append("done")
    rig.loop.settle()
    rig.fail("append", "create", times=2)
    told: list[str] = []

    rig.store.move_out(moved, (0,), lambda: told.append("moved"))
    rig.store.finish(done, (0,), b"note")
    rig.loop.settle()
    assert told == []
    assert rig.store.is_failing
    rig.loop.wait(0.5)
    assert rig.store.is_failing
    rig.loop.wait(0.6)

    assert told == ["moved"]
    assert not rig.store.is_failing
    assert list(rig.again().recovered.waiting) == []


def test_fates_while_the_disk_fails() -> None:
    """Fates that come while the disk fails are kept, in order, and appends work again afterwards."""
    rig = Rig()
    seqs = [rig.append(f"id-{number}") for number in range(4)]
    rig.loop.settle()
    rig.fail("append", "create", times=4)
    for seq in seqs[:3]:
        rig.store.postpone(seq, (0,), float(seq), b"early")
        rig.store.postpone(seq, (0,), float(seq) + 500, b"late")
        rig.loop.settle()
        rig.loop.wait(1.1)

    rig.append("after")
    rig.loop.settle()
    recovered = rig.again().recovered

    assert len(rig.durable) == 5
    assert [due_s for _, ((_, due_s),) in recovered.waiting] == [
        seqs[0] + 500,
        seqs[1] + 500,
        seqs[2] + 500,
        0.0,
        0.0,
    ]


def test_failed_seal_does_not_fail_the_group() -> None:
    """A segment that cannot be ended properly is abandoned; what was to go into the next one goes there."""
    rig = Rig(segment_bytes_max=200)
    first = rig.append("first")
    rig.loop.settle()
    rig.store.finish(first, (0,), b"note")
    rig.loop.settle()
    rig.fail("sync")

    second = rig.append("second", b"c" * 100)
    rig.loop.settle()

    assert rig.durable == [first, second]
    rig.disk.lose_power()
    assert [seq for seq, _ in Rig(rig.disk).recovered.waiting] == [second]


def test_a_callback_that_fails() -> None:
    """One waiter's mistake is reported and does not keep the others waiting."""
    rig = Rig()
    rig.loop.is_strict = False

    def mistake(seq: int) -> None:
        raise ZeroDivisionError

    rig.store.append("bad", b"", 1, b"", mistake, rig.failed.append)
    seq = rig.append("good")
    rig.loop.settle()

    assert rig.durable == [seq]
    assert [type(context["exception"]) for context in rig.loop.reported] == [ZeroDivisionError]
