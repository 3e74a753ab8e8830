"""Moves: waiting mail whose destination belongs to another worker goes there, and logs without a worker are emptied.

How it gets there in one piece is told in `mta.handoff.lanes`: written down there as arriving, recorded as moved here,
then let go there. Whoever finds something arriving after a crash asks this worker whose it is.
"""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from mta.handoff import frames
from mta.handoff.arrivals import Arrivals, PartState
from mta.handoff.frames import Frame
from mta.handoff.lanes import Lanes
from mta.handoff.link import Link, Mesh
from mta.handoff.placement import Placement
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta_queue.store import Loaded, Origin, Store

__all__ = ["Mover", "PartState"]

DRAINED_AT_ONCE = 64  # items of a log without a worker that are on their way at the same time
RETRY_S = 1.0  # how long a move that was declined waits before it is tried again


class _Move:
    """Some recipients of an item; a `mta.handoff.lanes.Freight`."""

    __slots__ = ("_envelope", "_mover", "_on_done", "_parts", "_states", "origin", "owner", "size")

    def __init__(
        self,
        mover: "Mover",
        origin: Origin,
        parts: tuple[int, ...],
        envelope: Envelope,
        states: list[PartState],
        owner: int,
        on_done: Callable[[], None],
    ) -> None:
        self.origin = origin
        self.owner = owner
        self.size = envelope.size
        self._mover = mover
        self._parts = parts
        self._envelope = envelope
        """With the recipients of these parts only."""
        self._states = states
        self._on_done = on_done

    def read(self, done: Callable[[bytes | None], None]) -> None:
        self._mover.stores[self.origin.log].content_soon(self.origin.seq, done)

    def frame(self, ref: int) -> frames.Move:
        envelope = self._envelope
        states = [(state.due_s, state.note) for state in self._states]
        return frames.Move(ref, envelope.id, envelopes.encode(envelope), *self.origin, states)

    def record(self, on_durable: Callable[[], None]) -> None:
        self._mover.stores[self.origin.log].move_out(self.origin.seq, self._parts, on_durable)

    def left(self) -> None:
        self._mover.moved_parts += len(self._parts)
        self._on_done()

    def unreadable(self) -> None:
        self._mover.unreadable += 1  # the store has set it aside
        self._on_done()

    def declined(self) -> None:
        """The other worker cannot write now: it is tried again later."""
        self._mover.mesh.loop.call_later(RETRY_S, partial(self._mover.lanes.put, self))


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
        self.is_withdrawn: Callable[[int, frames.Ask], bool] = lambda worker, ask: False
        """Whether what a worker asks about was given up here while that worker was dead."""
        self.mesh = mesh
        self._me = placement.me
        self._clock = clock
        self.lanes = Lanes(mesh, lambda: self.is_decided_here)
        self.arrivals = Arrivals(self.stores, placement.workers, mesh, self._ask_here, on_arrived, self.lanes.start_all)
        self.lanes.arrivals = self.arrivals
        mesh.handlers[frames.Ask] = self._on_ask

    def settle(self, log: int, arriving: Sequence[tuple[int, str, Origin]], on_settled: Callable[[], None]) -> None:
        """See `Arrivals.settle`."""
        self.arrivals.settle(log, arriving, on_settled)

    @property
    def is_decided_here(self) -> bool:
        """Nothing is open on this worker's disk that a former life of it sent to itself. Before that nothing that was
        found there may be taken up: a power loss could still bring back what is being forgotten."""
        return self.arrivals.is_decided(self._me)

    @property
    def moving(self) -> int:
        """Moves, and what else leaves this worker (`mta.handoff.notices`), that are not done."""
        return self.lanes.count

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
            envelope,
            recipients=[envelope.recipients[part] for part in parts],
            told_recipients=None,
            cause_recipients=None,  # whoever asks about it from now on means this item, not the one that it tells of
        )
        self.lanes.put(_Move(self, Origin(self._me if log is None else log, seq), parts, share, states, owner, on_done))

    # asked by those to whom something was moved

    def _on_ask(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Ask)
        life = link.life
        if self.is_withdrawn(link.worker, frame):
            link.answer(life, frames.Living(frame.ref, True))
            return
        self._ask_here(frame, lambda living: link.answer(life, frames.Living(frame.ref, living)))

    def _ask_here(self, ask: frames.Ask, answer: Callable[[bool], None]) -> None:
        # A record that is not on stable storage yet may still be undone by a crash.
        if self.lanes.when_recorded(Origin(ask.log, ask.seq), partial(self._ask_here, ask, answer)):
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
        at = on_its_way = 0

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
            nonlocal at, on_its_way
            if at < len(seqs) and on_its_way < DRAINED_AT_ONCE:
                batch = seqs[at : at + DRAINED_AT_ONCE]
                at += len(batch)
                on_its_way += 1
                store.load_soon(batch, loaded_some)
            elif at >= len(seqs) and not on_its_way and not store.items:
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
