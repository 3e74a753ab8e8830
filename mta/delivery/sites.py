"""A site: all domains that the same MX hosts serve (or a route's hosts), with a pool for every source."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from itertools import chain, islice

from mta.delivery.destination import Destination
from mta.delivery.job import Job
from mta.delivery.pool import Pool
from mta.resolve.sites import MailHosts
from mta_policies.backoff import Backoff

PUMPED_AT_ONCE = 250  # sites that go on in one turn of the loop: each may begin transactions and connections


class Site:
    """Where connections go. Owned by one destination; a reload may give its mail to another one."""

    def __init__(self, destination: Destination, name: str, hosts: MailHosts | None) -> None:
        self.destination = destination
        self.name = name
        self.hosts = hosts
        """The MX hosts with their preferences; None for a route."""
        self.pools: dict[str, Pool] = {}
        self._leaving: list[Pool] = []
        self.backoff = Backoff()
        self.is_closed = False
        """Its mail goes another way; no transaction begins."""
        self.holds = 0
        """How many claims are open: others perhaps have connections to it; nothing begins before they are gone."""
        self.used_s = self.looked_at_s = destination.engine.loop.time()

    def pool(self, source_name: str) -> Pool:
        """The pool of a source; of any source that there is where that one is gone."""
        pool = self.pools.get(source_name)
        if pool is None:
            sources = self.destination.engine.sources
            source = sources.by_name.get(source_name) or sources.choose("", None)
            pool = self.pools.get(source.name)
            if pool is None:
                pool = self.pools[source.name] = Pool(self, source)
        return pool

    def push(self, job: Job) -> None:
        """A job may go to this site."""
        pool = self.pools.get(job.source)
        (pool if pool is not None else self.pool(job.source)).push(job)

    def push_all(self, jobs: Collection[Job]) -> None:
        """Many jobs may."""
        for job in jobs:
            self.pool(job.source).put(job)
        self.pump()

    def pump(self) -> None:
        """Something became possible for every pool."""
        for pool in list(self.pools.values()):
            pool.pump()

    def knock(self) -> None:
        """Try at once what failed lately: an admin says so."""
        if self.is_closed:
            return
        for pool in self.pools.values():
            if self.backoff.failures or pool.backoff.failures:
                pool.backoff.knock()
                pool.targets.begin_again()
        self.backoff.knock()
        self.pump()

    def reload(self) -> None:
        """The policy, this worker's share or the sources changed."""
        sources = self.destination.engine.sources.by_name
        homeless: list[Job] = []
        for name, pool in list(self.pools.items()):
            source = sources.get(name)
            if source is not None:
                pool.reload(source)
                continue
            pool.spill.take_all()
            homeless += pool.take_jobs()
            pool.close()
            del self.pools[name]
            self._leaving.append(pool)
        for job in homeless:
            self.pool(job.source).put(job)

    def close(self) -> None:
        """No new transactions; connections leave."""
        self.is_closed = True
        for pool in self.pools.values():
            pool.close()

    def abort(self) -> None:
        """Cut off what is open."""
        for pool in chain(self.pools.values(), self._leaving):
            pool.abort()

    def take_jobs(self, wanted: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take out the jobs that wait here and are wanted (None: everything). What is spilled goes its way anew by
        itself."""
        jobs = []
        for pool in self.pools.values():
            pool.spill.take_all()
            jobs += pool.take_jobs(wanted)
        return jobs

    def take_ready(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Take out the jobs that wait here and are wanted; what is spilled is looked at when it comes back."""
        return [job for pool in self.pools.values() for job in pool.take_jobs(wanted)]

    def waiting_domains(self) -> set[str]:
        """Whose jobs wait here; what is spilled is placed anew whenever it comes back."""
        return {job.domain for pool in self.pools.values() for job in pool.lane}

    def look_after(self, now_s: float, idle_before_s: float, unused_before_s: float) -> bool:
        """Let idle connections go; -> False where the site has not been used since that time and nothing of it need be
        remembered."""
        used = False
        for pool in self.pools.values():
            if not pool.is_unused:
                used = True
                pool.sweep(now_s, idle_before_s)
        if self._leaving:
            self._leaving = [pool for pool in self._leaving if pool.channels]
            used = True
        if used or self.holds:
            self.used_s = now_s
        if self.used_s > unused_before_s:
            return True
        # What a slow rate, or a firing, has counted holds for whoever comes next.
        return self.destination.brakes is not None or not self.destination.is_rested(self, now_s)

    @property
    def is_sending(self) -> bool:
        """A transaction is under way."""
        return any(pool.is_sending for pool in chain(self.pools.values(), self._leaving))

    @property
    def connections(self) -> int:
        """How many count now."""
        return sum(len(pool.channels) for pool in chain(self.pools.values(), self._leaving))


class PumpRound:
    """Many sites that may perhaps go on: some in each turn of the loop, none in this one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sites: dict[Site, None] = {}

    def add(self, sites: Iterable[Site]) -> None:
        """Pump these soon; who is named twice is pumped once."""
        is_pumping = bool(self._sites)
        self._sites.update(dict.fromkeys(sites))
        if self._sites and not is_pumping:
            self._loop.call_soon(self._pump_some)

    def _pump_some(self) -> None:
        some = list(islice(self._sites, PUMPED_AT_ONCE))
        for site in some:
            del self._sites[site]
        if self._sites:
            self._loop.call_soon(self._pump_some)
        for site in some:
            site.pump()
