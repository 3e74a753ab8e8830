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
        and (not selection.older_than_s or facts.age_s >= selection.older_than_s)
    )


class Criteria:
    """A selection taken apart, for who asks it of millions: what rules a message out is asked before where its
    recipients stand is looked for. What all three say together is what `matches` says."""

    __slots__ = (
        "_id",
        "_of_message",
        "_of_place",
        "_of_recipient",
        "_older_than_s",
        "has_places",
        "is_everything",
        "needs_source",
    )

    def __init__(self, selection: Selection) -> None:
        self._id = selection.id
        self._older_than_s = selection.older_than_s
        self._of_message = _patterns(selection.tenant, selection.campaign, selection.sender)
        self._of_recipient = _patterns(selection.domain, selection.recipient)
        self._of_place = _patterns(selection.site, selection.policy, selection.source)
        self.is_everything = selection == Selection(all=True)
        self.has_places = bool(self._of_place)
        """It matters where they go."""
        self.needs_source = bool(selection.source)
        """It must be known which source the last attempt left from."""
        assert not selection.is_empty, "it means nothing"

    def may_be(self, message_id: str) -> bool:
        """Whether a message of this id is meant, as far as its id says: the first question, and the cheapest."""
        return not self._id or self._id == message_id

    def has_message(self, tenant: str, campaign: str, sender: str, age_s: float) -> bool:
        """Whether recipients of a message with this envelope may be meant."""
        if self._older_than_s and age_s < self._older_than_s:  # a clock that was set back makes ages negative
            return False
        names = (tenant, campaign, sender or NULL_SENDER)
        return all(matcher(names[at]) is not None for at, matcher in self._of_message)

    def has_recipient(self, domain: str, address: str) -> bool:
        """Whether a recipient of such a message may be meant."""
        names = (domain, address)
        return all(matcher(names[at]) is not None for at, matcher in self._of_recipient)

    def has_place(self, site: str, policy: str, source: str) -> bool:
        """Whether such a recipient that goes there is meant."""
        names = (site, policy, source)
        return all(matcher(names[at]) is not None for at, matcher in self._of_place)


def _patterns(*patterns: str) -> list[tuple[int, Callable[[str], re.Match[str] | None]]]:
    return [(at, _matcher(pattern)) for at, pattern in enumerate(patterns) if pattern]


def _like(pattern: str, name: str) -> bool:
    return not pattern or _matcher(pattern)(name) is not None


@lru_cache(maxsize=PATTERNS_KEPT_MAX)
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Each piece between two stars is taken where it first fits, for good: the time is linear in name and pattern."""
    first, *rest = map(re.escape, pattern.split("*"))
    middle = "".join(f"(?>.*?{each})" for each in rest[:-1])
    end = f".*{rest[-1]}" if rest else ""
    return re.compile(first + middle + end, re.IGNORECASE | re.DOTALL).fullmatch
