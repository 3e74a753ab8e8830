"""Orphan logs: there were more workers once. Their mail moves to the workers that own it now, then the log goes.

A worker drains the logs whose number is its own modulo the number of workers. What a crash left arriving in one is
settled by asking first; and a log is removed only when all that it had to tell is in the event log.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import NamedTuple

from mta.handoff.mover import Mover
from mta.reporting.event_log import EventLog
from mta_queue.store import Recovered, Store

RETRY_S = 0.5  # a disk that is full tells nobody when it is not


def orphans_of(directory: Path, me: int, workers: int) -> list[Path]:
    """The logs in the queue's directory that this worker has to empty."""
    numbers = [int(path.name) for path in directory.iterdir() if path.name.isascii() and path.name.isdigit()]
    return [directory / str(number) for number in sorted(numbers) if number >= workers and number % workers == me]


class _Orphan(NamedTuple):
    log: int
    store: Store
    found: Recovered
    is_settled: asyncio.Event


class OrphanLogs:
    """One worker's share of them."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, mover: Mover, event_log: EventLog, say: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._mover = mover
        self._event_log = event_log
        self._say = say
        self._orphans: list[_Orphan] = []
        self._retirements: list[asyncio.Task[None]] = []

    async def open(
        self,
        directories: Sequence[Path],
        store_of: Callable[[Path], Store],
        open_store: Callable[[Store], Awaitable[Recovered]],
    ) -> None:
        """Lock and read them; raises what `open_store` raises."""
        for path in directories:
            log = int(path.name)
            store = store_of(path)
            found = await open_store(store)
            store.start(self._loop)
            self._orphans.append(_Orphan(log, store, found, asyncio.Event()))
            self._mover.stores[log] = store

    @property
    def found(self) -> list[Recovered]:
        """What each of them holds."""
        return [orphan.found for orphan in self._orphans]

    def settle(self) -> None:
        """Ask about what was on its way into them; before the links stand."""
        for orphan in self._orphans:
            self._mover.settle(orphan.log, orphan.found.arriving, orphan.is_settled.set)

    def drains(self) -> list[Coroutine[object, object, None]]:
        """The work of emptying and removing them, one each, to be run beside everything else."""
        return [self._drain(orphan) for orphan in self._orphans]

    async def _drain(self, orphan: _Orphan) -> None:
        """Move everything in it to its owners; when all it had to tell is told, remove it."""
        log, store, _, is_settled = orphan
        await is_settled.wait()
        is_empty = asyncio.Event()
        self._mover.drain(log, store, store.seqs(), is_empty.set)  # what was arriving has arrived or is gone
        await is_empty.wait()
        while not await self._event_log.drain():  # noqa: ASYNC110 - see RETRY_S
            await asyncio.sleep(RETRY_S)
        retirement = self._loop.create_task(self._retire(log, store))
        self._retirements.append(retirement)
        await asyncio.shield(retirement)

    async def _retire(self, log: int, store: Store) -> None:
        """An emptied log, all of it told, is removed; once begun it is not broken off."""
        store.told(store.mark_position())
        del self._mover.stores[log]
        await store.close()
        await self._loop.run_in_executor(None, _remove, store)
        self._say(f"log {log}, which has no worker any more, was emptied and removed")

    async def retired(self) -> None:
        """Every removal that was begun is done."""
        await asyncio.gather(*self._retirements)


def _remove(store: Store) -> None:
    store.disown()  # broken off in the middle, it must not look as if something had been lost
    shutil.rmtree(store.directory)
