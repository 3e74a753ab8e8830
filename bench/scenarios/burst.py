"""Burst: a campaign is handed in all at once, faster than its providers take it, and then drains.

What counts at first is how fast the server says 250; meanwhile mail piles up, and it goes out as fast as connections
and round trips allow. Signing must slow only the second part.
"""

import msgspec

from bench.engines import Destination
from bench.mailing import Domain
from bench.scenarios import Options, Scenario, Setup, World, mailing
from bench.temper import Profile

MESSAGES = 40_000
SESSIONS = 100
PROVIDERS = 4
CONNECTIONS = 40
ROUND_TRIP_S = 0.02  # so that four times forty connections carry some thousands a second, fewer than come in
WARM = 800


def setup(options: Options) -> Setup:
    """Four providers of the same size, a round trip away."""
    world, profiles, destinations = World(), [], []
    for number in range(PROVIDERS):
        name, address = f"provider{number}", f"127.0.0.{number + 2}"
        world.domain(f"{name}.test", world.host(f"mx.{name}.test", address))
        profiles.append(Profile(name=name, address=address, latency_s=ROUND_TRIP_S, times=False, sample_every=500))
        destinations.append(Destination(name=name, domains=(f"{name}.test",), connections=CONNECTIONS))
    plan = mailing(
        options,
        messages=options.messages or MESSAGES,
        sessions=options.sessions or SESSIONS,
        domains=[Domain(domain) for domain in world.routes],
    )
    return Setup(
        profiles=profiles,
        world=world,
        destinations=tuple(destinations),
        plan=plan,
        warm=msgspec.structs.replace(plan, messages=WARM, rate_per_s=0.0),
    )


SCENARIO = Scenario(
    "burst",
    "all at once to four providers a round trip away, then drain",
    ("accepted_per_s", "accept_p99_ms", "delivered_per_s", "waiting_at_most", "memory_mb"),
    setup,
)
