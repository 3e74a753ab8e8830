"""`make demo`: a server with two workers, three mailbox providers of different temper, a few thousand messages.

Everything runs here, on loopback: the providers are a sink, their MX records are in a toy DNS. The demo waits
until every message has its fate, shows what the server told and what the providers counted, and fails loudly
where the two do not agree. Its files stay in var/demo for a look afterwards.
"""

import argparse
import asyncio
import contextlib
import fcntl
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench.fates import Fates
from bench.load import Domain, Load, Plan
from bench.rig import ROOT, Rig, RigError, SinkCounts
from bench.table import count_text, duration_text, render
from bench.temper import Profile

TIMEOUT_S = 50.0  # from the first message to the last fate
POLL_S = 0.1
BAR_CELLS = 32
PLAIN_EVERY_S = 2.0  # progress lines where there is no terminal

PROFILES = [
    Profile(name="swift", times=False),
    Profile(
        name="strict", connections_max=3, rate_per_s=110.0, burst=120, messages_per_connection=50, latency_s=0.005,
        times=False,
    ),
    Profile(
        name="moody", latency_s=0.025, greylist_s=1.5, greylist_percent=15.0, deferred_percent=8.0, times=False,
    ),
]  # fmt: skip
"""Strict takes a little more than its policy below sends: the two do not measure at the same place."""

CHARACTERS = {
    "swift": "takes all it is given",
    "strict": "3 connections, 100 messages a second behind a first burst, 50 a connection",
    "moody": "far away, greylists 15 %, defers 8 %, 3 % of the users are unknown",
}
DOMAINS = {
    "swift": [Domain("swift.test", 6.0)],
    "strict": [Domain("strict.test", 1.0), Domain("hosted.test", 1.0)],
    "moody": [Domain("moody.test", 2.0, {"unknown": 0.03})],
}
POLICIES = {
    "default": '[retry]\nschedule = ["2s", "3s", "5s"]\njitter = "20%"\navoid = []\n',
    "swift": 'match = { mx = ["*.swift-mail.test"] }\n\n[limits]\nconnections = 20\nconnection_rate = "none"\n'
    'messages_per_connection = 0\nrate = "none"\n',
    "strict": 'match = { mx = ["*.strict-mail.test"] }\n\n[limits]\nconnections = 3\nconnection_rate = "none"\n'
    'messages_per_connection = 50\nrate = "100/s"\n',
    "moody": 'match = { mx = ["*.moody-mail.test"] }\n\n[limits]\nconnections = 12\nconnection_rate = "none"\n'
    'messages_per_connection = 100\nrate = "none"\n',
}
CONNECTIONS_ALLOWED = {"swift": 20, "strict": 3, "moody": 12}


class DemoError(Exception):
    """The demo did not show what it should."""


def zone() -> dict[str, dict[str, object]]:
    """MX records as providers have them: one host for all the domains it serves."""
    records: dict[str, dict[str, object]] = {}
    for number, (provider, domains) in enumerate(DOMAINS.items(), start=2):
        host = f"mx.{provider}-mail.test"
        records[host] = {"A": [f"127.0.0.{number}"]}
        for domain in domains:
            records[domain.name] = {"MX": [f"10 {host}."]}
    return records


class Progress:
    """Bars that are drawn over each other on a terminal, a line now and then elsewhere."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._is_terminal = sys.stdout.isatty()
        self._lines = 0
        self._next_plain_s = 0.0
        self._began_s = time.monotonic()

    def show(self, load: Load, fates: Fates, last: bool = False) -> None:
        """How far it is now."""
        took_s = time.monotonic() - self._began_s
        accepted = len(load.result.accepted)
        if not self._is_terminal:
            if last or took_s >= self._next_plain_s:
                self._next_plain_s = took_s + PLAIN_EVERY_S
                print(f"  {took_s:5.1f} s  accepted {accepted:>6,}  ended {fates.ended:>6,}", flush=True)
            return
        lines = [f"  accepted {bar(accepted, self._messages)}"]
        for name, tally in fates.tallies.items():
            lines.append(f"  {name:8} {bar(tally.ended, tally.accepted)}")
        up = f"\x1b[{self._lines}F" if self._lines else ""
        sys.stdout.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        sys.stdout.flush()
        self._lines = len(lines)


def bar(count: int, of: int) -> str:
    """`[########------]  1,234 of 4,000`"""
    filled = BAR_CELLS * count // of if of else 0
    return f"[{'#' * filled}{'-' * (BAR_CELLS - filled)}] {count:>6,} of {of:,}"


async def send(rig: Rig, messages: int) -> tuple[Load, Fates]:
    """Hands the messages in and waits until every one has its fate."""
    domains = [domain for each in DOMAINS.values() for domain in each]
    provider_of = {domain.name: provider for provider, each in DOMAINS.items() for domain in each}
    load = Load(Plan(port=rig.smtp_port, messages=messages, sessions=20, sizes=[1_500, 4_096, 12_000], domains=domains))
    fates = Fates(rig.events, provider_of)
    progress = Progress(messages)
    running = asyncio.ensure_future(load.run())
    end_s = time.monotonic() + TIMEOUT_S
    try:
        while True:
            await asyncio.sleep(POLL_S)
            fates.read()
            progress.show(load, fates)
            if running.done() and fates.ended >= len(running.result().accepted):
                break
            rig.check()
            if time.monotonic() > end_s:
                missing = len(load.result.accepted) - fates.ended
                raise DemoError(f"{missing:,} messages have no fate after {TIMEOUT_S:.0f} s")
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await running
    progress.show(load, fates, last=True)
    return load, fates


def table(fates: Fates, counts: dict[str, SinkCounts]) -> str:
    """Per provider what the server told, and the connections that the provider counted."""
    rows = []
    for name, tally in fates.tallies.items():
        rows.append(
            [
                name,
                count_text(tally.accepted),
                count_text(tally.counts["delivered"]),
                f"{count_text(len(tally.deferred))} ({count_text(tally.counts['deferred'])})",
                count_text(tally.counts["bounced"]),
                f"{tally.rate_per_s:,.0f}/s",
                duration_text(tally.latency_s(50)),
                duration_text(tally.latency_s(99)),
                f"{counts[name].connections_max} of {CONNECTIONS_ALLOWED[name]}",
            ]
        )
    headings = ["provider", "messages", "delivered", "deferred (times)", "bounced", "rate", "median", "p99"]
    return render([*headings, "connections"], rows)


def verify(load: Load, fates: Fates, counts: dict[str, SinkCounts]) -> None:
    """Raises DemoError with everything in which the door, the event log and the providers do not agree."""
    wrong = []
    if len(load.result.accepted) != load.plan.messages:
        wrong.append(f"not all of {load.plan.messages:,} messages were accepted: {load.result.report()}")
    for name, tally in fates.tallies.items():
        seen = counts[name]
        if seen.messages != tally.counts["delivered"]:
            wrong.append(f"{name} took {seen.messages:,} messages, told were {tally.counts['delivered']:,}")
        if seen.duplicates:
            wrong.append(f"{name} got {seen.duplicates:,} messages twice")
        if seen.connections_max > CONNECTIONS_ALLOWED[name]:
            wrong.append(f"{name} saw {seen.connections_max} connections, allowed were {CONNECTIONS_ALLOWED[name]}")
        if seen.mails_over:
            wrong.append(f"{name} refused {seen.mails_over:,} messages for coming too fast")
        if tally.counts["expired"]:
            wrong.append(f"{name}: {tally.counts['expired']:,} messages were given up")
    if wrong:
        raise DemoError("\n  ".join(wrong))


async def show(rig: Rig, messages: int) -> None:
    """The whole demo. Raises DemoError or RigError where it fails."""
    print(f"\n  A server with 2 workers, three mailbox providers, {messages:,} messages; all of it on loopback.\n")
    for name, character in CHARACTERS.items():
        print(f"  {name:8} {character}  ({', '.join(domain.name for domain in DOMAINS[name])})")
    print()
    began_s = time.monotonic()
    rig.start_sink(PROFILES)
    rig.start_dns(zone())
    rig.start_server(POLICIES, workers=2)
    print(f"  DNS, providers and server are up after {duration_text(time.monotonic() - began_s)}.\n", flush=True)
    began_s, cpu_before_s = time.monotonic(), rig.cpu_s("server")
    load, fates = await send(rig, messages)
    took_s = time.monotonic() - began_s
    cpu_us = (rig.cpu_s("server") - cpu_before_s) / messages * 1e6
    status = rig.stop("server")
    rig.stop("sink")
    counts = rig.sink_counts()
    print(f"\n{table(fates, counts)}\n")
    verify(load, fates, counts)
    if status:
        raise DemoError(f"the server ended with status {status} instead of 0")
    deferred = sum(len(tally.deferred) for tally in fates.tallies.values())
    rate, took = f"{load.result.rate_per_s:,.0f}", duration_text(took_s)
    print(f"  Accepted at {rate} a second, each on disk before its 250. After {took} every message")
    print(f"  had its fate, {deferred:,} of them at a later attempt. The providers counted along: each arrived")
    print("  exactly once, and not one connection or message was too many for them.")
    print(f"  The server took {cpu_us:,.0f} us CPU a message, deferrals and all.")


def where_next(folder: Path) -> str:
    """What a person may do now."""
    here = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    hints = [
        (f"{here}/events.jsonl", "every fate, one line each"),
        (f"{here}/mta.toml", "the configuration that has just run; beside it policies/"),
        (f".venv/bin/mta queue verify {here}/queue", "what is on disk"),
        (".venv/bin/mta policy show google", "limits of a real provider, and where each is written"),
        ("README.md", "relay a first mail of your own"),
    ]
    columns = max(len(what) for what, _ in hints)
    return "\n  Where to look next\n" + "".join(f"    {what:{columns}}  {why}\n" for what, why in hints)


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[None]:
    """An empty folder that no other demo uses meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(f"another demo runs in {folder}; --folder takes another one") from None
        if any(folder.iterdir()) and not (folder / "sink.json").exists():
            raise DemoError(f"{folder} holds files that no demo made; --folder takes another one")
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        yield


async def _until_ended(rig: Rig, messages: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await show(rig, messages)


def main(argv: list[str] | None = None) -> int:
    """`python -m bench.demo`; exit 1 where it failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="Shows the server at work.")
    parser.add_argument("--messages", type=int, default=4_000)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "demo", help="is emptied first")
    args = parser.parse_args(argv)
    folder: Path = args.folder.resolve()
    try:
        with fresh(folder), Rig(folder) as rig:
            try:
                uvloop.run(_until_ended(rig, args.messages))
            except DemoError as error:
                raise DemoError(f"{error}\n  The server wrote last:\n{rig.tail('server')}") from None
    except (DemoError, RigError) as error:
        print(f"\ndemo: FAILED\n  {error}\n  All files are in {folder}.", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\ndemo: stopped, and everything it started", file=sys.stderr)
        return 130
    print(where_next(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
