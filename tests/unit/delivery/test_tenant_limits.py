"""What tenants allow themselves: for their mail alone, counted where it begins, and others get on meanwhile."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.reporting.waiting import Explain, Explained, Reason, RecipientRow, Show, Shown
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly

DAY_S, HOUR_S = 86_400.0, 3600.0


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, shop: str, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, tenants={"shop/default": shop}, **options)
    rig.domains_of(sink.profiles)
    return rig


def send(rig: DeliveryRig, tenant: str, count: int) -> list[str]:
    return [rig.send(f"{tenant}{name}", tenant=tenant) for name in names(count, "a.test")]


def gone(rig: DeliveryRig, tenant: str) -> int:
    return sum(line["recipient"].startswith(tenant) for line in rig.events("delivered"))


async def row(rig: DeliveryRig, message_id: str) -> tuple[RecipientRow, Reason]:
    shown = await rig.clerk.answer(Show(message_id))
    assert isinstance(shown, Shown)
    reason = shown.rows[0].reason
    assert reason is not None
    return shown.rows[0], reason


@swiftly
async def test_a_rate_is_kept_beside_the_policys_and_others_pass(loop: SwiftLoop, tmp_path: Path):
    """The tenant's mail goes as it says; that of others as fast as it can; `why` names the tenant's line."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, '[limits]\nrate = "2/s"\n')
        ids = send(rig, "shop", 60)
        send(rig, "other", 60)
        await asyncio.sleep(10)
        assert gone(rig, "other") == 60
        assert 17 <= gone(rig, "shop") <= 23
        waiting, reason = await row(rig, ids[-1])
        assert waiting.state == "ready"
        assert waiting.waits_for == "the rate of 2/s that the tenant shop has here"
        assert (reason.limit, reason.value) == ("limits.rate", "2/s")
        assert reason.origin.endswith("tenants/shop/default.toml:2")
        answer = await rig.clerk.answer(Explain("x@a.test", "a.test", [""], "shop"))
        assert isinstance(answer, Explained)
        assert (waiting.waits_for, "limits.rate") in [
            (each.words, each.reason.limit) for each in answer.outlooks[0].waits
        ]
        await rig.settled(60)
        assert not rig.events("deferred")
        await rig.stop()


@swiftly
async def test_a_change_of_owners_is_no_fresh_burst(loop: SwiftLoop, tmp_path: Path):
    """What a tenant used of its rate goes with the destination."""
    async with Sink([Profile(name="a")]) as sink:
        rigs = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            rigs.append(rig_for(loop, tmp_path / name, sink, '[limits]\nrate = "60/min"\n'))
        one, two = rigs
        send(one, "shop", 1)
        send(two, "other", 1)
        await asyncio.sleep(0.3)
        assert gone(one, "shop") == 1
        (destination,) = two.dispatcher.domains.destinations.values()
        (site,) = destination.sites.values()
        (before,) = one.dispatcher.domains.destinations.values()
        destination.restore([before.state()], site)
        send(two, "shop", 1)
        await asyncio.sleep(0.3)
        assert gone(two, "shop") == 0
        await two.settled(10)
        for rig in rigs:
            await rig.stop()


@swiftly
async def test_connections_are_transactions_at_once(loop: SwiftLoop, tmp_path: Path):
    """Never more of the tenant's are under way, and the next begins when one ends."""
    async with Sink([Profile(name="a", latency_s=0.5)]) as sink:
        rig = rig_for(loop, tmp_path, sink, "[limits]\nconnections = 2\n")
        most = 0
        ids = send(rig, "shop", 12)
        send(rig, "other", 12)
        for _ in range(40):
            await asyncio.sleep(0.1)
            under_way = [
                channel.job.tenant
                for site in rig.dispatcher.domains.sites.values()
                for pool in site.pools.values()
                for channel in pool.channels
                if channel.job is not None
            ]
            most = max(most, under_way.count("shop"))
        assert most == 2
        waiting, reason = await row(rig, ids[-1])
        assert waiting.waits_for == "the limit of 2 transactions at once that the tenant shop has here"
        assert reason.limit == "limits.connections"
        await rig.settled(30)
        await rig.stop()


@pytest.mark.parametrize(
    ("limit", "kind", "words"),
    [
        ("quota = { count = 5 }", "quota", "the next day of the quota of 5 messages a day (UTC)"),
        ('window = "00:00-01:00"', "window", "the hours in which mail may go: 00:00-01:00 UTC"),
    ],
)
@swiftly
async def test_quota_and_window_hold_for_the_tenant_alone(
    loop: SwiftLoop, tmp_path: Path, limit: str, kind: str, words: str
):
    """Others' mail goes; at midnight the rest does, without an attempt used up."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, f"[limits]\n{limit}\n")
        loop.jump_s += DAY_S - loop.wall_s() % DAY_S - 60
        ids = send(rig, "shop", 8)
        send(rig, "other", 8)
        await asyncio.sleep(20)
        assert gone(rig, "other") == 8
        assert gone(rig, "shop") == (5 if kind == "quota" else 0)
        left = [each for each in ids if each not in {line["id"] for line in rig.events("delivered")}]
        waiting, reason = await row(rig, left[-1])
        assert waiting.state == "ready"
        assert waiting.attempts == 0
        assert waiting.waits_for == f"{words}, that the tenant shop has here"
        assert reason.kind == kind
        assert reason.next_s == pytest.approx(loop.wall_s() + DAY_S - loop.wall_s() % DAY_S)
        await asyncio.sleep(41)
        if kind == "quota":
            assert gone(rig, "shop") == 8
        await rig.settled(30)
        await rig.stop()


@swiftly
async def test_recipients_and_size_are_the_tenants_own(loop: SwiftLoop, tmp_path: Path):
    """So many recipients go together; what is larger bounces and is not tried."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, '[limits]\nrecipients_per_transaction = 3\nmessage_size_max = "1KB"\n')
        rig.send(*names(8, "a.test"), tenant="shop")
        rig.send(*(f"o{name}" for name in names(8, "a.test")), tenant="other")
        large = rig.send("large@a.test", tenant="shop", content=b"x" * 2000)
        rig.send("olarge@a.test", tenant="other", content=b"x" * 2000)
        await rig.settled(30)
        sizes = sorted(len(each.recipients) for each in sink.profiles["a"].deliveries)
        assert sizes == [1, 2, 3, 3, 8]
        assert [line["id"] for line in rig.events("bounced")] == [large]
        assert rig.events("bounced")[0]["enhanced"] == "5.3.4"
        await rig.stop()


@swiftly
async def test_a_reload_changes_and_ends_what_a_tenant_said(loop: SwiftLoop, tmp_path: Path):
    """In the middle of its mail: what is parked goes on by what holds now."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, "[limits]\nquota = { count = 5 }\n")
        loop.jump_s += DAY_S / 2 - loop.wall_s() % DAY_S + DAY_S
        send(rig, "shop", 30)
        await asyncio.sleep(10)
        assert gone(rig, "shop") == 5
        rig.tenants = {"shop/default": "[limits]\nquota = { count = 12 }\n"}
        rig.reload()
        await rig.until(lambda: gone(rig, "shop") > 5, 1.0)
        await asyncio.sleep(10)
        assert gone(rig, "shop") == 12
        rig.tenants = {}
        rig.reload()
        await rig.until(lambda: gone(rig, "shop") > 12, 1.0)
        await rig.settled(10)
        assert not rig.dispatcher.parking.active
        assert rig.dispatcher.parking.parts == 0
        await rig.stop()


@swiftly
async def test_retry_is_the_tenants_own(loop: SwiftLoop, tmp_path: Path):
    """Its schedule and its time to give up, key by key; others have the policy's; `why` names the tenant's line."""
    async with Sink([Profile(name="a", deferred_percent=100, deferred_times=99)]) as sink:
        shop = '[retry]\nschedule = ["200s"]\nexpire = "10m"\n'
        rig = rig_for(loop, tmp_path, sink, shop, default=PLAIN)
        shops, others = rig.send("x@a.test", tenant="shop"), rig.send("x@a.test", tenant="other")
        await asyncio.sleep(90)  # the site was left alone for a while behind the first
        deferred = {line["id"]: line for line in rig.events("deferred") if line["attempt"]}
        assert deferred[shops]["next_attempt"] - deferred[shops]["time"] == pytest.approx(200, abs=1)
        assert deferred[others]["next_attempt"] - deferred[others]["time"] == pytest.approx(300, abs=1)
        waiting, reason = await row(rig, shops)
        assert reason.limit == "retry.schedule"
        assert reason.value == "200s"
        assert reason.origin.endswith("tenants/shop/default.toml:2")
        assert waiting.expires_from.endswith("tenants/shop/default.toml:3")
        await asyncio.sleep(600)
        assert [line["id"] for line in rig.events("expired")] == [shops]
        await rig.stop()


@swiftly
async def test_what_waits_for_its_tenant_too_long_is_given_up(loop: SwiftLoop, tmp_path: Path):
    """When its time is over, though its hours are not here; and only then."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, '[limits]\nwindow = "00:00-01:00"\n[retry]\nexpire = "1m"\n')
        loop.jump_s += 2 * DAY_S - loop.wall_s() % DAY_S - DAY_S / 2
        ids = send(rig, "shop", 3)
        await asyncio.sleep(50)
        assert not rig.events("expired")
        await rig.settled(30)
        assert {line["id"] for line in rig.events("expired")} == set(ids)
        await rig.stop()
