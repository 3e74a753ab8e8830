"""Listeners: the sockets that applications connect to, who may come in, and the deadlines of all sessions.

The supervisor has bound the sockets; a worker listens on its own once the links to the other workers are up, so
that no client is greeted before its mail can be handed over.

Connections are accepted here and not by the loop's own server: where a process has no descriptor left, uvloop drops
the clients that come, and closes the listening socket for good when it cannot even do that. Here accepting pauses,
clients wait in the kernel's queue, and about a second later it is tried again.
"""

import asyncio
import contextlib
import ipaddress
import resource
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from mta.model.clock import Clock
from mta.smtp import replies
from mta.smtp.server import ServerSettings
from mta.submission.accept import Acceptor
from mta.submission.session import Session, SessionLimits

CONNECTIONS_MAX = 10_000  # of one worker: each costs some kilobytes and a descriptor
DESCRIPTORS_SHARE = 0.5  # of the process's descriptors that sessions may use: deliveries and logs need theirs
CONNECTIONS_PER_CLIENT_MAX = 2_000  # of one address: a load test from one machine fits, a runaway client does not
CLIENT_PREFIX_IPV6 = 64  # bits that one client is known by: it may choose among the other 64 as it likes
BACKLOG = 4096  # connections that the kernel keeps for us while we are busy, or being restarted
ACCEPTED_AT_ONCE_MAX = 64  # in one turn of the loop, so that a flood of connections does not stop the sessions
SWEEP_S = 1.0
KNOWN_CLIENTS_MAX = 10_000  # remembered answers to "is this address trusted"

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class ListenerSettings(msgspec.Struct, frozen=True):
    """One `[[listener]]`, as a worker needs it."""

    hostname: str
    size_max_bytes: int
    recipients_max: int
    trusted: tuple[str, ...]
    addresses: Literal["strict", "japan"] = "strict"
    long_lines: Literal["refuse", "pass"] = "refuse"
    tenant: str = ""
    hide_client: bool = False


class Visitor(NamedTuple):
    """What is known of a client by its address."""

    client: str
    """The address as it is told: an IPv4 address that came over an IPv6 socket as what it is, without a zone."""
    network: str
    """What its connections are counted by: the address, or the network of an IPv6 address."""
    is_trusted: bool
    """It may relay."""


class Listener:
    """One `[[listener]]` of one worker: makes a session for every client."""

    def __init__(self, doors: "Doors", settings: ListenerSettings, bound: socket.socket) -> None:
        self.settings = settings
        self.doors = doors
        self._socket = bound
        self._networks = [_network(trusted) for trusted in settings.trusted]
        self._visitors: dict[str, Visitor] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_paused = True
        """Nobody is let in: not yet, or not now, for want of descriptors or memory."""
        self._server_settings = {
            relay: ServerSettings(
                hostname=settings.hostname,
                size_max=settings.size_max_bytes,
                recipients_max=settings.recipients_max,
                addresses=settings.addresses,
                long_lines=settings.long_lines,
                relay=relay,
            )
            for relay in (False, True)
        }

    def visitor(self, peer: str) -> Visitor:
        """Who a client is, by the address that the socket tells."""
        known = self._visitors.get(peer)
        if known is None:
            if len(self._visitors) >= KNOWN_CLIENTS_MAX:
                self._visitors.clear()
            known = self._visitors[peer] = self._look(peer)
        return known

    def _look(self, peer: str) -> Visitor:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return Visitor(peer, peer, False)
        network = ""
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            else:
                network = str(ipaddress.ip_network((int(address), CLIENT_PREFIX_IPV6), strict=False))
        trusted = any(address.version == each.version and address in each for each in self._networks)
        return Visitor(str(address), network or str(address), trusted)

    def server_settings(self, trusted: bool) -> ServerSettings:
        """What the dialogue must know of a client."""
        return self._server_settings[trusted]

    def open(self) -> None:
        """Let clients in, for the first time or again."""
        if not self.is_paused:
            return
        self.is_paused = False
        self.doors.loop.add_reader(self._socket, self._accept)

    def pause(self) -> None:
        """Clients wait in the kernel's queue from now on."""
        if self.is_paused:
            return
        self.is_paused = True
        self.doors.loop.remove_reader(self._socket)

    def close(self) -> None:
        """For good: whoever comes from now on is refused by the kernel."""
        self.pause()
        with contextlib.suppress(OSError):
            # The supervisor holds the same socket: to close ours alone would leave clients waiting in its queue.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        doors = self.doors
        for _ in range(ACCEPTED_AT_ONCE_MAX):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it went before we came
            except OSError:
                # No descriptor or memory left (EMFILE, ENFILE, ENOBUFS, ENOMEM): the next sweep tries again.
                doors.pauses += 1
                self.pause()
                return
            accepted.setblocking(False)
            visitor = self.visitor(address[0])
            refusal = doors.refusal(visitor.network)
            spoke_first = False
            try:
                if refusal:
                    accepted.send(refusal)
                else:
                    spoke_first = bool(accepted.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                pass  # as it should be: it waits for our greeting
            except OSError:
                refusal = refusal or b"gone"
            if refusal:
                accepted.close()
                continue
            doors.count(visitor.network)
            task = doors.loop.create_task(self._enter(accepted, Session(self, visitor, spoke_first=spoke_first)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _enter(self, accepted: socket.socket, session: Session) -> None:
        try:
            await self.doors.loop.connect_accepted_socket(lambda: session, accepted)
        except OSError:
            accepted.close()
            if session not in self.doors.sessions:
                self.doors.left(session)


class Doors:
    """All listeners and sessions of a worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        acceptor: Acceptor,
        *,
        limits: SessionLimits | None = None,
        connections_max: int = 0,
        connections_per_client_max: int = CONNECTIONS_PER_CLIENT_MAX,
    ) -> None:
        """`connections_max` 0: as many as the process's descriptors allow, at most CONNECTIONS_MAX."""
        self.loop = loop
        self.clock = clock
        self.acceptor = acceptor
        self.limits = limits or SessionLimits()
        self.sessions: set[Session] = set()
        self.clients: Counter[str] = Counter()
        """Connections by client."""
        self.connections = 0
        """Open now, those included that are just coming in."""
        self.is_closing = False
        self.pauses = 0
        """How often accepting was paused for want of descriptors or memory."""
        self.turned_away = 0
        """Clients that were told that there are too many connections."""
        self._connections_max = connections_max or _connections_max()
        self._connections_per_client_max = connections_per_client_max
        self.listeners: list[Listener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def open(self, sockets: Sequence[tuple[socket.socket, ListenerSettings]]) -> None:
        """Let clients in on sockets that are bound."""
        for bound, settings in sockets:
            bound.setblocking(False)
            bound.listen(BACKLOG)
            listener = Listener(self, settings, bound)
            self.listeners.append(listener)
            listener.open()
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)

    def refusal(self, network: str) -> bytes:
        """The greeting for a client that cannot come in now; b"" where it can."""
        if self.is_closing:
            return replies.SHUTTING_DOWN
        if self.connections >= self._connections_max or self.clients[network] >= self._connections_per_client_max:
            self.turned_away += 1
            return replies.TOO_MANY_CONNECTIONS
        return b""

    def count(self, network: str) -> None:
        """A client is coming in."""
        self.connections += 1
        self.clients[network] += 1
        self._empty.clear()

    def entered(self, session: Session) -> None:
        """It has its transport now."""
        self.sessions.add(session)

    def left(self, session: Session) -> None:
        """Its connection is gone."""
        self.sessions.discard(session)
        self.connections -= 1
        self.clients[session.network] -= 1
        if self.clients[session.network] <= 0:
            del self.clients[session.network]
        if not self.connections:
            self._empty.set()

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)
        self.check()

    def check(self) -> None:
        """The deadlines of all sessions; and a listener that ran out of descriptors tries again."""
        now_s = self.clock.monotonic_s()
        for session in list(self.sessions):
            session.check_deadlines(now_s)
        for listener in self.listeners:
            listener.open()

    async def close(self, within_s: float) -> None:
        """No new clients; sessions end when their message is answered, the rest is cut off after that time."""
        self.is_closing = True
        for session in list(self.sessions):
            session.shut_down()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), within_s)
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
        for session in list(self.sessions):
            session.cut_off()
        if self._timer is not None:
            self._timer.cancel()


def _connections_max() -> int:
    """As many sessions as leave descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(1, min(CONNECTIONS_MAX, int(soft * DESCRIPTORS_SHARE)))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A trusted network; one of IPv4 addresses written in IPv6 form is what it means."""
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network((int(mapped or 0), network.prefixlen - 96))
    return network
