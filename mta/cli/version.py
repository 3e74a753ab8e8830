"""`mta version`: which version this is, and on what it runs."""

import argparse
import platform

from mta import VERSION
from mta.cli import EXIT_DONE, Subparsers


def add(subparsers: Subparsers) -> None:
    """Describes the command."""
    parser = subparsers.add_parser(
        "version",
        help="print the version",
        description="Prints the version of mta and of the Python that runs it.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints one line."""
    print(f"mta {VERSION} (Python {platform.python_version()}, {platform.system()} {platform.machine()})")
    return EXIT_DONE
