"""Figures: what a tally comes to, in a form that is printed, compared and written as JSON."""

from typing import Protocol

import msgspec

from mta_policies.rehearsal.tally import SIZE, Tally, Where
from mta_policies.rehearsal.traffic import NEVER_S


class RuleFigures(msgspec.Struct, frozen=True):
    """One rule."""

    rule: str
    matches: int
    firings: int
    first: float
    """Unix seconds; 0: not known."""
    origin: str = ""
    """Where it is written: "policies/google.toml:30"; "" where that is not known."""


class BoundFigures(msgspec.Struct, frozen=True):
    """One thing that mail waited for, though it was due."""

    limit: str
    for_s: float
    share: float
    """Of all such waiting."""
    value: str = ""
    """As the policy has it."""
    origin: str = ""
    """Where that is written."""


class Figures(msgspec.Struct, frozen=True):
    """One provider, in a record or a rehearsal. Counts are of recipients, but for transactions and connections."""

    mail: int
    delivered: int
    deferred: int
    bounced: int
    expired: int
    cancelled: int
    waiting: int
    attempts: int
    transactions: int
    connections: int
    failures: int
    drained_s: float
    """From the first mail until the last was delivered."""
    wait_median_s: float
    wait_95_s: float
    backlog_max: int
    rules: list[RuleFigures]
    bound: list[BoundFigures]
    categories: dict[str, int]


class Origins(Protocol):
    """Knows the policies of a run."""

    def limit(self, cause: str, where: Where) -> tuple[str, str]:
        """The value of what mail waited for, and where it is written."""
        ...

    def rule(self, rule: str, policy: str) -> str:
        """Where a rule is written."""
        ...


class Nowhere:
    """Nobody knows."""

    def limit(self, cause: str, where: Where) -> tuple[str, str]:
        del cause, where
        return "", ""

    def rule(self, rule: str, policy: str) -> str:
        del rule, policy
        return ""


def figures(tally: Tally, origins: Origins | None = None) -> Figures:
    """What it comes to; what is most first."""
    known = origins or Nowhere()
    median_s, most_s = tally.wait_times_s(0.5, 0.95)
    bound_s = sum(tally.bound_s.values()) or 1.0
    rules = sorted(tally.rules.items(), key=lambda each: (-each[1].matches, each[0]))
    bound = sorted(tally.bound_s.items(), key=lambda each: (each[0] != SIZE, -each[1], each[0]))
    return Figures(
        mail=tally.arrived,
        delivered=tally.delivered,
        deferred=tally.deferred,
        bounced=tally.bounced,
        expired=tally.expired,
        cancelled=tally.cancelled,
        waiting=tally.waiting,
        attempts=tally.attempts,
        transactions=tally.transactions,
        connections=tally.connections,
        failures=tally.failures,
        drained_s=tally.drained_s,
        wait_median_s=median_s,
        wait_95_s=most_s,
        backlog_max=tally.backlog_max,
        rules=[
            RuleFigures(
                name,
                rule.matches,
                rule.firings,
                0.0 if rule.first_s == NEVER_S else rule.first_s,
                known.rule(name, rule.policy),
            )
            for name, rule in rules
        ],
        bound=[
            BoundFigures(limit, for_s, for_s / bound_s, *known.limit(limit, tally.where[limit]))
            for limit, for_s in bound
            if for_s > 0 or limit == SIZE
        ],
        categories=dict(sorted(tally.categories.items(), key=lambda each: (-each[1], each[0]))),
    )
