"""Notices: what a worker writes itself, a notification about mail of its own, gets to the owner of its recipient.

The same protocol as a move (`mta.handoff.lanes`): written down there as arriving, then the fate that it tells of is
recorded here, then it may go out. After a crash the origin's log decides: while a recipient that it tells about still
waits there, the fate was never recorded, and what arrived is forgotten, for it will be made again.
"""

from collections.abc import Callable

from mta.handoff import frames
from mta.handoff.lanes import Freight
from mta.handoff.link import Link
from mta.handoff.mover import Mover
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta_queue.store import Origin

WAIT_S = 5.0  # a worker that died is back in less than one; its mail waits that long, ours need not wait for it
SWEEP_S = 1.0

_AskedAs = tuple[int, int, str, tuple[str, ...]]
"""Log, seq, message id and recipients of a question."""


class _Notice:
    """A notification on its way; a `mta.handoff.lanes.Freight`."""

    __slots__ = (
        "_content",
        "_envelope",
        "_notices",
        "_on_failed",
        "_on_taken",
        "origin",
        "owner",
        "since_s",
        "size",
        "was_sent",
    )

    def __init__(
        self,
        notices: "Notices",
        envelope: Envelope,
        content: bytes,
        origin: Origin,
        owner: int,
        since_s: float,
        on_taken: Callable[[Callable[[], None]], None],
        on_failed: Callable[[], None],
    ) -> None:
        self.owner = owner
        self.origin = origin
        self.size = len(content)
        self.since_s = since_s
        self.was_sent = False
        """A life of the owner perhaps wrote it down."""
        self._notices = notices
        self._envelope = envelope
        self._content = content
        self._on_taken = on_taken
        self._on_failed = on_failed

    def read(self, done: Callable[[bytes | None], None]) -> None:
        done(self._content)

    @property
    def asked_as(self) -> _AskedAs:
        """What its owner's question would be."""
        envelope, origin = self._envelope, self.origin
        return origin.log, origin.seq, envelope.cause_id, tuple(envelope.cause_recipients or ())

    def frame(self, ref: int) -> frames.Move:
        envelope = self._envelope
        self.was_sent = True
        return frames.Move(ref, envelope.id, envelopes.encode(envelope), *self.origin, [(0.0, b"")])

    def record(self, on_durable: Callable[[], None]) -> None:
        self._on_taken(on_durable)

    def left(self) -> None:
        self._notices.over(self)

    def unreadable(self) -> None:
        raise AssertionError("it was in memory")

    def declined(self) -> None:
        self.fail()

    def fail(self) -> None:
        """It did not get there: somebody makes it again later."""
        self._notices.over(self)
        self._on_failed()


class Notices:
    """Sends notifications to their owners."""

    def __init__(self, mover: Mover, clock: Clock) -> None:
        self._mover = mover
        self._lanes = mover.lanes
        self._mesh = mover.mesh
        self._clock = clock
        self._pending: dict[_Notice, None] = {}
        self._down_since_s: dict[int, float] = {}
        """Workers that died and have not settled yet."""
        self._withdrawn: dict[int, set[_AskedAs]] = {}
        """Of these: what they perhaps wrote down, and what was given up here."""
        mover.is_withdrawn = self._is_withdrawn
        self._is_sweeping = False
        self._mesh.on_down.append(self._on_down)
        self._mesh.on_settled.append(self._on_settled)

    @property
    def pending(self) -> int:
        """On their way, or not let go yet."""
        return len(self._pending)

    def send(
        self,
        envelope: Envelope,
        content: bytes,
        origin: Origin,
        on_taken: Callable[[Callable[[], None]], None],
        on_failed: Callable[[], None],
    ) -> None:
        """Get a notification (its envelope says of whom) about item `origin` durably to its owner.

        Then `on_taken(release)` is called: record the fate of these recipients, all in one record, and have `release`
        called when that is on stable storage; only then it goes out. Or `on_failed`: the owner cannot write, or was
        not there in `WAIT_S`; nothing of it will ever go out. That is never before this returns, and until then the
        recipients must be left alone.
        """
        now_s = self._clock.monotonic_s()
        owner = self._mover.placement.owner(envelope.recipients[0].domain, now_s)
        notice = _Notice(self, envelope, content, origin, owner, now_s, on_taken, on_failed)
        if now_s - self._down_since_s.get(owner, now_s) >= WAIT_S:
            self._mesh.loop.call_soon(on_failed)
            return
        self._pending[notice] = None
        self._lanes.put(notice)
        if not self._is_sweeping and notice in self._pending:
            self._is_sweeping = True
            self._mesh.loop.call_later(SWEEP_S, self._sweep)

    def over(self, notice: _Notice) -> None:
        """It is the other's, or failed."""
        self._pending.pop(notice, None)

    def _sweep(self) -> None:
        """Give up what could not even be sent in time; what was sent is answered, or its owner dies."""
        now_s = self._clock.monotonic_s()
        late: dict[int, dict[Freight, _Notice]] = {}
        for notice in self._pending:
            if now_s - notice.since_s < WAIT_S:
                break
            if not self._lanes.is_open(notice.owner):
                late.setdefault(notice.owner, {})[notice] = notice
        for owner, notices in late.items():
            for freight in self._lanes.take_back(owner, notices.keys()):
                notice = notices[freight]
                if notice.was_sent:
                    self._withdrawn.setdefault(owner, set()).add(notice.asked_as)
                notice.fail()
        self._is_sweeping = bool(self._pending)
        if self._is_sweeping:
            self._mesh.loop.call_later(SWEEP_S, self._sweep)

    def _on_down(self, link: Link) -> None:
        self._down_since_s.setdefault(link.worker, self._clock.monotonic_s())

    def _on_settled(self, link: Link) -> None:
        self._down_since_s.pop(link.worker, None)
        self._withdrawn.pop(link.worker, None)

    def _is_withdrawn(self, worker: int, ask: frames.Ask) -> bool:
        return (ask.log, ask.seq, ask.id, tuple(ask.recipients)) in self._withdrawn.get(worker, ())
