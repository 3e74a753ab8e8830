"""The inventory: a segment that somebody took is known from one that the server removed."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.testing.bad_disk import BadDisk
from mta.testing.memory_disk import MemoryDisk
from mta.testing.recording_disk import NOTHING
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import inspection, inventory, record, segment
from mta_queue.inventory import NAME, Listing, compare, decode, encode, is_current, listing_of
from mta_queue.record import FileHeader
from mta_queue.store import Recovered, Store

LOG = Path("/queue/3")
LOST = "missing, and lost with all that waited in it"
NUMBERS = st.sets(st.integers(1, 60)).map(sorted)


class Rig:
    """A store with a segment an item."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        self.loop = SteppedLoop()
        self.store = Store(LOG, disk=disk, jobs=self.loop.jobs, segment_bytes_max=10, fates_wait_s=0.0)
        self.recovered: Recovered = self.store.open()
        self.store.start(cast(Any, self.loop))
        self.loop.settle()

    def put(self) -> int:
        durable: list[int] = []
        self.store.append("id", b"meta", 1, b"content", durable.append, cast(Any, None))
        self.loop.settle()
        return durable[0]

    def tell(self) -> None:
        self.store.told(self.store.mark_position())
        self.loop.settle()

    def again(self) -> "Rig":
        """After SIGKILL."""
        self.disk.kill()
        return Rig(self.disk)

    @property
    def listed(self) -> list[int]:
        found = inventory.read(self.disk, LOG)
        return [*found.numbers()] if found is not None else []


def listing(numbers: list[int], end: int = 99, first: int = 100) -> Listing:
    """These must be there, of one life or, from 30 on, of another."""
    return listing_of(7, 3, first, [(number, 7 if number < 30 else 8) for number in numbers], end)


def take(disk: MemoryDisk, number: int) -> None:
    """Somebody deletes a segment."""
    disk.unlink(LOG / segment.file_name(number))
    disk.sync_directory(LOG)


@given(numbers=NUMBERS, end=st.integers(60, 99))
def test_a_list_is_read_as_it_was_written(numbers: list[int], end: int) -> None:
    """All that was listed is, and nothing else."""
    written = listing(numbers, end)

    assert decode(encode(written)) == written
    assert [*written.numbers()] == numbers
    markers = {number: 7 if number < 30 else 8 for number in numbers}
    assert {number: written.marker_of(number) for number in range(99) if written.marker_of(number)} == markers


@given(numbers=NUMBERS, at=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.integers(0, 10_000))
def test_damage_makes_no_other_list(numbers: list[int], at: int, bit: int, cut: int) -> None:
    """With a bit turned or the end cut off there is no list: nothing is known, and nothing wrong."""
    data = encode(listing(numbers))
    turned = bytearray(data)
    turned[at % len(data)] ^= 1 << bit

    assert decode(bytes(turned)) is None or turned[10:12] != data[10:12]
    assert decode(data[: cut % len(data)]) is None


@pytest.mark.parametrize(
    ("listed", "end", "there", "known"),
    [
        ([2, 3], 3, {2, 3}, ("all there", [])),
        ([2, 3], 3, {2, 3, 4}, ("all there", [])),
        ([2, 3], 3, {2, 3, 5}, ("not known", [])),
        ([2, 5], 6, {2, 5, 7}, ("all there", [])),
        ([2, 3, 5], 5, {3}, ("missing", [2, 5])),
        ([], 5, set[int](), ("all there", [])),
    ],
)
def test_what_is_known(listed: list[int], end: int, there: set[int], known: tuple[str, list[int]]) -> None:
    """What is listed must be there; of numbers behind the list nothing is known; what lies between may be gone."""
    assert compare(listing(listed, end), there) == known
    assert compare(None, there) == ("not known", [])


@pytest.mark.parametrize(("number", "marker", "current"), [(8, 1, True), (9, 7, True), (9, 1, False), (12, 1, False)])
def test_another_program_had_the_log(number: int, marker: int, current: bool) -> None:
    """A segment that a life began which keeps no list makes the list worthless."""
    left = listing([4, 8], 8, first=9)

    assert is_current(left, FileHeader(record.VERSION, marker, 3, number, 1, 0)) is current
    assert is_current(left, None)
    assert not is_current(None, None)


def test_a_segment_that_somebody_took() -> None:
    """The start says which is missing, for certain and once; `verify` says it before; all else goes on."""
    rig = Rig(MemoryDisk())
    first, second, third = rig.put(), rig.put(), rig.put()
    rig.tell()
    listed = rig.listed
    take(rig.disk, 2)
    said = f"{segment.file_name(2)}: {LOST}"

    problems = inspection.verify(rig.disk, LOG).problems
    again = rig.again()
    after = again.again()

    assert {1, 2, 3} <= {*listed}
    assert problems == [said]
    assert again.recovered.set_aside == [said]
    assert again.store.quarantined == 1
    assert [seq for seq, _ in again.recovered.waiting] == [first, third]
    assert second not in again.store.seqs()
    assert after.recovered.set_aside == []


def test_what_the_server_removed_is_not_missing() -> None:
    """Whatever goes is off the list before."""
    rig = Rig(MemoryDisk())
    seqs = [rig.put() for _ in range(4)]
    rig.tell()
    assert rig.listed == [1, 2, 3, 4]

    for seq in seqs[1:3]:
        rig.store.finish(seq, (0,), b"")
    rig.put()
    rig.tell()
    again = rig.again()

    assert rig.store.segments_removed >= 2
    assert again.recovered.set_aside == []
    assert again.listed == segment.numbers(rig.disk.names(LOG))


def test_a_disk_that_takes_no_list() -> None:
    """Where none can be written what is there goes first, so that segments can go; it is written when that works."""
    disk = BadDisk()
    rig = Rig(disk)
    for seq in [rig.put(), rig.put()]:
        rig.store.finish(seq, (0,), b"")
    rig.put()
    judge = disk.on_call

    def full(operation: str, path: Path) -> None:
        judge(operation, path)
        if operation == "create" and path.name.startswith(NAME):
            raise OSError(28, "No space left on device", str(path))

    disk.on_call = full
    rig.tell()
    removed, listed = rig.store.segments_removed, NAME in disk.names(LOG)
    disk.on_call = judge
    rig.put()
    rig.tell()

    assert removed >= 2
    assert not listed
    assert rig.listed == segment.numbers(disk.names(LOG))[:-1]  # the last was begun for what was told of these


def test_a_list_that_is_not_safe_and_stays() -> None:
    """Where no list can be written and the old one does not go either, no segment does."""
    disk = BadDisk()
    rig = Rig(disk)
    rig.store.finish(rig.put(), (0,), b"")
    rig.put()
    judge = disk.on_call

    def full(operation: str, path: Path) -> None:
        judge(operation, path)
        if operation in ("create", "unlink") and path.name.startswith(NAME):
            raise OSError(5, "Input/output error", str(path))

    disk.on_call = full
    rig.tell()
    before = rig.store.segments_removed
    disk.on_call = judge
    rig.tell()

    assert (before, rig.store.segments_removed) == (0, 1)


def test_a_life_that_ends_lists_everything() -> None:
    """After a clean stop no segment can be taken unseen, the last one neither."""
    disk = MemoryDisk()

    async def live() -> None:
        store = Store(LOG, disk=disk, segment_bytes_max=10)
        store.open()
        store.start(asyncio.get_running_loop())
        for _ in range(3):
            durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            store.append("id", b"meta", 1, b"content", durable.set_result, durable.set_exception)
            await durable
        await store.close()

    asyncio.run(live())
    last = max(segment.numbers(disk.names(LOG)))
    take(disk, last)

    assert Rig(disk).recovered.set_aside == [f"{segment.file_name(last)}: {LOST}"]


@pytest.mark.parametrize(("refused", "listed"), [(2, [1, 3]), (3, [1, 2, 4])])
def test_a_segment_that_the_disk_refused(refused: int, listed: list[int]) -> None:
    """One that failed at its beginning, a life's first or a later one, and could not be removed is not listed, though
    newer ones are: a power loss may leave it empty, and nothing is lost with it."""
    disk = MemoryDisk()
    old = Rig(disk).put()
    disk.kill()
    path = LOG / segment.file_name(refused)

    def refuse(operation: str, where: Path) -> None:
        if where == path and operation in ("append", "unlink"):
            raise OSError(28, "No space left on device", str(where))

    async def live() -> None:
        store = Store(LOG, disk=disk, segment_bytes_max=10)
        store.open()
        store.start(asyncio.get_running_loop())
        for _ in range(2):
            ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            store.append("id", b"meta", 1, b"content", ended.set_result, ended.set_result)
            await ended
        store.finish(old, (0,), b"")
        await store.close()

    disk.on_call = refuse
    asyncio.run(live())
    left = inventory.read(disk, LOG)
    disk.lose_power(NOTHING.loss(Random(0)))

    assert left is not None
    assert [*left.numbers()] == listed
    assert disk.contents(path) == b""
    assert inspection.verify(disk, LOG).problems == []
    assert Rig(disk).recovered.set_aside == []


def test_a_log_that_is_to_be_removed() -> None:
    """Once it is disowned its segments may go one by one: nobody takes them for lost."""
    rig = Rig(MemoryDisk())
    rig.put()
    rig.put()

    rig.store.disown()
    take(rig.disk, 1)
    rig.disk.lose_power()

    assert Rig(rig.disk).recovered.set_aside == []


def test_a_log_of_an_older_version() -> None:
    """It has no list: a gap in its numbers means nothing by itself, and from the first start on it has one."""
    rig = Rig(MemoryDisk())
    for _ in range(3):
        rig.put()
    rig.disk.unlink(LOG / NAME)
    take(rig.disk, 2)

    again = rig.again()

    assert again.recovered.set_aside == []
    assert again.listed == [1, 3, 4]


def test_a_beginning_that_is_lost() -> None:
    """A segment without its header and first record is read with the marker that is listed, whichever others go."""
    rig = Rig(MemoryDisk())
    other, kept = rig.put(), 0
    rig.store.append("id", b"meta", 1, b"content", lambda seq: None, cast(Any, None))
    kept = rig.put()
    rig.tell()
    path = LOG / segment.file_name(2)
    rig.disk.change(path, 0, bytes([0x55]) * (record.FILE_HEADER_BYTES + record.HEADER_BYTES))

    again = rig.again()
    again.store.finish(other, (0,), b"")
    again.tell()
    last = again.again()

    assert kept in again.store.seqs()
    assert 1 not in segment.numbers(rig.disk.names(LOG))
    assert [seq for seq, _ in last.recovered.waiting] == [kept]
