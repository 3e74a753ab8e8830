"""Windows: the hours in which mail may go, such as "08:00-22:00 Asia/Tokyo". Pure: zones and now_s are arguments.

Of several windows any is enough. One that ends before it begins goes over midnight and belongs to the day on which it
begins. Outside no transaction is begun; what is under way is finished.
"""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from mta_policies.local_time import Zones, local, sane_s, unix_s

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
SEARCH_DAYS = 16  # a weekly window may fall into an hour that the clocks leave out, and comes a week later

_WINDOW = re.compile(
    r"(?:(?P<days>[A-Za-z,\-]+)\s+)?(?P<begins>\d\d:\d\d)\s*-\s*(?P<ends>\d\d:\d\d)(?:\s+(?P<zone>[A-Za-z0-9_+\-/]+))?",
    re.ASCII,
)
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)


class Window(NamedTuple):
    """From one minute of the day to another, the second not included."""

    begins_min: int
    ends_min: int
    """At most `begins_min`: on the next day."""
    days: tuple[int, ...] = tuple(range(7))
    """On which it begins; 0 is Monday."""
    zone: str = "UTC"

    def __str__(self) -> str:
        days = "" if len(self.days) == len(DAYS) else _show_days(self.days) + " "
        return f"{days}{_show_time(self.begins_min)}-{_show_time(self.ends_min)} {self.zone}"

    def span(self, day: datetime, zones: Zones) -> tuple[float, float]:
        """When it begins and ends on a day, Unix seconds; empty where the clocks leave it out."""
        zone = zones(self.zone)
        ends_min = self.ends_min if self.ends_min > self.begins_min else self.ends_min + DAY_MINUTES
        begins_s = unix_s(day + timedelta(minutes=self.begins_min), zone)
        return begins_s, unix_s(day + timedelta(minutes=ends_min), zone)

    def spans(self, now_s: float, zones: Zones) -> list[tuple[float, float]]:
        """Those of the days around, in their order."""
        today = local(now_s, zones(self.zone)).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        days = (today + timedelta(days=i) for i in range(-2, SEARCH_DAYS))
        return [self.span(day, zones) for day in days if day.weekday() in self.days]


def window(text: str) -> Window:
    """The window in "08:00-22:00 Asia/Tokyo" or "Mon-Fri 22:00-06:00"; without a zone UTC. ValueError for anything
    else. Whether there is such a zone is for others to say."""
    found = _WINDOW.fullmatch(text.strip())
    wrong = ValueError(f'not a window: "{text}"; write "08:00-22:00 Asia/Tokyo" or "Mon-Fri 08:00-22:00 Asia/Tokyo"')
    if not found or not (_TIME.fullmatch(found["begins"]) and _TIME.fullmatch(found["ends"])):
        raise wrong
    begins_min, ends_min = _minutes(found["begins"]), _minutes(found["ends"])
    if begins_min in (ends_min, DAY_MINUTES):
        raise ValueError(f'a window of no length: "{text}"; for all day write "00:00-24:00"')
    try:
        days = _days(found["days"]) if found["days"] else tuple(range(7))
    except ValueError:
        raise wrong from None
    return Window(begins_min, ends_min, days, found["zone"] or "UTC")


class Hours:
    """When it is open, by all windows together; none: always. What was found is kept until the next change."""

    __slots__ = ("_closes_s", "_opens_s", "_since_s", "_zones", "windows")

    def __init__(self, windows: Sequence[Window], zones: Zones) -> None:
        self.windows = tuple(windows)
        self._zones = zones
        # Asked and found at since_s; it opens at opens_s (since_s: it was open) and closes at closes_s.
        self._since_s = self._opens_s = -math.inf
        self._closes_s = -math.inf if windows else math.inf

    def wait_s(self, now_s: float) -> float:
        """0.0: it is open; else seconds until the next opening."""
        if not self._since_s <= now_s < self._closes_s:
            self._look(now_s)
        return max(0.0, self._opens_s - now_s)

    def open_s(self, now_s: float) -> float:
        """For how many seconds it is open yet; 0.0: it is closed; inf: no window is set or one leads into the next."""
        return 0.0 if self.wait_s(now_s) else self._closes_s - now_s

    def _look(self, now_s: float) -> None:
        now_s = sane_s(now_s)
        spans = sorted(span for each in self.windows for span in each.spans(now_s, self._zones) if span[0] < span[1])
        opens_s = closes_s = next(max(begins_s, now_s) for begins_s, ends_s in spans if now_s < ends_s)
        for begins_s, ends_s in spans:
            if begins_s <= closes_s < ends_s:
                closes_s = ends_s
        is_endless = closes_s >= max(ends_s for _, ends_s in spans)
        self._since_s, self._opens_s, self._closes_s = now_s, opens_s, math.inf if is_endless else closes_s


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def _days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        start = _day(first)
        found.update((start + i) % 7 for i in range((_day(last or first) - start) % 7 + 1))
    return tuple(sorted(found))


def _day(name: str) -> int:
    return DAYS.index(name.capitalize())


def _show_days(days: tuple[int, ...]) -> str:
    """Runs of three and more as "Mon-Fri"."""
    shown: list[str] = []
    i = 0
    while i < len(days):
        end = i
        while end + 1 < len(days) and days[end + 1] == days[end] + 1:
            end += 1
        if end - i >= 2:
            shown.append(f"{DAYS[days[i]]}-{DAYS[days[end]]}")
        else:
            shown += [DAYS[day] for day in days[i : end + 1]]
        i = end + 1
    return ",".join(shown)


def _show_time(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
