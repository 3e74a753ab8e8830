"""Curves: what a picture shows adds up to what was counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.rehearsal import curves
from mta_policies.rehearsal.tally import Tally

TIMES = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)), min_size=1, max_size=60)


def told(times: list[tuple[int, int]], bin_s: float = 10.0) -> Tally:
    """When each came, and how long it waited."""
    tally = Tally(bin_s)
    for at_s, wait_s in times:
        tally.arrive(1_000_000.0 + at_s)
        tally.deliver(1_000_000.0 + at_s + wait_s, wait_s)
    return tally


@given(TIMES)
def test_nothing_is_drawn_that_was_not_counted(times: list[tuple[int, int]]):
    """Rates over all slots and what comes later are all the mail; in the end nothing waits but that."""
    tally = told(times)
    over = curves.slots([tally])
    assert over is not None

    later = curves.after(tally, over)
    delivered = sum(curves.per_minute(tally, "delivered", over)) * over.length_s / 60.0
    waiting = curves.waiting(tally, over)

    assert delivered + later == pytest.approx(len(times))
    assert len(waiting) == over.number <= curves.SLOTS + 1
    assert waiting[-1] == later
    assert max(waiting) <= tally.backlog_max


def test_a_long_tail_is_told_and_not_drawn():
    """A thousand within a minute and one after a day: the picture is of the minute."""
    tally = told([*((0, number % 60) for number in range(1_000)), (0, 86_400)])

    over = curves.slots([tally])

    assert over is not None
    assert over.end_s - over.start_s <= 90.0
    assert curves.after(tally, over) == 1


def test_of_nothing_there_is_no_picture():
    """No slots, rather than empty ones."""
    assert curves.slots([Tally(1.0), Tally(1.0)]) is None
