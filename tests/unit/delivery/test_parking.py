"""Parked mail keeps its signature: what was signed before somebody kept it back is not signed again."""

import asyncio
from pathlib import Path

from bench.sink import Profile, Sink
from mta.delivery.signatures import Signatures
from mta.reporting.questions import Rules
from mta.testing.delivery_rig import DeliveryRig, names
from mta.testing.signing_rig import FakeRing, HandSigner, PromptSigner, ed25519_key
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_policies.answers import Answer
from mta_policies.firings import Firings
from mta_policies.rulebook import Action, ActionName, ScopeName
from mta_policies.units import rate

CONTENT = b"From: a@shop.test\r\n\r\nhello\r\n"


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, signer: HandSigner) -> DeliveryRig:
    signatures = Signatures(FakeRing({"shop.test": [ed25519_key("shop.test")]}).as_ring(), signer.as_signer(), loop)
    rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
    rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
    return rig


async def fire(rig: DeliveryRig, scope: ScopeName, what: str, action: ActionName, within_s: float) -> None:
    """As another worker's rule does."""
    done = Action(action, for_s=within_s, scope=scope, rate=(rate("6/min"),) if action == "slow" else ())
    answer = Answer(421, "4.7.28", "too fast", "mail")
    key = f"{scope} {what} > mx.a.test"
    change = Firings().fire("default", "elsewhere", done, key, answer, rig.loop.wall_s(), f"g{what}", scope=scope)
    assert await rig.clerk.answer(Rules([change])) is None


@swiftly
async def test_what_a_firing_slows(loop: SwiftLoop, tmp_path: Path):
    """Whose DKIM domain it is known by is signed when it is stopped."""
    signer = PromptSigner(loop, 0.001)
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer)
        await fire(rig, "dkim-domain", "shop.test", "slow", 7200.0)
        for name in names(6, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await rig.settled()
        await rig.stop()

    assert signer.asked == 6


@swiftly
async def test_what_an_admin_suspends(loop: SwiftLoop, tmp_path: Path):
    """Signed and ready when he does."""
    signer = HandSigner()
    async with Sink([Profile(name="a", latency_s=0.2)]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(0.1)
        signer.finish()
        await rig.suspend(rig.suspension(domain="a.test"))
        await asyncio.sleep(10.0)
        assert rig.dispatcher.parking.parts == 1
        await rig.suspend()
        await rig.settled(60.0)
        await rig.stop()

    assert signer.asked == 1


@swiftly
async def test_recipients_that_go_at_other_times(loop: SwiftLoop, tmp_path: Path):
    """Some of a message's recipients go at once, two are kept back by a firing each: one signature for all of them."""
    signer = PromptSigner(loop, 0.001)
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer)
        await fire(rig, "recipient", "r1@a.test", "suspend", 600.0)
        await fire(rig, "recipient", "r2@a.test", "suspend", 1200.0)
        rig.send(*names(4, "a.test"), content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(10.0)
        assert rig.finals == 2
        await asyncio.sleep(700.0)
        assert rig.finals == 3
        await rig.settled()
        await rig.stop()

    assert signer.asked == 1


@swiftly
async def test_a_signature_that_comes_after_the_message_was_parked(loop: SwiftLoop, tmp_path: Path):
    """It was being signed for another of its domains when some of it was kept back."""
    signer = HandSigner()
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, signer)
        rig.domain("b.test", "mx.b.test", address=sink.profiles["b"].address)
        await rig.suspend(rig.suspension(domain="a.test"))
        rig.send("x@a.test", "x@b.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(1.0)
        signer.finish()
        await rig.until(lambda: rig.finals == 1)
        await rig.suspend()
        await rig.settled(60.0)
        await rig.stop()

    assert signer.asked == 1
