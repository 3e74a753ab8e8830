"""Where it is noon."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from mta.testing.noon import noon_zone


@pytest.mark.parametrize("hour", range(24))
def test_it_is_noon_there(hour: int) -> None:
    """At every hour of the day."""
    now_s = 1_750_000_000 // 86_400 * 86_400 + hour * 3_600.0 + 1_234

    assert datetime.fromtimestamp(now_s, ZoneInfo(noon_zone(now_s))).hour == 12
