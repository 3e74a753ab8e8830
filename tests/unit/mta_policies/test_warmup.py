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
from mta_policies.allotments import Accounts
from mta_policies.answers import Answer
from mta_policies.limits import WHOLE, Share
from mta_policies.warmth import COLD_DAYS, Plan, Turn, Warmth, complains
from mta_policies.warmup import PORTION_MIN, Warmup

NOON_S = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
DAY_S = 86400.0
DAYS = (10, 20, 40, 80)
PLAN = Plan("out-9", DAYS, {"docomo": (2, 4)})


class Sending:
    """A worker that sends as much as it may; what it wants to draw is on disk at once."""

    def __init__(self, *plans: Plan, accounts: Accounts | None = None, share: Share = WHOLE) -> None:
        self.turns: list[Turn] = []
        self.warm = Warmup(plans or (PLAN,), ZoneInfo, self.turns.append)
        self.accounts = accounts if accounts is not None else Accounts()
        self.share = share

    def draw(self, now_s: float) -> None:
        for draw in self.warm.draws(now_s):
            self.warm.drawn(draw, self.accounts.draw(draw), now_s)

    def room(self, now_s: float = NOON_S, provider: str = "google") -> float:
        """How many may go now or as soon as they are drawn."""
        self.warm.room("out-9", provider, now_s, self.share)
        self.draw(now_s)
        return self.warm.left("out-9", provider, now_s, self.share)

    def begin(self, now_s: float, provider: str = "google") -> bool:
        self.warm.room("out-9", provider, now_s, self.share)
        self.draw(now_s)
        if self.warm.room("out-9", provider, now_s, self.share) < 1:
            return False
        self.warm.began("out-9", provider)
        return True

    def send(self, now_s: float, most: float = 1000, provider: str = "google") -> int:
        """All taken. -> how many."""
        sent = 0
        while sent < most and self.begin(now_s, provider):
            self.warm.delivered("out-9", provider, now_s)
            sent += 1
        return sent

    def complain(self, now_s: float, times: int, rule: str = "") -> list[str]:
        return [self.warm.complained("out-9", "google", now_s, rule) for _ in range(times)]


def test_a_plan_day_by_day():
    """What each day allows, and behind the last one there is no limit."""
    one = Sending()

    sent = [one.send(NOON_S + day * DAY_S) for day in range(len(DAYS))]

    assert sent == list(DAYS)
    assert one.room(NOON_S + len(DAYS) * DAY_S) == math.inf
    assert one.warm.wait_s("out-9", "google", NOON_S + len(DAYS) * DAY_S) == 0.0


def test_a_full_day_waits_for_the_next():
    """Until midnight of the plan's zone."""
    one = Sending(Plan("out-9", DAYS, zone="Asia/Tokyo"))
    one.send(NOON_S)

    assert one.warm.wait_s("out-9", "google", NOON_S) == 3 * 3600
    assert one.send(NOON_S + 3 * 3600) == 20


def test_what_is_under_way_counts_until_it_failed():
    """No more are begun than may be taken; what failed makes room again, what perhaps arrived does not."""
    one = Sending()
    while one.begin(NOON_S):
        pass

    waits_s = one.warm.wait_s("out-9", "google", NOON_S)
    one.warm.failed("out-9", "google", NOON_S, 3)
    one.warm.failed("out-9", "google", NOON_S, 2, perhaps=True)

    assert waits_s == math.inf
    assert one.room() == 3
    one.warm.delivered("out-9", "google", NOON_S, 5)
    assert one.send(NOON_S) == 3


def test_no_more_is_begun_than_was_drawn():
    """And what is under way is given back to nobody, for it may arrive."""
    one = Sending(Plan("out-9", (100,)))
    begun = 0
    while one.begin(NOON_S):
        begun += 1

    assert begun == PORTION_MIN
    assert one.warm.give_back(NOON_S) == []


def test_of_two_copies_the_one_that_counted_further_holds():
    """Whichever comes first, for a source that is in use here or was not yet."""
    one = Sending()
    one.send(NOON_S, 2)
    before = one.warm.dump()
    one.send(NOON_S, 3)
    after = one.warm.dump()

    for copies in itertools.permutations([before, after]):
        for is_in_use in (True, False):
            other = Sending()
            if is_in_use:
                other.room()
            for each in copies:
                other.warm.load(each)
            assert other.warm.allowed("out-9", "google", NOON_S) == (1, 10, 5)


def test_providers_are_by_themselves():
    """Each has its own days, some by a plan of their own; other sources have none."""
    one = Sending()

    assert one.send(NOON_S, provider="docomo") == 2
    assert one.room(NOON_S) == 10
    assert one.room(provider="route:10.0.0.5:25:docomo") == 2
    assert one.warm.room("out-1", "google", NOON_S) == math.inf
    assert one.warm.plan("out-1") is None


def test_nothing_before_the_start():
    """It waits for the day that the plan names."""
    one = Sending(Plan("out-9", DAYS, start_s=NOON_S + 500))

    assert one.room() == 0
    assert one.warm.wait_s("out-9", "google", NOON_S) == 500
    assert one.send(NOON_S + 500) == 10


@pytest.mark.parametrize(("sent", "next_day"), [(0, 10), (4, 10), (5, 20), (10, 20)])
def test_a_day_counts_where_half_of_it_was_sent(sent: int, next_day: int):
    """Else it comes again."""
    one = Sending()
    one.send(NOON_S, sent)

    assert one.room(NOON_S + DAY_S) == next_day


@pytest.mark.parametrize(
    ("idle_days", "allowed"), [(0, 40), (2, 40), (3, 40), (4, 20), (5, 10), (20, 10), (COLD_DAYS + 1, 10)]
)
def test_idle_days_go_back(idle_days: int, allowed: int):
    """A long weekend changes nothing, each further day is a day of the plan."""
    one = Sending()
    one.send(NOON_S)
    one.send(NOON_S + DAY_S)

    assert one.room(NOON_S + (2 + idle_days) * DAY_S) == allowed


@pytest.mark.parametrize("asks_daily", [True, False])
def test_idle_days_are_the_same_whoever_looks(asks_daily: bool):
    """Looking at a source every day does not make it colder, and sending goes on from where it is."""
    one = Sending()
    one.send(NOON_S)
    one.send(NOON_S + DAY_S)

    for day in range(2, 6) if asks_daily else ():
        one.room(NOON_S + day * DAY_S)

    assert one.send(NOON_S + 6 * DAY_S) == 20
    assert one.room(NOON_S + 7 * DAY_S) == 40


def test_a_warm_source_stays_warm_for_a_month():
    """Then it is cold."""
    one = Sending()
    for day in range(5):
        one.send(NOON_S + day * DAY_S, 100)

    assert one.room(NOON_S + (4 + COLD_DAYS - 1) * DAY_S) == math.inf
    assert one.room(NOON_S + (5 + COLD_DAYS) * DAY_S) == 10


def test_complaints_go_back_at_once():
    """The rest of the day allows what the day before did, the next day that too."""
    one = Sending()
    one.send(NOON_S)
    one.send(NOON_S + DAY_S, 5)

    whys = one.complain(NOON_S + DAY_S, 4)

    assert whys == ["", "", "3 complaints beside 5 messages taken", ""]
    assert one.room(NOON_S + DAY_S) == 5
    assert one.room(NOON_S + 2 * DAY_S) == 10
    assert [(turn.what, turn.day, turn.allowed) for turn in one.turns] == [("day", 2, 20), ("held", 1, 10)]


def test_a_rule_that_brakes_holds_at_once():
    """It has counted already."""
    one = Sending()
    one.send(NOON_S)
    one.send(NOON_S + DAY_S, 1)

    assert one.complain(NOON_S + DAY_S, 1, "unusual-rate") == ["rule unusual-rate beside 1 message taken"]
    assert one.room(NOON_S + DAY_S) == 9


@pytest.mark.parametrize(
    ("category", "text", "bad"),
    [
        ("spam-related", "listed by Spamhaus", True),
        ("policy-related", "too many messages", True),
        ("policy-related", "Greylisted, please come back", False),
        ("bad-mailbox", "no such user", False),
    ],
)
def test_what_a_complaint_is(category: str, text: str, bad: bool):
    """Of reputation, rate or spam; who greylists says it to everybody, and our own words are nobody's complaint."""
    assert complains(category, Answer(451, "4.7.1", text, "rcpt")) is bad
    assert not complains(category, Answer(451, "4.7.1", text, "rcpt", from_peer=False))


def test_few_complaints_among_many_messages_are_nothing():
    """A twentieth is what counts."""
    one = Sending(Plan("out-9", (1000,)))
    one.send(NOON_S, 200)

    assert one.complain(NOON_S, 10) == [""] * 10
    assert one.complain(NOON_S, 1) != [""]


def test_owners_have_the_room_in_common():
    """Two owners of a destination together send what the plan says, whoever has more; a day counts for each."""
    accounts = Accounts()
    one, other = (Sending(accounts=accounts, share=Share(i, 2)) for i in range(2))

    at_once = one.send(NOON_S, 5) + other.send(NOON_S)
    one.draw(NOON_S + 100)  # what it does not use is the other's
    other.draw(NOON_S + 100)
    later = other.send(NOON_S + 100)

    assert (at_once < 10, at_once + later) == (True, 10)
    assert [each.send(NOON_S + DAY_S) for each in (one, other)] == [20, 0]


def test_owners_that_become_one_go_on_where_they_were():
    """The day of the plan, and what both have sent of it."""
    accounts = Accounts()
    owners = [Sending(accounts=accounts, share=Share(i, 2)) for i in range(2)]
    for after_s, one in enumerate(owners):
        one.send(NOON_S + 100 * after_s, 5)
        one.draw(NOON_S + 100 * (after_s + 1))
        one.send(NOON_S + DAY_S, 6)

    last = Sending(accounts=accounts)
    for one in owners:
        last.warm.load(one.warm.dump())
        for draw in one.warm.give_back(NOON_S + DAY_S):
            accounts.draw(draw)

    assert last.send(NOON_S + DAY_S) == 20 - 12


def test_it_survives_a_restart():
    """What is dumped can be written as JSON; loaded, it goes on."""
    one = Sending()
    one.send(NOON_S)
    one.send(NOON_S + DAY_S, 7)

    one.warm.leave("google", NOON_S + DAY_S)  # as a stop does
    kept = msgspec.json.encode(one.warm.dump())
    for draw in one.warm.give_back(NOON_S + DAY_S):
        one.accounts.draw(draw)
    again = Sending(accounts=one.accounts)
    again.warm.load(msgspec.json.decode(kept, type=dict[str, Warmth]))

    assert again.send(NOON_S + DAY_S) == 13


def test_a_reload_goes_on_where_it_was():
    """A source that is in the new plan keeps its day, and one that comes back; one that is out of it is warm."""
    one = Sending()
    one.send(NOON_S)

    one.warm.change([Plan("out-9", (1, 2, 3))])
    left = one.room(NOON_S + DAY_S)
    one.warm.change([])
    without = one.room(NOON_S)
    one.warm.change([PLAN])

    assert (left, without) == (2, math.inf)
    assert one.room(NOON_S + DAY_S) == 20


def test_a_longer_day_after_a_reload_is_used_the_same_day():
    """What was sent stays sent."""
    one = Sending(Plan("out-9", (4, 8)))
    one.send(NOON_S)

    one.warm.change([Plan("out-9", (10, 20))])

    assert one.send(NOON_S + 120) == 6


def test_a_hold_while_more_is_being_drawn():
    """What comes then counts, and drawing goes on."""
    one = Sending(Plan("out-9", (30, 60)))
    one.send(NOON_S)
    one.warm.room("out-9", "google", NOON_S + DAY_S)
    [draw] = one.warm.draws(NOON_S + DAY_S)
    one.complain(NOON_S + DAY_S, 3)

    one.warm.drawn(draw, one.accounts.draw(draw), NOON_S + DAY_S)

    assert one.send(NOON_S + DAY_S) == 30


def test_people_see_how_it_stands():
    """As of now, whoever has the source at present; looking changes nothing."""
    one = Sending()
    one.send(NOON_S, 7)
    one.begin(NOON_S)
    other = Sending()
    other.warm.load(one.warm.dump())

    for each, under_way in ((one, 1), (other, 0)):
        [today] = each.warm.standings(NOON_S)
        [tomorrow] = each.warm.standings(NOON_S + DAY_S)
        assert (today.today.sent, today.under_way, today.today.in_force) == (7, under_way, 0)
        assert (tomorrow.today.sent, tomorrow.today.in_force) == (0, 1)
    assert one.turns == other.turns == []


JUMPS = st.lists(st.sampled_from([0.0, 3600.0, -3600.0, DAY_S, -DAY_S, 365 * DAY_S, -365 * DAY_S]), max_size=3)


@given(JUMPS)
def test_a_clock_that_jumps_and_comes_back_does_no_lasting_harm(jumps: Sequence[float]):
    """Looked at at any time, a source on its third day has sent what it has sent, and is on its third day."""
    one = Sending()
    for day in range(2):
        one.send(NOON_S + day * DAY_S)
    now_s = NOON_S + 2 * DAY_S
    one.send(now_s, 30)

    for each_s in itertools.accumulate(jumps, initial=now_s):
        one.room(each_s)

    assert one.room(now_s) == 40 - 30
    assert one.room(now_s + DAY_S) == 80


STEPS = st.tuples(
    st.sampled_from([0.0, 600.0, 7200.0, DAY_S, 5 * DAY_S]),
    st.integers(0, 60),
    st.sampled_from(["goes on", "is killed", "is stopped", "owners change", "fails", "perhaps"]),
    st.integers(0, 1),
)


@given(st.lists(STEPS, max_size=40))
def test_never_more_in_a_day_than_the_plan_knows(steps: Sequence[tuple[float, int, str, int]]):
    """On the nth day on which anything was sent at most what the nth day of the plan allows, whoever dies or goes on:
    workers are killed with what they have drawn, stopped, and become more or fewer."""
    accounts, kept, sent = Accounts(), dict[str, Warmth](), dict[int, int]()

    def started(index: int, of: int) -> Sending:
        one = Sending(accounts=accounts, share=Share(index, of))
        one.warm.load(kept)
        return one

    owners, now_s = [started(0, 1)], NOON_S
    for after_s, count, what, which in steps:
        now_s += after_s
        at = which % len(owners)
        one, day = owners[at], int(now_s // DAY_S)
        for _ in range(count):
            if not one.begin(now_s):
                break
            if what == "fails":
                one.warm.failed("out-9", "google", now_s)
                continue
            sent[day] = sent.get(day, 0) + 1
            if what == "perhaps":
                one.warm.failed("out-9", "google", now_s, perhaps=True)
            else:
                one.warm.delivered("out-9", "google", now_s)
        kept.update(one.warm.to_save(now_s))
        if what in ("is stopped", "owners change"):
            for each in owners if what == "owners change" else [one]:
                kept.update(each.warm.dump())
                for draw in each.warm.give_back(now_s):
                    accounts.draw(draw)
        if what == "owners change":
            of = 3 - len(owners)
            owners = [started(index, of) for index in range(of)]
        elif what.startswith("is "):
            owners[at] = started(at, len(owners))

    for allowed, count in zip(DAYS, sent.values(), strict=False):
        assert count <= allowed


def test_a_crash_loses_no_more_than_was_drawn():
    """The day goes on behind it."""
    one = Sending(Plan("out-9", (100,)))
    one.send(NOON_S, 13)

    again = Sending(Plan("out-9", (100,)), accounts=one.accounts)
    left = again.send(NOON_S)

    assert 100 - 13 - PORTION_MIN - PORTION_MIN // 2 <= left <= 100 - 13


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """The pair that was idle longest is forgotten, and begins anew."""
    monkeypatch.setattr(warmup, "STATES_MAX", 5)
    one = Sending()

    for i in range(20):
        one.send(NOON_S + i, 1, provider=f"site{i}")

    assert len(one.warm.dump()) == 5
    assert "out-9 > site19 0/1" in one.warm.dump()
