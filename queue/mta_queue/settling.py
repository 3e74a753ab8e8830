"""Settling: notes of fates that are where they are for good need not be kept in memory any more."""

import asyncio
from collections import deque
from collections.abc import Iterable

from mta_queue.catalog import Catalog
from mta_queue.entry import Note
from mta_queue.fates import Fates

PLACED_AT_ONCE = 2_000  # notes that are let go of in one turn: a disk that comes back settles very many


class Settling:
    """Tells the catalog where notes lie."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._settled: deque[tuple[Note, int, int]] = deque()

    def settle(self, settled: Iterable[Fates], loop: asyncio.AbstractEventLoop) -> None:
        """These fates are on stable storage (durability "os": written)."""
        for fates in settled:
            self._settled.extend([(note, fates.segment, fates.offset + at) for note, at in fates.notes])
        self._place(loop)

    def _place(self, loop: asyncio.AbstractEventLoop) -> None:
        settled = self._settled
        for _ in range(min(PLACED_AT_ONCE, len(settled))):
            note, segment, offset = settled.popleft()
            note.segment, note.offset = segment, offset
            self._catalog.note_placed(note)
        if settled:
            loop.call_soon(self._place, loop)
