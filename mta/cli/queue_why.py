"""`mta queue show | why`: one message: what waits of it and why, in a table or in sentences."""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from mta.admin.pages import MessagePage
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, reason_words, words
from mta.cli.asking import COMMAND_QUEUE, Asking, options, print_json, quoted, run_asked, warn
from mta.cli.words import Column
from mta.reporting.waiting import Reason, RecipientRow

_SHOW = "Shows what waits of one message, and from the event log what has happened to it so far."
_WHY = "Says of every recipient that waits what it waits for, which value keeps it and where that is written, and when \
it is tried next as well as that can be known."
_ID = "as told in the 250, in events and by `mta queue list`"
_STATES = {"ready": "may go now", "sending": "is being sent", "scheduled": "waits for its time"}


def add(actions: Subparsers) -> None:
    """Describes the actions to argparse."""
    for name, text, description, run in (
        ("show", "all about one message", _SHOW, _show),
        ("why", "why a message waits, and until when", _WHY, _why),
    ):
        action = actions.add_parser(name, parents=[options()], help=text, description=description)
        action.add_argument("id", metavar="ID", help=_ID)
        action.set_defaults(run=partial(run_asked, run))


def _show(args: argparse.Namespace, server: Asking) -> int:
    return _print(args, server.get(f"/queue/messages/{quoted(args.id)}", MessagePage), _message_lines)


def _why(args: argparse.Namespace, server: Asking) -> int:
    return _print(args, server.get(f"/queue/messages/{quoted(args.id)}", MessagePage), _why_lines)


def _print(args: argparse.Namespace, page: MessagePage, lines: Any) -> int:
    if args.json:
        print_json(page)
    else:
        columns = words.terminal_columns()
        for line in lines(page, words.now_s(), columns):
            for piece in words.wrapped(line, columns):
                print(piece)
    return EXIT_WRONG if warn(COMMAND_QUEUE, page.problems) else EXIT_DONE


# -- why --


def _why_lines(page: MessagePage, now_s: float, columns: int | None) -> Iterator[str]:
    if not page.rows:
        yield f"{page.id}: nothing of it waits any more; mta queue show {page.id} says what became of it"
        return
    for row in page.rows:
        yield f"{words.printable(row.recipient)}: {row.state}"
        for sentence in _sentences(row, now_s):
            yield f"  {words.printable(sentence)}"


def _sentences(row: RecipientRow, now_s: float) -> Iterator[str]:
    reason = row.reason or Reason("turn")
    if row.state == "sending":
        yield "A transaction with it is under way."
    else:
        yield f"It waits for {row.waits_for or 'its turn'}."
    yield from reason_words.cause(reason, row.policy)
    yield _next(row, reason, now_s)
    if remedy := reason_words.remedy(reason, row.id):
        yield remedy
    if row.last_reply:
        host = f"{row.last_host} said" if row.last_host else "The last attempt ended with"
        at = f", {words.ago(row.last_s, now_s)}" if row.last_s else ""
        yield f"{host}: {row.last_reply} ({words.several(row.attempts, 'attempt')}{at})."
    if row.expires_s:
        origin = f" ({_origin(row)})" if row.expires_from else ""
        before = "before that, " if (reason.next_s or row.next_s) > row.expires_s else ""
        yield f"It is given up {before}{words.until(row.expires_s, now_s)}, {words.moment(row.expires_s)}{origin}."


def _origin(row: RecipientRow) -> str:
    written = row.expires_from
    return written if written.startswith("X-MTA") else f"retry.expire, {written}"


def _next(row: RecipientRow, reason: Reason, now_s: float) -> str:
    before = f"{words.count(reason.before)} before it" if reason.before else ""
    if reason.per_s and before:
        before += f" at {_per_second(reason.per_s)}"
    next_s = reason.next_s or row.next_s
    if next_s:
        about = "about " if reason.before else ""
        when = words.until(next_s, now_s)
        when = when.replace("in ", f"in {about}", 1) if when != "now" else "now"
        exact = "" if reason.before else f", {words.moment(next_s)}"
        return f"It is tried next {when}{exact}" + (f": {before}." if before else ".")
    if row.state == "sending":
        return "Its fate is known in a moment."
    return f"When it is tried next cannot be known{': ' + before if before else ''}."


def _per_second(rate: float) -> str:
    return f"{rate:.3g}/s" if rate >= 1 else f"{rate * 60:.3g}/min"


# -- show --


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
    if row.reason is not None and row.reason.limit:
        reason = row.reason
        yield "limit", f"{reason.limit} = {reason.value} ({reason.origin})"
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
