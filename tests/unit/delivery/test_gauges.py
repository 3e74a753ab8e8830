"""Gauges and counters: they agree with what happened, and with what is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery import gauges
from mta.delivery.dispatcher import UNUSED_SITE_S
from mta.reporting.worker_counts import Metrics, WorkerCounts
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly

BIG = '[match]\ndomains = ["a.test", "b.test"]\n'


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


async def counts_of(rig: DeliveryRig) -> WorkerCounts:
    counts = await rig.clerk.answer(Metrics())
    assert isinstance(counts, WorkerCounts), counts
    return counts


@swiftly
async def test_counters_agree_with_the_events(loop: SwiftLoop, tmp_path: Path):
    """Delivered, deferred, bounced, expired and cancelled recipients, in all and by policy."""
    default = PLAIN.replace('"1d"', '"10m"')
    async with Sink([Profile(name="a"), Profile(name="b"), Profile(name="c")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=default, big=BIG)
        rig.send("x@a.test", "y@a.test", "x@b.test", "unknown@b.test")
        rig.send("tempfail.1@a.test", "full@b.test")
        rig.send("x@c.test", "unknown@c.test", "full@c.test")
        await rig.until(lambda: len(rig.events("deferred")) == 3)
        await rig.act("cancel", recipient="full@c.test")
        await rig.settled()
        counts = await counts_of(rig)
        await rig.stop()

    for name in ("delivered", "deferred", "bounced", "expired", "cancelled"):
        assert getattr(counts, name) == len(rig.events(name)) > 0, name
    for policy in ("default", "big"):
        told = [line for line in rig.events() if line.get("policy") == policy]
        tally = counts.policies[policy]
        for name in ("delivered", "deferred", "bounced"):
            assert getattr(tally, name) == sum(line["event"] == name for line in told), (policy, name)
    assert (counts.messages, counts.recipients, counts.ready, counts.held, counts.suspended) == (0, 0, 0, 0, 0)
    assert counts.resident_bytes == 0
    assert counts.commits > 0
    assert counts.errors == 0


@swiftly
async def test_gauges_say_what_is(loop: SwiftLoop, tmp_path: Path):
    """Waiting, held, suspended, connections, and sites that are down."""
    async with Sink([Profile(name="a"), Profile(name="b"), Profile(name="c", latency_s=30.0)]) as sink:
        rig = rig_for(loop, tmp_path, sink, big=BIG)
        await sink.profiles["a"].set_down(True)
        for name in names(3, "a.test"):
            rig.send(name)
        for name in names(2, "c.test"):
            rig.send(name)
        await rig.suspend(rig.suspension(tenant="t"), rig.suspension(name="s2", site="mx.b.test"))
        rig.send("p@a.test", "q@b.test", tenant="t")
        for name in names(4, "b.test"):
            rig.send(name)
        rig.send("held@c.test", send_at_s=loop.wall_s() + 900)
        rig.send("later@c.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        await rig.act("hold", recipient="held@*")
        await rig.until(lambda: rig.dispatcher.connections == 2)
        counts = await counts_of(rig)
        await rig.stop()

    assert (counts.messages, counts.recipients) == (12, 13)
    assert counts.held == 1
    assert counts.suspended == 5
    assert counts.connections == 2
    assert counts.policies["big"].sites == 2
    assert counts.policies["big"].sites_down == 1
    assert counts.policies["big"].ready == 9
    assert counts.policies["default"].connections == 2
    assert counts.policies["default"].sites_down == 0


@swiftly
async def test_counters_outlive_a_site(loop: SwiftLoop, tmp_path: Path):
    """A destination that nobody uses is forgotten, what was counted is not; nor does asking change it."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, big=BIG)
        rig.send("x@a.test")
        await rig.settled()
        await asyncio.sleep(UNUSED_SITE_S * 2)
        assert rig.dispatcher.domains.sites == {}
        rig.send("y@a.test")
        await rig.settled()
        first, second = await counts_of(rig), await counts_of(rig)
        await rig.stop()

    assert first.policies["big"].delivered == 2
    assert first == second


@swiftly
async def test_a_reload_counts_on(loop: SwiftLoop, tmp_path: Path):
    """Mail of a destination whose policy changed is counted by the new one's name."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.send("x@a.test")
        await rig.settled()
        rig.reload(big=BIG)
        rig.send("y@a.test")
        await rig.settled()
        counts = await counts_of(rig)
        await rig.stop()

    assert counts.policies["default"].delivered == 1
    assert counts.policies["big"].delivered == 1


@swiftly
async def test_many_sites_are_counted_in_slices(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The loop turns in between."""
    monkeypatch.setattr(gauges, "SITES_AT_ONCE", 2)
    async with Sink([Profile(name=name) for name in "abcde"]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        for name in "abcde":
            rig.send(f"x@{name}.test")
        await rig.settled()
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = loop.create_task(turn())
        counts = await counts_of(rig)
        turning.cancel()
        await rig.stop()

    assert turns >= 2
    assert counts.policies["default"].sites == 5
