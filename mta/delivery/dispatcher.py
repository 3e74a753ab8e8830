"""The dispatcher: everything that this worker owns and that waits to go out.

Messages come from the door, from other workers and from the disk; each recipient becomes part of a job, finds its
site, and leaves over a pool's connection. Small and warm in the usual case: a message that was just accepted passes
through here without a task, a timer or a read.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from mta.delivery.connection import Timeouts
from mta.delivery.deadlines import Sweeper
from mta.delivery.domains import Domains
from mta.delivery.fates import Fates
from mta.delivery.job import ENDED, WAITING, Job
from mta.delivery.memory import Memory
from mta.delivery.sites import Site
from mta.delivery.sources import Sources
from mta.delivery.tls import TlsContexts
from mta.handoff.claims import Claims, LimitState
from mta.handoff.link import Mesh
from mta.handoff.mover import Mover, PartState
from mta.handoff.placement import Placement
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta.reporting.events import Events, decode_note
from mta.resolve.resolver import Resolver
from mta_queue.store import Loaded, Store
from mta_queue.timetable import Wheel

DUE_STEP_S = 0.25  # how exactly a due time is kept
LOADED_AT_ONCE = 256  # due items that one visit to the disk brings back
SWEEP_S = 0.25  # how often due times, memory and idle connections are looked at
UNUSED_SITE_S = 3600.0  # a site without mail is forgotten then; slower limits than one an hour do not exist


class Dispatcher:
    """One worker's share of all destinations."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        random: Random,
        store: Store,
        resolver: Resolver,
        placement: Placement,
        mesh: Mesh,
        sources: Sources,
        events: Events,
        sweeper: Sweeper,
        tls: TlsContexts,
        timeouts: Timeouts,
        port: int,
        idle_timeout_s: float,
        memory_bytes_max: int,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.random = random
        self.store = store
        self.resolver = resolver
        self.placement = placement
        self.first_epoch = placement.epoch
        self.mesh = mesh
        self.sources = sources
        self.sweeper = sweeper
        self.tls = tls
        self.timeouts = timeouts
        self.port = port
        self.idle_timeout_s = idle_timeout_s
        self.memory = Memory(store, clock, memory_bytes_max)
        self.fates = Fates(store, events, self, clock, random)
        self.domains = Domains(self)
        self.mover: Mover
        self.claims: Claims
        self.is_stopping = False
        self.jobs = 0
        self._wheel: Wheel[tuple[int, Sequence[int]]] = Wheel(DUE_STEP_S, clock.wall_s())
        self._due: deque[tuple[int, Sequence[int]]] = deque()
        self._is_loading = False
        self._leaving: list[Site] = []
        self._yields: list[Callable[[], bool]] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self, mover: Mover, claims: Claims) -> None:
        """Begin to look at the clock; mail may come from now on."""
        self.mover = mover
        self.claims = claims
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)

    # mail comes

    def take(self, seq: int, envelope: Envelope, content: bytes) -> None:
        """A message of this worker's destinations, on stable storage."""
        recipients = envelope.recipients
        if envelope.send_at_s and envelope.send_at_s > self.clock.wall_s():
            self._wheel.add(envelope.send_at_s, (seq, range(len(recipients))))
            return
        source = self.sources.choose(envelope.pool, None).name
        now_s = self.loop.time()
        if len(recipients) == 1:
            domain = recipients[0].domain
            self._begin(Job(seq, (0,), domain, envelope, content, source), domain, now_s)
            return
        shares: dict[str, list[int]] = {}
        for part, recipient in enumerate(recipients):
            shares.setdefault(recipient.domain, []).append(part)
        self._begin_shares(seq, shares, envelope, content, source, 0, "", now_s)

    def _begin_shares(
        self,
        seq: int,
        shares: dict[str, list[int]],
        envelope: Envelope,
        content: bytes | None,
        source: str,
        attempts: int,
        prefer_host: str,
        now_s: float,
    ) -> None:
        """One job a domain, or one a site where its policy lets a transaction mix domains."""
        merged: dict[Site, Job] = {}
        for domain, parts in shares.items():
            site = self.domains.site(domain, now_s)
            if site is not None and site.pool(source).limits.mix_domains:
                job = merged.get(site)
                if job is None:
                    merged[site] = Job(seq, parts, domain, envelope, content, source, attempts, prefer_host)
                else:
                    job.parts = [*job.parts, *parts]
            else:
                self._begin(Job(seq, parts, domain, envelope, content, source, attempts, prefer_host), domain, now_s)
        for job in merged.values():
            self._begin(job, job.domain, now_s)

    def _begin(self, job: Job, domain: str, now_s: float) -> None:
        self.jobs += 1
        self.memory.add(job, now_s)
        site = self.domains.site(domain, now_s)
        if site is not None:
            site.push(job)
        else:
            self.domains.wait(domain, job)

    def route(self, job: Job) -> None:
        """Find a job's site (again)."""
        site = self.domains.site(job.domain, self.loop.time())
        if site is not None:
            site.push(job)
        else:
            self.domains.wait(job.domain, job)

    def found(self, seq: int, parts: Sequence[tuple[int, float]]) -> None:
        """An item that waits on the disk: (part, due time in Unix seconds) of each living recipient."""
        dues: dict[float, list[int]] = {}
        for part, due_s in parts:
            dues.setdefault(due_s, []).append(part)
        now_s = self.clock.wall_s()
        for due_s, same in dues.items():
            if due_s <= now_s:
                self._due.append((seq, same))
            else:
                self._wheel.add(due_s, (seq, same))
        self._load_due()

    def arrived(self, seq: int, states: Sequence[PartState]) -> None:
        """An item that moved here."""
        self.found(seq, [(part, state.due_s) for part, state in enumerate(states)])

    def _load_due(self) -> None:
        if self._is_loading or not self._due or self.is_stopping:
            return
        wanted: dict[int, list[int]] = {}
        while self._due and len(wanted) < LOADED_AT_ONCE:
            seq, parts = self._due.popleft()
            wanted.setdefault(seq, []).extend(parts)
        self._is_loading = True

        def loaded(items: list[Loaded]) -> None:
            self._is_loading = False
            now_s = self.loop.time()
            for item in items:
                self._begin_loaded(item, wanted[item.seq], now_s)
            self._load_due()

        self.store.load_soon(list(wanted), loaded)

    def _begin_loaded(self, item: Loaded, parts: Sequence[int], now_s: float) -> None:
        envelope = self.envelope_of(item)
        due = set(parts)
        groups: dict[tuple[int, str, str], dict[str, list[int]]] = {}
        fresh = ""
        for state in item.parts:
            if state.part not in due:
                continue
            attempts, source, prefer = 0, None, ""
            if state.note:
                fate = decode_note(state.note)
                attempts, source = fate.attempt, fate.way.source
                prefer = fate.way.host if fate.uncertain else ""
            if source is None or source not in self.sources.by_name:
                fresh = source = fresh or self.sources.choose(envelope.pool, None).name
            domain = envelope.recipients[state.part].domain
            groups.setdefault((attempts, source, prefer), {}).setdefault(domain, []).append(state.part)
        for (attempts, source, prefer), shares in groups.items():
            self._begin_shares(item.seq, shares, envelope, None, source, attempts, prefer, now_s)

    def envelope_of(self, item: Loaded) -> Envelope:
        """The envelope of an item read back."""
        return envelopes.decode(item.meta)

    # what becomes of it

    def later(self, due_s: float, seq: int, parts: Sequence[int]) -> None:
        """Try these parts again then."""
        self._wheel.add(due_s, (seq, parts))

    def ended(self, job: Job) -> None:
        """A job has its fate, is put off or is another worker's."""
        if job.state != ENDED:
            job.state = ENDED
            self.jobs -= 1
        self.memory.drop(job)

    # the clock

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)
        now_s = self.loop.time()
        self._due.extend(self._wheel.advance(self.clock.wall_s()))
        self._load_due()
        self.memory.sweep(now_s)
        for job in self.memory.expired():
            self.fates.expire(job)
        self._sweep_sites(now_s)
        if self._yields:
            self._yields = [is_open for is_open in self._yields if not is_open()]

    def _sweep_sites(self, now_s: float) -> None:
        unused = []
        for key, site in self.domains.sites.items():
            if not site.look_after(now_s, now_s - self.idle_timeout_s, now_s - UNUSED_SITE_S):
                unused.append(key)
        for key in unused:
            site = self.domains.sites.pop(key)
            site.close()
            site.destination.sites.pop(site.name, None)
            if not site.destination.sites:
                site.destination.close()
                self.domains.destinations.pop(site.destination.key, None)
        self._leaving = [site for site in self._leaving if site.connections]

    # change of owners

    def claim(self, site: Site) -> None:
        """A site that began after a reload: perhaps it was another destination's; ask before the first connection."""
        site.is_held = True

        def granted(states: list[LimitState]) -> None:
            site.destination.restore(states, site)
            site.is_held = False
            site.pump()

        self.claims.claim(site.destination.key, site.name, granted)

    def yield_to(self, key: str, site_name: str, answer: Callable[[LimitState], None]) -> None:
        """Somebody claims a destination or a site: answer when nothing of it is open here beyond our share."""
        states: LimitState = {}

        def is_done() -> bool:
            for site in self._leaving:
                if site.connections and (site.name == site_name or site.destination.key == key):
                    return False
            destination = self.domains.destinations.get(key)
            if destination is not None and destination.lower_connections() > 0:
                return False
            if destination is not None:
                states.update(destination.state())
            answer(states)
            return True

        for site in self._leaving:
            if site.name == site_name or site.destination.key == key:
                states.update(site.destination.state())
        if not is_done():
            self._yields.append(is_done)

    def reload(self, placement: Placement, sources: Sources, port: int, idle_timeout_s: float) -> None:
        """New policies, routes and sources: mail is placed anew; connections whose site stays where it is are kept."""
        served: dict[Site, list[str]] = {}
        for domain, site in self.domains.known():
            served.setdefault(site, []).append(domain)
        self.placement, self.sources, self.port, self.idle_timeout_s = placement, sources, port, idle_timeout_s
        self.domains.forget_known()
        homeless = self.domains.take_waiting()
        for key, site in list(self.domains.sites.items()):
            placed = None
            for domain in served.get(site, ()):
                at_domain = placement.decided(domain)
                if at_domain is None and site.hosts is not None:
                    at_domain = placement.by_mx(site.hosts.names, site.name)
                if at_domain is not None and at_domain.key == site.destination.key:
                    placed = at_domain
                else:
                    homeless += site.take_jobs(domain)
            share = placement.share(placed) if placed is not None else None
            if placed is None or share is None or placed.route != site.destination.placed.route:
                homeless += site.take_jobs(None)
                site.close()
                del self.domains.sites[key]
                site.destination.sites.pop(site.name, None)
                self._leaving.append(site)
            elif site.destination.placed is not placed:
                site.destination.reload(placed, share)
        for destination in list(self.domains.destinations.values()):
            if not destination.sites:
                destination.close()
                del self.domains.destinations[destination.key]
        self.claims.reloaded(placement.epoch)
        for job in homeless:
            if job.state == WAITING:
                self.route(job)

    # the end

    async def stop(self, within_s: float) -> None:
        """Begin no transaction any more; those under way may end within that time, then they are cut off."""
        self.is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for site in self.domains.sites.values():
            site.close()
        sites = [*self.domains.sites.values(), *self._leaving]
        end_s = self.loop.time() + within_s
        while any(site.is_sending for site in sites) and self.loop.time() < end_s:
            await asyncio.sleep(0.02)
        for site in sites:
            site.abort()
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """Connections that count now."""
        return sum(site.connections for site in self.domains.sites.values())
