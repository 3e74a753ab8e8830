"""A walk: everything that waits in this worker's log, oldest first, looked at in slices while mail goes on.

A slice ends by the time it took, not by a number: what an item costs depends on what is asked of it, and no turn of the
loop may be long.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from mta.delivery.sieve import Sieve
from mta.model.clock import Clock
from mta.model.selection import Criteria
from mta_queue.store import Loaded, Wants

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

ITEMS_AT_ONCE = 256  # read back with one visit to the disk
GLANCES_AT_ONCE = 1_024  # the same, where few of them are wanted: a way to the thread and back costs more than those
PARTS_AT_ONCE = 2_048  # in one visit, where messages have many recipients: each costs the loop some microseconds
TURN_S = 0.004  # of work between two turns of the loop: a tenth of what mail would notice
SEQS_AT_ONCE = 256  # looked at between two looks at the clock, where nothing is read


class StoppingError(Exception):
    """The worker stops: what was begun is left as far as it came."""


class Stint:
    """Work between two turns of the loop: says when it was long enough."""

    __slots__ = ("_clock", "_end_s", "_turn_s")

    def __init__(self, clock: Clock, turn_s: float) -> None:
        self._clock = clock
        self._turn_s = turn_s
        self._end_s = clock.monotonic_s() + turn_s

    @property
    def is_due(self) -> bool:
        """Time for others."""
        return self._clock.monotonic_s() >= self._end_s

    async def turn(self) -> None:
        """Let mail go on."""
        await asyncio.sleep(0)
        self._end_s = self._clock.monotonic_s() + self._turn_s


class Walk:
    """Looks at items of the queue's own log."""

    def __init__(self, engine: "Dispatcher", is_kept_back: Callable[[int], bool]) -> None:
        self._engine = engine
        self._is_kept_back = is_kept_back

    def stint(self) -> Stint:
        """For whoever works on the items; it begins now."""
        return Stint(self._engine.clock, TURN_S)

    async def items(
        self, stint: Stint, seqs: Sequence[int] | None = None, wants: Wants | None = None
    ) -> AsyncIterator[list[Loaded]]:
        """Slices of what lives, by default all of it; what comes meanwhile is not among it, what ends may be. What is
        not wanted is left out, and costs a third.

        The next slice is read while the caller works on one, who turns the loop whenever `stint` is due. Raises
        StoppingError.
        """
        async for _, items in self.slices(stint, seqs, wants):
            yield items

    async def meant(
        self, stint: Stint, criteria: Criteria, seqs: Sequence[int] | None = None
    ) -> AsyncIterator[tuple[Sequence[int], list[Loaded]]]:
        """Slices of which those are read that a selection may mean: all that was looked at, and those."""
        sieve = Sieve(self._engine, criteria)
        async for looked_at, items in self.slices(stint, seqs, None if criteria.is_everything else sieve.wants):
            sieve.tell()
            yield looked_at, items

    async def slices(
        self, stint: Stint, seqs: Sequence[int] | None = None, wants: Wants | None = None
    ) -> AsyncIterator[tuple[Sequence[int], list[Loaded]]]:
        """The same, each with the seqs of all that was looked at."""
        wanted = self._engine.store.seqs() if seqs is None else seqs
        at, size = 0, ITEMS_AT_ONCE // 8
        reading = self._read(wanted[:size], wants)
        while at < len(wanted):
            looked_at, items = await reading
            self._go_on()
            at += size
            parts = sum([len(item.parts) for item in items])
            most = ITEMS_AT_ONCE if wants is None or len(items) > ITEMS_AT_ONCE else GLANCES_AT_ONCE
            grows = parts <= PARTS_AT_ONCE
            size = min(most, size * 2) if grows else max(1, size * PARTS_AT_ONCE // parts)
            reading = self._read(wanted[at : at + size], wants)
            yield looked_at, items
            if stint.is_due:
                await stint.turn()

    async def seqs(self, stint: Stint, seqs: Sequence[int]) -> AsyncIterator[list[int]]:
        """The same without reading anything: who only wants to know when they are due asks the store."""
        for at in range(0, len(seqs), SEQS_AT_ONCE):
            self._go_on()
            yield [seq for seq in seqs[at : at + SEQS_AT_ONCE] if not self._is_kept_back(seq)]
            if stint.is_due:
                await stint.turn()

    def _go_on(self) -> None:
        if self._engine.is_stopping:
            raise StoppingError

    def _read(self, some: Sequence[int], wants: Wants | None) -> asyncio.Future[tuple[Sequence[int], list[Loaded]]]:
        loop = self._engine.loop
        read: asyncio.Future[tuple[Sequence[int], list[Loaded]]] = loop.create_future()
        seqs = [seq for seq in some if not self._is_kept_back(seq)]

        def loaded(items: list[Loaded]) -> None:
            if not read.done():
                read.set_result((seqs, items))

        if seqs:
            self._engine.store.load_soon(seqs, loaded, wants)
        else:
            read.set_result((seqs, []))
        return read
