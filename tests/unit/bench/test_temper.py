"""What the sink's providers say to a recipient, and what they count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.temper import (
    Bucket,
    Counts,
    Delivery,
    Profile,
    Verdict,
    Verdicts,
    hash_percent,
    most_beyond_rate,
    most_in_window,
)

CLIENT = "127.0.0.1"


def verdict_of(recipient: str, now_s: float = 0.0, **habits: object) -> Verdict:
    profile = Profile(name="x", **habits)  # pyright: ignore[reportArgumentType] - the test names real fields
    return Verdicts(profile).verdict(CLIENT, "a@b.test", recipient, now_s)


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("someone@x.test", b"250 2.1.5"),
        ("unknown@x.test", b"550 5.1.1"),
        ("UNKNOWN@x.test", b"550 5.1.1"),
        ("unknown+17@x.test", b"550 5.1.1"),
        ("full@x.test", b"452 4.2.2"),
        ("tempfail@x.test", b"451 4.3.0"),
        ("421@x.test", b"421 4.7.0"),
        ("553@x.test", b"553 5.0.0"),
        ("450+a@x.test", b"450 4.0.0"),
        ("spam@x.test", b"250 2.1.5"),
        ("unknowns@x.test", b"250 2.1.5"),
        ("not.unknown@x.test", b"250 2.1.5"),
        ("4500@x.test", b"250 2.1.5"),
    ],
)
def test_the_local_part_decides_what_rcpt_gets(recipient: str, reply: bytes):
    """A word of the table counts only as the whole local part, with `.N` and `+tag` at most."""
    verdict = verdict_of(recipient)

    assert verdict.reply.startswith(reply)


def test_a_number_behind_the_word_limits_how_often_it_holds():
    """`tempfail.2@` is deferred twice and then taken; another tag is another address."""
    verdicts = Verdicts(Profile(name="x"))

    replies = [verdicts.verdict(CLIENT, "a@b.test", "tempfail.2+a@x.test", 0.0).reply[:3] for _ in range(4)]
    other = verdicts.verdict(CLIENT, "a@b.test", "tempfail.2+b@x.test", 0.0).reply[:3]

    assert replies == [b"451", b"451", b"250", b"250"]
    assert other == b"451"


def test_slow_recipients_are_taken_late():
    """`slow@` waits a second, `slow.3@` three, `hang@` for ever."""
    delays = [verdict_of(f"{word}@x.test").delay_s for word in ("slow", "slow.3", "hang")]

    assert delays == [1.0, 3.0, float("inf")]


def test_some_words_speak_at_the_final_dot():
    """The refusal of `spam@`, `deferdot@` and `dropdot@` comes after the content."""
    dots = [verdict_of(f"{word}@x.test").dot[:4] for word in ("spam", "deferdot", "dropdot", "plain")]

    assert dots == ["550 ", "451 ", "drop", ""]


def test_shares_of_recipients_are_deferred_and_bounced():
    """Of many addresses about the asked share is unknown and deferred; the deferred are taken the second time."""
    verdicts = Verdicts(Profile(name="x", bounced_percent=10.0, deferred_percent=20.0))
    addresses = [f"user{number}@x.test" for number in range(2_000)]

    first = [verdicts.verdict(CLIENT, "a@b.test", address, 0.0).reply[:3] for address in addresses]
    second = [verdicts.verdict(CLIENT, "a@b.test", address, 0.0).reply[:3] for address in addresses]

    assert 150 < first.count(b"550") < 250
    assert 300 < first.count(b"451") < 500
    assert second.count(b"550") == first.count(b"550")
    assert second.count(b"451") == 0


def test_greylisting_holds_until_its_time_has_passed():
    """The same client, sender and recipient is taken when the time has passed; another client begins anew."""
    verdicts = Verdicts(Profile(name="x", greylist_s=60.0))

    replies = [
        verdicts.verdict(client, "a@b.test", "user@x.test", now_s).reply[:3]
        for client, now_s in [("10.0.0.1", 0.0), ("10.0.0.1", 59.9), ("10.0.0.1", 60.0), ("10.0.0.2", 60.0)]
    ]

    assert replies == [b"451", b"451", b"250", b"451"]


def test_only_a_share_may_be_greylisted():
    """`greylist_percent` chooses the recipients by a hash of their own."""
    verdicts = Verdicts(Profile(name="x", greylist_s=60.0, greylist_percent=25.0))

    replies = [verdicts.verdict(CLIENT, "a@b.test", f"u{number}@x.test", 0.0).reply[:3] for number in range(1_000)]

    assert 180 < replies.count(b"451") < 320


@given(st.text(max_size=60))
def test_the_hash_of_an_address_is_a_percentage(address: str):
    """It is the same every time, and under 100."""
    share = hash_percent(address)

    assert share == hash_percent(address)
    assert 0.0 <= share < 100.0


def test_the_bucket_lets_a_second_through_at_once_and_then_the_rate():
    """Eight at once from a full bucket of 8/s, then one every eighth of a second."""
    bucket = Bucket()

    at_once = sum(bucket.take(8.0, 0, 100.0) for _ in range(20))
    later = [bucket.take(8.0, 0, 100.0 + step / 16) for step in range(1, 5)]

    assert at_once == 8
    assert later == [False, True, False, True]


def test_a_burst_of_one_spreads_evenly():
    """With `burst` 1 two in a row are never let through."""
    bucket = Bucket()

    taken = [bucket.take(50.0, 1, 100.0) for _ in range(3)]

    assert taken == [True, False, False]


def test_a_slow_rate_lets_one_through():
    """A rate under one a second has a burst of one."""
    bucket = Bucket()

    taken = [bucket.take(0.5, 0, at_s) for at_s in (10.0, 11.0, 12.0)]

    assert taken == [True, False, True]


@given(st.lists(st.floats(0, 100), max_size=200), st.floats(0.1, 10.0))
def test_the_fullest_window_is_found(times_s: list[float], window_s: float):
    """It equals the fullest of the windows that begin at an event."""
    times_s.sort()

    most = most_in_window(times_s, window_s)

    by_hand = max((sum(last - window_s < each <= last for each in times_s) for last in times_s), default=0)
    assert most == by_hand


def test_ids_that_come_twice_are_seen():
    """Duplicates are counted as they come; messages without an id are none."""
    counts = Counts()

    for message_id in ("a", "b", "a", "", ""):
        counts.add(Delivery(message_id, "s@x.test", ("r@x.test",), 1, 0.0, 1, b""))

    assert counts.duplicates == 1
    assert counts.ids() == {"a": 2, "b": 1, "": 2}
    assert counts.by_recipient() == {"r@x.test": 5}


@pytest.mark.parametrize(
    ("times_s", "burst"),
    [
        ([], 0.0),
        ([7.0], 1.0),
        ([0.0, 0.1, 0.2, 0.3], 1.0),
        ([0.0, 0.0, 0.0, 0.1, 0.2], 3.0),
        ([0.0, 0.1, 0.2, 5.0, 5.0, 5.05], 2.5),
    ],
)
def test_a_burst_is_what_comes_beyond_the_rate_in_any_window(times_s: list[float], burst: float):
    """At ten a second: an even stream needs a burst of one, what comes together needs that many."""
    assert most_beyond_rate(times_s, 10.0) == pytest.approx(burst)


def test_a_provider_says_no_in_its_own_words():
    """Unknown, deferred and greylisted ones hear what the profile says; a 421 ends the connection."""
    words = Profile(
        name="x",
        unknown_reply="550 Unknown user",
        deferred_reply="421 4.7.0 Later",
        greylisted_reply="450 4.2.0 Grey",
        deferred_percent=100.0,
    )
    verdicts = Verdicts(words)

    deferred = verdicts.verdict("c", "s@x.test", "r@x.test", 0.0)
    unknown = verdicts.verdict("c", "s@x.test", "unknown@x.test", 0.0)
    words.deferred_percent, words.greylist_s = 0.0, 5.0
    greylisted = verdicts.verdict("c", "s@x.test", "r@x.test", 0.0)

    assert (deferred.reply, deferred.close) == (b"421 4.7.0 Later\r\n", True)
    assert (unknown.reply, unknown.close) == (b"550 Unknown user\r\n", False)
    assert greylisted.reply == b"450 4.2.0 Grey\r\n"
