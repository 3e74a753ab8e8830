"""Handover: destinations and sites change their owner while they are in use, and the peer never sees both.

What began after a reload was perhaps another destination's before, here or at another worker: it is held until all
others have said that they have no connection to it beyond their own share (`Claims`).
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mta.delivery.destination import Destination
from mta.delivery.job import WAITING, Job
from mta.delivery.sites import Site
from mta.handoff.claims import Claims, LimitState
from mta.handoff.placement import Destination as Placed
from mta.handoff.placement import Placement

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

REHOMED_AT_ONCE = 1_000  # jobs that find their new site in one turn of the loop: some ten milliseconds
LEFT_KEPT_S = 60.0  # so long after its last connection what was used of a site's limits can be asked for


class Handover:
    """Claims of this worker, answers to those of others, and the sites that leave."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self.claims: Claims
        self.leaving: list[Site] = []
        """Sites whose mail goes another way, until their last connection is closed and a while after."""
        self._yields: list[Callable[[], bool]] = []
        self._is_own_claim = False

    def claim(self, destination: Destination, sites: Sequence[Site]) -> None:
        """Hold these sites until nobody else has connections that count against their limits."""
        for site in sites:
            site.holds += 1

        def granted(states: list[LimitState]) -> None:
            for site in sites:
                destination.restore(states, site)
            for site in sites:
                site.holds -= 1
                site.pump()

        self._is_own_claim = True
        try:
            self.claims.claim(destination.key, sites[0].name if len(sites) == 1 else "", granted)
        finally:
            self._is_own_claim = False

    def yield_to(self, key: str, site_name: str, answer: Callable[[LimitState], None]) -> None:
        """Somebody claims a destination or a site: answer when nothing of it is open here beyond our share."""
        left = [site for site in self.leaving if site.name == site_name or site.destination.key == key]
        is_own = self._is_own_claim

        def is_done() -> bool:
            if any(site.connections for site in left):
                return False
            states: LimitState = {}
            for site in left:
                states.update(site.destination.state(site))
            destination = self._engine.domains.destinations.get(key)
            if destination is not None and not is_own:  # what is ours need not be told to ourselves
                if destination.lower_connections():
                    return False
                states.update(destination.state())
            answer(states)
            return True

        if not is_done():
            self._yields.append(is_done)

    def sweep(self, now_s: float) -> None:
        """Answer what can be answered now, forget who has left."""
        yields, self._yields = self._yields, []
        for is_done in yields:
            if not is_done():
                self._yields.append(is_done)
        for site in self.leaving:
            if site.connections:
                site.used_s = now_s
        self.leaving = [site for site in self.leaving if site.used_s + LEFT_KEPT_S > now_s]

    def reload(self, placement: Placement) -> None:
        """The engine has new policies, routes and sources: mail is placed anew; a site that stays keeps connections."""
        engine, domains = self._engine, self._engine.domains
        served: dict[Site, set[str]] = {}
        for domain, site in domains.known():
            served.setdefault(site, set()).add(domain)
        homeless = domains.take_waiting()
        kept: dict[str, Placed] = {}
        for site in list(domains.sites.values()):
            known = served.get(site, set())
            placed, moved = _place(placement, site, known | site.waiting_domains())
            if placed is not None and placement.share(placed) is not None:
                kept[placed.key] = placed
                if moved or not placed.policy.limits.mix_domains:
                    homeless += site.take_jobs(partial(_goes, moved))
                # Where there are several owners the doors have to be told again who they are.
                domains.forget(moved if len(placement.owners(placed)) == 1 else known)
            else:
                domains.forget(known)
                homeless += site.take_jobs()
                site.used_s = engine.loop.time()
                self.leaving.append(site)
                domains.drop(site)
        grown = []
        for key, placed in kept.items():
            destination, share = domains.destinations[key], placement.share(placed)
            assert share is not None, "what is not ours was dropped"
            if share != destination.share:
                grown.append(destination)
            destination.reload(placed, share)
        self.claims.reloaded(placement.epoch)
        for destination in grown:  # others perhaps still use what is now ours
            destination.take_over()
            self.claim(destination, list(destination.sites.values()))
        for site in list(domains.sites.values()):
            site.pump()
        self.rehome(homeless)

    def rehome(self, jobs: Sequence[Job]) -> None:
        """Find new places for these, in slices; what ends before its turn needs none."""
        for job in jobs[:REHOMED_AT_ONCE]:
            if job.state != WAITING:
                continue
            if job.is_mixed:  # its domains perhaps part now
                self._engine.again(job)
            else:
                self._engine.route(job)
        if len(jobs) > REHOMED_AT_ONCE:
            self._engine.loop.call_soon(self.rehome, jobs[REHOMED_AT_ONCE:])
        else:
            self._engine.agenda.go_on()


def _goes(moved: set[str], job: Job) -> bool:
    return job.is_mixed or job.domain in moved


def _place(placement: Placement, site: Site, domains: Collection[str]) -> tuple[Placed | None, set[str]]:
    """Where a site's destination is now, None where it is no more; and the domains that are not its any more."""
    is_here: Placed | None = None
    moved: set[str] = set()
    old = site.destination.placed
    by_mx = placement.by_mx(site.hosts.names, site.name) if site.hosts is not None else None
    for domain in domains:
        placed = placement.decided(domain) or by_mx
        if placed is not None and placed.key == old.key and placed.route == old.route:
            is_here = placed
        else:
            moved.add(domain)
    if not domains and by_mx is not None and by_mx.key == old.key:
        is_here = by_mx
    return is_here, moved
