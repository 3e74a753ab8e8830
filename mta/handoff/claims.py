"""Claims: a destination changes its owner while it is in use, and the peer never sees both.

Whenever a reload changes who owns a destination, the new owner asks all others (`Claim`) before it opens the first
connection or sends the first message. A worker answers (`Yielded`) when it has no connection left beyond its own
share, and tells the state of its limits, so that no change of owner is a fresh burst. A claim from a later epoch
waits until this worker has reloaded too.
"""

from collections.abc import Callable
from functools import partial

from mta.handoff import frames
from mta.handoff.frames import Frame
from mta.handoff.link import Link, Mesh

LimitState = dict[str, dict[str, list[float]]]
"""Meter name -> its state, as `mta_policies.limits.Meter.state` gives it."""

Yielder = Callable[[str, str, Callable[[LimitState], None]], None]
"""(destination key, site, answer): calls `answer` when nothing beyond this worker's own share is open."""


class Claims:
    """Asks for destinations and answers those who ask."""

    def __init__(self, mesh: Mesh, epoch: int, yielder: Yielder) -> None:
        self.epoch = epoch
        self._mesh = mesh
        self._yielder = yielder
        self._ref = 0
        self._open: dict[int, _OpenClaim] = {}
        self._early: list[tuple[Link, frames.Claim]] = []
        mesh.handlers[frames.Claim] = self._on_claim
        mesh.handlers[frames.Yielded] = self._on_yielded
        mesh.on_down.append(self._on_down)

    def claim(self, key: str, site: str, on_granted: Callable[[list[LimitState]], None]) -> None:
        """Ask every other worker, and this one; `on_granted` with the states they handed over.

        A worker that is down has no connections and is not asked.
        """
        self._ref += 1
        ref = self._ref
        claim = frames.Claim(ref, self.epoch, key, site)
        waiting = {worker for worker, link in self._mesh.links.items() if link.is_up}
        self._open[ref] = _OpenClaim(waiting | {self._mesh.me}, on_granted)
        for worker in waiting:
            self._mesh.links[worker].send(claim)
        self._yielder(key, site, partial(self._answered, ref, self._mesh.me))

    def reloaded(self, epoch: int) -> None:
        """This worker has the policies of a new epoch: claims that came early are answered now."""
        self.epoch = epoch
        early, self._early = self._early, []
        for link, claim in early:
            self._on_claim(link, claim, b"")

    def _on_claim(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Claim)
        if frame.epoch > self.epoch:
            self._early.append((link, frame))
            return
        life = link.life
        self._yielder(frame.key, frame.site, lambda state: link.answer(life, frames.Yielded(frame.ref, state)))

    def _on_yielded(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Yielded)
        self._answered(frame.ref, link.worker, frame.state)

    def _answered(self, ref: int, worker: int, state: LimitState) -> None:
        claim = self._open.get(ref)
        if claim is None:
            return
        claim.waiting.discard(worker)
        if state:
            claim.states.append(state)
        if not claim.waiting:
            del self._open[ref]
            claim.on_granted(claim.states)

    def _on_down(self, link: Link) -> None:
        """A worker that died has no connections."""
        for ref in list(self._open):
            self._answered(ref, link.worker, {})
        self._early = [(early, claim) for early, claim in self._early if early is not link]


class _OpenClaim:
    __slots__ = ("on_granted", "states", "waiting")

    def __init__(self, waiting: set[int], on_granted: Callable[[list[LimitState]], None]) -> None:
        self.waiting = waiting
        self.on_granted = on_granted
        self.states: list[LimitState] = []
