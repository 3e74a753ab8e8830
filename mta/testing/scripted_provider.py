"""ScriptedProvider: a mailbox provider of a simulation, with a temper, and with limits that it watches.

Its servers speak SMTP over a MemoryNetwork. The temper says what they do to honest clients, by chance; the limits are
those of the engine's policy for it, counted here from what arrives: a connection from its SYN until its last segment.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Literal, Protocol

import msgspec

from mta.testing import account
from mta.testing.memory_network import MemoryTransport
from mta.testing.simulated_loop import SimulatedLoop

TOKEN_SLACK = 1e-4  # of a transaction: what rounding costs

Level = Literal["limits", "source_limits", "provider_limits"]
"""Of which a policy's limits are: a source and a site, a source, or everything."""


Tls = Literal["none", "good", "unknown", "refused", "broken"]
"""STARTTLS is not offered; it works; its certificate is nobody's; it is refused; what follows is no TLS."""


class Temper(msgspec.Struct):
    """How it treats its clients; shares are of 1."""

    refuses: float = 0.0
    """Connections refused."""
    is_lost: bool = False
    """Nobody answers a SYN."""
    is_down: bool = False
    """All connections are refused."""
    greets_421: float = 0.0
    tls: Tls = "none"
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
    """What its policy allows; 0: no limit."""

    level: Level = "provider_limits"
    connections: int = 0
    rate: float = 0.0
    """Transactions a second."""
    messages_per_connection: int = 0
    recipients_per_transaction: int = 0
    owners: int = 1
    quota: int = 0
    """Transactions in an hour of the wall clock."""
    needs_tls: bool = False
    """In clear nothing may be sent."""
    needs_trust: bool = False
    """Nor to a server whose certificate nobody knows."""

    @property
    def burst(self) -> float:
        """How many transactions may go at once."""
        return account.burst(self.rate, self.owners)


class Transaction(msgspec.Struct, eq=False, frozen=True):
    """One MAIL, as the provider sees it."""

    provider: str
    site: str
    source: str
    address: str
    """Where the connection comes from."""
    client: SimulatedLoop
    sent_s: float
    """When the client wrote it."""
    tls: Tls
    """"none": in clear."""


class Witness(Protocol):
    """Who writes down what a provider sees."""

    def violated(self, what: str) -> None:
        """Something that must never happen has happened."""
        ...

    def begun(self, address: str, transaction: Transaction) -> None:
        """A recipient was named."""
        ...

    def refused(self, address: str, code: int, provider: str) -> None:
        """It will never take this recipient's mail, or a message for it."""
        ...

    def taken(self, taken: "Taken") -> None:
        """A message was accepted."""
        ...


class Taken(msgspec.Struct, eq=False):
    """One transaction whose message was accepted."""

    transaction: Transaction
    addresses: list[str]
    content: bytes
    at_s: float
    reply_s: float
    """When the client has the reply; infinite: never."""
    left_s: float = float("inf")
    """When the client closed the connection."""

    @property
    def is_uncertain(self) -> bool:
        """The client cannot have heard the reply."""
        return self.reply_s >= self.left_s


class _Scope:
    """What one limit counts."""

    def __init__(self, tokens: float) -> None:
        self.connections = 0
        self.tokens = tokens
        self.tokens_s = 0.0
        self.by_hours: Counter[int] = Counter()
        """Transactions."""


class Front:
    """The servers of one site; a `Peer` of a MemoryNetwork."""

    def __init__(self, provider: "ScriptedProvider", site: str, session: "NewSession") -> None:
        self.provider = provider
        self.site = site
        self.latency_s = provider.latency_s
        self._session = session

    def refusal(self) -> str:
        """See `Peer`."""
        temper = self.provider.temper
        if temper.is_lost:
            return "lost"
        return "refused" if temper.is_down or self.provider.chance(temper.refuses) else ""

    def connected(self, transport: MemoryTransport, client: SimulatedLoop) -> asyncio.Protocol:
        """See `Peer`."""
        address = transport.get_extra_info("peername")[0]
        source = self.provider.sources.get(address)
        if source is None:
            self.provider.witness.violated(f"a connection comes from {address}, which is no source of ours")
            source = ""
        self.provider.opened(source, self.site)
        return self._session(self, source, address, client)


NewSession = Callable[[Front, str, str, SimulatedLoop], asyncio.Protocol]
"""Who speaks on a new connection: of a front, with a source, its address, a process."""


class ScriptedProvider:
    """All servers of one provider, and what is counted over all of them."""

    def __init__(self, loop: SimulatedLoop, name: str, seed: int, latency_s: float, witness: Witness) -> None:
        self.loop = loop
        self.name = name
        self.random = Random(seed)
        self.latency_s = latency_s
        self.witness = witness
        self.temper = Temper()
        self.allowed = Allowed()
        self.sources: Mapping[str, str] = {}
        """Address that connections may come from -> the source that has it."""
        self.names: Mapping[str, str] = {}
        """Source -> what it says in EHLO."""
        self.asked: set[str] = set()
        """Recipients that it has heard of."""
        self.hour_of: Callable[[float], int] = lambda at_s: int(at_s // 3600)
        """Of the wall clock, by monotonic seconds."""
        self._counted_hour = 0
        """From this one on all was counted."""
        self._scopes: dict[tuple[str, ...], _Scope] = {}
        self._lenient_until_s = 0.0

    def allow(self, allowed: Allowed, lenient_s: float = 0.0) -> None:
        """Other limits hold; what is open may go on so for a while."""
        if allowed == self.allowed:
            return
        self.allowed = allowed
        self._counted_hour = max(self._counted_hour, self.hour_of(self.loop.time()) + 1)
        self._lenient_until_s = self.loop.time() + lenient_s
        self.refill()

    def refill(self) -> None:
        """A process that forgot what it had sent may begin with a burst."""
        for scope in self._scopes.values():
            scope.tokens = self.allowed.burst

    def chance(self, share: float) -> bool:
        """Whether something of this share happens now."""
        return share > 0 and self.random.random() < share

    def _watches(self) -> bool:
        return self.loop.time() >= self._lenient_until_s

    def _scope(self, source: str, site: str) -> _Scope:
        level = self.allowed.level
        key = (source, site) if level == "limits" else (source,) if level == "source_limits" else ()
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = _Scope(self.allowed.burst)
        return scope

    def opened(self, source: str, site: str) -> None:
        """A connection has come."""
        scope = self._scope(source, site)
        scope.connections += 1
        most = self.allowed.connections
        if most and scope.connections > most and self._watches():
            self.witness.violated(f"{self.name}: {scope.connections} connections, {most} are allowed")

    def closed(self, source: str, site: str) -> None:
        """One is gone."""
        self._scope(source, site).connections -= 1

    def begun(self, transaction: Transaction) -> None:
        """A MAIL has come."""
        allowed = self.allowed
        if allowed.needs_tls and transaction.tls == "none":
            self.witness.violated(f"{self.name}: MAIL in clear")
        if allowed.needs_trust and transaction.tls == "unknown":
            self.witness.violated(f"{self.name}: MAIL to a server that nobody knows")
        scope, now_s = self._scope(transaction.source, transaction.site), self.loop.time()
        if allowed.quota:
            self._count(scope, self.hour_of(transaction.sent_s))
        if not allowed.rate:
            return
        scope.tokens = min(allowed.burst, scope.tokens + (now_s - scope.tokens_s) * allowed.rate) - 1.0
        scope.tokens_s = now_s
        if scope.tokens < -TOKEN_SLACK:
            scope.tokens += 1.0
            if self._watches():
                self.witness.violated(
                    f"{self.name}: a transaction over the rate of {allowed.rate:g}/s with a burst of {allowed.burst:g}"
                )

    def _count(self, scope: _Scope, hour: int) -> None:
        scope.by_hours[hour] += 1
        count, most = scope.by_hours[hour], self.allowed.quota
        if count > most and hour >= self._counted_hour and self._watches():
            self.witness.violated(f"{self.name}: transaction {count} in an hour, {most} are allowed")

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
