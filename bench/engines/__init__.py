"""Engines: servers that a scenario can be run against, each started, measured and stopped in the same way.

    engine = make("mta")
    engine.start(rig, plan)         # returns when it takes mail on 127.0.0.1:plan.smtp_port
    rig.cpu_of(engine.pids())       # what is measured: these processes and all below them
    engine.stop()

An engine gets the plan in words that every mail server knows: where mail for a domain goes, how many connections
a destination takes, when deferred mail comes again. It makes its own configuration from them, tuned as somebody
who knows it well would, writes everything into `plan.folder`, and starts its processes with `rig.start`, so that
they end with the rig, however it ends.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from bench.keys import KeyFile
from bench.rig import Rig

__all__ = ["ENGINES", "Destination", "Engine", "EngineError", "EnginePlan", "KeyFile", "make"]

ENGINES = {
    "mta": "bench.engines.mta_engine:MtaEngine",
    "baseline": "bench.engines.baseline:BaselineEngine",
    "postfix": "bench.engines.postfix:PostfixEngine",
}
"""Name -> where its class is; imported only when it is asked for, for each may need things of its own."""


class EngineError(Exception):
    """The engine cannot do what the plan asks: not installed, cannot sign ... The text is for a person."""


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Mail hosts that belong together, and what the admin of a server would allow them."""

    name: str
    """Fit for a file name."""
    domains: tuple[str, ...] = ()
    """Recipient domains that are its own; hosted ones are found by their MX."""
    mx: tuple[str, ...] = ()
    """Its MX hosts' names, `*.x` for all below. Neither domains nor mx: everything that no other one takes."""
    connections: int = 20
    """At once, to one site."""
    messages_per_connection: int = 0
    """0: no limit."""
    rate_per_s: float = 0.0
    """0: no limit."""
    owners: int = 1
    """Worker processes that may share its mail, where an engine binds a destination to a process."""


class EnginePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is started with. All addresses are loopback; every mail host listens on `sink_port`."""

    folder: Path
    """Exists, is on a real disk, and is the engine's alone; removed after the run."""
    smtp_port: int
    """Free; the engine listens there on 127.0.0.1, without TLS and AUTH, and relays everything from loopback."""
    sink_port: int
    dns_port: int = 0
    """A name server on 127.0.0.1 that knows MX and A of every domain; 0: there is none."""
    routes: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Domain -> "127.0.0.2:2526": the same for an engine whose DNS cannot be chosen; complete, maybe 20,000."""
    destinations: tuple[Destination, ...] = ()
    key: KeyFile | None = None
    """Every message gets a DKIM signature with it (relaxed/relaxed); None: nothing is signed."""
    workers: int = 2
    durability: Literal["fsync", "os"] = "fsync"
    """fsync: before 250 the message is on stable storage, as every comparison demands | os: only written."""
    retry_s: float = 2.0
    """Deferred mail is tried again about this much later, and again."""
    idle_timeout_s: float = 60.0
    """A kept-open connection with nothing to send is closed after this time."""
    hostname: str = "mta.test"


class Engine(Protocol):
    """A server under load. Made without arguments; started once."""

    name: str
    smtp_port: int
    """Where it takes mail on 127.0.0.1; set by `start`."""

    def start(self, rig: Rig, plan: EnginePlan) -> None:
        """Returns when it takes mail. Raises EngineError before anything runs, RigError where it does not come up."""
        ...

    def pids(self) -> list[int]:
        """Its top processes; what is measured is these and all their descendants."""
        ...

    def stop(self) -> None:
        """Ends it cleanly and waits. Raises RigError where it ended badly."""
        ...


def make(name: str) -> Engine:
    """A new engine, not started. Raises EngineError where there is none of the name, or what it needs is missing."""
    place = ENGINES.get(name)
    if place is None:
        raise EngineError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}")
    module, _, kind = place.partition(":")
    try:
        return getattr(importlib.import_module(module), kind)()
    except ImportError as error:
        raise EngineError(f"the engine {name} needs a library that is not installed: {error}") from None
