"""Message ids: never twice, whatever the clock does, and in the order of time where it goes on."""

from hypothesis import given
from hypothesis import strategies as st

from mta.model.identity import IdMaker

YEAR_S = 365 * 86_400.0
TIMES_S = st.floats(min_value=0.0, max_value=100 * YEAR_S)


@given(st.lists(TIMES_S, min_size=2, max_size=50))
def test_no_id_comes_twice_however_the_clock_jumps(times_s: list[float]) -> None:
    """An hour back, a year on, or standing still: the count tells them apart."""
    ids = IdMaker(1)

    made = [ids.make(time_s) for time_s in (*times_s, times_s[-1], times_s[0])]

    assert len(set(made)) == len(made)
    assert {len(each) for each in made} == {20}


@given(TIMES_S, st.floats(min_value=0.002, max_value=YEAR_S))
def test_ids_sort_by_time(time_s: float, later_s: float) -> None:
    """Of whatever process they are."""
    assert IdMaker(2**25 - 1).make(time_s) < IdMaker(0).make(time_s + later_s)
