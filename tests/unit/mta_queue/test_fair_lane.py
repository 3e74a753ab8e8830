"""The fair lane: turns among tenants and their campaigns, and what is spilled behind them, against plain lists."""

from collections import Counter
from itertools import groupby
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_queue.fair_lane import FairLane
from mta_queue.timetable import Lane

NEVER_S = 1e12


class Mail:
    """An entry; cold when the test says so."""

    def __init__(self, seq: int, tenant: str = "", campaign: str = "", priority: int = 5, cost: int = 1) -> None:
        self.seq, self.tenant, self.campaign, self.priority, self.cost = seq, tenant, campaign, priority, cost
        self.is_cold = False

    def __repr__(self) -> str:
        return f"{self.seq}:{self.tenant}/{self.campaign}"


def filled(*mails: Mail) -> FairLane[Mail]:
    lane: FairLane[Mail] = FairLane()
    for mail in mails:
        lane.push(mail.priority, mail)
    return lane


def popped(lane: FairLane[Mail], count: int = 0) -> list[Mail]:
    return [lane.pop() for _ in range(count or len(lane))]


def test_a_million_does_not_delay_ten():
    """A tenant with little mail has every second turn, however much another one has."""
    lane = filled(*(Mail(n, "big") for n in range(10_000)), *(Mail(n, "small") for n in range(10)))

    first = popped(lane, 21)

    assert [mail.seq for mail in first if mail.tenant == "small"] == list(range(10))
    assert lane.head_priority() == 5
    assert len(lane) == 10_010 - 21


def test_campaigns_do_not_multiply_turns():
    """A tenant with a hundred campaigns has as many turns as one with one; its campaigns share them."""
    many = [Mail(n, "many", f"c{n % 100}") for n in range(1000)]
    lane = filled(*many, *(Mail(n, "one", "c") for n in range(300)))

    turns = popped(lane, 400)

    assert Counter(mail.tenant for mail in turns) == {"many": 200, "one": 200}
    assert set(Counter(mail.campaign for mail in turns if mail.tenant == "many").values()) == {2}


def test_priority_before_fairness():
    """What is more urgent goes first, whoever sent it."""
    lane = filled(
        Mail(1, "a", priority=2), Mail(2, "b", priority=2), Mail(3, "a", priority=7), Mail(4, "a", priority=7)
    )

    assert [mail.seq for mail in popped(lane)] == [3, 4, 1, 2]


def test_large_messages_use_more_turns():
    """Of two tenants the one whose messages cost four turns sends a quarter as many."""
    lane = filled(*(Mail(n, "large", cost=4) for n in range(100)), *(Mail(n, "small") for n in range(400)))

    turns = Counter(mail.tenant for mail in popped(lane, 100))

    assert turns["large"] == 20
    assert turns["small"] == 80


def test_who_is_alone_owes_nothing():
    """Large messages of the only tenant go one after another, and what comes then does not pay for them."""
    lane = filled(*(Mail(n, "large", cost=16) for n in range(50)), Mail(99, "late"))
    popped(lane, 51)

    for number in range(4):
        lane.push(5, Mail(number, "large"))
        lane.push(5, Mail(number, "late"))
    assert [mail.tenant for mail in popped(lane, 4)] == ["large", "late"] * 2


def test_an_empty_lane():
    """Nobody's turn: peek says None, pop raises, also after there were several shares."""
    lane = filled(Mail(1, "a"), Mail(2, "b"))
    popped(lane)

    assert lane.peek() is None
    assert lane.head_priority() == -1
    with pytest.raises(IndexError):
        lane.pop()


def test_shares_are_forgotten():
    """A share without mail leaves nothing behind."""
    lane = filled(*(Mail(n, f"t{n}", f"c{n}") for n in range(1000)))
    popped(lane)

    assert lane.share_of(5, Mail(0, "t0", "c0")) is None
    lane.push(5, Mail(0, "t0", "c0"))
    assert lane.pop().tenant == "t0"


SHARES = [("", ""), ("a", ""), ("a", "x"), ("b", "x"), ("b", "y"), ("c", "x")]


@given(st.lists(st.sampled_from(range(len(SHARES))) | st.none(), max_size=150))
def test_at_most_one_round_between_two_turns(steps: list[int | None]):
    """While a share has mail, no tenant has two turns between two of its tenant's, nor a campaign of its tenant between
    two of its own; and each share's mail goes in its order."""
    lane: FairLane[Mail] = FairLane()
    waiting: list[Mail] = []
    since: dict[tuple[str, str], list[Mail]] = {}
    for number, step in enumerate(steps):
        if step is not None:
            mail = Mail(number, *SHARES[step])
            lane.push(5, mail)
            waiting.append(mail)
            since.setdefault((mail.tenant, mail.campaign), [])
            continue
        if not waiting:
            continue
        mail = lane.pop()
        key = (mail.tenant, mail.campaign)
        assert mail is next(other for other in waiting if (other.tenant, other.campaign) == key)
        waiting.remove(mail)
        since[key] = []
        living = {(other.tenant, other.campaign) for other in waiting}
        since = {share: between for share, between in since.items() if share in living}
        for (tenant, campaign), between in since.items():
            if (tenant, campaign) != key:
                between.append(mail)
            within = Counter(other.campaign for other in between if other.tenant == tenant)
            assert all(count <= 1 for count in within.values()), (tenant, campaign, between)
            gaps = ["own" if other.tenant == tenant else other.tenant for other in between]
            for is_own, gap in groupby(gaps, "own".__eq__):
                assert is_own or max(Counter(gap).values()) <= 1, gaps


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=100))
def test_one_share_is_a_plain_lane(steps: list[tuple[bool, int]]):
    """Mail of one tenant goes as in a lane without shares."""
    fair: FairLane[Mail] = FairLane()
    plain: Lane[Mail] = Lane()
    for number, (pushes, priority) in enumerate(steps):
        if pushes:
            mail = Mail(number, "t", "c", priority)
            fair.push(priority, mail)
            plain.push(priority, mail)
        elif plain:
            assert fair.peek() is plain.peek()
            assert fair.pop() is plain.pop()
        assert len(fair) == len(plain)
        assert fair.head_priority() == plain.head_priority()


class Spilling:
    """A fair lane whose mail is spilled and read back, beside one whose mail is not."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.lane: FairLane[Mail] = FairLane()
        self.mails: dict[int, Mail] = {}
        self.loading: list[tuple[object, list[int]]] = []

    def push(self, mail: Mail) -> None:
        self.mails[mail.seq] = mail
        self.lane.push(mail.priority, mail)

    def cool(self, mail: Mail, expires_s: float = NEVER_S) -> None:
        """It leaves memory, and what is too much is spilled."""
        mail.is_cold = True
        share = self.lane.share_of(mail.priority, mail)
        if share is not None:
            for cold in self.lane.overflow(share, self.kept, lambda other: other.is_cold):
                self.lane.spill(share, cold.seq, expires_s)
            self.lane.settle(share)

    def take(self, most: int) -> None:
        """Shares that run short are being read back."""
        while self.lane.short:
            share, _ = self.lane.short.popitem()
            self.loading.append((share, self.lane.take_spilled(share, most)))

    def bring(self) -> None:
        """What is being read back is there."""
        for share, seqs in self.loading:
            self.lane.returned(share, len(seqs), [self.mails[seq] for seq in seqs])  # type: ignore[arg-type]
        self.loading = []


@pytest.mark.parametrize("seed", range(30))
def test_spilled_mail_keeps_its_place(seed: int):
    """Whatever is spilled and read back, in whatever slices: each share's mail goes in its order, all of it, once."""
    random = Random(seed)
    spilling = Spilling(kept=random.choice((1, 4, 70)))
    expected: dict[tuple[int, str, str], list[int]] = {}
    uncooled: list[Mail] = []
    gone: list[Mail] = []
    most_spilled = 0
    for number in range(3000):
        tenant, campaign = random.choice(SHARES[: 1 + seed % 6])
        mail = Mail(number, tenant, campaign, random.choice((5, 5, 5, 7)))
        expected.setdefault((mail.priority, tenant, campaign), []).append(number)
        spilling.push(mail)
        uncooled.append(mail)
        if random.random() < 0.7 and len(uncooled) > 20:
            for cooling in uncooled[: random.randrange(20)]:
                uncooled.remove(cooling)
                spilling.cool(cooling)
        most_spilled = max(most_spilled, spilling.lane.spilled)
        act = random.random()
        if act < 0.2:
            spilling.take(random.randrange(1, 100))
        elif act < 0.4:
            spilling.bring()
        if random.random() < 0.3 and spilling.lane:
            gone.append(spilling.lane.pop())
        loading = sum(len(seqs) for _, seqs in spilling.loading)
        assert spilling.lane.waiting + loading + len(gone) == number + 1
    while spilling.lane.waiting:
        while spilling.lane:
            gone.append(spilling.lane.pop())
        spilling.take(50)
        spilling.bring()

    assert most_spilled > 500
    went: dict[tuple[int, str, str], list[int]] = {}
    for mail in gone:
        went.setdefault((mail.priority, mail.tenant, mail.campaign), []).append(mail.seq)
    assert went == expected


def test_what_is_over_comes_out():
    """Numbers whose minute has passed are taken out wherever they are; the others keep their order."""
    spilling = Spilling(kept=1)
    for number in range(3000):
        spilling.push(Mail(number))
    for number in range(3000):
        spilling.cool(spilling.mails[number], 60.0 * (number % 3))
    [share] = spilling.lane.shares()

    assert spilling.lane.expired(share, 59.0) == []
    first = spilling.lane.expired(share, 60.0)
    while more := spilling.lane.expired(share, 60.0):
        first += more

    assert sorted(first) == [number for number in range(1, 3000) if number % 3 == 0]
    rest = spilling.lane.take_spilled(share, 10_000)
    assert rest == [number for number in range(1, 3000) if number % 3]


def test_all_that_is_spilled_can_be_taken():
    """What goes another way is taken out at once, and what came later follows at once."""
    spilling = Spilling(kept=2)
    for number in range(500):
        spilling.push(Mail(number, "t"))
    for number in range(400):
        spilling.cool(spilling.mails[number])
    assert spilling.lane.before(5, 10) == 10
    assert spilling.lane.before(5, 450) is None

    [seqs] = spilling.lane.take_all_spilled()

    assert list(seqs) == list(range(2, 400))
    assert [mail.seq for mail in popped(spilling.lane)] == [0, 1, *range(400, 500)]
    assert spilling.lane.waiting == 0


def test_remove():
    """Some of what waits is taken out; the others keep their order and turns."""
    lane = filled(*(Mail(n, f"t{n % 3}") for n in range(30)))

    removed = lane.remove(lambda mail: mail.tenant == "t1")

    assert sorted(mail.seq for mail in removed) == list(range(1, 30, 3))
    assert [mail.seq for mail in popped(lane)] == [n for n in range(30) if n % 3 != 1]
