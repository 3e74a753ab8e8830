"""The end of a log's life: what is told as clean is on stable storage, and still locked."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mta.testing.memory_disk import MemoryDisk
from mta_queue.disk import LogLockedError
from mta_queue.store import Store

LOG = Path("/queue/0")


class Closing:
    """A life that delivers one of two items, and ends."""

    def __init__(self, *, refused: str = "", times: int = 0) -> None:
        """`refused`: an operation that fails so many times, from the moment on at which the life is to end."""
        self.disk = MemoryDisk()
        self.clean = 0
        self.failures = 0
        self.sent = self.kept = 0
        self._refused, self._left = refused, times
        asyncio.run(self._live())

    async def _live(self) -> None:
        store = Store(LOG, disk=self.disk, fates_wait_s=0.0)
        store.open()
        store.start(asyncio.get_running_loop())
        self.sent, self.kept = [await self._appended(store) for _ in range(2)]
        store.finish(self.sent, (0,), b"delivered")
        while store.pending_bytes:  # noqa: ASYNC110 - nobody is told when a fate is written
            await asyncio.sleep(0)
        self.disk.on_call = self._judge
        await store.close(self._on_clean)
        self.failures = store.failures

    async def _appended(self, store: Store) -> int:
        durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        store.append("id", b"meta", 1, b"content", durable.set_result, durable.set_exception)
        return await durable

    def _judge(self, operation: str, path: Path) -> None:
        if operation == self._refused and self._left:
            self._left -= 1
            raise OSError(5, "Input/output error", str(path))

    def _on_clean(self) -> None:
        self.clean += 1
        with pytest.raises(LogLockedError):
            Store(LOG, disk=self.disk).open()

    def found(self, crash: Callable[[MemoryDisk], None]) -> list[int]:
        """What the next life finds."""
        crash(self.disk)
        return [seq for seq, _ in Store(LOG, disk=self.disk).open().waiting]


def test_a_clean_end_is_told_before_the_lock_is_gone() -> None:
    """Who hears of it can leave a mark that nobody else has overtaken."""
    life = Closing()

    assert (life.clean, life.failures) == (1, 0)
    assert life.found(MemoryDisk.lose_power) == [life.kept]


@pytest.mark.parametrize("operation", ["append", "sync"])
def test_a_segment_that_cannot_be_ended(operation: str) -> None:
    """It counts as a failure, and what had not been synced in it goes to another segment: the end is clean."""
    life = Closing(refused=operation, times=1)

    assert (life.clean, life.failures) == (1, 1)
    assert life.found(MemoryDisk.lose_power) == [life.kept]


@pytest.mark.parametrize("operation", ["append", "sync"])
def test_a_disk_that_takes_nothing_more(operation: str) -> None:
    """The end is not clean, and counts: what was delivered may be found again after a power loss."""
    life = Closing(refused=operation, times=1 << 30)

    assert life.clean == 0
    assert life.failures >= 2
    assert life.kept in life.found(MemoryDisk.kill)


def test_a_seal_alone_is_no_loss() -> None:
    """Where all had been synced before, a segment without its seal has lost nothing: the end is clean, and counts."""
    disk, counts = MemoryDisk(), list[int]()

    def full(operation: str, path: Path) -> None:
        if operation == "append":
            raise OSError(28, "No space left on device", str(path))

    async def live() -> None:
        store = Store(LOG, disk=disk)
        store.open()
        store.start(asyncio.get_running_loop())
        disk.on_call = full
        await store.close(lambda: counts.append(store.failures))

    asyncio.run(live())

    assert counts == [1]
