"""Visits to the disk: what is read together, what is left out, and what the queue says from memory alone."""

from pathlib import Path
from typing import Any, cast

import pytest

from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import cooling, segment
from mta_queue.store import Loaded, Store
from mta_queue.visit import GAP_BYTES_MAX, RUN_BYTES_MAX, Piece, runs

DIRECTORY = Path("/queue/4")


class Rig:
    """A store on a memory disk that has nothing in the system's memory."""

    def __init__(self) -> None:
        self.loop = SteppedLoop()
        self.disk = MemoryDisk()
        self.disk.is_cached = False
        self.store = Store(DIRECTORY, disk=self.disk, jobs=self.loop.jobs, fates_wait_s=0.0)
        self.store.open()
        self.store.start(cast(Any, self.loop))
        self.loop.settle()

    def put(self, content: bytes = b"content", meta: bytes = b"meta", parts: int = 1) -> int:
        durable: list[int] = []
        self.store.append("id", meta, parts, content, durable.append, _fail)
        self.loop.settle()
        return durable[0]

    def cool(self) -> None:
        """Everything has lived for a while, and nothing has happened since."""
        for _ in range(4):
            self.loop.wait(cooling.COOL_S)

    def contents(self, *seqs: int, bytes_max: int = 1 << 30) -> list[bytes | None]:
        got: list[list[bytes | None]] = []
        self.store.contents_soon(seqs, bytes_max, got.append)
        assert not got, "not in this turn"
        self.loop.settle()
        return got[0]

    def change(self, content: bytes) -> None:
        """These bytes are damaged."""
        path = DIRECTORY / segment.file_name(1)
        self.disk.change(path, self.disk.contents(path).index(content), b"?")


def _fail(error: OSError) -> None:
    raise error


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_contents_of_neighbours(rig: Rig) -> None:
    """They cost one visit, hot or packed, and come in the order asked for, empty ones too."""
    seqs = [rig.put(b"%d" % number * number) for number in range(40)]
    rig.cool()
    seqs += [rig.put(b"%d" % number * number) for number in range(40, 50)]
    wanted = [*reversed(range(50)), 7]
    rig.disk.calls.clear()

    found = rig.contents(*(seqs[number] for number in wanted))

    assert found == [b"%d" % number * number for number in wanted]
    assert rig.disk.calls["read"] == 1


def test_no_more_contents_than_there_is_room_for(rig: Rig) -> None:
    """As many of the first as fit, and one in any case."""
    seqs = [rig.put(b"x" * 100) for _ in range(5)]

    assert [len(rig.contents(*seqs, bytes_max=room)) for room in (-1, 0, 100, 199, 250, 300, 10_000)] == [
        1, 1, 1, 1, 2, 3, 5,
    ]  # fmt: skip


def test_contents_that_are_not_to_be_had(rig: Rig) -> None:
    """Those that do not live or are damaged are None in their places; only damage is reported."""
    first, gone, damaged, last = (rig.put(name) for name in (b"first", b"gone", b"damaged", b"last"))
    rig.store.finish(gone, (0,), b"")
    rig.change(b"damaged")

    assert rig.contents(777, first, gone, damaged, last) == [None, b"first", None, None, b"last"]
    assert rig.store.quarantined == 1
    assert rig.contents(777) == [None]
    assert rig.contents() == []


def test_contents_that_end_while_they_are_read(rig: Rig) -> None:
    """What was asked for is answered."""
    seqs = [rig.put(b"%d" % number) for number in range(3)]
    got: list[list[bytes | None]] = []
    rig.store.contents_soon(seqs, 1000, got.append)

    rig.store.finish(seqs[1], (0,), b"")
    rig.loop.settle()

    assert got == [[b"0", b"1", b"2"]]


def test_what_is_not_wanted_is_not_read(rig: Rig) -> None:
    """It is asked of each item that lives, hot or packed; of those that are not wanted no note is read."""
    seqs = [rig.put(meta=b"meta %d" % number) for number in range(20)]
    rig.put(b"x" * GAP_BYTES_MAX)  # the notes lie beyond it
    for seq in seqs:
        rig.store.postpone(seq, (0,), 5.0, b"note of %d" % seq)
    rig.cool()
    hot = [rig.put(meta=b"meta %d" % number) for number in (20, 21)]
    asked: list[tuple[int, bytes]] = []
    got: list[list[Loaded]] = []

    def load(*wanted: bytes) -> int:
        def wants(seq: int, meta: bytes) -> bool:
            asked.append((seq, meta))
            return meta in wanted

        rig.disk.calls.clear()
        rig.store.load_soon([*hot, *seqs], got.append, wants)
        rig.loop.settle()
        return rig.disk.calls["read"]

    assert load(b"meta 3", b"meta 21", b"meta 7") == 2 + 1  # of the hot ones lie elsewhere
    assert load() == 2

    everything = [(seq, b"meta %d" % number) for number, seq in enumerate([*seqs, *hot])]
    assert sorted(asked) == sorted(2 * everything)
    assert [[(one.seq, [part.note for part in one.parts]) for one in items] for items in got] == [
        [(hot[1], [b""]), (seqs[3], [b"note of %d" % seqs[3]]), (seqs[7], [b"note of %d" % seqs[7]])],
        [],
    ]


def test_a_damaged_item_is_asked_of_nobody(rig: Rig) -> None:
    """It is reported as where everything is wanted."""
    seq = rig.put(meta=b"the meta")
    rig.cool()
    rig.change(b"the meta")
    got: list[list[Loaded]] = []

    rig.store.load_soon([seq], got.append, lambda seq, meta: pytest.fail("asked"))
    rig.loop.settle()

    assert got == [[]]
    assert rig.store.quarantined == 1


def test_stands_from_memory(rig: Rig) -> None:
    """When items are due, which parts live and that there is a note; None of what is hot, in parts, or gone."""
    plain, noted, in_part, several, gone = (rig.put(parts=3) for _ in range(5))
    rig.store.postpone(plain, (0, 1, 2), 4.0, None)
    rig.store.postpone(noted, (0, 1, 2), 5.0, b"note")
    rig.store.finish(noted, (1,), b"")
    rig.store.postpone(in_part, (1,), 6.0, b"note")
    rig.store.postpone(several, (0, 1, 2), 7.0, b"later")
    rig.store.finish(gone, (0, 1, 2), b"")
    rig.cool()
    hot = rig.put()

    first, second, third, fourth, *others = rig.store.stands([plain, noted, in_part, several, gone, hot, 777])

    assert first == (4.0, 0b111, 0, 0)
    assert second is not None
    assert second[:3] == (5.0, 0b101, 1)
    assert third is None
    assert fourth is not None
    assert fourth[:3] == (7.0, 0b111, 1)
    assert fourth[3] > second[3]  # said later, so it lies behind
    assert others == [None, None, None]
    assert rig.disk.calls["read"] == 0


def test_runs() -> None:
    """Each piece is in one run, in its place; none reaches over a gap, into another segment or, of several, too far."""
    far, most = 75 + GAP_BYTES_MAX + 1, RUN_BYTES_MAX
    pieces: list[Piece] = [
        (2, 0, 10, 0), (1, 50, 10, 1), (1, 40, 10, 2), (1, far, 5, 3), (1, 45, 30, 4),
        (1, far + 5 + GAP_BYTES_MAX, 1, 9), (3, 0, most - 1, 5), (3, most - 1, 1, 6), (3, most, 1, 7),
        (4, 0, most * 2, 8),
    ]  # fmt: skip

    found = [([piece[3] for piece in run], begin, end) for run, begin, end in runs(pieces)]

    assert found == [
        ([2, 4, 1], 40, 75),
        ([3, 9], far, far + 6 + GAP_BYTES_MAX),
        ([0], 0, 10),
        ([5, 6], 0, most),
        ([7], most, most + 1),
        ([8], 0, most * 2),
    ]
