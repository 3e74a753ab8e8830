"""What rehearsals take: a million events replayed, without and with other policies, and a million messages simulated.

    python -m bench.rehearsal
    python -m bench.rehearsal --events 200000
    python -m bench.rehearsal --save

The log is a campaign day as the server writes it: most mail goes to large providers, who defer some of it and refuse
some. Each command runs in a process of its own, from reading the first byte to printing the last figure.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from bench.results_file import save
from bench.rig import ROOT
from bench.table import count_text, duration_text, render
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Reply
from mta.reporting.events import Events, Fate, Way

EVENTS = 1_000_000
START_S = 1_763_700_000.0
PER_S = 40.0  # messages handed in: the shipped limits of the large ones bind, and most of it is out within the day
SEED = 20261122
TENANTS = ("shop", "news", "bank")
BUFFER_LINES = 4096


class Peer(NamedTuple):
    """A provider of the log."""

    domain: str
    site: str
    policy: str
    weight: int
    deferred: float
    """Part of its mail that is put off once."""
    bounced: float


PEERS = (
    Peer("gmail.com", "gmail-smtp-in.l.google.com", "google", 35, 0.03, 0.01),
    Peer("outlook.com", "outlook-com.olc.protection.outlook.com", "outlook", 20, 0.03, 0.02),
    Peer("yahoo.com", "mta5.am0.yahoodns.net", "yahoo", 15, 0.04, 0.01),
    Peer("gmx.de", "mx00.gmx.net,mx01.gmx.net", "gmx", 10, 0.02, 0.01),
    *(Peer(f"d{number}.example", f"mx.d{number}.example", "default", 1, 0.02, 0.03) for number in range(20)),
)
LATER = Reply(451, "4.3.0", "Try again later")
UNKNOWN = Reply(550, "5.1.1", "No such user here")
TAKEN = Reply(250, "2.0.0", "OK")

SLOWER = """
[limits]
connections = 3
rate = "4/s"
"""
"""What the other policies say of google."""


class Measured(msgspec.Struct, frozen=True):
    """One command."""

    what: str
    things: int
    """Events or messages."""
    wall_s: float
    cpu_s: float
    memory_mb: float
    """At most."""


def events(count: int) -> Iterator[bytes]:
    """So many lines, two or more for each message; the same for the same number."""
    chance = Random(SEED)
    lines: list[bytes] = []
    tell = Events(lines.append, worker=0, prefix="bench")
    told = number = 0
    while told < count:
        peer = chance.choices(PEERS, [each.weight for each in PEERS])[0]
        at_s = START_S + number / PER_S
        recipient = Recipient(f"user{number}@{peer.domain}", peer.domain)
        tenant = TENANTS[number % len(TENANTS)]
        envelope = Envelope(f"019ab{number:016}", f"news@{tenant}.example", [recipient], at_s, 14_000, tenant=tenant)
        source = f"out-{1 + number % 2}"
        way = Way(peer.site, peer.policy, "default", source, f"192.0.2.{1 + number % 2}", peer.site, "198.51.100.7", "")
        tell.received(envelope)
        what, attempt = chance.random(), 1
        taken_s = at_s + 1.0 + 2.0 * chance.random()
        if what < peer.deferred:
            tell.fate(envelope, recipient, Fate("deferred", taken_s, LATER, "rcpt", 1, taken_s + 300.0, way))
            taken_s, attempt = taken_s + 300.0 + 60.0 * chance.random(), 2
        if what > 1.0 - peer.bounced:
            tell.fate(envelope, recipient, Fate("bounced", taken_s, UNKNOWN, "rcpt", attempt, 0.0, way))
        else:
            tell.fate(envelope, recipient, Fate("delivered", taken_s, TAKEN, "content", attempt, 0.0, way))
        told, number = told + len(lines), number + 1
        yield from lines[: len(lines) - max(0, told - count)]
        lines.clear()


def write_log(file: Path, count: int) -> None:
    """An event log of so many lines."""
    kept: list[bytes] = []
    with file.open("wb") as stream:
        for line in events(count):
            kept.append(line)
            if len(kept) == BUFFER_LINES:
                stream.writelines(kept)
                kept.clear()
        stream.writelines(kept)


def measure(what: str, things: int, arguments: Sequence[str], folder: Path) -> Measured:
    """Runs `mta` with these arguments there; an exit status other than 0 ends it all."""
    began_s = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "queue", "policies"))}
    with subprocess.Popen(
        [sys.executable, "-m", "mta.cli", *arguments], cwd=folder, stdout=subprocess.DEVNULL, env=environment
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{what}: exit status {process.returncode}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Measured(what, things, time.monotonic() - began_s, cpu_s, usage.ru_maxrss / 1024)


def measure_all(count: int, folder: Path) -> list[Measured]:
    """Every command, on a log of so many events and a campaign of as many messages."""
    log = folder / "events.jsonl"
    write_log(log, count)
    (folder / "policies.new").mkdir()
    (folder / "policies.new" / "google.toml").write_text(SLOWER)
    (folder / "mta.toml").write_text('[policies]\ndirectory = "policies"\n')
    (folder / "policies").mkdir()
    replay = ["policy", "replay", "--events", str(log)]
    simulate = ["policy", "simulate", "--provider", "google", "--messages", str(count), "--rate", "100/s"]
    model = ["--provider-model", "google:per_minute=240,penalty=1h"]
    new = ["--policies", "policies.new"]
    return [
        measure("replay", count, replay, folder),
        measure("replay, with new policies", count, [*replay, *new], folder),
        measure("the same, drawn", count, [*replay, *new, "--html", "replay.html"], folder),
        measure("simulate", count, simulate, folder),
        measure("simulate, blocked at 240 a minute", count, [*simulate, *model], folder),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m bench.rehearsal`"""
    parser = argparse.ArgumentParser(prog="python -m bench.rehearsal", description="What rehearsals take.")
    parser.add_argument("--events", type=int, default=EVENTS, help=f"of the log, and messages; default: {EVENTS:,}")
    parser.add_argument("--save", nargs="?", const="rehearsal", metavar="NAME", help="keep the figures")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mta-bench-") as folder:
        rows = measure_all(args.events, Path(folder))
    shown = [
        [
            row.what,
            count_text(row.things),
            duration_text(row.wall_s),
            duration_text(row.cpu_s),
            f"{row.memory_mb:,.0f} MB",
        ]
        for row in rows
    ]
    print(render(["command", "events or messages", "took", "CPU", "memory"], shown))
    if args.save:
        print(f"\nsaved: {save(args.save, rows).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
