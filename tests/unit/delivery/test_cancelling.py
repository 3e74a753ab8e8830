"""Cancelling with a notification: the sender hears of it once, or the recipient stays."""

import asyncio
from pathlib import Path
from typing import Any

from bench.sink import Profile, Sink
from mta.model.selection import Selection
from mta.reporting.questions import Act, Acted
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly

ALL = Selection(all=True)


def rig_for(loop: SwiftLoop, folder: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, folder, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


async def cancelled(rig: DeliveryRig) -> Acted:
    answer = await rig.clerk.answer(Act("cancel", ALL, "kim", notify=True))
    assert isinstance(answer, Acted), answer
    return answer


@swiftly
async def test_the_sender_hears_of_it(loop: SwiftLoop, tmp_path: Path):
    """Of all recipients of a message in one notification, whatever state they were in, and not by whom; the event log
    knows both."""
    async with Sink([Profile(name="a", down=True), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, wants_dsn=lambda envelope: True)
        rig.send("x@a.test", "full@b.test", "held@b.test", send_at_s=loop.wall_s() + 5)
        await asyncio.sleep(1)
        await rig.act("hold", recipient="held@*")
        await rig.until(lambda: len(rig.events("deferred")) >= 2)
        acted = await cancelled(rig)
        rig.is_clean()
        await rig.stop()

    assert (acted.touched, acted.messages, acted.left) == (3, 1, {})
    assert rig.dispatcher.held == 0
    assert rig.notices.released == 1
    [(notice, content, _)] = rig.notices.sent
    assert notice.recipients[0].address == "a@shop.test"
    assert content.count(b"Action: failed") == 3
    assert content.count(b"Status: 5.0.0") == 3
    assert b"Cancelled by the operator" in content
    assert b"kim" not in content
    events = rig.events("cancelled")
    assert {event["recipient"] for event in events} == {"x@a.test", "full@b.test", "held@b.test"}
    assert {(event["dsn"], event["text"]) for event in events} == {(notice.id, "Cancelled by kim")}


@swiftly
async def test_nobody_is_told_who_wants_nothing(loop: SwiftLoop, tmp_path: Path):
    """Notifications themselves, a tenant without notifications: cancelled silently."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, wants_dsn=lambda envelope: envelope.tenant != "quiet")
        rig.send("x@a.test", send_at_s=loop.wall_s() + 900, cause_id="m0")
        rig.send("x@a.test", send_at_s=loop.wall_s() + 900, tenant="quiet")
        await asyncio.sleep(1)
        acted = await cancelled(rig)
        await rig.stop()
    assert acted.touched == 2
    assert rig.notices.sent == []


@swiftly
async def test_who_cannot_be_told_of_stays(loop: SwiftLoop, tmp_path: Path):
    """Where the notification cannot be written the recipient waits as before: held, scheduled, or for its turn."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, wants_dsn=lambda envelope: True)
        rig.send("held@a.test", send_at_s=loop.wall_s() + 900)
        rig.send("later@a.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        await rig.act("hold", recipient="held@*")
        rig.notices.fails = True
        acted = await cancelled(rig)
        assert rig.dispatcher.held == 1
        await rig.until(lambda: rig.finals == 1)
        await asyncio.sleep(1_000)
        assert [event["recipient"] for event in rig.events("delivered")] == ["later@a.test"]
        rig.notices.fails = False
        again = await cancelled(rig)
        await rig.stop()

    assert acted.touched == 0
    assert acted.left == {"kept, because the notification to the sender could not be written": 2}
    assert again.touched == 1
    assert rig.dispatcher.held == 0


@swiftly
async def test_a_crash_in_between_cancels_nothing(loop: SwiftLoop, tmp_path: Path):
    """While the notification is on its way the recipients wait in the queue: nothing is recorded before it is safe."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, wants_dsn=lambda envelope: True)
        rig.send("x@a.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        rig.notices.holds = True
        asking = loop.create_task(cancelled(rig))
        await rig.until(lambda: bool(rig.notices.held))
        assert rig.events("cancelled") == []
        assert rig.store.parts_living == 1
        assert (await rig.act("hold")).left == {"being sent": 1}
        rig.notices.held.pop()()
        acted = await asking
        await rig.stop()
    assert acted.touched == 1
    assert rig.store.parts_living == 0
