"""Charts: round numbers on the axes, lines in their place, and text that stays text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.cli import chart
from mta.cli.chart import Axis, Line
from mta.cli.markup import Markup, element

START_S = 1_763_769_600.0


@given(st.floats(1e-6, 1e12))
def test_the_axis_ends_above_what_it_shows(most: float):
    """At a number that is easily read, and not far above."""
    top = chart.nice_top(most)

    assert most <= top * (1 + 1e-9)
    assert top <= 2.51 * most


@given(st.floats(1.0, 60 * 86400.0), st.booleans())
def test_times_on_the_axis_are_few_and_in_order(length_s: float, is_clock: bool):
    """At least one and at most a handful, each within the axis; what has gone by is never twice the same."""
    axis = Axis(START_S, length_s / 240, 240, is_clock)

    found = chart.ticks(axis)

    assert 1 <= len(found) <= chart.TICKS + 1 or length_s < 2
    assert all(axis.start_s <= at_s <= axis.start_s + axis.length_s + 1e-3 for at_s, _ in found)
    assert is_clock or len({shown for _, shown in found}) == len(found)


@pytest.mark.parametrize(
    ("length_s", "shown"),
    [
        (600.0, ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (9000.0, ["0", "30 min", "1 h", "1:30 h", "2 h", "2:30 h"]),
        (48 * 3600.0, ["0", "12 h", "1 d", "36 h", "2 d"]),
    ],
)
def test_what_has_gone_by_is_written_as_one_says_it(length_s: float, shown: list[str]):
    """Minutes, hours, days."""
    assert [each for _, each in chart.ticks(Axis(START_S, length_s / 100, 100, False))] == shown


def test_a_line_goes_through_its_values():
    """From the left to the right, the largest at the top of a round axis."""
    drawn = chart.chart("Rate", "a minute", [Line("now", "now", [0.0, 8.0, 4.0, 0.0])], Axis(0.0, 1.0, 4, False))

    assert 'd="M125.0 220.0L375.0 0.0L625.0 110.0L875.0 220.0"' in drawn
    assert ">8</span>" in drawn


def test_nothing_a_stranger_wrote_becomes_a_tag():
    """Neither between tags nor within an attribute; what was made here stands."""
    evil = "</style><script>alert('1')</script>\" onload=\"x\u202e\x00"

    made = element("p", evil, Markup("<b>ours</b>"), title=evil)

    assert made.count("<") == 4
    assert '"' not in made.removeprefix('<p title="').partition('">')[0]
    assert "<b>ours</b>" in made
    assert "\u202e" not in made
    assert "\x00" not in made
