"""Where the baseline takes the mail of a domain, and what it may do there.

Routes are asked first, then the DNS, once a domain: the best mail host and its first address, as a simple engine does.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import dns.asyncresolver
import dns.exception
import dns.resolver
import msgspec


class Limits(msgspec.Struct, frozen=True):
    """What one process may do to a host that some of the domains or mail hosts lead to; `*.x` is all below x."""

    connections: int = 20
    messages_per_connection: int = 0
    """0: as many as there are."""
    domains: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()


class Place(NamedTuple):
    """A mail host."""

    address: str
    port: int
    limits: Limits


class Directions:
    """Where the mail of a domain goes: a route, else its best mail host."""

    def __init__(
        self,
        routes: Mapping[str, tuple[str, int]],
        limits: Sequence[Limits],
        nameserver: tuple[str, int] | None,
        mx_port: int,
    ) -> None:
        """`routes`: domain, or `*`, -> host and port; `limits`: the first that fits holds, the last one for all others;
        `nameserver` None: the system's; `mx_port`: where the hosts that the DNS names are spoken to."""
        *self._special, self._default_limits = limits
        self._mx_port = mx_port
        self._known = {
            domain: Place(*place, self._limits(domain, "")) for domain, place in routes.items() if domain != "*"
        }
        self._default = Place(*routes["*"], self._default_limits) if "*" in routes else None
        self._resolver = dns.asyncresolver.Resolver(configure=nameserver is None)
        if nameserver is not None:
            self._resolver.nameservers = [nameserver[0]]
            self._resolver.port = nameserver[1]
        self._resolver.cache = dns.resolver.LRUCache(100_000)

    def known(self, domain: str) -> Place | None:
        """Where nobody needs to be asked."""
        return self._known.get(domain, self._default)

    async def find(self, domain: str) -> Place:
        """Where else. Raises LookupError where there is no such domain, dns.exception.DNSException for now."""
        try:
            exchangers = await self._resolver.resolve(domain, "MX")
            host = min((each.preference, each.exchange.to_text(omit_final_dot=True)) for each in exchangers)[1]
        except dns.resolver.NXDOMAIN:
            raise LookupError(domain) from None
        except dns.resolver.NoAnswer:
            host = domain  # RFC 5321 5.1
        if host in ("", "."):
            raise LookupError(domain)  # RFC 7505 3
        addresses = await self._resolver.resolve(host, "A")
        limits = self._limits(domain, host.lower())
        place = self._known[domain] = Place(next(iter(addresses)).to_text(), self._mx_port, limits)
        return place

    def _limits(self, domain: str, host: str) -> Limits:
        for each in self._special:
            if any(fits(domain, pattern) for pattern in each.domains) or any(
                fits(host, pattern) for pattern in each.mx
            ):
                return each
        return self._default_limits


def fits(name: str, pattern: str) -> bool:
    """Whether a domain or a host is meant by a name, or by `*.x` for all below x."""
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern
