"""`mta check`: is the configuration right? Every problem at once, each with its file and line.

Prints what is wrong, and what is right but never used, to standard output: it is the answer that was asked for.
Where all is right, it says what the limits of the admin's own policies amount to; with `--limits`, of all.
"""

import argparse
import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mta import config
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, words
from mta.cli.words import Column
from mta_policies.capacity import CONNECT_S, DELIVERY_S, capacity
from mta_policies.cross_limit import value_of
from mta_policies.layers import PolicySet
from mta_policies.located import Place, Problem
from mta_policies.units import render_duration

_COLUMNS = (
    Column("policy"),
    Column("connections", right=True),
    Column("messages each", right=True),
    Column("messages a minute", right=True),
    Column("because of"),
)
_ACROSS_COLUMNS = (Column("per"), Column("name"), Column("at most"), Column("written in"))
NO_LIMIT = "no limit"


class Amount(NamedTuple):
    """What the limits of a policy amount to, for one source at one site."""

    policy: str
    connections: int
    """0: no limit."""
    messages_per_connection: int
    """0: no limit."""
    per_minute: float | None
    """Messages; None: no limit."""
    decides: str
    """The key of the limit that decides."""


class Across(NamedTuple):
    """A limit across destinations."""

    per: str
    name: str
    values: str
    """Rate, quota and hours, as one says them."""
    origin: str


def add(subparsers: Subparsers) -> None:
    """Describes the command."""
    parser = subparsers.add_parser(
        "check",
        help="check the configuration and the policies",
        description="Checks the configuration, what it includes, and the policies. Exit status 1: something is wrong.",
    )
    parser.add_argument("--config", metavar="FILE", default=config.DEFAULT_FILE, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--limits", action="store_true", help="say what the limits of all policies amount to, not only of your own"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints every problem and warning, then one line that sums up; 1 where there is a problem."""
    problems: Sequence[Problem] = ()
    amounts: Sequence[Amount] = ()
    across: Sequence[Across] = ()
    try:
        loaded = config.load(args.config)
    except config.ConfigError as error:
        problems, warnings, summary = error.problems, error.warnings, ""
    else:
        warnings = loaded.warnings
        summary = f"in order: {_count(loaded.listeners, 'listener')}, {_count(loaded.policy_set.policies, 'polic')}"
        policies = loaded.policy_set
        amounts = _amounts(policies, policies.policies if args.limits else policies.own)
        across = _across(loaded)
    if args.json:
        answer = {"problems": _objects(problems), "warnings": _objects(warnings), "limits": _objects(amounts)}
        answer["across"] = _objects(across)
        print(json.dumps(answer, ensure_ascii=False))
    else:
        _print(args.config, problems, warnings, summary)
        _print_amounts(amounts)
        _print_across(across)
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


def _amounts(policies: PolicySet, names: Collection[str]) -> list[Amount]:
    amounts = []
    for name, policy in policies.policies.items():
        if name in names:
            per_s, decides = capacity(policy)
            per_minute = round(per_s * 60, 2) if decides else None
            messages = policy.limits.messages_per_connection
            amounts.append(Amount(name, policy.connections_max(""), messages, per_minute, decides))
    return amounts


def _print_amounts(amounts: Sequence[Amount]) -> None:
    if not amounts:
        return
    print(
        f"\nat most, from one source to one site, where a delivery takes {render_duration(DELIVERY_S)} and a new"
        f" connection {render_duration(CONNECT_S)}:"
    )
    rows = [
        [
            amount.policy,
            words.count(amount.connections) if amount.connections else NO_LIMIT,
            words.count(amount.messages_per_connection) if amount.messages_per_connection else NO_LIMIT,
            _about(amount.per_minute),
            amount.decides,
        ]
        for amount in amounts
    ]
    print(*words.table(_COLUMNS, rows, words.terminal_columns()), sep="\n")


def _across(loaded: config.Config) -> list[Across]:
    rows = []
    for number, limit in enumerate(loaded.limits):
        values = [value_of(limit, "rate"), value_of(limit, "quota"), value_of(limit, "window")]
        origin = loaded.origin("limit", number)
        rows.append(Across(limit.per, limit.name, "; ".join(filter(None, values)), origin))
    return rows


def _print_across(across: Sequence[Across]) -> None:
    if across:
        print("\nacross all destinations, for each that matches:")
        print(*words.table(_ACROSS_COLUMNS, across, words.terminal_columns()), sep="\n")


def _about(per_minute: float | None) -> str:
    """`6,000`, `2.5`, `no limit`"""
    if per_minute is None:
        return NO_LIMIT
    return words.count(round(per_minute)) if per_minute >= 10 else f"{per_minute:g}"


def _count(things: Collection[object], word: str) -> str:
    singular, plural = (word + "y", word + "ies") if word.endswith("polic") else (word, word + "s")
    return f"{len(things)} {singular if len(things) == 1 else plural}"


def _objects(rows: Sequence[Problem] | Sequence[Amount] | Sequence[Across]) -> list[dict[str, object]]:
    return [row._asdict() for row in rows]
