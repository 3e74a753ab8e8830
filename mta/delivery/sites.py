"""A site: all domains that the same MX hosts serve (or a route's hosts), with a pool for every source."""

from collections.abc import AsyncIterator, Sequence

from mta.delivery.backoff import Backoff
from mta.delivery.connection import SourceAddress, Target
from mta.delivery.destination import Destination
from mta.delivery.job import Job
from mta.delivery.pool import Pool
from mta.delivery.sources import families
from mta.resolve.errors import ResolveError
from mta.resolve.sites import MailHosts, order


class Site:
    """Where connections go. Owned by one destination; a reload may give its mail to another one."""

    def __init__(self, destination: Destination, name: str, hosts: MailHosts | None) -> None:
        self.destination = destination
        self.name = name
        self.hosts = hosts
        """The MX hosts with their preferences; None for a route."""
        self.pools: dict[str, Pool] = {}
        self.backoff = Backoff()
        self.is_closed = False
        """Its mail goes another way; no transaction begins."""
        self.is_held = False
        """It was perhaps another destination's, who still has connections: nothing begins before they are gone."""
        self.used_s = destination.engine.loop.time()

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

    async def targets(self, source: SourceAddress, prefer_host: str) -> AsyncIterator[Target]:
        """Where to connect to, best first; raises ResolveError at the end where no host had a usable address.

        That error is permanent only where every host's was.
        """
        engine = self.destination.engine
        error: ResolveError | None = None
        found = False
        for host, port, written in self._hosts(prefer_host):
            try:
                addresses = await engine.resolver.addresses(host, families(source), check_prohibited=not written)
            except ResolveError as problem:
                if error is None or error.permanent:
                    error = problem
                continue
            for address in addresses:
                found = True
                yield Target(host, address, port)
        if not found and error is not None:
            raise error

    def _hosts(self, prefer_host: str) -> Sequence[tuple[str, int, bool]]:
        route = self.destination.placed.route
        if route is not None:
            hosts = [(host, port, True) for host, port in route.hosts]
        else:
            assert self.hosts is not None, "a site that is no route has MX hosts"
            engine = self.destination.engine
            hosts = [(host, engine.port, False) for host in order(self.hosts, engine.random)]
        if prefer_host:
            hosts.sort(key=lambda host: host[0] != prefer_host)
        return hosts

    def pump(self) -> None:
        """Something became possible for every pool."""
        for pool in self.pools.values():
            pool.pump()

    def wake_in(self, wait_s: float) -> None:
        """The site is down: all its pools look again then."""
        self.destination.engine.loop.call_later(wait_s, self.pump)

    def reload(self) -> None:
        """The policy changed."""
        for pool in self.pools.values():
            pool.reload()
        self.pump()

    def close(self) -> None:
        """No new transactions; connections leave."""
        self.is_closed = True
        for pool in self.pools.values():
            pool.close()

    def abort(self) -> None:
        """Cut off what is open."""
        for pool in self.pools.values():
            pool.abort()

    def take_jobs(self, domain: str | None) -> list[Job]:
        """Take out what waits here for a domain (None: everything)."""
        return [job for pool in self.pools.values() for job in pool.take_jobs(domain)]

    def look_after(self, now_s: float, idle_before_s: float, unused_before_s: float) -> bool:
        """Let idle connections go; -> False where the site has not been used since that time."""
        used = False
        for pool in self.pools.values():
            if not pool.is_unused:
                used = True
                pool.sweep(idle_before_s)
        if used:
            self.used_s = now_s
        return self.used_s > unused_before_s

    @property
    def is_sending(self) -> bool:
        """A transaction is under way."""
        return any(pool.is_sending for pool in self.pools.values())

    @property
    def connections(self) -> int:
        """How many count now."""
        return sum(pool.meter.connections_open for pool in self.pools.values())
