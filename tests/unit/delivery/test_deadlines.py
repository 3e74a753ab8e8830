"""Deadlines: told once, never early, and nobody's error keeps another's from being told."""

import asyncio

import pytest

from mta.delivery.deadlines import NEVER_S, Sweeper, Timeouts
from mta.testing.fake_clock import FakeClock


class Thing:
    """Something with a deadline that counts how often it passed."""

    def __init__(self, deadline_s: float = NEVER_S, error: Exception | None = None) -> None:
        self.deadline_s = deadline_s
        self.passed = 0
        self.error = error

    def deadline_passed(self) -> None:
        self.passed += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(monotonic_s=100.0)


def test_a_deadline_is_told_once_and_never_early(clock: FakeClock):
    """Up to a period late, because the time it was set by may be that much behind."""
    sweeper, thing = Sweeper(clock, period_s=0.5), Thing(110.0)
    sweeper.add(thing)
    told = []

    for _ in range(30):
        sweeper.sweep()
        told.append((clock.monotonic_s(), thing.passed))
        clock.advance(0.5)

    assert [at for at, passed in told if passed] == [110.5 + 0.5 * i for i in range(9)]
    assert thing.passed == 1
    assert thing.deadline_s == NEVER_S


def test_the_sweepers_time_is_that_of_its_last_sweep(clock: FakeClock):
    """Reading it costs no call."""
    sweeper = Sweeper(clock)
    clock.advance(5)

    before = sweeper.now_s
    sweeper.sweep()

    assert (before, sweeper.now_s) == (100.0, 105.0)


def test_a_clock_that_stands_still_or_jumps_tells_nothing_twice(clock: FakeClock):
    """After an hour without a sweep everything overdue is told, once."""
    sweeper, things = Sweeper(clock), [Thing(101.0), Thing(200.0), Thing(1e9)]
    for thing in things:
        sweeper.add(thing)

    sweeper.sweep()
    clock.advance(3600)
    sweeper.sweep()
    sweeper.sweep()

    assert [thing.passed for thing in things] == [1, 1, 0]


def test_what_was_discarded_is_not_told(clock: FakeClock):
    """Also when it is discarded twice, or was never added."""
    sweeper, thing = Sweeper(clock), Thing(101.0)
    sweeper.add(thing)
    sweeper.add(thing)
    size = len(sweeper)

    sweeper.discard(thing)
    sweeper.discard(thing)
    clock.advance(10)
    sweeper.sweep()

    assert (size, len(sweeper), thing.passed) == (1, 0, 0)


def test_a_deadline_may_be_set_again_while_it_is_told(clock: FakeClock):
    """The new one counts."""
    sweeper = Sweeper(clock)

    class Again(Thing):
        def deadline_passed(self) -> None:
            super().deadline_passed()
            self.deadline_s = clock.monotonic_s() + 10

    thing = Again(101.0)
    sweeper.add(thing)

    for _ in range(3):
        clock.advance(20)
        sweeper.sweep()

    assert thing.passed == 3


def test_one_that_is_told_may_save_or_add_another(clock: FakeClock):
    """A deadline that was moved by an earlier one in the same sweep is not told."""
    sweeper, other, new = Sweeper(clock), Thing(101.0), Thing(101.0)

    class Saviour(Thing):
        def deadline_passed(self) -> None:
            super().deadline_passed()
            other.deadline_s = NEVER_S
            sweeper.add(new)

    saviour = Saviour(101.0)
    sweeper.add(saviour)
    sweeper.add(other)
    clock.advance(10)

    sweeper.sweep()

    assert (saviour.passed, other.passed, new.passed) == (1, 0, 0)


def test_an_error_does_not_keep_the_others_from_being_told(clock: FakeClock):
    """The one that raised is not told again, the others in the next sweep."""
    sweeper, bad, good = Sweeper(clock), Thing(101.0, ValueError("bug")), Thing(101.0)
    sweeper.add(bad)
    sweeper.add(good)
    clock.advance(10)

    with pytest.raises(ValueError, match="bug"):
        sweeper.sweep()
    sweeper.sweep()

    assert (bad.passed, good.passed) == (1, 1)


async def test_a_started_sweeper_sweeps_until_it_is_stopped(clock: FakeClock):
    """The loop's timer does what `sweep` does by hand."""
    loop, sweeper, told = asyncio.get_running_loop(), Sweeper(clock, period_s=0.001), asyncio.Event()

    class Loud(Thing):
        def deadline_passed(self) -> None:
            told.set()

    sweeper.add(Loud(101.0))
    sweeper.start(loop)
    clock.advance(10)
    await told.wait()
    sweeper.stop()
    sweeper.stop()

    assert told.is_set()


def test_the_defaults_are_those_of_the_standard():
    """RFC 5321 4.5.3.2 names the least times for each phase; ours are no shorter."""
    timeouts = Timeouts()

    assert timeouts.greeting_s >= 300
    assert timeouts.mail_s >= 300
    assert timeouts.rcpt_s >= 300
    assert timeouts.data_s >= 120
    assert timeouts.content_block_s >= 180
    assert timeouts.content_end_s >= 600
