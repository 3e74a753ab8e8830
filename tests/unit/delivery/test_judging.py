"""What rules make of answers, over real loopback sockets: categories, dispositions, and what is told of them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.testing.delivery_rig import PLAIN, DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly

RULES = (
    PLAIN
    + """
[[rule]]
name = "throttled"
when = { code = "550", text = "frequency limited" }
then = [{ action = "defer", after = "1h" }]

[[rule]]
name = "gone"
when = { code = "451", text = "never again" }
then = [{ action = "bounce" }, { action = "category", category = "spam-related" }]

[[rule]]
name = "later"
when = { code = "4xx", text = "come back" }
then = [{ action = "defer", after = "2h" }]
"""
)


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


def first_defers(reply: str) -> Profile:
    """Each recipient is refused once."""
    return Profile(name="a", deferred_percent=100, deferred_reply=reply)


@swiftly
async def test_a_refusal_that_is_a_deferral(loop: SwiftLoop, tmp_path: Path):
    """A 5xx that means "too fast": nobody is told that the address is bad, and it is tried again after an hour."""
    async with Sink([first_defers("550 5.7.1 Mail frequency limited")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=RULES)
        rig.send("x@a.test")
        await rig.settled()
        await rig.stop()

    [deferred] = rig.events("deferred")
    [delivered] = rig.events("delivered")
    assert (deferred["rule"], deferred["code"], deferred["attempt"]) == ("throttled", 550, 1)
    assert 3600 <= delivered["time"] - deferred["time"] < 3610
    assert delivered["attempt"] == 2


@swiftly
async def test_a_deferral_that_is_a_refusal(loop: SwiftLoop, tmp_path: Path):
    """The rule's category is told."""
    async with Sink([first_defers("451 4.7.1 never again")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=RULES)
        rig.send("x@a.test")
        await rig.settled()
        await rig.stop()

    [bounced] = rig.events("bounced")
    assert (bounced["rule"], bounced["category"], bounced.get("hard")) == ("gone", "spam-related", None)


@swiftly
async def test_what_matches_no_rule_has_a_category(loop: SwiftLoop, tmp_path: Path):
    """Refusals for good and for now; hard is what no waiting changes; what is delivered has none."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=RULES)
        rig.send("unknown@a.test")
        rig.send("full.1@a.test")
        rig.send("x@a.test")
        await rig.until(lambda: len(rig.events()) >= 3)
        await rig.stop()

    told = {line["recipient"]: (line.get("category"), line.get("hard"), line.get("rule")) for line in rig.events()}
    assert told["unknown@a.test"] == ("bad-mailbox", True, None)
    assert told["full.1@a.test"] == ("quota-issues", None, None)
    assert told["x@a.test"] == (None, None, None)


@swiftly
async def test_our_own_words_have_a_category(loop: SwiftLoop, tmp_path: Path):
    """A site that is down, and mail whose time is over behind it."""
    async with Sink([Profile(name="a", down=True)]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=RULES.replace('expire = "1d"', 'expire = "1h"'))
        rig.send("x@a.test")
        await rig.settled()
        await rig.stop()

    assert {line["category"] for line in rig.events("deferred")} == {"no-answer-from-host"}
    assert [line["category"] for line in rig.events("expired")] == ["message-expired"]


SAID = Reply(451, "4.7.1", "never again")


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        (Deferred(SAID, "content", uncertain=True, from_peer=False), "deferred"),
        (Deferred(SAID, "content"), "bounced"),
        (Deferred(SAID, "local", from_peer=False), "deferred"),
    ],
    ids=["perhaps it arrived", "said by the peer", "said by us"],
)
@swiftly
async def test_what_a_rule_may_give_up(loop: SwiftLoop, tmp_path: Path, outcome: Outcome, event: str):
    """Never what the other side perhaps has, and nothing for our own reasons."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=RULES)
        await _transaction(rig, outcome)
        await rig.stop()

    assert [line["event"] for line in rig.events()][:1] == [event]


@swiftly
async def test_each_recipient_of_a_transaction_is_judged(loop: SwiftLoop, tmp_path: Path):
    """RCPT is answered for each of them; who was too many goes at once and is judged by nobody."""
    said = [
        Delivered(Reply(250, "2.0.0", "ok")),
        Bounced(Reply(550, "5.7.1", "frequency limited"), "rcpt"),
        Bounced(Reply(550, "5.7.1", "frequency limited"), "rcpt"),
        Deferred(Reply(452, "4.5.3", "come back"), "rcpt"),
    ]
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=RULES)
        await _transaction(rig, *said)
        await rig.settled()
        await rig.stop()

    told = {(line["recipient"], line["event"]): line.get("rule") for line in rig.events()}
    assert told == {
        ("r0@a.test", "delivered"): None,
        ("r1@a.test", "deferred"): "throttled",
        ("r2@a.test", "deferred"): "throttled",
        ("r1@a.test", "delivered"): None,
        ("r2@a.test", "delivered"): None,
        ("r3@a.test", "delivered"): None,
    }


@swiftly
async def test_a_connection_that_breaks_before_mail_may_be_put_off(loop: SwiftLoop, tmp_path: Path):
    """A rule says when; the schedule is not used up."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=RULES)
        await _transaction(rig, Deferred(Reply(421, "4.7.0", "come back"), "mail"), was_used=True)
        await rig.settled()
        await rig.stop()

    [deferred] = rig.events("deferred")
    [delivered] = rig.events("delivered")
    assert (deferred["rule"], deferred["attempt"], delivered["attempt"]) == ("later", 0, 1)
    assert delivered["time"] - deferred["time"] >= 7200


async def _transaction(rig: DeliveryRig, *outcomes: Outcome, was_used: bool = False) -> None:
    """A message whose first transaction ends so, recipient by recipient."""
    engine = rig.dispatcher
    await rig.suspend(rig.suspension(all=True))
    rig.send(*(f"r{number}@a.test" for number in range(len(outcomes))))
    await rig.until(lambda: any(pool.lane for site in engine.domains.sites.values() for pool in site.pools.values()))
    [site] = engine.domains.sites.values()
    [pool] = site.pools.values()
    [job] = pool.take_jobs()
    engine.fates.settle(pool, job, outcomes, pool.way, was_used)
    await rig.suspend()


@swiftly
async def test_a_message_that_is_too_large_for_the_policy(loop: SwiftLoop, tmp_path: Path):
    """It bounces without a byte to the peer, whatever that offers; smaller ones go."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=PLAIN.replace("[retry]", 'message_size_max = "1KB"\n[retry]'))
        rig.send("big@a.test", content=b"x: y\r\n\r\n" + b"z" * 1000)
        rig.send("small@a.test")
        await rig.settled()
        await rig.stop()

    assert {line["recipient"]: line["event"] for line in rig.events()} == {
        "big@a.test": "bounced",
        "small@a.test": "delivered",
    }


@swiftly
async def test_a_complaint_halves_what_was_really_sent(loop: SwiftLoop, tmp_path: Path):
    """Two a second under a limit of ten: one a second is what is left, not five."""
    adapts = PLAIN.replace("[retry]", 'rate = "10/s"\n[retry]') + '[adapt]\non = ["later"]\n'
    adapts += '[[rule]]\nname = "later"\nwhen = { text = "come back" }\n'
    async with Sink([Profile(name="a", deferred_reply="451 4.7.1 come back")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=adapts)
        for number in range(90):
            rig.send(f"r{number}@a.test")
            await asyncio.sleep(0.5)
        sink.profiles["a"].profile.deferred_percent = 100
        rig.send("last@a.test")
        await rig.until(lambda: bool(rig.events("rule")))
        await rig.act("cancel")
        await rig.stop()

    [told] = rig.events("rule")
    assert (told["rule"], told["scope"]) == ("adapt", "path")
    assert told["reason"].partition(" to ")[0] == "10/s"
    rate = told["reason"].partition(" to ")[2].partition(":")[0]
    assert 55 <= int(rate.removesuffix("/min")) <= 65
