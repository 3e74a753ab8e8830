"""`make demo`: a shop writes 20,000 signed messages to five mailbox providers of different temper.

Everything runs here, on loopback: a server with two workers, the providers and the shop's own mail host (a sink), their
MX records and the shop's public key (a toy DNS). The demo waits until every message has its fate and the shop has been
told of those that could not be delivered, shows what became of them, and fails loudly where the server, the providers
and the sender do not tell the same story. Its files stay in var/demo for a look afterwards; with `--stay` the server
goes on, so that the commands for a running one can be tried.
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

import msgspec
import uvloop

from bench.demo_cast import PROVIDERS, SHOP, SHOP_DOMAIN, SLEEPS_S, Mailing, policies, profiles, provider_of, zone
from bench.demo_checks import Check, Seen, checks, is_notification, txt_from
from bench.demo_screen import Bar, Screen
from bench.fates import Fates
from bench.keys import make_key
from bench.load import Load, Result
from bench.rig import ROOT, Rig, RigError
from bench.table import count_text, duration_text, render

MESSAGES = 20_000
WORKERS = 2
GRACE_S = 60.0  # for a slow machine, beyond what the providers' own limits take
POLL_S = 0.1
CONNECTIONS_FROM_COLUMNS = 100  # narrower terminals see a table without them
SELECTOR = "demo"
STAY_MESSAGES = 200  # wait in the queue, so that there is something to look at
MARKS = (f"{SHOP_DOMAIN}.{SELECTOR}.pem", "sink.json")  # what every demo makes first, and what earlier ones made
SAMPLE_FILES = {False: "message.eml", True: "notification.eml"}


class DemoError(Exception):
    """The demo did not show what it should."""


class Demo:
    """One run of it, in a rig's folder."""

    def __init__(self, rig: Rig, screen: Screen, messages: int) -> None:
        self._rig = rig
        self._screen = screen
        self._messages = messages
        self._fates = Fates(rig.events, provider_of())
        self._is_awake = False
        self._began_s = 0.0
        self.stays = False
        """All was shown and was well, and the server goes on."""

    async def show(self, stays: bool) -> None:
        """All of it. Raises DemoError or RigError where it fails."""
        self._introduce()
        began_s = time.monotonic()
        self._start()
        mailing = Mailing(self._messages, self._rig.smtp_port)
        self._screen.say(f"  DNS, mail hosts and server are up after {duration_text(time.monotonic() - began_s)}.\n")
        cpu_before_s = self._rig.cpu_s("server")
        result = await self._send(mailing)
        took_s = time.monotonic() - self._began_s
        cpu_us = (self._rig.cpu_s("server") - cpu_before_s) / self._messages * 1e6
        seen = await asyncio.to_thread(self._look, mailing, result)
        self._screen.say(f"\n{table(self._fates, seen, self._screen.columns)}\n")
        self.judge(checks(seen, txt_from(self._rig.dns_port)))
        self._screen.say()
        self._screen.paragraph(
            f"The door took {result.rate_per_s:,.0f} messages a second, each on disk before its 250. After"
            f" {duration_text(took_s)} all had their fate. The server used {cpu_us:,.0f} us CPU a message, with"
            " signature and retries."
        )
        if stays:
            await self._stay(mailing)
        status = await asyncio.to_thread(self._rig.stop, "server")
        if status:
            raise DemoError(f"the server ended with status {status} instead of 0")

    def _introduce(self) -> None:
        self._screen.heading(f"A shop writes {self._messages:,} signed messages to customers at five mailbox providers")
        for each in PROVIDERS:
            self._screen.say(f"  {each.name:9} {each.share:>4.0%}   {each.character}")
        self._screen.say()

    def _start(self) -> None:
        key = make_key(self._rig.folder, SHOP_DOMAIN, SELECTOR)
        self._rig.start_sink(profiles(self._messages))
        self._rig.start_dns({**zone(), **key.zone})
        self._rig.start_server(policies(), workers=WORKERS, key=key)

    async def _send(self, mailing: Mailing) -> Result:
        """Hands the messages in and waits until each has its fate and the shop has been told."""
        load = Load(mailing.plan)
        self._began_s = time.monotonic()
        end_s = self._began_s + mailing.least_s + GRACE_S
        running = asyncio.ensure_future(load.run())
        waking = asyncio.ensure_future(self._wake())
        try:
            while not (running.done() and self._is_over(load.result, mailing)):
                await asyncio.sleep(POLL_S)
                self._fates.read()
                self._screen.progress(self._began_s, self._bars(load.result, mailing))
                self._rig.check()
                if time.monotonic() > end_s:
                    raise DemoError(self._unfinished(load.result, mailing))
            await waking
        finally:
            for task in (running, waking):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
        self._screen.progress(self._began_s, self._bars(load.result, mailing), last=True)
        return load.result

    async def _wake(self) -> None:
        await asyncio.sleep(SLEEPS_S)
        await asyncio.to_thread(self._rig.set_sink, "sleepy", down=False)
        self._is_awake = True

    def _is_over(self, result: Result, mailing: Mailing) -> bool:
        told = self._fates.tallies[SHOP].ended
        return told >= mailing.notifications and self._fates.ended - told >= len(result.accepted)

    def _unfinished(self, result: Result, mailing: Mailing) -> str:
        told = self._fates.tallies[SHOP].ended
        missing = len(result.accepted) - (self._fates.ended - told)
        waited = duration_text(time.monotonic() - self._began_s)
        return (
            f"after {waited} {missing:,} messages have no fate, and {told:,} of {mailing.notifications:,} notifications"
            " have reached the sender"
        )

    def _bars(self, result: Result, mailing: Mailing) -> list[Bar]:
        bars = [Bar("accepted", len(result.accepted), mailing.plan.messages)]
        for name, messages in mailing.messages.items():
            tally = self._fates.tallies[name]
            note = f"{count_text(len(tally.deferred))} deferred" if tally.deferred else ""
            if name == "sleepy":
                note = "awake" if self._is_awake else "asleep"
            bars.append(Bar(name, tally.ended, messages, note))
        return bars

    def _look(self, mailing: Mailing, result: Result) -> Seen:
        """What the mail hosts have counted; a sample of what arrived goes into the folder."""
        samples = self._rig.samples()
        for is_report, name in SAMPLE_FILES.items():
            found = next((each for each in samples if is_notification(each) == is_report), None)
            if found is not None:
                (self._rig.folder / name).write_bytes(found)
        return Seen(mailing, result, self._fates, self._rig.sink_counts(), self._rig.arrivals().ids, samples)

    def judge(self, held: list[Check]) -> None:
        """Says what holds. Raises DemoError with everything that does not."""
        for each in held:
            if not each.wrong:
                self._screen.ticked(each.claim)
        wrong = [text for each in held for text in each.wrong]
        for each in wrong:
            self._screen.ticked(each, is_well=False)
        if wrong:
            raise DemoError(f"{len(wrong)} of the server's, the providers' and the sender's figures do not agree")

    async def _stay(self, mailing: Mailing) -> None:
        """The server goes on until SIGINT or SIGTERM, with some mail in its queue."""
        await asyncio.to_thread(self._rig.set_sink, "sleepy", down=True)
        domains = [each for each in mailing.plan.domains if each.name == "sleepy.test"]
        plan = msgspec.structs.replace(mailing.plan, messages=STAY_MESSAGES, domains=domains, run_id="later")
        await Load(plan).run()
        self.stays = True
        self._screen.say()
        self._screen.paragraph(
            f"The server stays, on 127.0.0.1:{self._rig.smtp_port}; sleepy sleeps again, and {STAY_MESSAGES} messages"
            " wait for it. Try in another terminal, and end it here with Ctrl-C:"
        )
        self._screen.say()
        self._screen.listed(to_try(self._rig.folder))
        while True:
            await asyncio.sleep(POLL_S)
            self._rig.check()


def table(fates: Fates, seen: Seen, columns: int) -> str:
    """Provider by provider what the server told, and where there is room the connections that the provider counted."""
    headings = ["provider", "messages", "delivered", "deferred", "bounced", "rate", "median", "p99"]
    rows: list[list[object]] = []
    for provider in PROVIDERS:
        tally = fates.tallies[provider.name]
        row: list[object] = [
            provider.name,
            count_text(tally.accepted),
            count_text(tally.counts["delivered"]),
            count_text(len(tally.deferred)),
            count_text(tally.counts["bounced"]),
            f"{tally.rate_per_s:,.0f}/s",
            duration_text(tally.latency_s(50)),
            duration_text(tally.latency_s(99)),
        ]
        if columns >= CONNECTIONS_FROM_COLUMNS:
            row.append(f"{seen.counts[provider.name].connections_max} of {provider.connections}")
        rows.append(row)
    if columns >= CONNECTIONS_FROM_COLUMNS:
        headings.append("connections")
    return render(headings, rows)


def shown(folder: Path) -> Path:
    """Relative to the checkout where it is in it."""
    return folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder


def where_next(folder: Path) -> list[tuple[str, str]]:
    """What a person may look at now, and why."""
    here = shown(folder)
    samples = [
        ("message.eml", "a message as it arrived, signed"),
        ("notification.eml", "how the shop was told of one that did not"),
    ]
    return [
        *((f"{here}/{name}", why) for name, why in samples if (folder / name).exists()),
        (f"{here}/events.jsonl", "every fate, a line each"),
        ("docs/guide/events.md", "what these lines say"),
        (f"{here}/mta.toml", "the configuration of this run"),
        ('make demo ARGS="--stay"', "keep it running, for mta queue and others"),
        (".venv/bin/mta policy show google", "the limits of a real provider"),
        ("README.md", "relay a first mail of your own"),
    ]


def to_try(folder: Path) -> list[tuple[str, str]]:
    """Commands for the server that stays."""
    here = shown(folder)
    return [
        (f".venv/bin/mta queue summary --config {here}/mta.toml", "what waits"),
        (f".venv/bin/mta queue list --config {here}/mta.toml --limit 5", "message by message"),
        (f".venv/bin/mta suspend list --config {here}/mta.toml", "what is suspended"),
        (f"curl -s --unix-socket {here}/admin.sock http://localhost/metrics", "figures for Prometheus"),
    ]


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[None]:
    """An empty folder that no other demo uses meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(f"another demo runs in {folder}; --folder takes another one") from None
        if any(folder.iterdir()) and not any((folder / mark).exists() for mark in MARKS):
            raise DemoError(f"{folder} holds files that no demo made; --folder takes another one")
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        yield


async def _until_ended(demo: Demo, stays: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await demo.show(stays)


def main(argv: list[str] | None = None) -> int:
    """`python -m bench.demo`; exit 1 where it failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="Shows the server at work.")
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "demo", help="is emptied first")
    parser.add_argument("--stay", action="store_true", help="keep the server running at the end, until Ctrl-C")
    args = parser.parse_args(argv)
    if args.messages < 1:
        parser.error("--messages: at least one")
    folder: Path = args.folder.resolve()
    screen = Screen()
    try:
        with fresh(folder), Rig(folder) as rig:
            demo = Demo(rig, screen, args.messages)
            try:
                uvloop.run(_until_ended(demo, args.stay))
            except (KeyboardInterrupt, asyncio.CancelledError):
                if not demo.stays:
                    raise
            except DemoError as error:
                raise DemoError(f"{error}\n  The server wrote last:\n{rig.tail('server')}") from None
    except (DemoError, RigError) as error:
        print(f"\ndemo: FAILED\n  {error}\n  All files are in {folder}.", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\ndemo: stopped, and everything it started", file=sys.stderr)
        return 130
    screen.say("\n  Where to look next")
    screen.listed(where_next(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
