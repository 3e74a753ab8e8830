"""Mix: what a large sender's mail looks like: 20,000 domains, ten big providers, and a long tail.

60 % of the mail goes to the big ones, much of it to domains that they host for others; the rest goes to thousands of
domains with mail hosts of their own, about two messages each, so that a connection carries no more. Everybody is a
round trip of 80 ms away and defers 5 % of the recipients once. The shares are ours: roughly what a sender with
customers in Japan, America and Europe sees.
"""

import msgspec

from bench.engines import Destination
from bench.mailing import Domain
from bench.providers import ready
from bench.scenarios import Options, Scenario, Setup, World, mailing
from bench.temper import Profile

MESSAGES = 20_000
SESSIONS = 50
WARM = 400
ROUND_TRIP_S = 0.08
DEFERRED_PERCENT = 5.0
RETRY_S = 2.0
IDLE_TIMEOUT_S = 5.0
"""Thousands of mail hosts: a connection that is kept for the next message rarely sees one."""
TAIL_PERCENT = 40.0
TAIL_DOMAINS = 8_000
TAIL_NETWORK = "127.64.0.0/10"
TAIL_FIRST = (127 << 24) + (64 << 16) + 1
TAIL_MESSAGES = 2  # a mail host
TAIL_CONNECTIONS = 2
CONNECTIONS_A_PERCENT = 10
"""Where the round trip is 80 ms a connection carries six messages a second: so many connections for each percent of the
mail let a few thousand a second out, as for a sender with a good name and many addresses."""


class Big(msgspec.Struct, frozen=True):
    """A big provider's share."""

    name: str
    """As in bench.providers."""
    percent: float
    """Of all mail, to its own domain."""
    hosted: int = 0
    """Domains of others that it hosts."""
    hosted_percent: float = 0.0
    """Of all mail, to those together."""
    own_hosts: bool = False
    """Every hosted domain has an MX name of its own, and so is a site of its own."""


BIG = [
    Big("google", 20.0, hosted=5_000, hosted_percent=7.0),
    Big("microsoft", 0.0, hosted=6_991, hosted_percent=8.0, own_hosts=True),
    Big("outlook", 7.0),
    Big("yahoo", 5.0),
    Big("docomo", 4.0),
    Big("apple", 3.0),
    Big("yahoo-japan", 2.5),
    Big("au", 1.5),
    Big("softbank", 1.0),
    Big("gmx", 1.0),
]


def setup(options: Options) -> Setup:
    """Fewer messages reach fewer hosts of the tail, so that it stays at about two for each."""
    messages = options.messages or MESSAGES
    world, profiles, destinations, domains = World(), [], [], []
    for number, big in enumerate(BIG, start=2):
        profile = _profile(big.name, f"127.0.0.{number}")
        profiles.append(profile)
        destinations.append(_destination(big, profile))
        domains += _domains(big, world, profile.address)
    tail = min(TAIL_DOMAINS, max(1, round(messages * TAIL_PERCENT / 100 / TAIL_MESSAGES)))
    for number in range(TAIL_DOMAINS):
        name = f"tail{number}.test"
        world.domain(name, world.host(f"mx.{name}", _dotted(TAIL_FIRST + number)))
        if number < tail:
            domains.append(Domain(name, TAIL_PERCENT / tail))
    profiles.append(_tempered(Profile(name="tail", address=TAIL_NETWORK)))
    destinations.append(Destination(name="default", connections=TAIL_CONNECTIONS))
    plan = mailing(options, messages=messages, sessions=options.sessions or SESSIONS, domains=domains)
    return Setup(
        profiles=profiles,
        world=world,
        destinations=tuple(destinations),
        plan=plan,
        warm=msgspec.structs.replace(plan, messages=WARM, seed=plan.seed + 1, rate_per_s=0.0),
        retry_s=RETRY_S,
        idle_timeout_s=IDLE_TIMEOUT_S,
    )


def _profile(name: str, address: str) -> Profile:
    """In its own words and with its own number of messages a connection, but for a sender that it trusts."""
    return _tempered(ready(name, address=address, connections_max=0, rate_per_s=0.0))


def _tempered(profile: Profile) -> Profile:
    return msgspec.structs.replace(
        profile,
        latency_s=ROUND_TRIP_S,
        greeting_latency_s=ROUND_TRIP_S,
        deferred_percent=DEFERRED_PERCENT,
        times=False,
        sample_every=500,
    )


def _destination(big: Big, profile: Profile) -> Destination:
    share = big.percent + big.hosted_percent
    return Destination(
        name=big.name,
        domains=(f"{big.name}.test",) if big.percent else (),
        mx=(f"*.mx-{big.name}.test",),
        connections=max(4, round(share * CONNECTIONS_A_PERCENT)),
        messages_per_connection=profile.messages_per_connection,
    )


def _domains(big: Big, world: World, address: str) -> list[Domain]:
    """Its own domain and those that it hosts, with their shares of the mail."""
    host = world.host(f"in.mx-{big.name}.test", address)
    domains = [Domain(world.domain(f"{big.name}.test", host), big.percent)] if big.percent else []
    shared = world.host(f"hosted.mx-{big.name}.test", address)
    for number in range(big.hosted):
        name = f"{big.name}{number}.test"
        own = world.host(f"{big.name}{number}.mx-{big.name}.test", address) if big.own_hosts else shared
        domains.append(Domain(world.domain(name, own), big.hosted_percent / big.hosted))
    return domains


def _dotted(address: int) -> str:
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


SCENARIO = Scenario(
    "mix",
    "20,000 domains: ten big providers, a long tail, 80 ms away, 5 % deferred",
    ("delivered_per_s", "steady_per_s", "cpu_us", "latency_p50_ms", "messages_a_connection", "memory_mb"),
    setup,
)
