"""Account: what one limit lets go, counted from outside: a rate over any stretch of time, a quota by its calendar,
hours by the wall clock.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from mta_policies.local_time import period
from mta_policies.schema import Quota
from mta_policies.units import Rate
from mta_policies.windows import Window

TOKEN_SLACK = 1e-3  # of a transaction: what rounding costs, over a thousand of them


class Bound(NamedTuple):
    """What a limit says."""

    rates: tuple[Rate, ...] = ()
    quota: Quota | None = None
    windows: tuple[Window, ...] = ()
    owners: int = 1
    """Among how many its rates are divided."""


class Account:
    """All that went under one limit, whoever sent it."""

    def __init__(self) -> None:
        self._bound = Bound()
        self._stretches: list[tuple[Bound, list[float]]] = []
        """When transactions went, monotonic seconds, while the same rates held and somebody knew of all of them."""
        self.used: Counter[tuple[str, str, float]] = Counter()
        """Per, zone and start of a quota's period -> transactions."""

    def cut(self) -> None:
        """Nobody knows any more what went before: a burst may begin."""
        self._stretches.append((self._bound, []))

    def sent(self, bound: Bound, at_s: float, wall_s: float, *, is_sure: bool) -> Iterator[str]:
        """A transaction began; -> what is wrong with it. `is_sure`: all who send know of this bound."""
        if bound != self._bound or not self._stretches:
            self._bound = bound
            self.cut()
        if is_sure:
            self._stretches[-1][1].append(at_s)
        if bound.quota is not None:
            key = bound.quota.per, bound.quota.zone, period_of(bound.quota, wall_s)
            self.used[key] += 1
            if is_sure and self.used[key] > bound.quota.count:
                yield f"{self.used[key]} in the {bound.quota.per}, {bound.quota.count} are allowed"
        if is_sure and bound.windows and not is_open(bound.windows, wall_s):
            yield f"outside of its hours, {', '.join(map(str, bound.windows[:2]))} ..."

    def too_fast(self) -> Iterator[str]:
        """Where a rate was passed."""
        for bound, times in self._stretches:
            for rate in bound.rates:
                at_once = burst(rate.per_second, bound.owners)
                if (worst := most(sorted(times), rate.per_second)) > at_once + TOKEN_SLACK:
                    yield f"{worst:.3f} at once by {rate}, {at_once:g} may go"


def burst(per_second: float, owners: int) -> float:
    """How many may go at once by a rate that so many workers share, of which each may begin with one at least."""
    return owners * max(1.0, per_second / owners)


def most(times: Iterable[float], per_second: float) -> float:
    """Of so many a second over any stretch of these times: the most that went beyond that, the first included."""
    least, worst = float("inf"), 0.0
    for count, at_s in enumerate(times):
        ahead = count - per_second * at_s
        least = min(least, ahead)
        worst = max(worst, ahead + 1.0 - least)
    return worst


def period_of(quota: Quota, wall_s: float) -> float:
    """When the quota's hour, day ... began."""
    return period(quota.per, ZoneInfo(quota.zone), wall_s)[0]


def is_open(windows: Iterable[Window], wall_s: float) -> bool:
    """Whether any of them is, by what the clocks of its place show."""
    return any(_is_open(window, datetime.fromtimestamp(wall_s, ZoneInfo(window.zone))) for window in windows)


def _is_open(window: Window, shown: datetime) -> bool:
    minute, today = shown.hour * 60 + shown.minute, shown.weekday()
    if window.begins_min < window.ends_min:
        return window.begins_min <= minute < window.ends_min and today in window.days
    if minute >= window.begins_min:
        return today in window.days
    return minute < window.ends_min and (today - 1) % 7 in window.days
