"""MemoryNetwork: connections between simulated processes, each way with a latency that never changes.

Bytes, ends and resets of one peer come in the order in which they were sent, over all its connections: who is told that
a connection is closed never sees a later one before it. When a process is killed its kernel closes what it had open.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

from mta.testing.simulated_loop import SimulatedLoop, SimulatedTime

LINK_S = 0.0003  # between processes of one machine
OWN_ADDRESS = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""What the system chooses for whoever names no address."""


class MemorySocket:
    """A socket that is not connected yet: its family, and the address that it is bound to."""

    def __init__(self, family: int, kind: int) -> None:
        self.family = family
        self.here = OWN_ADDRESS[socket.AddressFamily(family)]

    def bind(self, address: tuple[str, int]) -> None:
        """Goes out from this address. Raises OSError where it is of another family."""
        self.check(address[0])
        self.here = address[0]

    def check(self, address: str) -> None:
        """Raises OSError where an address is of another family."""
        if (":" in address) is not (self.family == socket.AF_INET6):
            raise OSError(97, "Address family not supported by protocol")

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, level: int, name: int, value: int) -> None:
        pass

    def close(self) -> None:
        pass


SOCKETS = SimpleNamespace(
    socket=MemorySocket,
    AF_INET=socket.AF_INET,
    AF_INET6=socket.AF_INET6,
    SOCK_STREAM=socket.SOCK_STREAM,
    IPPROTO_IP=socket.IPPROTO_IP,
)
"""In place of the module `socket`, for those who connect by a MemoryNetwork."""


class Peer(Protocol):
    """Who listens at an address."""

    latency_s: float

    def refusal(self) -> str:
        """How a new connection fares: "" it stands, "refused", or "lost" (nobody answers)."""
        ...

    def connected(self, transport: "MemoryTransport", client: SimulatedLoop) -> asyncio.Protocol:
        """A connection has come: who speaks on it."""
        ...


class MemoryTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, loop: SimulatedLoop, latency_s: float, here: str, there: str) -> None:
        super().__init__({"sockname": (here, 0), "peername": (there, 0)})
        self.loop = loop
        self.other: MemoryTransport
        self.protocol: asyncio.Protocol | None = None
        self.is_over = False
        """It neither says nor hears anything any more."""
        self.end_s = 0.0
        """When the other end learns of it."""
        self._latency_s = latency_s
        self._is_paused = False
        self._kept: list[Callable[[], None]] = []

    def _send(self, what: Callable[..., None], *args: Any) -> float:
        """The other end's loop runs it when it has come there."""
        loop = self.other.loop
        loop.world.stir()
        at_s = loop.world.now_s + self._latency_s
        loop.exactly_at(at_s, what, *args)
        return at_s

    # what protocols call

    def write(self, data: Any) -> None:
        if not self.is_over:
            self._send(self.other.receive, bytes(data))

    def write_eof(self) -> None:
        if not self.is_over:
            self._send(self.other.finish)

    def close(self) -> None:
        self._leave(self.other.finish)

    def abort(self) -> None:
        self._leave(self.other.reset)

    def is_closing(self) -> bool:
        return self.is_over

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._take_kept()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def _leave(self, tell: Callable[[], None]) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.end_s = self._send(tell)
        self.loop.call_soon(self._lost, None)

    def _lost(self, error: Exception | None) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def die(self) -> None:
        """Its process is gone."""
        if not self.is_over:
            self.is_over = True
            self.end_s = self._send(self.other.finish)
            self.protocol = None

    # what comes

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Who hears it from now on."""
        self.protocol = protocol
        protocol.connection_made(self)
        self._take_kept()

    def _take_kept(self) -> None:
        while self._kept and not self._is_paused:
            self._kept.pop(0)()

    def _keeps(self, what: Callable[[], None]) -> bool:
        if self.protocol is not None and not self._is_paused:
            return False
        self._kept.append(what)
        return True

    def receive(self, data: bytes) -> None:
        """Bytes."""
        if not self.is_over and not self._keeps(lambda: self.receive(data)):
            cast(asyncio.Protocol, self.protocol).data_received(data)

    def finish(self) -> None:
        """The other end says no more."""
        if self.is_over or self._keeps(self.finish):
            return
        if not cast(asyncio.Protocol, self.protocol).eof_received():
            self.close()

    def reset(self) -> None:
        """The other end is gone."""
        if not self.is_over and (self.protocol is not None or not self._keeps(self.reset)):
            self.is_over = True
            self._lost(ConnectionResetError(104, "Connection reset by peer"))


class _Server:
    """What `create_unix_server` returns."""

    def __init__(self, network: "MemoryNetwork", path: str) -> None:
        self._network = network
        self._path = path

    def close(self) -> None:
        self._network.paths.pop(self._path, None)


class MemoryNetwork:
    """Who listens where, and all that is open."""

    def __init__(self, time: SimulatedTime) -> None:
        self.time = time
        self.outside = SimulatedLoop(time, "the world")
        self.peers: dict[str, Peer] = {}
        """By address."""
        self.paths: dict[str, tuple[SimulatedLoop, Callable[[], Any]]] = {}
        self._open: dict[SimulatedLoop, list[MemoryTransport]] = {}
        self._coming: dict[int, MemoryTransport] = {}

    def pair(
        self, loop: SimulatedLoop, other: SimulatedLoop, latency_s: float, here: str = "", there: str = ""
    ) -> tuple[MemoryTransport, MemoryTransport]:
        """Both ends of a new connection, the first one at the address `here`."""
        one = MemoryTransport(loop, latency_s, here, there)
        two = MemoryTransport(other, latency_s, there, here)
        one.other, two.other = two, one
        for each in (one, two):
            known = self._open.setdefault(each.loop, [])
            known.append(each)
            if len(known) > 64 and known[0].is_over:
                self._open[each.loop] = [transport for transport in known if not transport.is_over]
        return one, two

    def kill(self, loop: SimulatedLoop) -> None:
        """A process is gone, and with it its ends of all connections."""
        for transport in self._open.pop(loop, []):
            transport.die()
        for path, (owner, _) in list(self.paths.items()):
            if owner is loop:
                del self.paths[path]
        loop.kill()

    # to peers outside

    async def connect(self, loop: SimulatedLoop, sock: MemorySocket, address: tuple[str, int]) -> None:
        """What `sock_connect` does."""
        sock.check(address[0])
        peer = self.peers.get(address[0])
        if peer is None:
            raise OSError(113, "No route to host")
        answered: asyncio.Future[MemoryTransport | None] = loop.create_future()
        given_up = False

        def answer(end: MemoryTransport | None) -> None:
            if not answered.done():
                answered.set_result(end)

        def arrives() -> None:
            refusal = peer.refusal()
            if refusal == "lost" or loop.is_dead:
                return
            if refusal or given_up:
                loop.exactly_at(loop.time() + peer.latency_s, answer, None)
                return
            here, there = self.pair(loop, self.outside, peer.latency_s, sock.here, address[0])
            ends.append(here)
            there.attach(peer.connected(there, loop))
            loop.exactly_at(loop.time() + peer.latency_s, answer, here)

        ends: list[MemoryTransport] = []
        self.time.stir()
        self.outside.exactly_at(loop.time() + peer.latency_s, arrives)
        try:
            end = await answered
        except asyncio.CancelledError:
            given_up = True
            for each in ends:
                each.abort()
            raise
        if end is None:
            raise ConnectionRefusedError(111, "Connection refused")
        self._coming[id(sock)] = end

    def established(self, loop: SimulatedLoop, sock: Any, protocol_factory: Callable[[], Any]) -> tuple[Any, Any]:
        """What `create_connection` of a connected socket does."""
        end = self._coming.pop(id(sock))
        sock.close()
        protocol = protocol_factory()
        end.attach(protocol)
        return end, protocol

    # between processes of the machine

    def listen(self, loop: SimulatedLoop, path: str, protocol_factory: Callable[[], Any]) -> _Server:
        """What `create_unix_server` does."""
        path = _resolved(path)
        self.paths[path] = (loop, protocol_factory)
        return _Server(self, path)

    def dial(self, loop: SimulatedLoop, path: str, protocol_factory: Callable[[], Any]) -> tuple[Any, Any]:
        """What `create_unix_connection` does. Raises OSError where nobody listens."""
        found = self.paths.get(_resolved(path))
        if found is None:
            raise ConnectionRefusedError(111, "Connection refused")
        server, serve = found
        here, there = self.pair(loop, server, LINK_S)
        server.call_soon(lambda: there.attach(serve()))
        protocol = protocol_factory()
        here.attach(protocol)
        return here, protocol


def _resolved(path: str) -> str:
    """A path by way of a folder's descriptor is the same as that by the folder's name."""
    folder, name = os.path.split(path)
    return str(Path(folder).resolve() / name)
