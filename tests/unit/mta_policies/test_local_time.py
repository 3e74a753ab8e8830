"""Local time: periods follow each other without gap or overlap, in every zone and over every change of clocks."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.local_time import Per, local, period, sane_s, unix_s

ZONES = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
TIMES = st.floats(86400.0 * 3, 4e9)
PERS: st.SearchStrategy[Per] = st.sampled_from(["hour", "day", "week", "month"])


def _utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@given(PERS, ZONES, TIMES)
def test_now_lies_in_its_period_and_the_next_one_follows(per: Per, zone: ZoneInfo, now_s: float):
    """start <= now < end, and where one ends the next one begins (hours of zones that shift by half ones apart)."""
    start_s, end_s = period(per, zone, now_s)

    assert start_s <= now_s < end_s
    if per != "hour":
        assert period(per, zone, end_s)[0] == end_s
        assert period(per, zone, start_s) == (start_s, end_s)


@given(ZONES, TIMES)
def test_a_day_begins_at_midnight(zone: ZoneInfo, now_s: float):
    """Or where the clocks leave midnight out, right behind the gap."""
    start_s, end_s = period("day", zone, now_s)

    shown = local(start_s, zone)
    assert (shown.hour, shown.minute) == (0, 0) or local(start_s - 1, zone).date() < shown.date()
    assert 20 * 3600 <= end_s - start_s <= 50 * 3600  # a whole day was left out in the Pacific


@pytest.mark.parametrize(
    ("per", "zone", "now", "start", "end"),
    [
        ("day", "Asia/Tokyo", "2026-11-22T12:00", "2026-11-21T15:00", "2026-11-22T15:00"),
        ("hour", "Asia/Kolkata", "2026-11-22T12:10", "2026-11-22T11:30", "2026-11-22T12:30"),
        ("week", "UTC", "2026-11-22T12:00", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("month", "UTC", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("month", "UTC", "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours
    ],
)
def test_periods_by_example(per: Per, zone: str, now: str, start: str, end: str):
    """Where each begins and ends, in UTC."""
    assert period(per, ZoneInfo(zone), _utc(now)) == (_utc(start), _utc(end))


def test_a_time_that_comes_twice_is_the_first_and_one_that_is_left_out_the_jump():
    """02:30 of the nights on which Berlin's clocks are set."""
    berlin = ZoneInfo("Europe/Berlin")

    assert unix_s(datetime(2026, 10, 25, 2, 30), berlin) == _utc("2026-10-25T00:30")
    assert unix_s(datetime(2026, 3, 29, 2, 30), berlin) == _utc("2026-03-29T01:00")


@pytest.mark.parametrize("now_s", [float("-inf"), -1e18, 0.0, 1e18, float("inf"), float("nan")])
def test_a_clock_gone_mad_has_a_date(now_s: float):
    """Nothing is raised, and the period holds the time that is taken instead."""
    start_s, end_s = period("day", ZoneInfo("Asia/Tokyo"), now_s)

    assert start_s <= sane_s(now_s) < end_s
