"""Domains: from a recipient's domain to the site that its mail goes to.

A look-up is done once for a domain, whatever mail waits for it; its answer is kept as long as the DNS allows. A
domain whose destination belongs to another worker has its mail moved there.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mta.delivery.destination import Destination
from mta.delivery.job import WAITING, Job
from mta.delivery.sites import Site
from mta.delivery.spills import Spill
from mta.handoff import frames
from mta.handoff.mover import PartState
from mta.handoff.placement import Destination as Placed
from mta.model.outcome import Reply
from mta.resolve.cache import FAILED_TTL_S
from mta.resolve.errors import ResolveError
from mta.resolve.sites import MailHosts, site_name
from mta_policies.backoff import Backoff
from mta_policies.retry import expires_s
from mta_queue.fair_lane import FairLane
from mta_queue.store import Loaded

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

FOREVER = float("inf")
DOMAINS_MAX = 200_000  # known domains beyond this are forgotten, oldest first
DISPUTED_S = 60.0  # so long after a hand-over mail does not go on without another look
MOVED_AT_ONCE = 256  # jobs of another worker's whose envelopes one visit to the disk brings back


class _Waiting:
    """A domain that is being looked up, or will be again."""

    __slots__ = ("again_s", "backoff", "lane", "problem", "spill", "task", "timer")

    def __init__(self, engine: "Dispatcher") -> None:
        self.lane: FairLane[Job] = FairLane()
        self.spill = Spill(engine, self.lane, None)
        """What is behind the first few of each share."""
        self.backoff = Backoff()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.problem: Reply | None = None
        """What the last look-up ended with."""
        self.again_s = 0.0
        """When the next one begins, where `timer` is set: monotonic seconds."""

    def cooled(self, job: Job) -> None:
        """See `mta.delivery.job.Home`."""
        self.spill.overflow(job)

    def take_jobs(self) -> list[Job]:
        """Take out what waits; what is spilled goes its way anew by itself, behind it."""
        self.spill.take_all()
        jobs = [job for job in self.lane.remove(lambda job: True) if job.state == WAITING]
        for job in jobs:
            job.home = None
        return jobs

    def first(self) -> Job | None:
        """Whose turn is first; jobs that have ended before it are dropped."""
        lane = self.lane
        while (job := lane.peek()) is not None and job.state != WAITING:
            lane.pop()
        return job

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self.task is not None:
            self.task.cancel()
        if self.timer is not None:
            self.timer.cancel()


class Domains:
    """Knows the site of every domain in use."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._known: dict[str, tuple[Site, float]] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._handed: dict[str, float] = {}
        self.destinations: dict[str, Destination] = {}
        self.sites: dict[tuple[str, str], Site] = {}

    def site(self, domain: str, now_s: float) -> Site | None:
        """Where a domain's mail goes, if that is known now."""
        known = self._known.get(domain)
        if known is None:
            return None
        if known[0].is_closed:
            del self._known[domain]
            return None
        return known[0] if known[1] > now_s else None  # kept: what waits in its lanes has to be found

    def place(self, domain: str) -> Site | None:
        """Where a domain's mail waits, also when that has to be asked for anew before more is sent there."""
        known = self._known.get(domain)
        return None if known is None or known[0].is_closed else known[0]

    def known_until(self, domain: str) -> tuple[Site, float] | None:
        """Where a domain's mail goes, and until when that is sure: monotonic seconds; None: nobody knows."""
        known = self._known.get(domain)
        return None if known is None or known[0].is_closed else known

    def confirm(self, domain: str, site: Site, hosts: MailHosts) -> None:
        """A domain was looked up again, and its mail goes where it went."""
        known = self._known.get(domain)
        if known is not None and known[0] is site and not site.is_closed:
            self._known[domain] = (site, hosts.expires_s)
            site.hosts = hosts

    def is_spilled(self, seq: int, domain: str) -> bool:
        """Whether an item waits as a number for the mail hosts of a domain."""
        waiting = self._waiting.get(domain)
        return waiting is not None and seq in waiting.spill.seqs

    def waits_for(self, domain: str, now_s: float) -> str:
        """Why the mail hosts of a domain are not known yet: one sentence, "" where nobody looks for them."""
        waiting = self._waiting.get(domain)
        if waiting is None:
            return ""
        if waiting.problem is None:
            return f"the mail hosts of {domain}, which are being looked up"
        if waiting.timer is None:
            return f"the mail hosts of {domain}, which are looked up again: {waiting.problem}"
        return f"the mail hosts of {domain}: {waiting.problem}; next try in {max(0.0, waiting.again_s - now_s):.0f} s"

    def next_look_s(self, domain: str) -> float:
        """When the mail hosts of a domain are looked up again: monotonic seconds, 0.0 where no time is set."""
        waiting = self._waiting.get(domain)
        return waiting.again_s if waiting is not None and waiting.timer is not None else 0.0

    def knock(self, domain: str) -> None:
        """Look a domain up at once, whatever failed lately: an admin says so."""
        waiting = self._waiting.get(domain)
        if waiting is not None and waiting.timer is not None:
            waiting.timer.cancel()
            self._engine.resolver.forget(domain)
            self._again(domain, waiting)

    def wait(self, domain: str, job: Job) -> None:
        """Look the domain up; the job goes on when that is done."""
        waiting = self._waiting.get(domain)
        if waiting is None:
            waiting = self._waiting[domain] = _Waiting(self._engine)
        if not job.expires_s:  # it may have to wait here until then
            policies = self._engine.placement.policies
            retry = (policies.by_domain(domain) or policies.default).retry_for(job.tenant, job.source)
            job.expires_s = expires_s(retry, job.accepted_s, job.own_expire_s)
        if job.content is None and job.expires_s <= self._engine.clock.wall_s():
            self._engine.fates.expire(job)
        else:
            job.home = waiting
            waiting.lane.push(job.priority, job)
            if job.envelope is None:
                self._engine.memory.watch(job)
                waiting.cooled(job)
        if waiting.task is None and waiting.timer is None:
            self._begin(domain, waiting)

    def _begin(self, domain: str, waiting: _Waiting) -> None:
        if not self._engine.is_stopping:
            waiting.task = self._engine.loop.create_task(self._look_up(domain, waiting))

    async def _look_up(self, domain: str, waiting: _Waiting) -> None:
        engine = self._engine
        error: ResolveError | None = None
        try:
            self._found(domain, waiting, *await self.resolve(domain))
        except ResolveError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - whatever it is, the mail that waits must be looked at again
            engine.report(problem)
            error = ResolveError(451, "4.3.0", f"internal error while looking for {domain}")
        waiting.task = None
        if error is not None and self._waiting.get(domain) is waiting:
            self._failed(domain, waiting, error)

    async def resolve(self, domain: str) -> tuple[Placed, str, MailHosts | None, float]:
        """Whose a domain is, its site, its hosts, and until when that is sure; raises ResolveError."""
        placement = self._engine.placement
        placed = placement.decided(domain)
        if placed is not None and placed.route is not None:
            return placed, ",".join(f"{host}:{port}" for host, port in placed.route.hosts), None, FOREVER
        hosts = await self._engine.resolver.mail_hosts(domain)
        name = site_name(hosts.names)
        return placed or placement.by_mx(hosts.names, name), name, hosts, hosts.expires_s

    def _found(
        self, domain: str, waiting: _Waiting, placed: Placed, name: str, hosts: MailHosts | None, until_s: float
    ) -> None:
        engine = self._engine
        placement = engine.placement
        owners = placement.owners(placed)
        is_ours = placement.share(placed) is not None
        if not is_ours and self._is_disputed(domain):
            engine.resolver.forget(domain)
            raise ResolveError(451, "4.4.3", f"the mail hosts of {domain} are changing")
        if until_s != FOREVER and placement.decided(domain) is None and placement.asker(domain) == placement.me:
            told = frames.Told(domain, list(owners), until_s - engine.loop.time(), placement.epoch)
            engine.mesh.broadcast(told)
            if not is_ours:
                placement.tell(domain, owners, until_s)
        site = self._site(placed, name, hosts) if is_ours else None
        del self._waiting[domain]
        jobs = waiting.take_jobs()
        self._known.pop(domain, None)  # what is found again is the youngest
        if site is None:
            self.move_all(jobs, owners)
            return
        if len(self._known) >= DOMAINS_MAX:
            del self._known[next(iter(self._known))]
        self._known[domain] = (site, until_s)
        if len(jobs) == 1:
            site.push(jobs[0])
        else:
            site.push_all(jobs)

    def handed(self, domain: str, now_s: float) -> None:
        """Another worker moved mail for this domain here, because it holds the domain for ours."""
        if len(self._handed) >= DOMAINS_MAX:
            del self._handed[next(iter(self._handed))]
        self._handed[domain] = now_s

    def _is_disputed(self, domain: str) -> bool:
        """Whether mail that another worker has just moved here would go on at once: the two have seen different
        answers of the DNS, and the mail would go to and fro as fast as the disks can write. Told once a hand-over;
        the worker that resolves the domain for all passes mail on without a question."""
        placement = self._engine.placement
        handed_s = self._handed.pop(domain, None)
        if handed_s is None or placement.decided(domain) is not None or placement.asker(domain) == placement.me:
            return False
        return self._engine.loop.time() - handed_s < DISPUTED_S

    def _failed(self, domain: str, waiting: _Waiting, error: ResolveError) -> None:
        engine = self._engine
        if error.permanent:
            del self._waiting[domain]
            engine.fates.bounce_all(waiting.take_jobs(), "dns", error.reply)
            return
        now_s = engine.loop.time()
        waiting.problem = error.reply
        waiting.backoff.failed(now_s, engine.random.random())
        wait_s = max(FAILED_TTL_S, waiting.backoff.until_s - now_s)  # for so long the resolver would say the same
        waiting.again_s = now_s + wait_s
        waiting.timer = engine.loop.call_later(wait_s, self._again, domain, waiting)
        first = waiting.first()
        if first is not None:
            engine.fates.tell_delay(first, "dns", error.reply, None, None, wait_s)

    def _again(self, domain: str, waiting: _Waiting) -> None:
        waiting.timer = None
        if waiting.first() is not None or waiting.lane.waiting:
            self._begin(domain, waiting)
        else:
            del self._waiting[domain]

    def _site(self, placed: Placed, name: str, hosts: MailHosts | None) -> Site:
        engine = self._engine
        key = (placed.key, name)
        site = self.sites.get(key)
        if site is not None and not site.is_closed:
            site.hosts = hosts or site.hosts
            return site
        is_claimed = engine.placement.epoch > engine.first_epoch
        destination = self.destinations.get(placed.key)
        if destination is None:
            share = engine.placement.share(placed)
            assert share is not None, "only an owner has a site"
            destination = self.destinations[placed.key] = Destination(engine, placed, share, is_claimed)
        site = self.sites[key] = destination.sites[name] = Site(destination, name, hosts)
        if is_claimed:
            engine.handover.claim(destination, [site])
        return site

    def drop(self, site: Site) -> None:
        """A site is used no more: it closes, and its destination where that was its last one."""
        destination = site.destination
        self.sites.pop((destination.key, site.name), None)
        destination.sites.pop(site.name, None)
        site.close()
        if not destination.sites:
            destination.close()
            self.destinations.pop(destination.key, None)
            self._engine.restraints.of_gone(destination)

    def move_all(self, jobs: Sequence[Job], owners: Sequence[int]) -> None:
        """These jobs are for other workers: their items go there, no job is left here. Those of one message go
        together: it is sent, kept and signed there once."""
        todo: dict[int, Sequence[int]] = {}
        for job in jobs:
            known = todo.get(job.seq)
            todo[job.seq] = job.parts if known is None else sorted((*known, *job.parts))
            self._engine.ended(job)
            self._engine.registry.leave(job.seq, job.parts)
        self._move_some(deque(todo.items()), owners)

    def _move_some(self, todo: deque[tuple[int, Sequence[int]]], owners: Sequence[int]) -> None:
        batch = [todo.popleft() for _ in range(min(len(todo), MOVED_AT_ONCE))]
        if not batch:
            return
        engine = self._engine

        def loaded(items: list[Loaded]) -> None:
            found = {item.seq: item for item in items}
            for seq, wanted in batch:
                item = found.get(seq)
                if item is None:
                    engine.registry.left(seq, wanted)
                    continue  # the store has set it aside
                states = {part.part: PartState(part.due_s, part.note) for part in item.parts}
                parts = tuple(part for part in wanted if part in states)
                if parts:
                    owner = owners[seq % len(owners)]
                    states_moved = [states[part] for part in parts]
                    on_done = partial(engine.registry.left, seq, wanted)
                    engine.mover.move(seq, parts, engine.envelope_of(item), states_moved, owner, on_done)
                else:
                    engine.registry.left(seq, wanted)
            self._move_some(todo, owners)

        engine.store.load_soon(list({seq: None for seq, _ in batch}), loaded)

    def take_waiting(self) -> list[Job]:
        """All jobs whose domain is not resolved, to route them anew; their look-ups go on for nobody."""
        jobs = [job for waiting in self._waiting.values() for job in waiting.take_jobs()]
        self.close()
        self._waiting.clear()
        return jobs

    def of_provider(self, provider: str) -> list[Destination]:
        """The destinations in use that scope keys call so: the provider's own, and routes with its policy."""
        routes = range(len(self._engine.placement.routes))
        keys = (f"policy:{provider}", f"site:{provider}", provider, *(f"route:{each}:{provider}" for each in routes))
        found = (self.destinations.get(key) for key in keys)
        return [destination for destination in found if destination is not None and destination.provider == provider]

    def known(self) -> list[tuple[str, Site]]:
        """Every domain whose site is known."""
        return [(domain, site) for domain, (site, _) in self._known.items()]

    def forget(self, domains: Collection[str]) -> None:
        """These are placed anew when their next mail comes."""
        for domain in domains:
            self._known.pop(domain, None)

    def close(self) -> None:
        """No more look-ups."""
        for waiting in self._waiting.values():
            waiting.cancel()
