"""Links: one Unix socket between every two workers, written once a loop turn.

The worker with the higher number connects, the other listens; a link whose peer died is tried again until the
supervisor has restarted it. A link breaks only because a process died (a bug in a handler ends the process), so a
new connection is a new life of one of the two. Answers belong to the life that asked: refs are counted anew by a
worker that was restarted.

Both sides begin with `Hello`. What the last life left open is then decided, and each says `Settled` when that is on
stable storage; a worker takes up what it found on its disk when all others have said it.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

from mta.handoff import frames
from mta.handoff.frames import Frame, FrameReader, Hello

RECONNECT_S = 0.05  # a restarted worker is back in well under a second


def socket_path(directory: Path, worker: int) -> Path:
    """Where a worker listens for the others."""
    return directory / f"{worker}.sock"


def _address(path: Path) -> str:
    """An address that fits into sockaddr_un (108 bytes) however long the path is."""
    if len(os.fsencode(path)) < 100:
        return str(path)
    return f"/proc/self/fd/{os.open(path.parent, os.O_PATH | os.O_CLOEXEC)}/{path.name}"


class Link:
    """The way to one other worker, whether a connection stands or not."""

    def __init__(self, mesh: "Mesh", worker: int) -> None:
        self.worker = worker
        self.is_up = False
        """Both have said `Hello`."""
        self.is_settled = False
        """The other has said `Settled`."""
        self.life = 0
        """Which connection this is: see `answer`."""
        self._mesh = mesh
        self._peer_born_s = 0.0
        self._has_settled = False
        self._wire: LinkWire | None = None
        self._gather: list[bytes] = []
        self._long: deque[tuple[Frame, bytes]] = deque()
        self._long_at = 0
        self._is_full = False
        self._scheduled = False

    @property
    def is_greeting(self) -> bool:
        """Our `Hello` is on its way, the other's has not come yet."""
        return self._wire is not None and not self.is_up

    @property
    def is_connected(self) -> bool:
        """A connection stands, if only just."""
        return self._wire is not None

    def send(self, frame: Frame, body: bytes = b"") -> None:
        """Write a frame at the end of this loop turn; dropped where the link is down (`Hello` settles it).

        Frames go in order, but one with a body over `PIECE_BYTES` lets later ones pass. What waits to be written is
        bounded by those who send: offers and moves have a credit each, and all else is small.
        """
        if self._wire is None:
            return
        if len(body) > frames.PIECE_BYTES:
            self._long.append((frame, body))
        else:
            self._gather.append(frames.encode(frame, len(body)))
            if body:
                self._gather.append(body)
        if not self._scheduled:
            self._scheduled = True
            self._mesh.loop.call_soon(self._flush)

    def answer(self, life: int, frame: Frame) -> None:
        """Send to whom a question came from in that life; nothing where that process is gone."""
        if life == self.life:
            self.send(frame)

    def _flush(self) -> None:
        self._scheduled = False
        if self._wire is None:
            return
        if self._long and not self._is_full:
            self._gather_piece()
        if self._gather:
            gathered, self._gather = self._gather, []
            self._wire.transport.write(b"".join(gathered))
        if self._long and not self._is_full and not self._scheduled:
            self._scheduled = True
            self._mesh.loop.call_soon(self._flush)

    def _gather_piece(self) -> None:
        """A piece a turn: what comes in the next turn goes before the next piece."""
        frame, body = self._long[0]
        piece = body[self._long_at : self._long_at + frames.PIECE_BYTES]
        self._long_at += len(piece)
        if self._long_at < len(body):
            self._gather.append(frames.encode_piece(len(piece)))
        else:
            self._gather.append(frames.encode_last(frame, len(piece)))
            self._long.popleft()
            self._long_at = 0
        self._gather.append(piece)

    def full(self, is_full: bool) -> None:
        """The other does not read as fast as we write: long bodies wait."""
        self._is_full = is_full
        if not is_full and self._long and not self._scheduled:
            self._scheduled = True
            self._mesh.loop.call_soon(self._flush)

    def attach(self, wire: "LinkWire") -> None:
        """A connection stands: say hello."""
        if self._wire is not None:
            old = self._wire  # its end has not been seen yet, but there is a new process already
            self.lost(old)
            old.transport.abort()
        self._wire = wire
        self.life += 1
        self.send(self._mesh.hello(self.worker))

    def hello(self, hello: Hello) -> None:
        """The peer said hello: what the last link left open can be settled."""
        self.is_up = True
        self._peer_born_s = hello.born_s
        self._mesh.link_up(self, hello)

    def is_late(self, hello: Hello) -> bool:
        """Whether somebody says hello who is dead: his successor was heard before."""
        return hello.born_s < self._peer_born_s

    def settle(self) -> None:
        """Say once in each life that nothing of the last one is open here."""
        if self.is_up and not self._has_settled:
            self._has_settled = True
            self.send(frames.Settled())

    def is_of(self, wire: "LinkWire") -> bool:
        """Whether this connection is the one that counts."""
        return wire is self._wire

    def lost(self, wire: "LinkWire") -> None:
        """The connection broke: the peer died."""
        if wire is not self._wire:
            return
        self._wire = None
        self._gather.clear()
        self._long.clear()
        self._long_at = 0
        self._is_full = self._has_settled = self.is_settled = False
        was_up, self.is_up = self.is_up, False
        if was_up:
            self._mesh.link_down(self)

    def close(self) -> None:
        """Stop for good."""
        if self._wire is not None:
            self._wire.transport.abort()


class LinkWire(asyncio.Protocol):
    """One connection of a link."""

    transport: asyncio.Transport

    def __init__(self, mesh: "Mesh", link: Link | None) -> None:
        self._mesh = mesh
        self._link = link
        self._reader = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of asyncio's
        if self._link is not None:
            self._link.attach(self)

    def data_received(self, data: bytes) -> None:
        handlers = self._mesh.handlers
        link = self._link
        for frame, body in self._reader.receive(data):
            kind = type(frame)
            if kind is Hello:
                assert isinstance(frame, Hello)
                if link is None:
                    if self._mesh.links[frame.worker].is_late(frame):
                        self.transport.abort()
                        return
                    link = self._link = self._mesh.links[frame.worker]
                    link.attach(self)
                if link.is_of(self):
                    link.hello(frame)
                continue
            assert link is not None, "a link begins with Hello"
            if not link.is_of(self):
                return  # the rest of a life that is over
            handlers[kind](link, frame, body)

    def pause_writing(self) -> None:
        if self._link is not None and self._link.is_of(self):
            self._link.full(True)

    def resume_writing(self) -> None:
        if self._link is not None and self._link.is_of(self):
            self._link.full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._link is not None:
            self._link.lost(self)


class Mesh:
    """All links of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, me: int, workers: int, directory: Path) -> None:
        self.loop = loop
        self.me = me
        self.born_s = loop.time()
        self.links = {worker: Link(self, worker) for worker in range(workers) if worker != me}
        self.handlers: dict[type, Callable[[Link, Frame, bytes], None]] = {frames.Settled: self._on_settled}
        self.hello: Callable[[int], Hello] = lambda worker: Hello(me, [], [], self.born_s)
        """What to say to a worker when a link to it stands."""
        self.on_up: list[Callable[[Link, Hello], None]] = []
        self.on_down: list[Callable[[Link], None]] = []
        self.on_settled: list[Callable[[Link], None]] = []
        """The other side has decided what the last life left open."""
        self.is_decided: list[Callable[[int], bool]] = []
        """Whether nothing is open here that a worker's last life left; `settle` is called when one may have changed."""
        self.were_all_settled = not self.links
        """Every other worker has settled at least once: nobody has questions left about what we found on our disk."""
        self._directory = directory
        self._server: asyncio.AbstractServer | None = None
        self._callers: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._all_up = asyncio.Event()
        if not self.links:
            self._all_up.set()

    async def start(self) -> None:
        """Listen for the workers above, call those below."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = socket_path(self._directory, self.me)
        path.unlink(missing_ok=True)
        self._server = await self.loop.create_unix_server(lambda: LinkWire(self, None), _address(path), backlog=64)
        for worker, link in self.links.items():
            if worker < self.me:
                self._callers.append(self.loop.create_task(self._keep_calling(link)))

    async def _keep_calling(self, link: Link) -> None:
        address = _address(socket_path(self._directory, link.worker))
        while True:
            if not link.is_connected:
                try:
                    await self.loop.create_unix_connection(lambda: LinkWire(self, link), address)
                except OSError:
                    pass
            await asyncio.sleep(RECONNECT_S)

    async def all_up(self, timeout_s: float) -> bool:
        """Wait until every link stands and is settled; False where one still is not after that time."""
        try:
            await asyncio.wait_for(self._all_up.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def link_up(self, link: Link, hello: Hello) -> None:
        """A link stands; those who wait for it go on."""
        for tell in self.on_up:
            tell(link, hello)
        self.settle(link.worker)

    def settle(self, worker: int) -> None:
        """Tell a worker that all is decided, when it is."""
        link = self.links.get(worker)
        if link is not None and all(is_decided(worker) for is_decided in self.is_decided):
            link.settle()

    def _on_settled(self, link: Link, frame: Frame, body: bytes) -> None:
        link.is_settled = True
        if all(each.is_settled for each in self.links.values()):
            self.were_all_settled = True
            self._all_up.set()
        for tell in self.on_settled:
            tell(link)

    def link_down(self, link: Link) -> None:
        """A worker died; those who wait for its answers decide."""
        if self._is_closing:
            return
        self._all_up.clear()
        for tell in self.on_down:
            tell(link)

    def broadcast(self, frame: Frame) -> None:
        """To all others."""
        for link in self.links.values():
            link.send(frame)

    async def close(self) -> None:
        """Stop listening and calling, break all links; nobody is told of that."""
        self._is_closing = True
        for caller in self._callers:
            caller.cancel()
        if self._server is not None:
            self._server.close()
        for link in self.links.values():
            link.close()
        socket_path(self._directory, self.me).unlink(missing_ok=True)
