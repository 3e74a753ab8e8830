"""The bench's own command: runs scenarios against engines and tells the figures.

    python -m bench list
    python -m bench run relay
    python -m bench run latency --signed --rate 2000 --save
    python -m bench run relay --against baseline --rounds 2

Exit status 0 where every message arrived exactly once, 1 where not, 2 for wrong usage.
"""

import argparse
import asyncio
import contextlib
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import uvloop

from bench import scenarios
from bench.engines import ENGINES, EngineError
from bench.figures import Figures, medians
from bench.report import comparison, line, report
from bench.results_file import save
from bench.rig import ROOT, RigError
from bench.run import Order, RunError, run
from bench.scenarios import NAMES, Options

INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures mail servers on this machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the scenarios and the engines")
    one = commands.add_parser("run", help="run a scenario")
    one.add_argument(
        "scenario", nargs="?", choices=NAMES, default=NAMES[0], metavar="SCENARIO",
        help=f"{', '.join(NAMES)}; default: {NAMES[0]}",
    )  # fmt: skip
    one.add_argument("--engine", choices=list(ENGINES), default="mta", help="default: mta")
    one.add_argument(
        "--against", choices=list(ENGINES), metavar="ENGINE", help="run another one in turn, and tell the ratios"
    )
    one.add_argument("--signed", action="store_true", help="every message gets an RSA-2048 DKIM signature")
    one.add_argument("--messages", type=_positive, default=0, help="default: as the scenario says")
    one.add_argument("--rate", type=float, default=0.0, metavar="PER_S", help="an open load; default: the scenario's")
    one.add_argument("--sessions", type=_positive, default=0, help="default: as the scenario says")
    one.add_argument("--size", type=_positive, default=4_096, metavar="BYTES", help="of a message; default: 4096")
    one.add_argument("--workers", type=_positive, default=2, help="default: 2")
    one.add_argument("--owners", type=_positive, default=0, help="workers that share relay's destination; default: 2")
    one.add_argument("--durability", choices=["fsync", "os"], default="fsync", help="default: fsync")
    one.add_argument("--rounds", type=_positive, default=1, help="of each engine; medians are told; default: 1")
    one.add_argument("--folder", type=Path, default=ROOT / "var" / "bench", help="on a real disk, not in memory")
    one.add_argument(
        "--save", nargs="?", const="", metavar="NAME", help="write bench/results/NAME.json; default: by what was run"
    )
    one.add_argument("--json", action="store_true", help="the figures of every round, as JSON")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m bench`"""
    args = build_parser().parse_args(argv)
    if args.command == "list":
        print(listing())
        return 0
    try:
        return run_command(args)
    except (RunError, RigError, EngineError) as error:
        print(f"bench: FAILED\n  {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench: stopped, and everything it started", file=sys.stderr)
        return INTERRUPTED


def listing() -> str:
    """What there is."""
    rows = [[name, scenarios.load(name).summary] for name in NAMES]
    widest = max(len(name) for name in NAMES)
    lines = ["Scenarios:", *(f"  {name:{widest}}  {summary}" for name, summary in rows), ""]
    return "\n".join([*lines, f"Engines: {', '.join(ENGINES)}"])


def run_command(args: argparse.Namespace) -> int:
    """`python -m bench run`; raises what a run raises."""
    scenario = scenarios.load(args.scenario)
    options = Options(
        messages=args.messages,
        rate_per_s=args.rate,
        sessions=args.sessions,
        size=args.size,
        workers=args.workers,
        owners=args.owners,
    )
    engines = [args.engine] + ([args.against] if args.against else [])
    rounds: dict[str, list[Figures]] = {engine: [] for engine in engines}
    raise_file_limit()
    with _sigterm_as_interrupt():
        for engine in in_turn(engines, args.rounds):
            order = Order(
                scenario=scenario, options=options, engine=engine, signed=args.signed, durability=args.durability
            )
            found = one_round(order, args.folder)
            rounds[engine].append(found)
            if not args.json:
                print(f"  {line(found, scenario)}", flush=True)
    all_rounds = [found for each in rounds.values() for found in each]
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(all_rounds)).decode())
    else:
        first = medians(rounds[args.engine])
        print()
        print(
            report(first, scenario) if not args.against else comparison(first, medians(rounds[args.against]), scenario)
        )
    if args.save is not None:
        name = args.save or default_name(scenario.name, engines, args.signed)
        print(f"\n  written to {save(name, all_rounds).relative_to(ROOT)}", file=sys.stderr)
    return 0


def default_name(scenario: str, engines: Sequence[str], signed: bool) -> str:
    """`relay`, `relay-signed`, `relay-postfix`, `relay-mta-baseline`: what was run, as a file name."""
    of_whom = [] if list(engines) == ["mta"] else engines
    return "-".join([scenario, *of_whom, *(["signed"] if signed else [])])


def in_turn(engines: Sequence[str], rounds: int) -> list[str]:
    """So many rounds of each, in balanced order: A B, B A, A B; what the machine does meanwhile hits both alike."""
    return [engine for number in range(rounds) for engine in (engines if number % 2 == 0 else engines[::-1])]


def one_round(order: Order, folder: Path) -> Figures:
    """A round in a folder of its own, which is removed afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        return uvloop.run(run(order, Path(fresh).resolve()))


def raise_file_limit() -> None:
    """Thousands of connections need as many file descriptors; what is started inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends what was started, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
