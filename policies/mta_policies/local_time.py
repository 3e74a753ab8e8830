"""Local time: where hours, days, weeks and months of a place begin. Pure: zones come in as `Zones`.

Clocks of places are put forward and back: a day has 23 to 25 hours, an hour of the clock may come twice or not at all.
What is said in local time is turned into Unix seconds here, so that whoever waits or counts knows only those.
"""

from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Literal

Zones = Callable[[str], tzinfo]
"""Finds a zone by its name, such as "Asia/Tokyo"; the server passes `zoneinfo.ZoneInfo`."""

Per = Literal["hour", "day", "week", "month"]

_UNIX_S_MIN = 2 * 86400.0  # a clock that shows another time than 1970 to 9999 is wrong in any case:
_UNIX_S_MAX = 253_000_000_000.0  # the nearest time that a calendar can say is taken


def sane_s(now_s: float) -> float:
    """The same time, or the nearest that has a date; not a number is the first."""
    return min(max(_UNIX_S_MIN, now_s), _UNIX_S_MAX)


def local(now_s: float, zone: tzinfo) -> datetime:
    """What the clocks of a place show."""
    return datetime.fromtimestamp(sane_s(now_s), zone)


def unix_s(shown: datetime, zone: tzinfo) -> float:
    """When the clocks of a place show this date and time (full seconds); one that comes twice: first; one that is left
    out: when the clocks jump over it."""
    late_s = shown.replace(tzinfo=zone, fold=0).timestamp()
    early_s = shown.replace(tzinfo=zone, fold=1).timestamp()
    if early_s >= late_s:
        return late_s  # the usual case, or it comes twice: fold 0 is the first (PEP 495)
    offset = local(early_s, zone).utcoffset()
    while late_s - early_s > 1:
        middle_s = (early_s + late_s) // 2
        if local(middle_s, zone).utcoffset() == offset:
            early_s = middle_s
        else:
            late_s = middle_s
    return late_s


def period(per: Per, zone: tzinfo, now_s: float) -> tuple[float, float]:
    """The calendar hour, day, week (from Monday) or month that this time lies in: start <= now < end."""
    now_s = sane_s(now_s)
    here = local(now_s, zone)
    if per == "hour":
        start_s = now_s - (here.minute * 60 + here.second + here.microsecond / 1e6)
        start_s = float(round(start_s))
        return (start_s, start_s + 3600.0) if start_s <= now_s else (start_s - 3600.0, start_s)
    start = here.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if per == "week":
        start -= timedelta(days=start.weekday())
    elif per == "month":
        start = start.replace(day=1)
    end = _next(per, start)
    # Where clocks are put back over midnight, the old date is shown again after the new one has begun: what has begun
    # goes on.
    if unix_s(end, zone) <= now_s:
        start, end = end, _next(per, end)
    return unix_s(start, zone), unix_s(end, zone)


def _next(per: Per, start: datetime) -> datetime:
    if per == "month":
        return (start.replace(day=28) + timedelta(days=4)).replace(day=1)
    return start + timedelta(days=7 if per == "week" else 1)
