"""The owner's side of a hand-off: write down what is handed over, hold it until told, then let it be delivered.

A message for this worker alone is delivered as soon as it is on stable storage. One that other owners share is
held until the door says `Release`; a door that died has perhaps said 250 to its client, so what it handed over is
released.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from mta.handoff import frames
from mta.handoff.frames import Frame, Hello
from mta.handoff.link import Link, Mesh
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope
from mta_queue.store import Position, Recovered, Store


class Taker(Protocol):
    """Delivery, as an owner knows it."""

    def take(self, seq: int, envelope: Envelope, content: bytes) -> None:
        """A message that is on stable storage and may go out (when its time has come)."""
        ...


class _Held:
    """A message that another owner shares."""

    __slots__ = ("content", "envelope", "is_released", "seq")

    def __init__(self, envelope: Envelope, content: bytes) -> None:
        self.envelope = envelope
        self.content = content
        self.seq = -1
        """-1 until it is on stable storage."""
        self.is_released = False


class Owner:
    """Appends to this worker's log for the doors of all workers."""

    def __init__(self, store: Store, taker: Taker, tell_received: Callable[[Envelope], None]) -> None:
        self._store = store
        self._taker = taker
        self._tell_received = tell_received
        self._mesh: Mesh | None = None
        self._held: dict[int, dict[int, _Held]] = {}
        """Door's worker -> ref -> message; a new life of that worker begins with none."""
        self._untold: dict[int, None] = {}
        """In order of seq: what was appended here and is not let go yet; its `received` is not in the event log."""
        self._forgetting: dict[int, int] = {}
        """Worker -> how many messages that its `Hello` abandoned are not durably forgotten yet."""
        self.recovered: dict[str, int] = {}
        """Message id -> seq of what was found at start and is recent, until every door has said what it knows of it."""
        self.forgotten: set[int] = set()
        """Recovered items that a door gave up: they must not be delivered nor told."""

    def attach(self, mesh: Mesh) -> None:
        """Answer the doors of the other workers."""
        self._mesh = mesh
        mesh.handlers[frames.Offer] = self._on_offer
        mesh.handlers[frames.Release] = self._on_release
        mesh.handlers[frames.Forget] = self._on_forget
        mesh.on_up.append(self._on_up)
        mesh.on_down.append(self._on_down)
        mesh.on_settled.append(self._on_settled)
        mesh.is_decided.append(lambda worker: not self._forgetting.get(worker))

    def remember(self, found: Recovered) -> None:
        """What the log held at the start, before the links stand: doors ask for what they were not answered about.

        What was delivered or moved on just before the crash counts too: its door may not know that it was taken. That
        reaches back to what the event log has, half a second: a door reads its links far more often.
        """
        if self._mesh is None or not self._mesh.links:
            return
        for untold in found.untold:
            self.recovered[envelopes.decode(untold.meta).id] = untold.seq
        self.recovered.update((item_id, seq) for seq, item_id in found.recent)

    def append(
        self,
        envelope: Envelope,
        content: bytes,
        on_taken: Callable[[], None],
        on_failed: Callable[[OSError], None],
        meta: bytes = b"",
    ) -> None:
        """Write a message for this owner alone down; `on_taken` is called once it is safe, then it goes out.

        `meta` is the envelope's encoding where the caller has it.
        """

        def durable(seq: int) -> None:
            on_taken()
            self._hand_over(seq, envelope, content)

        def failed(error: OSError) -> None:
            self._untold.pop(seq, None)
            on_failed(error)

        seq = self._store.append(
            envelope.id,
            meta or envelopes.encode(envelope),
            len(envelope.recipients),
            content,
            durable,
            failed,
            due_s=envelope.send_at_s,
        )
        self._untold[seq] = None

    def bring(
        self,
        envelope: Envelope,
        content: bytes,
        due_s: float,
        on_durable: Callable[[int], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        """Write down what was exported elsewhere, whoever owns it, due then; `on_durable(seq)` takes it up."""

        def durable(seq: int) -> None:
            self._tell_received(envelope)
            self._untold.pop(seq, None)
            on_durable(seq)

        def failed(error: OSError) -> None:
            self._untold.pop(seq, None)
            on_failed(error)

        envelope.told_recipients = []
        meta = envelopes.encode(envelope)
        seq = self._store.append(envelope.id, meta, len(envelope.recipients), content, durable, failed, due_s=due_s)
        self._untold[seq] = None

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
        held = _Held(envelope, content)
        home = self._held.setdefault(worker, {})
        home[ref] = held

        def durable(seq: int) -> None:
            held.seq = seq
            if held.is_released:
                self._hand_over(seq, envelope, content)
            else:
                on_taken()

        def failed(error: OSError) -> None:
            self._untold.pop(seq, None)
            home.pop(ref, None)
            on_failed(error)

        seq = self._store.append(
            envelope.id, meta, len(envelope.recipients), content, durable, failed, due_s=envelope.send_at_s
        )
        self._untold[seq] = None

    def release(self, worker: int, ref: int) -> None:
        """All owners have a message that was taken here: it may go out."""
        held = self._held[worker].pop(ref)
        self._hand_over(held.seq, held.envelope, held.content)

    def forget(self, worker: int, ref: int, on_durable: Callable[[], None]) -> None:
        """Another owner could not take its share of what was taken here: as if it had never been accepted."""
        held = self._held[worker].pop(ref)
        self._untold.pop(held.seq, None)
        self._store.forget(held.seq, on_durable)

    def _hand_over(self, seq: int, envelope: Envelope, content: bytes) -> None:
        if envelope.told_recipients is not None:
            self._tell_received(envelope)
        self._untold.pop(seq, None)
        self._taker.take(seq, envelope, content)

    def is_kept_back(self, seq: int) -> bool:
        """Whether an item was appended here and is not let go yet: only its door may do anything with it."""
        return seq in self._untold

    @property
    def held(self) -> int:
        """Messages that wait for the word of their door."""
        return sum(map(len, self._held.values()))

    # what the event log has

    def mark(self) -> Position:
        """How far the event log's lines up to now tell the log: nothing of what is not handed over yet."""
        oldest = next(iter(self._untold), None)
        return self._store.mark_position() if oldest is None else Position(oldest - 1)

    def events_written(self, mark: Position) -> None:
        """The lines up to a mark are in the event log: the queue need not remember what they tell."""
        self._store.told(mark)

    # the links

    def _on_offer(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Offer)
        ref, life = frame.ref, link.life

        def taken() -> None:
            link.answer(life, frames.Taken(ref))

        def failed(error: OSError) -> None:
            link.answer(life, frames.Refused(ref, str(error)))

        envelope = envelopes.decode(frame.meta)
        if frame.hold:
            self.hold(link.worker, ref, envelope, frame.meta, body, taken, failed)
        else:
            self.append(envelope, body, taken, failed, frame.meta)

    def _on_release(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Release)
        self.release(link.worker, frame.ref)

    def _on_forget(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Forget)
        self.forget(link.worker, frame.ref, partial(link.answer, link.life, frames.Forgotten(frame.ref)))

    def _on_up(self, link: Link, hello: Hello) -> None:
        self._forget_abandoned(link.worker, hello.abandoned)
        for ref, message_id in hello.pending:
            link.send(frames.Taken(ref) if message_id in self.recovered else frames.Unknown(ref))

    def _forget_abandoned(self, worker: int, message_ids: Sequence[str]) -> None:
        def durable() -> None:
            self._forgetting[worker] -= 1
            if not self._forgetting[worker]:
                del self._forgetting[worker]
                assert self._mesh is not None
                self._mesh.settle(worker)

        for message_id in message_ids:
            seq = self.recovered.pop(message_id, None)
            if seq is not None and self._store.is_living(seq):  # else it went out before the crash: uncertain
                self.forgotten.add(seq)
                self._forgetting[worker] = self._forgetting.get(worker, 0) + 1
                self._store.forget(seq, durable)

    def _on_settled(self, link: Link) -> None:
        assert self._mesh is not None
        if self._mesh.were_all_settled and self.recovered:
            self.recovered = {}  # all that was pending at a door has been asked for

    def _on_down(self, link: Link) -> None:
        """The door died. What is not on stable storage yet is let go as soon as it is."""
        for held in self._held.pop(link.worker, {}).values():
            if held.seq < 0:
                held.is_released = True
            else:
                self._hand_over(held.seq, held.envelope, held.content)
