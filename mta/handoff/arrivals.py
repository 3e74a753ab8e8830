"""Arrivals: the receiving side of lanes. What arrives is written down, and is this worker's when its origin says so.

Until then it is only kept: after a crash of either side the origin's log decides. A recipient that still waits
there is the origin's, and what arrived here is forgotten; any other is ours. Of a notification it is the recipients
that it tells about: while one still waits there, it was given up by nobody, and the notification is forgotten.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from mta.handoff import frames
from mta.handoff.frames import Frame, Hello
from mta.handoff.link import Link, Mesh
from mta.model import envelope as envelopes
from mta_queue.store import Origin, Store


class PartState(NamedTuple):
    """What travels with a recipient that was tried before."""

    due_s: float
    note: bytes


OriginAsker = Callable[[frames.Ask, Callable[[bool], None]], None]
"""Answers for the logs that this worker serves itself: are these recipients still there?"""


class _Arriving:
    """An item on its way into this worker's log."""

    __slots__ = ("is_durable", "is_lost", "origin", "seq", "states")

    def __init__(self, origin: Origin, states: list[PartState]) -> None:
        self.origin = origin
        self.states = states
        self.seq = -1
        self.is_durable = False
        self.is_lost = False
        """Its origin died before it was durable: nobody was told that it is here."""


class _Question(NamedTuple):
    server: int
    ask: frames.Ask
    decided: Callable[[bool], None]


class Arrivals:
    """Takes moves into this worker's log, and settles what crashes left arriving in the logs that it serves."""

    def __init__(
        self,
        stores: dict[int, Store],
        workers: int,
        mesh: Mesh,
        ask_here: OriginAsker,
        on_arrived: Callable[[int, Sequence[PartState]], None],
        on_decided: Callable[[], None],
    ) -> None:
        """`stores` by log; `on_arrived` is called with what may be delivered from this worker's own log, `on_decided`
        when nothing is open any more that came from this worker's own logs."""
        self._stores = stores
        self._store = stores[mesh.me]
        self._workers = workers
        self._mesh = mesh
        self._ask_here = ask_here
        self._on_arrived = on_arrived
        self._on_decided = on_decided
        self._arriving: dict[int, dict[int, _Arriving]] = {}
        """Origin's worker -> ref; a new life of that worker begins with none."""
        self._questions: dict[int, _Question] = {}
        self._ref = 0
        self._undecided: dict[int, int] = {}
        """Origin's worker -> how many items of a former life are neither ours nor forgotten on stable storage."""
        mesh.handlers[frames.Move] = self._on_move
        mesh.handlers[frames.Gone] = self._on_gone
        mesh.handlers[frames.Living] = self._on_living
        mesh.on_up.append(self._on_up)
        mesh.on_down.append(self._on_down)
        mesh.is_decided.append(self.is_decided)

    @property
    def arriving(self) -> int:
        """Items whose origin has not let them go yet."""
        return sum(map(len, self._arriving.values())) + len(self._questions)

    def is_decided(self, worker: int) -> bool:
        """Nothing is open that came from a former life of that worker: it may move or deliver what it has."""
        return worker not in self._undecided

    def _open(self, worker: int) -> None:
        self._undecided[worker] = self._undecided.get(worker, 0) + 1

    def _close(self, worker: int) -> None:
        self._undecided[worker] -= 1
        if self._undecided[worker]:
            return
        del self._undecided[worker]
        if worker == self._mesh.me:
            self._on_decided()
        else:
            self._mesh.settle(worker)

    # moves

    def take(
        self,
        worker: int,
        frame: frames.Move,
        content: bytes,
        on_taken: Callable[[], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        """Write a move down: item, due times and notes. Then one of the callbacks is called."""
        states = [PartState(*state) for state in frame.states]
        item = _Arriving(Origin(frame.log, frame.seq), states)
        home = self._arriving.setdefault(worker, {})
        home[frame.ref] = item
        due_s = min(state.due_s for state in states)

        def durable(seq: int) -> None:
            item.is_durable = True
            if item.is_lost:
                self._store.forget(seq, partial(self._close, worker))
                return
            tried = [part for part, state in enumerate(states) if state.note or state.due_s != due_s]
            for part in tried:
                self._store.postpone(seq, [part], states[part].due_s, states[part].note)
            if tried:
                self._store.move_out(seq, (), on_taken)  # of no parts: called when all before it is on stable storage
            else:
                on_taken()

        def failed(error: OSError) -> None:
            home.pop(frame.ref, None)
            if item.is_lost:
                self._close(worker)
            else:
                on_failed(error)

        parts = len(states)
        item.seq = self._store.append(
            frame.id, frame.meta, parts, content, durable, failed, origin=item.origin, due_s=due_s
        )

    def release(self, worker: int, ref: int) -> None:
        """The origin has recorded a move: the item is ours. One of a former life was settled by asking."""
        item = self._arriving.get(worker, {}).pop(ref, None)
        if item is not None:
            self._store.arrive(item.seq)
            self._on_arrived(item.seq, item.states)

    def _on_move(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Move)
        ref, life = frame.ref, link.life
        self.take(
            link.worker,
            frame,
            body,
            lambda: link.answer(life, frames.Arrived(ref)),
            lambda error: link.answer(life, frames.Declined(ref, str(error))),
        )

    def _on_gone(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Gone)
        self.release(link.worker, frame.ref)

    # what a crash left open

    def settle(self, log: int, arriving: Sequence[tuple[int, str, Origin]], on_settled: Callable[[], None]) -> None:
        """Ask the origins about items that were found arriving in a log; `on_settled` when all are decided.

        Best called before the links stand: then no origin does anything with its own before it is asked. An item that
        cannot be read is left as it is.
        """
        store = self._stores[log]
        still_open = len(arriving)

        def decided() -> None:
            nonlocal still_open
            still_open -= 1
            if not still_open:
                on_settled()

        if not arriving:
            on_settled()
        for seq, _, origin in arriving:
            self._ask(store, seq, origin, decided)

    def _ask(self, store: Store, seq: int, origin: Origin, on_decided: Callable[[], None]) -> None:
        loaded = store.load(seq)
        if loaded is None:
            on_decided()
            return
        server = origin.log % self._workers
        envelope = envelopes.decode(loaded.meta)
        self._ref += 1
        if envelope.cause_recipients is not None:  # a notification, not let go yet: they are whom it tells about
            about = (envelope.cause_id, envelope.cause_recipients)
        else:
            about = (loaded.item_id, [recipient.address for recipient in envelope.recipients])
        ask = frames.Ask(self._ref, origin.log, origin.seq, *about)

        def decided(living: bool) -> None:
            if living:
                store.forget(seq, partial(self._close, server))
            else:
                self._close(server)
                store.arrive(seq)
                if store is self._store:
                    self._on_arrived(seq, [PartState(part.due_s, part.note) for part in loaded.parts])
            on_decided()

        self._open(server)
        if server == self._mesh.me:
            self._ask_here(ask, decided)
            return
        self._questions[ask.ref] = _Question(server, ask, decided)
        if self._mesh.links[server].is_up:
            self._mesh.links[server].send(ask)

    def _on_living(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Living)
        self._questions.pop(frame.ref).decided(frame.living)

    def _on_up(self, link: Link, hello: Hello) -> None:
        for question in self._questions.values():
            if question.server == link.worker:
                link.send(question.ask)

    def _on_down(self, link: Link) -> None:
        """The origin died. What it knows to be here is asked for when it is back, what it cannot know is forgotten."""
        for item in self._arriving.pop(link.worker, {}).values():
            if item.is_durable:
                self._ask(self._store, item.seq, item.origin, lambda: None)
            else:
                item.is_lost = True
                self._open(link.worker)
