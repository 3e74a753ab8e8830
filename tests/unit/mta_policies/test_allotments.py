"""Quotas that workers share: no interleaving of them, of crashes and of clocks passes one."""

from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from mta_policies.allotments import AGAIN_S, IDLE_S, KEPT_S, Accounts, Allotment, Draw
from mta_policies.schema import Quota

NOW_S = 1_800_000_000.0
DAY_S = 86400.0


def allotment(count: int = 1000, owners: int = 1, per: str = "day", now_s: float = NOW_S) -> Allotment:
    return Allotment("k", Quota(count, per), owners, ZoneInfo, now_s)  # type: ignore[arg-type]


def drawn(part: Allotment, accounts: Accounts, now_s: float = NOW_S) -> int:
    """Asks the account for what it wants."""
    assert part.wait_s(now_s) > 0 or part.wants
    draw = part.draw(now_s)
    if draw is None:
        return 0
    got = accounts.draw(draw)
    part.drawn(draw.start_s, got, now_s)
    return got


def test_a_hundredth_is_drawn_at_a_time_and_more_before_it_is_gone():
    """Half of it left is the sign to draw: who sends all the time need not wait."""
    accounts, part = Accounts(), allotment(1000)
    assert drawn(part, accounts) == 10
    for _ in range(4):
        part.take(NOW_S)
        assert part.draw(NOW_S) is None
    part.take(NOW_S)
    assert drawn(part, accounts) == 5
    assert part.free(NOW_S) == 10


def test_owners_hold_a_hundredth_together():
    """And each at least one."""
    assert drawn(allotment(1000, owners=5), Accounts()) == 2
    assert drawn(allotment(10, owners=5), Accounts()) == 1


def test_a_quota_that_is_used_up_waits_for_its_period_and_looks_for_what_came_back():
    """The account is asked again now and then; at midnight at once."""
    accounts, one, other = Accounts(), allotment(2, owners=2), allotment(2, owners=2)
    assert drawn(one, accounts) == drawn(other, accounts) == 1
    one.take(NOW_S)
    assert drawn(one, accounts) == 0
    assert one.is_used_up(NOW_S)
    assert one.wait_s(NOW_S) == AGAIN_S
    back = other.give_back(NOW_S, is_all=True)
    assert back is not None
    assert accounts.draw(back) == -1
    assert drawn(one, accounts, NOW_S + AGAIN_S) == 1
    one.take(NOW_S + AGAIN_S)
    ends_s = one.ends_s(NOW_S)
    assert drawn(one, accounts, ends_s - 20) == 0
    assert one.wait_s(ends_s - 20) == 20
    assert drawn(one, accounts, ends_s) == 1


def test_what_is_idle_goes_back_once():
    """And may not be used any more."""
    accounts, part = Accounts(), allotment(1000)
    drawn(part, accounts)
    assert part.give_back(NOW_S + IDLE_S) is None
    back = part.give_back(NOW_S + IDLE_S + 1)
    assert back is not None
    assert accounts.draw(back) == -10
    assert part.free(NOW_S + IDLE_S + 1) == 0
    assert part.give_back(NOW_S + 10 * IDLE_S) is None


def test_a_message_that_the_end_of_a_period_overtook_is_a_debt():
    """Looked at before midnight, sent after it: the new day has one less."""
    accounts, part = Accounts(), allotment(1000)
    drawn(part, accounts)
    end_s = part.ends_s(NOW_S)
    part.free(end_s)
    part.take(end_s)
    assert part.free(end_s) == 0
    assert drawn(part, accounts, end_s) == 11
    assert part.free(end_s) == 10


def test_accounts_forget_what_was_over_long_ago():
    """Not before clocks that were wrong are set right."""
    accounts = Accounts()
    accounts.draw(Draw("old", 0, 3600, 10, 5))
    accounts.draw(Draw("new", 0, int(DAY_S), 10, 5))
    accounts.forget(3600 + KEPT_S)
    assert len(accounts) == 2
    accounts.forget(3601 + KEPT_S)
    assert set(accounts.dump()) == {"new"}


def test_accounts_go_on_where_others_were():
    """By what they dumped; what is dumped does not change any more."""
    accounts, other = Accounts(), Accounts()
    accounts.draw(Draw("k", 0, 3600, 10, 6))
    dump = accounts.dump()
    accounts.draw(Draw("k", 0, 3600, 10, 1))
    other.load(dump)
    assert other.draw(Draw("k", 0, 3600, 10, 6)) == 4
    assert other.drawn("k", 0) == 10


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "kill", "stop", "restart", "clock"]),
        st.integers(0, 2),
        st.sampled_from([0.0, 1.0, 59.0, 3600.0, -3600.0, DAY_S, -DAY_S]),
    ),
    max_size=120,
)


@given(STEPS, st.integers(1, 400))
@settings(max_examples=60)
def test_no_interleaving_passes_a_quota(steps: list[tuple[str, int, float]], count: int):
    """Three workers send, die, stop cleanly, all at once at times, and the clock is set: in no hour more goes than the
    quota, and but for what crashes lose all of it does."""
    accounts, now_s = Accounts(), NOW_S
    workers = [allotment(count, 3, "hour") for _ in range(3)]
    went: dict[int, int] = {}
    for what, number, by_s in steps:
        worker = workers[number]
        if what == "clock":
            now_s += by_s
        elif what == "kill":
            workers[number] = allotment(count, 3, "hour", now_s)
        elif what == "stop":
            if (draw := worker.give_back(now_s, is_all=True)) is not None:
                accounts.draw(draw)
            workers[number] = allotment(count, 3, "hour", now_s)
        elif what == "restart":
            kept, accounts = accounts.dump(), Accounts()
            accounts.load(kept)
            workers = [allotment(count, 3, "hour", now_s) for _ in range(3)]
        else:
            for _ in range(10):
                if worker.wait_s(now_s) > 0:
                    drawn(worker, accounts, now_s)
                if worker.free(now_s):
                    hour = int(worker.ends_s(now_s))
                    worker.take(now_s)
                    went[hour] = went.get(hour, 0) + 1
    assert all(each <= count for each in went.values())


@given(st.integers(1, 1000), st.integers(1, 8))
@settings(max_examples=40)
def test_all_of_a_quota_can_be_used(count: int, owners: int):
    """Whoever sends: no owner's share is lost on others."""
    accounts, part = Accounts(), allotment(count, owners)
    went = 0
    while went <= count:
        if part.wait_s(NOW_S) > 0 and not drawn(part, accounts):
            break
        part.take(NOW_S)
        went += 1
    assert went == count
