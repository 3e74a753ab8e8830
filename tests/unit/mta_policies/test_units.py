"""Units: words to numbers and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies import units
from mta_policies.units import MinuteWindow, Rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("3d", 259200.0),
        ("500ms", 0.5),
        ("1w", 604800.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (" 2 h ", 7200.0),
        ("0s", 0.0),
    ],
)
def test_durations_are_words(text: str, seconds: float) -> None:
    """A duration is a number with a unit, or several of them."""
    assert units.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 minutes", "-5m", "5m,", "1e3s", "٣s", "5M", "99999d"])
def test_other_durations_are_refused(text: str) -> None:
    """A number without a unit, a sign, other digits, more than ten years: none is guessed at."""
    with pytest.raises(ValueError, match="duration"):
        units.duration_s(text)


@given(st.integers(0, 100_000_000))
def test_a_duration_reads_back_as_written(seconds: int) -> None:
    """Whole seconds are written so that they read back the same."""
    assert units.duration_s(units.render_duration(float(seconds))) == seconds


def test_durations_are_written_as_people_write_them() -> None:
    """The largest unit that fits, but a minute as 60 seconds."""
    written = [units.render_duration(one) for one in (60.0, 300.0, 3600.0, 86400.0, 0.25, 90.0)]

    assert written == ["60s", "5m", "1h", "1d", "0.25s", "90s"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("512KB", 512_000), ("50MB", 50_000_000), ("1GB", 10**9), ("64KiB", 65_536), ("10B", 10), ("1.5kb", 1500)],
)
def test_sizes_are_powers_of_1000_unless_they_say_i(text: str, size: int) -> None:
    """KB is 1000 bytes, KiB is 1024."""
    assert units.size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "50", "50M", "MB", "-1MB", "50 megabytes", "9999999999TB"])
def test_other_sizes_are_refused(text: str) -> None:
    """A number without its unit is not a size, nor is one that no file could have."""
    with pytest.raises(ValueError, match="size"):
        units.size_bytes(text)


@given(st.integers(0, 2**62))
def test_a_size_reads_back_as_written(size: int) -> None:
    """Every number of bytes is written so that it reads back the same."""
    assert units.size_bytes(units.render_size(size)) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100, 1)),
        ("600/min", Rate(600, 60)),
        ("10000/h", Rate(10000, 3600)),
        ("50000/d", Rate(50000, 86400)),
        ("5 / minute", Rate(5, 60)),
        ("1/day", Rate(1, 86400)),
        ("7/sec", Rate(7, 1)),
        ("7/HOUR", Rate(7, 3600)),
    ],
)
def test_rates_are_counts_in_a_time(text: str, rate: Rate) -> None:
    """A rate is a whole number a second, minute, hour or day."""
    assert units.rate(text) == rate


@pytest.mark.parametrize("text", ["", "100", "100/week", "1.5/s", "-1/s", "/s", "100/5s"])
def test_other_rates_are_refused(text: str) -> None:
    """What is not a count in a time is refused with examples of what is."""
    with pytest.raises(ValueError, match="not a rate"):
        units.rate(text)


def test_a_rate_of_zero_is_refused() -> None:
    """Zero would never let anything through; whoever means no limit is told how to write it."""
    with pytest.raises(ValueError, match='"none"'):
        units.rate("0/s")


def test_no_rate_has_two_spellings() -> None:
    """No limit is "none" or an empty list."""
    assert units.rates("none") == units.rates([]) == ()


def test_several_rates_hold_at_once() -> None:
    """A list is read in its order and written as a list again."""
    several = units.rates(["20/s", "40000/h"])

    assert several == (Rate(20, 1), Rate(40000, 3600))
    assert units.render_rates(several) == ["20/s", "40000/h"]


@given(st.lists(st.builds(Rate, st.integers(1, 10**9), st.sampled_from([1, 60, 3600, 86400]))))
def test_rates_read_back_as_written(limits: list[Rate]) -> None:
    """None, one and several rates are written so that they read back the same."""
    assert units.rates(units.render_rates(limits)) == tuple(limits)


@given(st.integers(0, 100))
def test_a_share_reads_back_as_written(percent: int) -> None:
    """Whole percents are written so that they read back the same."""
    assert units.render_share(units.share(f"{percent}%")) == f"{percent}%"


@pytest.mark.parametrize("text", ["20", "0.2", "120%", "-1%", "%"])
def test_other_shares_are_refused(text: str) -> None:
    """A share says its percent and is not over a hundred."""
    with pytest.raises(ValueError, match="share"):
        units.share(text)


def test_minutes_go_over_the_full_hour() -> None:
    """A window from 58 to 4 holds seven minutes, both ends included."""
    window = units.minute_window("*:58-*:04")

    assert window == MinuteWindow(58, 4)
    assert window.minutes() == [58, 59, 0, 1, 2, 3, 4]
    assert str(window) == "*:58-*:04"


@pytest.mark.parametrize("text", ["58-04", "*:60-*:04", "*:58", "09:58-10:04", "*:5-*:10"])
def test_other_minutes_are_refused(text: str) -> None:
    """Only minutes of every hour, two digits each."""
    with pytest.raises(ValueError, match="minutes of the hour"):
        units.minute_window(text)
