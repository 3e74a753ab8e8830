"""The owner's side of a hand-off: write down what is handed over, hold it until told, then let it be delivered.

A message for this worker alone is delivered as soon as it is on stable storage. One that other owners share is
held until the door says `Release`; a door that died has perhaps said 250 to its client, so what it handed over is
released.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from mta.handoff import frames
from mta.handoff.frames import Frame, Hello
from mta.handoff.link import Link, Mesh
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope
from mta_queue.store import Position, Store


class Taker(Protocol):
    """Delivery, as an owner knows it."""

    def take(self, seq: int, envelope: Envelope, content: bytes) -> None:
        """A message that is on stable storage and may go out (when its time has come)."""
        ...


class _Held:
    __slots__ = ("content", "envelope", "fate", "ref", "seq", "worker")

    def __init__(self, worker: int, ref: int, envelope: Envelope, content: bytes) -> None:
        self.worker = worker
        self.ref = ref
        self.envelope = envelope
        self.content = content
        self.seq = -1
        self.fate = ""


class Owner:
    """Appends to this worker's log for the doors of all workers."""

    def __init__(self, store: Store, taker: Taker, tell_received: Callable[[Envelope], None]) -> None:
        self._store = store
        self._taker = taker
        self._tell_received = tell_received
        self._held: dict[tuple[int, int], _Held] = {}
        self._untold: dict[int, None] = {}
        self._marks: deque[tuple[Position, int]] = deque()
        self._last_seq = -1
        self.recovered: dict[str, int] = {}
        """Message id -> seq of what was found at start and is not released yet: doors may still ask for it."""
        self.forgotten: set[int] = set()
        """Recovered items that a door gave up."""

    def attach(self, mesh: Mesh) -> None:
        """Answer the doors of the other workers."""
        mesh.handlers[frames.Offer] = self._on_offer
        mesh.handlers[frames.Release] = self._on_release
        mesh.handlers[frames.Forget] = self._on_forget
        mesh.on_up.append(self._on_up)
        mesh.on_down.append(self._on_down)

    def append(
        self,
        envelope: Envelope,
        content: bytes,
        on_taken: Callable[[], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        """Write a message of this worker's own door down; `on_taken` is called once it is safe, then it goes out."""

        def durable(seq: int) -> None:
            on_taken()
            self._hand_over(seq, envelope, content)

        def failed(error: OSError) -> None:
            self._untold.pop(seq, None)
            on_failed(error)

        seq = self._store.append(
            envelope.id,
            envelopes.encode(envelope),
            len(envelope.recipients),
            content,
            durable,
            failed,
            due_s=envelope.send_at_s,
        )
        self._untold[seq] = None
        self._last_seq = seq

    def hold(
        self,
        worker: int,
        ref: int,
        envelope: Envelope,
        meta: bytes,
        content: bytes,
        on_taken: Callable[[], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        """Write a message down and keep it back until `release` or `forget` with the same worker and ref."""
        held = self._held[worker, ref] = _Held(worker, ref, envelope, content)

        def durable(seq: int) -> None:
            held.seq = seq
            if held.fate == "release":
                self._let_go(held)
            elif held.fate == "forget":
                self._forget(held, on_taken)
                return
            on_taken()

        def failed(error: OSError) -> None:
            self._untold.pop(seq, None)
            self._held.pop((worker, ref), None)
            on_failed(error)

        seq = self._store.append(
            envelope.id, meta, len(envelope.recipients), content, durable, failed, due_s=envelope.send_at_s
        )
        self._untold[seq] = None
        self._last_seq = seq

    def release(self, worker: int, ref: int) -> None:
        """All owners have a held message: it may go out."""
        held = self._held.get((worker, ref))
        if held is None:
            return
        if held.seq < 0:
            held.fate = "release"
        else:
            self._let_go(held)

    def forget(self, worker: int, ref: int, on_durable: Callable[[], None]) -> None:
        """Another owner could not take its share: as if this one had never been accepted."""
        held = self._held.get((worker, ref))
        if held is None:
            on_durable()
        elif held.seq < 0:
            held.fate = "forget"
        else:
            self._forget(held, on_durable)

    def _forget(self, held: _Held, on_durable: Callable[[], None]) -> None:
        self._held.pop((held.worker, held.ref), None)
        self._untold.pop(held.seq, None)
        self._store.forget(held.seq, on_durable)

    def _let_go(self, held: _Held) -> None:
        self._held.pop((held.worker, held.ref), None)
        self._hand_over(held.seq, held.envelope, held.content)

    def _hand_over(self, seq: int, envelope: Envelope, content: bytes) -> None:
        if envelope.told_recipients is not None:
            self._tell_received(envelope)
        self._untold.pop(seq, None)
        self._taker.take(seq, envelope, content)

    # what the event log has

    def mark(self) -> object:
        """How far the log is now: taken when the event log's lines up to now begin to go to its file."""
        return (self._store.mark_position(), self._last_seq)

    def events_written(self, mark: object) -> None:
        """The lines up to a mark are in the event log: tell the queue, as far as nothing is held before it."""
        assert isinstance(mark, tuple)
        self._marks.append(mark)
        oldest = next(iter(self._untold), None)
        told: Position | None = None
        while self._marks and (oldest is None or oldest > self._marks[0][1]):
            told = self._marks.popleft()[0]
        if told is not None:
            self._store.told(told)

    # the links

    def _on_offer(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Offer)
        envelope = envelopes.decode(frame.meta)
        ref = frame.ref

        def taken() -> None:
            link.send(frames.Taken(ref))

        def failed(error: OSError) -> None:
            link.send(frames.Refused(ref, str(error)))

        if frame.hold:
            self.hold(link.worker, ref, envelope, frame.meta, body, taken, failed)
        else:
            self.append(envelope, body, taken, failed)

    def _on_release(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Release)
        self.release(link.worker, frame.ref)

    def _on_forget(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Forget)
        self.forget(link.worker, frame.ref, lambda: link.send(frames.Forgotten(frame.ref)))

    def _on_up(self, link: Link, hello: Hello) -> None:
        for message_id in hello.abandoned:
            seq = self.recovered.pop(message_id, None)
            if seq is not None:
                self.forgotten.add(seq)
                self._store.forget(seq)
        for ref, message_id in hello.pending:
            if message_id in self.recovered:
                link.send(frames.Taken(ref))
            else:
                link.send(frames.Unknown(ref))

    def _on_down(self, link: Link) -> None:
        for held in [held for held in self._held.values() if held.worker == link.worker]:
            self.release(held.worker, held.ref)
