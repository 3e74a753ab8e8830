"""Warm-up: so much a day as the plan says, a day only counts when it was used, complaints and idle time go back, and
neither restarts nor clocks make a source warmer than it is."""

import itertools
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies import warmup
from mta_policies.limits import Share
from mta_policies.warmup import COLD_DAYS, Plan, Warmth, Warmup

NOON_S = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
DAY_S = 86400.0
DAYS = (10, 20, 40, 80)
PLAN = Plan("out-9", DAYS, {"docomo": (2, 4)})


def _warmup(*plans: Plan) -> Warmup:
    return Warmup(plans or (PLAN,), ZoneInfo)


def _send(warm: Warmup, now_s: float, most: float = math.inf, provider: str = "google") -> int:
    """Sends as many as the plan allows, all taken."""
    sent = 0
    while sent < most and warm.wait_s("out-9", provider, now_s) == 0.0 and sent < 1000:
        warm.began("out-9", provider)
        warm.delivered("out-9", provider, now_s)
        sent += 1
    return sent


def _complain(warm: Warmup, now_s: float, times: int) -> list[str]:
    whys = []
    for _ in range(times):
        warm.began("out-9", "google")
        whys.append(warm.failed("out-9", "google", now_s, complains=True))
    return whys


def test_a_plan_day_by_day():
    """What each day allows, and behind the last one there is no limit."""
    warm = _warmup()

    sent = [_send(warm, NOON_S + day * DAY_S) for day in range(len(DAYS))]

    assert sent == list(DAYS)
    assert warm.room("out-9", "google", NOON_S + len(DAYS) * DAY_S) == math.inf
    assert warm.wait_s("out-9", "google", NOON_S + len(DAYS) * DAY_S) == 0.0


def test_a_full_day_waits_for_the_next():
    """Until midnight of the plan's zone."""
    warm = _warmup(Plan("out-9", DAYS, zone="Asia/Tokyo"))
    _send(warm, NOON_S)

    assert warm.wait_s("out-9", "google", NOON_S) == 3 * 3600
    assert _send(warm, NOON_S + 3 * 3600) == 20


def test_what_is_under_way_counts_until_it_failed():
    """No more are begun than may be taken; what failed makes room again."""
    warm = _warmup()
    for _ in range(10):
        warm.began("out-9", "google")

    waits_s = warm.wait_s("out-9", "google", NOON_S)
    warm.failed("out-9", "google", NOON_S, complains=False)

    assert waits_s == math.inf
    assert warm.room("out-9", "google", NOON_S) == 1


def test_providers_are_by_themselves():
    """Each has its own days, some by a plan of their own; other sources have none."""
    warm = _warmup()

    assert _send(warm, NOON_S, provider="docomo") == 2
    assert warm.room("out-9", "google", NOON_S) == 10
    assert warm.room("out-1", "google", NOON_S) == math.inf
    assert warm.plan("out-1") is None


def test_nothing_before_the_start():
    """It waits for the day that the plan names."""
    warm = _warmup(Plan("out-9", DAYS, start_s=NOON_S + 500))

    assert warm.room("out-9", "google", NOON_S) == 0
    assert warm.wait_s("out-9", "google", NOON_S) == 500
    assert _send(warm, NOON_S + 500) == 10


@pytest.mark.parametrize(("sent", "next_day"), [(0, 10), (4, 10), (5, 20), (10, 20)])
def test_a_day_counts_where_half_of_it_was_sent(sent: int, next_day: int):
    """Else it comes again."""
    warm = _warmup()
    _send(warm, NOON_S, sent)

    assert warm.room("out-9", "google", NOON_S + DAY_S) == next_day


@pytest.mark.parametrize(
    ("idle_days", "allowed"), [(0, 40), (2, 40), (3, 40), (4, 20), (5, 10), (20, 10), (COLD_DAYS + 1, 10)]
)
def test_idle_days_go_back(idle_days: int, allowed: int):
    """A long weekend changes nothing, each further day is a day of the plan."""
    warm = _warmup()
    _send(warm, NOON_S)
    _send(warm, NOON_S + DAY_S)

    assert warm.room("out-9", "google", NOON_S + (2 + idle_days) * DAY_S) == allowed


@pytest.mark.parametrize("asks_daily", [True, False])
def test_idle_days_are_the_same_whoever_looks(asks_daily: bool):
    """Looking at a source every day does not make it colder, and sending goes on from where it is."""
    warm = _warmup()
    _send(warm, NOON_S)
    _send(warm, NOON_S + DAY_S)

    for day in range(2, 6) if asks_daily else ():
        warm.room("out-9", "google", NOON_S + day * DAY_S)

    assert _send(warm, NOON_S + 6 * DAY_S) == 20
    assert warm.room("out-9", "google", NOON_S + 7 * DAY_S) == 40


def test_a_warm_source_stays_warm_for_a_month():
    """Then it is cold."""
    warm = _warmup()
    for day in range(5):
        _send(warm, NOON_S + day * DAY_S, 100)

    assert warm.room("out-9", "google", NOON_S + (4 + COLD_DAYS - 1) * DAY_S) == math.inf
    assert warm.room("out-9", "google", NOON_S + (5 + COLD_DAYS) * DAY_S) == 10


def test_complaints_go_back_at_once():
    """The rest of the day allows what the day before did, the next day that too."""
    warm = _warmup()
    _send(warm, NOON_S)
    _send(warm, NOON_S + DAY_S, 5)

    whys = _complain(warm, NOON_S + DAY_S, 4)

    assert whys[:2] == ["", ""]
    assert whys[2] == "3 complaints beside 5 messages taken: a day back"
    assert whys[3] == ""
    assert warm.room("out-9", "google", NOON_S + DAY_S) == 5
    assert warm.room("out-9", "google", NOON_S + 2 * DAY_S) == 10


def test_few_complaints_among_many_messages_are_nothing():
    """A twentieth is what counts."""
    warm = _warmup(Plan("out-9", (1000,)))
    _send(warm, NOON_S, 200)

    assert _complain(warm, NOON_S, 10) == [""] * 10
    assert _complain(warm, NOON_S, 1) != [""]


def test_owners_have_their_share():
    """Two owners of a destination together send what the plan says, and a day counts for each."""
    sent = []
    for i in range(2):
        warm, share = _warmup(), Share(i, 2)
        for day in range(2):
            now_s = NOON_S + day * DAY_S
            while warm.room("out-9", "google", now_s, share) > 0:
                warm.began("out-9", "google")
                warm.delivered("out-9", "google", now_s)
                sent.append(day)

    assert (sent.count(0), sent.count(1)) == (10, 20)


def test_it_survives_a_restart():
    """What is dumped can be written as JSON; loaded, it goes on."""
    warm = _warmup()
    _send(warm, NOON_S)
    _send(warm, NOON_S + DAY_S, 7)

    kept = msgspec.json.encode(warm.dump())
    again = _warmup()
    again.load(msgspec.json.decode(kept, type=dict[str, dict[str, Warmth]]))

    assert again.room("out-9", "google", NOON_S + DAY_S) == 13


def test_a_reload_goes_on_where_it_was():
    """A source that is in the new plan keeps its day; one that is not any more is warm."""
    warm = _warmup()
    _send(warm, NOON_S)

    warm.change([Plan("out-9", (1, 2, 3))])
    left = warm.room("out-9", "google", NOON_S + DAY_S)
    warm.change([])

    assert left == 2
    assert warm.room("out-9", "google", NOON_S) == math.inf
    assert warm.dump() == {}


JUMPS = st.lists(st.sampled_from([0.0, 3600.0, -3600.0, DAY_S, -DAY_S, 365 * DAY_S, -365 * DAY_S]), max_size=3)


@given(JUMPS)
def test_a_clock_that_jumps_and_comes_back_does_no_lasting_harm(jumps: Sequence[float]):
    """Looked at at any time, a source on its third day has sent what it has sent, and is on its third day."""
    warm = _warmup()
    for day in range(2):
        _send(warm, NOON_S + day * DAY_S)
    now_s = NOON_S + 2 * DAY_S
    _send(warm, now_s, 30)

    for each_s in itertools.accumulate(jumps, initial=now_s):
        warm.room("out-9", "google", each_s)

    assert warm.room("out-9", "google", now_s) == 40 - 30
    assert warm.room("out-9", "google", now_s + DAY_S) == 80


@given(st.lists(st.tuples(st.sampled_from([0.0, 600.0, 7200.0, DAY_S, 5 * DAY_S]), st.integers(0, 60)), max_size=40))
def test_never_more_in_a_day_than_the_plan_knows(sends: Sequence[tuple[float, int]]):
    """On the nth day on which anything was sent at most what the nth day of the plan allows."""
    warm, now_s, sent = _warmup(), NOON_S, dict[int, int]()
    for after_s, count in sends:
        now_s += after_s
        if count:
            day = int(now_s // DAY_S)
            sent[day] = sent.get(day, 0) + _send(warm, now_s, count)

    for allowed, count in zip(DAYS, sent.values(), strict=False):
        assert count <= allowed


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """The pair that was idle longest is forgotten, and begins anew."""
    monkeypatch.setattr(warmup, "STATES_MAX", 5)
    warm = _warmup()

    for i in range(20):
        _send(warm, NOON_S + i, 1, provider=f"site{i}")

    assert len(warm.dump()["out-9"]) == 5
    assert "site19" in warm.dump()["out-9"]
