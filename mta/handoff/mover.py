"""Moves: waiting mail whose destination belongs to another worker goes there, and logs without a worker are emptied.

In this order, so that no crash loses or doubles a recipient: written down there as arriving (it is not sent yet),
recorded as moved here, then released there. What a crash leaves arriving is settled by asking the origin's log: a
recipient that still waits there is the origin's, any other is the asker's.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from mta.handoff import frames
from mta.handoff.frames import Frame, Hello
from mta.handoff.link import Link, Mesh
from mta.handoff.placement import Placement
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta_queue.store import Loaded, Origin, Store

DRAINED_AT_ONCE = 64  # items of a log without a worker that are on their way at the same time
RETRY_S = 1.0  # how long a move that failed waits before it is tried again
MOVED_BYTES_MAX = 8 * 1024 * 1024  # content of moves that one worker has not answered yet


_RefHandler = Callable[[Link, int], None]


class PartState(NamedTuple):
    """What travels with a recipient that was tried before."""

    due_s: float
    note: bytes


class _Move:
    __slots__ = ("content", "envelope", "is_taken", "log", "on_done", "owner", "parts", "ref", "seq", "states")

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
        self.states = states
        self.owner = owner
        self.on_done = on_done
        self.content = b""
        self.ref = 0
        self.is_taken = False


class _Arriving(NamedTuple):
    seq: int
    origin: Origin
    states: list[PartState]


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
        self._store = store
        self._mesh = mesh
        self._clock = clock
        self._on_arrived = on_arrived
        self._ref = 0
        self._moves: dict[int, _Move] = {}
        self._waiting: deque[_Move] = deque()
        self._moving_bytes = 0
        self._arriving: dict[tuple[int, int], _Arriving] = {}
        self._asks: dict[int, tuple[int, frames.Ask, Callable[[bool], None]]] = {}
        self.moved_parts = 0
        self._share_handlers()
        mesh.handlers[frames.Move] = self._on_move
        mesh.handlers[frames.Ask] = self._on_ask
        mesh.handlers[frames.Living] = self._on_living
        mesh.on_up.append(self._on_up)

    def _share_handlers(self) -> None:
        """Doors and moves are answered with the same frames; a move's ref is negative."""

        def shared(kind: type[frames.Taken] | type[frames.Refused] | type[frames.Release], mine: _RefHandler) -> None:
            doors = self._mesh.handlers[kind]

            def handle(link: Link, frame: Frame, body: bytes) -> None:
                assert isinstance(frame, kind)
                if frame.ref < 0:
                    mine(link, frame.ref)
                else:
                    doors(link, frame, body)

            self._mesh.handlers[kind] = handle

        shared(frames.Taken, lambda _, ref: self._on_taken(ref))
        shared(frames.Refused, lambda _, ref: self._on_refused(ref))
        shared(frames.Release, lambda link, ref: self._release(link.worker, ref))

    def _on_taken(self, ref: int) -> None:
        """The other worker wrote a move down: record it as moved, then let it go there."""
        move = self._moves.get(ref)
        if move is None:
            return
        move.is_taken = True

        def durable() -> None:
            self._moves.pop(ref, None)
            self._moving_bytes -= len(move.content)
            self.moved_parts += len(move.parts)
            if move.owner == self.placement.me:
                self._release(self.placement.me, ref)
            else:
                self._mesh.links[move.owner].send(frames.Release(ref))
            move.on_done()
            self._start_waiting()

        self.stores[move.log].move_out(move.seq, move.parts, durable)

    def _on_refused(self, ref: int) -> None:
        """The other worker cannot write now: the move is tried again later."""
        move = self._moves.pop(ref, None)
        if move is None:
            return
        self._moving_bytes -= len(move.content)
        move.content = b""
        self._mesh.loop.call_later(RETRY_S, self._again, move)

    def _again(self, move: _Move) -> None:
        self._waiting.append(move)
        self._start_waiting()

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
        log = self.placement.me if log is None else log
        share = msgspec.structs.replace(
            envelope, recipients=[envelope.recipients[part] for part in parts], told_recipients=None
        )
        self._waiting.append(_Move(log, seq, parts, share, states, owner, on_done))
        self._start_waiting()

    def _start_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            if self._moving_bytes > MOVED_BYTES_MAX:
                return
            move = self._waiting.popleft()
            if move.owner != self.placement.me and not self._mesh.links[move.owner].is_up:
                self._waiting.append(move)
                continue
            self._moving_bytes += move.envelope.size
            self.stores[move.log].content_soon(move.seq, partial(self._send, move, move.envelope.size))

    def _send(self, move: _Move, reserved_bytes: int, content: bytes | None) -> None:
        self._moving_bytes -= reserved_bytes
        if content is None:
            move.on_done()  # unreadable: the store has set it aside
            return
        self._ref -= 1  # negative: doors count upwards, both answer with the same frames
        move.ref = self._ref
        move.content = content
        self._moves[move.ref] = move
        self._moving_bytes += len(content)
        envelope = move.envelope
        frame = frames.Move(
            move.ref,
            envelope.id,
            envelopes.encode(envelope),
            len(envelope.recipients),
            move.log,
            move.seq,
            [(state.due_s, state.note) for state in move.states],
        )
        if move.owner == self.placement.me:
            self._append_arriving(
                self.placement.me,
                frame,
                content,
                lambda: self._on_taken(move.ref),
                lambda _: self._on_refused(move.ref),
            )
        else:
            self._mesh.links[move.owner].send(frame, content)

    # arriving here

    def _append_arriving(
        self,
        worker: int,
        frame: frames.Move,
        content: bytes,
        on_taken: Callable[[], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        states = [PartState(*state) for state in frame.states]
        origin = Origin(frame.log, frame.seq)

        def durable(seq: int) -> None:
            self._arriving[worker, frame.ref] = _Arriving(seq, origin, states)
            on_taken()

        self._store.append(
            frame.id,
            frame.meta,
            frame.parts,
            content,
            durable,
            on_failed,
            origin=origin,
            due_s=min(state.due_s for state in states),
        )

    def _on_move(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Move)
        ref = frame.ref
        self._append_arriving(
            link.worker,
            frame,
            body,
            lambda: link.send(frames.Taken(ref)),
            lambda error: link.send(frames.Refused(ref, str(error))),
        )

    def _release(self, worker: int, ref: int) -> None:
        """The origin recorded a move: the item is ours."""
        arriving = self._arriving.pop((worker, ref), None)
        if arriving is None:
            return
        self._store.arrive(arriving.seq)
        for part, state in enumerate(arriving.states):
            if state.note:
                self._store.postpone(arriving.seq, [part], state.due_s, state.note)
        self._on_arrived(arriving.seq, arriving.states)

    # after a crash

    def settle(self, log: int, arriving: Sequence[tuple[int, str, Origin]], on_settled: Callable[[], None]) -> None:
        """Ask the origins about items that a crash left arriving in a log; `on_settled` when all are decided."""
        store = self.stores[log]
        still_open = len(arriving)

        def decided(seq: int, living: bool) -> None:
            nonlocal still_open
            if living:
                store.forget(seq)
            else:
                store.arrive(seq)
                if log == self.placement.me:
                    loaded = store.load(seq)
                    if loaded is not None:
                        self._on_arrived(seq, [PartState(part.due_s, part.note) for part in loaded.parts])
            still_open -= 1
            if not still_open:
                on_settled()

        if not arriving:
            on_settled()
        for seq, message_id, origin in arriving:
            loaded = store.load(seq)
            if loaded is None:
                decided(seq, True)
                continue
            recipients = [recipient.address for recipient in envelopes.decode(loaded.meta).recipients]
            self._ask(origin, message_id, recipients, partial(decided, seq))

    def _ask(self, origin: Origin, message_id: str, recipients: list[str], answer: Callable[[bool], None]) -> None:
        server = origin.log if origin.log < self.placement.workers else origin.log % self.placement.workers
        if server == self.placement.me:
            answer(self._still_waits(origin.log, origin.seq, message_id, recipients))
            return
        self._ref -= 1
        ask = frames.Ask(self._ref, origin.log, origin.seq, message_id, recipients)
        self._asks[ask.ref] = (server, ask, answer)
        self._mesh.links[server].send(ask)

    def _still_waits(self, log: int, seq: int, message_id: str, recipients: list[str]) -> bool:
        store = self.stores.get(log)
        loaded = store.load(seq) if store is not None else None
        if loaded is None or loaded.item_id != message_id:
            return False
        addresses = envelopes.decode(loaded.meta).recipients
        waiting = {addresses[part.part].address for part in loaded.parts}
        return any(recipient in waiting for recipient in recipients)

    def _on_ask(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Ask)
        living = self._still_waits(frame.log, frame.seq, frame.id, frame.recipients)
        link.send(frames.Living(frame.ref, living))

    def _on_living(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Living)
        asked = self._asks.pop(frame.ref, None)
        if asked is not None:
            asked[2](frame.living)

    def _on_up(self, link: Link, hello: Hello) -> None:
        """A worker is back: it asks again for what it found arriving; moves it had not answered begin anew."""
        for server, ask, _ in list(self._asks.values()):
            if server == link.worker:
                link.send(ask)
        lost = [move for move in self._moves.values() if move.owner == link.worker and not move.is_taken]
        for move in lost:
            del self._moves[move.ref]
            self._moving_bytes -= len(move.content)
            move.content = b""
            self._waiting.append(move)
        arrived = [key for key in self._arriving if key[0] == link.worker]
        for key in arrived:
            self._settle_lost_origin(key)
        self._start_waiting()

    def _settle_lost_origin(self, key: tuple[int, int]) -> None:
        """The origin died between our Taken and its Release: ask what its log says."""
        arriving = self._arriving[key]
        loaded = self._store.load(arriving.seq)
        if loaded is None:
            self._arriving.pop(key)
            return
        recipients = [recipient.address for recipient in envelopes.decode(loaded.meta).recipients]

        def decided(living: bool) -> None:
            if key not in self._arriving:
                return
            if living:
                self._arriving.pop(key)
                self._store.forget(arriving.seq)
            else:
                self._release(*key)

        self._ask(arriving.origin, loaded.item_id, recipients, decided)

    # logs without a worker

    def drain(self, log: int, store: Store, seqs: Sequence[int], on_empty: Callable[[], None]) -> None:
        """Move every item of a log without a worker to its owners; `on_empty` when nothing is left in it."""
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
            elif not todo and not on_its_way:
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
