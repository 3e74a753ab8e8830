"""`mta rule`: what rules have set off in a running server, and what an admin does about it.

`list` shows what is in force, `show ID` all about one of it. `cancel ID` ends it: the rule may fire again. `extend ID`
sets its end anew. `mute` lets a rule, or what it set off, have no effect for a while; it is still listed. All of it
outlives a restart of the server, and every change is in the event log with who made it.
"""

import argparse
from collections.abc import Iterable, Iterator
from functools import partial

from mta.admin.pages import MutePage, RulePage, RuleRow, RulesPage
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, lasting, words
from mta.cli.asking import Asking, options, print_json, quoted, run_asked, warn, who
from mta.cli.words import Column

COMMAND = "mta rule"
_ID = "as `mta rule list`, events and `mta queue why` tell it"

_run = partial(run_asked, command=COMMAND)


def add(subparsers: Subparsers) -> None:
    """Describes the command to argparse."""
    parser = subparsers.add_parser(
        "rule",
        help="what rules have set off in a running server",
        description=(__doc__ or "").split("\n\n", 1)[1],
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    action = actions.add_parser("list", parents=[options()], help="what is in force, and which rules are muted")
    action.set_defaults(run=partial(_run, _list))
    action = actions.add_parser("show", parents=[options()], help="all about one of it")
    action.add_argument("id", metavar="ID", help=_ID)
    action.set_defaults(run=partial(_run, _show))
    action = actions.add_parser("cancel", parents=[options()], help="end it now; the rule may fire again")
    action.add_argument("id", metavar="ID", help=_ID)
    lasting.add_reason(action)
    action.set_defaults(wrong_usage=action.error, run=partial(_run, _cancel, check=lasting.check))
    action = actions.add_parser("extend", parents=[options()], help="let it end then, later or earlier")
    action.add_argument("id", metavar="ID", help=_ID)
    action.add_argument(
        "--for", dest="for_s", type=_duration, required=True, metavar="TIME", help="from now on: 30m, 2h, 1d"
    )
    lasting.add_reason(action)
    action.set_defaults(wrong_usage=action.error, run=partial(_run, _extend, check=lasting.check))
    action = actions.add_parser("mute", parents=[options()], help="no effect for a while")
    action.add_argument("name", metavar="RULE", help="a rule's name, POLICY/RULE, or the ID of what it set off")
    chosen = action.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--for", dest="for_s", type=_duration, default=0.0, metavar="TIME", help="30m, 2h, 1d")
    chosen.add_argument("--off", action="store_true", help="it has its effect again")
    lasting.add_reason(action)
    action.set_defaults(wrong_usage=action.error, run=partial(_run, _mute, check=lasting.check))


def _body(args: argparse.Namespace) -> dict[str, object]:
    """Who asks, and why."""
    return {"by": who(), "reason": args.reason}


def _list(args: argparse.Namespace, server: Asking) -> int:
    page = server.get("/rules", RulesPage)
    if args.json:
        print_json(page)
        return EXIT_DONE
    for line in _list_lines(page, words.now_s()):
        print(line)
    return EXIT_DONE


def _list_lines(page: RulesPage, now_s: float) -> Iterator[str]:
    if not page.rules:
        yield "no rule is in force"
    else:
        yield from table(page.rules, now_s)
    for mute in page.mutes:
        rule = f"{mute.policy}/{mute.rule}" if mute.policy else mute.rule
        about = f" for {mute.key}" if mute.key else ""
        until = words.until(mute.until_s, now_s)
        yield words.printable(f"{rule}{about} is muted, its effect comes back {until} ({mute.by})")


def table(rows: Iterable[RuleRow], now_s: float) -> Iterable[str]:
    """What rules set off, a line each under a heading."""
    columns = [Column("id"), Column("rule"), Column("for", cut=True), Column("does", cut=True)]
    columns += [Column("since", right=True), Column("until", right=True), Column("hits", right=True)]
    columns += [Column("last reply", cut=True)]
    return words.table(columns, ([*_cells(row, now_s)] for row in rows), words.terminal_columns())


def _cells(row: RuleRow, now_s: float) -> Iterator[str]:
    is_muted = row.muted_until_s > now_s
    yield row.id
    yield row.rule
    yield row.key
    yield f"{row.action}: {row.does}" + (" (muted)" if is_muted else "")
    yield words.ago(row.since_s, now_s)
    yield words.until(row.until_s, now_s)
    yield words.count(row.hits)
    yield row.reply


def _show(args: argparse.Namespace, server: Asking) -> int:
    page = server.get(f"/rules/{quoted(args.id)}", RulePage)
    if args.json:
        print_json(page)
    else:
        for line in words.pairs(_about(page.rule, words.now_s())):
            print(line)
    return EXIT_DONE


def _about(row: RuleRow, now_s: float) -> Iterator[tuple[str, str]]:
    yield "id", row.id
    written = row.written or "which has it no more"
    yield "rule", f"{row.rule} of the policy {row.policy}, {written}"
    yield "for", row.key
    yield "does", f"{row.action}: {row.does}"
    if row.muted_until_s > now_s:
        yield "muted", f"no effect before {words.moment(row.muted_until_s)}, {words.until(row.muted_until_s, now_s)}"
    yield "since", f"{words.moment(row.since_s)}, {words.ago(row.since_s, now_s)}"
    yield "until", f"{words.moment(row.until_s)}, {words.until(row.until_s, now_s)}"
    yield "by", row.by
    matched = f"{words.several(row.hits, 'time')}, last {words.ago(row.last_s, now_s)}"
    yield "matched", matched
    at = f" (at {row.stage}{f' of {row.host}' if row.host else ''})" if row.stage else ""
    yield "last reply", f"{row.reply}{at}"


def _cancel(args: argparse.Namespace, server: Asking) -> int:
    page = server.delete(f"/rules/{quoted(args.id)}", RulePage, _body(args))
    return _told(args, page, f"cancelled {page.rule.id}: {page.rule.rule} for {page.rule.key}")


def _extend(args: argparse.Namespace, server: Asking) -> int:
    body = {"for_s": args.for_s, **_body(args)}
    page = server.post(f"/rules/{quoted(args.id)}/extend", RulePage, body)
    until = words.moment(page.rule.until_s)
    return _told(args, page, f"{page.rule.id} ({page.rule.rule} for {page.rule.key}) ends {until}")


def _mute(args: argparse.Namespace, server: Asking) -> int:
    body = {"name": args.name, "for_s": 0.0 if args.off else args.for_s, **_body(args)}
    page = server.post("/rules/mute", MutePage, body)
    mute = page.mute
    about = f" for {mute.key}" if mute.key else ""
    has = "has its effect again" if args.off else f"has no effect until {words.moment(mute.until_s)}"
    return _told(args, page, f"{mute.rule}{about} {has}")


def _told(args: argparse.Namespace, page: RulePage | MutePage, line: str) -> int:
    if args.json:
        print_json(page)
    else:
        print(words.printable(line))
    return EXIT_WRONG if warn(COMMAND, page.problems, "") else EXIT_DONE


def _duration(text: str) -> float:
    seconds = lasting.duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError("say how long: 30m, 2h, 1d")
    return seconds
