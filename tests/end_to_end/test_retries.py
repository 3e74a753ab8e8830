"""Retries: what is refused for now is tried again by the schedule, and every recipient has one final fate."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.sink import Profile, Sink
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

FINAL = {"delivered", "bounced", "expired"}
ZONE = {"again.test": {"MX": ["10 mx.again.test."]}, "mx.again.test": {"A": ["127.0.0.2"]}}
POLICY = """
match = { domains = ["again.test"] }
tls = "none"
[limits]
connections = 10
connection_rate = "none"
messages_per_connection = 0
rate = "none"
[retry]
schedule = ["1s"]
jitter = "0%"
expire = "1h"
"""


def fates_of(events: list[Event], recipient: str) -> list[Event]:
    """What was told of a recipient, in the order of time."""
    fates = [each for each in events if each.get("recipient") == recipient and each["event"] != "rejected"]
    return sorted(fates, key=lambda each: each["time"])


def all_final(*recipients: str) -> Callable[[list[Event]], bool]:
    """Whether every one of these recipients has its final fate."""

    def condition(events: list[Event]) -> bool:
        return {each["recipient"] for each in events if each["event"] in FINAL} >= set(recipients)

    return condition


async def test_what_is_refused_for_now_is_delivered_later(tmp_path: Path) -> None:
    """A reply of the 400s to RCPT or to the final dot, and a 421, put a message off by the schedule; every answer
    counts as an attempt, and what was refused twice is delivered at the third."""
    recipients = {"tempfail.2@again.test": 451, "421.1@again.test": 421, "deferdot.1@again.test": 451}
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="again")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"again": POLICY}) as server,
    ):
        for recipient in recipients:
            await server.send("a@shop.test", [recipient])
        events = await server.until_told(all_final(*recipients))
        again = sink.profiles["again"]

    for recipient, code in recipients.items():
        *deferred, delivered = fates_of(events, recipient)
        times = 2 if recipient.startswith("tempfail.2") else 1
        assert [(each["event"], each["code"], each["attempt"]) for each in deferred] == [
            ("deferred", code, number) for number in range(1, times + 1)
        ]
        assert (delivered["event"], delivered["attempt"]) == ("delivered", times + 1)
        assert all(each["next_attempt"] >= each["time"] + 0.99 for each in deferred)
        assert again.attempts[recipient] == times + 1
        assert again.by_recipient()[recipient] == 1


async def test_recipients_of_one_transaction_have_fates_of_their_own(tmp_path: Path) -> None:
    """One message for four: two are delivered at once and never again, one bounces, one is tried again."""
    good, unknown, later = ["b@again.test", "c@again.test"], "unknown@again.test", "tempfail.1@again.test"
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="again")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"again": POLICY}) as server,
    ):
        await server.send("a@shop.test", [good[0], unknown, later, good[1]])
        await server.send("a@shop.test", ["spam@again.test"])
        events = await server.until_told(all_final(*good, unknown, later, "spam@again.test"))
        again = sink.profiles["again"]

    assert again.recipients_max == 4
    assert [delivery.recipients for delivery in again.deliveries] == [tuple(good), (later,)]
    for recipient in good:
        assert [(each["event"], each["attempt"]) for each in fates_of(events, recipient)] == [("delivered", 1)]
    assert [(each["event"], each["code"], each["enhanced"]) for each in fates_of(events, unknown)] == [
        ("bounced", 550, "5.1.1")
    ]
    assert [(each["event"], each["attempt"]) for each in fates_of(events, later)] == [("deferred", 1), ("delivered", 2)]
    assert [(each["event"], each["stage"]) for each in fates_of(events, "spam@again.test")] == [("bounced", "content")]


async def test_a_message_that_perhaps_arrived_is_tried_again_at_the_same_host(tmp_path: Path) -> None:
    """Where the connection broke after the final dot, the retry goes to the host that may have the message, although
    another one is as good."""
    zone = {
        "pair.test": {"MX": ["10 mx1.pair.test.", "10 mx2.pair.test."]},
        "mx1.pair.test": {"A": ["127.0.0.2"]},
        "mx2.pair.test": {"A": ["127.0.0.3"]},
    }
    policy = POLICY.replace("again.test", "pair.test")
    recipients = [f"dropdot.1+{number}@pair.test" for number in range(8)]
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name="one", latency_s=0.1), Profile(name="two", latency_s=0.1)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"pair": policy}) as server,
    ):
        one, two = sink.profiles["one"], sink.profiles["two"]
        await asyncio.gather(*(server.send("a@shop.test", [recipient]) for recipient in recipients))
        events = await server.until_told(all_final(*recipients))

    for recipient in recipients:
        assert sorted((one.attempts[recipient], two.attempts[recipient])) == [0, 2]
        uncertain, delivered = fates_of(events, recipient)
        assert (uncertain["event"], uncertain["stage"], uncertain["attempt"]) == ("deferred", "content", 1)
        assert uncertain["uncertain"]
        assert (delivered["event"], delivered["attempt"]) == ("delivered", 2)
        assert delivered["host"] == uncertain["host"]


async def test_what_expires_is_told_so_and_tried_no_more(tmp_path: Path) -> None:
    """`expire = "1s"`, or `X-MTA-Expire` in the message, ends the retries, also of mail whose site is down."""
    expiring = POLICY.replace('"1h"', '"1s"')
    down = POLICY.replace("again.test", "down.test")
    zone = ZONE | {"down.test": {"MX": ["10 mx.down.test."]}, "mx.down.test": {"A": ["127.0.0.3"]}}
    own = b"X-MTA-Expire: 2s\r\nSubject: test\r\n\r\nHello.\r\n"
    recipients = ["tempfail@again.test", "tempfail+own@again.test", "user@down.test"]
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name="again"), Profile(name="down", down=True)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"again": expiring, "down": down}) as server,
    ):
        await server.send("a@shop.test", recipients[:1])
        await server.send("a@shop.test", recipients[1:2], own)
        await server.send("a@shop.test", recipients[2:], own)
        events = await server.until_told(all_final(*recipients))
        attempts = sink.profiles["again"].attempts

    for recipient, after_s in zip(recipients, (1, 2, 2), strict=True):
        *deferred, expired = fates_of(events, recipient)
        assert {each["event"] for each in deferred} == {"deferred"}
        assert (expired["event"], expired["code"], expired["enhanced"]) == ("expired", 554, "5.4.7")
        assert expired["queued_s"] >= after_s
        assert expired["attempt"] == attempts[recipient]
    assert attempts["tempfail@again.test"] == 1
    assert attempts["tempfail+own@again.test"] in (1, 2)


async def test_a_greylisted_message_keeps_its_source(tmp_path: Path) -> None:
    """Of two sources each message is tried again from the one that was greylisted, which by then is known."""
    sources = "".join(
        f'[[source]]\nname = "{name}"\nipv4 = "127.0.0.{number}"\nehlo = "{name}.sources.test"\n'
        for name, number in (("a", 101), ("b", 102))
    )
    recipients = [f"user{number}@again.test" for number in range(10)]
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="again", greylist_s=0.8)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"again": POLICY}, more=sources) as server,
    ):
        for recipient in recipients:
            await server.send("a@shop.test", [recipient])
        events = await server.until_told(all_final(*recipients))
        again = sink.profiles["again"]

    assert set(again.attempts.values()) == {2}
    by_source = [tuple(each["source"] for each in fates_of(events, recipient)) for recipient in recipients]
    assert sorted(by_source) == [("a", "a")] * 5 + [("b", "b")] * 5


async def test_delayed_mail_leaves_when_it_is_due(tmp_path: Path) -> None:
    """`X-MTA-Send-At` holds a message back until then; its expiry counts from then, and its Date says then."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="again", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"again": POLICY}) as server,
    ):
        due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
        head = f"X-MTA-Send-At: {due.isoformat()}\r\nX-MTA-Expire: 3s\r\nSubject: test\r\n"
        await server.send("a@shop.test", ["user@again.test"], f"{head}\r\nHello.\r\n".encode())
        events = await server.until_told(all_final("user@again.test"))
        (delivery,) = sink.profiles["again"].deliveries

    (received,) = [each for each in events if each["event"] == "received"]
    (fate,) = fates_of(events, "user@again.test")
    assert received["time"] < due.timestamp()
    assert (fate["event"], fate["attempt"]) == ("delivered", 1)
    assert fate["time"] >= due.timestamp()
    lines = delivery.content.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert not any(line.startswith("X-MTA") for line in lines)
    (date,) = [line.removeprefix("Date: ") for line in lines if line.startswith("Date: ")]
    assert datetime.strptime(date, "%a, %d %b %Y %H:%M:%S %z").timestamp() >= due.timestamp()
