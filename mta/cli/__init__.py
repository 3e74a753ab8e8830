"""The `mta` command: finds the file of the command that was typed and runs it.

One file a command. Each has `add(subparsers)`, which describes the command and names its function with
`set_defaults(run=run)`, and `run(args) -> int`, which does the work and returns the exit status. Only the
file of the command that was typed is imported, so that `mta version` does not wait for a server's imports.

Exit statuses: 0 done, 1 the answer is no or something is wrong, 2 wrong usage, 69 no server answers.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, cast

EXIT_DONE = 0
EXIT_WRONG = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
EXIT_INTERRUPTED = 130  # what shells report for SIGINT

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

COMMANDS = {
    "serve": "mta.cli.serve",
    "check": "mta.cli.check",
    "queue": "mta.cli.queue_admin",
    "suspend": "mta.cli.suspend",
    "rule": "mta.cli.rule",
    "policy": "mta.cli.policy",
    "dkim": "mta.cli.dkim",
    "send": "mta.cli.send",
    "version": "mta.cli.version",
}
"""Command -> the module that holds it, in the order of the help."""


class Parser(argparse.ArgumentParser):
    """Of a command: an option that it does not know is told with its own usage and the nearest one that it has."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - one form for all of its overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's, but nothing is left over."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            from mta_policies.located import nearest  # takes a while, and is seldom needed

            option = unknown[0].partition("=")[0]
            what = f"there is no option {option}" if option.startswith("-") else f"not expected here: {option}"
            self.error(what + (nearest(option, self._option_string_actions) if option.startswith("-") else ""))
        return parsed, unknown


class Command(Protocol):
    """What a command's module offers."""

    def add(self, subparsers: Subparsers) -> None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command of `argv` (without the program's name; None: the process's) and returns its exit status.

    Wrong usage leaves by SystemExit with status 2, `--help` with 0, as argparse does. Mistakes in the
    configuration or in policies are listed on standard error, one a line, and give 1.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = build_parser(arguments).parse_args(arguments)
    try:
        status = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has enough. Standard output is pointed elsewhere so that its flush at exit is quiet too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_WRONG
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        problems = getattr(error, "problems", None)
        if problems is None:
            raise
        for problem in problems:
            print(problem, file=sys.stderr)
        return EXIT_WRONG
    return status


def build_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser for `arguments`: with the typed command only where there is one, else with all of them."""
    parser = argparse.ArgumentParser(
        prog="mta",
        description="A mail transfer agent that sends a lot of mail and keeps all that it accepted.",
        epilog="mta COMMAND --help tells more about a command.",
    )
    subparsers = parser.add_subparsers(
        title="commands",
        metavar="COMMAND",
        dest="command",
        required=True,
        parser_class=cast(type[argparse.ArgumentParser], Parser),
    )
    typed = arguments[0] if arguments else ""
    for name in [typed] if typed in COMMANDS else COMMANDS:
        cast(Command, importlib.import_module(COMMANDS[name])).add(subparsers)
    return parser
