"""`mta check`: is the configuration right? Every problem at once, each with its file and line.

Prints what is wrong, and what is right but has no effect yet, to standard output: it is the answer that was asked for.
"""

import argparse
import json
from collections.abc import Collection, Sequence

from mta import config
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers
from mta_policies.located import Place, Problem


def add(subparsers: Subparsers) -> None:
    """Describes the command."""
    parser = subparsers.add_parser(
        "check",
        help="check the configuration and the policies",
        description="Checks the configuration, what it includes, and the policies. Exit status 1: something is wrong.",
    )
    parser.add_argument("--config", metavar="FILE", default=config.DEFAULT_FILE, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints every problem and warning, then one line that sums up; 1 where there is a problem."""
    problems: Sequence[Problem] = ()
    try:
        loaded = config.load(args.config)
    except config.ConfigError as error:
        problems, warnings, summary = error.problems, error.warnings, ""
    else:
        warnings = loaded.warnings
        summary = f"in order: {_count(loaded.listeners, 'listener')}, {_count(loaded.policy_set.policies, 'polic')}"
    if args.json:
        print(json.dumps({"problems": _objects(problems), "warnings": _objects(warnings)}, ensure_ascii=False))
    else:
        _print(args.config, problems, warnings, summary)
    return EXIT_WRONG if problems else EXIT_DONE


def _print(file: str, problems: Sequence[Problem], warnings: Sequence[Problem], summary: str) -> None:
    for problem in problems:
        print(problem)
    for warning in warnings:
        print(f"{Place(warning.file, warning.line)}: warning: {warning.message}")
    parts = [summary] if summary else [_count(problems, "problem")]
    if warnings:
        parts.append(_count(warnings, "warning"))
    print(f"{file}: {', '.join(parts)}")


def _count(things: Collection[object], word: str) -> str:
    singular, plural = (word + "y", word + "ies") if word.endswith("polic") else (word, word + "s")
    return f"{len(things)} {singular if len(things) == 1 else plural}"


def _objects(problems: Sequence[Problem]) -> list[dict[str, object]]:
    return [problem._asdict() for problem in problems]
