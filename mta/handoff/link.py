"""Links: one Unix socket between every two workers, written once a loop turn.

The worker with the higher number connects, the other listens; a link whose peer died is tried again until the
supervisor has restarted it. What a broken link left open is settled by the `Hello` of the next one.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

from mta.handoff import frames
from mta.handoff.frames import Frame, FrameReader, Hello

RECONNECT_S = 0.05  # a restarted worker is back in well under a second
PAIR_BYTES = 1024 * 1024  # socket buffers: a turn's worth of 4 KB messages without a second write


def socket_path(directory: Path, worker: int) -> Path:
    """Where a worker listens for the others."""
    return directory / f"{worker}.sock"


def _address(path: Path) -> str:
    """An address that fits into sockaddr_un (108 bytes) however long the path is."""
    if len(os.fsencode(path)) < 100:
        return str(path)
    return f"/proc/self/fd/{os.open(path.parent, os.O_PATH | os.O_CLOEXEC)}/{path.name}"


class Link(asyncio.Protocol):
    """The way to one other worker, whether a connection stands or not."""

    def __init__(self, mesh: "Mesh", worker: int) -> None:
        self.worker = worker
        self.is_up = False
        self.down_since_s = mesh.loop.time()
        self._mesh = mesh
        self._wire: LinkWire | None = None
        self._gather: list[bytes] = []
        self._scheduled = False

    def send(self, frame: Frame, body: bytes = b"") -> None:
        """Write a frame at the end of this loop turn; dropped where the link is down (Hello settles it)."""
        if self._wire is None:
            return
        if len(body) > frames.PIECE_BYTES:
            body = self._send_pieces(frame, body)
        self._gather.append(frames.encode(frame, len(body)))
        if body:
            self._gather.append(body)
        if not self._scheduled:
            self._scheduled = True
            self._mesh.loop.call_soon(self._flush)

    def _send_pieces(self, frame: Frame, body: bytes) -> bytes:
        assert isinstance(frame, frames.Offer | frames.Move), "only content is that long"
        at = 0
        while len(body) - at > frames.PIECE_BYTES:
            piece = body[at : at + frames.PIECE_BYTES]
            self._gather.append(frames.encode(frames.Piece(frame.ref), len(piece)))
            self._gather.append(piece)
            at += frames.PIECE_BYTES
        return body[at:]

    def _flush(self) -> None:
        self._scheduled = False
        gathered, self._gather = self._gather, []
        if self._wire is not None and gathered:
            self._wire.transport.write(b"".join(gathered))

    def attach(self, wire: "LinkWire") -> None:
        """A connection stands: say hello."""
        if self._wire is not None:
            self._wire.transport.abort()
        self._gather.clear()
        self._wire = wire
        self.send(self._mesh.hello(self.worker))

    def hello(self, hello: Hello) -> None:
        """The peer said hello: what the last link left open can be settled."""
        self.is_up = True
        self._mesh.link_up(self, hello)

    def lost(self, wire: "LinkWire") -> None:
        """The connection broke: the peer died."""
        if wire is not self._wire:
            return
        self._wire = None
        self._gather.clear()
        was_up, self.is_up = self.is_up, False
        self.down_since_s = self._mesh.loop.time()
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
        self._pieces: dict[int, list[bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of asyncio's
        if self._link is not None:
            self._link.attach(self)

    def data_received(self, data: bytes) -> None:
        for frame, last in self._reader.receive(data):
            body = last
            kind = type(frame)
            if kind is Hello:
                assert isinstance(frame, Hello)
                if self._link is None:
                    self._link = self._mesh.links[frame.worker]
                    self._link.attach(self)
                self._link.hello(frame)
                continue
            assert self._link is not None, "a link begins with Hello"
            if kind is frames.Piece:
                assert isinstance(frame, frames.Piece)
                self._pieces.setdefault(frame.ref, []).append(body)
                continue
            if self._pieces and isinstance(frame, frames.Offer | frames.Move):
                pieces = self._pieces.pop(frame.ref, None)
                if pieces is not None:
                    body = b"".join([*pieces, body])
            self._mesh.handlers[kind](self._link, frame, body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._link is not None:
            self._link.lost(self)


class Mesh:
    """All links of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, me: int, workers: int, directory: Path) -> None:
        self.loop = loop
        self.me = me
        self.links = {worker: Link(self, worker) for worker in range(workers) if worker != me}
        self.handlers: dict[type, Callable[[Link, Frame, bytes], None]] = {}
        self.hello: Callable[[int], Hello] = lambda worker: Hello(me, [], [])
        """What to say to a worker when a link to it stands."""
        self.on_up: list[Callable[[Link, Hello], None]] = []
        self.on_down: list[Callable[[Link], None]] = []
        self._directory = directory
        self._server: asyncio.AbstractServer | None = None
        self._callers: list[asyncio.Task[None]] = []
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
            if link._wire is None:
                try:
                    await self.loop.create_unix_connection(lambda: LinkWire(self, link), address)
                except OSError:
                    pass
            await asyncio.sleep(RECONNECT_S)

    async def all_up(self, timeout_s: float) -> bool:
        """Wait until every link stands; False where one still does not after that time."""
        try:
            await asyncio.wait_for(self._all_up.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def link_up(self, link: Link, hello: Hello) -> None:
        """A link stands; those who wait for it go on."""
        for tell in self.on_up:
            tell(link, hello)
        if all(each.is_up for each in self.links.values()):
            self._all_up.set()

    def link_down(self, link: Link) -> None:
        """A worker died; those who wait for its answers decide."""
        self._all_up.clear()
        for tell in self.on_down:
            tell(link)

    def broadcast(self, frame: Frame) -> None:
        """To all others."""
        for link in self.links.values():
            link.send(frame)

    async def close(self) -> None:
        """Stop listening and calling, break all links."""
        for caller in self._callers:
            caller.cancel()
        if self._server is not None:
            self._server.close()
        for link in self.links.values():
            link.close()
        socket_path(self._directory, self.me).unlink(missing_ok=True)


def enlarge(connection: socket.socket) -> None:
    """Give a link's socket room for a turn's worth of mail."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, PAIR_BYTES)
