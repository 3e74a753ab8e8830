"""The backlog's figures: what is worked out of what was seen."""

import pytest

from bench.backlog.__main__ import report
from bench.backlog.outage import rank_correlation
from bench.backlog.resets import ResetsFigures


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 2.0, 3.0, 4.0], 1.0), ([4.0, 3.0, 2.0, 1.0], -1.0), ([1.0, 3.0, 2.0, 4.0], 0.8), ([7.0], 1.0), ([], 1.0)],
)
def test_how_well_an_order_was_kept(values: list[float], expected: float):
    """1 is the same order, -1 the opposite one."""
    assert rank_correlation(values) == pytest.approx(expected)


def test_figures_are_told_with_their_units():
    """A row a figure: what it is called, and what it is in."""
    found = ResetsFigures(
        messages=1_000_000, left=900_000, size=4_096, workers=2, rate_per_s=500, alone_p50_ms=2.5, alone_p99_ms=4.0,
        urgent=1_000, urgent_p50_ms=3.0, urgent_p99_ms=20.0, urgent_max_ms=31.25, times_alone=8.0, small_max_ms=44.0,
    )  # fmt: skip

    rows = {line.split("  ")[1]: line.split()[-2:] for line in report(found).splitlines()[2:]}

    assert rows["rate"] == ["500", "/s"]
    assert rows["urgent p99"] == ["20", "ms"]
    assert rows["messages"][-1] == "1,000,000"
