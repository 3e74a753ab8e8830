"""Capacity: what limits amount to, messages a second of one source at one site, and which of them decides. Pure.

Limits that say how often need nothing else. Connections carry what their speed allows, so the time of a delivery is
stated with every figure: a second is what large providers usually take from MAIL to the reply to the content.
"""

from typing import Final, NamedTuple

from mta_policies.local_time import Per
from mta_policies.schema import Limits

DELIVERY_S: Final = 1.0
CONNECT_S: Final = 0.5
"""A connection, TLS and EHLO: about four round trips over an ocean."""

_PER_S: Final[dict[Per, float]] = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "month": 30 * 86400.0}


class Capacity(NamedTuple):
    """What goes at most, evenly."""

    per_s: float
    """Messages a second; inf: nothing limits it."""
    decides: str
    """The key of the limit that decides, "limits.connections"; "" where there is none."""
    connections: int
    """Of one source; 0: no limit."""
    messages_per_connection: int
    """0: no limit."""


def capacity(
    limits: Limits, source_limits: Limits, delivery_s: float = DELIVERY_S, connect_s: float = CONNECT_S
) -> Capacity:
    """What one source can send to one site of a provider."""
    messages = min(filter(None, (limits.messages_per_connection, source_limits.messages_per_connection)), default=0)
    found: list[tuple[float, str]] = []
    for name, level in (("limits", limits), ("source_limits", source_limits)):
        found += [(rate.per_second, f"{name}.rate") for rate in level.rate]
        if level.connections:
            each = messages / (connect_s + messages * delivery_s) if messages else 1.0 / delivery_s
            found.append((level.connections * each, f"{name}.connections"))
        if messages:
            found += [(rate.per_second * messages, f"{name}.connection_rate") for rate in level.connection_rate]
        if level.quota is not None:
            found.append((level.quota.count / _PER_S[level.quota.per], f"{name}.quota"))
    per_s, decides = min(found, default=(float("inf"), ""), key=lambda each: each[0])
    connections = min(filter(None, (limits.connections, source_limits.connections)), default=0)
    return Capacity(per_s, decides, connections, messages)
