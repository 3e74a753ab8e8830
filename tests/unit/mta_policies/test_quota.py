"""Quotas: never more in a calendar period, over restarts, crashes and clocks that jump."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.quota import PERIODS_KEPT, SAVE_WAIT_S, Counter
from mta_policies.schema import Quota

DAY_S = 86400.0
NOON_S = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


def _counter(count: int, *, per: str = "day", zone: str = "UTC", is_kept: bool = False) -> Counter:
    return Counter(Quota(count, per, zone), ZoneInfo, NOON_S, is_kept=is_kept)  # type: ignore[arg-type]


def _take_all(counter: Counter, now_s: float, most: int = 10_000) -> int:
    taken = 0
    while taken < most and counter.wait_s(now_s) == 0.0:
        counter.take(now_s)
        taken += 1
    return taken


def test_so_many_a_day_and_then_tomorrow():
    """The wait is until midnight of the zone; then there are as many again."""
    counter = _counter(300, zone="Asia/Tokyo")

    assert _take_all(counter, NOON_S) == 300
    assert counter.wait_s(NOON_S) == 3 * 3600
    assert _take_all(counter, NOON_S + 3 * 3600) == 300


def test_it_survives_a_clean_restart():
    """What was used stays used."""
    counter = _counter(10)
    counter.take(NOON_S, 7)

    again = _counter(10)
    again.load(counter.state(NOON_S), NOON_S + 60)

    assert again.room(NOON_S + 60) == 3
    assert again.used(NOON_S + DAY_S) == 0


def test_a_kept_counter_waits_until_it_is_saved():
    """First a state that is ahead is saved, then messages go; before it is reached the next one is asked for."""
    counter = _counter(1000, is_kept=True)
    assert counter.wait_s(NOON_S) == SAVE_WAIT_S

    state = counter.to_save(NOON_S)
    assert state is not None
    counter.saved(state)

    assert counter.to_save(NOON_S) is None
    assert counter.free(NOON_S) == 10
    assert _take_all(counter, NOON_S) == 10
    assert counter.to_save(NOON_S) is not None


@given(st.integers(1, 400), st.lists(st.sampled_from(["take", "take", "save", "write", "kill", "stop"]), max_size=120))
def test_no_kill_passes_a_quota(count: int, steps: list[str]):
    """Saved states may be lost or late and the process killed at any moment: never more than the quota in all; what a
    kill loses is a hundredth, or one."""
    counter, disk, flying, sent, kills = _counter(count, is_kept=True), {}, None, 0, 0
    for step in steps:
        match step:
            case "take":
                sent += _take_all(counter, NOON_S, 5)
            case "save":
                flying = counter.to_save(NOON_S) or flying
            case "write" if flying is not None:
                disk = flying
                counter.saved(flying)
                flying = None
            case "kill" | "stop":
                disk = counter.state(NOON_S) if step == "stop" else disk
                kills += step == "kill"
                counter, flying = _counter(count, is_kept=True), None
                counter.load(disk, NOON_S)
            case _:
                pass

    assert sent <= count
    lost = kills * (count // 100 + 1)
    assert counter.room(NOON_S) >= count - sent - lost


@given(
    st.sampled_from(["hour", "day", "week", "month"]),
    st.lists(st.sampled_from([0.0, 600.0, 3600.0, -3600.0, DAY_S, -DAY_S, 365 * DAY_S, -365 * DAY_S]), max_size=3),
)
def test_a_clock_that_jumps_gives_nothing_twice_and_harms_no_day(per: str, jumps: list[float]):
    """Forth and back again: what was used of this period is used; whatever it was, the next period is whole."""
    counter = _counter(100, per=per)
    counter.take(NOON_S, 60)
    now_s = NOON_S
    for jump_s in jumps:
        now_s += jump_s
        counter.wait_s(now_s)

    assert counter.room(NOON_S) == 40
    assert counter.room(NOON_S + 400 * DAY_S) == 100


@pytest.mark.parametrize("now_s", [float("inf"), float("nan"), -1e18])
def test_a_clock_gone_mad_raises_nothing(now_s: float):
    """It counts, and goes on when the clock is right."""
    counter = _counter(10)

    counter.take(now_s)
    counter.wait_s(now_s)

    assert counter.room(NOON_S) == 10


def test_memory_is_bounded():
    """Only a few periods are remembered, the last ones that were."""
    counter = _counter(10, per="hour")

    for hour in range(1000):
        counter.take(NOON_S + hour * 3600)

    assert len(counter.state(NOON_S + 999 * 3600)) == PERIODS_KEPT
