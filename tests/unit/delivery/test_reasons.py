"""Reasons: which value keeps a recipient back, where it is written, and when its turn comes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.reporting.waiting import Reason, RecipientRow, Show, Shown
from mta.resolve.errors import no_answer
from mta.testing.delivery_rig import DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly

RETRY = '[retry]\nschedule = ["5m", "15m"]\njitter = "0%"\nexpire = "1d"\n'


def rig_for(loop: SwiftLoop, folder: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, folder, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


async def why(rig: DeliveryRig, message_id: str) -> tuple[RecipientRow, Reason]:
    shown = await rig.clerk.answer(Show(message_id))
    assert isinstance(shown, Shown)
    [row] = shown.rows
    assert row.reason is not None
    return row, row.reason


@swiftly
async def test_a_rate_says_when_the_turn_comes(loop: SwiftLoop, tmp_path: Path):
    """The value as it is written, its file and line, how many are before it, and when they are gone."""
    limits = f'[limits]\nconnections = 3\nrate = "6/min"\n{RETRY}'
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=limits)
        ids = [rig.send(name) for name in names(10, "a.test")]
        await rig.until(lambda: rig.finals == 1)
        row, reason = await why(rig, ids[-1])
        now_s = loop.wall_s()
        await rig.until(lambda: rig.finals == 9, within_s=1_000)
        gone_s = loop.wall_s()
        await rig.stop()
    assert row.waits_for == "the rate of 6/min; 8 before it"
    assert (reason.kind, reason.limit, reason.value, reason.owners, reason.before) == (
        "rate",
        "limits.rate",
        "6/min",
        1,
        8,
    )
    assert reason.origin.endswith("policies-1/default.toml:3")
    assert reason.per_s == pytest.approx(0.1)
    assert reason.next_s == pytest.approx(now_s + 90, abs=11)
    assert reason.next_s == pytest.approx(gone_s + 10, abs=11)
    assert row.expires_from.endswith("default.toml:7")


@swiftly
async def test_a_limit_of_the_provider_says_which_table(loop: SwiftLoop, tmp_path: Path):
    """provider_limits, not the limits of the site."""
    big = '[match]\ndomains = ["a.test", "b.test"]\n[provider_limits]\nconnections = 1\n'
    async with Sink([Profile(name="a", latency_s=30.0), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, big=big)
        rig.send("x@a.test")
        await asyncio.sleep(1)
        _, reason = await why(rig, rig.send("x@b.test"))
        await asyncio.sleep(1)
        _, reason = await why(rig, "m2")
        await rig.stop()
    assert (reason.kind, reason.limit, reason.value) == ("connections", "provider_limits.connections", "1")
    assert reason.origin.endswith("big.toml:4")


@swiftly
async def test_the_schedule_says_its_step(loop: SwiftLoop, tmp_path: Path):
    """The time from the last attempt to the next, and where it is written; what the sender delayed has none."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=f"[limits]\nconnections = 3\n{RETRY}")
        rig.send("tempfail@a.test")
        await rig.until(lambda: len(rig.events("deferred")) == 2)
        _, reason = await why(rig, "m1")
        due_s = rig.events("deferred")[1]["next_attempt"]
        rig.send("later@a.test", send_at_s=loop.wall_s() + 500, expire_s=77.0)
        await asyncio.sleep(1)
        delayed, none = await why(rig, "m2")
        await rig.stop()
    assert (reason.kind, reason.limit, reason.value) == ("schedule", "retry.schedule", "15m")
    assert reason.next_s == pytest.approx(due_s, abs=0.01)
    assert reason.origin.endswith("default.toml:4")
    assert (none.kind, none.limit, none.next_s) == ("delayed", "", delayed.next_s)
    assert delayed.expires_from == "X-MTA-Expire of the message"


@swiftly
async def test_every_other_reason_has_its_kind(loop: SwiftLoop, tmp_path: Path):
    """A site that is down and mail hosts that are not known say when the next look is; a hold has no end."""
    async with Sink([Profile(name="a", down=True), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.resolver.found["lost.test"] = no_answer("lost.test", "time-out")
        await rig.suspend(rig.suspension(500.0, tenant="t"))
        until_s = loop.wall_s() + 500
        ids = [rig.send("x@a.test"), rig.send("x@lost.test"), rig.send("x@b.test", tenant="t")]
        ids.append(rig.send("held@b.test", send_at_s=loop.wall_s() + 900))
        await asyncio.sleep(30)
        await rig.act("hold", recipient="held@*")
        found = [await why(rig, message_id) for message_id in ids]
        now_s = loop.wall_s()
        await rig.stop()
    kinds = [reason.kind for _, reason in found]
    assert kinds == ["down", "lookup", "suspended", "held"]
    down, lookup, suspended, held = (reason for _, reason in found)
    assert now_s < down.next_s < now_s + 150
    assert now_s < lookup.next_s < now_s + 400
    assert suspended.next_s == pytest.approx(until_s, abs=1)
    assert held.next_s == 0.0


@swiftly
async def test_mail_without_a_job_is_told_of_alike(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is behind so many others that it is a number alone: why its pool does not go on, and how many are before."""
    monkeypatch.setattr("mta.delivery.spills.JOBS_KEPT", 10)
    async with Sink([Profile(name="a", down=True)]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        ids = [rig.send(name) for name in names(200, "a.test")]
        await rig.until(lambda: rig.dispatcher.spills.count > 100)
        row, reason = await why(rig, ids[-1])
        assert not rig.dispatcher.registry.jobs(rig.seqs[ids[-1]])
        retried = await rig.act("retry")
        held = await rig.act("hold")
        await sink.profiles["a"].set_down(False)
        await asyncio.sleep(1_000)
        released = await rig.act("release")
        await rig.settled()
        await rig.stop()
    assert (row.state, row.site, reason.kind) == ("ready", "mx.a.test", "down")
    assert 150 < reason.before < 200
    assert "mx.a.test, which does not take mail" in row.waits_for
    assert retried.touched + retried.sending == 200
    assert held.touched == released.touched == 200


@swiftly
async def test_fresh_mail_is_behind_numbers_too(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What has a job still, because it has just come, is told how many wait before it as numbers."""
    monkeypatch.setattr("mta.delivery.spills.JOBS_KEPT", 10)
    async with Sink([Profile(name="a", down=True)]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        for name in names(200, "a.test"):
            rig.send(name)
        await rig.until(lambda: rig.dispatcher.spills.count > 100)
        fresh = rig.send("fresh@a.test")
        await asyncio.sleep(0.1)
        assert rig.dispatcher.registry.jobs(rig.seqs[fresh])
        row, reason = await why(rig, fresh)
        await rig.act("cancel")
        await rig.stop()
    assert 190 <= reason.before <= 200
    assert row.waits_for.endswith(f"; about {reason.before} before it")


SPILLED = {
    "rate": f'[limits]\nconnections = 3\nrate = "6/min"\n{RETRY}',
    "connections": f"[limits]\nconnections = 1\n{RETRY}",
    "lookup": RETRY,
    "suspended": RETRY,
    "down": RETRY,
}


@pytest.mark.parametrize("kind", SPILLED)
@swiftly
async def test_a_number_waits_for_what_its_pool_waits_for(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """The last of many is told the same as one of the first, which has a job: only its place is another one."""
    monkeypatch.setattr("mta.delivery.spills.JOBS_KEPT", 10)
    async with Sink([Profile(name="a", down=kind == "down", latency_s=30.0 * (kind == "connections"))]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=SPILLED[kind])
        if kind == "lookup":
            rig.resolver.found["a.test"] = no_answer("a.test", "time-out")
        if kind == "suspended":
            await rig.suspend(rig.suspension(5_000.0, site="mx.a.test"))
        ids = [rig.send(name) for name in names(100, "a.test")]
        await rig.until(lambda: rig.dispatcher.spills.count > 50)
        await asyncio.sleep(5)
        with_job = next(each for each in ids[5:] if rig.dispatcher.registry.jobs(rig.seqs[each]))
        assert not rig.dispatcher.registry.jobs(rig.seqs[ids[-1]])
        first, of_first = await why(rig, with_job)
        last, of_last = await why(rig, ids[-1])
        await rig.act("cancel")
        await rig.stop()
    assert (first.state, first.site, first.policy) == (last.state, last.site, last.policy)
    assert last.state == ("suspended" if kind == "suspended" else "ready")
    assert (of_first.kind, of_first.limit, of_first.origin) == (of_last.kind, of_last.limit, of_last.origin)
    assert of_last.kind == kind
    assert first.waits_for.partition(";")[0] == last.waits_for.partition(";")[0]
    if kind in ("rate", "connections", "down"):
        assert of_last.before > 80 > 20 > of_first.before
        assert last.waits_for.endswith(f"; about {of_last.before} before it")
    if kind == "rate":
        assert of_last.next_s - of_first.next_s == pytest.approx(10 * (of_last.before - of_first.before), abs=11)
