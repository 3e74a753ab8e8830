"""Limits across destinations, as `[[limit]]` says them: what one tenant, campaign, sender domain or source may send to
all destinations together. Each of them has a key ("tenant shop"), whose account `leases` keeps.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from mta_policies.forms import Rates, Windows
from mta_policies.match import name_matches
from mta_policies.reader import about
from mta_policies.schema import Quota
from mta_policies.units import rates_text


class CrossLimit(msgspec.Struct, frozen=True):
    """What `[[limit]]` says: for each tenant, campaign, sender domain or source whose name matches, one account."""

    per: Annotated[
        Literal["tenant", "campaign", "sender-domain", "source"],
        about("tenant | campaign | sender-domain (of MAIL FROM) | source: each of them has this limit for itself."),
    ]
    name: Annotated[
        str,
        about(
            'Those whose name matches: "shop", "shop/spring" for a campaign, "*.example.com"; of several limits the'
            " longest name holds."
        ),
    ] = "*"
    rate: Annotated[
        Rates, about('Transactions, counted at MAIL: "100/s", ["20/s", "40000/h"] (both hold); "none": no limit.')
    ] = ()
    quota: Annotated[
        Quota | None,
        about('Messages in a calendar hour, day, week or month: { count = 300000, per = "day", zone = "Asia/Tokyo" }.'),
    ] = None
    window: Annotated[
        Windows,
        about(
            'When mail may go: "08:00-22:00 Asia/Tokyo", "Mon-Fri 22:00-06:00 UTC"; of several any is enough; left out:'
            " always."
        ),
    ] = ()


def limit_of(limits: Iterable[CrossLimit], key: str) -> CrossLimit | None:
    """The limit that holds for a key: of several that match the longest name, of equal ones the first."""
    per, _, name = key.partition(" ")
    matching = [limit for limit in limits if limit.per == per and name_matches(limit.name, name)]
    return max(matching, key=lambda limit: ("*" not in limit.name, len(limit.name)), default=None)


def value_of(limit: CrossLimit, key: Literal["rate", "quota", "window"]) -> str:
    """One of its values as one says it: "20/s and 40000/h"; "" where there is none."""
    if key == "quota":
        quota = limit.quota
        return f"{quota.count} per {quota.per} ({quota.zone})" if quota is not None else ""
    if key == "window":
        return ", ".join(map(str, limit.window))
    return rates_text(limit.rate) if limit.rate else ""
