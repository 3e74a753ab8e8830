"""ScriptedProvider: a mailbox provider of a simulation, with a temper, and with limits that it watches.

Its servers speak SMTP over a MemoryNetwork. The temper says what they do to honest clients, by chance; the limits are
those of the engine's policy for it, counted here from what arrives: a connection from its SYN until its last segment.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Protocol

import msgspec

from mta.testing.memory_network import MemoryTransport
from mta.testing.simulated_loop import SimulatedLoop

TOKEN_SLACK = 0.01  # of a rate: what rounding costs


class Temper(msgspec.Struct):
    """How it treats its clients; shares are of 1."""

    refuses: float = 0.0
    """Connections refused."""
    is_lost: bool = False
    """Nobody answers a SYN."""
    is_down: bool = False
    """All connections are refused."""
    greets_421: float = 0.0
    mail_4xx: float = 0.0
    mail_421: float = 0.0
    """Says 421 and closes."""
    rcpt_4xx: float = 0.0
    dot_4xx: float = 0.0
    dot_5xx: float = 0.0
    drops: float = 0.0
    """Connections broken in the middle of a transaction."""
    drops_after_dot: float = 0.0
    """The message is taken or not, and nobody hears which."""
    is_grey: bool = False
    """A recipient that was never asked for is deferred once."""
    slow_s: float = 0.0
    """Before every reply."""
    stalls: float = 0.0
    """Messages whose final reply never comes."""
    lingers: float = 0.0
    """Connections that it does not close after QUIT."""
    recipients_max: int = 0
    """More than these in one transaction are told 452."""
    size_max: int = 0
    keywords: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SIZE")


class Allowed(msgspec.Struct):
    """What its policy allows, machine-wide; 0: no limit."""

    connections: int = 0
    rate: float = 0.0
    """Transactions a second."""
    messages_per_connection: int = 0
    recipients_per_transaction: int = 0
    owners: int = 1

    @property
    def burst(self) -> float:
        """How many transactions may go at once."""
        return self.owners * max(1.0, self.rate / self.owners)


class Witness(Protocol):
    """Who writes down what a provider sees."""

    def violated(self, what: str) -> None:
        """Something that must never happen has happened."""
        ...

    def begun(self, provider: str, address: str, mail_s: float) -> None:
        """A recipient was named in a transaction that began then."""
        ...

    def refused(self, address: str, code: int, provider: str) -> None:
        """It will never take this recipient's mail, or a message for it."""
        ...

    def taken(self, taken: "Taken") -> None:
        """A message was accepted."""
        ...


class Taken(msgspec.Struct, eq=False):
    """One transaction whose message was accepted."""

    provider: str
    addresses: list[str]
    content: bytes
    at_s: float
    reply_s: float
    """When the client has the reply; infinite: never."""
    client: SimulatedLoop
    left_s: float = float("inf")
    """When the client closed the connection."""

    @property
    def is_uncertain(self) -> bool:
        """The client cannot have heard the reply."""
        return self.reply_s >= self.left_s


class ScriptedProvider:
    """All servers of one provider; a `Peer` of a MemoryNetwork."""

    def __init__(self, loop: SimulatedLoop, name: str, seed: int, latency_s: float, witness: Witness) -> None:
        self.loop = loop
        self.name = name
        self.random = Random(seed)
        self.latency_s = latency_s
        self.witness = witness
        self.temper = Temper()
        self.allowed = Allowed()
        self.connections = 0
        self.connections_most = 0
        self.asked: set[str] = set()
        """Recipients that it has heard of."""
        self._tokens = 1e9
        self._tokens_s = 0.0
        self._lenient_until_s = 0.0

    def allow(self, allowed: Allowed, lenient_s: float = 0.0) -> None:
        """Other limits hold; what is open may go on so for a while."""
        self.allowed = allowed
        self._lenient_until_s = self.loop.time() + lenient_s
        self.refill()

    def refill(self) -> None:
        """A process that forgot what it had sent may begin with a burst."""
        self._tokens = self.allowed.burst

    def chance(self, share: float) -> bool:
        """Whether something of this share happens now."""
        return share > 0 and self.random.random() < share

    def _watches(self) -> bool:
        return self.loop.time() >= self._lenient_until_s

    def refusal(self) -> str:
        """See `Peer`."""
        if self.temper.is_lost:
            return "lost"
        return "refused" if self.temper.is_down or self.chance(self.temper.refuses) else ""

    def connected(self, transport: MemoryTransport, client: SimulatedLoop) -> asyncio.Protocol:
        """See `Peer`."""
        self.connections += 1
        self.connections_most = max(self.connections_most, self.connections)
        most = self.allowed.connections
        if most and self.connections > most and self._watches():
            self.witness.violated(f"{self.name}: {self.connections} connections, {most} are allowed")
        return _Session(self, client)

    def transaction(self) -> None:
        """A MAIL has come."""
        rate = self.allowed.rate
        if not rate:
            return
        now_s = self.loop.time()
        burst = self.allowed.burst
        self._tokens = min(burst, self._tokens + (now_s - self._tokens_s) * rate) - 1.0
        self._tokens_s = now_s
        if self._tokens < -TOKEN_SLACK and self._watches():
            self._tokens += 1.0
            self.witness.violated(f"{self.name}: a transaction over the rate of {rate:g}/s with a burst of {burst:g}")

    def messages(self, count: int) -> None:
        """So many transactions were begun on a connection."""
        most = self.allowed.messages_per_connection
        if most and count > most and self._watches():
            self.witness.violated(f"{self.name}: message {count} on a connection, {most} are allowed")

    def recipients(self, count: int) -> None:
        """So many recipients were named in a transaction."""
        most = self.allowed.recipients_per_transaction
        if most and count > most and self._watches():
            self.witness.violated(f"{self.name}: recipient {count} of a transaction, {most} are allowed")


class _Session(asyncio.Protocol):
    """One connection."""

    transport: MemoryTransport

    def __init__(self, provider: ScriptedProvider, client: SimulatedLoop) -> None:
        self._provider = provider
        self._client = client
        self._read = bytearray()
        self._in_content = False
        self._is_over = False
        self._is_counted = True
        self._messages = 0
        self._mail_s = 0.0
        self._named = 0
        self._addresses: list[str] = []
        self._said_s = 0.0
        self._taken: Taken | None = None
        self._keywords: tuple[str, ...] = ()
        self._is_refused = False
        self._is_reset = False
        """The transaction that comes was counted with the RSET before it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)
        self.transport = transport
        if self._provider.chance(self._provider.temper.greets_421):
            self._part("421 4.3.2 not now")
        else:
            self._say("220 mx.example ESMTP")

    def _say(self, text: str, then: Callable[[], None] | None = None) -> float:
        """-> when it is said."""
        loop = self._provider.loop
        at_s = max(self._said_s, loop.time() + self._provider.temper.slow_s)
        data = text.replace("\n", "\r\n").encode() + b"\r\n"

        def say() -> None:
            self.transport.write(data)
            if then is not None:
                then()

        self._said_s = at_s
        if at_s > loop.time():
            loop.exactly_at(at_s, say)
        else:
            say()
        return at_s

    def _part(self, text: str) -> None:
        self._is_over = True
        self._say(text, self._close)

    def _close(self) -> None:
        self._is_over = True
        self._gone()
        self.transport.close()

    def _break(self) -> None:
        self._is_over = True
        self._gone()
        self.transport.abort()

    def _gone(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._provider.connections -= 1

    def eof_received(self) -> None:
        self._left()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()

    def _left(self) -> None:
        self._is_over = True
        if self._is_counted and self._taken is not None:
            self._taken.left_s = self._provider.loop.time() - self._provider.latency_s
        self._gone()

    def data_received(self, data: bytes) -> None:
        self._read += data
        while not self._is_over:
            if self._in_content:
                end = 0 if self._read.startswith(b".\r\n") else self._read.find(b"\r\n.\r\n") + 2
                if not self._read.startswith(b".\r\n") and end < 2:
                    return
                content = bytes(self._read[:end]).replace(b"\r\n.", b"\r\n")  # RFC 5321 4.5.2
                del self._read[: end + 3]
                self._in_content = False
                self._end(content)
            else:
                end = self._read.find(b"\r\n")
                if end < 0:
                    return
                line = self._read[:end].decode()
                del self._read[: end + 2]
                self._command(line)

    def _command(self, line: str) -> None:
        provider, temper = self._provider, self._provider.temper
        verb = line[:4].upper()
        if verb == "EHLO":
            self._keywords = temper.keywords
            size = f" {temper.size_max}" if temper.size_max else ""
            words = [word + (size if word == "SIZE" else "") for word in temper.keywords]
            lines = ["mx.example", *words]
            self._say("\n".join(f"250{' ' if at == len(lines) else '-'}{word}" for at, word in enumerate(lines, 1)))
        elif verb == "MAIL":
            self._mail()
        elif verb == "RCPT":
            self._say(self._rcpt(line[line.index("<") + 1 : line.index(">")]))
        elif verb == "DATA":
            if provider.chance(temper.drops):
                self._break()
            elif not self._addresses:
                self._say("554 5.5.1 no valid recipients")
            else:
                self._in_content = True
                self._say("354 go ahead")
        elif verb == "RSET":
            self._addresses = []
            if "PIPELINING" not in self._keywords:
                provider.transaction()  # its client waits for our reply before it may say MAIL
                self._is_reset = True
                self._mail_s = provider.loop.time()
            self._say("250 2.0.0 ok")
        elif verb == "QUIT":
            self._is_over = True
            self._say("221 2.0.0 bye", None if provider.chance(temper.lingers) else self._close)
        else:
            self._say("500 5.5.2 what?")

    def _mail(self) -> None:
        provider, temper = self._provider, self._provider.temper
        self._messages += 1
        self._named = 0
        self._addresses = []
        self._is_refused = False
        if not self._is_reset:
            self._mail_s = provider.loop.time()
            provider.transaction()
        self._is_reset = False
        provider.messages(self._messages)
        if provider.chance(temper.mail_421):
            self._part("421 4.3.2 closing")
        elif provider.chance(temper.mail_4xx):
            self._is_refused = True
            self._say("451 4.3.0 not this one now")
        else:
            self._say("250 2.1.0 ok")

    def _rcpt(self, address: str) -> str:
        provider, temper = self._provider, self._provider.temper
        self._named += 1
        provider.recipients(self._named)
        provider.witness.begun(provider.name, address, self._mail_s)
        is_new = address not in provider.asked
        provider.asked.add(address)
        if self._is_refused:
            return "503 5.5.1 MAIL first"
        if address.startswith("bad"):
            provider.witness.refused(address, 550, provider.name)
            return "550 5.1.1 unknown"
        if temper.recipients_max and len(self._addresses) >= temper.recipients_max:
            return "452 4.5.3 too many recipients"
        if (temper.is_grey and is_new) or provider.chance(temper.rcpt_4xx):
            return "450 4.7.1 come again"
        self._addresses.append(address)
        return "250 2.1.5 ok"

    def _end(self, content: bytes) -> None:
        provider, temper = self._provider, self._provider.temper
        now_s = provider.loop.time()
        is_dropped = provider.chance(temper.drops_after_dot)
        if is_dropped and provider.chance(0.5):
            self._break()
            return
        if not is_dropped and provider.chance(temper.dot_4xx):
            self._say("451 4.3.0 not now")
            return
        if not is_dropped and provider.chance(temper.dot_5xx):
            for address in self._addresses:
                provider.witness.refused(address, 554, provider.name)
            self._say("554 5.7.1 not this")
            return
        taken = Taken(provider.name, self._addresses, content, now_s, float("inf"), self._client)
        if is_dropped:
            taken.left_s = now_s
            self._break()
        else:
            self._taken = taken
            if not provider.chance(temper.stalls):
                taken.reply_s = self._say("250 2.0.0 taken") + provider.latency_s
        provider.witness.taken(taken)
