"""`mta serve`: the server, in the foreground."""

import argparse
import asyncio
import sys
from pathlib import Path

from mta.cli import EXIT_WRONG, Subparsers
from mta.config import DEFAULT_FILE, load
from mta.premises import StartError
from mta.supervisor import serve


def add(subparsers: Subparsers) -> None:
    """Describes the command."""
    parser = subparsers.add_parser(
        "serve",
        help="run the server in the foreground",
        description="Runs the server in the foreground. SIGTERM: stop. SIGHUP: reload configuration and policies.",
    )
    parser.add_argument("--config", type=Path, default=Path(DEFAULT_FILE), metavar="FILE", help="default: mta.toml")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Until it is told to stop."""
    config = load(args.config)
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    try:
        return asyncio.run(serve(config, args.config))
    except StartError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
