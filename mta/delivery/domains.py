"""Domains: from a recipient's domain to the site that its mail goes to.

A look-up is done once for a domain, whatever mail waits for it; its answer is kept as long as the DNS allows. A
domain whose destination belongs to another worker has its mail moved there.
"""

import asyncio
from typing import TYPE_CHECKING

from mta.delivery.backoff import Backoff
from mta.delivery.destination import Destination
from mta.delivery.job import ENDED, Job
from mta.delivery.sites import Site
from mta.handoff import frames
from mta.handoff.mover import PartState
from mta.handoff.placement import Destination as Placed
from mta.resolve.errors import ResolveError
from mta.resolve.sites import MailHosts, site_name

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

FOREVER = float("inf")
DOMAINS_MAX = 200_000  # known domains beyond this are forgotten, oldest first


class _Waiting:
    """A domain that is being looked up, or will be again."""

    __slots__ = ("backoff", "jobs", "task")

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.backoff = Backoff()
        self.task: asyncio.Task[None] | None = None


class Domains:
    """Knows the site of every domain in use."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._known: dict[str, tuple[Site, float]] = {}
        self._waiting: dict[str, _Waiting] = {}
        self.destinations: dict[str, Destination] = {}
        self.sites: dict[tuple[str, str], Site] = {}

    def site(self, domain: str, now_s: float) -> Site | None:
        """Where a domain's mail goes, if that is known now."""
        known = self._known.get(domain)
        if known is None:
            return None
        if known[1] > now_s and not known[0].is_closed:
            return known[0]
        del self._known[domain]
        return None

    def wait(self, domain: str, job: Job) -> None:
        """Look the domain up; the job goes on when that is done."""
        waiting = self._waiting.get(domain)
        if waiting is None:
            waiting = self._waiting[domain] = _Waiting()
        waiting.jobs.append(job)
        if waiting.task is None and not waiting.backoff.failures:
            self._begin(domain, waiting)

    def _begin(self, domain: str, waiting: _Waiting) -> None:
        if not self._engine.is_stopping:
            waiting.task = self._engine.loop.create_task(self._look_up(domain, waiting))

    async def _look_up(self, domain: str, waiting: _Waiting) -> None:
        engine = self._engine
        try:
            placed, name, hosts, until_s = await self._resolve(domain)
        except ResolveError as error:
            waiting.task = None
            self._failed(domain, waiting, error)
            return
        waiting.task = None
        placement = engine.placement
        share = placement.share(placed)
        if until_s != FOREVER and placement.decided(domain) is None and placement.asker(domain) == placement.me:
            for_s = until_s - engine.loop.time()
            told = frames.Told(domain, list(placement.owners(placed)), for_s, placement.epoch)
            engine.mesh.broadcast(told)
            if share is None:
                placement.tell(domain, placement.owners(placed), until_s)
        self._waiting.pop(domain, None)
        jobs = [job for job in waiting.jobs if job.state != ENDED]
        if share is None:
            owners = placement.owners(placed)
            for number, job in enumerate(jobs):
                self._move(job, owners[number % len(owners)])
            return
        site = self._site(placed, name, hosts)
        if len(self._known) >= DOMAINS_MAX:
            del self._known[next(iter(self._known))]
        self._known[domain] = (site, until_s)
        for job in jobs:
            site.push(job)

    async def _resolve(self, domain: str) -> tuple[Placed, str, MailHosts | None, float]:
        placement = self._engine.placement
        placed = placement.decided(domain)
        if placed is not None and placed.route is not None:
            return placed, ",".join(f"{host}:{port}" for host, port in placed.route.hosts), None, FOREVER
        hosts = await self._engine.resolver.mail_hosts(domain)
        name = site_name(hosts.names)
        return placement.decided(domain) or placement.by_mx(hosts.names, name), name, hosts, hosts.expires_s

    def _failed(self, domain: str, waiting: _Waiting, error: ResolveError) -> None:
        engine = self._engine
        waiting.jobs = [job for job in waiting.jobs if job.state != ENDED]
        if error.permanent:
            del self._waiting[domain]
            for job in waiting.jobs:
                engine.fates.bounce(job, "dns", error.reply)
            return
        now_s = engine.loop.time()
        waiting.backoff.failed(now_s, engine.random.random())
        wait_s = max(0.0, waiting.backoff.until_s - now_s)
        retry = engine.placement.policies.default.retry
        for job in waiting.jobs:
            job.expires_s = job.expires_s or job.accepted_s + (job.own_expire_s or retry.expire_s)
        if waiting.jobs:
            engine.fates.tell_delay(waiting.jobs[0], "dns", error.reply, None, None, wait_s)
        engine.loop.call_later(wait_s, self._again, domain)

    def _again(self, domain: str) -> None:
        waiting = self._waiting.get(domain)
        if waiting is None:
            return
        now_s = self._engine.clock.wall_s()
        for job in waiting.jobs:
            if job.state != ENDED and job.expires_s <= now_s:
                self._engine.fates.expire(job)
        waiting.jobs = [job for job in waiting.jobs if job.state != ENDED]
        if not waiting.jobs:
            del self._waiting[domain]
        elif waiting.task is None:
            self._begin(domain, waiting)

    def _site(self, placed: Placed, name: str, hosts: MailHosts | None) -> Site:
        engine = self._engine
        key = (placed.key, name)
        site = self.sites.get(key)
        if site is not None and not site.is_closed:
            site.hosts = hosts or site.hosts
            return site
        destination = self.destinations.get(placed.key)
        if destination is None:
            share = engine.placement.share(placed)
            assert share is not None, "only an owner has a site"
            destination = self.destinations[placed.key] = Destination(engine, placed, share)
        site = self.sites[key] = destination.sites[name] = Site(destination, name, hosts)
        if engine.placement.epoch > engine.first_epoch:
            engine.claim(site)
        return site

    def _move(self, job: Job, owner: int) -> None:
        """This job's destination is another worker's."""
        engine = self._engine
        loaded = engine.store.load(job.seq)
        if loaded is None:
            engine.ended(job)
            return
        states = {part.part: PartState(part.due_s, part.note) for part in loaded.parts}
        parts = tuple(part for part in job.parts if part in states)
        envelope = engine.envelope_of(loaded)
        engine.ended(job)
        engine.mover.move(job.seq, parts, envelope, [states[part] for part in parts], owner)

    def take_waiting(self) -> list[Job]:
        """All jobs whose domain is not resolved, to route them anew; their look-ups go on for nobody."""
        jobs = [job for waiting in self._waiting.values() for job in waiting.jobs if job.state != ENDED]
        for waiting in self._waiting.values():
            if waiting.task is not None:
                waiting.task.cancel()
        self._waiting.clear()
        return jobs

    def known(self) -> list[tuple[str, Site]]:
        """Every domain whose site is known."""
        return [(domain, site) for domain, (site, _) in self._known.items()]

    def forget_known(self) -> None:
        """A reload: every domain is placed anew."""
        self._known.clear()
