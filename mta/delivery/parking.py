"""Parking: recipients whose turn came and who are kept back, by what they are, until somebody lets them go.

Their job leaves memory, so that mail behind them gets on; the recipients are taken up anew from the disk when what
keeps them is over. Who keeps them (a suspension, a firing) has a lot, where all of his stand.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from mta.delivery.job import Job, Signature
from mta.delivery.shortage import Shortage
from mta.reporting.questions import Suspension
from mta_policies.firings import Firing

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.pool import Pool

FIRST = (0,)  # the only recipient, as of most messages: a million of them need no list each
SIGNATURES_MAX = 10_000  # kept for those that were signed already, 10 MB; others are signed again
SWEEP_S = 0.25  # how often the dispatcher looks whether parked mail may go; also at due times and memory
FREED_AT_ONCE = 20_000  # parked items that one turn of the loop takes up: a few milliseconds' work

Keeper: TypeAlias = Suspension | Firing | Shortage
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
        self.short_parts = 0
        """Those of them that nobody suspended: a limit has no room."""
        self._freed: list[Lot] = []
        self._signatures: dict[int, Signature] = {}
        """Of items that were signed, or were about to be with others of their recipients, when they were parked."""

    def asks(self, who: object, kept: Kept | None) -> None:
        """Somebody wants to be asked about every job whose turn comes; None: no more."""
        askers = {each: asks for each, asks in self._askers.items() if each is not who}
        if kept is not None:
            askers[who] = kept
        self._askers = askers  # another one: who is asked may say so in the middle of `parks`
        self.active = bool(self._askers)

    def parks(self, pool: "Pool", job: Job) -> bool:
        """Take away what is kept back of a job whose turn came.

        -> True: nothing is left of it; False: it goes on, with what is left in `job.parts`.
        """
        for kept in self._askers.values():
            for lot, parts in kept(pool, job):
                if parts and self.park(lot, job, parts):
                    return True
        return False

    def park(self, lot: Lot, job: Job, parts: Sequence[int]) -> bool:
        """Keep these parts of a job that is in no transaction; -> True: nothing is left of it."""
        if isinstance(lot.keeper, Shortage):
            self._engine.agenda.add(job.expires_s, job.seq)  # a quota may be closed for longer than mail lives
        if job.signature is None and len(parts) < len(job.parts) and not self._engine.signatures.is_off:
            job.signature = Signature()  # of those that go now, and of these
        if job.signature is not None and job.signature.fields != b"" and not job.attempts:  # else it is in their note
            self._keep_signature(job.seq, job.signature)
        self._put(lot, job.seq, parts)
        return self._engine.shrink(job, parts, job.envelope)

    def _keep_signature(self, seq: int, signature: Signature) -> None:
        if len(self._signatures) >= SIGNATURES_MAX:
            del self._signatures[next(iter(self._signatures))]
        self._signatures[seq] = signature

    def signature(self, seq: int) -> Signature | None:
        """Of an item that was signed before it was parked, and is taken up again."""
        return self._signatures.get(seq) if seq in self._lots else self._signatures.pop(seq, None)

    def _put(self, lot: Lot, seq: int, parts: Sequence[int]) -> None:
        self._count(lot, len(parts))
        if len(parts) == 1 and not parts[0]:
            parts = FIRST
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

    def kept_back(self, seq: int, parts: Iterable[int]) -> Sequence[int]:
        """Those of these parts, which are being taken up, that stay parked. What only a limit kept is let go: its time
        may be over, and where it is not it is parked again."""
        parked = self.parked(seq)
        short = [part for part in parts if isinstance(parked.get(part), Shortage)]
        if short:
            self.forget(seq, short)
        return [part for part in parked if part not in short]

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
        if isinstance(lot.keeper, Shortage):
            self.short_parts += parts

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
