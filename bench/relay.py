"""`make bench`: how fast the server relays on this machine, and what CPU a message costs it.

One provider that takes everything, over kept-open connections, limits lifted; two workers, fsync before 250.
Generator and sink run on the same cores, so the rate is this machine's, not the server's alone: compare runs
of one machine and one hour, and rather by CPU a message than by rate. `--save` adds the figures to bench/results/.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop

from bench.load import Domain, Load, Plan, Result
from bench.results_file import save
from bench.rig import ROOT, Rig, RigError
from bench.table import percentile, render
from bench.temper import Profile

TIMEOUT_S = 120.0
POLL_S = 0.02
POLICY = """\
match = { domains = ["sink.test"] }
owners = %d
tls = "none"

[limits]
connections = 40
connection_rate = "none"
messages_per_connection = 0
rate = "none"
"""


class Figures(msgspec.Struct):
    """One round."""

    messages: int
    size: int
    workers: int
    durability: str
    rate_per_s: float
    """From the first byte handed in until the sink has all."""
    accepted_per_s: float
    server_cpu_us: float
    """CPU a message, all processes of the server together."""
    latency_p50_ms: float
    """Of the 250 at the door."""
    latency_p99_ms: float


async def one_round(args: argparse.Namespace, folder: Path) -> Figures:
    """A fresh server and a fresh sink, and all the messages once."""
    with Rig(folder) as rig:
        rig.start_sink([Profile(name="sink", keep="counts", times=False)])
        rig.start_dns({"sink.test": {"MX": ["10 mx.sink.test."]}, "mx.sink.test": {"A": ["127.0.0.2"]}})
        rig.start_server({"sink": POLICY % min(args.workers, 2)}, workers=args.workers, durability=args.durability)
        domains = [Domain("sink.test")]
        warm = Plan(port=rig.smtp_port, messages=args.sessions * 4, sessions=args.sessions, domains=domains)
        await _through(rig, warm, warm.messages)
        plan = msgspec.structs.replace(warm, messages=args.messages, sizes=[args.size])
        cpu_before_s, began_s = rig.cpu_s("server"), time.monotonic()
        result = await _through(rig, plan, warm.messages + plan.messages)
        took_s = time.monotonic() - began_s
        cpu_us = (rig.cpu_s("server") - cpu_before_s) / plan.messages * 1e6
    return Figures(
        messages=plan.messages,
        size=args.size,
        workers=args.workers,
        durability=args.durability,
        rate_per_s=round(plan.messages / took_s, 1),
        accepted_per_s=round(result.rate_per_s, 1),
        server_cpu_us=round(cpu_us, 1),
        latency_p50_ms=round(percentile(result.latencies_s, 50) * 1000, 2),
        latency_p99_ms=round(percentile(result.latencies_s, 99) * 1000, 2),
    )


async def _through(rig: Rig, plan: Plan, total: int) -> Result:
    """Sends, and waits until the sink has so many in all."""
    async with asyncio.timeout(TIMEOUT_S):
        result = await Load(plan).run()
        if len(result.accepted) != plan.messages:
            raise RigError(f"not all messages were accepted: {result.report()}\n{rig.tail('server')}")
        while rig.sink_counts()["sink"].messages < total:
            rig.check()
            await asyncio.sleep(POLL_S)
    return result


def main(argv: list[str] | None = None) -> int:
    """`python -m bench.relay`; exit 1 where a message was lost or the server failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description="Measures how fast the server relays.")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=4_096, metavar="BYTES")
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--durability", choices=["fsync", "os"], default="fsync")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "bench", help="on a real disk, not in memory")
    parser.add_argument("--save", metavar="NAME", help="write bench/results/NAME.json")
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    rounds = []
    try:
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                rounds.append(uvloop.run(one_round(args, Path(folder).resolve())))
                print(f"  {rounds[-1].rate_per_s:,.0f} a second, {rounds[-1].server_cpu_us:.0f} us", flush=True)
    except (RigError, TimeoutError) as error:
        print(f"bench: FAILED\n  {error or 'the messages did not arrive in time'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    median = statistics.median(each.rate_per_s for each in rounds)
    rows = [
        ["relayed, messages a second", f"{median:,.0f} ({median * 3600 / 1e6:.1f} M an hour)"],
        ["server CPU a message", f"{statistics.median(each.server_cpu_us for each in rounds):.0f} us"],
        ["250 after, median", f"{statistics.median(each.latency_p50_ms for each in rounds):.1f} ms"],
        ["250 after, p99", f"{statistics.median(each.latency_p99_ms for each in rounds):.1f} ms"],
    ]
    title = f"{args.size:,} bytes, {args.workers} workers, {args.durability}, medians of {args.rounds}"
    print(render([title, ""], rows))
    if args.save:
        print(f"  written to {save(args.save, rounds).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
