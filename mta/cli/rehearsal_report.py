"""What a rehearsal comes to, for people and for programs: a row for each run, and below why it took so long."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from mta.cli import words
from mta.cli.words import Column
from mta_policies.rehearsal.figures import BoundFigures, Figures, Origins, RuleFigures, figures
from mta_policies.rehearsal.tally import SIZE, Tally

RECORDED, NOW, NEW = "recorded", "now", "new"
"""Names of runs: what happened, by the policies that there are, and by the others."""

BOUND_SHOWN = 3  # what mail waited for: more than that is noise
BOUND_SHARE_MIN = 0.005  # less is written as 0 %
RULES_SHOWN = 5
ALIKE = 0.01  # a difference of less than a hundredth of the time is none

COLUMNS = (
    Column("provider", optional=True),
    Column("run"),
    Column("mail", right=True),
    Column("delivered", right=True),
    Column("deferrals", right=True),
    Column("bounced", right=True),
    Column("expired", right=True),
    Column("attempts", right=True),
    Column("drained after", right=True),
    Column("half within", right=True),
    Column("95 % within", right=True),
    Column("most waiting", right=True),
)

Moment = Callable[[float], str]
"""How a time (Unix seconds) is written: "at 2026-11-22 08:00", "after 3 h"."""


class Run(NamedTuple):
    """What became of the mail, by provider."""

    name: str
    """`RECORDED`, `NOW` or `NEW`."""
    tallies: Mapping[str, Tally]
    providers: Mapping[str, Figures]


def providers(runs: Sequence[Run]) -> list[str]:
    """Most mail first."""
    mail = {name: found.mail for run in runs for name, found in run.providers.items()}
    return sorted(mail, key=lambda name: (-mail[name], name))


def table(runs: Sequence[Run], *, is_of_one: bool = False) -> list[str]:
    """The lines of it; `is_of_one`: the provider was said before."""
    rows = [
        _row("" if is_of_one or run is not runs[0] else provider, run.name, run.providers[provider])
        for provider in providers(runs)
        for run in runs
        if provider in run.providers
    ]
    return words.table(COLUMNS, rows, words.terminal_columns())


def _row(provider: str, name: str, found: Figures) -> list[str]:
    counts = (found.mail, found.delivered, found.deferred, found.bounced, found.expired, found.attempts)
    spans = (found.drained_s, found.wait_median_s, found.wait_95_s)
    return [provider, name, *map(words.count, counts), *map(span, spans), words.count(found.backlog_max)]


def span(seconds: float) -> str:
    """`42 s`, `3 h 39 min`, `2 d 5 h`: two policies may differ by minutes of hours."""
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            whole, rest = divmod(round(seconds / smaller), size // smaller)
            return f"{whole} {unit} {rest} {name}" if rest else f"{whole} {unit}"
    return words.span(seconds)


def reasons(found: Figures, moment: Moment) -> list[str]:
    """What the mail waited for, and which rules matched."""
    bound = [f"waited for {bound_words(each)}" for each in most_bound(found)]
    return bound + [f"rule {rule_words(each, moment)}" for each in found.rules[:RULES_SHOWN]]


def most_bound(found: Figures) -> list[BoundFigures]:
    """What the mail waited for, but for what hardly counts."""
    return [each for each in found.bound[:BOUND_SHOWN] if each.share >= BOUND_SHARE_MIN or each.limit == SIZE]


def bound_words(bound: BoundFigures) -> str:
    """`limits.rate = 20/s (policies/google.toml:12): 3 h 39 min, 98% of all waiting`"""
    value = f" = {words.printable(bound.value)}" if bound.value else ""
    origin = f" ({words.printable(bound.origin)})" if bound.origin else ""
    took = "the message is larger" if bound.limit == SIZE else f"{span(bound.for_s)}, {bound.share:.0%} of all waiting"
    return f"{words.printable(bound.limit)}{value}{origin}: {took}"


def rule_words(rule: RuleFigures, moment: Moment) -> str:
    """`google-unusual-rate (policies/google.toml:51) matched 12 times, fired 3 times, first after 4 min`"""
    origin = f" ({words.printable(rule.origin)})" if rule.origin else ""
    fired = f", fired {words.several(rule.firings, 'time')}" if rule.firings else ""
    first = f", first {moment(rule.first)}" if rule.first else ""
    return f"{words.printable(rule.rule)}{origin} matched {words.several(rule.matches, 'time')}{fired}{first}"


def outcome(found: Figures) -> str:
    """`1,000,000 delivered after 2 d 7 h, 302 a minute; 12 expired`"""
    parts = [f"{words.count(found.delivered)} delivered"]
    if found.drained_s:
        parts[0] += f" after {span(found.drained_s)}, {pace(found.delivered / found.drained_s)}"
    left = (("bounced", found.bounced), ("expired", found.expired), ("cancelled", found.cancelled))
    parts += [f"{words.count(count)} {name}" for name, count in (*left, ("still waiting", found.waiting)) if count]
    return "; ".join(parts)


def pace(per_s: float) -> str:
    """`20 a second`, `302 a minute`, `40 an hour`"""
    for unit_s, name in ((1.0, "a second"), (60.0, "a minute")):
        if per_s * unit_s >= 10.0:
            return f"{per_s * unit_s:,.0f} {name}"
    return f"{per_s * 3600.0:,.0f} an hour"


def difference(now: Figures, new: Figures) -> str:
    """What the new policies change: `the last is delivered 1 h 12 min later; 340 deferrals fewer (24 %)`."""
    found = []
    later_s = new.drained_s - now.drained_s
    if abs(later_s) >= max(1.0, ALIKE * now.drained_s):
        found.append(f"the last is delivered {span(abs(later_s))} {'later' if later_s > 0 else 'sooner'}")
    for name, before, behind in (
        ("delivered", now.delivered, new.delivered),
        ("deferrals", now.deferred, new.deferred),
        ("bounced", now.bounced, new.bounced),
        ("expired", now.expired, new.expired),
        ("still waiting", now.waiting, new.waiting),
    ):
        if before != behind:
            part = f" ({abs(behind - before) / before:.0%})" if before else ""
            found.append(f"{words.count(abs(behind - before))}{part} {'more' if behind > before else 'fewer'} {name}")
    return "; ".join(found) or "nothing that matters changes"


def run_of(name: str, tallies: Mapping[str, Tally], origins: Origins | None) -> Run:
    """With its figures."""
    return Run(name, tallies, {label: figures(tally, origins) for label, tally in tallies.items()})


def objects(runs: Sequence[Run]) -> list[dict[str, object]]:
    """For `--json`: one for each provider."""
    return [
        {
            "name": provider,
            **{run.name: msgspec.to_builtins(run.providers[provider]) for run in runs if provider in run.providers},
        }
        for provider in providers(runs)
    ]
