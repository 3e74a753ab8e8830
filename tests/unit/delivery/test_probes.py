"""Probes, over real loopback sockets: silence, one connection or one transaction at a time, and one more while all is
well."""

import asyncio
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.testing.delivery_rig import PLAIN, names, slow_signatures
from mta.testing.firing_rig import OF_MESSAGES, SLOWED, delivered_to, fire, rig_for, rule, told
from mta.testing.swift_loop import SwiftLoop, swiftly

PROBED = [*(key.replace("micro", "mx.a.test") for key, _ in SLOWED), *(key for key, _ in OF_MESSAGES[:4])]


@pytest.mark.parametrize("key", [*PROBED, "dkim-domain shop.test > mx.a.test"])
@swiftly
async def test_a_probe_for_everybody(loop: SwiftLoop, tmp_path: Path, key: str):
    """Silence, then one connection, or one transaction at a time; where one is all that is allowed all is well then."""
    source = SourceAddress("s1", "127.0.1.1", "", "s1.test")
    async with Sink([Profile(name="a", latency_s=0.5)]) as sink:
        rig = rig_for(
            loop,
            tmp_path,
            sink,
            sources=[source],
            default=PLAIN.replace("connections = 10", "connections = 1"),
            signatures=slow_signatures(loop) if "dkim" in key else None,
        )
        await fire(rig, key, "probe", 86400.0, silence_s=60.0)
        start_s = rig.loop.wall_s()
        for number in range(40):
            address = "r0@a.test" if "recipient" in key else f"r{number}@a.test"
            rig.send(address, tenant="shop", campaign="spring")
        await rig.settled(3_600.0)
        await rig.stop()

    assert min(delivered_to(rig, "a.test")) - start_s >= 60
    assert told(rig) == ["stepped", "ended"]


@pytest.mark.parametrize("key", ["site mx.a.test > mx.a.test", "tenant shop > mx.a.test"])
@swiftly
async def test_a_probe(loop: SwiftLoop, tmp_path: Path, key: str):
    """Silence, then one connection, then one more at a time, until all is well: then it ends by itself."""
    async with Sink([Profile(name="a", latency_s=0.5)]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=PLAIN.replace("connections = 10", "connections = 2"))
        await fire(rig, key, "probe", 86400.0, silence_s=600.0)
        start_s = rig.loop.wall_s()
        for number in range(200):
            rig.send(f"r{number}@a.test", tenant="shop")
        await rig.settled(86400.0)
        await rig.stop()

    assert min(delivered_to(rig, "a.test")) - start_s >= 600
    assert told(rig) == ["stepped", "stepped", "ended"]


@pytest.mark.parametrize("key", ["site mx.a.test > mx.a.test", "tenant shop > mx.a.test"])
@swiftly
async def test_a_probe_with_mail_now_and_then(loop: SwiftLoop, tmp_path: Path, key: str):
    """What is over in an instant is seen as what the probe began, not as mail from before the silence."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=PLAIN.replace("connections = 10", "connections = 1"))
        await fire(rig, key, "probe", 86400.0, silence_s=600.0)
        start_s = rig.loop.wall_s()
        await asyncio.sleep(601.0)
        for number in range(11):
            rig.send(f"r{number}@a.test", tenant="shop")
            await rig.until(lambda count=number + 1: rig.finals == count)
            await asyncio.sleep(7.0)
        await rig.stop()

    assert max(delivered_to(rig, "a.test")) - start_s < 690
    assert told(rig) == ["stepped", "ended"]


@pytest.mark.parametrize("scope", ["site", "tenant"])
@swiftly
async def test_a_probe_that_fails_late_is_silent_to_the_end(loop: SwiftLoop, tmp_path: Path, scope: str):
    """Its time counts from the last failure, also where that one alone would not have set the rule off."""
    refuses = Profile(name="a", deferred_percent=100, deferred_reply="451 4.7.28 unusual rate of mail")
    probe = f'action = "probe", scope = "{scope}", for = "20m", silence = "10m"'
    async with Sink([refuses]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=rule(probe, 'trigger = { count = 2, in = "10m" }'))
        for name in names(2, "a.test"):
            rig.send(name, tenant="shop")
        await rig.until(lambda: told(rig) == ["fired"])
        await rig.act("cancel")
        await asyncio.sleep(1100.0)
        rig.send("tries@a.test", tenant="shop")
        await rig.until(lambda: len(told(rig)) == 3)
        refuses.deferred_percent = 0
        await rig.settled(86400.0)
        await rig.stop()

    fired, _, failed = rig.events("rule")[:3]
    assert failed["reason"] == "refused again: silence for 10 minutes"
    assert fired["until"] - failed["time"] < 100
    assert failed["until"] - failed["time"] == pytest.approx(1200.0)
    assert min(delivered_to(rig, "a.test")) - failed["time"] >= 599.99
