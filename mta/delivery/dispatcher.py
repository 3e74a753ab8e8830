"""The dispatcher: everything that this worker owns and that waits to go out.

Messages come from the door, from other workers and from the disk; each recipient becomes part of a job, finds its
site, and leaves over a pool's connection. Small and warm in the usual case: a message that was just accepted passes
through here without a task, a timer or a read.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from random import Random
from typing import TYPE_CHECKING

from mta.delivery.agenda import Agenda
from mta.delivery.calendars import Quotas
from mta.delivery.connection import Timeouts
from mta.delivery.deadlines import Sweeper
from mta.delivery.domains import Domains
from mta.delivery.fates import Fates
from mta.delivery.following import Following
from mta.delivery.handover import Handover
from mta.delivery.intake import Intake
from mta.delivery.job import ENDED, LOADING, WAITING, Job
from mta.delivery.keeping import Keeping
from mta.delivery.memory import Memory
from mta.delivery.parking import SWEEP_S, Parking
from mta.delivery.registry import Registry, is_held
from mta.delivery.reserving import Reserving
from mta.delivery.restraints import Restraints
from mta.delivery.signatures import Signatures
from mta.delivery.sites import Site
from mta.delivery.sources import Sources
from mta.delivery.spills import Spills
from mta.delivery.suspensions import Suspensions
from mta.delivery.tenant_limits import Tenants
from mta.delivery.tls import TlsContexts
from mta.delivery.warming import Warming
from mta.handoff.claims import Claims, LimitState
from mta.handoff.link import Mesh
from mta.handoff.mover import Mover, PartState
from mta.handoff.placement import Placement
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta.reporting.events import NO_WAY, Events
from mta.reporting.worker_counts import PolicyCounts
from mta.resolve.resolver import Resolver
from mta_queue.store import Loaded, Store

if TYPE_CHECKING:
    from mta.handoff.notices import Notices

EXPIRED_AT_ONCE = 256  # cold jobs that one visit to the disk brings back to give them up
SITES_ROUND = 8  # sweeps in which every site is looked at once: with 20,000 sites that is the sweep's work
UNUSED_SITE_S = 3600.0  # a site without mail is forgotten then, unless it still has something to remember
SET_ASIDE_S = 600.0  # when a message that an error of ours stopped is tried again
STOP_POLL_S = 0.02


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
        signatures: Signatures,
        wants_dsn: Callable[[Envelope], bool],
        hostname: str,
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
        self.events = events
        self.sweeper = sweeper
        self.tls = tls
        self.timeouts = timeouts
        self.port = port
        self.idle_timeout_s = idle_timeout_s
        self.signatures = signatures
        self.memory = Memory(store, clock, memory_bytes_max)
        self.keeping = Keeping(self)
        self.quotas = Quotas(self)
        self.fates = Fates(store, events, self, clock, random, wants_dsn=wants_dsn, hostname=hostname)
        self.registry = Registry()
        self.agenda = Agenda(self)
        self.intake = Intake(self)
        self.spills = Spills(self)
        self.domains = Domains(self)
        self.parking = Parking(self)
        self.suspensions = Suspensions(self)
        self.reserving = Reserving(self)
        self.restraints = Restraints(self)
        self.warming = Warming(self)
        self.following = Following(self)
        self.tenants = Tenants(self)
        self.handover = Handover(self)
        self.mover: Mover
        self.notices: Notices
        self.tallies: dict[str, PolicyCounts] = {}
        """Counters by policy, since the start."""
        self.is_stopping = False
        self.jobs = 0
        """How many are alive, cold ones included; what waits as a number is not among them (`spills.count`)."""
        self.held = 0
        """Recipients that an admin holds: they have no job and no entry in the wheel."""
        self.errors = 0
        """Errors of ours that stopped a message or a look-up."""
        self.follows_s = 0.0
        """When this process followed one that died while the server ran: what that used of limits nobody knows. 0.0: it
        follows none."""
        self.is_overdue = False
        """The disk fails, and more fates than may be lost wait for it: nothing more is begun."""
        self._is_expiring = False
        self._round: list[tuple[tuple[str, str], Site]] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self, mover: Mover, claims: Claims, notices: "Notices") -> None:
        """Begin to look at the clock; mail may come from now on."""
        self.mover = mover
        self.notices = notices
        self.fates.start(notices)
        self.handover.claims = claims
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)

    # mail comes

    def take(self, seq: int, envelope: Envelope, content: bytes) -> None:
        """A message of this worker's destinations, on stable storage."""
        if envelope.send_at_s and envelope.send_at_s > self.clock.wall_s():
            self.agenda.add(envelope.send_at_s, seq)
            return
        self.intake.take(seq, envelope, content)

    def route(self, job: Job) -> None:
        """Find a job's site (again)."""
        site = self.domains.site(job.domain, self.loop.time())
        if site is not None:
            site.push(job)
        else:
            self.domains.wait(job.domain, job)

    def split(self, job: Job, parts: Sequence[int]) -> Job:
        """Some recipients of a job as a job of their own; the caller lets the job go on with the others, or end."""
        part = job.part(parts)
        self.jobs += 1
        self.registry.add(part)
        self.memory.split(job, part, self.loop.time())
        return part

    def found(self, seq: int, parts: Sequence[tuple[int, float]]) -> None:
        """An item that waits on the disk: (part, due time in Unix seconds) of each living recipient."""
        for due_s in {due_s for _, due_s in parts} if len(parts) > 1 else (parts[0][1],) if parts else ():
            if not is_held(due_s):
                self.agenda.add(due_s, seq)
        self.held += sum(is_held(due_s) for _, due_s in parts)
        self.agenda.go_on()

    def plan(self, due_s: float, seq: int) -> None:
        """Look at an item when some of its recipients are due; goes on with the next `take_up` or sweep."""
        self.agenda.add(due_s, seq)

    def take_up(self, seqs: Iterable[int]) -> None:
        """Recipients of these items may go now, as far as they are due and not in hand."""
        self.agenda.take_up(seqs)

    def arrived(self, seq: int, states: Sequence[PartState]) -> None:
        """An item that moved here."""
        if any(state.due_s <= self.clock.wall_s() for state in states):
            self.agenda.handed(seq)
        self.found(seq, self.store.dues(seq))  # some of its recipients may have their fate already

    def envelope_of(self, item: Loaded) -> Envelope:
        """The envelope of an item read back."""
        return envelopes.decode(item.meta)

    # what becomes of it

    def later(self, due_s: float, seq: int, parts: Sequence[int] = ()) -> None:
        """Try these parts again then; which ones that are the store is asked when it is time."""
        self.agenda.add(due_s, seq)

    def again(self, job: Job) -> None:
        """Take a job up anew from the disk; goes on with the next `take_up` or sweep."""
        self.ended(job)
        self.agenda.add(0.0, job.seq)

    def ended(self, job: Job) -> None:
        """A job has its fate, is put off or is another worker's."""
        if job.state != ENDED:
            job.state = ENDED
            self.jobs -= 1
            self.registry.remove(job)
        self.memory.drop(job)

    def shrink(self, job: Job, parts: Sequence[int], envelope: Envelope | None) -> bool:
        """These parts of a job that is not in a transaction go another way; `envelope` where it is known.

        -> True: nothing was left of it, it ended.
        """
        gone = set(parts)
        rest = [part for part in job.parts if part not in gone]
        if not rest:
            self.ended(job)
            return True
        job.parts = rest
        if job.is_mixed and envelope is not None:
            job.domain = envelope.recipients[rest[0]].domain
        return False

    def soon(self, call: Callable[[], None]) -> None:
        """Go on with this in the next turn of the loop."""
        self.loop.call_soon(call)

    def tally(self, policy: str) -> PolicyCounts:
        """The counters of a policy; they outlive its destinations. "" is the default policy."""
        policy = policy or self.placement.policies.default.name
        counts = self.tallies.get(policy)
        if counts is None:
            counts = self.tallies[policy] = PolicyCounts()
        return counts

    def set_aside(self, job: Job, error: Exception) -> None:
        """An error of ours stopped this job: leave it alone for a while, and say so."""
        self.report(error)
        if job.state != ENDED:
            self.later(self.clock.wall_s() + SET_ASIDE_S, job.seq)
            self.ended(job)

    def report(self, error: Exception) -> None:
        """An error of ours that stopped one thing and must not stop all others."""
        self.errors += 1
        self.loop.call_exception_handler({"message": "an error in the dispatcher", "exception": error})

    # the clock

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)
        now_s = self.loop.time()
        wall_s = self.clock.wall_s()
        self.is_overdue = self.store.is_overdue
        self.agenda.sweep(wall_s)
        self._cool()
        self.spills.sweep(wall_s, now_s)
        self.suspensions.sweep()
        self.restraints.sweep()
        self.reserving.sweep()
        self.tenants.sweep()
        self.keeping.sweep()
        self._expire()
        self._sweep_sites(now_s)
        self.handover.sweep(now_s)

    def _cool(self) -> None:
        """Let go of what has been in memory for long, in slices."""
        if self.memory.sweep(self.loop.time()):
            self.loop.call_soon(self._cool)

    def _expire(self) -> None:
        """Give up cold jobs whose time is over: events tell of each, so their envelopes are read back."""
        if self._is_expiring or self.is_stopping:
            return
        jobs = self.memory.expired(EXPIRED_AT_ONCE)
        if not jobs:
            return
        self._is_expiring = True
        for job in jobs:
            job.state = LOADING

        def loaded(ready: Sequence[Job], lost: Sequence[Job]) -> None:
            self._is_expiring = False
            for job in lost:
                self.ended(job)
            for job in ready:
                if job.state == LOADING:  # an admin may have taken it away meanwhile
                    job.state = WAITING
                    site = self.domains.site(job.domain, self.loop.time())
                    self.fates.expire(job, site.pool(job.source).way if site is not None else NO_WAY)
            self._expire()

        self.memory.load_envelopes(jobs, self.loop.time(), loaded)

    def _sweep_sites(self, now_s: float) -> None:
        """Look after some of the sites."""
        sites = self.domains.sites
        if not self._round:
            self._round = list(sites.items())
        for _ in range(min(len(self._round), len(sites) // SITES_ROUND + 1)):
            key, site = self._round.pop()
            if sites.get(key) is not site:
                continue
            if not site.look_after(now_s, now_s - self.idle_timeout_s, now_s - UNUSED_SITE_S):
                self.domains.drop(site)
            else:
                self.following.look(site, now_s)

    # change of owners

    def yield_to(self, key: str, site_name: str, answer: Callable[[LimitState], None]) -> None:
        """Somebody claims a destination or a site: answer when nothing of it is open here beyond our share."""
        self.handover.yield_to(key, site_name, answer)

    def reload(
        self,
        placement: Placement,
        sources: Sources,
        port: int,
        idle_timeout_s: float,
        wants_dsn: Callable[[Envelope], bool] | None = None,
    ) -> None:
        """New policies, routes and sources: mail is placed anew; connections whose site stays where it is are kept."""
        self.placement, self.sources, self.port, self.idle_timeout_s = placement, sources, port, idle_timeout_s
        if wants_dsn is not None:
            self.fates.wants_dsn = wants_dsn
        self.handover.reload(placement)
        self.agenda.go_on()

    # the end

    async def stop(self, within_s: float) -> None:
        """Begin no transaction any more; those under way may end within that time, then they are cut off."""
        self.is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self.domains.close()
        self.following.close()
        sites = [*self.domains.sites.values(), *self.handover.leaving]
        for site in sites:
            site.close()
        end_s = self.loop.time() + within_s
        while any(site.is_sending for site in sites) and self.loop.time() < end_s:  # noqa: ASYNC110 - many, once in a life
            await asyncio.sleep(STOP_POLL_S)
        for site in sites:
            site.abort()
        await asyncio.sleep(0)
        for destination in self.domains.destinations.values():
            destination.close()
        self.reserving.close()

    @property
    def connections(self) -> int:
        """Connections that count now."""
        return sum(site.connections for site in chain(self.domains.sites.values(), self.handover.leaving))
