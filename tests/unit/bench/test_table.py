"""Figures as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.table import count_text, duration_text, percentile, render


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 5.0), (90, 9.0), (99, 10.0), (100, 10.0)])
def test_percentiles_are_values_that_were_seen(percent: float, expected: float):
    """Nearest rank: of ten values the fifth is the median."""
    assert percentile([float(each) for each in range(10, 0, -1)], percent) == expected


def test_nothing_has_percentile_zero():
    """A table of a provider that got nothing can be printed."""
    assert percentile([], 99) == 0.0


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0.0, 100.0))
def test_so_many_percent_do_not_exceed_the_percentile(values: list[float], percent: float):
    """The definition, for any list."""
    found = percentile(values, percent)

    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-6


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0008, "0.8 ms"), (0.045, "45 ms"), (3.21, "3.2 s"), (250.0, "4 min 10 s")]
)
def test_durations_are_short(seconds: float, text: str):
    """The unit follows the size."""
    assert duration_text(seconds) == text


def test_counts_are_grouped():
    """Thousands have a comma."""
    assert count_text(1234567) == "1,234,567"


def test_columns_are_as_wide_as_their_widest_cell():
    """The first column is aligned left, the others right; wide characters take two columns."""
    table = render(["provider", "mail"], [["swift", 12_000], ["日本", 7]])

    assert table.splitlines() == [
        "  provider   mail",
        "  --------  -----",
        "  swift     12000",
        "  日本          7",
    ]
