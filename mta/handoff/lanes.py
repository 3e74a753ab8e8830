"""Lanes: how something gets durably from this worker's hands into another's log, whatever dies on the way.

In this order, so that no crash loses or doubles it: written down there as arriving (nothing is done with it yet),
recorded here, then let go there. What a crash leaves arriving is settled by asking the origin's log
(`mta.handoff.arrivals`); nothing leaves, again or elsewhere, before that is done.
"""

from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol

from mta.handoff import frames
from mta.handoff.arrivals import Arrivals
from mta.handoff.frames import Frame
from mta.handoff.link import Link, Mesh
from mta_queue.store import Origin

OPEN_BYTES_MAX = 8 * 1024 * 1024  # a worker's credit: content of what it was sent and has not answered yet


class Freight(Protocol):
    """What goes to another worker."""

    owner: int
    """The worker that gets it."""
    origin: Origin
    """The item here whose record says whether it is the other's."""
    size: int
    """Bytes of its content."""

    def read(self, done: Callable[[bytes | None], None]) -> None:
        """Fetch the content; None: it cannot be read, and `unreadable` follows."""
        ...

    def frame(self, ref: int) -> frames.Move:
        """What is said of it."""
        ...

    def record(self, on_durable: Callable[[], None]) -> None:
        """It is on stable storage there: record that here, and say when this is durable."""
        ...

    def left(self) -> None:
        """It is the other's."""
        ...

    def unreadable(self) -> None:
        """Its content is not to be had; it stays where it is."""
        ...

    def declined(self) -> None:
        """The other cannot write now, and nothing of it is there."""
        ...


class _Leaving:
    """What leaves one item and is being recorded here."""

    __slots__ = ("asked", "count")

    def __init__(self) -> None:
        self.count = 0
        self.asked: list[Callable[[], None]] = []
        """Who wants to know when that is done."""


class _Lane:
    """What goes to one worker."""

    __slots__ = ("open_bytes", "sent", "taken", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Freight] = deque()
        self.sent: dict[int, Freight] = {}
        """By ref, until it is the other's."""
        self.taken: set[int] = set()
        """Those of them that are on stable storage there."""
        self.open_bytes = 0
        """Content of what is being read or was sent."""


class Lanes:
    """The ways from this worker to all workers, itself included."""

    def __init__(self, mesh: Mesh, is_decided_here: Callable[[], bool]) -> None:
        """`is_decided_here`: nothing is open that a former life of this worker sent to itself."""
        self.arrivals: Arrivals
        self._mesh = mesh
        self._me = mesh.me
        self._is_decided_here = is_decided_here
        self._ref = 0
        self._lanes = {worker: _Lane() for worker in (self._me, *mesh.links)}
        self._leaving: dict[Origin, _Leaving] = {}
        mesh.handlers[frames.Arrived] = self._on_arrived_there
        mesh.handlers[frames.Declined] = self._on_declined
        mesh.on_down.append(self._on_down)
        mesh.on_settled.append(lambda link: self.start_all())

    @property
    def count(self) -> int:
        """What is not the other's yet."""
        return sum(len(lane.waiting) + len(lane.sent) for lane in self._lanes.values())

    @property
    def left_open(self) -> int:
        """Credit in use and records under way: nothing when all is done."""
        return sum(lane.open_bytes for lane in self._lanes.values()) + len(self._leaving)

    def put(self, freight: Freight) -> None:
        """Send it as soon as the other can take it."""
        self._lanes[freight.owner].waiting.append(freight)
        self._start(freight.owner)

    def take_back(self, owner: int, unwanted: Collection[Freight]) -> list[Freight]:
        """Do not send these after all. -> those that were not sent yet; of the others an answer comes, or the other
        worker dies."""
        lane = self._lanes[owner]
        taken = [freight for freight in lane.waiting if freight in unwanted]
        if taken:
            lane.waiting = deque(freight for freight in lane.waiting if freight not in unwanted)
        return taken

    def is_open(self, owner: int) -> bool:
        """Whether nothing is undecided that a former life of either side left."""
        if not self._mesh.were_all_settled:
            return False
        return self._is_decided_here() if owner == self._me else self._mesh.links[owner].is_settled

    def start_all(self) -> None:
        """Something was decided: go on."""
        for owner in self._lanes:
            self._start(owner)

    def when_recorded(self, origin: Origin, then: Callable[[], None]) -> bool:
        """Call `then` when what leaves this item is on stable storage; False where nothing is under way."""
        leaving = self._leaving.get(origin)
        if leaving is not None:
            leaving.asked.append(then)
        return leaving is not None

    def _start(self, owner: int) -> None:
        lane = self._lanes[owner]
        while lane.waiting and lane.open_bytes <= OPEN_BYTES_MAX and self.is_open(owner):
            freight = lane.waiting.popleft()
            lane.open_bytes += freight.size
            freight.read(partial(self._send, lane, freight))

    def _send(self, lane: _Lane, freight: Freight, content: bytes | None) -> None:
        if content is None:
            lane.open_bytes -= freight.size
            freight.unreadable()
            self._start(freight.owner)
            return
        if not self.is_open(freight.owner):
            lane.open_bytes -= freight.size
            lane.waiting.appendleft(freight)
            return
        self._ref += 1
        ref = self._ref
        lane.sent[ref] = freight
        frame = freight.frame(ref)
        if freight.owner == self._me:
            self.arrivals.take(
                self._me, frame, content, lambda: self._taken(self._me, ref), lambda _: self._declined(self._me, ref)
            )
        else:
            self._mesh.links[freight.owner].send(frame, content)

    def _taken(self, owner: int, ref: int) -> None:
        """The other worker wrote it down: record that here, then let it go there."""
        lane = self._lanes[owner]
        freight = lane.sent[ref]
        lane.taken.add(ref)
        origin = freight.origin
        leaving = self._leaving.setdefault(origin, _Leaving())
        leaving.count += 1

        def durable() -> None:
            del lane.sent[ref]
            lane.taken.remove(ref)
            lane.open_bytes -= freight.size
            if owner == self._me:
                self.arrivals.release(owner, ref)
            else:
                self._mesh.links[owner].send(frames.Gone(ref))
            leaving.count -= 1
            if not leaving.count:
                del self._leaving[origin]
                for ask in leaving.asked:
                    ask()
            freight.left()
            self._start(owner)

        freight.record(durable)

    def _declined(self, owner: int, ref: int) -> None:
        lane = self._lanes[owner]
        freight = lane.sent.pop(ref)
        lane.open_bytes -= freight.size
        freight.declined()

    def _on_arrived_there(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Arrived)
        self._taken(link.worker, frame.ref)

    def _on_declined(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Declined)
        self._declined(link.worker, frame.ref)

    def _on_down(self, link: Link) -> None:
        """The other worker died: what it did not say to have is sent again when it has settled."""
        lane = self._lanes[link.worker]
        lost = [ref for ref in lane.sent if ref not in lane.taken]
        for ref in reversed(lost):
            freight = lane.sent.pop(ref)
            lane.open_bytes -= freight.size
            lane.waiting.appendleft(freight)
