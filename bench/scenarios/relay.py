"""Relay: one destination that takes everything at once, and mail as fast as the server accepts it.

The shortest way through the server: in, on disk, out. Limits are lifted, connections are kept open, nothing is
deferred. What is left is the server's own work, so this is where a change of the hot path shows.
"""

import msgspec

from bench.engines import Destination
from bench.mailing import Domain
from bench.scenarios import Options, Scenario, Setup, World, mailing
from bench.temper import Profile

MESSAGES = 20_000
SESSIONS = 50
CONNECTIONS = 40
WARM_A_SESSION = 8
OWNERS = 2


def setup(options: Options) -> Setup:
    """The destination may have two owners, as one that is too big for one core would."""
    world = World()
    world.domain("sink.test", world.host("mx.sink.test", "127.0.0.2"))
    sessions = options.sessions or SESSIONS
    plan = mailing(
        options,
        messages=options.messages or MESSAGES,
        sessions=sessions,
        domains=[Domain("sink.test")],
    )
    return Setup(
        profiles=[Profile(name="sink", address="127.0.0.2", times=False, sample_every=500)],
        world=world,
        destinations=(
            Destination(
                name="sink",
                domains=("sink.test",),
                connections=CONNECTIONS,
                owners=min(max(options.workers, 1), options.owners or OWNERS),
            ),
        ),
        plan=plan,
        warm=msgspec.structs.replace(plan, messages=sessions * WARM_A_SESSION, rate_per_s=0.0),
    )


SCENARIO = Scenario(
    "relay",
    "one destination, as fast as the server takes it",
    ("delivered_per_s", "cpu_us", "accept_p50_ms", "accept_p99_ms"),
    setup,
)
