"""The checks of a crash round: each promise that is broken is noticed, and the story of the message is told."""

from typing import Any

import pytest

from bench.crash.checks import Facts, Notice, notice_of, problems, story
from bench.temper import Delivery

GOOD = "user@swift.test"
NOBODY = "unknown@swift.test"


def delivery(message: str, recipient: str = GOOD, *, connection: int = 1, content: bytes = b"") -> Delivery:
    return Delivery(message, "a@home.test", (recipient,), 100, 1.0, connection, content)


def received(message: str, *recipients: str, server_id: str = "s1") -> dict[str, Any]:
    return {
        "event": "received", "time": 1.0, "id": server_id, "worker": 0, "message_id": f"<{message}@load.test>",
        "recipients": list(recipients or [GOOD]),
    }  # fmt: skip


def fate(message: str, event: str = "delivered", recipient: str = GOOD, **more: Any) -> dict[str, Any]:
    about = {"event": event, "time": 2.0, "id": "s1", "worker": 0, "message_id": f"<{message}@load.test>"}
    return about | {"recipient": recipient} | more


def facts(**more: Any) -> Facts:
    """One message to one recipient, and all is well; `more` says what is not."""
    well: dict[str, Any] = {
        "recipients": {"m": [GOOD]},
        "accepted": {"m"},
        "uncertain": set(),
        "put_off": set(),
        "deliveries": {"swift": [delivery("m")]},
        "notices": [],
        "events": [received("m"), fate("m")],
    }
    return Facts(**(well | more))


def texts(given: Facts) -> list[str]:
    return [each.text for each in problems(given)]


def bounced(**more: Any) -> Facts:
    """One message to nobody, and its sender was told."""
    well: dict[str, Any] = {
        "recipients": {"m": [NOBODY]},
        "deliveries": {},
        "notices": [Notice("n1", "m", (NOBODY,))],
        "events": [received("m", NOBODY), fate("m", "bounced", NOBODY)],
    }
    return facts(**(well | more))


def test_nothing_is_wrong() -> None:
    """Delivered, bounced, or handed in without ever a reply: all fine."""
    assert problems(facts()) == []
    assert problems(bounced()) == []
    assert problems(facts(accepted=set(), uncertain={"m"})) == []
    assert problems(facts(accepted=set(), uncertain={"m"}, deliveries={}, events=[])) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (facts(deliveries={}, events=[received("m"), fate("m")]), ["lost: ", "told as delivered"]),
        (facts(accepted=set()), ["never accepted"]),
        (facts(recipients={"m": ["b@swift.test"]}), ["lost: ", "never accepted", "no `received`", "no final fate"]),
        (facts(events=[]), ["no `received`", "no final fate"]),
        (facts(events=[received("m"), fate("m"), fate("m", "bounced")]), ["several fates"]),
        (facts(events=[received("m"), fate("m"), fate("m", time=9.0)]), ["ended 2 times"]),
        (facts(queue_items=2), ["2 messages are left"]),
        (facts(queue_problems=["1.seg: a hole"]), ["a hole"]),
        (facts(notices=[Notice("n1", "m", (GOOD,))]), ["the sender was told"]),
        (bounced(notices=[]), ["never heard"]),
        (bounced(notices=[Notice("n1", "m", (NOBODY,)), Notice("n2", "m", (NOBODY,))]), ["in 2 notifications"]),
        (bounced(deliveries={"swift": [delivery("m", NOBODY)]}), ["refuses all mail"]),
    ],
)
def test_a_broken_promise_is_noticed(given: Facts, expected: list[str]) -> None:
    """Each in its own words."""
    found = texts(given)

    assert len(found) == len(expected)
    assert all(word in text for word, text in zip(expected, found, strict=True))


def test_a_line_that_is_told_again_says_the_same() -> None:
    """After a crash the log may have it twice."""
    assert problems(facts(events=[received("m"), received("m"), fate("m"), fate("m")])) == []


TWICE = {"swift": [delivery("m"), delivery("m", connection=2)]}


def test_what_comes_twice_is_told() -> None:
    """The server must have said that it may."""
    silent = facts(deliveries=TWICE)
    after_crash = facts(deliveries=TWICE, events=[received("m"), fate("m", after_crash=True)])
    uncertain = facts(deliveries=TWICE, events=[received("m"), fate("m", "deferred", uncertain=True), fate("m")])
    two_ids = [received("m"), fate("m"), fate("m", id="s2")]
    handed_in_twice = facts(deliveries=TWICE, events=two_ids, put_off={"m"})
    handed_in_once = facts(deliveries=TWICE, events=two_ids)

    assert texts(silent) == [f"{GOOD} has it 2 times, and the event log does not say why"]
    assert texts(handed_in_once) == [f"{GOOD} was handed in once and has several ids"]
    assert [problems(each) for each in (after_crash, uncertain, handed_in_twice)] == [[], [], []]


def test_only_the_end_of_a_connection_may_come_again() -> None:
    """What was recorded was recorded before what the same connection carried later."""
    recipients = {name: [GOOD] for name in "abc"}
    events = [each for name in "abc" for each in (received(name), fate(name, after_crash=True))]
    first = [delivery(name) for name in "abc"]

    def given(*again: str) -> Facts:
        second = [delivery(name, connection=2) for name in again]
        return facts(recipients=recipients, accepted=set("abc"), deliveries={"swift": first + second}, events=events)

    assert problems(given("b", "c")) == []
    assert [(each.message, "came again" in each.text) for each in problems(given("a"))] == [("a", True)]


def test_a_notification_is_read() -> None:
    """Its own id, what it tells about, and of whom."""
    content = (
        b"Message-ID: <n1@mail.server.test>\r\n\r\n--x\r\nFinal-Recipient: rfc822; unknown@swift.test\r\n"
        b"Final-Recipient: rfc822; unknown+1@swift.test\r\n--x\r\nX-Bench-Id: m-7\r\n\r\n"
    )

    notice = notice_of(delivery("m-7", "a@home.test", content=content))

    assert notice == Notice("n1@mail.server.test", "m-7", ("unknown@swift.test", "unknown+1@swift.test"))


def test_the_story_of_a_message() -> None:
    """What the client heard, every event, every delivery."""
    told = "\n".join(story(facts(deliveries=TWICE), "m"))

    assert "the client heard 250" in told
    assert "delivered user@swift.test" in told
    assert told.count("swift took it") == 2
