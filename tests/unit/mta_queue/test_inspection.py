"""Reading a log's files without its lock: whole, damaged, set aside, and changing while they are read."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any, cast

from mta.testing.memory_disk import MemoryDisk, MemoryFile
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import inspection, inventory, segment
from mta_queue.disk import OsDisk
from mta_queue.quarantine import Quarantine
from mta_queue.record import FILE_HEADER_BYTES
from mta_queue.store import Store

LOG = Path("/queue/3")


class ChangingDisk(MemoryDisk):
    """A disk whose files others change while they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.before_open: dict[str, Path] = {}
        """When a file of this name is opened, the other one is deleted first."""

    def open(self, path: Path, *, writable: bool = False) -> MemoryFile:
        if path.name in self.before_open:
            self.unlink(self.before_open.pop(path.name))
        return super().open(path, writable=writable)


def filled(disk: MemoryDisk, items: int, segment_bytes_max: int = 600) -> Store:
    """A log with one segment an item, still open."""
    loop = SteppedLoop()
    store = Store(LOG, disk=disk, segment_bytes_max=segment_bytes_max, jobs=loop.jobs)
    store.open()
    store.start(cast(Any, loop))
    for number in range(items):
        store.append(f"id-{number}", b"meta", 2, b"x" * 500, lambda seq: None, cast(Any, None))
        loop.settle()
    return store


def path_of(number: int) -> Path:
    return LOG / segment.file_name(number)


def test_deleted_before_it_is_read() -> None:
    """A segment that is gone when its turn comes is passed over."""
    disk = ChangingDisk()
    filled(disk, 3)
    disk.before_open = {path_of(2).name: path_of(2)}

    report = inspection.verify(disk, LOG)

    assert (report.segments, report.items, report.parts, report.problems) == (2, 2, 4, [])


def test_deleted_after_it_was_read() -> None:
    """What lay in a segment that is gone in the end is not counted: it ended while the others were read."""
    disk = ChangingDisk()
    filled(disk, 3)
    disk.before_open = {path_of(3).name: path_of(1)}

    report = inspection.verify(disk, LOG)

    assert (report.segments, report.items, report.parts, report.problems) == (3, 2, 4, [])


def test_being_written() -> None:
    """Wherever the segment that is being written ends at this moment, nothing is wrong."""
    disk = MemoryDisk()
    filled(disk, 3, segment_bytes_max=1 << 20)
    size = disk.size_bytes(disk.open(path_of(1)))

    for length in range(size - 1, -1, -1):
        if length < FILE_HEADER_BYTES:  # as it is before it is listed
            disk.unlink(LOG / inventory.NAME)
        disk.truncate(path_of(1), length)
        assert inspection.verify(disk, LOG).problems == []


def test_beside_a_store_that_writes_seals_and_deletes(tmp_path: Path) -> None:
    """However often it is looked at while segments come and go, all is sound."""
    log = tmp_path / "0"
    problems: list[str] = []

    async def work() -> int:
        loop = asyncio.get_running_loop()
        store = Store(log, disk=OsDisk(), segment_bytes_max=6000)
        store.open()
        store.start(loop)
        random = Random(7)
        durable: asyncio.Queue[int] = asyncio.Queue()

        def looks() -> None:
            for _ in range(20):
                problems.extend(inspection.verify(OsDisk(), log).problems)

        looking = asyncio.create_task(asyncio.to_thread(looks))
        while not looking.done() or store.segments_removed < 10:
            for _ in range(5):
                content = random.randbytes(random.choice((10, 300, 2000)))
                store.append("id", b"meta", 1, content, durable.put_nowait, cast(Any, None))
            for _ in range(5):
                seq = await durable.get()
                store.postpone(seq, (0,), 90.0, b"note")
                store.finish(seq, (0,), b"end")
            store.told(store.mark_position())
        await store.close()
        return store.segments_removed

    assert asyncio.run(work()) >= 10
    assert problems == []


def test_quarantine_is_told() -> None:
    """What was set aside is listed with its reason and is no problem."""
    disk = MemoryDisk()
    filled(disk, 2)
    disk.append(disk.create(path_of(9)), 0, (b"x",))
    Quarantine(LOG, disk, lambda: 0.0).take(9, ["it was bad"])

    report = inspection.verify(disk, LOG)

    ((name, reasons),) = report.quarantine
    assert name == f"quarantine/{segment.file_name(9)}"
    assert reasons == ["1970-01-01T00:00:00+00:00 it was bad"]
    assert report.problems == []


def test_progress() -> None:
    """Whoever waits hears of ever more bytes, up to all of them."""
    disk = MemoryDisk()
    filled(disk, 4)
    heard: list[int] = []

    report = inspection.verify(disk, LOG, heard.append)

    assert heard == sorted(heard)
    assert heard[-1] == report.file_bytes == inspection.size_bytes(disk, LOG)
