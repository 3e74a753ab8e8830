"""The wheel and the lanes against plain sorted lists."""

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_queue.timetable import DUE_S_MAX, PRIORITY_MAX, WIDENINGS, Lane, Wheel

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S


class Turned:
    """A wheel with somebody who knows when each number is due, as the queue does."""

    def __init__(self, granularity_s: float, now_s: float = 0.0) -> None:
        self.wheel = Wheel(granularity_s)
        self.now_s = now_s
        self.due_s: dict[int, float] = {}
        self.opened = 0

    def add(self, due_s: float, seq: int) -> None:
        self.due_s[seq] = due_s
        self.wheel.add(due_s, seq, self.now_s)

    def advance(self, now_s: float) -> list[int]:
        """What is due, in order; what only comes near is added again."""
        self.now_s = now_s
        found: list[int] = []
        while True:
            due, opened = self.wheel.advance(now_s)
            found += [seq for seqs in due for seq in seqs]
            for begin_s, end_s, seqs in opened:
                self.opened += len(seqs)
                for seq in seqs:
                    assert begin_s <= self.due_s[seq] < end_s
                    self.wheel.add(self.due_s[seq], seq, now_s)
            if not due and not opened:
                return found


@given(
    granularity_s=st.sampled_from((0.1, 0.25, 1.0, 7.0)),
    steps=st.lists(
        st.tuples(st.just("add"), st.floats(-10, 5_000) | st.floats(0, YEAR_S))
        | st.tuples(st.just("advance"), st.floats(0, 5_000) | st.floats(0, 2 * YEAR_S)),
        max_size=60,
    ),
)
def test_wheel_against_a_list(granularity_s: float, steps: list[tuple[str, float]]) -> None:
    """Nothing comes early, nothing later than the granularity, and everything once, however the clock jumps."""
    turned = Turned(granularity_s)
    waiting: dict[int, float] = {}
    for seq, (step, value) in enumerate(steps):
        if step == "add":
            turned.add(value, seq)
            waiting[seq] = value
            continue

        due = turned.advance(value)

        assert all(waiting.pop(seq) <= value for seq in due)
        assert [due_s for due_s in waiting.values() if due_s <= value - granularity_s * 1.001] == []
    assert len(turned.wheel) == len(waiting)


def test_in_order() -> None:
    """By due time, and what is due within one step in the order in which it was added."""
    turned = Turned(1.0)
    for seq, due_s in enumerate((5.4, 3.0, 5.1, 4.9)):
        turned.add(due_s, seq)

    assert turned.advance(10.0) == [1, 3, 0, 2]


def test_due_at_once() -> None:
    """What is due at 0 or in the past comes with the next call."""
    turned = Turned(1.0, 1_000_000.0)
    for seq, due_s in enumerate((0.0, -5.0, 999_999.0)):
        turned.add(due_s, seq)

    assert turned.advance(1_000_000.0) == [0, 1, 2]


def test_next() -> None:
    """The time of the next step is known without turning anything."""
    wheel = Wheel(0.5)

    assert wheel.next_s() is None
    wheel.add(10.2, 1, 0.0)
    wheel.add(3.1, 2, 0.0)
    assert wheel.next_s() == 3.5
    wheel.advance(4.0)
    assert wheel.next_s() == 10.5


def test_clock_goes_back() -> None:
    """A clock that is set back makes entries wait; what was handed out does not come again."""
    turned = Turned(1.0, 10_000.0)
    turned.add(10_001.0, 1)
    turned.add(10_100.0, 2)
    assert turned.advance(10_002.0) == [1]

    assert turned.advance(6_400.0) == []
    turned.add(6_410.0, 3)
    assert turned.advance(6_410.0) == [3]
    assert turned.advance(10_100.0) == [2]


def test_clock_jumps_a_year() -> None:
    """A clock that jumps forward brings everything, in order to the width of a spoke."""
    turned = Turned(0.25)
    for seq in range(1000):
        turned.add(seq * 3600.0, seq)

    due = turned.advance(YEAR_S)

    assert sorted(due) == list(range(1000))
    width_s = 0.25 * WIDENINGS[-1]
    assert all(abs(at - seq) * 3600.0 <= 2 * width_s for at, seq in enumerate(due))


def test_a_year_ahead_costs_nothing() -> None:
    """Each at another second of the year: a few thousand arrays at most, and each is looked at twice on the way."""
    turned = Turned(0.25)
    count = 20_000
    for seq in range(count):
        turned.add(seq * YEAR_S / count, seq)

    assert turned.wheel.spokes < 5_000
    came = 0
    for day in range(366):
        came += len(turned.advance(day * DAY_S))
        assert turned.wheel.spokes < 5_000
    assert came == count
    assert turned.opened <= 2 * count


def test_a_frozen_clock() -> None:
    """Nothing comes while the clock stands, and all of it when it goes."""
    turned = Turned(0.25)
    for seq in range(100):
        turned.add(1.0 + seq, seq)
        assert turned.advance(0.5) == []

    assert turned.advance(101.0) == list(range(100))


@pytest.mark.parametrize("due_s", [math.inf, math.nan, 1e300])
def test_never(due_s: float) -> None:
    """Times beyond all sense wait until the year 3000 and break nothing."""
    wheel = Wheel(1.0)
    wheel.add(due_s, 1, 0.0)

    assert wheel.advance(YEAR_S * 500) == ([], [])
    [opened] = wheel.advance(DUE_S_MAX)[1]
    assert opened.begin_s <= DUE_S_MAX < opened.end_s
    assert opened.seqs == array("Q", [1])


def test_granularity_must_be_positive() -> None:
    """A wheel without spokes is refused."""
    with pytest.raises(ValueError, match="positive"):
        Wheel(0.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(("push", "push_front")), st.integers(0, PRIORITY_MAX)) | st.just(("pop", 0)),
        max_size=80,
    )
)
def test_lane_against_lists(steps: list[tuple[str, int]]) -> None:
    """The highest priority goes first, and within it who came first; what is put in front goes before them."""
    lane: Lane[int] = Lane()
    lists: list[list[int]] = [[] for _ in range(PRIORITY_MAX + 1)]
    for count, (step, priority) in enumerate(steps):
        highest = max((number for number, found in enumerate(lists) if found), default=-1)
        if step == "push":
            lane.push(priority, count)
            lists[priority].append(count)
        elif step == "push_front":
            lane.push_front(priority, count)
            lists[priority].insert(0, count)
        elif highest >= 0:
            assert lane.peek() == lists[highest][0]
            assert lane.pop() == lists[highest].pop(0)
        assert len(lane) == sum(map(len, lists))
        assert sorted(lane) == sorted(number for found in lists for number in found)
        assert lane.head_priority() == max((number for number, found in enumerate(lists) if found), default=-1)


def test_empty_lane() -> None:
    """Nobody's turn: peek says None, pop raises, also after something was there."""
    lane: Lane[str] = Lane()
    lane.push(5, "one")
    lane.pop()

    assert lane.peek() is None
    assert lane.head_priority() == -1
    with pytest.raises(IndexError):
        lane.pop()


@pytest.mark.parametrize("priority", [-11, 10])
def test_priority_out_of_range(priority: int) -> None:
    """A priority that does not exist is a mistake of the caller."""
    with pytest.raises(IndexError):
        Lane[str]().push(priority, "x")
