"""Windows: read and written alike, open when a clock in that place says so, in every zone and over every jump."""

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.local_time import local
from mta_policies.windows import Hours, Window, window

DAY_S = 86400.0


def _utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("08:00-22:00 Asia/Tokyo", "08:00-22:00 Asia/Tokyo"),
        ("22:00 - 06:00", "22:00-06:00 UTC"),
        ("mon-fri 08:00-22:00 Europe/Berlin", "Mon-Fri 08:00-22:00 Europe/Berlin"),
        ("Sat,Sun 00:00-24:00 UTC", "Sat,Sun 00:00-24:00 UTC"),
        ("Fri-Mon 10:00-12:00 Etc/GMT+9", "Mon,Fri-Sun 10:00-12:00 Etc/GMT+9"),
        ("Mon-Sun 10:00-12:00 UTC", "10:00-12:00 UTC"),
    ],
)
def test_what_an_admin_writes(text: str, shown: str):
    """It is written back in one form, which reads back the same."""
    assert str(window(text)) == shown
    assert window(shown) == window(text)


@pytest.mark.parametrize(
    "text",
    ["", "8:00-22:00", "08:00", "08:60-22:00", "25:00-26:00", "24:00-08:00", "08:00-08:00", "Mo-Fr 08:00-22:00", "x"],
)
def test_what_is_no_window(text: str):
    """ValueError, with what would have been right."""
    with pytest.raises(ValueError, match="window") as caught:
        window(text)

    assert '"08:00-22:00 Asia/Tokyo"' in str(caught.value) or '"00:00-24:00"' in str(caught.value)


@pytest.mark.parametrize(
    ("text", "now", "wait_h", "open_h"),
    [
        ("08:00-22:00 Asia/Tokyo", "2026-11-22T12:00", 0, 1),
        ("08:00-22:00 Asia/Tokyo", "2026-11-22T13:00", 10, 0),
        ("22:00-06:00 UTC", "2026-11-22T23:00", 0, 7),
        ("22:00-06:00 UTC", "2026-11-22T05:00", 0, 1),
        ("22:00-06:00 UTC", "2026-11-22T06:00", 16, 0),
        ("Mon-Fri 08:00-18:00 UTC", "2026-11-20T18:00", 62, 0),  # a Friday
        ("Fri 20:00-04:00 UTC", "2026-11-21T03:00", 0, 1),  # the night belongs to the day on which it begins
        ("01:00-03:00 Europe/Berlin", "2026-03-28T23:30", 0.5, 0),  # 02:00 to 03:00 is left out
        ("01:00-03:00 Europe/Berlin", "2026-03-29T00:00", 0, 1),
        ("02:15-02:45 Europe/Berlin", "2026-03-29T00:00", 24.25, 0),  # not at all on that day
        ("00:00-24:00 UTC", "2026-11-22T12:00", 0, math.inf),
    ],
)
def test_open_and_closed_by_example(text: str, now: str, wait_h: float, open_h: float):
    """Hours to the next opening, and hours that it is open yet."""
    hours = Hours([window(text)], ZoneInfo)

    assert hours.wait_s(_utc(now)) == wait_h * 3600
    assert hours.open_s(_utc(now)) == open_h * 3600


def test_any_of_several_windows_is_enough():
    """One that leads into another keeps it open."""
    hours = Hours([window("08:00-12:00"), window("12:00-14:00"), window("20:00-21:00")], ZoneInfo)

    assert hours.open_s(_utc("2026-11-22T11:00")) == 3 * 3600
    assert hours.wait_s(_utc("2026-11-22T14:00")) == 6 * 3600


def test_no_window_is_always_open():
    """Where nothing is said nothing waits."""
    hours = Hours([], ZoneInfo)

    assert (hours.wait_s(0.0), hours.open_s(1e9)) == (0.0, math.inf)


ZONES = st.sampled_from(["UTC", "Asia/Tokyo", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"])
WINDOWS = st.builds(
    Window,
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    ZONES,
).filter(lambda each: each.begins_min != each.ends_min)


def _shows(each: Window, now_s: float) -> bool:
    """Whether the clock on the wall shows a time of the window; minutes on a day without a change of clocks."""
    here = local(now_s, ZoneInfo(each.zone))
    minute, day = here.hour * 60 + here.minute, here.weekday()
    if each.ends_min > each.begins_min:
        return each.begins_min <= minute < each.ends_min and day in each.days
    begun_today = minute >= each.begins_min and day in each.days
    return begun_today or (minute < each.ends_min and (day - 1) % 7 in each.days)


@given(st.lists(WINDOWS, min_size=1, max_size=3), st.floats(_utc("2026-06-01T00:00"), _utc("2026-09-01T00:00")))
def test_open_when_the_clock_on_the_wall_says_so(windows: list[Window], now_s: float):
    """And what is waited for is the opening: right before it is closed, at it open."""
    hours = Hours(windows, ZoneInfo)
    wait_s, open_s = hours.wait_s(now_s), hours.open_s(now_s)

    assert (wait_s == 0.0) == any(_shows(each, now_s) for each in windows)
    assert (wait_s == 0.0) == (open_s > 0)
    if wait_s:
        assert Hours(windows, ZoneInfo).wait_s(now_s + wait_s + 0.001) == 0.0
        assert Hours(windows, ZoneInfo).wait_s(now_s + wait_s - 0.01) > 0.0


@given(st.lists(WINDOWS, max_size=2), st.lists(st.floats(0.0, 4e9), max_size=20))
def test_what_is_remembered_is_what_would_be_found(windows: list[Window], times: list[float]):
    """However the clock jumps: the same as with nothing remembered."""
    hours = Hours(windows, ZoneInfo)

    for now_s in times:
        fresh = Hours(windows, ZoneInfo)
        assert hours.wait_s(now_s) == pytest.approx(fresh.wait_s(now_s), abs=1e-3)


@pytest.mark.parametrize("now_s", [float("inf"), float("-inf"), float("nan"), -1e18])
def test_a_clock_gone_mad_raises_nothing(now_s: float):
    """And a right one finds what it should afterwards."""
    hours = Hours([window("08:00-22:00 Asia/Tokyo")], ZoneInfo)
    hours.wait_s(now_s)
    hours.open_s(now_s)

    assert hours.wait_s(_utc("2026-11-22T13:00")) == 10 * 3600
