"""Latency: how long a message takes from submission to delivery while the server is busy, not drowned.

The load is open: messages are due at fixed times, 1,000 a second, whatever the server does, and their time counts
from then. A server that stalls cannot hide it. The single destination answers at once.
"""

import msgspec

from bench.scenarios import Options, Scenario, Setup, relay

RATE_PER_S = 1_000.0
SECONDS = 12
SESSIONS = 50


def setup(options: Options) -> Setup:
    """The world of `relay`, under a steady load."""
    rate_per_s = options.rate_per_s or RATE_PER_S
    messages = options.messages or int(rate_per_s * SECONDS)
    sessions = options.sessions or SESSIONS
    return relay.setup(msgspec.structs.replace(options, messages=messages, rate_per_s=rate_per_s, sessions=sessions))


SCENARIO = Scenario(
    "latency",
    "1,000 a second at fixed times: from submission to delivery",
    ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_max_ms", "generator_late_p99_ms"),
    setup,
)
