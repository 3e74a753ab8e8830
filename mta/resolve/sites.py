"""Mail hosts as values: what a domain's MX records say, in which order to try them, and the name of their set.

All domains with the same set of mail hosts are one *site*: they share limits and connections. Pure: chance
comes in as an argument.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile
from random import Random
from typing import NamedTuple

SITE_NAME_CHARS_MAX = 200
"""A site's name is in every event of it; a longer one is cut and told apart by a digest."""
SETS_SHARED_MAX = 10_000
"""Sets of hosts that are kept once for all domains that have them."""
_DIGEST_BYTES = 10  # 80 bits: nobody finds two sets of hosts with one name by trying


class MxHost(NamedTuple):
    """One usable mail host."""

    preference: int
    """Lower goes first."""
    name: str
    """Lower-case A-labels without a trailing dot, or an address literal with its brackets."""


@dataclass(frozen=True, slots=True)
class MailHosts:
    """Where a domain's mail goes."""

    domain: str
    """The domain as it was asked for, or an address literal with its brackets."""
    hosts: tuple[MxHost, ...]
    """Sorted by preference, then name; never empty."""
    implicit: bool
    """There was no MX record: the domain's own address takes the mail (RFC 5321 5.1)."""
    expires_s: float
    """Monotonic seconds; from then on the answer is asked for again."""
    names: tuple[str, ...] = field(init=False)
    """The hosts' names, sorted, each once: what a site is made of."""

    def __post_init__(self) -> None:
        hosts, names = _shared(self.hosts)
        object.__setattr__(self, "hosts", hosts)
        object.__setattr__(self, "names", names)


@lru_cache(SETS_SHARED_MAX)
def _shared(hosts: tuple[MxHost, ...]) -> tuple[tuple[MxHost, ...], tuple[str, ...]]:
    """One copy of a provider's hosts for all of its domains: 0.5 KB less a domain."""
    return hosts, tuple(sorted({host.name for host in hosts}))


def order(hosts: MailHosts, random: Random) -> list[str]:
    """The hosts' names in the order to try them: by preference, equal ones shuffled (RFC 5321 5.1)."""
    mixed = list(hosts.hosts)
    if len(mixed) > 1:
        random.shuffle(mixed)
        mixed.sort(key=_preference)
    return [host.name for host in mixed]


def _preference(host: MxHost) -> int:
    return host.preference


def site_name(names: Iterable[str]) -> str:
    """The name of a set of mail hosts: the same in any order, different for different sets.

    One host is its own name; several are factored by the labels that all of them end with:
    `(|alt1.|alt2.)gmail-smtp-in.l.google.com`, `(a.example|b.test)`. Names hold no parenthesis or bar, so
    that the set can be read back from the name. Over `SITE_NAME_CHARS_MAX` characters the middle is
    replaced by a digest of the whole. Raises ValueError where there is no name at all.
    """
    return _site_name(tuple(names))


@lru_cache(SETS_SHARED_MAX)
def _site_name(names: tuple[str, ...]) -> str:
    ordered = sorted(set(names))
    if not ordered:
        raise ValueError("a site has at least one mail host")
    if len(ordered) == 1:
        return ordered[0]
    suffix = _common_suffix(ordered)
    prefixes = sorted(name[: len(name) - len(suffix)] for name in ordered)
    whole = f"({'|'.join(prefixes)}){suffix}"
    if len(whole) <= SITE_NAME_CHARS_MAX:
        return whole
    digest = hashlib.blake2b("\0".join(ordered).encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"({prefixes[0][:_FIRST_CHARS_MAX]}|*{len(ordered) - 1}*{digest}){suffix[-_SUFFIX_CHARS_MAX:]}"


def hosts_of(site: str) -> tuple[str, ...]:
    """The mail hosts that a site's name was made of; none where it was cut, or is no set of hosts but a route."""
    if not site.startswith("("):
        return () if not site or ":" in site else (site,)
    prefixes, _, suffix = site[1:].partition(")")
    parts = prefixes.split("|")
    return () if any("*" in part for part in parts) else tuple(part + suffix for part in parts)


_FIRST_CHARS_MAX = 60
_SUFFIX_CHARS_MAX = 100


def _common_suffix(names: Sequence[str]) -> str:
    """The longest run of whole labels that every name ends with, without a leading dot."""
    columns = zip(*(reversed(name.split(".")) for name in names), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    return ".".join(reversed(shared))
