"""Following: mail that waits for a site follows its domain where the DNS sends it elsewhere meanwhile.

Mail behind a limit, a firing or a site that is down may wait for longer than the DNS answer holds that brought it
there. So now and then the domains of what waits are looked up again, each when its answer is over: where another site
is found, their mail goes there, by the policy that holds there. What waits as a number alone is looked at when it is
read back.
"""

import asyncio
from typing import TYPE_CHECKING

from mta.delivery.sites import Site
from mta.resolve.errors import ResolveError
from mta.resolve.sites import site_name

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

LOOKED_AT_S = 60.0  # how often the domains of one site's mail are looked at
ASKED_AT_ONCE = 100  # look-ups under way; what is more comes with a later look


class Following:
    """Of one worker."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._asking: dict[str, asyncio.Task[None]] = {}

    def look(self, site: Site, now_s: float) -> None:
        """To be called every few seconds for each site."""
        if site.hosts is None or site.looked_at_s + LOOKED_AT_S > now_s:
            return
        site.looked_at_s = now_s
        domains = self._engine.domains
        for domain in site.waiting_domains():
            known = domains.known_until(domain)
            if known is None or known[0] is site:
                if (known is None or known[1] <= now_s) and len(self._asking) < ASKED_AT_ONCE:
                    self._ask(domain, site)
            else:
                self._follow(domain, site)

    def _ask(self, domain: str, site: Site) -> None:
        if domain not in self._asking:
            task = self._asking[domain] = self._engine.loop.create_task(self._look_up(domain, site))
            task.add_done_callback(lambda done: self._asking.pop(domain, None))

    async def _look_up(self, domain: str, site: Site) -> None:
        try:
            hosts = await self._engine.resolver.mail_hosts(domain)
        except ResolveError as error:
            if not error.permanent:
                return  # nobody knows better than what was known
        else:
            if site_name(hosts.names) == site.name:
                self._engine.domains.confirm(domain, site, hosts)
                return
        if not site.is_closed:
            self._engine.domains.forget([domain])
            self._follow(domain, site)

    def _follow(self, domain: str, site: Site) -> None:
        jobs = site.take_ready(lambda job: job.domain == domain)
        self._engine.handover.rehome(jobs)

    def close(self) -> None:
        """No more look-ups."""
        for task in self._asking.values():
            task.cancel()
