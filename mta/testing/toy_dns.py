"""A toy DNS server on a loopback address: UDP and TCP, zones from a dictionary, and every kind of bad manners.

    async with ToyDns({"shop.test": {"MX": ["10 mx.shop.test"]}, "mx.shop.test": {"A": ["127.0.0.2"]}}) as dns:
        resolver = Resolver(nameservers=[dns.address], ...)

It answers like a recursive server that knows the whole world: what is not in its dictionary does not exist.
Names may begin with `*.`, which stands for every name below that has no entry; whole suffixes may be answered by a
function (`answer_below`), for twenty thousand domains. Records and behaviours may be changed while it runs.

As a process: `python -m mta.testing.toy_dns --listen 127.0.0.1:5353 --zone FILE.json`, where the file holds
the dictionary; beside the record types an entry may have `"TTL": 60` and `"behaviour": "servfail"`. Plain questions
over UDP are answered without dnspython (mta.testing.quick_answers), so that a load test may ask many.
"""

import argparse
import asyncio
import json
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias, get_args

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from mta.tasks import Tasks
from mta.testing import quick_answers

TTL_S = 300
ALIASES_FOLLOWED_MAX = 20
"""In one answer; more than any client should accept."""
UDP_BYTES_PLAIN = 512  # RFC 1035 4.2.1
PORTS_TRIED_MAX = 20
"""UDP and TCP must get the same port, which somebody else may hold on one of the two."""

Records: TypeAlias = Mapping[str, object]
"""Record type -> its data as in a zone file, a list of them, or for "TTL" a number."""

Behaviour = Literal[
    "answer",
    "servfail",
    "refused",
    "nxdomain",
    "empty",
    "timeout",
    "truncate",
    "garbage",
    "refer",
    "no-edns",
    "cut-tcp",
    "lie-id",
    "lie-question",
    "lie-port",
]
"""truncate: over UDP only the beginning. refer: names other servers. no-edns: FORMERR to whoever offers EDNS.
cut-tcp: truncate, and TCP is closed without an answer. lie-*: a forged answer (`LIE`) comes before the true
one, with the wrong number, about another question or from another port."""

LIE = {"MX": ["0 evil.test."], "A": ["203.0.113.66"], "AAAA": ["2001:db8::666"]}
"""What forged answers say."""


class ToyDns:
    """The server; listens between `async with` and its end. `address` is then "127.0.0.1:PORT"."""

    def __init__(
        self,
        records: Mapping[str, Records] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ttl_s: int = TTL_S,
    ) -> None:
        self.records: dict[str, Records] = {name.lower().rstrip("."): each for name, each in (records or {}).items()}
        self.ttl_s = ttl_s
        self.negative_ttl_s = 60
        self.follows_aliases = True
        """False: an answer holds only the first CNAME, as of a server that does not know the target."""
        self.queries: Counter[tuple[str, str]] = Counter()
        """(name, type) -> how often it was asked for, over UDP and TCP together."""
        self.queries_tcp = 0
        self.delay_s = 0.0
        """Every answer comes that much later."""
        self.address = ""
        self._host = host
        self._port = port
        self._behaviours: dict[str, Behaviour] = {}
        self._functions: dict[str, Callable[[str], Records | None]] = {}
        self._udp: asyncio.DatagramTransport | None = None
        self._udp_protocol: _Udp | None = None
        self._tcp: asyncio.Server | None = None
        self._held: asyncio.Event | None = None
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens; raises OSError where the port is taken."""
        loop = asyncio.get_running_loop()
        for attempt in range(PORTS_TRIED_MAX):
            self._udp, self._udp_protocol = await loop.create_datagram_endpoint(
                lambda: _Udp(self), local_addr=(self._host, self._port)
            )
            port = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await loop.create_server(lambda: _Tcp(self), self._host, port)
            except OSError:
                await self._close_udp()
                if self._port or attempt == PORTS_TRIED_MAX - 1:
                    raise
            else:
                self.address = f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"
                return

    async def stop(self) -> None:
        """Closes the sockets."""
        if self._tcp is not None:
            self._tcp.close()
        await self._close_udp()
        self.release()

    async def _close_udp(self) -> None:
        if self._udp is not None and self._udp_protocol is not None:
            self._udp.close()
            await self._udp_protocol.closed
            self._udp = None

    def behave(self, behaviour: Behaviour, name: str = "") -> None:
        """From now on this is how questions for the name are met; without a name all questions without their own."""
        self._behaviours[name.lower().rstrip(".")] = behaviour

    def hold(self) -> None:
        """Answers wait until `release`."""
        self._held = asyncio.Event()

    def release(self) -> None:
        """Lets go the answers that wait."""
        if self._held is not None:
            self._held.set()
            self._held = None

    async def wait_for_queries(self, count: int) -> None:
        """Returns when so many questions have come."""
        while self.queries.total() < count:
            self._arrived.clear()
            await self._arrived.wait()

    def answer_below(self, suffix: str, function: Callable[[str], Records | None]) -> None:
        """The function is asked for every name below the suffix, and for itself; None: there is no such name."""
        self._functions[suffix.lower().rstrip(".")] = function

    # -- what is known --

    def find(self, name: str) -> Records | None:
        """The entry for a name: its own, a function's, a wildcard's; {} where only names below it have one."""
        exact = self.records.get(name)
        if exact is not None:
            return exact
        labels = name.split(".")
        for first in range(len(labels)):
            suffix = ".".join(labels[first:])
            function = self._functions.get(suffix)
            if function is not None:
                return function(name)
            if first and (wild := self.records.get("*." + suffix)) is not None:
                return wild
        if any(each.endswith("." + name) for each in self.records):
            return {}
        return None

    def behaviour_of(self, name: str) -> Behaviour:
        """How a question for the name is met."""
        own = self._behaviours.get(name)
        if own is None:
            entry = self.find(name)
            own = entry.get("behaviour") if entry is not None else None
        if own in get_args(Behaviour):
            return own  # pyright: ignore[reportReturnType] - get_args has just said so
        return self._behaviours.get("", "answer")

    # -- one question --

    def respond_quickly(self, wire: bytes) -> bytes | None:
        """The answer to a plain question about a plain entry, at once; None: `respond` has to look at it."""
        if self._behaviours or self._held is not None or self.delay_s:
            return None
        question = quick_answers.read(wire)
        if question is None:
            return None
        entry = self.find(question.name)
        data = entry.get(question.kind) if entry is not None else None
        if entry is None or data is None or "behaviour" in entry:
            return None
        ttl_s = entry.get("TTL", self.ttl_s)
        answer = quick_answers.write(question, _texts(data), ttl_s) if isinstance(ttl_s, int) else None
        if answer is not None:
            self.queries[question.name, question.kind] += 1
            self._arrived.set()
        return answer

    async def respond(self, wire: bytes, send: Callable[[bytes, bool], None], is_tcp: bool) -> None:
        """Answers one message by calling `send(answer, from_another_port)`, or does not."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return
        if not query.question:
            return
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.queries[name, kind] += 1
        self.queries_tcp += is_tcp
        self._arrived.set()
        behaviour = self.behaviour_of(name)
        if self._held is not None:
            await self._held.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if behaviour == "timeout" or (behaviour == "cut-tcp" and is_tcp):
            return
        if behaviour == "garbage":
            send(wire[:2] + b"\xff" * 40, False)
            return
        if behaviour.startswith("lie"):
            send(self._lie(query, kind, behaviour), behaviour == "lie-port")
        response = self._response(query, name, kind, behaviour)
        if behaviour in ("truncate", "cut-tcp") and not is_tcp:
            response.answer.clear()
            response.flags |= dns.flags.TC
        bytes_max = 65_535 if is_tcp else max(query.payload if query.edns >= 0 else 0, UDP_BYTES_PLAIN)
        try:
            answer = response.to_wire(max_size=bytes_max)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            answer = response.to_wire()
        send(answer, False)

    def _response(self, query: dns.message.Message, name: str, kind: str, behaviour: Behaviour) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        rcodes = {"servfail": dns.rcode.SERVFAIL, "refused": dns.rcode.REFUSED}
        if behaviour in rcodes:
            response.set_rcode(rcodes[behaviour])
        elif behaviour == "no-edns" and query.edns >= 0:
            response = dns.message.make_response(query)
            response.use_edns(False)
            response.set_rcode(dns.rcode.FORMERR)
        elif behaviour == "refer":
            response.authority.append(_rrset(name, self.ttl_s, "NS", ["ns.elsewhere.test."]))
        elif behaviour in ("nxdomain", "empty"):
            self._deny(response, name, exists=behaviour == "empty")
        else:
            self._answer(response, name, kind)
        return response

    def _answer(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(ALIASES_FOLLOWED_MAX):
            entry = self.find(name)
            if entry is None:
                self._deny(response, name, exists=False)
                return
            ttl_s = entry.get("TTL", self.ttl_s)
            assert isinstance(ttl_s, int), f"the TTL of {name} is not a number"
            data = entry.get(kind)
            if data is not None:
                response.answer.append(_rrset(name, ttl_s, kind, _texts(data)))
                return
            alias = entry.get("CNAME")
            if alias is None:
                self._deny(response, name, exists=True)
                return
            response.answer.append(_rrset(name, ttl_s, "CNAME", _texts(alias)))
            if not self.follows_aliases:
                return
            name = _texts(alias)[0].lower().rstrip(".")

    def _deny(self, response: dns.message.Message, name: str, exists: bool) -> None:
        if not exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        zone = name.partition(".")[2] if not exists else name
        soa = f"ns.{zone or 'test'}. admin.{zone or 'test'}. 1 3600 600 86400 {self.negative_ttl_s}"
        response.authority.append(_rrset(zone, self.negative_ttl_s, "SOA", [soa]))

    def _lie(self, query: dns.message.Message, kind: str, behaviour: Behaviour) -> bytes:
        name = query.question[0].name
        lie = dns.message.make_response(query, recursion_available=True)
        if behaviour == "lie-question":
            name = dns.name.from_text("other.test.")
            lie.question = [dns.rrset.RRset(name, query.question[0].rdclass, query.question[0].rdtype)]
        if behaviour == "lie-id":
            lie.id = query.id ^ 0x5555
        lie.answer.append(_rrset(name.to_text(), self.ttl_s, kind, LIE[kind]))
        return lie.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: ToyDns) -> None:
        self._server = server
        self._tasks = Tasks()
        self._transport: asyncio.DatagramTransport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue] - a datagram endpoint's

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        quick = self._server.respond_quickly(data)
        if quick is not None:
            if self._transport is not None:
                self._transport.sendto(quick, addr)
            return

        def send(answer: bytes, from_another_port: bool) -> None:
            if from_another_port:
                _send_from_elsewhere(answer, addr)
            elif self._transport is not None and not self._transport.is_closing():
                self._transport.sendto(answer, addr)

        self._tasks.start(self._server.respond(data, send, False))


class _Tcp(asyncio.Protocol):
    def __init__(self, server: ToyDns) -> None:
        self._server = server
        self._tasks = Tasks()
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue] - a stream's

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 2:
            end = 2 + int.from_bytes(self._data[:2], "big")
            if len(self._data) < end:
                return
            wire, self._data = self._data[2:end], self._data[end:]
            self._tasks.start(self._respond(wire))

    async def _respond(self, wire: bytes) -> None:
        answers: list[bytes] = []
        await self._server.respond(wire, lambda answer, _: answers.append(answer), True)
        if self._transport is None or self._transport.is_closing():
            return
        for answer in answers:
            self._transport.write(len(answer).to_bytes(2, "big") + answer)
        if not answers:
            self._transport.close()


def _send_from_elsewhere(data: bytes, to: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(data, to)


def _texts(data: object) -> list[str]:
    return [data] if isinstance(data, str) else list(data)  # pyright: ignore - Records says what it may be


def _rrset(name: str, ttl_s: int, kind: str, data: list[str]) -> dns.rrset.RRset:
    owner = dns.name.from_text(name.rstrip(".") + ".") if name else dns.name.root
    return dns.rrset.from_text_list(owner, ttl_s, "IN", kind, data, origin=dns.name.root, relativize=False)


async def serve(listen: str, records: Mapping[str, Records]) -> None:
    """Answers on `listen` until cancelled."""
    host, _, port = listen.rpartition(":")
    async with ToyDns(records, host=host.strip("[]"), port=int(port)) as server:
        sys.stderr.write(f"toy DNS on {server.address}, {len(records)} names\n")
        await asyncio.get_running_loop().create_future()


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m mta.testing.toy_dns", description="A toy DNS server for tests.")
    parser.add_argument("--listen", default="127.0.0.1:5353", metavar="ADDRESS:PORT")
    parser.add_argument("--zone", type=Path, metavar="FILE.json", help="names and their records")
    args = parser.parse_args()
    records = json.loads(args.zone.read_text()) if args.zone is not None else {}
    try:
        asyncio.run(serve(args.listen, records))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
