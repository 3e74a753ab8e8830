"""Listeners: the sockets that applications connect to, who may come in, and the deadlines of all sessions.

The supervisor has bound the sockets; a worker listens on its own once the links to the other workers are up, so
that no client is greeted before its mail can be handed over.
"""

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from mta.model.clock import Clock
from mta.smtp import replies
from mta.smtp.server import ServerSettings
from mta.submission.accept import Acceptor
from mta.submission.session import Session

CONNECTIONS_MAX = 10_000  # of one worker: each costs some kilobytes and a descriptor
CONNECTIONS_PER_CLIENT_MAX = 2_000  # of one address: a load test from one machine fits, a runaway client does not
BACKLOG = 4096  # connections that the kernel keeps for us while we are busy, or being restarted
SWEEP_S = 1.0
KNOWN_CLIENTS_MAX = 10_000  # remembered answers to "is this address trusted"


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


class Listener:
    """One `[[listener]]` of one worker: makes a session for every client."""

    def __init__(self, door: "Doors", settings: ListenerSettings) -> None:
        self.settings = settings
        self.doors = door
        self._networks = [ipaddress.ip_network(network, strict=False) for network in settings.trusted]
        self._trusted: dict[str, bool] = {}
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

    def is_trusted(self, client: str) -> bool:
        """Whether an address may relay."""
        known = self._trusted.get(client)
        if known is None:
            if len(self._trusted) >= KNOWN_CLIENTS_MAX:
                self._trusted.clear()
            known = self._trusted[client] = self._look(client)
        return known

    def _look(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address.version == network.version and address in network for network in self._networks)

    def server_settings(self, trusted: bool) -> ServerSettings:
        """What the dialogue must know of a client."""
        return self._server_settings[trusted]


class Doors:
    """All listeners and sessions of a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, acceptor: Acceptor) -> None:
        self.loop = loop
        self.clock = clock
        self.acceptor = acceptor
        self.sessions: set[Session] = set()
        self.clients: Counter[str] = Counter()
        self.is_closing = False
        self._servers: list[asyncio.AbstractServer] = []
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, sockets: Sequence[tuple[socket.socket, ListenerSettings]]) -> None:
        """Let clients in on sockets that are bound."""
        for bound, settings in sockets:
            listener = Listener(self, settings)
            self._servers.append(
                await self.loop.create_server(lambda listener=listener: Session(listener), sock=bound, backlog=BACKLOG)
            )
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)

    def refusal(self, client: str) -> bytes:
        """The greeting for a client that cannot come in now; b"" where it can."""
        if self.is_closing:
            return replies.SHUTTING_DOWN
        if len(self.sessions) >= CONNECTIONS_MAX or self.clients[client] >= CONNECTIONS_PER_CLIENT_MAX:
            return replies.TOO_MANY_CONNECTIONS
        return b""

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)
        now_s = self.loop.time()
        for session in list(self.sessions):
            session.check_deadlines(now_s)

    async def close(self, within_s: float) -> None:
        """No new clients; sessions end when their message is answered, the rest is cut off after that time."""
        self.is_closing = True
        for server in self._servers:
            server.close()
        for session in list(self.sessions):
            session.shut_down()
        end_s = self.loop.time() + within_s
        while self.sessions and self.loop.time() < end_s:
            await asyncio.sleep(0.02)
        for session in list(self.sessions):
            session.cut_off()
        if self._timer is not None:
            self._timer.cancel()
