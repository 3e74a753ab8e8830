"""The compactor at work: files stay small, and every item is what it was, whenever the process or the power ends."""

from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from mta.testing.bad_disk import BadDisk
from mta.testing.eager_copying import copying_all_the_time
from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue.catalog import Catalog
from mta_queue.compaction import FILE_FACTOR, SPARE_SEGMENTS, Pace
from mta_queue.copies import Copies
from mta_queue.copying import Round
from mta_queue.record import VERSION, FileHeader
from mta_queue.store import Recovered, Store

DIRECTORY = Path("/queue/0")
SEGMENT_BYTES = 20_000
FATE_BYTES = 100


class Rig:
    """A store in virtual time, and what its items should be."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.loop = SteppedLoop()
        self.disk = disk or MemoryDisk()
        self.store = Store(
            DIRECTORY, disk=self.disk, jobs=self.loop.jobs, segment_bytes_max=SEGMENT_BYTES, fates_wait_s=0.0
        )
        self.recovered: Recovered = self.store.open()
        self.store.start(cast(Any, self.loop))
        self.loop.settle()
        self.contents: dict[int, bytes] = {}
        self.states: dict[int, dict[int, tuple[float, bytes]]] = {}
        self.random = Random(1)
        self.written = 0

    def append(self, size_bytes: int = 1_000, parts: int = 1) -> int:
        content = self.random.randbytes(size_bytes)
        durable: list[int] = []
        failed: list[OSError] = []
        seq = self.store.append("id", b"meta", parts, content, durable.append, failed.append)
        self.loop.settle()
        assert durable == [seq]
        self.contents[seq] = content
        self.states[seq] = dict.fromkeys(range(parts), (0.0, b""))
        self.written += size_bytes + FATE_BYTES
        return seq

    def postpone(self, seq: int, part: int, due_s: float, note: bytes | None) -> None:
        self.store.postpone(seq, (part,), due_s, note)
        kept = self.states[seq][part][1] if note is None else note
        self.states[seq][part] = (due_s, kept)
        self.written += FATE_BYTES

    def finish(self, seq: int, part: int = 0) -> None:
        self.store.finish(seq, (part,), b"delivered")
        del self.states[seq][part]
        if not self.states[seq]:
            del self.states[seq], self.contents[seq]
        self.written += FATE_BYTES

    def pass_time(self, seconds: float) -> None:
        """All is told, and what waits for a time has its turns."""
        self.loop.settle()
        self.store.told(self.store.mark_position())
        for _ in range(int(seconds / 0.5)):
            self.loop.wait(0.5)

    def again(self, *, power: bool = False) -> "Rig":
        """What the next start finds, after SIGKILL or a power loss."""
        if power:
            self.disk.lose_power()
        else:
            self.disk.kill()
        other = Rig(self.disk)
        other.contents, other.states = self.contents, self.states
        return other

    def check(self) -> None:
        """All that should live does, with its content, times and notes; nothing else does."""
        assert list(self.store.seqs()) == sorted(self.states)
        found: dict[int, bytes | None] = {}
        for seq, parts in self.states.items():
            loaded = self.store.load(seq)
            assert loaded is not None
            assert (loaded.item_id, loaded.meta) == ("id", b"meta")
            assert {part: (due_s, note) for part, due_s, note in loaded.parts} == parts
            self.store.content_soon(seq, lambda content, seq=seq: found.update({seq: content}))
        self.loop.settle()
        assert found == self.contents

    @property
    def needed_bytes(self) -> int:
        """The living, and what their fates say."""
        fates = sum(len(parts) * FATE_BYTES for parts in self.states.values())
        return self.store.living_bytes + fates

    def check_bound(self) -> None:
        assert self.store.file_bytes <= FILE_FACTOR * self.needed_bytes + SPARE_SEGMENTS * SEGMENT_BYTES


def test_days_of_mail_of_which_some_waits() -> None:
    """Most mail goes at once, some waits for days and is tried again and again: the files stay within the bound."""
    rig = Rig()
    random = Random(5)
    waiting: list[int] = []
    for day in range(150):
        for _ in range(20):
            seq = rig.append()
            if random.random() < 0.05:
                rig.postpone(seq, 0, day + 1.0, b"try again")
                waiting.append(seq)
            else:
                rig.finish(seq)
        for seq in list(waiting):
            if random.random() < 0.3:
                rig.postpone(seq, 0, day + 2.0, b"and again on day %d" % day)
            elif random.random() < 0.03:
                rig.finish(seq)
                waiting.remove(seq)
        rig.pass_time(20)
        rig.check_bound()

    assert 0 < rig.store.copied_bytes <= rig.written / 5
    rig.check()
    rig.again().check()
    rig.again(power=True).check()


@pytest.mark.parametrize("note", [b"try again", None])
def test_fates_alone_do_not_fill_the_disk(note: bytes | None) -> None:
    """The same items postponed ten thousand times, or told another time: what was overtaken goes."""
    rig = Rig()
    seqs = [rig.append(400, parts=2) for _ in range(20)]
    for seq in seqs:
        rig.postpone(seq, 1, 1.0, b"the first note")

    for number in range(500):
        for seq in seqs:
            rig.postpone(seq, number % 2, float(number), note)
        rig.pass_time(5)
        rig.check_bound()

    rig.check()
    rig.again().check()


@pytest.mark.parametrize("note", [b"try again", b""])
def test_a_backlog_does_not_hold_the_mail_that_passes(note: bytes) -> None:
    """Fates of items that lie in full segments keep no segment: they are moved, and the backlog is not copied."""
    rig = Rig()
    backlog = [rig.append(parts=3) for _ in range(200)]

    for number in range(200):
        for _ in range(15):
            rig.finish(rig.append())
        seq = backlog[number]
        rig.postpone(seq, 0, 9.0, note)
        rig.finish(seq, 2)
        if number % 4 == 0:
            rig.finish(seq, 0)
            rig.finish(seq, 1)
        rig.pass_time(10)
        rig.check_bound()

    assert 0 < rig.store.copied_bytes <= rig.written / 10
    rig.check()
    rig.again().check()


def test_copying_ends() -> None:
    """With nothing to do, nothing is copied: no round follows from another."""
    rig = Rig()
    for number in range(300):
        seq = rig.append()
        if number % 20:
            rig.finish(seq)
    rig.pass_time(200)
    copied, calls = rig.store.copied_bytes, rig.disk.calls["create"]

    rig.pass_time(2_000)

    assert copied > 0
    assert (rig.store.copied_bytes, rig.disk.calls["create"]) == (copied, calls)


def half_empty(disk: MemoryDisk | None = None) -> Rig:
    """Segments that are worth copying."""
    rig = Rig(disk)
    for number in range(200):
        seq = rig.append()
        if number % 20:
            rig.finish(seq)
        else:
            rig.postpone(seq, 0, 7.0, b"note")
    rig.loop.settle()
    return rig


def test_a_round_that_the_disk_refuses() -> None:
    """Whichever call of a round fails, nothing is lost; the round is given up and made anew later."""
    failed: set[str] = set()
    for number in range(1, 14):
        rig = half_empty()
        calls = 0
        is_named = False

        def refuse(operation: str, path: Path, number: int = number) -> None:
            nonlocal calls, is_named
            if path.name.endswith(".copying") or (is_named and operation == "sync_directory"):
                calls += 1
                is_named = operation == "rename"
                if calls == number:
                    failed.add(operation)
                    raise OSError(5, "made up")

        rig.disk.on_call = refuse
        rig.pass_time(30)
        rig.check()
        rig.pass_time(200)

        rig.check()
        rig.check_bound()
        assert not [path for path in rig.disk.paths() if path.name.endswith(".copying")]
        rig.again(power=number % 2 == 0).check()

    assert failed == {"create", "append", "sync", "rename", "sync_directory"}


def test_nothing_is_copied_while_space_is_out() -> None:
    """On a disk without room for the copies nothing is begun, and all is made good when there is room."""
    disk = BadDisk()
    rig = half_empty(disk)
    disk.capacity_bytes = disk.used_bytes + 50_000

    rig.pass_time(100)
    copied = rig.store.copied_bytes
    disk.capacity_bytes = 1 << 40
    rig.pass_time(100)

    assert copied == 0
    assert rig.store.copied_bytes > 0
    rig.check_bound()


def test_new_mail_does_not_wait_for_copies() -> None:
    """A slice at a time is read, written and synced, and between two the disk has rest."""
    rig = half_empty()
    longest = 0
    append = rig.disk.append

    def watched(file: Any, offset: int, buffers: Any) -> None:
        nonlocal longest
        if file.path.name.endswith(".copying"):
            longest = max(longest, sum(map(len, buffers)))
        append(file, offset, buffers)

    rig.disk.append = watched  # type: ignore[method-assign]
    rig.pass_time(100)

    assert 0 < longest <= 300_000
    assert rig.store.copied_bytes > 0


def test_what_ends_while_a_round_rests_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended an item that was copied stays as long as the copy may get its name, however long that takes."""
    rig = half_empty()
    monkeypatch.setattr(
        Pace, "rest_s", lambda self, copied, took_s, commit_s, pressing: 60.0 if copied > 1_000 else 0.0
    )
    while rig.store.copied_bytes < 1_000:
        rig.pass_time(0.5)

    for seq in list(rig.states)[:5]:
        rig.finish(seq)
    for _ in range(60):
        rig.finish(rig.append())
    rig.pass_time(20)
    assert any(path.name.endswith(".copying") for path in rig.disk.paths())
    rig.pass_time(200)

    rig.check()
    rig.again().check()


def test_what_is_half_done_is_removed_at_the_start() -> None:
    """A copy without a name of its own is not read and does not stay."""
    rig = half_empty()

    def stop(operation: str, path: Path) -> None:
        if operation == "rename":
            raise OSError(5, "made up")

    rig.disk.on_call = stop
    while not any(path.name.endswith(".copying") for path in rig.disk.paths()):
        rig.pass_time(0.5)
    again = rig.again()

    again.check()
    assert not [path for path in again.disk.paths() if path.name.endswith(".copying")]


def test_parts_that_wait_together_keep_notes_of_their_own() -> None:
    """However often an item is copied: its parts may be due at one time and have been deferred for several reasons."""
    with copying_all_the_time():
        rig = Rig()
        seq = rig.append(parts=4)
        for part, note in enumerate((b"first", b"second", b"first")):
            rig.postpone(seq, part, 5.0, note)
        for part in range(4):
            rig.postpone(seq, part, 9.0, None)

        for _ in range(2):
            for _ in range(3):
                rig.finish(rig.append(SEGMENT_BYTES))
                rig.pass_time(10)
            assert rig.store.copied_bytes > 2 * len(rig.contents[seq])
            rig.check()
            rig = rig.again()
            rig.check()


def test_fates_not_written_yet_are_about_what_lies_behind_a_copy() -> None:
    """When a copy goes whose original still lies elsewhere, fates of its item hold that, written or not."""
    catalog = Catalog()
    for number in (1, 2):
        catalog.begin_segment(number, 7)
        catalog.close_segment(number)
    victim = catalog.segments[2]
    victim.note_copy(5)
    victim.refs.add(1)
    copies = Copies(MemoryDisk(), DIRECTORY, FileHeader(VERSION, 7, 0, 3, 1, 0), {}, synced=True)
    current = Round(catalog, [victim], copies, lambda: 1)

    home = catalog.begin_segment(3, 7)
    current.hold()

    assert {1, 3} <= current.let_go(home)


def test_a_segment_that_was_given_up_is_tried_again() -> None:
    """What others needed of a segment is asked anew after a while: when they are gone, it goes."""
    rig = Rig()
    backlog = [rig.append(300) for _ in range(216)]
    for number, seq in enumerate(backlog):
        if number % 18 == 0:
            rig.append()
        rig.postpone(seq, 0, 9.0, b"n" * 900)
        rig.loop.settle()
    rig.pass_time(60)
    kept = rig.store.segments

    for seq in backlog:
        rig.finish(seq)
    rig.pass_time(1_500)

    assert kept > 12
    rig.check()
    rig.check_bound()
    rig.again().check()


def test_what_was_planned_for_this_turn_is_not_begun_after_a_stop():
    """A stop may come between a plan and its turn."""
    rig = Rig()
    compactor, begun = rig.store._compactor, list[str]()

    compactor._later(0.0, lambda: begun.append("at once"))
    compactor.stop()
    rig.loop.settle()

    assert begun == []
