"""`mta queue summary | list`: what waits in a running server."""

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec

from mta.admin.gathering import waiting
from mta.admin.pages import ListPage, SummaryPage
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, words
from mta.cli.asking import COMMAND_QUEUE, Asking, options, print_json, query_of, run_asked, warn
from mta.cli.selected import add_select, selection_of
from mta.cli.words import Column
from mta.model.selection import Selection
from mta.reporting.waiting import LIST_MAX, OTHER_SITES, RecipientRow, SiteRow, State

SITES_SHOWN = 30
RECIPIENTS_SHOWN = 100
STATES: tuple[State, ...] = ("ready", "sending", "scheduled", "held", "suspended")


def add(actions: Subparsers) -> None:
    """Describes the actions to argparse."""
    common = options()
    summary = actions.add_parser("summary", parents=[common], help="what waits, by site", description=_SUMMARY)
    add_select(summary, all_is_asked=False)
    _add_limit(summary, SITES_SHOWN, "so many sites, the largest first")
    summary.set_defaults(run=partial(run_asked, _summary))
    listing = actions.add_parser("list", parents=[common], help="recipients that wait", description=_LIST)
    add_select(listing, all_is_asked=False)
    _add_limit(listing, RECIPIENTS_SHOWN, "about so many recipients, of whole messages")
    listing.add_argument("--after", metavar="ID", default="", help="only messages behind this one")
    listing.set_defaults(run=partial(run_asked, _list))


_SUMMARY = "Shows what waits for each site, why it does not go, and when the next attempt is due."
_LIST = "Shows recipients that wait, the oldest message first: in which state, what for, and the last reply."


def _add_limit(parser: argparse.ArgumentParser, default: int, text: str) -> None:
    parser.add_argument(
        "--limit", metavar="N", type=_limit, default=default, help=f"{text}; 0: all; default: %(default)s"
    )


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f'not a number: "{text}"')
    return int(text)


# -- summary --


def _summary(args: argparse.Namespace, server: Asking) -> int:
    page = server.get("/queue", SummaryPage, query_of(selection_of(args)))
    if args.json:
        print_json(page)
    else:
        _print_summary(page, args.limit or len(page.rows))
    return EXIT_WRONG if warn(COMMAND_QUEUE, page.problems) else EXIT_DONE


def _nothing(answer: str, problems: Sequence[str]) -> str:
    """Who did not hear from everybody must not take an empty answer for an empty queue."""
    return f"{answer}, as far as is known" if problems else answer


def _print_summary(page: SummaryPage, limit: int) -> None:
    if not page.rows:
        print(_nothing("nothing waits", page.problems))
        return
    now_s = words.now_s()
    shown, rest = page.rows[:limit], page.rows[limit:]
    columns = [
        Column("site", cut=True),
        Column("policy"),
        *(Column(state, right=True, optional=True) for state in STATES),
        Column("oldest", right=True),
        Column("next try", right=True, optional=True),
        Column("open", right=True, optional=True),
        Column("why it waits", cut=True, optional=True),
    ]
    _print(words.table(columns, (_site_cells(row, now_s) for row in shown), words.terminal_columns()))
    if rest:
        left = sum(map(waiting, rest))
        print(f"and {words.several(len(rest), 'more site')} with {words.several(left, 'recipient')}: --limit 0")
    total = sum(map(waiting, page.rows))
    by_state = ((state, sum(getattr(row, state) for row in page.rows)) for state in STATES)
    parts = ", ".join(f"{words.count(number)} {state}" for state, number in by_state if number)
    print(f"\n{words.several(total, 'recipient')} of {words.several(page.messages, 'message')} wait: {parts or 'none'}")


def _site_cells(row: SiteRow, now_s: float) -> list[str]:
    site = row.site or f"({words.several(row.domains, 'domain')}, mail hosts not known yet)"
    if site == OTHER_SITES:
        site = f"(all other sites, {words.several(row.domains, 'domain')})"
    return [
        site,
        row.policy,
        *(words.count(number) if (number := getattr(row, state)) else "" for state in STATES),
        words.ago(row.oldest_s, now_s).removesuffix(" ago"),
        words.until(row.next_s, now_s),
        words.count(row.connections) if row.connections else "",
        _unsited(row.waits_for, row.site) or row.last_reply,
    ]


# -- list --


def _list(args: argparse.Namespace, server: Asking) -> int:
    pages = _pages(server, selection_of(args), args.limit, args.after)
    problems = _list_json(pages) if args.json else _list_table(pages, args.limit)
    return EXIT_WRONG if warn(COMMAND_QUEUE, problems) else EXIT_DONE


def _pages(server: Asking, selection: Selection, limit: int, after: str) -> Iterator[ListPage]:
    """Page after page, until there are as many recipients as wished for (0: all); `more` of the last is the answer."""
    count = 0
    while True:
        at_once = min(limit - count, LIST_MAX) if limit else LIST_MAX
        page = server.get("/queue/messages", ListPage, {**query_of(selection), "limit": at_once, "after": after})
        yield page
        count += len(page.rows)
        if not page.more or not page.rows or (limit and count >= limit):
            return
        after = page.rows[-1].id


def _list_json(pages: Iterator[ListPage]) -> list[str]:
    """A `ListPage` of all pages, written while they come: nobody has memory for a queue of millions."""
    problems: list[str] = []
    more, comma = False, ""
    first = next(pages)  # nothing is written before the server has answered
    print('{\n  "rows": [', end="")
    for page in itertools.chain([first], pages):
        for row in page.rows:
            print(f"{comma}\n    {msgspec.json.encode(row).decode()}", end="")
            comma = ","
        more = page.more
        problems += (problem for problem in page.problems if problem not in problems)
    print(f'\n  ],\n  "more": {str(more).lower()},\n  "problems": {json.dumps(problems, ensure_ascii=False)}\n}}')
    return problems


def _list_table(pages: Iterator[ListPage], limit: int) -> list[str]:
    problems: list[str] = []
    table: words.Table | None = None
    more, last = False, ""
    for page in pages:
        if table is None and page.rows:
            is_whole = not page.more or 0 < limit <= len(page.rows)
            table = words.Table(_LIST_COLUMNS, words.terminal_columns(), is_whole=is_whole)
        if table is not None:
            _print(table.lines(_recipient_cells(row, words.now_s()) for row in page.rows))
            last = page.rows[-1].id if page.rows else last
        more = page.more
        problems += (problem for problem in page.problems if problem not in problems)
    if table is None:
        print(_nothing("nothing waits that matches", problems))
    elif more:
        print(f"\nthere is more: --after {last}, or --limit 0 for all")
    return problems


_LIST_COLUMNS = (
    Column("id"),
    Column("recipient", cut=True),
    Column("sender", cut=True, spare=True),
    Column("state"),
    Column("tried", right=True, optional=True, spare=True),
    Column("age", right=True),
    Column("next try", right=True, optional=True),
    Column("why it waits", cut=True, optional=True),
)


def _recipient_cells(row: RecipientRow, now_s: float) -> list[str]:
    return [
        row.id,
        row.recipient,
        row.sender or "<>",
        row.state,
        words.count(row.attempts) if row.attempts else "",
        words.ago(row.accepted_s, now_s).removesuffix(" ago"),
        words.until(row.next_s, now_s),
        _why(row),
    ]


def _why(row: RecipientRow) -> str:
    """Of what is scheduled the reply that put it off: when it goes on has a column of its own."""
    if row.state == "scheduled" and row.last_reply:
        return row.last_reply
    return _unsited(row.waits_for, row.site) or row.last_reply


def _unsited(waits_for: str, site: str) -> str:
    """The reason without the site's name, which the row tells already: little of it may fit the terminal."""
    return waits_for.removeprefix(f"{site}, which ")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
