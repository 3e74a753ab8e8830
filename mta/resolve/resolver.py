"""The resolver: which hosts take a domain's mail, and at which addresses a host is reached.

For every message there is `cached_hosts`, a look into a dictionary. What is not there is asked for once,
however many wait for it (`mail_hosts`); a failure is an answer too and is kept for a while, so that a broken
domain costs a few queries a minute and not one a message. The verdicts are in `errors`, the walk from
a domain to its hosts (RFC 5321 5.1) is here.
"""

import asyncio
import sys
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Protocol, TypeVar

from mta.model.clock import Clock
from mta.resolve import errors
from mta.resolve.answers import Answer, Kind, Outcome
from mta.resolve.cache import FAILED_TTL_S, TTL_MAX_S, Cache, Entry, negative_ttl_s, positive_ttl_s
from mta.resolve.errors import ResolveError
from mta.resolve.names import LOOPBACK, clean_name, is_loopback_name, literal_address
from mta.resolve.nameservers import Budget, Nameservers
from mta.resolve.prohibited import Prohibited
from mta.resolve.sites import MailHosts, MxHost

LOOKUP_TIMEOUT_S = 20.0
"""For all queries of one look-up together; a sender who waits longer is better served by a later retry."""
MX_HOSTS_MAX = 100
"""Of a domain; nobody needs more, and each may cost a connection."""
ADDRESSES_MAX = 5
"""Of one host in one attempt, both families together."""
ADDRESSES_KEPT_MAX = 64
"""Of one host and family; later attempts begin with others."""
OWN_CHECK_HOSTS_MAX = 10
"""Of a domain whose addresses are compared with our own; loops are made by mistake, not by the dozen."""
_KINDS: dict[int, Kind] = {4: "A", 6: "AAAA"}
_CONFIRMED: tuple[Outcome, ...] = ("no-name",)
_CONFIRMED_WITH_EMPTY: tuple[Outcome, ...] = ("no-name", "empty")

Value = TypeVar("Value")
Found = tuple[str, ...]


class Asker(Protocol):
    """Who answers questions: `Nameservers`, or a test."""

    async def ask(self, name: str, kind: Kind, budget: Budget, confirm: Collection[Outcome] = ()) -> Answer: ...


class Resolver:
    """Mail hosts and addresses, cached.

    `nameservers`: as in `nameservers.parse_nameserver`, none for the system's. `prohibited`: networks that
    `addresses` keeps away from. `own_names` and `own_addresses`: hosts that are this very server, so that
    mail to them would loop; an address counts only where we listen at the port that we deliver to, so the
    caller names just these. `use_ipv6` False: nobody sends from an IPv6 address, AAAA is only asked for
    to tell whether a domain exists. Raises ValueError for malformed nameservers and networks.
    """

    def __init__(
        self,
        *,
        nameservers: Sequence[str],
        clock: Clock,
        prohibited: Sequence[str],
        timeout_s: float = LOOKUP_TIMEOUT_S,
        use_ipv6: bool = True,
        own_names: Collection[str] = (),
        own_addresses: Collection[str] = (),
        asker: Asker | None = None,
    ) -> None:
        self._asker = asker or Nameservers(nameservers)
        self._now_s = clock.monotonic_s
        self._prohibited = Prohibited(prohibited)
        self._timeout_s = timeout_s
        self._use_ipv6 = use_ipv6
        self._own_names = frozenset(name.lower().removesuffix(".") for name in own_names)
        self._own_addresses = frozenset(own_addresses)
        self._hosts: Cache[MailHosts | ResolveError] = Cache()
        self._addresses: Cache[Found | ResolveError] = Cache()
        self._hosts_entries = self._hosts.entries
        self._flights: dict[str, asyncio.Task[object]] = {}
        self.lookups = 0
        """How many were begun, for the metrics."""

    # -- a domain's hosts --

    def cached_hosts(self, domain: str) -> MailHosts | ResolveError | None:
        """What is known of the domain (as `Recipient.domain`), without waiting; None: ask `mail_hosts`.

        HOT: called for every message. A late answer is returned and asked for anew in the background.
        """
        entry = self._hosts_entries.get(domain)
        if entry is None:
            return None
        now_s = self._now_s()
        if now_s >= entry.late_s:
            if now_s >= entry.expires_s:
                return None
            self._renew(entry, domain)
        entry.used = True
        return entry.value

    async def mail_hosts(self, domain: str) -> MailHosts:
        """The hosts that take the domain's mail; raises ResolveError. All who ask at a time share one look-up."""
        name = domain if literal_address(domain) is not None else clean_name(domain)
        if not name:
            raise errors.bad_name(domain)
        known = self.cached_hosts(name)
        if known is None:
            known = await self._fly("hosts " + name, lambda: self._find_hosts(name))
        if isinstance(known, ResolveError):
            raise _raisable(known)
        return known

    def forget(self, domain: str) -> None:
        """Ask anew the next time: somebody else has another answer."""
        self._hosts_entries.pop(domain, None)

    def _renew(self, entry: Entry[MailHosts | ResolveError], domain: str) -> None:
        entry.late_s = entry.expires_s  # once is enough; a failure leaves the old answer until it expires
        if not isinstance(entry.value, ResolveError):
            self._take_off("hosts " + domain, lambda: self._find_hosts(domain))

    async def _find_hosts(self, domain: str) -> MailHosts | ResolveError:
        """Asks, and keeps what was found; a temporary failure never replaces hosts that still count."""
        found, ttl_s = await self._ask_hosts(domain)
        now_s = self._now_s()
        if isinstance(found, ResolveError) and not found.permanent:
            kept = self._hosts.get(domain, now_s)
            if kept is not None and not isinstance(kept.value, ResolveError):
                return kept.value
        self._hosts.put(domain, found, ttl_s, now_s)
        return found

    async def _ask_hosts(self, domain: str) -> tuple[MailHosts | ResolveError, float]:
        if literal_address(domain) is not None or is_loopback_name(domain):
            return self._mail_hosts(domain, [MxHost(0, domain)], True, TTL_MAX_S), TTL_MAX_S
        budget = Budget(self._timeout_s)
        answer = await self._asker.ask(domain, "MX", budget, _CONFIRMED)
        if answer.outcome == "no-name":
            return errors.no_domain(domain), negative_ttl_s(answer.ttl_s)
        if answer.outcome == "empty":
            return await self._ask_implicit(domain, answer, budget)
        if answer.outcome != "found":
            return errors.no_answer(domain, answer.why), FAILED_TTL_S
        ttl_s = positive_ttl_s(answer.ttl_s)
        hosts = read_hosts(answer.records)
        if not hosts:
            is_null = all(record.endswith(" ") for record in answer.records)
            return (errors.null_mx(domain) if is_null else errors.bad_hosts(domain)), negative_ttl_s(answer.ttl_s)
        hosts = await self._cut_own(hosts)
        if not hosts:
            return errors.loops_back(domain), negative_ttl_s(answer.ttl_s)
        return self._mail_hosts(domain, hosts, False, ttl_s), ttl_s

    async def _ask_implicit(self, domain: str, mx: Answer, budget: Budget) -> tuple[MailHosts | ResolveError, float]:
        """No MX: the domain is its own mail host if it has an address of whatever family (RFC 5321 5.1)."""
        # An alias is looked through, so that all domains that point to a host are one site.
        host = clean_name(mx.name)
        if not host:
            return errors.bad_hosts(domain), negative_ttl_s(mx.ttl_s)
        ttl_s = mx.ttl_s
        for kind in _KINDS.values():
            answer = await self._asker.ask(host, kind, budget, _CONFIRMED_WITH_EMPTY)
            if answer.outcome == "found":
                ttl_s = positive_ttl_s(min(ttl_s, answer.ttl_s))
                if not await self._cut_own([MxHost(0, host)]):
                    return errors.loops_back(domain), negative_ttl_s(ttl_s)
                return self._mail_hosts(domain, [MxHost(0, host)], True, ttl_s), ttl_s
            if answer.outcome == "failed":
                return errors.no_answer(domain, answer.why), FAILED_TTL_S
            ttl_s = min(ttl_s, answer.ttl_s)
        return errors.no_mail(domain), negative_ttl_s(ttl_s)

    def _mail_hosts(self, domain: str, hosts: Sequence[MxHost], implicit: bool, ttl_s: float) -> MailHosts:
        return MailHosts(domain, tuple(hosts), implicit, self._now_s() + ttl_s)

    async def _cut_own(self, hosts: list[MxHost]) -> list[MxHost]:
        """Without ourselves and all hosts that are not better than we are: mail must only go upwards (RFC 5321 5.1)."""
        own = [host.preference for host in hosts if host.name in self._own_names]
        if self._own_addresses:
            checked = hosts[:OWN_CHECK_HOSTS_MAX]
            found = await asyncio.gather(*(self._family_addresses(host.name, 4) for host in checked))
            if self._use_ipv6:
                found += await asyncio.gather(*(self._family_addresses(host.name, 6) for host in checked))
            own += [
                host.preference
                for host, addresses in zip(checked * 2, found, strict=False)
                if not isinstance(addresses, ResolveError) and not self._own_addresses.isdisjoint(addresses)
            ]
        return [host for host in hosts if host.preference < min(own)] if own else hosts

    # -- a host's addresses --

    async def addresses(self, host: str, families: Sequence[int] = (4,), *, check_prohibited: bool = True) -> list[str]:
        """At most `ADDRESSES_MAX` addresses of the host, of the families in turn, beginning with the first.

        Further calls begin with other addresses, so that a host with many is used evenly. `check_prohibited`
        False is for hosts that the admin wrote. Raises ResolveError; where one family's answer is missing
        and the other's is unusable it is temporary.
        """
        wanted = [family for family in families if family == 4 or self._use_ipv6]
        lists: list[Found] = []
        failures: list[ResolveError] = []
        for family in wanted:
            found = await self._family_addresses(host, family)
            if isinstance(found, ResolveError):
                failures.append(found)
            elif check_prohibited:
                allowed = tuple(address for address in found if not self._prohibited.network_of(address))
                if found and not allowed:
                    failures.append(errors.all_prohibited(host, found[0], self._prohibited.network_of(found[0])))
                lists.append(allowed)
            else:
                lists.append(found)
        usable = _in_turn(lists)
        if usable:
            return usable
        raise _raisable(errors.verdict(failures)) if failures else errors.no_address(host)

    async def _family_addresses(self, host: str, family: int) -> Found | ResolveError:
        """All addresses of one family, () where there are none of this family."""
        literal = literal_address(host)
        if literal is not None:
            return (str(literal),) if literal.version == family else ()
        name = clean_name(host)
        if not name:
            return errors.bad_name(host)
        if is_loopback_name(name):
            return (LOOPBACK[family],)
        kind = _KINDS[family]
        key = f"{kind} {name}"
        now_s = self._now_s()
        entry = self._addresses.get(key, now_s)
        if entry is None:
            return await self._fly(key, lambda: self._find_addresses(name, kind, key))
        if now_s >= entry.late_s:
            entry.late_s = entry.expires_s
            if entry.value and not isinstance(entry.value, ResolveError):
                self._take_off(key, lambda: self._find_addresses(name, kind, key))
        found = entry.value
        if not isinstance(found, ResolveError):
            entry.value = _rotated(found)
        return found

    async def _find_addresses(self, name: str, kind: Kind, key: str) -> Found | ResolveError:
        answer = await self._asker.ask(name, kind, Budget(self._timeout_s))
        now_s = self._now_s()
        if answer.outcome == "failed":
            kept = self._addresses.get(key, now_s)
            if kept is not None and not isinstance(kept.value, ResolveError):
                return kept.value
            failure = errors.no_answer(name, answer.why)
            self._addresses.put(key, failure, FAILED_TTL_S, now_s)
            return failure
        found = answer.records[:ADDRESSES_KEPT_MAX]
        ttl_s = positive_ttl_s(answer.ttl_s) if found else negative_ttl_s(answer.ttl_s)
        self._addresses.put(key, _rotated(found), ttl_s, now_s)
        return found

    # -- one look-up at a time --

    async def _fly(self, key: str, find: Callable[[], Coroutine[object, object, Value]]) -> Value:
        """Waits for the look-up of this key, which goes on when the one who waits is cancelled."""
        return await asyncio.shield(self._take_off(key, find))

    def _take_off(self, key: str, find: Callable[[], Coroutine[object, object, Value]]) -> "asyncio.Task[Value]":
        flight = self._flights.get(key)
        if flight is None:
            self.lookups += 1
            flight = asyncio.get_running_loop().create_task(find(), name=f"resolve {key}")
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight  # pyright: ignore[reportReturnType] - a key belongs to one kind of look-up

    async def close(self) -> None:
        """Cancels what is under way; whoever waits for it is cancelled too."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)


def read_hosts(records: Sequence[str]) -> list[MxHost]:
    """The usable hosts of MX records `preference name`, best first, each once, at most `MX_HOSTS_MAX`.

    The root as a name (null MX) is no host, nor is an address or a name with odd bytes.
    """
    best: dict[str, int] = {}
    for record in records:
        preference, _, exchange = record.partition(" ")
        name = sys.intern(clean_name(exchange))  # a provider's hosts are those of thousands of domains
        if name:
            best[name] = min(best.get(name, int(preference)), int(preference))
    return sorted(MxHost(preference, name) for name, preference in best.items())[:MX_HOSTS_MAX]


def _rotated(addresses: Found) -> Found:
    """For the next who asks: the second address first."""
    return addresses[1:] + addresses[:1] if len(addresses) > 1 else addresses


def _in_turn(lists: Sequence[Found]) -> list[str]:
    """One of each list after the other, until all are used up or there are enough."""
    taken: list[str] = []
    for row in range(ADDRESSES_MAX):
        taken += [addresses[row] for addresses in lists if row < len(addresses)]
    return taken[:ADDRESSES_MAX]


def _raisable(error: ResolveError) -> ResolveError:
    """A fresh one for every raise: a cached exception would gather the tracebacks of all who were told."""
    return ResolveError(error.reply.code, error.reply.enhanced, error.reply.text)
