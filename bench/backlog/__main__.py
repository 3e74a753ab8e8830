"""The backlog's own command.

    python -m bench.backlog deferred
    python -m bench.backlog outage --messages 200000
    python -m bench.backlog resets --save
    python -m bench.backlog space

Exit status 0 where every message arrived exactly once, 1 where not, 2 for wrong usage.
"""

import argparse
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path

import msgspec
import uvloop

from bench.__main__ import raise_file_limit
from bench.backlog.deferred import DeferredFigures, deferred
from bench.backlog.outage import outage
from bench.backlog.resets import resets
from bench.backlog.space import MESSAGES as SPACE_MESSAGES
from bench.backlog.space import space
from bench.backlog.town import IDLE_S, BacklogError
from bench.results_file import save
from bench.rig import ROOT, RigError
from bench.table import render

PARTS = ("deferred", "outage", "resets", "space")
MESSAGES = 1_000_000
INTERRUPTED = 130
UNITS = {
    "ms": "ms",
    "s": "s",
    "per_s": "/s",
    "mb": "MB",
    "us": "us",
    "percent": "%",
}


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m bench.backlog`"""
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description="A server with much mail waiting.")
    parser.add_argument("part", choices=PARTS, help="deferred: each waits for its retry; outage: the destination"
                        " is down; resets: urgent mail to a destination with a backlog; space: a little mail waits"
                        " among much that goes")  # fmt: skip
    parser.add_argument("--messages", type=int, default=0,
                        help=f"of 4 KB; default: {MESSAGES:,}; of 32 KB for space: {SPACE_MESSAGES:,}")  # fmt: skip
    parser.add_argument("--workers", type=int, default=0, help="default: 2; 1 for space")
    parser.add_argument("--idle", type=float, default=IDLE_S, metavar="SECONDS",
                        help=f"a server at rest is looked at for so long; default: {IDLE_S:g}")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "bench", help="on a real disk, not in memory")
    parser.add_argument("--save", action="store_true", help="write bench/results/backlog-PART.json")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    args = parser.parse_args(argv)
    args.messages = args.messages or (SPACE_MESSAGES if args.part == "space" else MESSAGES)
    args.workers = args.workers or (1 if args.part == "space" else 2)
    raise_file_limit()
    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=args.folder) as fresh:
            found = uvloop.run(run(args, Path(fresh).resolve()))
    except (BacklogError, RigError) as error:
        print(f"bench: FAILED\n  {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped, and everything it started", file=sys.stderr)
        return INTERRUPTED
    print(msgspec.json.format(msgspec.json.encode(found)).decode() if args.json else report(found))
    if args.save:
        print(f"\n  kept in {save(f'backlog-{args.part}', [found])}", file=sys.stderr)
    return 0


def run(args: argparse.Namespace, folder: Path) -> Coroutine[None, None, msgspec.Struct]:
    """The part that was asked for."""
    if args.part == "space":
        return space(folder, args.messages, args.workers)
    if args.part == "resets":
        return resets(folder, args.messages, args.workers)
    part = deferred if args.part == "deferred" else outage
    return part(folder, args.messages, args.workers, args.idle)


def report(found: msgspec.Struct) -> str:
    """All figures in a table, and the commands in one of their own."""
    rows = []
    for name in found.__struct_fields__:
        value = getattr(found, name)
        if isinstance(value, int | float):
            label, _, unit = name.rpartition("_")
            per_s = name.endswith("_per_s")
            unit = "per_s" if per_s else unit
            label = name.removesuffix("_per_s") if per_s else label
            known = UNITS.get(unit)
            text = (
                f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.0f}"
            )
            rows.append([(label if known else name).replace("_", " "), f"{text} {known}" if known else text])
    text = render([getattr(found, "part", ""), ""], rows)
    if isinstance(found, DeferredFigures):
        commands = [
            [f"mta queue {each.words}", f"{each.took_s:,.1f} s", f"{each.touched:,}", f"{each.accept_p99_ms:,.0f} ms",
             f"{each.accept_max_ms:,.0f} ms"]
            for each in found.commands
        ]  # fmt: skip
        text += "\n\n" + render(["while mail comes in", "took", "touched", "250 after, p99", "max"], commands)
    return text


if __name__ == "__main__":
    sys.exit(main())
