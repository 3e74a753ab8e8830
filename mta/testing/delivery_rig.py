"""A rig for the dispatcher: a real queue on a MemoryDisk, real policies and connections, and everything else by hand.

async def test(rig: DeliveryRig): ...
    rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
    rig.send("b@a.test")
    await rig.settled()
rig = DeliveryRig(loop, tmp_path, port=sink.port, default="[limits] ...")
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from mta.delivery.clerk import Clerk
from mta.delivery.connection import SourceAddress
from mta.delivery.deadlines import Sweeper, Timeouts
from mta.delivery.dispatcher import Dispatcher
from mta.delivery.job import Job, Signature
from mta.delivery.signatures import Signatures
from mta.delivery.sources import Sources
from mta.delivery.tls import TlsContexts
from mta.handoff.claims import Claims, LimitState
from mta.handoff.lending import Lending
from mta.handoff.link import Mesh
from mta.handoff.mover import Mover, PartState
from mta.handoff.placement import Placement, Route
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Reply
from mta.model.selection import Selection
from mta.reporting.events import Events
from mta.reporting.questions import Act, Acted, Suspend, Suspension, Verb
from mta.resolve.errors import ResolveError, no_address
from mta.resolve.resolver import Resolver
from mta.resolve.sites import MailHosts, MxHost
from mta.testing.fake_counters import FakeCounters
from mta.testing.memory_disk import MemoryDisk
from mta.testing.swift_loop import SwiftLoop
from mta_policies.cross_limit import CrossLimit
from mta_policies.layers import load
from mta_queue.store import Origin, Store

if TYPE_CHECKING:
    from mta.handoff.notices import Notices

FINAL = frozenset({"delivered", "bounced", "expired", "cancelled"})
PLAIN = '[limits]\nconnections = 10\n[retry]\nschedule = ["5m"]\njitter = "0%"\nexpire = "1d"\n'
POLL_S = 0.2  # of the loop's time
SETTLED_S = 6 * 3600.0  # of the loop's time


class FakeResolver:
    """What the test says, at once; `delay_s` later where it says so."""

    def __init__(self, loop: SwiftLoop) -> None:
        self._loop = loop
        self.found: dict[str, MailHosts | ResolveError] = {}
        self.addresses_of: dict[str, list[str] | ResolveError] = {}
        self.asked: Counter[str] = Counter()
        self.delay_s = 0.0
        self.ttl_s = 3600.0

    async def mail_hosts(self, domain: str) -> MailHosts:
        self.asked[domain] += 1
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        found = self.found[domain]
        if isinstance(found, ResolveError):
            raise found
        return MailHosts(domain, found.hosts, False, self._loop.time() + self.ttl_s)

    def forget(self, domain: str) -> None:
        """Nothing is kept here."""

    async def addresses(self, host: str, families: Sequence[int], *, check_prohibited: bool = True) -> list[str]:
        self.asked[host] += 1
        found = self.addresses_of.get(host) or no_address(host)
        if isinstance(found, ResolveError):
            raise found
        return list(found)


class FakeMesh:
    """Only this worker; what it would tell the others is kept."""

    def __init__(self, me: int, loop: SwiftLoop) -> None:
        self.me = me
        self.loop = loop
        self.links: dict[int, object] = {}
        self.handlers: dict[type, object] = {}
        self.on_up: list[object] = []
        self.on_down: list[object] = []
        self.told: list[object] = []

    def broadcast(self, frame: object) -> None:
        self.told.append(frame)


class FakeMover:
    """Takes moves and keeps them."""

    def __init__(self) -> None:
        self.moves: list[tuple[int, tuple[int, ...], list[PartState], int]] = []
        self.done: list[Callable[[], None]] = []
        """To be called by the test that wants a move to be over."""

    def move(
        self,
        seq: int,
        parts: tuple[int, ...],
        envelope: Envelope,
        states: list[PartState],
        owner: int,
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        self.moves.append((seq, parts, states, owner))
        self.done.append(on_done)


class FakeNotices:
    """Takes notifications to senders at once, or as the test says, and keeps them."""

    def __init__(self, loop: SwiftLoop) -> None:
        self._loop = loop
        self.holds = False
        self.fails = False
        self.sent: list[tuple[Envelope, bytes, Origin]] = []
        self.released = 0
        self.held: list[Callable[[], None]] = []

    def send(
        self,
        envelope: Envelope,
        content: bytes,
        origin: Origin,
        on_taken: Callable[[Callable[[], None]], None],
        on_failed: Callable[[], None],
    ) -> None:
        self.sent.append((envelope, content, origin))

        def answer() -> None:
            if self.fails:
                on_failed()
            else:
                on_taken(self._release)

        if self.holds:
            self.held.append(answer)
        else:
            self._loop.call_soon(answer)

    def _release(self) -> None:
        self.released += 1


class FakeClaims:
    """Grants at once what the test does not hold."""

    def __init__(self, engine: Dispatcher) -> None:
        self._engine = engine
        self.holds = False
        self.states: list[LimitState] = []
        """What other workers hand over."""
        self.claimed: list[tuple[str, str]] = []
        self.held: list[Callable[[], None]] = []

    def claim(self, key: str, site: str, on_granted: Callable[[list[LimitState]], None]) -> None:
        self.claimed.append((key, site))

        def answered(state: LimitState) -> None:
            states = [*self.states, *([state] if state else [])]
            if self.holds:
                self.held.append(lambda: on_granted(states))
            else:
                on_granted(states)

        self._engine.yield_to(key, site, answered)

    def reloaded(self, epoch: int) -> None:
        """Nobody asked early."""


class DeliveryRig:
    """A dispatcher that can be fed and watched."""

    def __init__(
        self,
        loop: SwiftLoop,
        directory: Path,
        *,
        port: int,
        sources: Sequence[SourceAddress] = (),
        pools: dict[str, dict[str, int]] | None = None,
        routes: Sequence[Route] = (),
        workers: int = 1,
        me: int = 0,
        memory_bytes_max: int = 1 << 30,
        idle_timeout_s: float = 60.0,
        disk: MemoryDisk | None = None,
        signatures: Signatures | None = None,
        wants_dsn: Callable[[Envelope], bool] = lambda envelope: False,
        tenants: Mapping[str, str] | None = None,
        limits: Sequence[CrossLimit] = (),
        default: str = PLAIN,
        **policies: str,
    ) -> None:
        """`tenants`: what their files say, by "TENANT/NAME"."""
        self.loop = loop
        self.directory = directory
        self.port = port
        self.disk = disk or MemoryDisk()
        self.store = Store(Path("/queue/0"), disk=self.disk, jobs=loop.jobs)
        self.recovered = self.store.open()
        self.store.start(loop)
        self.resolver = FakeResolver(loop)
        self.mesh = FakeMesh(me, loop)
        self.mover = FakeMover()
        self.lines: list[dict[str, Any]] = []
        self.finals = 0
        """How many final fates were told."""
        self.sweeper = Sweeper(loop)
        self.sources = sources
        self.pools = pools or {}
        self.workers = workers
        self.tenants = tenants or {}
        self.epoch = 1
        self.count = 0
        self.accepted: set[tuple[str, str]] = set()
        self.seqs: dict[str, int] = {}
        """By message id."""
        self.dispatcher = Dispatcher(
            loop=loop,
            clock=loop,
            random=Random(1),
            store=self.store,
            resolver=cast(Resolver, self.resolver),
            placement=self.placement(default, routes, **policies),
            mesh=cast(Mesh, self.mesh),
            sources=Sources(sources, self.pools, "me.test"),
            events=Events(self._tell, worker=0, prefix="e"),
            sweeper=self.sweeper,
            tls=TlsContexts(),
            timeouts=Timeouts(),
            port=port,
            idle_timeout_s=idle_timeout_s,
            memory_bytes_max=memory_bytes_max,
            signatures=signatures or Signatures(None, None, loop),
            wants_dsn=wants_dsn,
            hostname="me.test",
        )
        self.counters = FakeCounters(loop, loop.call_soon)
        self.counters.serve(self.dispatcher.keeping)
        lending = Lending(cast(Mesh, self.mesh), loop, workers=1, is_fresh=True)
        self.dispatcher.reserving.start(lending, limits, written(limits))
        self.claims = FakeClaims(self.dispatcher)
        self.clerk = Clerk(self.dispatcher)
        self.clerk.is_open = True
        self.notices = FakeNotices(loop)
        self.sweeper.start(loop)
        self.dispatcher.start(cast(Mover, self.mover), cast(Claims, self.claims), cast("Notices", self.notices))

    def _tell(self, line: bytes) -> None:
        told = json.loads(line)
        self.lines.append(told)
        self.finals += told["event"] in FINAL

    def placement(self, default: str, routes: Sequence[Route] = (), **policies: str) -> Placement:
        """Only these policies, each the text of its file."""
        folder = self.directory / f"policies-{self.epoch}"
        folder.mkdir()
        for name, text in {"default": default, **policies}.items():
            (folder / f"{name}.toml").write_text(text)
        for name, text in self.tenants.items():
            file = folder / "admin" / "tenants" / f"{name}.toml"
            file.parent.mkdir(parents=True)
            file.write_text(text)
        local = folder / "admin" if self.tenants else None
        return Placement(load(local, shipped=folder), routes, self.workers, self.mesh.me, self.epoch)

    def reload(self, default: str = PLAIN, routes: Sequence[Route] = (), workers: int = 0, **policies: str) -> None:
        """What SIGHUP does, with these files."""
        self.epoch += 1
        self.workers = workers or self.workers
        placement = self.placement(default, routes, **policies)
        self.dispatcher.reload(placement, Sources(self.sources, self.pools, "me.test"), self.port, 60.0)

    def domain(self, domain: str, *hosts: str, address: str | ResolveError = "") -> None:
        """Its MX hosts, the best first; `address` is that of the hosts that have none yet."""
        self.resolver.found[domain] = MailHosts(
            domain, tuple(MxHost(10 + number, host) for number, host in enumerate(hosts)), False, 0.0
        )
        for host in hosts:
            if host not in self.resolver.addresses_of and address:
                self.resolver.addresses_of[host] = [address] if isinstance(address, str) else address

    def domains_of(self, profiles: Mapping[str, Any]) -> None:
        """A domain NAME.test with the mail host mx.NAME.test for every profile of a sink."""
        for name, profile in profiles.items():
            self.domain(f"{name}.test", f"mx.{name}.test", address=profile.address)

    def send(self, *recipients: str, content: bytes = b"", **fields: Any) -> str:
        """A message comes in at the door and is durable soon; -> its id."""
        envelope = self.envelope(*recipients, **fields)
        message_id = envelope.id
        content = content or self.content_of(envelope)
        envelope.size = len(content)
        self.accepted |= {(message_id, recipient) for recipient in recipients}

        def failed(error: OSError) -> None:
            raise error

        self.seqs[message_id] = self.store.append(
            message_id,
            envelopes.encode(envelope),
            len(recipients),
            content,
            lambda seq: self.dispatcher.take(seq, envelope, content),
            failed,
            due_s=envelope.send_at_s,
        )
        return message_id

    def content_of(self, envelope: Envelope) -> bytes:
        """What a message of no other content has."""
        return f"Message-ID: <{envelope.id}>\r\n\r\nhello\r\n".encode()

    def envelope(self, *recipients: str, **fields: Any) -> Envelope:
        """Of a new message, whose size is not known yet."""
        self.count += 1
        return Envelope(
            f"m{self.count}",
            "a@shop.test",
            [Recipient(recipient, recipient.partition("@")[2]) for recipient in recipients],
            self.loop.wall_s(),
            0,
            **fields,
        )

    def hand(self, recipient: str, due_s: float = 0.0) -> None:
        """A message that another worker moved here, and that may go at once, or then."""
        self.count += 1
        envelope = Envelope(
            f"m{self.count}",
            "a@shop.test",
            [Recipient(recipient, recipient.partition("@")[2])],
            self.loop.wall_s(),
            0,
        )

        def failed(error: OSError) -> None:
            raise error

        def arrived(seq: int) -> None:
            self.store.arrive(seq)
            self.dispatcher.arrived(seq, [PartState(due_s, b"")])

        self.store.append(
            envelope.id, envelopes.encode(envelope), 1, b"content", arrived, failed, Origin(1, self.count), due_s
        )

    async def act(self, verb: Verb, **selection: Any) -> Acted:
        """What an admin does to everything, or to what is selected."""
        answer = await self.clerk.answer(Act(verb, Selection(**selection) if selection else Selection(all=True)))
        assert isinstance(answer, Acted), answer
        return answer

    async def suspend(self, *suspensions: Suspension, tells: bool = False, ended_by: str = "") -> None:
        """These suspensions hold from now on, and no others."""
        assert await self.clerk.answer(Suspend(list(suspensions), tells, ended_by)) is None

    def suspension(self, within_s: float = 600.0, name: str = "s1", **selection: Any) -> Suspension:
        """From now on, for so long."""
        now_s = self.loop.wall_s()
        return Suspension(name, Selection(**selection), now_s, now_s + within_s, "because")

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """What was told, of one kind or all of it."""
        return [line for line in self.lines if not kind or line["event"] == kind]

    def fates(self) -> dict[tuple[str, str], list[str]]:
        """Final fates by message and recipient."""
        fates: dict[tuple[str, str], list[str]] = {}
        for line in self.lines:
            if line["event"] in FINAL:
                fates.setdefault((line["id"], line["recipient"]), []).append(line["event"])
        return fates

    async def until(self, happened: Callable[[], bool], within_s: float = SETTLED_S) -> None:
        """Time passes until it has happened; AssertionError with what is left where it does not."""
        end_s = self.loop.time() + within_s
        while not happened():
            assert self.loop.time() < end_s, self.left()
            await asyncio.sleep(POLL_S)

    def left(self) -> str:
        """What waits, in words."""
        sites = [
            f"{site.name}: {len(pool.lane)} wait, {len(pool.channels)} connections, {len(pool.idle)} idle"
            for site in self.dispatcher.domains.sites.values()
            for pool in site.pools.values()
        ]
        return f"{self.dispatcher.jobs} jobs, {self.store.items} items; {sites[:20]}"

    async def settled(self, within_s: float = SETTLED_S) -> None:
        """Until every recipient has its one final fate and nothing is left of it in memory or queue."""
        await self.until(lambda: self.finals >= len(self.accepted), within_s)
        await asyncio.sleep(0.5)
        fates = self.fates()
        assert set(fates) == self.accepted
        assert all(len(each) == 1 for each in fates.values()), fates
        assert self.store.items == 0
        self.is_clean()

    def is_clean(self) -> None:
        """No job, no content, nobody who waits at a gate."""
        assert self.dispatcher.jobs == 0
        assert self.dispatcher.spills.count == 0
        assert self.dispatcher.memory.resident_bytes == 0
        assert len(self.dispatcher.registry) == 0
        for site in self.dispatcher.domains.sites.values():
            for pool in site.pools.values():
                assert pool.waits == {}

    async def stop(self) -> None:
        """As SIGTERM does."""
        await self.dispatcher.stop(25.0)
        self.sweeper.stop()
        await self.until(lambda: self.dispatcher.connections == 0, 60.0)
        await self.store.close()


def written(limits: Sequence[CrossLimit]) -> list[str]:
    """Where each of them would be written."""
    return [f"mta.toml:{41 + number}" for number in range(len(limits))]


def names(count: int, domain: str) -> Iterable[str]:
    """Recipients r0@, r1@ ..."""
    return (f"r{number}@{domain}" for number in range(count))


def slow_signatures(loop: SwiftLoop, takes_s: float = 0.5) -> Signatures:
    """Signs everything, some time later."""

    class SlowSignatures(Signatures):
        def begin(self, job: Job, done: Callable[[Reply | None], None]) -> Reply | None:
            signature = job.signature = job.signature or Signature()
            if signature.fields is not None:
                return None
            if signature.waiting is not None:
                signature.waiting.append(done)
                return None
            signature.waiting = [done]
            loop.call_later(takes_s, signed, signature)
            return None

    def signed(signature: Signature) -> None:
        signature.fields, signature.domains = b"DKIM-Signature: v=1\r\n", "shop.test"
        waiting, signature.waiting = signature.waiting, None
        for done in waiting or ():
            done(None)

    signatures = SlowSignatures(None, None, loop)
    signatures.is_off = False
    return signatures
