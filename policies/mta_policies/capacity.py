"""Capacity: what limits amount to, messages a second of one source at one site, and which of them decides. Pure.

Limits that say how often need nothing else. Connections carry what their speed allows, so the time of a delivery is
stated with every figure: a second is what large providers usually take from MAIL to the reply to the content.
Quotas and windows are left aside: they say how much, not how fast.
"""

from typing import Final, NamedTuple

from mta_policies.policy import Policy

DELIVERY_S: Final = 1.0
CONNECT_S: Final = 0.5
"""A connection, TLS and EHLO: about four round trips over an ocean."""


class Capacity(NamedTuple):
    """What goes at most, evenly."""

    per_s: float
    """Messages a second; inf: nothing limits it."""
    decides: str
    """The key of the limit that decides, "limits.connections"; "" where there is none."""


def capacity(
    policy: Policy, source: str = "", delivery_s: float = DELIVERY_S, connect_s: float = CONNECT_S
) -> Capacity:
    """What a source can send to one site of a provider; by default one that no `[sources]` of the policy names."""
    limits, source_limits, _ = policy.for_source(source)
    levels = {"limits": limits, "source_limits": source_limits, "provider_limits": policy.provider_limits}
    messages = limits.messages_per_connection
    found: list[tuple[float, str]] = []
    for name, level in levels.items():
        found += [(rate.per_second, f"{name}.rate") for rate in level.rate]
        if level.connections:
            each = messages / (connect_s + messages * delivery_s) if messages else 1.0 / delivery_s
            found.append((level.connections * each, f"{name}.connections"))
        if messages:
            found += [(rate.per_second * messages, f"{name}.connection_rate") for rate in level.connection_rate]
    return Capacity(*min(found, default=(float("inf"), ""), key=lambda each: each[0]))
