"""When again, when never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies import retry
from mta_policies.schema import Retry
from mta_policies.units import MinuteWindow

NOW_S = 1_700_000_000.0  # 22:13:20 UTC
UNITS = st.floats(0.0, 1.0, exclude_max=True)
WINDOWS = st.builds(MinuteWindow, st.integers(0, 59), st.integers(0, 59))
AVOIDS = st.lists(WINDOWS, max_size=3).map(tuple).filter(lambda windows: len(_minutes(windows)) < 60)


def _minutes(windows: tuple[MinuteWindow, ...]) -> set[int]:
    return {minute for window in windows for minute in window.minutes()}


def _minute(at_s: float) -> int:
    return int(at_s // 60) % 60


@pytest.mark.parametrize(("attempts", "delay_s"), [(0, 300), (1, 300), (2, 900), (3, 1800), (4, 1800), (1000, 1800)])
def test_the_last_time_of_the_schedule_repeats(attempts: int, delay_s: float) -> None:
    """The first time follows the first attempt, and whatever was no attempt."""
    plan = Retry(schedule=(300.0, 900.0, 1800.0), jitter=0.0)

    assert retry.next_attempt_s(plan, attempts, NOW_S, 0.5) == NOW_S + delay_s


@pytest.mark.parametrize(("unit", "delay_s"), [(0.0, 240.0), (0.5, 300.0), (1.0, 360.0), (0.25, 270.0)])
def test_jitter_goes_both_ways(unit: float, delay_s: float) -> None:
    """Twenty percent of five minutes is a minute, earlier or later."""
    plan = Retry(schedule=(300.0,), jitter=0.2)

    assert retry.next_attempt_s(plan, 1, NOW_S, unit) == pytest.approx(NOW_S + delay_s)


@given(AVOIDS, st.integers(0, 20), st.floats(0.0, 4e9), UNITS)
def test_no_retry_is_planned_in_an_avoided_minute(
    avoid: tuple[MinuteWindow, ...], attempts: int, now_s: float, unit: float
) -> None:
    """Whatever the windows, also over the full hour and next to each other; and never before now."""
    at_s = retry.next_attempt_s(Retry(avoid=avoid), attempts, now_s, unit)

    assert at_s >= now_s
    assert _minute(at_s) not in _minutes(avoid)


@given(AVOIDS, st.floats(0.0, 4e9), UNITS)
def test_a_time_moves_only_out_of_a_window_and_not_far(
    avoid: tuple[MinuteWindow, ...], at_s: float, unit: float
) -> None:
    """A free minute stays; an avoided one is put off to the window's end and some minutes."""
    moved_s = retry.after_avoided_s(avoid, at_s, unit)

    if _minute(at_s) not in _minutes(avoid):
        assert moved_s == at_s
    else:
        skipped = [at_s + 60 * i for i in range(60) if _minute(at_s + 60 * i) not in _minutes(avoid)]
        assert at_s < moved_s < skipped[0] + 60 + 60 * retry.SPREAD_MINUTES_MAX


def test_what_was_held_back_comes_back_spread() -> None:
    """A thousand times in the window come out over all the minutes after it, not in one moment."""
    avoid = (MinuteWindow(58, 4),)
    in_window_s = NOW_S - NOW_S % 3600 + 59 * 60

    moved = [retry.after_avoided_s(avoid, in_window_s, 0.45 + i / 10_000) for i in range(1000)]

    assert {_minute(at_s) for at_s in moved} == set(range(5, 5 + retry.SPREAD_MINUTES_MAX))


def test_the_spread_ends_where_the_next_window_begins() -> None:
    """Only minute 10 is free between the windows."""
    avoid = (MinuteWindow(0, 9), MinuteWindow(11, 59))
    in_window_s = NOW_S - NOW_S % 3600 + 20 * 60

    moved = {_minute(retry.after_avoided_s(avoid, in_window_s, i / 1000)) for i in range(1000)}

    assert moved == {10}


def test_a_message_expires_after_acceptance() -> None:
    """By the policy, or by what its sender asked for."""
    plan = Retry(expire_s=432_000.0)

    assert retry.expires_s(plan, NOW_S) == NOW_S + 432_000
    assert retry.expires_s(plan, NOW_S, 3600.0) == NOW_S + 3600
