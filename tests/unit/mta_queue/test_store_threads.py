"""The store with a real loop, real threads and, where it says so, a real disk."""

import asyncio
from pathlib import Path

import pytest

from mta.testing.memory_disk import MemoryDisk
from mta_queue import segment
from mta_queue.disk import OsDisk
from mta_queue.store import Loaded, Store

DIRECTORY = Path("/queue/4")


def _fail(error: OSError) -> None:
    raise error


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "queue" / "0"


async def test_real_loop_threads_and_disk(directory: Path) -> None:
    """With real threads on a real disk everything put in is found again after a clean end, and the log is unlocked."""
    store = Store(directory, disk=OsDisk(), segment_bytes_max=100_000)
    store.open()
    loop = asyncio.get_running_loop()
    store.start(loop)
    durable: list[int] = []
    all_durable = asyncio.Event()

    def on_durable(seq: int) -> None:
        durable.append(seq)
        store.finish(seq, (0,), b"note of %d" % seq)
        if len(durable) == 200:
            all_durable.set()

    for number in range(200):
        store.append(f"id-{number}", b"meta", 2, b"c" * 2000, on_durable, _fail)
        if number % 20 == 0:
            await asyncio.sleep(0)
    await all_durable.wait()
    contents: asyncio.Future[bytes | None] = loop.create_future()
    store.content_soon(durable[7], contents.set_result)
    loaded: asyncio.Future[list[Loaded]] = loop.create_future()
    store.load_soon(durable, loaded.set_result)

    assert await contents == b"c" * 2000
    assert len(await loaded) == 200
    assert store.content_now(durable[-1]) in (b"c" * 2000, None)
    store.told(store.mark_position())
    assert store.free_bytes() > 0
    assert (store.items, store.syncs > 0, store.segments > 1) == (200, True, True)
    await store.close()

    again = Store(directory, disk=OsDisk())
    recovered = again.open()
    assert list(recovered.waiting) == [(seq, ((1, 0.0),)) for seq in durable]
    assert (recovered.untold, recovered.set_aside) == ([], [])
    await again.close()


async def test_close_writes_what_waits(directory: Path) -> None:
    """Closing waits for what was appended a moment ago, and a clean end leaves nothing to verify."""
    store = Store(directory, disk=OsDisk())
    store.open()
    store.start(asyncio.get_running_loop())
    durable: list[int] = []
    seq = store.append("id", b"meta", 1, b"content", durable.append, _fail)

    await store.close()

    assert durable == [seq]
    disk = OsDisk()
    assert segment.SegmentReader(disk, disk.open(directory / segment.file_name(1))).is_sealed
    assert [one for one, _ in Store(directory, disk=disk).open().waiting] == [seq]


async def test_close_on_a_dead_disk() -> None:
    """Closing ends even where the disk takes nothing any more."""
    disk = MemoryDisk()
    store = Store(DIRECTORY, disk=disk)
    store.open()
    store.start(asyncio.get_running_loop())
    failed: list[OSError] = []

    def on_call(operation: str, path: Path) -> None:
        raise OSError(5, "made up")

    disk.on_call = on_call
    store.append("id", b"meta", 1, b"content", lambda seq: None, failed.append)

    await store.close()

    assert len(failed) == 1
    assert not disk.locks
