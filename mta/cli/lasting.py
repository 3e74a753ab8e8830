"""What lasts for a while: `--for` and `--reason`, of the commands that stop, keep or mute something so long."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from mta.admin.pages import REASON_CHARS_MAX
from mta.admin.selecting import SUSPENSION_S_MAX
from mta.cli import words
from mta_policies.units import duration_s


def duration(text: str) -> float:
    """A length of time as argparse wants to read it, in seconds: "30m", "2h", "1d"."""
    try:
        return duration_s(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_reason(parser: argparse.ArgumentParser) -> None:
    """Add `--reason`."""
    parser.add_argument("--reason", default="", metavar="TEXT", help="for the event log and for who looks later")


def check(args: argparse.Namespace) -> None:
    """Leave as wrong usage where the server takes no time so long, or no reason."""
    wrong: Callable[[str], NoReturn] = args.wrong_usage
    if getattr(args, "for_s", 0.0) > SUSPENSION_S_MAX:
        wrong(f"--for is at most {words.span(SUSPENSION_S_MAX)}: who wants it for longer changes the policy")
    if len(args.reason) > REASON_CHARS_MAX:
        wrong(f"the reason is longer than {REASON_CHARS_MAX} characters")
