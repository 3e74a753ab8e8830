"""The two clocks: the one of tests and the machine's."""

import pytest

from mta.clock import SystemClock
from mta.model.clock import Clock
from mta.testing.fake_clock import FakeClock


def test_time_passes_only_when_told() -> None:
    """A fake clock stands still between two calls."""
    clock = FakeClock(wall_s=100.0, monotonic_s=5.0)

    before = (clock.wall_s(), clock.monotonic_s())
    clock.advance(2.5)

    assert before == (100.0, 5.0)
    assert (clock.wall_s(), clock.monotonic_s()) == (102.5, 7.5)


def test_jump_moves_only_the_wall_clock() -> None:
    """Somebody who sets the clock back an hour does not change time-outs."""
    clock = FakeClock(wall_s=10_000.0, monotonic_s=5.0)

    clock.jump(-3_600)

    assert (clock.wall_s(), clock.monotonic_s()) == (6_400.0, 5.0)


def test_monotonic_time_never_goes_back() -> None:
    """A test that would turn time back is wrong."""
    with pytest.raises(AssertionError):
        FakeClock().advance(-1)


@pytest.mark.parametrize("clock", [FakeClock(), SystemClock()])
def test_both_are_clocks(clock: Clock) -> None:
    """Both tell dates of this century, and monotonic time that does not go back."""
    first, second = clock.monotonic_s(), clock.monotonic_s()

    assert 1_700_000_000 < clock.wall_s() < 4_100_000_000
    assert second >= first
