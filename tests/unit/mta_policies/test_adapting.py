"""Adapting: down at once, up slowly, never outside floor and ceiling, and no memory of trouble that a clock made."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_policies.adapting import FORGET_S, HOLD_S, RULE, Adapting, Law, nearest
from mta_policies.answers import Answer
from mta_policies.firing import Change
from mta_policies.firings import Firings
from mta_policies.limits import Share
from mta_policies.schema import Adapt, Limits
from mta_policies.units import Rate

START_S = 1_800_000_000.0
KEY = "path out-1 example.com mx.test > google"
COMPLAINT = Answer(421, "4.7.28", "unusual rate", "content")
LAW = Law(floor=0.1, ceiling=10.0)


def _adapting(law: Law = LAW, share: Share | None = None) -> tuple[Adapting, Firings]:
    firings, ids = Firings(), itertools.count()
    return Adapting("google", law, firings, lambda: f"f{next(ids)}", share or Share()), firings


def _send(adapting: Adapting, now_s: float, minutes: int, per_minute: float) -> list[Change]:
    """Delivers evenly; what changed."""
    changes = []
    for i in range(round(minutes * per_minute)):
        change = adapting.delivered(KEY, now_s + (i + 1) * 60 / per_minute)
        if change is not None:
            changes.append(change)
    return changes


def test_a_complaint_takes_half():
    """It is a firing that slows, with the reply and what changed as its reason."""
    adapting, firings = _adapting()

    change = adapting.hurt(KEY, COMPLAINT, START_S)

    assert change is not None
    assert change.firing is not None
    assert (change.what, change.why) == ("fired", "10/s to 300/min: 421 4.7.28 unusual rate")
    assert (change.firing.rule, change.firing.action, change.firing.scope) == (RULE, "slow", "path")
    assert change.firing.effect.rate == (Rate(300, 60),)
    assert adapting.rate(KEY) == 5.0
    assert firings.for_keys([KEY], START_S) == [change.firing]


def test_after_a_reload_other_bounds_hold():
    """A rate below the new floor goes there with the next step; a complaint takes one above the new ceiling down."""
    adapting, _ = _adapting()
    adapting.hurt(KEY, COMPLAINT, START_S, pace=1.0)

    adapting.law = Law(floor=2.0, ceiling=10.0)
    _send(adapting, START_S + HOLD_S, 2, 60)
    assert adapting.rate(KEY) == 2.0

    adapting.law = Law(floor=0.1, ceiling=1.0)
    _send(adapting, START_S + 300.0, 1, 110)
    adapting.hurt(KEY, COMPLAINT, START_S + 361.0)
    assert adapting.rate(KEY) == 0.5


def test_half_of_what_was_really_sent():
    """Who sends two a second under a limit of ten, and hears complaints, goes on with one."""
    adapting, _ = _adapting()

    adapting.hurt(KEY, COMPLAINT, START_S, pace=2.0)

    assert adapting.rate(KEY) == 1.0


def test_one_message_a_minute_is_not_believed_to_be_too_much():
    """What was sent counts down to a tenth of what was allowed."""
    adapting, _ = _adapting()

    adapting.hurt(KEY, COMPLAINT, START_S, pace=0.01)

    assert adapting.rate(KEY) == 0.5


def test_the_same_trouble_counts_once():
    """More complaints within a minute, and those of probes with nothing delivered between, change nothing."""
    adapting, _ = _adapting()
    adapting.hurt(KEY, COMPLAINT, START_S)

    for after_s in (1.0, HOLD_S - 1, HOLD_S + 1, 600.0, 1200.0, 7200.0):
        assert adapting.hurt(KEY, COMPLAINT, START_S + after_s) is None

    assert adapting.rate(KEY) == 5.0


@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_lower_rate_that_was_tried_is_lowered_again(is_delivered: bool):
    """By one delivery, or by as many complaints as it allows messages."""
    adapting, _ = _adapting()
    adapting.hurt(KEY, COMPLAINT, START_S)

    if is_delivered:
        _send(adapting, START_S, 1, 300)
        adapting.hurt(KEY, COMPLAINT, START_S + HOLD_S + 1)
    else:
        for i in range(250):
            adapting.hurt(KEY, COMPLAINT, START_S + HOLD_S + i / 5)

    assert adapting.rate(KEY) == pytest.approx(2.5, rel=0.2)


def test_it_rises_by_a_hundredth_a_minute_and_slowly_near_the_mark():
    """To nine tenths of the rate complained of in forty minutes, and from there a twentieth as fast."""
    adapting, _ = _adapting(LAW._replace(ceiling=100.0))
    adapting.hurt(KEY, COMPLAINT, START_S, pace=10.0)
    assert adapting.rate(KEY) == 5.0

    _send(adapting, START_S, 41, 600)
    after_41 = adapting.rate(KEY)
    _send(adapting, START_S + 41 * 60, 100, 600)

    assert after_41 == pytest.approx(9.0, abs=0.2)
    assert adapting.rate(KEY) == pytest.approx(after_41 + 100 * 10.0 * 0.01 * 0.05, abs=0.2)


def test_what_is_not_used_does_not_rise():
    """Under half of what is allowed was not tried."""
    adapting, _ = _adapting()
    adapting.hurt(KEY, COMPLAINT, START_S)

    changes = _send(adapting, START_S, 120, 140)

    assert changes == []
    assert adapting.rate(KEY) == 5.0


def test_at_the_ceiling_it_is_over():
    """The firing ends, and nothing listens any more."""
    adapting, firings = _adapting(LAW._replace(increase=0.1, caution=1.0))
    adapting.hurt(KEY, COMPLAINT, START_S)
    before = adapting.listens

    changes = _send(adapting, START_S, 10, 1000)

    assert before
    assert [change.what for change in changes][-1] == "ended"
    assert changes[-1].why == "back at 10/s"
    assert len(firings) == 0
    assert not adapting.listens
    assert adapting.rate(KEY) == LAW.ceiling


def test_after_a_quiet_day_it_is_over():
    """Used or not: a day after the last complaint the ceiling holds."""
    adapting, firings = _adapting()
    adapting.hurt(KEY, COMPLAINT, START_S)

    ended = firings.expire(START_S + FORGET_S)

    assert [change.what for change in ended] == ["ended"]
    assert adapting.rate(KEY) == LAW.ceiling


def test_paths_are_by_themselves():
    """Another source, domain or site keeps its rate."""
    adapting, _ = _adapting()

    adapting.hurt(KEY, COMPLAINT, START_S)

    assert adapting.rate("path out-2 example.com mx.test > google") == LAW.ceiling


def test_it_goes_on_after_a_restart():
    """The rate and the mark are in the firing."""
    adapting, firings = _adapting()
    adapting.hurt(KEY, COMPLAINT, START_S, pace=4.0)
    again, known = _adapting()
    known.load(firings.dump(), START_S + 60)

    assert again.listens
    assert again.rate(KEY) == 2.0
    _send(again, START_S + 60, 30, 400)
    assert 2.9 < again.rate(KEY) < 3.3


def test_two_owners_raise_it_together_as_fast_as_one():
    """Each sends half of it, each adds half a step."""
    one, _ = _adapting(LAW._replace(caution=1.0))
    half, _ = _adapting(LAW._replace(caution=1.0), Share(0, 2))
    one.hurt(KEY, COMPLAINT, START_S, pace=8.0)
    half.hurt(KEY, COMPLAINT, START_S, pace=4.0)
    before = half.rate(KEY)

    _send(one, START_S, 20, 480)
    _send(half, START_S, 20, 240)

    assert before == 4.0
    assert one.rate(KEY) - 4.0 == pytest.approx(2 * (half.rate(KEY) - 4.0), rel=0.15)


def test_a_policy_says_the_law():
    """The lower of its ceiling and its rate is the ceiling; with neither there is nothing to adapt."""
    adapt = Adapt(on=("slow",), floor=(Rate(30, 60), Rate(1, 1)), ceiling=(Rate(20, 1),), decrease=0.3)

    law = Law.of(adapt, Limits(rate=(Rate(5, 1), Rate(7200, 3600))))

    assert law == Law(0.5, 2.0, 0.3, 0.01)
    assert Law.of(Adapt(on=("slow",)), Limits()) is None


@given(st.floats(1e-4, 1e6))
def test_a_rate_as_people_write_it(per_second: float):
    """At most a twentieth off, and never none."""
    rate = nearest(per_second)

    assert rate.count >= 1
    assert rate.per_second == pytest.approx(per_second, rel=0.05)


def test_after_a_few_quiet_hours_caution_ends():
    """A source that was beaten down to the floor does not stay there for a day."""
    adapting, _ = _adapting(Law(0.05, 2.0))
    for i in range(20):
        adapting.hurt(KEY, COMPLAINT, START_S + 100.0 * i)
        adapting.delivered(KEY, START_S + 100.0 * i + 90)
    at_floor = adapting.rate(KEY)

    hours = [(_use(adapting, START_S + 2000 + hour * 3600, 60), adapting.rate(KEY))[1] for hour in range(12)]

    assert at_floor == 0.05
    assert hours[4] < 0.06
    assert hours[-1] > 0.5


def _use(adapting: Adapting, now_s: float, minutes: int) -> None:
    """Delivers as much as is allowed."""
    for i in range(minutes):
        _send(adapting, now_s + i * 60, 1, max(1.0, adapting.rate(KEY) * 60))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hurt", "delivered", "many", "restart"]),
        st.sampled_from([0.0, 0.5, 61.0, 3600.0, -1.0, -3600.0, 31e6, -31e6]),
    ),
    max_size=40,
)


@settings(max_examples=40)
@given(STEPS)
def test_always_between_floor_and_ceiling_whatever_the_clock_does(steps: list[tuple[str, float]]):
    """And from then on it rises again as it should, with a right clock."""
    law = Law(0.05, 0.3)
    adapting, firings = _adapting(law)
    now_s = START_S
    for what, jump_s in steps:
        now_s += jump_s
        match what:
            case "hurt":
                adapting.hurt(KEY, COMPLAINT, now_s)
            case "delivered":
                adapting.delivered(KEY, now_s)
            case "many":
                _use(adapting, now_s, 3)
                now_s += 180
            case _:
                snapshot = firings.dump()
                adapting, firings = _adapting(law)
                firings.load(snapshot, now_s)
        assert law.floor <= adapting.rate(KEY) <= law.ceiling
    firings.expire(now_s)
    before = adapting.rate(KEY)

    _use(adapting, now_s, 8 * 60)

    assert adapting.rate(KEY) > 1.2 * before or adapting.rate(KEY) == law.ceiling
