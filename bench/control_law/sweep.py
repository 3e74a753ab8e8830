"""The sweep: every way to recover against every severity and length of penalty, as tables.

A cell is the share of what could be had that was delivered, and the deferrals that were earned.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from bench.control_law.senders import (
    FULL_PER_MINUTE,
    Adapt,
    Course,
    Probe,
    ProbeAndAdapt,
    Sender,
    Slow,
    Suspend,
    send,
)
from mta_policies.adapting import Law
from mta_policies.provider_model import Google, ProviderModel, Throttle

LENGTH_S = 48 * 3600.0
PENALTIES_S = (60, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)
GUIDE_PENALTIES_S = (600, 1800, 3600, 7200, 14400, 28800, 86400)
GUIDE_RECOVERIES = ("probe", "suspend 10 min", "suspend 1 h", "suspend 4 h", "one a minute")
TOLERANCES = (6, 30, 54)
"""What a provider takes a minute of a sender that could send sixty."""

LAW = Law(floor=1 / 60, ceiling=FULL_PER_MINUTE / 60)
PLAIN_LAW = LAW._replace(caution=1.0)

RECOVERIES: dict[str, Callable[[], Sender]] = {
    "probe": Probe,
    "probe, silence doubled": lambda: Probe(growth=2.0),
    "probe and adapt": lambda: ProbeAndAdapt(LAW),
    "suspend 10 min": lambda: Suspend(600.0),
    "suspend 1 h": lambda: Suspend(3600.0),
    "suspend 4 h": lambda: Suspend(14400.0),
    "one a minute": Slow,
}
SEVERITIES: dict[str, Callable[[float], ProviderModel]] = {
    "lenient": lambda penalty_s: Google(penalty_s, wants_silence=False, wants_ramp=False),
    "strict": Google,
}
RATES: dict[str, Callable[[], Sender]] = {
    "probe and adapt": lambda: ProbeAndAdapt(LAW),
    "the same, plain": lambda: ProbeAndAdapt(PLAIN_LAW),
    "probe": Probe,
    "suspend 1 h": lambda: Suspend(3600.0),
    "one a minute": Slow,
}
THROTTLED: dict[str, Callable[[], Sender]] = {
    "adapt": lambda: Adapt(LAW),
    "adapt, plain": lambda: Adapt(PLAIN_LAW),
    "suspend 1 h": lambda: Suspend(3600.0),
    "one a minute": Slow,
    "nothing": Sender,
}


class Cell(NamedTuple):
    """One run."""

    percent: float
    """Delivered, of what could be had."""
    deferrals: int
    delivered: int
    """Messages."""

    def __str__(self) -> str:
        return f"{self.percent:.1f} / {self.deferrals:,}"


@cache
def recovery(severity: str, penalty_s: float, name: str) -> Cell:
    """Blocked once, for no reason that a lower rate would mend: how does it come back?"""
    course = send(SEVERITIES[severity](penalty_s), RECOVERIES[name](), LENGTH_S)
    return _cell(course, possible(penalty_s))


def possible(penalty_s: float) -> float:
    """Messages that could be had behind the block."""
    return FULL_PER_MINUTE * (LENGTH_S - penalty_s) / 60


def rate(model: ProviderModel, per_minute: int, make: Callable[[], Sender]) -> Cell:
    """The provider takes less than could be sent: how near does it come?"""
    return _cell(send(model, make(), LENGTH_S), per_minute * LENGTH_S / 60)


def _cell(course: Course, possible: float) -> Cell:
    return Cell(100 * course.delivered / possible, course.refused, course.delivered)


def recovery_table(severity: str, penalties_s: Sequence[float] = PENALTIES_S) -> list[list[str]]:
    """Rows of text, the headings first."""
    rows = ([_duration(each), *(str(recovery(severity, each, name)) for name in RECOVERIES)] for each in penalties_s)
    return [["penalty", *RECOVERIES], *rows]


def guide_table(penalties_s: Sequence[float] = GUIDE_PENALTIES_S) -> list[list[str]]:
    """The same of a strict provider in messages, for the guide."""
    rows = []
    for penalty_s in penalties_s:
        cells = (recovery("strict", penalty_s, name) for name in GUIDE_RECOVERIES)
        shown = (f"{cell.delivered:,} / {cell.deferrals:,}" for cell in cells)
        rows.append([_duration(penalty_s), f"{possible(penalty_s):,.0f}", *shown])
    return [["the block lasts", "to be had", *GUIDE_RECOVERIES], *rows]


def rate_table(penalty_s: float, per_minutes: Sequence[int] = TOLERANCES) -> list[list[str]]:
    """Of a provider that blocks for so long whoever sends more than it takes."""
    return _rates(RATES, lambda per_minute: Google(penalty_s, per_minute=per_minute), per_minutes)


def throttle_table(per_minutes: Sequence[int] = TOLERANCES) -> list[list[str]]:
    """Of a provider that only refuses what is too much."""
    return _rates(THROTTLED, Throttle, per_minutes)


def _rates(
    senders: dict[str, Callable[[], Sender]], model: Callable[[int], ProviderModel], per_minutes: Sequence[int]
) -> list[list[str]]:
    rows = ([str(each), *(str(rate(model(each), each, make)) for make in senders.values())] for each in per_minutes)
    return [["takes a minute", *senders], *rows]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest]) + "\n"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"
