"""Parking: recipients whose turn came and who are kept back, by what they are, until somebody lets them go.

Their job leaves memory, so that mail behind them gets on; the recipients are taken up anew from the disk when what
keeps them is over. Who keeps them (a suspension, a firing) has a lot, where all of his stand.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from mta.delivery.job import Job
from mta.reporting.questions import Suspension
from mta_policies.firings import Firing

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.pool import Pool

FREED_AT_ONCE = 20_000  # parked items that one turn of the loop takes up: a few milliseconds' work

Keeper: TypeAlias = Suspension | Firing
"""Who keeps mail back."""


class Lot:
    """What one keeper keeps back."""

    __slots__ = ("is_over", "keeper", "parked", "parts")

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.is_over = False
        """It keeps nothing back any more; what is in it is taken up, in slices."""
        self.parked: dict[int, Sequence[int]] = {}
        """Item's seq -> parts, in the order in which they came."""
        self.parts = 0
        """How many recipients that are."""


Kept = Callable[["Pool", Job], Iterable[tuple[Lot, Sequence[int]]]]
"""Which of a job's parts are kept back now, and in whose lot; asked on while there are parts left."""


class Parking:
    """All lots of a worker."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._askers: dict[object, Kept] = {}
        self._lots: dict[int, Lot | list[Lot]] = {}
        self.active = False
        """Somebody may keep a job back: the one thing that is looked at where nobody does."""
        self.parts = 0
        """Recipients that have no job because they are parked."""
        self._freed: list[Lot] = []

    def asks(self, who: object, kept: Kept | None) -> None:
        """Somebody wants to be asked about every job whose turn comes; None: no more."""
        self._askers.pop(who, None)
        if kept is not None:
            self._askers[who] = kept
        self.active = bool(self._askers)

    def parks(self, pool: "Pool", job: Job) -> bool:
        """Take away what is kept back of a job whose turn came.

        -> True: nothing is left of it; False: it goes on, with what is left in `job.parts`.
        """
        for kept in self._askers.values():
            for lot, parts in kept(pool, job):
                if parts:
                    self._park(lot, job.seq, parts)
                    if self._engine.shrink(job, parts, job.envelope):
                        return True
        return False

    def _park(self, lot: Lot, seq: int, parts: Sequence[int]) -> None:
        self.parts += len(parts)
        lot.parts += len(parts)
        known = lot.parked.get(seq)
        if known is not None:
            lot.parked[seq] = [*known, *parts]
            return
        lot.parked[seq] = parts
        lots = self._lots.setdefault(seq, lot)
        if lots is not lot:
            if isinstance(lots, Lot):
                self._lots[seq] = [lots, lot]
            else:
                lots.append(lot)

    def _leave(self, lot: Lot, seq: int) -> None:
        """Nothing of an item is in a lot any more."""
        lots = self._lots.get(seq)
        if lots is lot:
            del self._lots[seq]
        elif isinstance(lots, list):
            lots.remove(lot)
            if not lots:
                del self._lots[seq]

    def parked(self, seq: int) -> dict[int, Keeper]:
        """The parts of an item that are parked, and who keeps them."""
        return {part: lot.keeper for lot in self._of(seq) for part in lot.parked[seq]}

    def _of(self, seq: int) -> Sequence[Lot]:
        lots = self._lots.get(seq)
        if lots is None:
            return ()
        return [lot for lot in ([lots] if isinstance(lots, Lot) else lots) if not lot.is_over]

    def forget(self, seq: int, parts: Sequence[int]) -> None:
        """These parts go another way, should they be parked."""
        gone = set(parts)
        for lot in self._of(seq):
            parked = lot.parked[seq]
            rest = [part for part in parked if part not in gone]
            self._count(lot, len(rest) - len(parked))
            if rest:
                lot.parked[seq] = rest
            else:
                del lot.parked[seq]
                self._leave(lot, seq)

    def _count(self, lot: Lot, parts: int) -> None:
        lot.parts += parts
        self.parts += parts

    def free(self, lot: Lot) -> None:
        """A lot is over: take up again all that it holds, in slices, the oldest first."""
        if lot.is_over:
            return
        lot.is_over = True
        self._count(lot, -lot.parts)
        if lot.parked:
            self._freed.append(lot)
            if len(self._freed) == 1:
                self._free_next()

    def _free_next(self) -> None:
        self._take_up(self._freed[0], FREED_AT_ONCE)
        if not self._freed[0].parked:
            del self._freed[0]
        if self._freed:
            self._engine.loop.call_soon(self._free_next)

    def free_some(self, lot: Lot, count: int) -> None:
        """Take up the first few items of a lot, and leave the others."""
        seqs = list(islice(lot.parked, count))
        self._count(lot, -sum(len(lot.parked[seq]) for seq in seqs))
        self._take_up(lot, count)

    def _take_up(self, lot: Lot, count: int) -> None:
        seqs = list(islice(lot.parked, count))
        for seq in seqs:
            del lot.parked[seq]
            self._leave(lot, seq)
        self._engine.take_up(seqs)
