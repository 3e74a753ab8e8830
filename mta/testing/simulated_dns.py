"""SimulatedDns: nameservers of a simulation; zones change, and some cannot be asked for a while."""

import asyncio
from collections.abc import Collection, Sequence
from random import Random

from mta.resolve.answers import Answer, Kind, Outcome, failed
from mta.resolve.nameservers import Budget

TTL_S = 600
ANSWER_S = (0.001, 0.08)


class SimulatedDns:
    """An asker (mta.resolve.resolver) for all resolvers of a machine."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.hosts: dict[str, Sequence[str]] = {}
        """Domain -> its mail hosts, the best first."""
        self.addresses: dict[str, list[str]] = {}
        """Mail host -> its addresses, IPv4 and IPv6."""
        self.broken: set[str] = set()
        """Domains whose nameservers do not answer."""

    async def ask(self, name: str, kind: Kind, budget: Budget, confirm: Collection[Outcome] = ()) -> Answer:
        """See `mta.resolve.resolver.Asker`."""
        await asyncio.sleep(self._random.uniform(*ANSWER_S))
        if name in self.broken:
            return failed("the nameserver says SERVFAIL")
        if kind == "MX" and name in self.hosts:
            records = tuple(f"{10 * at} {host}" for at, host in enumerate(self.hosts[name], 1))
            return Answer("found", records, TTL_S, name)
        if kind in ("A", "AAAA"):
            found = [address for address in self.addresses.get(name, ()) if (":" in address) is (kind == "AAAA")]
            if found:
                return Answer("found", tuple(found), TTL_S, name)
        known = name in self.hosts or name in self.addresses
        return Answer("empty" if known else "no-name", ttl_s=300, name=name)
