"""A selection: which of the waiting recipients an admin means. Pure.

Several criteria must all hold; `all` alone means everything. Names are compared without regard to case, and `*` stands
for anything: `*@shop.example`, `*.example`.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import msgspec

NULL_SENDER = "<>"
PATTERNS_KEPT_MAX = 1_000  # compiled ones, of all selections in use


class Selection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """SELECT of the commands; a criterion that is "" (or 0) is not given."""

    id: str = ""
    """Of one message."""
    domain: str = ""
    site: str = ""
    policy: str = ""
    source: str = ""
    tenant: str = ""
    campaign: str = ""
    sender: str = ""
    """`<>` for the null sender, as notifications have it."""
    recipient: str = ""
    older_than_s: float = 0.0
    """Accepted at least so many seconds ago."""
    all: bool = False

    @property
    def is_empty(self) -> bool:
        """Nothing was said: it means nothing, not everything."""
        return self == Selection()

    @property
    def needs_envelope(self) -> bool:
        """Whether more must be known than where a recipient goes."""
        return bool(self.id or self.tenant or self.campaign or self.sender or self.recipient or self.older_than_s)

    def __str__(self) -> str:
        """As it is typed: `--domain a.test --tenant shop`."""
        if self.all:
            return "--all"
        words = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value and name == "older_than_s":
                words.append(f"--older-than {value:g}s")
            elif value:
                words.append(f"--{name} {value}")
        return " ".join(words)


class Facts(NamedTuple):
    """What a selection is laid beside: one recipient that waits."""

    id: str
    domain: str
    site: str
    """"" where nobody has looked for its mail hosts yet."""
    policy: str
    source: str
    tenant: str
    campaign: str
    sender: str
    recipient: str
    age_s: float


def matches(selection: Selection, facts: Facts) -> bool:
    """Whether every criterion that is given holds; an empty selection matches nothing."""
    if selection.is_empty:
        return False
    return (
        (not selection.id or selection.id == facts.id)
        and _like(selection.domain, facts.domain)
        and _like(selection.site, facts.site)
        and _like(selection.policy, facts.policy)
        and _like(selection.source, facts.source)
        and _like(selection.tenant, facts.tenant)
        and _like(selection.campaign, facts.campaign)
        and _like(selection.sender, facts.sender or NULL_SENDER)
        and _like(selection.recipient, facts.recipient)
        and facts.age_s >= selection.older_than_s
    )


def _like(pattern: str, name: str) -> bool:
    return not pattern or _matcher(pattern)(name) is not None


@lru_cache(maxsize=PATTERNS_KEPT_MAX)
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Each piece between two stars is taken where it first fits, for good: the time is linear in name and pattern."""
    first, *rest = map(re.escape, pattern.split("*"))
    middle = "".join(f"(?>.*?{each})" for each in rest[:-1])
    end = f".*{rest[-1]}" if rest else ""
    return re.compile(first + middle + end, re.IGNORECASE | re.DOTALL).fullmatch
