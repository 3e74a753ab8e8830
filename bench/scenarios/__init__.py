"""Scenarios: what the world looks like to a server under load, and what mail it is given.

Each file here holds one, as plain data: the mail hosts (a sink's profiles), the DNS, what an admin would allow each
destination, and the load. How it is run and measured is the same for all of them (bench.run).
"""

import importlib
from collections.abc import Callable

import msgspec

from bench.engines import Destination
from bench.mailing import Plan
from bench.temper import Profile

__all__ = ["NAMES", "SENDER_DOMAIN", "Options", "Scenario", "Setup", "World", "load", "mailing"]

NAMES = ("relay", "mix", "latency", "burst")
SENDER_DOMAIN = "load.test"
HEADERS = [
    "Reply-To: <service@load.test>",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 7bit",
    "List-Unsubscribe: <https://load.test/unsubscribe/8c1f5e2a>",
    "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
]
"""Beside those that every message of a load has: about what a newsletter carries, and what is worth signing."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What may be chosen at the start; 0 leaves it to the scenario."""

    messages: int = 0
    rate_per_s: float = 0.0
    sessions: int = 0
    size: int = 4_096
    workers: int = 2
    owners: int = 0
    seed: int = 1


class World:
    """Mail hosts and the domains that they serve: the DNS, and the same as routes."""

    def __init__(self) -> None:
        self.zone: dict[str, dict[str, object]] = {}
        self.routes: dict[str, str] = {}
        """Domain -> address of its first mail host."""
        self._addresses: dict[str, str] = {}

    def host(self, name: str, address: str) -> str:
        """A mail host; returns its name."""
        self.zone[name] = {"A": [address]}
        self._addresses[name] = address
        return name

    def domain(self, name: str, *hosts: str) -> str:
        """A domain whose MX are these hosts, the first the best; returns its name."""
        self.zone[name] = {"MX": [f"{10 * number} {host}." for number, host in enumerate(hosts, start=1)]}
        self.routes[name] = self._addresses[hosts[0]]
        return name


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario with everything decided."""

    profiles: list[Profile]
    """With addresses, and keeping ids."""
    world: World
    destinations: tuple[Destination, ...]
    plan: Plan
    """The load that is measured; `port` is filled in later."""
    warm: Plan
    """What is sent before, so that connections and caches are as in a server that has been running."""
    retry_s: float = 2.0
    idle_timeout_s: float = 60.0


class Scenario(msgspec.Struct, frozen=True):
    """One of `NAMES`."""

    name: str
    summary: str
    """A line for `bench list`."""
    look_at: tuple[str, ...]
    """The figures that it is there for (fields of bench.figures.Figures), to be told first."""
    setup: Callable[[Options], Setup]


def load(name: str) -> Scenario:
    """The scenario of this name. Raises KeyError where there is none."""
    if name not in NAMES:
        raise KeyError(name)
    return importlib.import_module(f"bench.scenarios.{name}").SCENARIO


def mailing(options: Options, **fields: object) -> Plan:
    """A plan for unique bodies with the header of a newsletter; `fields` are those of `Plan`."""
    common = {
        "sender": f"shop@{SENDER_DOMAIN}",
        "headers": HEADERS,
        "unique": True,
        "seed": options.seed,
        "sizes": [options.size],
        "rate_per_s": options.rate_per_s,
    }
    return msgspec.structs.replace(Plan(), **(common | fields))
