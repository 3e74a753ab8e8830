"""Selected: SELECT, the criteria by which commands say which mail they mean."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from mta.cli.lasting import duration
from mta.model.selection import Selection

_TEXTS = {
    "id": ("ID", "this message"),
    "domain": ("DOMAIN", "recipients of this domain"),
    "site": ("SITE", "mail for this site, the name of a set of MX hosts"),
    "policy": ("NAME", "mail under this policy"),
    "source": ("NAME", "mail that leaves from this source"),
    "tenant": ("NAME", "mail of this tenant"),
    "campaign": ("NAME", "mail of this campaign"),
    "sender": ("ADDRESS", "mail from this envelope sender"),
    "recipient": ("ADDRESS", "this recipient"),
}


def add_select(parser: argparse.ArgumentParser, *, all_is_asked: bool) -> None:
    """Add SELECT. `all_is_asked`: everything is meant only where `--all` says so."""
    group = parser.add_argument_group(
        "SELECT", 'which mail; several criteria must all hold, "*" stands for anything: --sender "*@shop.example"'
    )
    for name, (metavar, text) in _TEXTS.items():
        group.add_argument(f"--{name}", metavar=metavar, type=_criterion, help=text)
    group.add_argument(
        "--older-than", metavar="TIME", type=duration, default=0.0, help="accepted at least so long ago: 30m, 2h, 1d"
    )
    text = "everything; without SELECT nothing is done" if all_is_asked else "everything, as without SELECT"
    group.add_argument("--all", action="store_true", help=text)
    parser.set_defaults(wrong_usage=parser.error)


def selection_of(args: argparse.Namespace) -> Selection:
    """What the arguments select; empty where they say nothing."""
    texts: dict[str, Any] = {name: getattr(args, name) or "" for name in _TEXTS}
    named = Selection(**texts, older_than_s=args.older_than)
    return Selection(all=True) if named.is_empty and args.all else named


def must_select(args: argparse.Namespace, verb: str) -> Selection:
    """As `selection_of`; leaves as wrong usage where nothing is selected: everything is never meant by silence."""
    selection = selection_of(args)
    if selection.is_empty:
        wrong: Callable[[str], NoReturn] = args.wrong_usage
        wrong(f"say which mail to {verb}: --domain, --sender, --id ..., or --all for everything")
    return selection


def _criterion(text: str) -> str:
    """A variable of a script that is empty by mistake must not widen what is meant."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: say which, or leave it out")
    return text
