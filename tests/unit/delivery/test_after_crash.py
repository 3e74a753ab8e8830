"""After a crash: what was due then is told as perhaps delivered before, once, and nothing else is."""

import asyncio
from pathlib import Path

from bench.sink import Profile, Sink
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly


def rig_of(loop: SwiftLoop, tmp_path: Path, sink: Sink) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port)
    rig.domains_of(sink.profiles)
    return rig


def crash(rig: DeliveryRig, after_s: float = 0.0) -> None:
    """As a worker that finds no mark of a clean stop, at a start so much later."""
    rig.dispatcher.fates.crashed(rig.store.mark_position() + 1, rig.loop.wall_s() + after_s)


def flagged(rig: DeliveryRig) -> list[tuple[str, str]]:
    return [(each["event"], each["recipient"]) for each in rig.events() if each.get("after_crash")]


@swiftly
async def test_what_was_due_is_told_with_its_next_attempt(loop: SwiftLoop, tmp_path: Path):
    """Delivered, bounced or deferred: each may be a second time. What comes later is an attempt like any other."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        names = ["x@a.test", "unknown@a.test", "tempfail.1@a.test"]
        for name in names:
            rig.send(name, send_at_s=loop.wall_s() + 2)
        crash(rig, 3)
        await rig.settled()
        await rig.stop()

    assert sorted(flagged(rig)) == [
        ("bounced", "unknown@a.test"),
        ("deferred", "tempfail.1@a.test"),
        ("delivered", "x@a.test"),
    ]
    assert rig.dispatcher.fates.after_crash == 3
    assert [each["attempt"] for each in rig.events("delivered") if each["recipient"] == "tempfail.1@a.test"] == [2]


@swiftly
async def test_what_was_scheduled_for_later_was_not_on_its_way(loop: SwiftLoop, tmp_path: Path):
    """Nor was what came after the start."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        rig.send("later@a.test", send_at_s=loop.wall_s() + 100)
        await asyncio.sleep(1)
        crash(rig)
        rig.send("new@a.test")
        await rig.settled()
        await rig.stop()

    assert len(rig.events("delivered")) == 2
    assert flagged(rig) == []
    assert rig.dispatcher.fates.after_crash == 0


@swiftly
async def test_each_recipient_of_a_message_for_itself(loop: SwiftLoop, tmp_path: Path):
    """One waits for its retry, the other was due: only that one is told."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test", "tempfail.1@b.test")
        await rig.until(lambda: any(each["recipient"] == "tempfail.1@b.test" for each in rig.events("deferred")))
        crash(rig)
        await sink.profiles["a"].set_down(False)
        await rig.settled()
        await rig.stop()

    assert flagged(rig) == [("delivered", "x@a.test")]


@swiftly
async def test_after_a_clean_stop_nothing_is_told(loop: SwiftLoop, tmp_path: Path):
    """Nobody said that there was a crash."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        rig.send("x@a.test")
        await rig.settled()
        await rig.stop()

    assert flagged(rig) == []
