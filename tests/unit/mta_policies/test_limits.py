"""Limits: never more than was allowed, never much less than could be had, whoever shares them and whatever reloads."""

import itertools
import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.limits import Meter, Share, begin, may_begin
from mta_policies.schema import Limits
from mta_policies.units import Rate

WHOLE = Share(0, 1)
ROUNDING = 1e-4  # messages: a wait under a microsecond is none

RATES = st.builds(Rate, st.integers(1, 5000), st.sampled_from([1, 60, 3600, 86400]))
STARTS = st.sampled_from([0.0, 1.0, 123456.789, 1e7])


def _limits(*rates: Rate, connections: int = 0) -> Limits:
    return Limits(connections=connections, rate=rates)


def _burst(rate: Rate) -> float:
    return max(1.0, rate.per_second)


def _send_all(meter: Meter, now_s: float, most: int = 10_000) -> int:
    """Sends as many as may go at this moment."""
    sent = 0
    while sent < most and meter.transaction_wait_s(now_s) == 0.0:
        meter.transaction(now_s)
        sent += 1
    return sent


def _run(meter: Meter, start_s: float, seconds: float, most: int = 3000) -> list[float]:
    """A backlog: sends whenever it may, wakes exactly when it was told to."""
    times: list[float] = []
    now_s = start_s
    while now_s <= start_s + seconds and len(times) < most:
        wait_s = meter.transaction_wait_s(now_s)
        if wait_s == 0.0:
            meter.transaction(now_s)
            times.append(now_s)
        else:
            now_s += wait_s
    return times


def _assert_never_above(times: Iterable[float], rate: Rate, burst: float) -> None:
    """In no window, wherever it begins and ends, more than the burst and the rate times its length."""
    ordered = sorted(times)
    # The fullest window ending at each send: count - rate * length is kept as a running maximum.
    best = -math.inf
    for i, at_s in enumerate(ordered):
        best = max(best, rate.per_second * (at_s - ordered[0]) - i)
        in_window = i + 1 + best - rate.per_second * (at_s - ordered[0])
        assert in_window <= burst + ROUNDING * (1 + rate.per_second), (i, at_s)


@given(RATES, STARTS, st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 50)), max_size=40))
def test_no_window_holds_more_than_burst_and_rate(rate: Rate, start_s: float, demand: list[tuple[float, int]]) -> None:
    """However demand comes and goes, a window of T seconds never holds more than burst + rate * T."""
    meter = Meter(_limits(rate), WHOLE, start_s)
    now_s, times = start_s, []

    for pause_s, wanted in demand:
        now_s += pause_s
        times += [now_s] * _send_all(meter, now_s, wanted)

    _assert_never_above(times, rate, _burst(rate))


@given(RATES, STARTS, st.floats(0.0, 100.0))
def test_a_backlog_gets_its_rate(rate: Rate, start_s: float, seconds: float) -> None:
    """In T seconds at least rate * T - 1 messages go, and never more than burst + rate * T."""
    meter = Meter(_limits(rate), WHOLE, start_s)
    seconds = min(seconds, 2000 / rate.per_second)

    times = _run(meter, start_s, seconds)

    assert len(times) >= rate.per_second * seconds - 1
    _assert_never_above(times, rate, _burst(rate))


@given(st.lists(RATES, min_size=2, max_size=4), st.floats(0.0, 60.0))
def test_several_rates_hold_at_once(rates: list[Rate], seconds: float) -> None:
    """Each for itself in every window, and a backlog gets what the slowest gives in the long run."""
    meter = Meter(_limits(*rates), WHOLE, 0.0)
    slowest = min(rate.per_second for rate in rates)

    times = _run(meter, 0.0, min(seconds, 2000 / slowest))

    for rate in rates:
        _assert_never_above(times, rate, _burst(rate))
    assert len(times) >= slowest * min(seconds, 2000 / slowest) - 1


def test_twenty_a_second_and_forty_thousand_an_hour() -> None:
    """The first second takes twenty, each later one no more than the hour allows."""
    meter = Meter(_limits(Rate(20, 1), Rate(40_000, 3600)), WHOLE, 0.0)

    times = _run(meter, 0.0, 60.0)

    assert sum(1 for at_s in times if at_s == 0.0) == 11  # one second's worth of 40,000/h
    assert 665 <= len(times) <= 678


def test_fifty_a_second_is_spread_evenly() -> None:
    """Once the burst is used up one goes every 20 ms."""
    meter = Meter(_limits(Rate(50, 1)), WHOLE, 0.0)

    times = _run(meter, 0.0, 2.0)

    after_burst = times[50:]
    assert len(times[:50]) == 50
    assert times[49] == 0.0
    assert {round(after - before, 6) for before, after in itertools.pairwise(after_burst)} == {0.02}


def test_a_rate_under_one_a_minute_lets_one_go_and_then_waits() -> None:
    """Ten an hour: one at once, the next after six minutes."""
    meter = Meter(_limits(Rate(10, 3600)), WHOLE, 0.0)

    sent = _send_all(meter, 0.0)

    assert sent == 1
    assert meter.transaction_wait_s(0.0) == pytest.approx(360.0)
    assert meter.transaction_wait_s(359.0) == pytest.approx(1.0)
    assert meter.transaction_wait_s(360.0) == 0.0


@given(RATES, STARTS)
def test_nothing_is_gained_while_the_clock_stands_still(rate: Rate, start_s: float) -> None:
    """After the burst the wait stays what it is until time goes on."""
    meter = Meter(_limits(rate), WHOLE, start_s)
    sent = _send_all(meter, start_s)

    waits = {meter.transaction_wait_s(start_s) for _ in range(5)}

    assert sent == math.floor(_burst(rate) + ROUNDING)
    assert len(waits) == 1
    assert waits.pop() > 0.0


@given(RATES, STARTS, st.floats(0.0, 1e6))
def test_a_pause_saves_up_one_burst_and_no_more(rate: Rate, start_s: float, pause_s: float) -> None:
    """A night without mail is not made up for in the morning."""
    meter = Meter(_limits(rate), WHOLE, start_s)
    _send_all(meter, start_s)

    sent = _send_all(meter, start_s + pause_s)

    assert sent <= math.floor(_burst(rate) + ROUNDING)


@given(
    st.lists(st.lists(RATES, max_size=3), max_size=4),
    st.lists(st.tuples(st.floats(0.0, 2.0), st.booleans()), max_size=30),
)
def test_several_meters_together_are_as_each_alone(rates: list[list[Rate]], steps: list[tuple[float, bool]]) -> None:
    """Asked and told at once, or one after another."""
    together, alone = ([Meter(_limits(*each), WHOLE, 0.0) for each in rates] for _ in range(2))
    now_s = 0.0
    for pause_s, changes in steps:
        now_s += pause_s
        if changes:
            for meter in (*together[:1], *alone[:1]):
                meter.change(_limits(Rate(7, 1)), WHOLE, now_s)

        assert may_begin(together, now_s) == all(meter.transaction_wait_s(now_s) == 0.0 for meter in alone)
        begin(together, now_s)
        for meter in alone:
            meter.transaction(now_s)

    assert [meter.state(now_s) for meter in together] == [meter.state(now_s) for meter in alone]


# -- shares --


@given(st.integers(1, 1000), st.integers(1, 16))
def test_shares_of_a_count_add_up_to_it(whole: int, owners: int) -> None:
    """And differ by at most one."""
    shares = [Share(index, owners).count(whole) for index in range(owners)]

    assert sum(shares) == whole
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@given(st.integers(1, 8), st.integers(8, 2000), st.floats(0.1, 5.0))
def test_owners_together_never_pass_the_whole_rate(owners: int, count: int, seconds: float) -> None:
    """At one a second an owner or more, the sum in any window keeps to burst and rate of the whole."""
    rate = Rate(count, 1)
    meters = [Meter(_limits(rate), Share(index, owners), 0.0) for index in range(owners)]

    runs = [_run(meter, 0.0, min(seconds, 2000 / count)) for meter in meters]

    times = [at_s for run in runs for at_s in run]
    _assert_never_above(times, rate, _burst(rate))
    assert len(times) >= count * min(seconds, 2000 / count) - owners


def test_four_owners_of_one_a_second_begin_with_one_each() -> None:
    """The least burst is one message an owner: of this the reader of policies warns."""
    meters = [Meter(_limits(Rate(1, 1)), Share(index, 4), 0.0) for index in range(4)]

    assert [_send_all(meter, 0.0) for meter in meters] == [1, 1, 1, 1]
    assert [meter.transaction_wait_s(0.0) for meter in meters] == [pytest.approx(4.0)] * 4


# -- connections --


def test_connections_wait_for_one_to_close() -> None:
    """At the window's limit no time helps, only a connection that goes."""
    meter = Meter(Limits(connections=2), WHOLE, 0.0)
    meter.opened(0.0)
    meter.opened(0.0)

    full = meter.connection_wait_s(1e9)
    meter.closed()

    assert full == math.inf
    assert meter.connection_wait_s(0.0) == 0.0
    assert meter.connections_open == 1


def test_new_connections_keep_to_their_rate() -> None:
    """Sixty a minute: one a second, each its own burst of one."""
    meter = Meter(Limits(connection_rate=(Rate(60, 60),)), WHOLE, 0.0)

    meter.opened(0.0)

    assert meter.connection_wait_s(0.0) == pytest.approx(1.0)
    assert meter.connection_wait_s(1.0) == 0.0
    assert meter.transaction_wait_s(0.0) == 0.0


def test_connections_are_shared_among_owners() -> None:
    """Five connections for two owners are three and two."""
    meters = [Meter(Limits(connections=5), Share(index, 2), 0.0) for index in range(2)]

    opened = []
    for meter in meters:
        while meter.connection_wait_s(0.0) == 0.0:
            meter.opened(0.0)
        opened.append(meter.connections_open)

    assert opened == [3, 2]


def test_closing_more_than_was_opened_is_a_bug() -> None:
    """A count that went below nothing would let too many through later."""
    meter = Meter(Limits(connections=1), WHOLE, 0.0)

    with pytest.raises(AssertionError):
        meter.closed()


def test_without_limits_nothing_waits() -> None:
    """And callers may leave out the calls for each message; connections are counted all the same."""
    meter = Meter(Limits(), WHOLE, 0.0)

    for _ in range(1000):
        meter.opened(0.0)
        meter.transaction(0.0)

    assert meter.is_unlimited
    assert not meter.has_rate
    assert meter.connection_wait_s(0.0) == meter.transaction_wait_s(0.0) == 0.0
    assert meter.connections_open == 1000


@pytest.mark.parametrize(
    "limits",
    [Limits(connections=1), Limits(rate=(Rate(1, 1),)), Limits(connection_rate=(Rate(1, 1),))],
)
def test_any_limit_makes_a_meter_limited(limits: Limits) -> None:
    """The flag that lets callers skip is only up where nothing can ever wait."""
    assert not Meter(limits, WHOLE, 0.0).is_unlimited


# -- from owner to owner, from policy to policy --


@given(RATES, STARTS, st.integers(0, 6000), st.floats(0.0, 3.0))
def test_a_new_owner_goes_on_where_the_old_one_was(rate: Rate, start_s: float, sent: int, gap_s: float) -> None:
    """What both send together keeps to one burst and the rate, whenever the mail moves."""
    old = Meter(_limits(rate), WHOLE, start_s)
    times = [start_s] * _send_all(old, start_s, sent)

    new = Meter(_limits(rate), WHOLE, start_s + gap_s)
    new.restore(old.state(start_s), start_s + gap_s)
    times += [start_s + gap_s] * _send_all(new, start_s + gap_s)

    _assert_never_above(times, rate, _burst(rate))


@given(st.integers(4, 2000), st.lists(st.integers(0, 500), min_size=4, max_size=4))
def test_four_owners_become_one(count: int, sent: list[int]) -> None:
    """What each had used adds up: together they send no more than one burst."""
    rate = Rate(count, 1)
    old = [Meter(_limits(rate), Share(index, 4), 0.0) for index in range(4)]
    before = sum(_send_all(meter, 0.0, most) for meter, most in zip(old, sent, strict=True))

    new = Meter(_limits(rate), WHOLE, 0.0)
    for meter in old:
        new.restore(meter.state(0.0), 0.0)

    assert before + _send_all(new, 0.0) <= _burst(rate) + ROUNDING


@given(st.integers(4, 2000), st.integers(0, 2000))
def test_one_owner_becomes_four(count: int, sent: int) -> None:
    """What it had used is used up for each of them: together they send no more than one burst."""
    rate = Rate(count, 1)
    old = Meter(_limits(rate), WHOLE, 0.0)
    before = _send_all(old, 0.0, sent)

    new = [Meter(_limits(rate), Share(index, 4), 0.0) for index in range(4)]
    for meter in new:
        meter.restore(old.state(0.0), 0.0)

    assert before + sum(_send_all(meter, 0.0) for meter in new) <= _burst(rate) + ROUNDING


@given(RATES, RATES, st.integers(0, 6000))
def test_a_reload_is_no_fresh_burst(before: Rate, after: Rate, sent: int) -> None:
    """What was sent under the old rate counts under the new one."""
    meter = Meter(_limits(before), WHOLE, 0.0)
    sent = _send_all(meter, 0.0, sent)

    meter.change(_limits(after), WHOLE, 0.0)
    more = _send_all(meter, 0.0)

    assert more <= max(0.0, _burst(after) - sent) + ROUNDING


def test_many_messages_gather_no_rounding() -> None:
    """After a year of uptime the clock's last digit is 4 ns: adding up times would soon be off by whole messages."""
    meter = Meter(_limits(Rate(4999, 1)), WHOLE, 3.2e7)

    for _ in range(200_000):
        meter.transaction(3.2e7)

    assert meter.transaction_wait_s(3.2e7) == pytest.approx((200_000 - 4998) / 4999, abs=1e-6)


def test_a_first_rate_begins_with_its_burst_used_up() -> None:
    """Nobody counted what went out while there was no limit."""
    meter = Meter(Limits(), WHOLE, 0.0)

    meter.change(_limits(Rate(50, 1)), WHOLE, 10.0)

    assert meter.transaction_wait_s(10.0) == pytest.approx(0.02)
    assert not meter.is_unlimited


def test_a_reload_without_a_change_changes_nothing() -> None:
    """Not a microsecond of waiting is forgotten."""
    meter = Meter(_limits(Rate(1, 60)), WHOLE, 0.0)
    meter.transaction(0.0)

    meter.change(_limits(Rate(1, 60)), WHOLE, 30.0)

    assert meter.transaction_wait_s(30.0) == pytest.approx(30.0)


def test_a_lower_limit_lets_connections_run_out() -> None:
    """None is dropped, none is opened until enough have gone."""
    meter = Meter(Limits(connections=10), WHOLE, 0.0)
    for _ in range(5):
        meter.opened(0.0)

    meter.change(Limits(connections=2), WHOLE, 0.0)
    waits = []
    for _ in range(5):
        waits.append(meter.connection_wait_s(0.0))
        meter.closed()

    assert waits == [math.inf] * 4 + [0.0]
