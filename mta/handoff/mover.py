"""Moves: waiting mail whose destination belongs to another worker goes there, and logs without a worker are emptied.

In this order, so that no crash loses or doubles a recipient: written down there as arriving (it is not sent yet),
recorded as moved here, then let go there. What a crash leaves arriving is settled by asking the origin's log
(`mta.handoff.arrivals`); nothing is moved, again or elsewhere, before that is done.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from mta.handoff import frames
from mta.handoff.arrivals import Arrivals, PartState
from mta.handoff.frames import Frame
from mta.handoff.link import Link, Mesh
from mta.handoff.placement import Placement
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta_queue.store import Loaded, Origin, Store

__all__ = ["Mover", "PartState"]

DRAINED_AT_ONCE = 64  # items of a log without a worker that are on their way at the same time
RETRY_S = 1.0  # how long a move that was declined waits before it is tried again
MOVED_BYTES_MAX = 8 * 1024 * 1024  # a worker's credit: content of moves that it has not answered yet


class _Move:
    __slots__ = ("envelope", "is_taken", "log", "on_done", "owner", "parts", "ref", "seq", "states")

    def __init__(
        self,
        log: int,
        seq: int,
        parts: tuple[int, ...],
        envelope: Envelope,
        states: list[PartState],
        owner: int,
        on_done: Callable[[], None],
    ) -> None:
        self.log = log
        self.seq = seq
        self.parts = parts
        self.envelope = envelope
        """With the recipients of these parts only."""
        self.states = states
        self.owner = owner
        self.on_done = on_done
        self.ref = 0
        self.is_taken = False


class _Leaving:
    """Moves of one item that are being recorded here."""

    __slots__ = ("asked", "moves")

    def __init__(self) -> None:
        self.moves = 0
        self.asked: list[Callable[[], None]] = []
        """Who wants to know when that is done."""


class _Lane:
    """The moves to one worker."""

    __slots__ = ("moves", "open_bytes", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Move] = deque()
        self.moves: dict[int, _Move] = {}
        """Sent, by ref; until they are recorded as moved here."""
        self.open_bytes = 0
        """Content of what is being read or was sent."""


class Mover:
    """Sends and receives moves for this worker's log and for the logs that it drains."""

    def __init__(
        self,
        store: Store,
        placement: Placement,
        mesh: Mesh,
        clock: Clock,
        on_arrived: Callable[[int, Sequence[PartState]], None],
    ) -> None:
        """`on_arrived` is called with the seq of an item that may be delivered now, and its parts' states."""
        self.placement = placement
        self.stores: dict[int, Store] = {placement.me: store}
        """This worker's own log and those that it drains, by number."""
        self.moved_parts = 0
        self.unreadable = 0
        """Moves given up because the content cannot be read; the items stay where they are."""
        self._me = placement.me
        self._mesh = mesh
        self._clock = clock
        self._ref = 0
        self._lanes = {worker: _Lane() for worker in (self._me, *mesh.links)}
        self._leaving: dict[Origin, _Leaving] = {}
        self.arrivals = Arrivals(
            self.stores, placement.workers, mesh, self._ask_here, on_arrived, lambda: self._start(self._me)
        )
        mesh.handlers[frames.Arrived] = self._on_arrived_there
        mesh.handlers[frames.Declined] = self._on_declined
        mesh.handlers[frames.Ask] = self._on_ask
        mesh.on_down.append(self._on_down)
        mesh.on_settled.append(self._on_settled)

    def settle(self, log: int, arriving: Sequence[tuple[int, str, Origin]], on_settled: Callable[[], None]) -> None:
        """See `Arrivals.settle`."""
        self.arrivals.settle(log, arriving, on_settled)

    @property
    def moving(self) -> int:
        """Moves that are not done."""
        return sum(len(lane.waiting) + len(lane.moves) for lane in self._lanes.values())

    # moving

    def move(
        self,
        seq: int,
        parts: tuple[int, ...],
        envelope: Envelope,
        states: list[PartState],
        owner: int,
        on_done: Callable[[], None] = lambda: None,
        log: int | None = None,
    ) -> None:
        """Send these parts of an item (in this worker's log, or in one that it drains) to their owner.

        They must not be delivered from here any more; `on_done` is called when they are the other's.
        """
        share = msgspec.structs.replace(
            envelope, recipients=[envelope.recipients[part] for part in parts], told_recipients=None
        )
        move = _Move(self._me if log is None else log, seq, parts, share, states, owner, on_done)
        self._lanes[owner].waiting.append(move)
        self._start(owner)

    def _is_open(self, owner: int) -> bool:
        if not self._mesh.were_all_settled:
            return False
        return self.arrivals.is_decided(owner) if owner == self._me else self._mesh.links[owner].is_settled

    def _start(self, owner: int) -> None:
        lane = self._lanes[owner]
        while lane.waiting and lane.open_bytes <= MOVED_BYTES_MAX and self._is_open(owner):
            move = lane.waiting.popleft()
            lane.open_bytes += move.envelope.size
            self.stores[move.log].content_soon(move.seq, partial(self._send, lane, move))

    def _send(self, lane: _Lane, move: _Move, content: bytes | None) -> None:
        if content is None:
            lane.open_bytes -= move.envelope.size
            self.unreadable += 1  # the store has set it aside
            move.on_done()
            self._start(move.owner)
            return
        if not self._is_open(move.owner):
            lane.open_bytes -= move.envelope.size
            lane.waiting.appendleft(move)
            return
        self._ref += 1
        ref = move.ref = self._ref
        lane.moves[ref] = move
        envelope = move.envelope
        states = [(state.due_s, state.note) for state in move.states]
        frame = frames.Move(ref, envelope.id, envelopes.encode(envelope), move.log, move.seq, states)
        if move.owner == self._me:
            self.arrivals.take(
                self._me, frame, content, lambda: self._taken(self._me, ref), lambda _: self._declined(self._me, ref)
            )
        else:
            self._mesh.links[move.owner].send(frame, content)

    def _taken(self, owner: int, ref: int) -> None:
        """The other worker wrote a move down: record it as moved, then let it go there."""
        lane = self._lanes[owner]
        move = lane.moves[ref]
        move.is_taken = True
        origin = Origin(move.log, move.seq)
        leaving = self._leaving.setdefault(origin, _Leaving())
        leaving.moves += 1

        def durable() -> None:
            del lane.moves[ref]
            lane.open_bytes -= move.envelope.size
            self.moved_parts += len(move.parts)
            if owner == self._me:
                self.arrivals.release(owner, ref)
            else:
                self._mesh.links[owner].send(frames.Gone(ref))
            leaving.moves -= 1
            if not leaving.moves:
                del self._leaving[origin]
                for ask in leaving.asked:
                    ask()
            move.on_done()
            self._start(owner)

        self.stores[move.log].move_out(move.seq, move.parts, durable)

    def _declined(self, owner: int, ref: int) -> None:
        """The other worker cannot write now: the move is tried again later."""
        lane = self._lanes[owner]
        move = lane.moves.pop(ref)
        lane.open_bytes -= move.envelope.size
        self._mesh.loop.call_later(RETRY_S, partial(self._again, move))

    def _again(self, move: _Move) -> None:
        self._lanes[move.owner].waiting.append(move)
        self._start(move.owner)

    # the links

    def _on_arrived_there(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Arrived)
        self._taken(link.worker, frame.ref)

    def _on_declined(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Declined)
        self._declined(link.worker, frame.ref)

    def _on_down(self, link: Link) -> None:
        """The other worker died: what it did not say to have is sent again when it has settled."""
        lane = self._lanes[link.worker]
        lost = [move for move in lane.moves.values() if not move.is_taken]
        for move in lost:
            del lane.moves[move.ref]
            lane.open_bytes -= move.envelope.size
        lane.waiting.extendleft(reversed(lost))

    def _on_settled(self, link: Link) -> None:
        for owner in self._lanes:
            self._start(owner)

    # asked by those to whom something was moved

    def _on_ask(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Ask)
        life = link.life
        self._ask_here(frame, lambda living: link.answer(life, frames.Living(frame.ref, living)))

    def _ask_here(self, ask: frames.Ask, answer: Callable[[bool], None]) -> None:
        leaving = self._leaving.get(Origin(ask.log, ask.seq))
        if leaving is not None:  # a move that is not on stable storage yet may still be undone by a crash
            leaving.asked.append(partial(self._ask_here, ask, answer))
            return
        store = self.stores.get(ask.log)
        loaded = store.load(ask.seq) if store is not None else None
        if loaded is None or loaded.item_id != ask.id:
            answer(False)
            return
        addresses = envelopes.decode(loaded.meta).recipients
        waiting = {addresses[part.part].address for part in loaded.parts}
        answer(any(recipient in waiting for recipient in ask.recipients))

    # logs without a worker

    def drain(self, log: int, store: Store, seqs: Sequence[int], on_empty: Callable[[], None]) -> None:
        """Move every item of a log without a worker to its owners; `on_empty` when nothing is left in it.

        A log with something that cannot be read is never empty: it stays for somebody to look at.
        """
        self.stores[log] = store
        todo = deque(seqs)
        on_its_way = 0

        def one_done() -> None:
            nonlocal on_its_way
            on_its_way -= 1
            more()

        def loaded_some(loaded: list[Loaded]) -> None:
            nonlocal on_its_way
            for item in loaded:
                on_its_way += self._move_item(log, item, one_done)
            on_its_way -= 1
            more()

        def more() -> None:
            nonlocal on_its_way
            if todo and on_its_way < DRAINED_AT_ONCE:
                batch = [todo.popleft() for _ in range(min(len(todo), DRAINED_AT_ONCE))]
                on_its_way += 1
                store.load_soon(batch, loaded_some)
            elif not todo and not on_its_way and not store.items:
                on_empty()

        more()

    def _move_item(self, log: int, item: Loaded, on_done: Callable[[], None]) -> int:
        """-> how many moves an item became (one an owner)."""
        envelope = envelopes.decode(item.meta)
        now_s = self._clock.monotonic_s()
        shares: dict[int, list[tuple[int, PartState]]] = {}
        for part in item.parts:
            owner = self.placement.owner(envelope.recipients[part.part].domain, now_s)
            shares.setdefault(owner, []).append((part.part, PartState(part.due_s, part.note)))
        for owner, share in shares.items():
            parts = tuple(part for part, _ in share)
            self.move(item.seq, parts, envelope, [state for _, state in share], owner, on_done, log)
        return len(shares)
