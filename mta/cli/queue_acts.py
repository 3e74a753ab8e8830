"""`mta queue retry | hold | release | cancel`: change what waits in a running server.

An action over a long queue is asked for bit by bit, with its progress on a terminal; whoever breaks it off is told what
was done by then.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import msgspec

from mta.admin import gathering
from mta.admin.pages import ActedPage
from mta.cli import EXIT_DONE, EXIT_INTERRUPTED, EXIT_WRONG, Subparsers, words
from mta.cli.asking import COMMAND_QUEUE, Asking, options, print_json, run_asked, who
from mta.cli.export_file import ExportFileError
from mta.cli.exported import remove_exported
from mta.cli.selected import add_select, must_select, selection_of

PAST = {"retry": "told to try", "hold": "held", "release": "released", "cancel": "cancelled"}

_ACTS = {
    "retry": "try again at once what waits for its next attempt",
    "hold": "let nothing of it go until it is released; outlives a restart",
    "release": "let go again what is held",
    "cancel": "end it: it is never sent",
}


def add(actions: Subparsers) -> None:
    """Describes the actions to argparse."""
    for verb, text in _ACTS.items():
        act = actions.add_parser(verb, parents=[options()], help=text, description=f"{text[0].upper()}{text[1:]}.")
        add_select(act, all_is_asked=True)
        if verb == "cancel":
            act.add_argument("--notify", action="store_true", help="tell the senders; without it nobody is told")
            act.add_argument(
                "--exported",
                metavar="FILE",
                type=Path,
                help="instead of SELECT: what this export has and is held still",
            )
        act.set_defaults(run=partial(run_asked, _act, check=_check), verb=verb, notify=False, exported=None)


def _check(args: argparse.Namespace) -> None:
    """Wrong usage must not depend on a server."""
    if args.exported is None:
        must_select(args, args.verb)
    elif not selection_of(args).is_empty or args.notify:
        args.wrong_usage("--exported FILE stands alone: the file says which mail is meant")


def _act(args: argparse.Namespace, server: Asking) -> int:
    if args.exported is not None:
        try:
            page = remove_exported(server, args.exported)
        except ExportFileError as error:
            print(f"{COMMAND_QUEUE}: {words.printable(str(error))}", file=sys.stderr)
            return EXIT_WRONG
        return _told(args, page)
    body = {**msgspec.to_builtins(must_select(args, args.verb)), "by": who()}
    if args.notify:
        body["notify"] = True
    path = f"/queue/{args.verb}"
    page = ActedPage()
    progress = words.Progress()
    try:
        page = server.post(path, ActedPage, {**body, "cursors": []})
        while not page.is_done:
            looked_at = sum(cursor.looked_at for cursor in page.cursors)
            of = sum(cursor.of for cursor in page.cursors)
            done = f"{PAST[args.verb]} {words.several(page.touched, 'recipient')}"
            progress.show(f"{words.count(looked_at)} of {words.several(of, 'message')} looked at, {done}")
            gathering.go_on(page, server.post(path, ActedPage, {**body, "cursors": page.cursors}))
    except KeyboardInterrupt:
        progress.clear()
        print(f"{COMMAND_QUEUE}: broken off; so far: {_acted(args.verb, page)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    progress.clear()
    return _told(args, page)


def _told(args: argparse.Namespace, page: ActedPage) -> int:
    if args.json:
        print_json(page)
    else:
        print(_acted(args.verb, page))
        if page.left:
            left = ", ".join(f"{words.count(number)} {why}" for why, number in sorted(page.left.items()))
            print(f"left alone: {left}")
    for problem in page.problems:
        said = f"{words.printable(problem)}: what it has was not touched, or nobody knows"
        print(f"{COMMAND_QUEUE}: {said}", file=sys.stderr)
    return EXIT_DONE if page.touched and not page.problems else EXIT_WRONG


def _acted(verb: str, page: ActedPage) -> str:
    if not page.touched:
        return "nothing was touched" if page.left else "nothing matched"
    what = f"{words.several(page.touched, 'recipient')} of {words.several(page.messages, 'message')}"
    where = f" at {words.several(page.workers, 'worker')}" if page.workers > 1 else ""
    return f"told {what}{where} to try at once" if verb == "retry" else f"{PAST[verb]} {what}{where}"
