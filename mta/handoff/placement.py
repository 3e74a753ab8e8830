"""Placement: which worker owns a destination. Pure: the same inputs give the same owner on every worker.

A destination is a route, else the provider whose policy matches, else the site (all domains with the same MX
hosts). Its key is a string: `route:0:default`, `policy:google`, `site:mx.example`. A domain whose MX hosts nobody
has looked up yet belongs to the owner of `domain:NAME`, who resolves it and tells the others.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from mta_policies.layers import PolicySet
from mta_policies.limits import Share
from mta_policies.policy import Policy

KNOWN_DOMAINS_MAX = 200_000  # a door forgets the oldest told domain beyond this: about 40 MB


class Route(NamedTuple):
    """One `[[route]]`: where mail for some domains goes before any MX is asked."""

    domains: tuple[str, ...]
    hosts: tuple[tuple[str, int], ...]
    """Host and port, tried in order."""
    policy: str
    """Whose limits hold; "": of the policy that the recipient's domain matches."""


class Destination(NamedTuple):
    """The unit of ownership, as every worker computes it."""

    key: str
    policy: Policy
    route: Route | None = None


def _matches(pattern: str, domain: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return domain.endswith(pattern[1:])
    return pattern == domain


def lender(key: str, workers: int) -> int:
    """The worker that keeps the account of a limit across destinations ("tenant shop") and lends to the others."""
    return zlib.crc32(b"limit:" + key.encode()) % workers


class Placement:
    """Answers whose a domain is; knows policies, routes, the number of workers and what other workers told it.

    `epoch` counts reloads: an answer of one epoch says nothing about the next.
    """

    def __init__(self, policies: PolicySet, routes: Sequence[Route], workers: int, me: int, epoch: int = 1) -> None:
        self.policies = policies
        self.routes = tuple(routes)
        self.workers = workers
        self.me = me
        self.epoch = epoch
        self._told: dict[str, tuple[tuple[int, ...], float]] = {}
        self._turn = 0
        self._by_domain: dict[str, Destination | None] = {}
        self._owners: dict[str, tuple[int, ...]] = {}

    def decided(self, domain: str) -> Destination | None:
        """The destination where the domain's name alone decides it (a route, a policy's `domains`), else None."""
        try:
            return self._by_domain[domain]
        except KeyError:
            pass
        if len(self._by_domain) >= KNOWN_DOMAINS_MAX:
            self._by_domain.clear()
        answer = self._by_domain[domain] = self._decide(domain)
        return answer

    def _decide(self, domain: str) -> Destination | None:
        for number, route in enumerate(self.routes):
            if any(_matches(pattern, domain) for pattern in route.domains):
                policy = self.policies.policies[route.policy] if route.policy else self.policies.by_domain(domain)
                policy = policy or self.policies.default
                return Destination(f"route:{number}:{policy.name}", policy, route)
        policy = self.policies.by_domain(domain)
        if policy is not None:
            return Destination(f"policy:{policy.name}", policy)
        return None

    def by_mx(self, hosts: Sequence[str], site: str) -> Destination:
        """The destination of a domain that no name decides and whose MX hosts (a site of that name) are known."""
        policy = self.policies.by_mx(hosts)
        if policy is not None:
            return Destination(f"policy:{policy.name}", policy)
        return Destination(f"site:{site}", self.policies.default)

    def owners(self, destination: Destination) -> tuple[int, ...]:
        """The workers that share a destination, in the order of their shares."""
        first = zlib.crc32(destination.key.encode()) % self.workers
        if destination.policy.owners == 1:
            return (first,)
        count = min(destination.policy.owners, self.workers)
        return tuple((first + index) % self.workers for index in range(count))

    def share(self, destination: Destination) -> Share | None:
        """The part of every limit that this worker has, or None where it does not own the destination."""
        owners = self.owners(destination)
        if self.me not in owners:
            return None
        return Share(owners.index(self.me), len(owners))

    def asker(self, domain: str) -> int:
        """The one worker that resolves a domain which no name decides."""
        return zlib.crc32(b"domain:" + domain.encode()) % self.workers

    def tell(self, domain: str, owners: Sequence[int], until_s: float) -> None:
        """Another worker resolved this domain: until then (monotonic seconds) its mail goes to one of `owners`."""
        self._told.pop(domain, None)  # what is told again is the youngest
        if len(self._told) >= KNOWN_DOMAINS_MAX:
            del self._told[next(iter(self._told))]
        self._told[domain] = (tuple(owners), until_s)

    def owner(self, domain: str, now_s: float) -> int:
        """The worker that mail for this domain is handed to: this one where it is among several owners."""
        if self.workers == 1:
            return self.me
        owners = self._owners.get(domain)
        if owners is None:
            destination = self.decided(domain)
            if len(self._owners) >= KNOWN_DOMAINS_MAX:
                self._owners.clear()
            owners = self._owners[domain] = self.owners(destination) if destination is not None else ()
        if owners:
            return owners[0] if len(owners) == 1 else self._one_of(owners)
        told = self._told.get(domain)
        if told is not None:
            if told[1] > now_s:
                return self._one_of(told[0])
            del self._told[domain]
        return self.asker(domain)

    def _one_of(self, owners: tuple[int, ...]) -> int:
        if self.me in owners:
            return self.me
        self._turn += 1
        return owners[self._turn % len(owners)]
