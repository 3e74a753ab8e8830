"""Limits across destinations over real loopback sockets: mail of one tenant, campaign, sender domain or source to
several sites together."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from bench.sink import Profile, Sink
from mta.delivery.job import Job
from mta.handoff import frames
from mta.handoff.lending import Lending
from mta.handoff.link import Mesh
from mta.model.outcome import Reply
from mta.model.selection import Selection
from mta.reporting.waiting import List, Listed, Show, Shown, Summarized, Summary
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names, slow_signatures, written
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_policies.cross_limit import CrossLimit
from mta_policies.leases import Lease, Ledger
from mta_policies.schema import Quota
from mta_policies.units import Rate
from mta_policies.windows import window


def sites() -> list[Profile]:
    """Two of them."""
    return [Profile(name="a"), Profile(name="b")]


TOLD_S = 0.002  # events tell the time in milliseconds


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, *limits: CrossLimit, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, limits=limits, **options)
    rig.domains_of(sink.profiles)
    return rig


def times_of(rig: DeliveryRig, ids: Sequence[str]) -> list[float]:
    """When these were delivered, in order."""
    return sorted(line["time"] for line in rig.events("delivered") if line["id"] in ids)


def assert_within(times: Sequence[float], rate: Rate) -> None:
    """Never more at once than a second's worth, and no more than the rate afterwards: what is taken at MAIL is told a
    moment later."""
    burst = max(1.0, rate.per_second)
    for count, time_s in enumerate(times, 1):
        assert count <= burst + rate.per_second * (time_s - times[0] + TOLD_S) + 1e-6


@pytest.mark.parametrize("signs", [False, True])
@swiftly
async def test_one_rate_over_two_sites(loop: SwiftLoop, tmp_path: Path, signs: bool):
    """Mail of the tenant to both goes at its rate, in the order in which it came; another tenant's goes on."""
    rate = Rate(5, 1)
    async with Sink(sites()) as sink:
        signatures = slow_signatures(loop, 0.001) if signs else None
        rig = rig_for(loop, tmp_path, sink, CrossLimit("tenant", "shop", (rate,)), signatures=signatures)
        begun_s = loop.wall_s()
        shop = [rig.send(f"r{i}@{'ab'[i % 2]}.test", tenant="shop") for i in range(40)]
        other = [rig.send(name, tenant="news") for name in names(20, "a.test")]
        await rig.settled()
        await rig.stop()

    assert_within(times_of(rig, shop), rate)
    assert times_of(rig, shop)[-1] - begun_s < (40 - 5) / 5 * 1.1 + 1
    assert times_of(rig, other)[-1] - begun_s < 1


@swiftly
async def test_what_was_signed_is_not_signed_again(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both sites sign ahead what one rate then stops."""
    signatures, begun = slow_signatures(loop, 0.001), Counter[int]()
    begin = signatures.begin

    def counted(job: Job, done: Callable[[Reply | None], None]) -> Reply | None:
        begun[job.seq] += job.signature is None or (job.signature.fields is None and job.signature.waiting is None)
        return begin(job, done)

    monkeypatch.setattr(signatures, "begin", counted)
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("tenant", "*", (Rate(30, 60),)), signatures=signatures)
        for i in range(20):
            rig.send(f"r{i}@{'ab'[i % 2]}.test", tenant="shop")
        await rig.settled()
        await rig.stop()

    assert set(begun.values()) == {1}


@swiftly
async def test_what_is_over_a_quota_goes_in_the_next_hour(loop: SwiftLoop, tmp_path: Path):
    """Ten an hour: `why` names the limit, its place and when it goes on; the rest goes then."""
    quota = Quota(10, "hour")
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("campaign", "*", (), quota))
        ids = [rig.send(f"r{i}@{'ab'[i % 2]}.test", tenant="shop", campaign="spring") for i in range(15)]
        await rig.until(lambda: rig.finals == 10, 60.0)
        listed = await rig.clerk.answer(List(Selection(all=True)))
        summed = await rig.clerk.answer(Summary())
        assert isinstance(listed, Listed)
        assert isinstance(summed, Summarized)
        shown = await rig.clerk.answer(Show(listed.rows[0].id))
        assert isinstance(shown, Shown)
        reason = shown.rows[0].reason
        assert reason is not None
        next_s = reason.next_s
        await rig.settled(3700.0)
        await rig.stop()

    words = "the quota of campaign shop/spring: 10 per hour (UTC), mta.toml:41"
    assert {row.waits_for for row in listed.rows} == {words}
    assert {row.state for row in listed.rows} == {"ready"}
    assert sum(row.ready for row in summed.rows) == 5
    assert words in {row.waits_for for row in summed.rows}
    assert shown.rows[0].waits_for == words.removesuffix(", mta.toml:41")
    assert (reason.kind, reason.limit, reason.origin) == ("quota", "limit per campaign", "mta.toml:41")
    assert next_s == pytest.approx(round(next_s / 3600) * 3600, abs=0.1)
    assert min(times_of(rig, ids)[10:]) >= next_s - TOLD_S


@swiftly
async def test_hours_of_a_source(loop: SwiftLoop, tmp_path: Path):
    """Outside nothing of it begins."""
    now_min = int(loop.wall_s() // 60 % 1440)
    opens_min = (now_min + 60) % 1440
    hours = window(f"{opens_min // 60:02}:{opens_min % 60:02}-{(opens_min // 60 + 2) % 24:02}:{opens_min % 60:02} UTC")
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("source", "*", (), None, (hours,)))
        rig.send("r@a.test")
        rig.send("r@b.test")
        await rig.settled()
        await rig.stop()

    assert min(line["time"] for line in rig.events("delivered")) // 60 % 1440 == opens_min


@pytest.mark.parametrize(
    ("per", "name"),
    [("tenant", "shop"), ("campaign", "shop/spr*"), ("sender-domain", "*.test"), ("source", "system")],
)
@swiftly
async def test_each_kind_of_limit(loop: SwiftLoop, tmp_path: Path, per: Any, name: str):
    """Holds for whose name matches."""
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit(per, name, (Rate(1, 60),)))
        for recipient in ("r@a.test", "r@b.test"):
            rig.send(recipient, tenant="shop", campaign="spring")
        await rig.settled()
        await rig.stop()

    first_s, second_s = sorted(line["time"] for line in rig.events("delivered"))
    assert second_s - first_s >= 60 - TOLD_S


@swiftly
async def test_all_or_none(loop: SwiftLoop, tmp_path: Path):
    """What one limit keeps back uses nothing of another's quota."""
    limits = CrossLimit("tenant", "*", (), Quota(20, "day")), CrossLimit("campaign", "shop/slow", (Rate(1, 3600),))
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, *limits)
        slow = [rig.send(name, tenant="shop", campaign="slow") for name in names(5, "a.test")]
        await rig.until(lambda: rig.finals == 1, 60.0)
        fast = [rig.send(name, tenant="shop", campaign="fast") for name in names(19, "b.test")]
        await rig.until(lambda: rig.finals == 20, 60.0)
        await rig.stop()

    assert len(times_of(rig, slow)) == 1
    assert len(times_of(rig, fast)) == 19


@swiftly
async def test_what_was_not_said_to_anybody_is_not_counted(loop: SwiftLoop, tmp_path: Path):
    """A message that the peer cannot take bounces without a MAIL: its token goes to another."""
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("tenant", "*", (), Quota(2, "day")))
        rig.send("first@a.test", tenant="shop")
        await rig.until(lambda: rig.finals == 1, 60.0)
        rig.send("line\nend@a.test", tenant="shop")
        await rig.until(lambda: rig.finals == 2, 60.0)
        rig.send("second@a.test", tenant="shop")
        await rig.settled(600.0)
        await rig.stop()

    assert [line["stage"] for line in rig.events("bounced")] == ["local"]


@swiftly
async def test_the_most_urgent_first_and_campaigns_in_turns(loop: SwiftLoop, tmp_path: Path):
    """Of what waits for one token after the other."""
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("tenant", "*", (Rate(1, 60),)))
        for i in range(4):
            rig.send(f"big{i}@a.test", tenant="shop", campaign="big")
        await rig.until(lambda: rig.finals == 1, 10.0)
        for i in range(2):
            rig.send(f"small{i}@b.test", tenant="shop", campaign="small")
        rig.send("urgent@b.test", tenant="shop", priority=9)
        await rig.settled()
        await rig.stop()

    order = [line["recipient"].partition("@")[0] for line in rig.events("delivered")]
    assert order[1] == "urgent"
    assert order.index("small1") < order.index("big3")


@swiftly
async def test_what_waits_too_long_expires(loop: SwiftLoop, tmp_path: Path):
    """Parked by a limit it is given up at its time."""
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("tenant", "*", (), Quota(1, "month")), default=PLAIN)
        rig.send("first@a.test", tenant="shop")
        await rig.until(lambda: rig.finals == 1, 60.0)
        rig.send("waits@a.test", tenant="shop", expire_s=1800.0)
        begun_s = loop.wall_s()
        await rig.settled(7200.0)
        await rig.stop()

    (expired,) = rig.events("expired")
    assert expired["recipient"] == "waits@a.test"
    assert begun_s + 1799 < expired["time"] < begun_s + 1860


@swiftly
async def test_a_reload_changes_limits_in_the_middle_of_traffic(loop: SwiftLoop, tmp_path: Path):
    """A higher rate is used at once, a limit that is gone holds nobody, and a new one holds what waits."""
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("tenant", "*", (Rate(1, 3600),)))
        reserving = rig.dispatcher.reserving
        for name in names(50, "a.test"):
            rig.send(name, tenant="shop")
        await rig.until(lambda: rig.finals == 1, 60.0)
        faster = [CrossLimit("tenant", "*", (Rate(10, 1),))]
        reserving.change(faster, written(faster))
        await rig.until(lambda: rig.finals > 1, 1.0)
        await rig.until(lambda: rig.finals >= 21, 10.0)
        assert rig.finals < 40
        reserving.change([], [])
        await rig.until(lambda: rig.finals == 50, 2.0)
        slow = [CrossLimit("source", "*", (Rate(1, 60),))]
        reserving.change(slow, written(slow))
        for name in names(3, "b.test"):
            rig.send(name, tenant="shop")
        await rig.settled(600.0)
        await rig.stop()

    times = [line["time"] for line in rig.events("delivered")]
    assert times[51] - times[50] >= 60 - TOLD_S


@swiftly
async def test_a_site_that_is_down_uses_nothing_up(loop: SwiftLoop, tmp_path: Path):
    """Mail of the tenant to the other site gets all of its rate, though much waits before it."""
    rate = Rate(10, 1)
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("tenant", "*", (rate,)))
        for name in names(120, "a.test"):
            rig.send(name, tenant="shop")
        await rig.until(lambda: rig.finals > 10, 10.0)
        await sink.profiles["a"].set_down(True)
        await asyncio.sleep(5)
        begun_s = loop.wall_s()
        ids = [rig.send(name, tenant="shop") for name in names(50, "b.test")]
        await rig.until(lambda: len(times_of(rig, ids)) == 50, 60.0)
        took_s = loop.wall_s() - begun_s
        await sink.profiles["a"].set_down(False)
        await rig.settled()
        await rig.stop()

    assert took_s < (50 - 10) / 10 * 1.25 + 1
    assert_within(times_of(rig, list(rig.seqs)), rate)


@swiftly
async def test_mail_that_waits_for_two_limits_goes(loop: SwiftLoop, tmp_path: Path):
    """Each lets go of another message at the same moment, which lacks what the other one has: one of them goes."""

    def limits(tenant: Rate, *source: Rate) -> list[CrossLimit]:
        return [CrossLimit("tenant", "shop", (tenant,)), *(CrossLimit("source", "*", (rate,)) for rate in source)]

    hourly, rate = Rate(1, 3600), Rate(30, 60)
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, *limits(hourly))
        for name in names(5, "a.test"):
            rig.send(name, tenant="shop")
        await rig.until(lambda: rig.finals == 1, 60.0)
        for changed in limits(hourly, hourly), limits(rate, rate):
            rig.dispatcher.reserving.change(changed, written(changed))
            rig.send("x@b.test", tenant="news")
            for name in names(4, "b.test"):
                rig.send(name, tenant="shop")
            await asyncio.sleep(1)
        await rig.settled(60.0)
        await rig.stop()


@swiftly
async def test_no_more_is_lent_where_nothing_can_go(loop: SwiftLoop, tmp_path: Path):
    """Hours alone give as much as anybody wants: mail for a site that is down does not want more and more of it."""
    always = CrossLimit("tenant", "shop", (), None, (window("00:00-24:00"),))
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink, CrossLimit("tenant", "shop", (Rate(1, 3600),)))
        reserving = rig.dispatcher.reserving
        for name in names(5, "a.test"):
            rig.send(name, tenant="shop")
        await rig.until(lambda: rig.finals == 1, 60.0)
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test", tenant="news")
        await asyncio.sleep(10)
        granted, grants = reserving.granted, 0

        def counted(lease: Lease) -> None:
            nonlocal grants
            grants += 1
            assert grants < 100, "it takes more and more"
            granted(lease)

        reserving.granted = counted  # type: ignore[method-assign]
        reserving.change([always], written([always]))
        await asyncio.sleep(10)
        await sink.profiles["a"].set_down(False)
        await rig.settled()
        await rig.stop()

    assert grants


class FarLender:
    """The link to another worker, which keeps all accounts and answers so much later; `is_dead`: never."""

    def __init__(self, rig: DeliveryRig, delay_s: float, *limits: CrossLimit) -> None:
        self._rig = rig
        self._delay_s = delay_s
        self.is_dead = False
        self.ledger = Ledger(limits, ZoneInfo, rig.loop.time(), is_fresh=True)
        rig.mesh.links = {1: self}
        lending = Lending(cast(Mesh, rig.mesh), rig.loop, 2, is_fresh=True)
        rig.dispatcher.reserving.start(lending, limits, written(limits))
        assert lending.lender("tenant shop") == 1

    def send(self, frame: frames.Borrow) -> None:
        self._rig.loop.call_later(self._delay_s, self._answer, frame)

    def _answer(self, frame: frames.Borrow) -> None:
        if self.is_dead:
            return
        now_s, wall_s = self._rig.loop.time(), self._rig.loop.wall_s()
        for lease, key, spent, is_done in frame.reports:
            self.ledger.report("0", lease, key, spent, now_s, wall_s, is_done=is_done)
        for key, wanted in frame.asks:
            self.ledger.ask("0", key, wanted, now_s, wall_s)
        leases = [(each.id, each.key, each.count, each.until_s) for _, each in self.ledger.serve(now_s, wall_s)]
        handle = cast(Any, self._rig.mesh.handlers[frames.Lend])
        self._rig.loop.call_later(self._delay_s, handle, None, frames.Lend(leases, []), b"")


@pytest.mark.parametrize(("delay_s", "is_parked"), [(0.001, False), (1.0, True)])
@swiftly
async def test_another_worker_lends(loop: SwiftLoop, tmp_path: Path, delay_s: float, is_parked: bool):
    """A connection waits a moment for its answer; where that takes longer mail is parked, and goes nevertheless, though
    what was lent may have to be asked for again."""
    parked = 0
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink)
        FarLender(rig, delay_s, CrossLimit("tenant", "*", (Rate(1000, 1),)))
        for i in range(30):
            rig.send(f"r{i}@{'ab'[i % 2]}.test", tenant="shop")
        while rig.finals < 30:
            parked = max(parked, rig.dispatcher.parking.parts)
            await asyncio.sleep(0.02)
        await rig.settled(60.0)
        await rig.stop()

    assert bool(parked) is is_parked


@swiftly
async def test_while_nobody_answers_others_go_on(loop: SwiftLoop, tmp_path: Path):
    """The worker that keeps the account is dead; when there is another one, what waits goes."""
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink)
        lender = FarLender(rig, 0.001, CrossLimit("tenant", "shop", (Rate(1000, 1),)))
        lender.is_dead = True
        for i in range(30):
            rig.send(f"r{i}@a.test", tenant="shop")
        others = [rig.send(name, tenant="news") for name in names(30, "a.test")]
        await rig.until(lambda: rig.finals == 30, 10.0)
        assert len(times_of(rig, others)) == 30
        lender.is_dead = False
        rig.dispatcher.reserving.lender_is_new(1)
        await rig.settled(60.0)
        await rig.stop()


@swiftly
async def test_nothing_is_asked_without_limits(loop: SwiftLoop, tmp_path: Path):
    """Where no limit holds for mail it is not looked at, and where none is configured nothing is."""
    async with Sink(sites()) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.send("r@a.test", tenant="shop")
        await rig.settled()

        assert not rig.dispatcher.reserving.active
        assert not rig.dispatcher.parking.active
        await rig.stop()
