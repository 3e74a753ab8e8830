"""A playground for policies: a DNS and two mailbox providers on loopback, and a folder with a configuration for them.

    python -m bench.playground                  # until Ctrl-C; the folder is var/playground
    python -m bench.playground --yesterday      # only writes yesterday.jsonl there, a day's event log that is made up

Whoever follows docs/guide/policies.md starts it, and so does the test that does what that page says. `isp.example`
takes all mail but that for its address `421`, which it refuses as providers do that have had enough; `gmail.com` has
Google's names of mail hosts, so that Google's policy holds. Nothing but loopback is ever spoken to.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.sink import Sink
from bench.temper import Profile
from mta.testing.toy_dns import ToyDns

FOLDER = Path("var/playground")
DNS_PORT, MAIL_PORT = 5300, 2526  # 5353 is often somebody else's: multicast DNS
LATENCY_S = 0.02
ZONE: dict[str, dict[str, object]] = {
    "isp.example": {"MX": ["10 mx.isp.example."]},
    "mx.isp.example": {"A": ["127.0.0.2"]},
    "gmail.com": {"MX": ["5 gmail-smtp-in.l.google.com."]},
    "gmail-smtp-in.l.google.com": {"A": ["127.0.0.3"]},
}
CONFIG = """\
# The playground's: everything is on loopback.
hostname = "mail.playground.example"
workers = 1

[[listener]]
address = "{listener}"

[delivery]
port = {mail_port}
prohibited_networks = []

[dns]
nameservers = ["{dns}"]

[policies]
directory = "policies"

[admin]
address = "{admin}"
"""

DAY_S = 1_763_712_000.0  # 2025-11-21 08:00 UTC, a Friday
LETTERS, LETTERS_PER_S = 1_500, 5.0  # yesterday's
TAKEN_PER_MINUTE = 150  # by isp.example; what is more it put off
RETRY_S = 300.0


def config(
    *,
    listener: str = "127.0.0.1:2525",
    admin: str = "127.0.0.1:8025",
    dns: str = f"127.0.0.1:{DNS_PORT}",
    mail_port: int = MAIL_PORT,
) -> str:
    """The playground's mta.toml."""
    return CONFIG.format(listener=listener, admin=admin, dns=dns, mail_port=mail_port)


def profiles() -> list[Profile]:
    """The providers, in the order of their addresses."""
    return [Profile(name=name, latency_s=LATENCY_S, keep="counts", times=False) for name in ("isp", "google")]


def furnish(folder: Path, text: str) -> None:
    """A folder to play in: `text` as its mta.toml and an empty policies folder, where there is none yet."""
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    if not (folder / "mta.toml").exists():
        (folder / "mta.toml").write_text(text, "utf-8")


def yesterday() -> Iterator[bytes]:
    """The event log of a day on which a mailing to isp.example went out faster than it was taken: always the same."""
    told: list[tuple[float, dict[str, object]]] = []
    taken: dict[int, int] = {}
    for number in range(LETTERS):
        at_s = DAY_S + number / LETTERS_PER_S
        about = {"id": f"letter-{number}", "worker": 0, "v": 1, "sender": "news@shop.example", "size": 4_096}
        told.append((at_s, {"event": "received", **about, "recipients": [f"user{number}@isp.example"]}))
        came_s, attempt = at_s, 0
        while True:
            attempt += 1
            minute = int(at_s // 60)
            taken[minute] = taken.get(minute, 0) + 1
            told.append((at_s + 1.0, {**about, **_fate(number, at_s, came_s, attempt, taken[minute])}))
            if taken[minute] <= TAKEN_PER_MINUTE:
                break
            at_s += RETRY_S * attempt
    told.sort(key=lambda each: each[0])
    for place, (time_s, line) in enumerate(told):
        yield json.dumps({**line, "time": time_s, "event_id": f"e{place}"}).encode() + b"\n"


def _fate(number: int, at_s: float, came_s: float, attempt: int, count: int) -> dict[str, object]:
    """What became of an attempt that was the `count`th of its minute."""
    fate: dict[str, object] = {
        "recipient": f"user{number}@isp.example",
        "domain": "isp.example",
        "site": "mx.isp.example",
        "policy": "isp",
        "source": "system",
        "host": "mx.isp.example",
        "queued_s": at_s + 1.0 - came_s,
        "attempt": attempt,
    }
    if count <= TAKEN_PER_MINUTE:
        return {**fate, "event": "delivered", "stage": "content", "code": 250, "enhanced": "2.0.0", "text": "Taken"}
    said = {"code": 421, "enhanced": "4.7.0", "text": "Closing, try again later", "category": "policy-related"}
    return {**fate, "event": "deferred", "stage": "rcpt", **said, "next_attempt": at_s + 1.0 + RETRY_S * attempt}


def write_yesterday(folder: Path) -> Path:
    """yesterday.jsonl in the folder."""
    file = folder / "yesterday.jsonl"
    file.write_bytes(b"".join(yesterday()))
    return file


async def _play(folder: Path) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with ToyDns(ZONE, port=DNS_PORT), Sink(profiles(), port=MAIL_PORT) as sink:
        furnish(folder, config())
        names = ", ".join(f"{provider.name} at {provider.address}" for provider in sink.profiles.values())
        print(f"DNS at 127.0.0.1:{DNS_PORT}; mail hosts at port {MAIL_PORT}: {names}")
        print(f"now, in another terminal: cd {folder} && mta serve")
        await ended.wait()


def main(argv: list[str] | None = None) -> int:
    """`python -m bench.playground`"""
    parser = argparse.ArgumentParser(
        prog="python -m bench.playground", description="A DNS and mailbox providers to try policies with."
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    parser.add_argument("--yesterday", action="store_true", help="only write a day's event log that is made up")
    args = parser.parse_args(argv)
    if args.yesterday:
        furnish(args.folder, config())
        print(f"wrote {write_yesterday(args.folder)}")
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(_play(args.folder))
        except OSError as error:
            print(f"the playground cannot listen: {error.strerror or error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
