"""Notes on disk and items that cool: what is asked for comes back, wherever it lies at the moment."""

from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import cooling, record, segment
from mta_queue.store import Loaded, Store

DIRECTORY = Path("/queue/4")


class Rig:
    """A store on a memory disk."""

    def __init__(self, disk: MemoryDisk | None = None, **options: Any) -> None:
        self.loop = SteppedLoop()
        self.disk = disk or MemoryDisk()
        self.store = Store(DIRECTORY, disk=self.disk, jobs=self.loop.jobs, fates_wait_s=0.0, **options)
        self.recovered = self.store.open()
        self.store.start(cast(Any, self.loop))
        self.loop.settle()

    def put(self, parts: int = 1) -> int:
        durable: list[int] = []
        self.store.append("id", b"meta", parts, b"content", durable.append, _fail)
        self.loop.settle()
        return durable[0]

    def notes(self, seq: int) -> list[bytes]:
        loaded = self.store.load(seq)
        assert loaded is not None
        return [part.note for part in loaded.parts]

    def cool(self) -> None:
        """Everything has lived for a while, and nothing has happened since."""
        for _ in range(4):
            self.loop.wait(cooling.COOL_S)

    @property
    def hot(self) -> list[int]:
        return list(self.store._catalog.hot)


def _fail(error: OSError) -> None:
    raise error


def test_a_note_that_is_kept() -> None:
    """A new time without a note leaves each part the note that it has, tells nothing, and outlasts a restart."""
    rig = Rig()
    seq = rig.put(parts=3)
    rig.store.postpone(seq, (0,), 5.0, b"first")
    rig.store.postpone(seq, (1,), 6.0, b"second")

    rig.store.postpone(seq, (0, 1, 2), 9.0, None)
    rig.loop.settle()
    before = rig.notes(seq), rig.store.dues(seq)
    rig.disk.kill()
    again = Rig(rig.disk)

    assert before == ([b"first", b"second", b""], [(0, 9.0), (1, 9.0), (2, 9.0)])
    assert (again.notes(seq), again.store.dues(seq)) == before
    assert [one.note for one in again.recovered.untold] == [b"", b"first", b"second"]


def test_notes_leave_memory_when_they_are_safe() -> None:
    """An item that waits is an object until a sync has reached its note, in an idle log too; then it is read from disk,
    also when it was postponed again, in part, or finished in part."""
    rig = Rig()
    one, other = rig.put(), rig.put(parts=3)
    rig.store.postpone(one, (0,), 5.0, b"one")
    rig.store.postpone(other, (0, 1, 2), 6.0, b"other")
    rig.loop.settle()
    assert rig.hot == [one, other]

    rig.cool()

    assert rig.hot == []
    assert (rig.notes(one), rig.notes(other)) == ([b"one"], [b"other"] * 3)
    rig.store.postpone(other, (1,), 7.0, b"later")
    rig.store.finish(other, (0,), b"")
    assert rig.hot == [other]
    rig.cool()
    assert rig.hot == []
    assert rig.notes(other) == [b"later", b"other"]
    assert rig.store.dues(other) == [(1, 7.0), (2, 6.0)]
    rig.store.finish(other, (1, 2), b"")
    assert list(rig.store.seqs()) == [one]


def test_a_note_that_comes_to_rest_while_it_is_read() -> None:
    """Whatever happens to a note between the call and the answer, the answer has the last one."""
    rig = Rig()
    seqs = [rig.put() for _ in range(3)]
    rig.store.postpone(seqs[0], (0,), 5.0, b"safe in a moment")
    rig.store.postpone(seqs[1], (0,), 5.0, b"old")
    rig.cool()
    got: list[list[Loaded]] = []
    rig.store.postpone(seqs[2], (0,), 5.0, b"in memory")
    rig.loop.turn()

    rig.store.load_soon(seqs, got.append)
    rig.store.postpone(seqs[1], (0,), 6.0, b"new")
    rig.store.finish(rig.put(), (0,), b"", lambda: None)
    rig.cool()

    assert [[part.note for part in one.parts] for one in got[0]] == [[b"safe in a moment"], [b"new"], [b"in memory"]]


def test_packed_items_that_change_while_they_are_read() -> None:
    """Time, note and living parts are those of the moment when the answer comes; what ended is not among it."""
    rig = Rig()
    early, ended, in_part, noted, same = seqs = [rig.put(parts=2) for _ in range(5)]
    for seq in seqs:
        rig.store.postpone(seq, (0, 1), 5.0, b"old")
    rig.cool()
    assert not rig.hot
    got: list[list[Loaded]] = []

    rig.store.load_soon([777, *reversed(seqs)], got.append)
    rig.store.postpone(early, (0, 1), 3.0, None)
    rig.store.finish(ended, (0, 1), b"")
    rig.store.finish(in_part, (0,), b"")
    rig.store.postpone(noted, (1,), 7.0, b"new")
    rig.loop.settle()

    assert [(one.seq, one.item_id, one.meta, one.parts) for one in got[0]] == [
        (same, "id", b"meta", [(0, 5.0, b"old"), (1, 5.0, b"old")]),
        (noted, "id", b"meta", [(0, 5.0, b"old"), (1, 7.0, b"new")]),
        (in_part, "id", b"meta", [(1, 5.0, b"old")]),
        (early, "id", b"meta", [(0, 3.0, b"old"), (1, 3.0, b"old")]),
    ]
    assert rig.store.quarantined == 0


def test_a_damaged_note_does_not_hold_its_item_back() -> None:
    """What an item was deferred for is lost with its record; that it waits is not."""
    rig = Rig()
    seq = rig.put()
    rig.store.postpone(seq, (0,), 5.0, b"the note")
    rig.cool()
    path = DIRECTORY / segment.file_name(1)
    rig.disk.change(path, rig.disk.contents(path).index(b"the note"), b"THE")

    assert rig.notes(seq) == [b""]
    assert rig.store.dues(seq) == [(0, 5.0)]


def test_neighbours_are_read_together() -> None:
    """Items and notes that lie close to each other cost one visit to the disk."""
    rig = Rig()
    seqs = [rig.put() for _ in range(100)]
    for seq in seqs:
        rig.store.postpone(seq, (0,), 5.0, b"note")
    rig.cool()
    rig.disk.calls.clear()
    got: list[list[Loaded]] = []

    rig.store.load_soon(seqs, got.append)
    rig.loop.settle()

    assert [one.parts[0].note for one in got[0]] == [b"note"] * 100
    assert rig.disk.calls["read"] == 1


def test_what_is_new_cools() -> None:
    """An item that nobody touches becomes a row after a few seconds; nothing more happens in an idle log."""
    rig = Rig()
    seq = rig.put()
    assert rig.hot == [seq]

    rig.cool()
    calls = sum(rig.disk.calls.values())
    rig.cool()

    assert rig.hot == []
    assert sum(rig.disk.calls.values()) == calls
    assert rig.store._cooling._timer is None


def test_counts_of_bytes() -> None:
    """`living_bytes` are the records of what lives, `file_bytes` those of all files."""
    rig = Rig()
    one, other = rig.put(), rig.put()
    length = record.HEADER_BYTES + len(b"id" + b"meta" + b"content")
    assert rig.store.living_bytes == 2 * length

    rig.cool()
    rig.store.finish(one, (0,), b"")
    rig.loop.settle()

    assert rig.store.living_bytes == length
    assert rig.store.file_bytes == sum(
        len(rig.disk.contents(path)) for path in rig.disk.paths() if path.suffix == ".seg"
    )
    rig.disk.kill()
    again = Rig(rig.disk)
    assert again.store.living_bytes == length
    assert list(again.store.seqs()) == [other]


@pytest.mark.parametrize("seed", range(60))
def test_an_answer_that_took_several_rounds(seed: int) -> None:
    """However often items change while they are read, and whichever of them, the answer is what each says then."""
    random, rig = Random(seed), Rig()
    seqs = [rig.put(parts=2) for _ in range(6)]
    for seq in seqs:
        rig.store.postpone(seq, (0, 1), 5.0, b"old")
    rig.cool()
    got: list[list[Loaded]] = []
    wanted = random.sample(seqs, 4)
    now: list[Loaded | None] = []

    def done(found: list[Loaded]) -> None:
        got.append(found)
        now.extend(rig.store.load(seq) for seq in wanted)

    rig.store.load_soon(wanted, done)
    for change in range(30):
        rig.loop.run_job()
        if change < 20 and not got:
            seq, note = random.choice(seqs), b"new %d" % change
            match random.randrange(4):
                case 0:
                    rig.store.postpone(seq, random.choice([(0,), (0, 1)]), float(change), note)
                case 1:
                    rig.store.postpone(seq, (0, 1), float(change), None)
                case 2:
                    rig.store.finish(seq, (1,), b"")
                case 3:
                    rig.store.append("x", b"", 1, b"", lambda seq: None, _fail)
        rig.loop.turn()
    rig.loop.settle()

    assert got == [[one for one in now if one is not None]]
