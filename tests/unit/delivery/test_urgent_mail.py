"""Urgent mail of a pool: what is ready waits for it, as long as it is being signed or read back, and no longer."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery.backlog import SIGNED_AHEAD_MIN, URGENT_WAIT_S
from mta.delivery.signatures import Signatures
from mta.testing.delivery_rig import PLAIN, DeliveryRig
from mta.testing.signing_rig import FakeRing, HandSigner, PromptSigner, ed25519_key
from mta.testing.swift_loop import SwiftLoop, swiftly

CONTENT = b"From: a@shop.test\r\n\r\nhello\r\n"
ONE = PLAIN.replace("connections = 10", "connections = 1")


def rig_for(
    loop: SwiftLoop,
    tmp_path: Path,
    sink: Sink,
    signer: HandSigner | None,
    default: str = ONE,
    broken: Sequence[str] = (),
) -> DeliveryRig:
    ring = FakeRing({"shop.test": [ed25519_key("shop.test")]}, broken=broken).as_ring()
    signatures = Signatures(ring, signer.as_signer(), loop) if signer is not None else None
    rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures, default=default)
    rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
    return rig


def send(rig: DeliveryRig, name: str, priority: int, count: int, domain: str = "shop.test") -> None:
    for number in range(count):
        rig.send(f"{name}{number}@a.test", content=CONTENT, from_domain=domain, priority=priority)


def order(rig: DeliveryRig) -> list[str]:
    return [line["recipient"].partition("@")[0].rstrip("0123456789") for line in rig.events("delivered")]


def passed(rig: DeliveryRig) -> int:
    """How many of the others went before the last of the urgent ones, after the first of them."""
    went = order(rig)
    first, last = went.index("urgent"), len(went) - 1 - went[::-1].index("urgent")
    return went[first:last].count("news")


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
@swiftly
async def test_what_is_signed_waits(loop: SwiftLoop, tmp_path: Path, delay_s: float):
    """While urgent messages are signed one after another none of those that are ready goes between them."""
    async with Sink([Profile(name="a", latency_s=0.2)]) as sink:
        rig = rig_for(loop, tmp_path, sink, PromptSigner(loop, delay_s))
        send(rig, "news", 2, 60)
        await asyncio.sleep(0.6)
        send(rig, "urgent", 8, 20)
        await rig.settled()
        await rig.stop()

    assert passed(rig) == 0
    assert order(rig).index("urgent") <= 2


@pytest.mark.parametrize("delay_s", [None, 0.01], ids=["unsigned", "signed"])
@swiftly
async def test_what_is_in_memory_waits(loop: SwiftLoop, tmp_path: Path, delay_s: float | None):
    """An urgent message that had to wait for seconds is read back, and what has just come does not pass it."""
    signer = None if delay_s is None else PromptSigner(loop, delay_s)
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer, ONE.replace("[retry]", 'rate = "6/min"\n[retry]'))
        send(rig, "first", 9, 1)
        send(rig, "urgent", 8, 1)
        await asyncio.sleep(9.5)
        send(rig, "news", 2, 1)
        await rig.settled()
        await rig.stop()

    assert order(rig) == ["first", "urgent", "news"]


@swiftly
async def test_many_are_signed_at_once(loop: SwiftLoop, tmp_path: Path):
    """What is ready and waits takes no place from urgent mail: its signatures are made side by side."""
    signer = PromptSigner(loop, 0.05)
    async with Sink([Profile(name="a", latency_s=0.001)]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer)
        send(rig, "news", 2, 1000)
        await rig.until(lambda: rig.finals > 200)
        send(rig, "urgent", 8, 400)
        begun_s = loop.time()
        await rig.until(lambda: order(rig).count("urgent") == 400)
        took_s = loop.time() - begun_s
        await rig.stop()

    assert passed(rig) == 0
    assert took_s < 400 * 0.05 / 4


@pytest.mark.parametrize("crowd", [1, 6])
@swiftly
async def test_what_waits_asks_for_no_more(loop: SwiftLoop, tmp_path: Path, crowd: int):
    """However many urgent messages a newsletter waits for, no more of it is signed ahead than of them: another tenant's
    mail, which comes later, has the turn after those that were."""
    signer = HandSigner()
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer, ONE.replace("[retry]", 'rate = "1/s"\n[retry]'))
        send(rig, "news", 2, 200)
        await asyncio.sleep(0.5)
        signer.finish(len(signer.queue))
        for _ in range(8):
            await asyncio.sleep(0.9)
            send(rig, "urgent", 8, crowd)
            await asyncio.sleep(0.2)
            signer.finish(len(signer.queue))
            for _ in range(crowd - 1):
                await asyncio.sleep(1.0)
                signer.finish(len(signer.queue))
        rig.send("other@a.test", content=CONTENT, from_domain="shop.test", priority=2, tenant="other")
        while "other" not in order(rig):
            await asyncio.sleep(0.1)
            signer.finish(len(signer.queue))
        await rig.stop()

    went = order(rig)
    assert went[: 1 + 8 * crowd] == ["news", *["urgent"] * (8 * crowd)]
    assert went[1 + 8 * crowd :].index("other") <= 2 * max(crowd, SIGNED_AHEAD_MIN) + 1


@pytest.mark.parametrize("domain", ["shop.test", "plain.test"])
@swiftly
async def test_what_nobody_began_to_sign_goes_first(loop: SwiftLoop, tmp_path: Path, domain: str):
    """Where all urgent mail that is ready was cancelled meanwhile the next is signed, or has no key, and the others
    wait for it."""
    async with Sink([Profile(name="a", latency_s=0.3)]) as sink:
        rig = rig_for(loop, tmp_path, sink, PromptSigner(loop))
        send(rig, "news", 2, SIGNED_AHEAD_MIN)
        await asyncio.sleep(0.1)
        for number in range(SIGNED_AHEAD_MIN):
            rig.send(f"shop{number}@a.test", content=CONTENT, from_domain="shop.test", priority=8, tenant="shop")
        send(rig, "urgent", 8, 1, domain)
        await asyncio.sleep(0.1)
        await rig.act("cancel", tenant="shop")
        await rig.settled(5.0)
        await rig.stop()

    assert order(rig)[0] == "urgent"


@swiftly
async def test_a_late_signature_stops_nothing(loop: SwiftLoop, tmp_path: Path):
    """A helper that hangs: what is ready waits a moment, and then it goes."""
    signer = HandSigner()
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer)
        send(rig, "news", 2, 3)
        await asyncio.sleep(0.5)
        send(rig, "urgent", 8, 1)
        await asyncio.sleep(URGENT_WAIT_S / 2)
        signer.finish(2)
        await asyncio.sleep(URGENT_WAIT_S / 4)
        assert rig.finals == 0
        await asyncio.sleep(URGENT_WAIT_S / 4 + 0.1)
        assert order(rig)[:2] == ["news", "news"]
        while rig.finals < 4:
            signer.finish(len(signer.queue))
            await asyncio.sleep(0.1)
        await rig.settled()
        await rig.stop()


@pytest.mark.parametrize("ends", ["refused", "cancelled", "suspended"])
@swiftly
async def test_what_does_not_go_holds_nothing_up(loop: SwiftLoop, tmp_path: Path, ends: str):
    """An urgent message that cannot be signed, that is cancelled meanwhile, or kept back by who sends it."""
    signer = HandSigner()
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer)
        if ends == "suspended":
            await rig.suspend(rig.suspension(tenant="shop"))
        rig.send("first@a.test", content=CONTENT, from_domain="shop.test", priority=2)
        await asyncio.sleep(0.5)
        for number in range(3):
            rig.send(f"urgent{number}@a.test", content=CONTENT, from_domain="shop.test", priority=8, tenant="shop")
        await asyncio.sleep(0.1)
        signer.finish()
        await asyncio.sleep(0.05)
        assert rig.finals == (ends == "suspended")
        if ends == "cancelled":
            await rig.act("cancel", tenant="shop")
            signer.finish(len(signer.queue))
        while signer.queue:
            signer.refuse("no such key")
        await asyncio.sleep(0.05)
        assert [line["recipient"] for line in rig.events("delivered")] == ["first@a.test"]
        await rig.stop()


@swiftly
async def test_a_key_that_is_gone_holds_nothing_up(loop: SwiftLoop, tmp_path: Path):
    """Urgent mail whose key file cannot be read is put off, and the others go."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, PromptSigner(loop, 0.001), broken=["lost.test"])
        send(rig, "urgent", 8, 20, "lost.test")
        send(rig, "news", 2, 20)
        begun_s = loop.time()
        await rig.until(lambda: order(rig).count("news") == 20)
        assert loop.time() - begun_s < URGENT_WAIT_S
        await rig.stop()
