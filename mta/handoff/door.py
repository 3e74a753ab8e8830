"""The door's side of a hand-off: give a message to every worker that owns one of its recipients, then say 250.

Content goes once to every owner. Only when all have written their share down is the client told; where one cannot,
the others forget theirs and the client gets a 4xx. While the worker that owns a destination is being restarted its
clients wait a few seconds; also those who are told to come again because it died with its share: they hear it when the
share is forgotten there, for were it said before, and this worker died too, nobody would have it forgotten.

What stays uncertain, as on any way of mail, is an owner that is not back in these seconds: its client is told to come
again, and what it perhaps had written down goes out where it had alone owned the message and delivered it before, or
where this worker dies before it could say that it is given up.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec

from mta.handoff import frames
from mta.handoff.frames import Frame, Hello
from mta.handoff.link import Link, Mesh
from mta.handoff.owner import Owner
from mta.handoff.placement import Placement
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope, Recipient

OWNER_WAIT_S = 5.0  # a restart takes less than one second; clients wait minutes
OFFERED_BYTES_MAX = 8 * 1024 * 1024  # a link's credit: what an owner has not answered yet; the rest waits at the door
CRASHES_MAX = 2  # an owner that died twice with the same message in its hands may have died of it

REFUSED_RESTARTING = b"451 4.3.2 The worker for this destination is being restarted, try again soon\r\n"
REFUSED_STORAGE = b"452 4.3.1 Cannot write the message down now, try again later\r\n"
REFUSED_CRASHES = b"451 4.3.0 This message could not be handled, it needs an administrator\r\n"


class _Submission:
    """One message on its way to its owners."""

    __slots__ = ("on_accepted", "on_refused", "open", "reply", "taken")

    def __init__(self, on_accepted: Callable[[], None], on_refused: Callable[[bytes], None], count: int) -> None:
        self.on_accepted = on_accepted
        self.on_refused = on_refused
        self.open = count
        self.reply = b""
        self.taken: list[_Offering] = []


class _Offering:
    """One owner's share of a message."""

    __slots__ = ("content", "crashes", "envelope", "hold", "link", "ref", "since_s", "submission")

    def __init__(
        self,
        submission: _Submission,
        link: Link | None,
        ref: int,
        envelope: Envelope,
        content: bytes,
        hold: bool,
        since_s: float,
    ) -> None:
        self.submission = submission
        self.link = link
        """None: this worker's own share."""
        self.ref = ref
        self.envelope = envelope
        self.content = content
        self.hold = hold
        self.crashes = 0
        self.since_s = since_s
        """Since when its client waits for a worker that is down."""


class _Window:
    """What one other worker has of this door's, and what waits for it."""

    __slots__ = (
        "abandoned",
        "abandoned_said",
        "forgetting",
        "held",
        "offered",
        "offered_bytes",
        "refusing",
        "waiting",
    )

    def __init__(self) -> None:
        self.waiting: deque[_Offering] = deque()
        """For credit, or for the link."""
        self.offered: dict[int, _Offering] = {}
        self.offered_bytes = 0
        self.held: dict[int, _Offering] = {}
        """Taken there, and not yet by all others who share the message."""
        self.forgetting: dict[int, tuple[str, Callable[[], None]]] = {}
        """ref -> message id, what to do when it is forgotten there."""
        self.abandoned: list[str] = []
        """Message ids that must be forgotten there and may not be yet."""
        self.abandoned_said = 0
        """How many of them the last `Hello` named."""
        self.refusing: list[tuple[float, Callable[[], None]]] = []
        """What goes on when they are forgotten: since when its client waits, what to do."""


class Door:
    """Hands messages that came in at this worker to their owners."""

    def __init__(self, placement: Placement, owner: Owner, mesh: Mesh, clock: Clock) -> None:
        self.placement = placement
        self._owner = owner
        self._mesh = mesh
        self._clock = clock
        self._ref = 0
        self._windows = {worker: _Window() for worker in mesh.links}
        mesh.hello = self._hello
        mesh.handlers[frames.Taken] = self._on_taken
        mesh.handlers[frames.Refused] = self._on_refused
        mesh.handlers[frames.Unknown] = self._on_unknown
        mesh.handlers[frames.Forgotten] = self._on_forgotten
        mesh.handlers[frames.Told] = self._on_told
        mesh.on_up.append(self._on_up)
        mesh.on_down.append(self._on_down)
        mesh.on_settled.append(self._on_settled)

    def submit(
        self,
        envelope: Envelope,
        content: bytes,
        on_accepted: Callable[[], None],
        on_refused: Callable[[bytes], None],
    ) -> None:
        """Get a message written down by its owners: then `on_accepted`, else `on_refused` with a reply to send."""
        now_s = self._clock.monotonic_s()
        owner_of = self.placement.owner
        recipients = envelope.recipients
        worker = owner_of(recipients[0].domain, now_s)
        if len(recipients) > 1:
            shares: dict[int, list[Recipient]] = {}
            for recipient in recipients:
                shares.setdefault(owner_of(recipient.domain, now_s), []).append(recipient)
            if len(shares) > 1:
                self._submit_shares(envelope, shares, content, on_accepted, on_refused, now_s)
                return
            (worker,) = shares
        envelope.told_recipients = []
        if worker == self.placement.me:
            self._owner.append(envelope, content, on_accepted, lambda _: on_refused(REFUSED_STORAGE))
        else:
            self._offer(worker, _Submission(on_accepted, on_refused, 1), envelope, content, False, now_s)

    def _submit_shares(
        self,
        envelope: Envelope,
        shares: dict[int, list[Recipient]],
        content: bytes,
        on_accepted: Callable[[], None],
        on_refused: Callable[[bytes], None],
        now_s: float,
    ) -> None:
        """Several owners: the first tells `received`, with all recipients."""
        submission = _Submission(on_accepted, on_refused, len(shares))
        told: list[str] | None = [recipient.address for recipient in envelope.recipients]
        for worker, share in shares.items():
            part = msgspec.structs.replace(envelope, recipients=share, told_recipients=told)
            told = None
            if worker == self.placement.me:
                self._hold_here(submission, part, content)
            else:
                self._offer(worker, submission, part, content, True, now_s)

    def _hold_here(self, submission: _Submission, envelope: Envelope, content: bytes) -> None:
        self._ref += 1
        offering = _Offering(submission, None, self._ref, envelope, b"", hold=True, since_s=0.0)
        self._owner.hold(
            self.placement.me,
            offering.ref,
            envelope,
            envelopes.encode(envelope),
            content,
            lambda: self._taken(offering),
            lambda _: self._failed(offering, REFUSED_STORAGE),
        )

    def _offer(
        self, worker: int, submission: _Submission, envelope: Envelope, content: bytes, hold: bool, now_s: float
    ) -> None:
        self._ref += 1
        link = self._mesh.links[worker]
        offering = _Offering(submission, link, self._ref, envelope, content, hold, now_s)
        window = self._windows[worker]
        if window.waiting or window.offered_bytes > OFFERED_BYTES_MAX or not link.is_up:
            window.waiting.append(offering)
        else:
            self._send(window, link, offering)

    def _send(self, window: _Window, link: Link, offering: _Offering) -> None:
        window.offered[offering.ref] = offering
        window.offered_bytes += len(offering.content)
        meta = envelopes.encode(offering.envelope)
        link.send(frames.Offer(offering.ref, meta, offering.hold), offering.content)

    def _answered(self, link: Link, ref: int) -> _Offering | None:
        window = self._windows[link.worker]
        offering = window.offered.pop(ref, None)
        if offering is not None:
            window.offered_bytes -= len(offering.content)
            self._send_waiting(link)
        return offering

    def _send_waiting(self, link: Link) -> None:
        window = self._windows[link.worker]
        while window.waiting and window.offered_bytes <= OFFERED_BYTES_MAX:
            self._send(window, link, window.waiting.popleft())

    def _taken(self, offering: _Offering) -> None:
        submission = offering.submission
        submission.open -= 1
        offering.content = b""
        submission.taken.append(offering)
        if offering.hold and offering.link is not None:
            self._windows[offering.link.worker].held[offering.ref] = offering
        if not submission.open:
            self._settle(submission)

    def _failed(self, offering: _Offering, reply: bytes) -> None:
        submission = offering.submission
        submission.open -= 1
        submission.reply = reply
        if not submission.open:
            self._settle(submission)

    def _settle(self, submission: _Submission) -> None:
        """All owners answered; those in `taken` are up, or they would have been taken out of it."""
        taken, submission.taken = submission.taken, []
        for offering in taken:
            if offering.link is not None:
                self._windows[offering.link.worker].held.pop(offering.ref, None)
        if not submission.reply:
            submission.on_accepted()
            for offering in taken:
                self._release(offering)
            return
        to_forget = len(taken)

        def forgotten() -> None:
            nonlocal to_forget
            to_forget -= 1
            if not to_forget:
                submission.on_refused(submission.reply)

        if not to_forget:
            submission.on_refused(submission.reply)
        for offering in taken:
            self._forget(offering, forgotten)

    def _release(self, offering: _Offering) -> None:
        if offering.link is None:
            self._owner.release(self.placement.me, offering.ref)
        elif offering.hold:
            offering.link.send(frames.Release(offering.ref))

    def _forget(self, offering: _Offering, forgotten: Callable[[], None]) -> None:
        if offering.link is None:
            self._owner.forget(self.placement.me, offering.ref, forgotten)
        else:
            window = self._windows[offering.link.worker]
            window.forgetting[offering.ref] = (offering.envelope.id, forgotten)
            offering.link.send(frames.Forget(offering.ref))

    # the links

    def _hello(self, worker: int) -> Hello:
        window = self._windows[worker]
        pending = [(ref, offering.envelope.id) for ref, offering in window.offered.items()]
        window.abandoned_said = len(window.abandoned)
        return Hello(self.placement.me, pending, window.abandoned[:], self._mesh.born_s)

    def _on_taken(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Taken)
        offering = self._answered(link, frame.ref)
        if offering is not None:
            self._taken(offering)

    def _on_refused(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Refused)
        offering = self._answered(link, frame.ref)
        if offering is not None:
            self._failed(offering, REFUSED_STORAGE)

    def _on_unknown(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Unknown)
        offering = self._answered(link, frame.ref)
        if offering is None:
            return
        offering.crashes += 1
        if offering.crashes >= CRASHES_MAX:
            self._failed(offering, REFUSED_CRASHES)
        else:
            self._send(self._windows[link.worker], link, offering)

    def _on_forgotten(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Forgotten)
        done = self._windows[link.worker].forgetting.pop(frame.ref, None)
        if done is not None:
            done[1]()

    def _on_told(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Told)
        if frame.epoch == self.placement.epoch:
            self.placement.tell(frame.domain, frame.owners, self._clock.monotonic_s() + frame.for_s)

    def _on_up(self, link: Link, hello: Hello) -> None:
        self._send_waiting(link)

    def _on_settled(self, link: Link) -> None:
        """What our `Hello` abandoned is forgotten there, on stable storage."""
        window = self._windows[link.worker]
        del window.abandoned[: window.abandoned_said]
        window.abandoned_said = 0
        refusing, window.refusing = window.refusing, []
        for _, refuse in refusing:
            refuse()

    def _on_down(self, link: Link) -> None:
        """The owner died: what it alone was offered is asked for again, a share of several owners' is given up."""
        window = self._windows[link.worker]
        window.abandoned_said = 0
        now_s = self._clock.monotonic_s()
        held, window.held = window.held, {}
        for offering in held.values():
            window.abandoned.append(offering.envelope.id)
            offering.submission.taken.remove(offering)
            offering.submission.open += 1
            window.refusing.append((now_s, partial(self._failed, offering, REFUSED_RESTARTING)))
        forgetting, window.forgetting = window.forgetting, {}
        for message_id, done in forgetting.values():
            window.abandoned.append(message_id)
            window.refusing.append((now_s, done))
        for offering in list(window.offered.values()):
            offering.since_s = now_s
            if offering.hold:
                self._abandon(window, offering)
                window.refusing.append((now_s, partial(self._failed, offering, REFUSED_RESTARTING)))
        for offering in window.waiting:
            offering.since_s = now_s

    def _abandon(self, window: _Window, offering: _Offering) -> None:
        del window.offered[offering.ref]
        window.offered_bytes -= len(offering.content)
        offering.content = b""
        window.abandoned.append(offering.envelope.id)

    def sweep(self, now_s: float) -> None:
        """Give up what a dead owner did not answer in time (`now_s`: monotonic); called about twice a second."""
        for worker, window in self._windows.items():
            while window.refusing and now_s - window.refusing[0][0] >= OWNER_WAIT_S:
                window.refusing.pop(0)[1]()
            link = self._mesh.links[worker]
            if link.is_up or link.is_greeting:  # our `Hello` is out: what it did not name as abandoned must stay
                continue
            while window.waiting and now_s - window.waiting[0].since_s >= OWNER_WAIT_S:
                self._failed(window.waiting.popleft(), REFUSED_RESTARTING)
            for offering in list(window.offered.values()):
                if now_s - offering.since_s >= OWNER_WAIT_S:
                    self._abandon(window, offering)
                    self._failed(offering, REFUSED_RESTARTING)

    @property
    def waiting_bytes(self) -> int:
        """Content of messages whose clients wait for an answer from another worker."""
        return sum(
            window.offered_bytes + sum(len(offering.content) for offering in window.waiting)
            for window in self._windows.values()
        )
