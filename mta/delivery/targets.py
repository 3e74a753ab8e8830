"""Targets: which host and which of its addresses the next connection goes to, and what failed lately.

Addresses are asked for host by host, the best first, and only as far as they are needed: a dead name server of the
third MX costs nothing while the first one takes the mail. An address that failed is left out for a while, so that the
next connection goes to the next one, and a site with one dead host is as fast as before.
"""

import asyncio
import math
from typing import TYPE_CHECKING

from mta.delivery.connection import SourceAddress, Target
from mta.delivery.sources import families
from mta.resolve.errors import ResolveError, no_address, verdict
from mta.smtp.client import TlsMode

if TYPE_CHECKING:
    from mta.delivery.sites import Site

FRESH_S = 30.0  # addresses are taken from the resolver anew after this; it knows how long they hold
FAILED_S = 300.0  # an address that failed is tried again after this, or when all others failed too
ADDRESSES_PER_HOST_MAX = 2  # in one round, where there are other hosts (RFC 5321 5.1 asks for two at least)
HOSTS_MAX = 20  # that a round looks at: a domain may name a thousand

_Host = tuple[str, int]
_NONE: tuple[list[str], float] = ([], 0.0)


class Targets:
    """The choice of one pool."""

    def __init__(self, site: "Site") -> None:
        self._site = site
        self._engine = site.destination.engine
        self._known: dict[str, tuple[list[str], float]] = {}
        self._errors: dict[str, ResolveError] = {}
        self._failed: dict[tuple[str, str], float] = {}
        self._in_clear: dict[str, float] = {}

    def _groups(self) -> list[list[_Host]]:
        """Hosts, equal ones together, the best first."""
        route = self._site.destination.placed.route
        if route is not None:
            return [[host] for host in route.hosts[:HOSTS_MAX]]
        assert self._site.hosts is not None, "a site that is no route has MX hosts"
        port = self._engine.port
        groups: dict[int, list[_Host]] = {}
        for preference, name in self._site.hosts.hosts[:HOSTS_MAX]:
            groups.setdefault(preference, []).append((name, port))
        return list(groups.values())

    def choose(self, now_s: float) -> Target | None:
        """Where to connect to, each time another one of equals; None: `find` has to look for one first."""
        for group in self._groups():
            if any(not self.is_known(host, now_s) for host, _ in group):
                return None
            if len(group) > 1:
                self._engine.random.shuffle(group)
            for host in group:
                target = self._address_of(host, now_s)
                if target is not None:
                    return target
        return None

    def choose_host(self, name: str) -> Target | None:
        """An address of this host, whatever failed lately; None where there is none."""
        for group in self._groups():
            for host in group:
                if host[0] == name:
                    return self._address_of(host, math.inf)
        return None

    def is_known(self, host: str, now_s: float) -> bool:
        """Whether its addresses, or that it has none, were found lately, or it is none of the site's."""
        known = self._known.get(host)
        return host in self._errors if known is None else known[1] > now_s

    def _usable(self, host: _Host, now_s: float) -> list[str]:
        """The addresses of a host that may be tried; none of one that had its tries in this round."""
        name, _ = host
        addresses, failed = self._known.get(name, _NONE)[0], self._failed
        usable = [address for address in addresses if failed.get((name, address), 0.0) <= now_s]
        return usable if len(addresses) - len(usable) < ADDRESSES_PER_HOST_MAX else []

    def _address_of(self, host: _Host, now_s: float) -> Target | None:
        """Each time the next of its addresses."""
        usable = self._usable(host, now_s)
        if not usable:
            return None
        (name, port), address = host, usable[0]
        addresses = self._known[name][0]
        addresses.remove(address)
        addresses.append(address)
        return Target(name, address, port)

    async def find(self, source: SourceAddress, prefer_host: str = "") -> bool:
        """Ask for addresses, of `prefer_host` at least, until there is one to try.

        -> False: all have failed, the next round begins with them anew.

        Raises ResolveError where no host has any usable address; it is permanent only where every host's was.
        """
        engine = self._engine
        self._errors.clear()
        found_one, waits_for = False, prefer_host
        check = self._site.destination.placed.route is None
        for group in self._groups():
            now_s = engine.loop.time()
            names = [name for name, _ in group if not self.is_known(name, now_s)]
            asked = [engine.resolver.addresses(name, families(source), check_prohibited=check) for name in names]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            now_s = engine.loop.time()
            for name, found in zip(names, answers, strict=True):
                if isinstance(found, ResolveError):
                    self._known.pop(name, None)
                    self._errors[name] = found
                elif isinstance(found, BaseException):
                    raise found
                else:
                    self._known[name] = (found, now_s + FRESH_S)
            if any(name == waits_for for name, _ in group):
                waits_for = ""
            found_one = found_one or any(self._usable(host, now_s) for host in group)
            if found_one and not waits_for:
                break
        if prefer_host and prefer_host not in self._known:
            self._errors.setdefault(prefer_host, no_address(prefer_host))  # it need not be looked for again
        if found_one:
            return True
        if not self._known:
            raise verdict(list(self._errors.values()))
        self.begin_again()
        return False

    def begin_again(self) -> None:
        """Nothing is held against anybody."""
        self._failed.clear()
        self._errors.clear()
        self._known.clear()

    def failed(self, target: Target, now_s: float) -> bool:
        """No connection to this one. -> True: that is news."""
        key = (target.host, target.address)
        is_news = self._failed.get(key, 0.0) <= now_s
        self._failed[key] = now_s + FAILED_S
        return is_news

    def tls_mode(self, target: Target, now_s: float) -> TlsMode:
        """How to speak with it: as the policy says, or in clear where it may and TLS failed."""
        mode = self._site.destination.policy.tls
        if mode == "opportunistic" and self._in_clear.get(target.address, 0.0) > now_s:
            return "none"
        return mode

    def goes_in_clear(self, target: Target, now_s: float) -> None:
        """TLS failed where it need not be: the next connection does without."""
        self._in_clear[target.address] = now_s + FAILED_S
        addresses = self._known.get(target.host, _NONE)[0]
        if target.address in addresses:
            addresses.remove(target.address)
            addresses.insert(0, target.address)

    def sweep(self, now_s: float) -> None:
        """Forget what is long past."""
        if self._failed:
            self._failed = {key: until_s for key, until_s in self._failed.items() if until_s > now_s}
        if self._in_clear:
            self._in_clear = {address: until_s for address, until_s in self._in_clear.items() if until_s > now_s}
