"""`mta policy warmup`: how new sources stand, at every provider, in a running server.

What the plan allows today and what of it was sent, where the rest goes, whether a provider complained, and what
follows.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial

from mta.admin.pages import WarmupPage
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, words
from mta.cli.asking import Asking, options, print_json, run_asked, warn
from mta.cli.words import Column
from mta.reporting.questions import WarmupRow

COMMAND = "mta policy warmup"
PROVIDERS_SHOWN = 30  # of a source; of most of the small ones nobody wants to know

_COLUMNS = (
    Column("source"),
    Column("provider", cut=True),
    Column("day", right=True),
    Column("sent today", right=True),
    Column("allowed", right=True),
    Column("over it"),
    Column("next", cut=True),
    Column("held", cut=True, optional=True),
)


def add(actions: Subparsers) -> None:
    """Describes the action."""
    parser = actions.add_parser(
        "warmup",
        parents=[options()],
        help="how new sources stand in a running server",
        description="Shows of every source that is being warmed up and every provider the day of its plan, what was"
        " sent of what today allows, where the rest goes, whether it is held, and what follows.",
    )
    parser.add_argument("source", nargs="?", default="", metavar="SOURCE", help="of this source only")
    parser.set_defaults(run=partial(run_asked, _warmup, command=COMMAND))


def _warmup(args: argparse.Namespace, server: Asking) -> int:
    page = server.get("/warmup", WarmupPage, {"source": args.source} if args.source else None)
    if args.json:
        print_json(page)
    else:
        for line in lines(page.rows, words.now_s(), words.terminal_columns()):
            print(line)
    return EXIT_WRONG if warn(COMMAND, page.problems) else EXIT_DONE


def lines(rows: Sequence[WarmupRow], now_s: float, columns: int | None = None) -> Iterator[str]:
    """As people read it."""
    if not rows:
        yield "no source is being warmed up: no [[warmup]] is configured"
        return
    sources: dict[str, list[WarmupRow]] = {}
    for row in rows:
        sources.setdefault(row.source, []).append(row)
    shown: list[list[str]] = []
    left: list[str] = []
    for source, plan in sources.items():
        begun = sorted((row for row in plan if row.provider), key=lambda row: (-row.sent, row.provider))
        shown += [_cells(row, now_s) for row in begun[:PROVIDERS_SHOWN] or plan]
        if len(begun) > PROVIDERS_SHOWN:
            more = words.several(len(begun) - PROVIDERS_SHOWN, "provider")
            left.append(f"{source}: {more} more, to which less was sent; {COMMAND} {source} --json has all")
    yield from words.table(_COLUMNS, shown, columns)
    yield from (words.printable(line) for line in left)


def _cells(row: WarmupRow, now_s: float) -> list[str]:
    is_over = row.day > row.days
    under_way = f" (+{words.count(row.under_way)})" if row.under_way else ""
    return [
        row.source,
        row.provider or "(nothing sent yet)",
        "over" if is_over else f"{row.day} of {row.days}",
        words.count(row.sent) + under_way,
        words.count(row.allowed) if row.allowed else "no limit",
        f"goes by pool {row.overflow_pool}" if row.overflow_pool else "waits",
        _next(row, now_s),
        f"since {words.moment(row.held_s)}: {row.why}" if row.held_s else "",
    ]


def _next(row: WarmupRow, now_s: float) -> str:
    if row.start_s > now_s:
        return f"starts {words.until(row.start_s, now_s)}"
    if not row.provider:
        return "begins with the first message"
    if row.day > row.days:
        return "stays so while it is used"
    allowed = words.count(row.next_allowed) if row.next_allowed else "no limit"
    step = f"{allowed} {words.until(row.next_s, now_s)}"
    return f"{step}; more once {words.count(row.missing)} more are taken" if row.missing else step
