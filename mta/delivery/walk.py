"""A walk: everything that waits in this worker's log, oldest first, read in slices while mail goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from mta_queue.store import Loaded

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

ITEMS_AT_ONCE = 256  # read back with one visit to the disk
PARTS_AT_ONCE = 2_048  # in one visit, where messages have many recipients: each costs the loop some microseconds


class StoppingError(Exception):
    """The worker stops: what was begun is left as far as it came."""


class Walk:
    """Reads items of the queue's own log."""

    def __init__(self, engine: "Dispatcher", is_kept_back: Callable[[int], bool]) -> None:
        self._engine = engine
        self._is_kept_back = is_kept_back

    async def items(self, seqs: Sequence[int] | None = None) -> AsyncIterator[list[Loaded]]:
        """Slices of what lives, by default all of it; what comes meanwhile is not among it, what ends may be.

        The next slice is read while the caller works on one; the loop turns between two of them. Raises StoppingError.
        """
        wanted = self._engine.store.seqs() if seqs is None else seqs
        at, size = 0, ITEMS_AT_ONCE // 8
        reading = self._read(wanted[:size])
        while at < len(wanted):
            slice_of = await reading
            if self._engine.is_stopping:
                raise StoppingError
            at += size
            parts = sum(len(item.parts) for item in slice_of)
            grows = parts <= PARTS_AT_ONCE
            size = min(ITEMS_AT_ONCE, size * 2) if grows else max(1, size * PARTS_AT_ONCE // parts)
            reading = self._read(wanted[at : at + size])
            yield [item for item in slice_of if not self._is_kept_back(item.seq)]
            await asyncio.sleep(0)

    def _read(self, seqs: Sequence[int]) -> asyncio.Future[list[Loaded]]:
        loop = self._engine.loop
        read: asyncio.Future[list[Loaded]] = loop.create_future()

        def loaded(items: list[Loaded]) -> None:
            if not read.done():
                read.set_result(items)

        if seqs:
            self._engine.store.load_soon(seqs, loaded)
        else:
            read.set_result([])
        return read
