"""Questions to nameservers: which one, how long, how often, and when to believe a no. The only door to dnspython.

A question goes to one nameserver after the other until one answers; the first to be asked is the one that
answered last. Time is counted on a `Budget` that spans all questions of one look-up, without the wait for a
free slot: one slow domain neither delays the others for long nor is punished for their slowness.

Each query has its own connected socket: the kernel chooses the source port and drops what others send. Whatever
comes with another number or question is passed over and the true answer waited for (RFC 5452 9.1). Truncated
answers are asked for again over TCP (RFC 7766 5).
"""

import asyncio
import re
import socket
import struct
from collections.abc import Collection, Sequence
from ipaddress import ip_address
from typing import NamedTuple

import dns._asyncbackend as backends  # its socket classes have no public name
import dns.asyncbackend
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver

from mta.resolve.answers import Answer, Kind, Outcome, failed, read

DNS_PORT = 53
QUERIES_IN_FLIGHT_MAX = 256
"""Of one worker: each holds a socket."""
TRY_TIMEOUTS_S = (2.0, 4.0, 8.0)
"""How long each nameserver has in the first, second and third round."""
UDP_PAYLOAD_BYTES = 1_232
"""What crosses every path without being fragmented (DNS Flag Day 2020); more comes over TCP."""
ALIASES_MAX = 16
"""CNAME records from a name to what it stands for; a chain of so many is a loop or a joke (dnspython's own limit)."""
NO_EDNS_RCODES = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})
"""What servers say that do not understand EDNS (RFC 6891 7); asked once more without."""

RECORDS_READ_MAX = 256
"""Of one section of an answer: a message of 64 KB would keep the event loop for a tenth of a second."""
UDP_BYTES_MAX = 65_535
HEADER_BYTES = 12  # RFC 1035 4.1.1
_COUNTS = struct.Struct("!HHH")  # of answers, authorities, additional records
_COUNTS_AT = 6

_NAMESERVER = re.compile(r"\[([^\]]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)")
_backend = dns.asyncbackend.get_backend("asyncio")


class Nameserver(NamedTuple):
    """Where to ask."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Budget:
    """The time that one look-up may take for all of its questions together."""

    __slots__ = ("left_s", "whole_s")

    def __init__(self, whole_s: float) -> None:
        self.whole_s = whole_s
        self.left_s = whole_s


def parse_nameserver(text: str) -> Nameserver:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1` or `[2001:db8::1]:53`; ValueError for anything else."""
    match = _NAMESERVER.fullmatch(text)
    if match is not None:
        address = match[1] or match[3] or match[5]
        port = int(match[2] or match[4] or DNS_PORT)
        try:
            ip_address(address)
        except ValueError:
            port = 0
        if 0 < port < 65_536:
            return Nameserver(address, port)
    raise ValueError(f"{text!r} is not a nameserver: an address, with a port if it is not 53, like 127.0.0.1:5353")


def system_nameservers() -> list[Nameserver]:
    """Those of /etc/resolv.conf, else the one on this machine, as the C library does it."""
    try:
        found = dns.resolver.Resolver(configure=True).nameservers
    except dns.resolver.NoResolverConfiguration:
        found = []
    return [parse_nameserver(address) for address in found if isinstance(address, str)] or [
        Nameserver("127.0.0.1", DNS_PORT)
    ]


class _SilentError(Exception):
    """A nameserver did not answer in time."""


class _UnreachableError(Exception):
    """A nameserver cannot be spoken with."""


class Nameservers:
    """Asks; keeps no answers.

    `nameservers` as in `parse_nameserver`; none: the system's. Raises ValueError for what is not a nameserver.
    """

    def __init__(
        self,
        nameservers: Sequence[str],
        *,
        queries_in_flight_max: int = QUERIES_IN_FLIGHT_MAX,
        try_timeouts_s: Sequence[float] = TRY_TIMEOUTS_S,
    ) -> None:
        self._servers = [parse_nameserver(text) for text in nameservers] or system_nameservers()
        self._slots = asyncio.Semaphore(queries_in_flight_max)
        self._try_timeouts_s = try_timeouts_s
        self._first = 0
        self.queries = 0
        """How many were sent, for the metrics."""

    async def ask(self, name: str, kind: Kind, budget: Budget, confirm: Collection[Outcome] = ()) -> Answer:
        """The answer, with all aliases followed; never raises but for cancellation.

        An outcome in `confirm` counts only when it is said twice, by two nameservers where there are
        several; otherwise the better answer is returned. The outcome is never "alias".
        """
        aliases = 0
        ttl_s = float("inf")
        asked = name
        while True:
            answer = await self._ask_confirmed(asked, kind, budget, confirm)
            aliases += answer.aliases
            ttl_s = min(ttl_s, answer.ttl_s)
            if answer.outcome == "failed":
                return answer
            if aliases >= ALIASES_MAX:
                return failed(f"a chain of {ALIASES_MAX} aliases or more, or a loop of them")
            if answer.outcome != "alias":
                return answer._replace(ttl_s=ttl_s, aliases=aliases)
            asked = answer.name

    async def _ask_confirmed(self, name: str, kind: Kind, budget: Budget, confirm: Collection[Outcome]) -> Answer:
        loop = asyncio.get_running_loop()
        async with self._slots:
            begun_s = loop.time()
            try:
                async with asyncio.timeout(max(budget.left_s, 0)):
                    answer, server = await self._ask_any(name, kind, self._turn(self._first))
                    if answer.outcome in confirm:
                        second, _ = await self._ask_any(name, kind, self._turn(server + 1), takes_failure=True)
                        if second.outcome != answer.outcome:
                            answer = second
                    return answer
            except TimeoutError:
                return failed(f"no answer within {budget.whole_s:g} seconds")
            finally:
                budget.left_s -= loop.time() - begun_s

    def _turn(self, first: int) -> list[int]:
        """The indexes of all nameservers, beginning with `first`."""
        count = len(self._servers)
        return [(first + each) % count for each in range(count)]

    async def _ask_any(
        self, name: str, kind: Kind, servers: list[int], *, takes_failure: bool = False
    ) -> tuple[Answer, int]:
        """The first real answer and who gave it; one that says that it cannot is not asked again.

        `takes_failure`: "I cannot" is an answer as well, because it casts doubt on what another one said.
        """
        answer = failed("no nameserver answers")
        for timeout_s in self._try_timeouts_s:
            for server in list(servers):
                try:
                    said = await self._ask_one(name, kind, self._servers[server], timeout_s)
                except _SilentError:
                    continue
                except _UnreachableError as error:
                    answer = failed(str(error))
                else:
                    if said.outcome != "failed":
                        self._first = server
                        return said, server
                    if takes_failure:
                        return said, server
                    answer = said
                servers.remove(server)
            if not servers:
                break
        return answer, self._first

    async def _ask_one(self, name: str, kind: Kind, server: Nameserver, timeout_s: float) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._exchange(name, kind, server, UDP_PAYLOAD_BYTES)
                if message.rcode() in NO_EDNS_RCODES:
                    message = await self._exchange(name, kind, server, 0)
        except (TimeoutError, dns.exception.Timeout) as error:
            raise _SilentError from error
        except (OSError, EOFError, dns.exception.DNSException) as error:
            raise _UnreachableError(f"nameserver {server}: {error or type(error).__name__}") from error
        return read(message, kind)

    async def _exchange(self, name: str, kind: Kind, server: Nameserver, payload: int) -> dns.message.Message:
        """The true answer to one query: over UDP, over TCP where that was truncated."""
        query = dns.message.make_query(
            dns.name.from_text(name),
            dns.rdatatype.from_text(kind),
            use_edns=0 if payload else False,
            payload=payload or None,
        )
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        self.queries += 1
        # Connected, so that the kernel drops what others send and tells at once when nobody listens there.
        async with await _backend.make_socket(family, socket.SOCK_DGRAM, 0, None, tuple(server)) as udp:
            assert isinstance(udp, backends.DatagramSocket)
            await udp.sendto(query.to_wire(), None, None)
            while True:
                message = parse_answer((await udp.recvfrom(UDP_BYTES_MAX, None))[0], query)
                if message is not None:
                    break
        if not message.flags & dns.flags.TC:
            return message
        async with await _backend.make_socket(family, socket.SOCK_STREAM, 0, None, tuple(server)) as tcp:
            assert isinstance(tcp, backends.StreamSocket)
            await tcp.sendall(query.to_wire(prepend_length=True), None)
            size = int.from_bytes(await _read_exactly(tcp, 2), "big")
            message = parse_answer(await _read_exactly(tcp, size), query)
        if message is None:
            raise dns.exception.FormError("no answer to the question")
        return message


def parse_answer(wire: bytes, query: dns.message.Message) -> dns.message.Message | None:
    """The message, if it is one and answers the query (number, question); of long ones only the beginning is read."""
    try:
        message = dns.message.from_wire(_cut(wire), ignore_trailing=True)
        return message if query.is_response(message) else None
    except Exception:  # noqa: BLE001 - a stranger's bytes may break whatever they like, but not the look-up
        return None


def _cut(wire: bytes) -> bytes:
    """The message with no more records announced than are read; the rest then counts as trailing junk."""
    if len(wire) < HEADER_BYTES or max(counts := _COUNTS.unpack_from(wire, _COUNTS_AT)) <= RECORDS_READ_MAX:
        return wire
    left: list[int] = []
    is_cut = False
    for count in counts:
        left.append(0 if is_cut else min(count, RECORDS_READ_MAX))
        is_cut = is_cut or count > RECORDS_READ_MAX
    return wire[:_COUNTS_AT] + _COUNTS.pack(*left) + wire[HEADER_BYTES:]


async def _read_exactly(tcp: backends.StreamSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await tcp.recv(size - len(data), None)
        if not more:
            raise EOFError("the connection was closed before the answer was complete")
        data += more
    return data
