"""`mta queue summary | list | show | retry | hold | release | cancel`: the queue of a running server."""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from mta.admin.gathering import waiting
from mta.admin.pages import ActedPage, ListPage, MessagePage, SummaryPage
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, words
from mta.cli.asking import FAILURES, Asking, asking, failed, options, print_json, query_of, quoted, warn, who
from mta.cli.selected import add_select, must_select, selection_of
from mta.cli.words import Column
from mta.model.selection import Selection
from mta.reporting.questions import LIST_MAX, OTHER_SITES, RecipientRow, SiteRow, State

COMMAND = "mta queue"
SITES_SHOWN = 30
RECIPIENTS_SHOWN = 100
STATES: tuple[State, ...] = ("ready", "sending", "scheduled", "held", "suspended")
PAST = {"retry": "told to try", "hold": "held", "release": "released", "cancel": "cancelled"}
Action = Callable[[argparse.Namespace, Asking], int]

_ACTS = {
    "retry": "try again at once what waits for its next attempt",
    "hold": "let nothing of it go until it is released; outlives a restart",
    "release": "let go again what is held",
    "cancel": "end it: it is never sent, and no notification either",
}


def add(actions: Subparsers) -> None:
    """Describes the actions to argparse."""
    common = options()
    summary = actions.add_parser("summary", parents=[common], help="what waits, by site", description=_SUMMARY)
    add_select(summary, all_is_asked=False)
    _add_limit(summary, SITES_SHOWN, "so many sites, the largest first")
    summary.set_defaults(run=partial(_asked, _summary))
    listing = actions.add_parser("list", parents=[common], help="recipients that wait", description=_LIST)
    add_select(listing, all_is_asked=False)
    _add_limit(listing, RECIPIENTS_SHOWN, "about so many recipients, of whole messages")
    listing.add_argument("--after", metavar="ID", default="", help="only messages behind this one")
    listing.set_defaults(run=partial(_asked, _list))
    show = actions.add_parser(
        "show", aliases=["why"], parents=[common], help="all about one message", description=_SHOW
    )
    show.add_argument("id", metavar="ID", help="as told in the 250, in events and by `mta queue list`")
    show.set_defaults(run=partial(_asked, _show))
    for verb, text in _ACTS.items():
        act = actions.add_parser(verb, parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.")
        add_select(act, all_is_asked=True)
        act.set_defaults(run=partial(_asked, _act), verb=verb)


_SUMMARY = "Shows what waits for each site, why it does not go, and when the next attempt is due."
_LIST = "Shows recipients that wait, the oldest message first: in which state, what for, and the last reply."
_SHOW = "Shows what waits of one message, and from the event log what has happened to it so far."


def _add_limit(parser: argparse.ArgumentParser, default: int, text: str) -> None:
    parser.add_argument(
        "--limit", metavar="N", type=_limit, default=default, help=f"{text}; 0: all; default: %(default)s"
    )


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f'not a number: "{text}"')
    return int(text)


def _asked(action: Action, args: argparse.Namespace) -> int:
    """Runs an action against the server that the arguments name."""
    if hasattr(args, "verb"):
        must_select(args, args.verb)  # wrong usage must not depend on a server
    try:
        return action(args, asking(args))
    except BrokenPipeError:
        raise
    except FAILURES as error:
        return failed(COMMAND, error)


# -- summary --


def _summary(args: argparse.Namespace, server: Asking) -> int:
    page = server.get("/queue", SummaryPage, query_of(selection_of(args)))
    if args.json:
        print_json(page)
    else:
        _print_summary(page, args.limit or len(page.rows))
    return EXIT_WRONG if warn(COMMAND, page.problems) else EXIT_DONE


def _print_summary(page: SummaryPage, limit: int) -> None:
    if not page.rows:
        print("nothing waits")
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
    return EXIT_WRONG if warn(COMMAND, problems) else EXIT_DONE


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
        print("nothing waits that matches")
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


# -- show --


def _show(args: argparse.Namespace, server: Asking) -> int:
    page = server.get(f"/queue/messages/{quoted(args.id)}", MessagePage)
    if args.json:
        print_json(page)
    else:
        columns = words.terminal_columns()
        for line in _message_lines(page, words.now_s(), columns):
            _print(words.wrapped(line, columns))
    return EXIT_WRONG if warn(COMMAND, page.problems) else EXIT_DONE


def _message_lines(page: MessagePage, now_s: float, columns: int | None) -> Iterator[str]:
    yield from words.pairs(_head(page, now_s))
    yield ""
    yield f"{words.several(len(page.rows), 'recipient')} waiting" if page.rows else "nothing of it waits any more"
    for row in page.rows:
        yield f"  {words.printable(row.recipient)}: {row.state}{_described(row, now_s)}"
        yield from (f"    {line}" for line in words.pairs(_details(row, now_s)))
    if page.history:
        yield ""
        yield "what happened so far"
        yield from _history_lines(page.history, columns)
    if not page.history_is_complete:
        yield ""
        yield "not all of the event log was looked through: it is too large, or not in a file"


def _head(page: MessagePage, now_s: float) -> Iterator[tuple[str, str]]:
    received = next((event for event in page.history if event.get("event") == "received"), {})
    first = page.rows[0] if page.rows else None
    accepted_s = first.accepted_s if first else received.get("time", 0.0)
    yield "id", page.id
    yield "from", (first.sender if first else received.get("sender", "")) or "<>"
    yield "Message-ID", page.message_id or received.get("message_id", "")
    yield "From domain", page.from_domain or received.get("from_domain", "")
    yield "client", page.client or received.get("client", "")
    if accepted_s:
        yield "accepted", f"{words.moment(accepted_s)}, {words.ago(accepted_s, now_s)}"
    if size := first.size if first else received.get("size", 0):
        yield "size", words.size(size)
    for name in ("tenant", "campaign"):
        yield name, getattr(first, name) if first else received.get(name, "")
    if first:
        yield "priority", str(first.priority)


def _described(row: RecipientRow, now_s: float) -> str:
    if row.state == "scheduled" and row.next_s:
        return f", next try {words.until(row.next_s, now_s)}"
    return f", waits for {row.waits_for}" if row.waits_for else ""


def _details(row: RecipientRow, now_s: float) -> Iterator[tuple[str, str]]:
    yield "site", row.site
    yield "policy", row.policy
    yield "source", row.source
    yield "tried", words.several(row.attempts, "time") if row.attempts else "not yet"
    if row.next_s:
        yield "next try", f"{words.moment(row.next_s)}, {words.until(row.next_s, now_s)}"
    if row.expires_s:
        yield "given up", f"{words.moment(row.expires_s)}, {words.until(row.expires_s, now_s)}"
    if row.last_s or row.last_reply:
        at = f", {words.ago(row.last_s, now_s)}" if row.last_s else ""
        yield "last", f"{row.last_reply}{f' ({row.last_host})' if row.last_host else ''}{at}"


_HISTORY_COLUMNS = (Column("time"), Column("event"), Column("recipient"), Column("host"), Column("what was said"))


def _history_lines(history: Sequence[dict[str, Any]], columns: int | None) -> Iterator[str]:
    """A table; where the terminal is too narrow for it, what was said has lines of its own."""
    rows = [_event_cells(event) for event in history]
    lines = [f"  {line}" for line in words.table(_HISTORY_COLUMNS, rows)]
    if columns is None or all(words.width(line) <= columns for line in lines):
        yield from lines
        return
    headings, *lines = words.table(_HISTORY_COLUMNS[:-1], (row[:-1] for row in rows))
    yield f"  {headings}"
    for line, row in zip(lines, rows, strict=True):
        yield f"  {line}"
        if row[-1]:
            yield f"      {words.printable(row[-1])}"


def _event_cells(event: dict[str, Any]) -> list[str]:
    recipients = event.get("recipients")
    shown = words.several(len(recipients), "recipient") if isinstance(recipients, list) else ""
    said = " ".join(str(event[name]) for name in ("code", "enhanced", "text") if event.get(name))
    if event.get("dsn"):
        said += f" (the sender was told: {event['dsn']})"
    time_s = event["time"]
    return [
        words.moment(time_s),
        str(event.get("event", "")),
        str(event.get("recipient", shown)),
        str(event.get("host", "")),
        said,
    ]


# -- retry, hold, release, cancel --


def _act(args: argparse.Namespace, server: Asking) -> int:
    selection = must_select(args, args.verb)
    body = {**msgspec.to_builtins(selection), "by": who()}
    page = server.post(f"/queue/{args.verb}", ActedPage, body)
    if args.json:
        print_json(page)
    else:
        print(_acted(args.verb, page))
    for problem in page.problems:
        print(f"{COMMAND}: {words.printable(problem)}: what it has was not touched, or nobody knows", file=sys.stderr)
    return EXIT_DONE if page.touched and not page.problems else EXIT_WRONG


def _acted(verb: str, page: ActedPage) -> str:
    left = f" ({words.count(page.sending)} being sent {'was' if page.sending == 1 else 'were'} left alone)"
    left = left if page.sending else ""
    if not page.touched:
        return f"nothing matched{left}"
    what = f"{words.several(page.touched, 'recipient')} of {words.several(page.messages, 'message')}"
    return f"told {what} to try at once{left}" if verb == "retry" else f"{PAST[verb]} {what}{left}"


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
