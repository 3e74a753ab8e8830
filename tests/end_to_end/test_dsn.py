"""Notifications: the sender of mail that is given up hears of it, once, through whatever dies meanwhile."""

import asyncio
import email
import smtplib
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.sink import Delivery, Profile, Sink
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

SENDERS = ["s0.test", "s1.test", "s2.test"]
ZONE: dict[str, Any] = {"again.test": {"MX": ["10 mx.again.test."]}, "mx.again.test": {"A": ["127.0.0.2"]}}
for domain in SENDERS:
    ZONE |= {domain: {"MX": [f"10 mx.{domain}."]}, f"mx.{domain}": {"A": ["127.0.0.3"]}}
LIMITS = """
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
# A policy for each domain, so that they belong to different workers.
POLICIES = {
    name: f'match = {{ domains = ["{domain}"] }}' + LIMITS
    for name, domain in [("again", "again.test"), *((each.partition(".")[0], each) for each in SENDERS)]
}
CONTENT = b"Subject: =?utf-8?q?F=C3=BCr_Sie?=\r\nMessage-ID: <1@shop.test>\r\nX-Mine: yes\r\n\r\nHello.\r\n"


def profiles() -> list[Profile]:
    """Who refuses some, and where the senders have their mail."""
    return [Profile(name="again"), Profile(name="home", keep="contents")]


def blocks_of(notice: Delivery) -> list[Any]:
    """The notification's fields about each recipient."""
    message: Any = email.message_from_bytes(notice.content)
    assert message.get_content_type() == "multipart/report"
    return message.get_payload()[1].get_payload()[1:]


def whom(notice: Delivery) -> list[str]:
    """The recipients that a notification tells about."""
    return [block["final-recipient"].removeprefix("rfc822; ") for block in blocks_of(notice)]


def of(events: list[Event], kind: str, message_id: str) -> list[Event]:
    return [each for each in events if each["event"] == kind and each["id"] == message_id]


async def test_the_sender_is_told(tmp_path: Path) -> None:
    """Of all recipients of a transaction at once, with each reply; the event log names the notification and tells what
    became of it. Nobody is told of mail from the null sender, nor where the tenant wants none."""
    more = '[[tenant]]\nname = "silent"\nsenders = ["*@s1.test"]\ndsn = "never"\n'
    async with (
        ToyDns(ZONE) as dns,
        Sink(profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=POLICIES, more=more) as server,
    ):
        recipients = ["unknown@again.test", "good@again.test", "554@again.test"]
        sent = await server.send("Anna@s0.test", recipients, CONTENT)
        await server.send("", ["unknown@again.test"])
        await server.send("b@s1.test", ["unknown@again.test"])
        home = sink.profiles["home"]
        await sink.until(lambda: len(home.deliveries) == 1)
        events = await server.until_told(
            lambda events: (
                sum(each["event"] == "bounced" for each in events) == 4
                and any(each["event"] == "delivered" and each["recipient"] == "Anna@s0.test" for each in events)
            )
        )
        status = await server.stop()

    assert status == 0
    [notice] = home.deliveries
    assert (notice.sender, list(notice.recipients)) == ("", ["Anna@s0.test"])
    assert [(block["final-recipient"], block["status"], block["remote-mta"]) for block in blocks_of(notice)] == [
        ("rfc822; unknown@again.test", "5.1.1", "dns; mx.again.test"),
        ("rfc822; 554@again.test", blocks_of(notice)[1]["status"], "dns; mx.again.test"),
    ]
    assert b"From: Mail Delivery System <MAILER-DAEMON@mail.server.test>\r\n" in notice.content
    assert b"X-Mine: yes\r\n" in notice.content
    bounced = of(events, "bounced", sent)
    told = {each["dsn"] for each in bounced}
    assert len(bounced) == 2
    assert len(told) == 1
    [received] = of(events, "received", told.pop())
    assert (received.get("sender", ""), received["recipients"], received["from_domain"]) == (
        "",
        ["Anna@s0.test"],
        "mail.server.test",
    )
    [delivered] = of(events, "delivered", received["id"])
    assert delivered["size"] == received["size"] == len(notice.content)
    assert sum("dsn" in each for each in events) == 2


async def test_mail_that_expires_is_told_of_with_its_last_answer(tmp_path: Path) -> None:
    """How long it was tried, and what was said last."""
    policies = POLICIES | {"again": POLICIES["again"].replace('"1h"', '"3s"')}
    async with (
        ToyDns(ZONE) as dns,
        Sink(profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=policies) as server,
    ):
        await server.send("anna@s0.test", ["tempfail@again.test"], CONTENT)
        home = sink.profiles["home"]
        await sink.until(lambda: len(home.deliveries) == 1)

    [block] = blocks_of(home.deliveries[0])
    assert (block["action"], block["status"]) == ("failed", "5.4.7")
    assert block["diagnostic-code"].startswith("smtp; 451 4.3.0")


async def test_a_domain_without_mail_is_told_of(tmp_path: Path) -> None:
    """No mail host was ever spoken to: the reason is ours. Several at once, each to its own sender."""
    async with (
        ToyDns(ZONE) as dns,
        Sink(profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=POLICIES) as server,
    ):
        for sender in SENDERS:
            await server.send(f"anna@{sender}", ["b@nowhere.test", "c@nowhere.test"], CONTENT)
        home = sink.profiles["home"]
        await sink.until(lambda: len(home.deliveries) == len(SENDERS))

    assert {notice.recipients[0] for notice in home.deliveries} == {f"anna@{sender}" for sender in SENDERS}
    for notice in home.deliveries:
        assert whom(notice) == ["b@nowhere.test", "c@nowhere.test"]
        assert all(block["diagnostic-code"].startswith("x-mta; 5") for block in blocks_of(notice))
        assert all(block["remote-mta"] is None for block in blocks_of(notice))


ROUNDS = 3
MESSAGES = 250


def hand_in(port: int, first: int, count: int) -> list[int]:
    """Messages to one who is unknown and one who is not, until the server is gone; -> the numbers of those accepted."""
    accepted: list[int] = []
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            for number in range(first, first + count):
                sender = f"n{number}@{SENDERS[number % len(SENDERS)]}"
                client.sendmail(sender, [f"unknown+{number}@again.test", f"good+{number}@again.test"], CONTENT)
                accepted.append(number)
    except (OSError, smtplib.SMTPException):
        pass  # it was killed
    return accepted


@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_neither_lose_nor_double_notifications(tmp_path: Path, seed: int) -> None:
    """The server, or one of its workers, is killed while mail bounces: each sender hears of the one recipient that
    bounced and of no other, once but for what was on its way to the sender at a kill."""
    random = Random(seed)
    async with (
        ToyDns(ZONE) as dns,
        Sink(profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=POLICIES) as server,
    ):
        home = sink.profiles["home"]
        accepted: list[int] = []
        in_flight = 0
        for turn in range(ROUNDS):
            loading = asyncio.create_task(asyncio.to_thread(hand_in, server.smtp_port, turn * MESSAGES, MESSAGES))
            goal = len(home.deliveries) + random.randrange(5, MESSAGES // 3)
            await sink.until(lambda goal=goal: len(home.deliveries) >= goal)
            in_flight += home.connections_open
            if turn == 1:
                server.kill_worker(random.randrange(server.workers))
            else:
                server.kill()
            accepted += await loading
            if turn != 1:
                await server.kill_and_wait()
                await server.start()

        def told() -> Counter[str]:
            return Counter(notice.recipients[0] for notice in home.deliveries)

        senders = {f"n{number}@{SENDERS[number % len(SENDERS)]}" for number in accepted}
        await server.until(lambda: senders <= set(told()), "every sender was told")
        await server.until_told(
            lambda events: (
                {f"n{number}" for number in accepted}
                <= {each["sender"].partition("@")[0] for each in events if each["event"] == "bounced"}
            )
        )
        status = await server.stop()

    assert status == 0
    assert "Traceback" not in server.log
    for notice in home.deliveries:
        assert whom(notice) == [f"unknown+{notice.recipients[0].partition('@')[0].removeprefix('n')}@again.test"]
    assert sum(times - 1 for times in told().values()) <= in_flight
    events = server.events()
    named = {each["dsn"] for each in events if each["event"] == "bounced"}
    assert named <= {each["id"] for each in events if each["event"] == "received"}


async def test_stops_neither_lose_nor_double_notifications(tmp_path: Path) -> None:
    """The server is stopped while mail bounces, with notifications on their way between its workers: each sender hears
    of it once, and after every start it goes on."""
    async with (
        ToyDns(ZONE) as dns,
        Sink(profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=POLICIES) as server,
    ):
        home = sink.profiles["home"]
        accepted: list[int] = []
        statuses: list[int] = []
        for turn in range(ROUNDS):
            loading = asyncio.create_task(asyncio.to_thread(hand_in, server.smtp_port, turn * MESSAGES, MESSAGES))
            goal = len(home.deliveries) + 7 * (turn + 1)
            await sink.until(lambda goal=goal: len(home.deliveries) >= goal)
            statuses.append(await server.stop())
            accepted += await loading
            await server.start()
        senders = {f"n{number}@{SENDERS[number % len(SENDERS)]}" for number in accepted}
        await server.until(lambda: senders <= {notice.recipients[0] for notice in home.deliveries}, "all were told")
        statuses.append(await server.stop())

    assert statuses == [0] * (ROUNDS + 1)
    assert "Traceback" not in server.log
    told = Counter(notice.recipients[0] for notice in home.deliveries)
    assert set(told.values()) == {1}
    bounced = Counter(each["sender"] for each in server.events() if each["event"] == "bounced")
    assert set(bounced) == set(told)
