"""The door's side of a hand-off: give a message to every worker that owns one of its recipients, then say 250.

Content goes once to every owner. Only when all have written their share down is the client told; where one cannot,
the others forget theirs and the client gets a 4xx. While the worker that owns a destination is being restarted its
clients wait a few seconds.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from mta.handoff import frames
from mta.handoff.frames import Frame, Hello
from mta.handoff.link import Link, Mesh
from mta.handoff.owner import Owner
from mta.handoff.placement import Placement
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope

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

    __slots__ = ("content", "crashes", "envelope", "hold", "link", "ref", "sent", "since_s", "submission")

    def __init__(
        self, submission: _Submission, link: Link | None, ref: int, envelope: Envelope, content: bytes, hold: bool
    ) -> None:
        self.submission = submission
        self.link = link
        self.ref = ref
        self.envelope = envelope
        self.content = content
        self.hold = hold
        self.sent = False
        self.crashes = 0
        self.since_s = 0.0


class _Window:
    """What one link's owner has not answered yet, and what waits for credit."""

    __slots__ = ("abandoned", "forgetting", "held", "offered", "offered_bytes", "waiting")

    def __init__(self) -> None:
        self.offered: dict[int, _Offering] = {}
        self.waiting: deque[_Offering] = deque()
        self.offered_bytes = 0
        self.held: dict[int, _Offering] = {}
        self.abandoned: list[str] = []
        self.forgetting: dict[int, tuple[str, Callable[[], None]]] = {}


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

    def submit(
        self,
        envelope: Envelope,
        content: bytes,
        on_accepted: Callable[[], None],
        on_refused: Callable[[bytes], None],
    ) -> None:
        """Get a message written down by its owners: then `on_accepted`, else `on_refused` with a reply to send."""
        placement, now_s = self.placement, self._clock.monotonic_s()
        recipients = envelope.recipients
        me, worker = placement.me, placement.owner(recipients[0].domain, now_s)
        shares: dict[int, list[envelopes.Recipient]] = {}
        if len(recipients) > 1:
            chosen = {recipients[0].domain: worker}  # a domain's recipients stay together, also among several owners
            for recipient in recipients:
                owner = chosen.get(recipient.domain)
                if owner is None:
                    owner = chosen[recipient.domain] = placement.owner(recipient.domain, now_s)
                shares.setdefault(owner, []).append(recipient)
        if len(shares) < 2:
            envelope.told_recipients = []
            if worker == me:
                self._owner.append(envelope, content, on_accepted, lambda _: on_refused(REFUSED_STORAGE))
            else:
                submission = _Submission(on_accepted, on_refused, 1)
                self._offer(worker, submission, envelope, content, hold=False)
            return
        envelope.told_recipients = [recipient.address for recipient in recipients]
        submission = _Submission(on_accepted, on_refused, len(shares))
        tells = True
        for worker, share in shares.items():
            part = msgspec.structs.replace(
                envelope, recipients=share, told_recipients=envelope.told_recipients if tells else None
            )
            tells = False
            if worker == me:
                self._hold_here(submission, part, content)
            else:
                self._offer(worker, submission, part, content, hold=True)

    def _hold_here(self, submission: _Submission, envelope: Envelope, content: bytes) -> None:
        self._ref += 1
        offering = _Offering(submission, None, self._ref, envelope, content, hold=True)
        self._owner.hold(
            self.placement.me,
            offering.ref,
            envelope,
            envelopes.encode(envelope),
            content,
            lambda: self._taken(offering),
            lambda _: self._failed(offering, REFUSED_STORAGE),
        )

    def _offer(self, worker: int, submission: _Submission, envelope: Envelope, content: bytes, hold: bool) -> None:
        self._ref += 1
        offering = _Offering(submission, self._mesh.links[worker], self._ref, envelope, content, hold)
        offering.since_s = self._clock.monotonic_s()
        window = self._windows[worker]
        if window.waiting or window.offered_bytes > OFFERED_BYTES_MAX or not self._mesh.links[worker].is_up:
            window.waiting.append(offering)
        else:
            self._send(window, offering)

    def _send(self, window: _Window, offering: _Offering) -> None:
        assert offering.link is not None, "own shares cross no link"
        offering.sent = True
        window.offered[offering.ref] = offering
        window.offered_bytes += len(offering.content)
        envelope = offering.envelope
        offer = frames.Offer(
            offering.ref,
            envelope.id,
            envelopes.encode(envelope),
            len(envelope.recipients),
            offering.hold,
            envelope.send_at_s,
        )
        offering.link.send(offer, offering.content)

    def _answered(self, link: Link, ref: int) -> _Offering | None:
        window = self._windows[link.worker]
        offering = window.offered.pop(ref, None)
        if offering is not None:
            window.offered_bytes -= len(offering.content)
            self._send_waiting(window)
        return offering

    def _send_waiting(self, window: _Window) -> None:
        while window.waiting and window.offered_bytes <= OFFERED_BYTES_MAX:
            self._send(window, window.waiting.popleft())

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
        """All owners answered."""
        for offering in submission.taken:
            if offering.link is not None:
                self._windows[offering.link.worker].held.pop(offering.ref, None)
        if not submission.reply:
            submission.on_accepted()
            for offering in submission.taken:
                if offering.hold:
                    if offering.link is None:
                        self._owner.release(self.placement.me, offering.ref)
                    else:
                        offering.link.send(frames.Release(offering.ref))
            return
        to_forget = len(submission.taken)

        def forgotten() -> None:
            nonlocal to_forget
            to_forget -= 1
            if not to_forget:
                submission.on_refused(submission.reply)

        if not to_forget:
            submission.on_refused(submission.reply)
        for offering in submission.taken:
            if offering.link is None:
                self._owner.forget(self.placement.me, offering.ref, forgotten)
            elif offering.link.is_up:
                window = self._windows[offering.link.worker]
                window.forgetting[offering.ref] = (offering.envelope.id, forgotten)
                offering.link.send(frames.Forget(offering.ref))
            else:
                self._windows[offering.link.worker].abandoned.append(offering.envelope.id)
                forgotten()

    # the links

    def _hello(self, worker: int) -> Hello:
        window = self._windows[worker]
        pending = [(ref, offering.envelope.id) for ref, offering in window.offered.items()]
        abandoned, window.abandoned = window.abandoned, []
        return Hello(self.placement.me, pending, abandoned)

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
            self._send(self._windows[link.worker], offering)

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
        self._send_waiting(self._windows[link.worker])

    def _on_down(self, link: Link) -> None:
        """The owner died: what it alone was offered is asked for again, a share of several owners' is given up."""
        window = self._windows[link.worker]
        for offering in list(window.held.values()):
            window.abandoned.append(offering.envelope.id)
            offering.submission.taken.remove(offering)
            offering.submission.reply = REFUSED_RESTARTING
        window.held.clear()
        for offering in list(window.offered.values()):
            offering.since_s = link.down_since_s
            if offering.hold:
                self._give_up(window, offering)
        forgetting, window.forgetting = window.forgetting, {}
        for message_id, done in forgetting.values():
            window.abandoned.append(message_id)
            done()

    def _give_up(self, window: _Window, offering: _Offering) -> None:
        del window.offered[offering.ref]
        window.offered_bytes -= len(offering.content)
        window.abandoned.append(offering.envelope.id)
        self._failed(offering, REFUSED_RESTARTING)

    def sweep(self, now_s: float) -> None:
        """Give up what a dead owner did not answer in time; called about twice a second."""
        for worker, window in self._windows.items():
            if self._mesh.links[worker].is_up:
                continue
            while window.waiting and now_s - window.waiting[0].since_s > OWNER_WAIT_S:
                self._failed(window.waiting.popleft(), REFUSED_RESTARTING)
            late = [offering for offering in window.offered.values() if now_s - offering.since_s > OWNER_WAIT_S]
            for offering in late:
                self._give_up(window, offering)

    @property
    def waiting_bytes(self) -> int:
        """Content of messages whose clients wait for an answer from another worker."""
        return sum(
            window.offered_bytes + sum(len(offering.content) for offering in window.waiting)
            for window in self._windows.values()
        )
