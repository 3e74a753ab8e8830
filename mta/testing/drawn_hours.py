"""Hours of a simulation, drawn from a seed: windows in which mail may go, written in the time of some place.

Whatever is drawn, there are minutes of every hour in which all of it is open: what waits for an hour gets on in the
next one, and nothing has to be lifted at the end.
"""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from mta.testing.fake_clock import WALL_START_S
from mta.testing.scripted_provider import Level

ALWAYS_MIN = 20
"""Minutes of every hour in which all windows are open."""
LATER_S = (60 - ALWAYS_MIN) * 60.0
"""How long mail waits for them, at most."""
ZONES = ("UTC", "UTC", "Asia/Tokyo", "America/New_York", "Asia/Kathmandu")

_MORE_HOURS = 6  # until the last mail has expired
_MORE_MIN = 9  # that a window opens before the common minutes or closes after them


class DrawnHours:
    """Of one machine."""

    def __init__(self, random: Random, trouble_s: float) -> None:
        """`trouble_s`: how long mail comes."""
        self._random = random
        start = datetime.fromtimestamp(WALL_START_S, UTC)
        since = start.replace(minute=random.randrange(60), second=0) - timedelta(hours=2)  # the clock may go back
        hours = min(24, int(trouble_s // 3600) + 2 + _MORE_HOURS)
        self._opens = [since + timedelta(hours=at) for at in range(hours)]

    def value(self) -> str:
        """Of a `window`, in TOML."""
        random = self._random
        zone = random.choice(ZONES)
        before, after = (timedelta(minutes=random.randint(0, _MORE_MIN)) for _ in range(2))
        days = random.choice(["", "", "Fri-Tue "])  # it begins on a Sunday, a Monday in a year
        suffix = "" if zone == "UTC" and random.random() < 0.5 else f" {zone}"
        windows = []
        for opens in self._opens:
            begins = (opens - before).astimezone(ZoneInfo(zone))
            ends = begins + before + timedelta(minutes=ALWAYS_MIN) + after
            windows.append(f"{days}{begins:%H:%M}-{ends:%H:%M}{suffix}")
        return json.dumps(windows)

    def stand_at(self, level: Level) -> bool:
        """Whether a policy whose limits stand at this level has some there."""
        return self._random.random() < (0.5 if level == "limits" else 0.7)

    def for_source(self, name: str) -> str:
        """A part of a policy: what one source has beside."""
        if self._random.random() < 0.7:
            return ""
        level = self._random.choice(["limits", "source_limits"])
        return f'[sources."{name}"]\n{level} = {{ window = {self.value()} }}\n'
