"""`mta suspend`: nothing that matches goes out for a while, mail to come included.

`mta suspend SELECT --for 2h` begins it, `list` shows what is suspended, `resume ID` ends it before its time. It
outlives a restart of the server. Mail that is suspended stays in the queue, and expires as any other.
"""

import argparse
from collections.abc import Callable
from typing import NoReturn

import msgspec

from mta.admin.pages import SuspensionPage, SuspensionsPage, Wish
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, lasting, words
from mta.cli.asking import Asking, options, print_json, quoted, run_asked, warn, who
from mta.cli.selected import add_select, must_select, selection_of
from mta.cli.words import Column

COMMAND = "mta suspend"


def add(subparsers: Subparsers) -> None:
    """Describes the command to argparse."""
    parser = subparsers.add_parser(
        "suspend",
        parents=[options()],
        help="let nothing that matches go out for a while",
        description=(__doc__ or "").split("\n\n", 1)[1],
        usage="mta suspend SELECT --for TIME [--reason TEXT] | list | resume ID",
    )
    parser.add_argument("action", nargs="?", choices=("list", "resume"), metavar="list | resume")
    parser.add_argument("suspension", nargs="?", default="", metavar="ID", help="of the suspension to resume")
    add_select(parser, all_is_asked=True)
    parser.add_argument(
        "--for", dest="for_s", type=lasting.duration, default=0.0, metavar="TIME", help="how long: 30m, 2h, 1d"
    )
    lasting.add_reason(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Begins, lists or ends; 1 where there is no such suspension, 69 where no server answers."""
    action = {"list": _list, "resume": _resume}.get(args.action, _begin)
    return run_asked(action, args, _check, COMMAND)


def _check(args: argparse.Namespace) -> None:
    """Leave as wrong usage where the words do not go together."""
    wrong: Callable[[str], NoReturn] = args.wrong_usage
    if args.action:
        if not selection_of(args).is_empty or args.for_s or args.reason:
            wrong(f"{args.action} takes no SELECT, --for or --reason")
        if bool(args.suspension) != (args.action == "resume"):
            wrong(
                "resume needs the ID of a suspension: see mta suspend list"
                if args.action == "resume"
                else "list takes no ID"
            )
        return
    must_select(args, "suspend")
    if not args.for_s:
        wrong("say for how long: --for 2h")
    lasting.check(args)


def _begin(args: argparse.Namespace, server: Asking) -> int:
    wish = Wish(selection_of(args), args.for_s, args.reason, who())
    page = server.post("/suspensions", SuspensionPage, msgspec.to_builtins(wish))
    if args.json:
        print_json(page)
    else:
        until = words.moment(page.suspension.until_s)
        what = words.printable(str(page.suspension.selection))
        print(f"suspended {what} until {until}: mta suspend resume {page.suspension.id} ends it")
    return _told(page)


def _resume(args: argparse.Namespace, server: Asking) -> int:
    page = server.delete(f"/suspensions/{quoted(args.suspension)}", SuspensionPage, {"by": who()})
    if args.json:
        print_json(page)
    else:
        print(f"resumed {words.printable(str(page.suspension.selection))}")
    return _told(page)


def _told(page: SuspensionPage) -> int:
    return EXIT_WRONG if warn(COMMAND, page.problems, ": it hears of this when it is back") else EXIT_DONE


def _list(args: argparse.Namespace, server: Asking) -> int:
    page = server.get("/suspensions", SuspensionsPage)
    if args.json:
        print_json(page)
        return EXIT_DONE
    if not page.suspensions:
        print("nothing is suspended")
        return EXIT_DONE
    now_s = words.now_s()
    columns = [Column("id"), Column("what", cut=True), Column("since", right=True), Column("until", right=True)]
    columns += [Column("by"), Column("reason", cut=True)]
    rows = (
        [
            each.id,
            str(each.selection),
            words.ago(each.since_s, now_s),
            words.until(each.until_s, now_s),
            each.by,
            each.reason,
        ]
        for each in page.suspensions
    )
    for line in words.table(columns, rows, words.terminal_columns()):
        print(line)
    return EXIT_DONE
