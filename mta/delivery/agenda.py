"""The agenda: when what waits on the disk is taken up.

It holds numbers of items alone: by due time in a wheel, and in a queue what is due, from which some at a time are read
back. Which recipients are meant is asked of the store when it is an item's turn: the queue is the truth, and a number
too many does no harm.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mta.delivery.job import Job
from mta.delivery.registry import is_held
from mta_queue.seqs import SEQS_TYPE, Seqs
from mta_queue.store import Loaded
from mta_queue.timetable import Opened, Wheel

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.pool import Pool

DUE_STEP_S = 0.25  # how exactly a due time is kept
LOADED_AT_ONCE = 256  # due items that one visit to the disk brings back
LOOKED_AT_ONCE = 4_096  # due items of which the store is asked in one turn of the loop: a few milliseconds
SET_BACK_S = 1.0  # a wall clock that goes back by less is being corrected


class Agenda:
    """What is to come of one worker's mail."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._wheel = Wheel(DUE_STEP_S)
        self._opened: deque[Opened] = deque()
        self._due = Seqs()
        self._handed: set[int] = set()
        """Items that another worker moved here and that were not read yet."""
        self._is_loading = False
        self._wall_s = self._reached_s = engine.clock.wall_s()
        """The last that it was looked at, and the latest: the clock may be set back."""
        self._named_before = 0
        """How many of those due were named before the clock was set back: they may not be due any more."""

    @property
    def due(self) -> int:
        """How many items are to be looked at."""
        return len(self._due)

    def add(self, due_s: float, seq: int) -> None:
        """Some of an item's recipients are due then (Unix seconds); goes on with the next sweep or `go_on`."""
        wall_s = self._engine.clock.wall_s()
        if due_s <= wall_s:
            self._due.append(seq)
        else:
            self._wheel.add(due_s, seq, wall_s)

    def name(self, seqs: "array[int]") -> None:
        """Look at these; goes on with the next sweep or `go_on`."""
        self._due.extend(seqs)

    def take_up(self, seqs: Iterable[int]) -> None:
        """Recipients of these items may go now, as far as they are due and in nobody's hand."""
        seqs = array(SEQS_TYPE, seqs)
        wall_s = self._engine.clock.wall_s()
        if wall_s < self._reached_s:
            self._name_again(seqs, wall_s)
        self._due.extend(seqs)
        self.go_on()

    def _name_again(self, seqs: Iterable[int], wall_s: float) -> None:
        """The clock was set back: what had been due before, and was kept back, goes to its time once more."""
        for seq in seqs:
            for due_s in {due_s for _, due_s in self._engine.store.dues(seq)}:
                if wall_s < due_s <= self._reached_s:
                    self._wheel.add(due_s, seq, wall_s)

    def handed(self, seq: int) -> None:
        """Another worker moved this one here."""
        self._handed.add(seq)

    def sweep(self, wall_s: float) -> None:
        """Look at the clock; called a few times a second."""
        if wall_s < self._wall_s - SET_BACK_S:
            self._named_before = len(self._due)
        self._wall_s = wall_s
        self._reached_s = max(self._reached_s, wall_s)
        due, opened = self._wheel.advance(wall_s)
        for seqs in due:
            self._due.extend(seqs)
        self._opened.extend(opened)
        if self._opened:
            self._add_opened(wall_s)
        self.go_on()

    def _add_opened(self, wall_s: float) -> None:
        """The time of some comes nearer: each goes to its own time, as the store has it."""
        engine, opened = self._engine, self._opened
        looked = 0
        while opened and looked < LOOKED_AT_ONCE:
            begin_s, end_s, seqs = opened.popleft()
            if end_s <= wall_s:
                self._due.extend(seqs)  # the clock jumped: all of it is due
                continue
            some, rest = seqs[:LOOKED_AT_ONCE], seqs[LOOKED_AT_ONCE:]
            if rest:
                opened.appendleft(Opened(begin_s, end_s, rest))
            looked += len(some)
            for seq in dict.fromkeys(some):
                dues = {due_s for _, due_s in engine.store.dues(seq) if begin_s <= due_s < end_s}
                for due_s in dues or (end_s,):  # else somebody wanted it looked at then, whatever the store says
                    self.add(due_s, seq)

    # what is due

    def go_on(self) -> None:
        """Read back what is due, some at a time."""
        engine = self._engine
        if self._is_loading or not self._due or engine.is_stopping:
            return
        wanted: dict[int, list[int]] = {}
        wall_s = engine.clock.wall_s()
        looked = 0
        while self._due and len(wanted) < LOADED_AT_ONCE and looked < LOOKED_AT_ONCE:
            for seq in self._due.take(LOADED_AT_ONCE - len(wanted)):
                looked += 1
                parts = self._parts_due(seq, wall_s, is_all=self._named_before > 0)
                self._named_before -= self._named_before > 0
                if parts:
                    wanted[seq] = parts
        if not wanted and not self._due:
            return
        self._is_loading = True
        if not wanted:
            engine.loop.call_soon(self._loaded, wanted, [])
        else:
            engine.store.load_soon(list(wanted), lambda items: self._loaded(wanted, items))

    def _parts_due(self, seq: int, wall_s: float, *, is_all: bool = False) -> list[int]:
        """The recipients of an item that are due and have no job. The others go to their times where that is needed:
        once where nothing is due, for the number came too early; `is_all`: each of them."""
        dues = self._engine.store.dues(seq)
        due = [part for part, due_s in dues if due_s <= wall_s]
        if len(due) < len(dues) and (is_all or not due):
            later = {due_s for _, due_s in dues if due_s > wall_s and not is_held(due_s)}
            for due_s in sorted(later)[: None if is_all else 1]:
                self._wheel.add(due_s, seq, wall_s)
        if due:
            in_hand = self._engine.registry.in_hand(seq)
            if in_hand:
                due = [part for part in due if part not in in_hand]
        return due

    def _loaded(self, wanted: dict[int, list[int]], items: Sequence[Loaded]) -> None:
        self._is_loading = False
        engine = self._engine
        now_s = engine.loop.time()
        for item in items:
            is_handed = item.seq in self._handed
            self._handed.discard(item.seq)
            try:
                engine.intake.loaded(item, wanted[item.seq], now_s, is_handed=is_handed)
            except Exception as error:  # noqa: BLE001 - one item that cannot be understood must not stop the others
                engine.report(error)
        self.go_on()

    def bring_back(self, seqs: Sequence[int], pool: "Pool", done: Callable[[dict[int, list[Job]]], None]) -> None:
        """Read items back that a pool had spilled; `done` gets the jobs that are that pool's, by item. What has
        another way now goes it."""
        engine = self._engine
        wall_s = engine.clock.wall_s()
        wanted = {seq: parts for seq in seqs if (parts := self._parts_due(seq, wall_s))}

        def loaded(items: Sequence[Loaded]) -> None:
            now_s = engine.loop.time()
            jobs: dict[int, list[Job]] = {}
            for item in items:
                try:
                    made = engine.intake.loaded(item, wanted[item.seq], now_s, pool=pool)
                except Exception as error:  # noqa: BLE001 - as above
                    engine.report(error)
                else:
                    if made:
                        jobs[item.seq] = made
            done(jobs)

        if wanted:
            engine.store.load_soon(list(wanted), loaded)
        else:
            engine.loop.call_soon(done, {})
