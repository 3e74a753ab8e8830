"""`mta policy reload`: a running server reads its configuration and policies again, and says what came of it.

As SIGHUP does it, but the answer comes when every worker keeps to what holds now. Where something is wrong, nothing is
changed.
"""

import argparse
from functools import partial

from mta.admin.pages import ReloadPage
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, words
from mta.cli.asking import Asking, options, print_json, run_asked, warn

COMMAND = "mta policy reload"


def add(actions: Subparsers) -> None:
    """Describes the action."""
    parser = actions.add_parser(
        "reload",
        parents=[options()],
        help="let a running server read policies and configuration again",
        description="Lets a running server read its configuration and policies again, as SIGHUP does, and says what"
        " came of it. Where something is wrong nothing is changed. Exit status 1: it was not, or not by all workers.",
    )
    parser.set_defaults(run=partial(run_asked, _reload, command=COMMAND))


def _reload(args: argparse.Namespace, server: Asking) -> int:
    page = server.post("/reload", ReloadPage, {})
    if args.json:
        print_json(page)
    else:
        _print(page)
    return EXIT_WRONG if page.wrong or page.problems else EXIT_DONE


def _print(page: ReloadPage) -> None:
    if page.wrong:
        print("not reloaded, nothing was changed:")
        for problem in page.wrong:
            print(f"  {words.printable(problem)}")
        return
    print(f"reloaded: {words.several(page.workers, 'worker')} took it")
    if page.restart:
        print(f"changed, but only a restart makes it so: {', '.join(page.restart)}")
    for warning in page.warnings:
        print(f"warning: {words.printable(warning)}")
    warn(COMMAND, page.problems, "")
