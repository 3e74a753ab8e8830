"""The demo's judgement: whatever one side tells otherwise than the others is found and named."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import dkim
import pytest

from bench.demo_cast import PROVIDERS, SHOP, Mailing, provider_of
from bench.demo_checks import Check, Seen, checks, is_notification, txt_from, verify
from bench.fates import Fates
from bench.keys import KeyFile, make_key
from bench.load import Result
from bench.rig import SinkCounts
from mta.testing.toy_dns import ToyDns

MESSAGES = 1_000
REPORT = b'Content-Type: multipart/report;\r\n\tboundary="b"\r\n\r\n--b\r\n\r\nAction: failed\r\n--b--\r\n'


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    return make_key(tmp_path_factory.mktemp("key"), "shop.test", bits=1_024)


def signed(key: KeyFile, text: bytes = b"Hello.\r\n") -> bytes:
    content = b"From: letters@shop.test\r\nSubject: Hello\r\n\r\n" + text
    return dkim.sign(content, key.selector.encode(), key.domain.encode(), key.path.read_bytes()) + content


def published(key: KeyFile) -> Callable[[str], bytes]:
    return lambda name: key.record.encode() if name.rstrip(".") == key.name else b""


@pytest.fixture
def seen(key: KeyFile) -> Seen:
    """A run in which all is well."""
    mailing, result, fates = Mailing(MESSAGES, 25), Result(), Fates(Path("none"), provider_of())
    result.accepted = [f"demo-{number}" for number in range(MESSAGES)]
    counts = {}
    for provider in PROVIDERS:
        bounced = mailing.undeliverable[provider.name]
        delivered = mailing.messages[provider.name] - bounced
        fates.tallies[provider.name].counts.update(delivered=delivered, bounced=bounced)
        counts[provider.name] = counts_of(delivered, provider.connections, signed=delivered)
    counts[SHOP] = counts_of(mailing.notifications, 1)
    return Seen(mailing, result, fates, counts, list(result.accepted), [signed(key), REPORT])


def counts_of(messages: int, connections: int, signed: int = 0) -> SinkCounts:
    return SinkCounts(
        address="127.0.0.2", port=25, connections_max=connections, connections_over=0, mails_over=0,
        messages=messages, recipients=messages, duplicates=0, replies={}, signed=signed,
    )  # fmt: skip


def wrong(seen: Seen, key: KeyFile) -> list[str]:
    return [text for each in checks(seen, published(key)) for text in each.wrong]


def test_all_is_well_where_everybody_tells_the_same(seen: Seen, key: KeyFile):
    """Nothing is wrong, and every claim is one sentence with its numbers."""
    held = checks(seen, published(key))

    assert [each.wrong for each in held] == [[], [], [], []]
    assert held[0].claim.startswith(f"{MESSAGES - seen.mailing.notifications:,} messages arrived")
    assert all(each.claim.endswith(".") for each in held)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda seen: seen.result.accepted.pop(), "not all of 1,000 messages were accepted"),
        (lambda seen: seen.arrived.remove("demo-7"), "1 messages never arrived: demo-7"),
        (lambda seen: seen.arrived.append("demo-7"), "1 messages arrived more than once: demo-7"),
        (lambda seen: seen.arrived.append("other-1"), "1 messages arrived that nobody had accepted: other-1"),
        (lambda seen: seen.fates.tallies["swift"].counts.update(delivered=1), "swift took"),
        (lambda seen: seen.fates.tallies["moody"].counts.update(bounced=1), "moody: "),
        (lambda seen: seen.fates.tallies["moody"].counts.update(expired=2), "moody: 2 messages were given up"),
        (lambda seen: setattr(seen.fates, "told_twice", 3), "3 fates were told twice"),
        (lambda seen: setattr(seen.counts["strict"], "messages", 2), "strict took 2 messages"),
        (lambda seen: setattr(seen.counts["strict"], "connections_max", 4), "strict saw 4 connections of 3 allowed"),
        (lambda seen: setattr(seen.counts["strict"], "connections_over", 1), "strict turned away 1 connections"),
        (lambda seen: setattr(seen.counts["distant"], "mails_over", 9), "distant refused 9 messages"),
        (lambda seen: setattr(seen.counts["swift"], "signed", 0), "swift: "),
        (lambda seen: setattr(seen.counts[SHOP], "messages", 0), "0 notifications reached the sender"),
        (lambda seen: setattr(seen.counts[SHOP], "duplicates", 1), "1 notifications came twice"),
        (lambda seen: seen.samples.append(REPORT.replace(b"failed", b"delayed")), "1 notifications do not say"),
        (lambda seen: seen.samples.pop(0), "no sample was kept"),
        (lambda seen: seen.samples.append(b"From: a\r\n\r\nb\r\n"), "1 of 2 signatures cannot be verified"),
    ],
)
def test_what_one_side_tells_otherwise_is_named(seen: Seen, key: KeyFile, change: Callable[[Seen], object], what: str):
    """Each of the ways in which a run can go wrong has its words."""
    change(seen)

    assert any(text.startswith(what) for text in wrong(seen, key)), wrong(seen, key)


def test_of_many_missing_ones_a_few_are_shown(seen: Seen, key: KeyFile):
    """A number and three examples, however many there are."""
    first = wrong(seen._replace(arrived=[]), key)[0]

    assert first == "1,000 messages never arrived: demo-0, demo-1, demo-2 ..."


def test_a_signature_is_verified_with_the_published_key(key: KeyFile):
    """A changed byte, another key or none: it does not verify."""
    content = signed(key)

    assert verify(content, published(key))
    assert not verify(content.replace(b"Hello.", b"Hallo."), published(key))
    assert not verify(content, lambda name: b"")
    assert not verify(content, lambda name: b"v=DKIM1; k=rsa; p=")


async def test_the_key_comes_from_the_dns(key: KeyFile):
    """The record's pieces are put together; of a name without a record nothing is known."""
    async with ToyDns(key.zone) as dns:
        txt = txt_from(int(dns.address.rpartition(":")[2]))

        found = await asyncio.to_thread(txt, f"{key.name}.")
        missing = await asyncio.to_thread(txt, "other._domainkey.shop.test.")

    assert found.decode() == key.record
    assert missing == b""


@pytest.mark.parametrize(
    ("content", "is_one"),
    [
        (REPORT, True),
        (REPORT.replace(b"multipart/report", b"Multipart/Report"), True),
        (b"Subject: About\r\n\r\nContent-Type: multipart/report\r\n", False),
    ],
)
def test_a_notification_is_known_by_its_header(content: bytes, is_one: bool):
    """Not by what somebody writes in a body."""
    assert is_notification(content) is is_one


def test_a_check_that_holds_has_nothing_wrong():
    """The two belong together."""
    assert not Check("It holds.", []).wrong
