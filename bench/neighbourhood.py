"""A neighbourhood: thousands of small mail hosts, each with an address of its own, and one temper for all of them.

The long tail of the Internet's mail hosts, for the sink: every address of a network such as 127.64.0.0/10 is a
host. One socket hears for all of them; the address that a connection came to says which host it is meant for.
"""

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
from typing import cast

from bench.provider import Listener, Provider, SinkConnection
from bench.temper import Bucket, Profile

LOOPBACK = b"lo"


def wildcard_socket(port: int) -> socket.socket:
    """Bound to every IPv4 address of the loopback interface, and of no other one. Raises OSError."""
    wild = socket.socket()
    wild.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    wild.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # single hosts listen on the same port
    wild.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, LOOPBACK)
    wild.bind(("0.0.0.0", port))
    wild.setblocking(False)
    return wild


class Neighbourhood(Provider):
    """Many mail hosts of one temper, each with an address of its own in a network; counted together.

    A single socket hears for all of them, so that there may be thousands. While it is down, connections are cut
    as soon as they are taken.
    """

    def __init__(self, profile: Profile, sink: Listener) -> None:
        super().__init__(profile, sink)
        self.network = ipaddress.IPv4Network(profile.address)
        self._listener = sink
        self._open_at: Counter[str] = Counter()

    async def set_down(self, down: bool) -> None:
        self.profile.down = down
        if down:
            for connection in list(self.connections):
                connection.transport.abort()
            await self._listener.until(lambda: not self.connections)

    def connected(self, connection: SinkConnection) -> bool:
        is_over = super().connected(connection)
        if connection.address not in self._open_at:
            self.addresses += 1
        self._open_at[connection.address] += 1
        self.connections_max_by_address = max(self.connections_max_by_address, self._open_at[connection.address])
        return is_over

    def disconnected(self, connection: SinkConnection) -> None:
        self._open_at[connection.address] -= 1
        super().disconnected(connection)

    def open_at(self, address: str) -> int:
        return self._open_at.get(address, 0)

    def bucket_of(self, address: str) -> Bucket:
        return self._buckets[address]


class Newcomer(asyncio.Protocol):
    """A connection to the socket that hears for whole networks: the address it came to says whose it is."""

    def __init__(self, provider_at: Callable[[str], Provider | None]) -> None:
        self._provider_at = provider_at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        provider = self._provider_at(transport.get_extra_info("sockname")[0])
        if provider is None or provider.profile.down:
            stream.abort()
            return
        connection = SinkConnection(provider)
        stream.set_protocol(connection)
        connection.connection_made(stream)
