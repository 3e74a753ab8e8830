"""The wheel and the lanes against plain sorted lists."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_queue.timetable import DUE_S_MAX, PRIORITY_MAX, Lane, Wheel

YEAR_S = 365 * 86_400.0


@given(
    granularity_s=st.sampled_from((0.1, 0.25, 1.0, 7.0)),
    steps=st.lists(
        st.tuples(st.just("add"), st.floats(-10, 5000)) | st.tuples(st.just("advance"), st.floats(0, 5000)), max_size=60
    ),
)
def test_wheel_against_a_list(granularity_s: float, steps: list[tuple[str, float]]) -> None:
    """Nothing comes early, nothing later than the granularity, everything once and in order of due time."""
    wheel: Wheel[tuple[float, int]] = Wheel(granularity_s)
    waiting: list[tuple[float, int]] = []
    for count, (step, value) in enumerate(steps):
        if step == "add":
            wheel.add(value, (value, count))
            waiting.append((value, count))
            continue

        due = wheel.advance(value)

        assert all(due_s <= value for due_s, _ in due)
        assert [due_s for due_s, _ in due] == sorted(due_s for due_s, _ in due)
        late = [entry for entry in waiting if entry not in due and entry[0] <= value - granularity_s * 1.001]
        assert late == []
        for entry in due:
            waiting.remove(entry)
    assert len(wheel) == len(waiting)


def test_equal_times_in_order() -> None:
    """Entries of one time come in the order in which they were added."""
    wheel: Wheel[str] = Wheel(1.0)
    for entry in "abc":
        wheel.add(5.0, entry)

    assert wheel.advance(5.0) == ["a", "b", "c"]


def test_due_at_once() -> None:
    """What is due at 0 or in the past comes with the next call."""
    wheel: Wheel[str] = Wheel(1.0, 1_000_000.0)
    wheel.add(0.0, "zero")
    wheel.add(-5.0, "before")
    wheel.add(999_999.0, "past")

    assert wheel.advance(1_000_000.0) == ["before", "zero", "past"]


def test_next_due() -> None:
    """The time of the next entry is known without turning anything."""
    wheel: Wheel[str] = Wheel(0.5)

    assert wheel.next_due_s() is None
    wheel.add(10.2, "later")
    wheel.add(3.1, "soon")
    assert wheel.next_due_s() == 3.5
    wheel.advance(4.0)
    assert wheel.next_due_s() == 10.5


def test_clock_goes_back() -> None:
    """A clock that is set back makes entries wait; what was handed out does not come again."""
    wheel: Wheel[str] = Wheel(1.0, 10_000.0)
    wheel.add(10_001.0, "first")
    wheel.add(10_100.0, "second")
    assert wheel.advance(10_002.0) == ["first"]

    assert wheel.advance(6_400.0) == []
    wheel.add(6_410.0, "third")
    assert wheel.advance(6_410.0) == ["third"]
    assert wheel.advance(10_100.0) == ["second"]


def test_clock_jumps_a_year() -> None:
    """A clock that jumps forward brings what is due in portions as large as the caller wants, and then all of it."""
    wheel: Wheel[int] = Wheel(0.1)
    for number in range(1000):
        wheel.add(number * 3600.0, number)

    portions = []
    while portion := wheel.advance(YEAR_S, entries_max=300):
        portions.append(portion)

    assert [len(portion) for portion in portions] == [300, 300, 300, 100]
    assert [number for portion in portions for number in portion] == list(range(1000))


def test_portion_of_one_spoke() -> None:
    """A portion may end amid entries of the same moment; the rest keeps its place."""
    wheel: Wheel[int] = Wheel(10.0)
    for number in range(5):
        wheel.add(9.0 - number, number)

    assert wheel.advance(10.0, entries_max=2) == [4, 3]
    wheel.add(4.5, 9)
    assert len(wheel) == 4
    assert wheel.next_due_s() == 10.0
    assert wheel.advance(10.0) == [9, 2, 1, 0]
    assert wheel.next_due_s() is None


@pytest.mark.parametrize("due_s", [math.inf, math.nan, 1e300])
def test_never(due_s: float) -> None:
    """Times beyond all sense wait until the year 3000 and break nothing."""
    wheel: Wheel[str] = Wheel(1.0)
    wheel.add(due_s, "never")

    assert wheel.advance(YEAR_S * 500) == []
    assert wheel.advance(DUE_S_MAX) == ["never"]


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
