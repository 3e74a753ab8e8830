"""How fast a pool really sent in the last minute."""

from types import SimpleNamespace
from typing import Any

import pytest

from mta.delivery.pace import Pace


def channel(messages: int) -> Any:
    return SimpleNamespace(messages=messages)


def test_the_last_minute_counts() -> None:
    """What connections of now and those that are gone have begun, over the time since the oldest mark."""
    pace, one = Pace(), channel(0)
    for second in range(0, 121, 2):
        one.messages = 10 * second if second <= 60 else 600 + (second - 60)
        pace.look([one], second)

    assert pace.per_s([one], 120.0) == pytest.approx(1.0)

    pace.gone(one)
    assert pace.per_s([channel(60)], 120.0) == pytest.approx(2.0)


@pytest.mark.parametrize("after_s", [0.0, 14.0, 200.0])
def test_it_is_not_known(after_s: float) -> None:
    """Before anybody looked, in the first seconds, and where nobody has looked for long."""
    pace = Pace()
    assert pace.per_s([], 5.0) == 0.0

    pace.look([channel(3)], 5.0)

    assert pace.per_s([channel(90)], 5.0 + after_s) == 0.0


def test_a_long_pause_begins_anew() -> None:
    """What was sent before it says nothing of now."""
    pace = Pace()
    pace.look([channel(0)], 0.0)
    pace.look([channel(100)], 500.0)
    pace.look([channel(120)], 520.0)

    assert pace.per_s([channel(120)], 520.0) == pytest.approx(1.0)
