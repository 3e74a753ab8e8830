"""Suspensions over real loopback sockets: nothing that is meant goes, all else does, and the rest afterwards."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly

NOT_EARLIER_S = 0.001  # events tell the time in milliseconds


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


EVERYWHERE = [
    {"all": True},
    {"site": "mx.a.test"},
    {"policy": "default", "site": "mx.a.*"},
    {"domain": "a.test"},
    {"tenant": "shop"},
    {"campaign": "spring*"},
    {"sender": "*@shop.test"},
    {"recipient": "*@A.test"},
    {"source": "", "site": "*", "tenant": "SHOP"},
]


@pytest.mark.parametrize("chosen", EVERYWHERE, ids=str)
@swiftly
async def test_nothing_goes_before_the_end_and_everything_after(
    loop: SwiftLoop, tmp_path: Path, chosen: dict[str, Any]
):
    """Mail that waits and mail to come, however it is chosen."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        for name in names(5, "a.test"):
            rig.send(name, tenant="shop", campaign="spring-26")
        await asyncio.sleep(3)
        ends = rig.suspension(**chosen)
        await rig.suspend(ends)
        await sink.profiles["a"].set_down(False)
        for name in names(5, "a.test"):
            rig.send(f"new-{name}", tenant="shop", campaign="spring-26")

        await asyncio.sleep(595)
        assert rig.fates() == {}
        await rig.settled()
        await rig.stop()

    times = [line["time"] for line in rig.events("delivered")]
    assert min(times) >= ends.until_s - NOT_EARLIER_S
    assert max(times) < ends.until_s + 150  # the site was down, and is knocked at
    assert sum(sink.profiles["a"].by_recipient().values()) == 10


@swiftly
async def test_everything_else_goes(loop: SwiftLoop, tmp_path: Path):
    """Other tenants, other domains, other recipients of the same message."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension(tenant="t"), rig.suspension(name="s2", recipient="no@*"))

        rig.send("x@a.test", tenant="t")
        rig.send("x@a.test", tenant="u")
        rig.send("x@b.test", tenant="u")
        rig.send("yes@a.test", "no@a.test", "too@a.test", "no@b.test", tenant="u")
        await asyncio.sleep(5)
        assert len(rig.events("delivered")) == 4
        assert rig.dispatcher.parking.parts == 3
        rig.is_clean()
        await rig.settled()
        await rig.stop()

    assert sink.profiles["a"].by_recipient() == {"x@a.test": 2, "yes@a.test": 1, "too@a.test": 1, "no@a.test": 1}
    assert rig.dispatcher.parking.parts == 0


@swiftly
async def test_cold_mail_is_parked_too(loop: SwiftLoop, tmp_path: Path):
    """What only the envelope tells is looked at when a job has been read back."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        for number, name in enumerate(names(40, "a.test")):
            rig.send(name, tenant="t" if number % 2 else "u")
        await asyncio.sleep(30)
        assert rig.dispatcher.memory.resident_bytes == 0

        await rig.suspend(rig.suspension(tenant="t", within_s=1000.0))
        await sink.profiles["a"].set_down(False)
        await rig.until(lambda: rig.finals == 20 and rig.dispatcher.parking.parts == 20)
        assert rig.dispatcher.jobs == 0
        await rig.settled()
        await rig.stop()

    assert set(sink.profiles["a"].by_recipient().values()) == {1}


@swiftly
async def test_more_than_one_pump_can_park_is_parked_all_the_same(loop: SwiftLoop, tmp_path: Path):
    """A thousand messages of a suspended tenant do not keep the one behind them."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        for name in names(1000, "a.test"):
            rig.send(name, tenant="t")
        rig.send("last@a.test", tenant="u")
        await asyncio.sleep(3)
        await rig.suspend(rig.suspension(tenant="t", within_s=1000.0))

        await sink.profiles["a"].set_down(False)
        await rig.until(lambda: bool(rig.events("delivered")))
        assert rig.events("delivered")[0]["recipient"] == "last@a.test"
        await rig.settled()
        await rig.stop()

    assert len(sink.profiles["a"].by_recipient()) == 1001


@swiftly
async def test_it_ends_when_an_admin_says_so(loop: SwiftLoop, tmp_path: Path):
    """Mail flows at once, whether its pool or itself was suspended; the others go on."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        whole, parks, stays = (
            rig.suspension(site="mx.a.test"),
            rig.suspension(name="s2", domain="b.test", tenant="t"),
            rig.suspension(name="s3", recipient="stays@*", within_s=50.0),
        )
        await rig.suspend(whole, parks, stays)
        rig.send("x@a.test")
        rig.send("x@b.test", tenant="t")
        rig.send("stays@b.test", tenant="t")
        await asyncio.sleep(10)
        assert rig.events() == []

        await rig.suspend(stays, ended_by="me")
        await rig.until(lambda: rig.finals == 2, within_s=2.0)
        await rig.settled()
        await rig.stop()

    assert rig.events("delivered")[-1]["recipient"] == "stays@b.test"
    assert not rig.dispatcher.suspensions.active


@swiftly
async def test_what_is_kept_back_twice_waits_for_both(loop: SwiftLoop, tmp_path: Path):
    """The end of one suspension is none of the other."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        first, second = rig.suspension(60.0, tenant="t"), rig.suspension(120.0, "s2", domain="a.test")
        await rig.suspend(first, second)
        rig.send("x@a.test", tenant="t")
        await rig.settled()
        await rig.stop()

    assert rig.events("delivered")[0]["time"] >= second.until_s - NOT_EARLIER_S


@swiftly
async def test_what_is_over_its_time_is_given_up_afterwards(loop: SwiftLoop, tmp_path: Path):
    """Expiry goes on while mail is suspended; what is parked is looked at when it comes back."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=PLAIN.replace('"1d"', '"1m"'))
        parks = rig.suspension(300.0, tenant="t")
        await rig.suspend(parks, rig.suspension(300.0, "s2", site="mx.a.test"))
        rig.send("parked@b.test", tenant="t")
        rig.send("waits@a.test")
        await asyncio.sleep(100)
        assert [line["recipient"] for line in rig.events("expired")] == ["waits@a.test"]
        await rig.settled()
        await rig.stop()

    assert rig.events("expired")[1]["time"] >= parks.until_s - NOT_EARLIER_S
    assert sink.profiles["b"].by_recipient() == {}


# ---- what is told


@swiftly
async def test_begin_and_end_are_told_once(loop: SwiftLoop, tmp_path: Path):
    """By the worker that tells, however often the same set is said; an end by its time has nobody's name."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        short, long = rig.suspension(10.0, "short", all=True), rig.suspension(100.0, "long", domain="a.test")

        await rig.suspend(short, long, tells=True)
        await rig.suspend(short, long, tells=True)
        await asyncio.sleep(20)
        await rig.suspend(long, tells=True)
        await rig.suspend(tells=True, ended_by="me")
        await rig.suspend(tells=True, ended_by="me")
        await rig.stop()

    told = [(line["event"], line["id"], line.get("by", "")) for line in rig.events()]
    assert told == [
        ("suspended", "short", "admin"),
        ("suspended", "long", "admin"),
        ("resumed", "short", ""),
        ("resumed", "long", "me"),
    ]


@swiftly
async def test_a_worker_that_does_not_tell_keeps_quiet(loop: SwiftLoop, tmp_path: Path):
    """One of all workers tells; one that was restarted tells ends that it was asked to tell."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        first, second = rig.suspension(10.0, "first", all=True), rig.suspension(10.0, "second", all=True)
        await rig.suspend(first, second)
        await asyncio.sleep(20)
        assert rig.events() == []

        await rig.suspend(second)
        await rig.suspend(tells=True)
        await rig.stop()

    assert [(line["event"], line["id"]) for line in rig.events()] == [("resumed", "second")]


@swiftly
async def test_one_that_was_over_when_it_came_never_holds(loop: SwiftLoop, tmp_path: Path):
    """The worker was down until after its end."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.dispatcher.suspensions.replace([rig.suspension(-1.0, all=True)], tells=True)
        assert not rig.dispatcher.suspensions.active
        rig.send("x@a.test")
        await rig.settled(within_s=5.0)
        await rig.stop()

    assert [line["event"] for line in rig.events()] == ["delivered"]


@swiftly
async def test_one_that_says_nothing_suspends_nothing(loop: SwiftLoop, tmp_path: Path):
    """An empty selection means nothing, not everything."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension())
        rig.send("x@a.test")
        await rig.settled(within_s=5.0)
        await rig.stop()


@swiftly
async def test_its_end_may_be_put_off(loop: SwiftLoop, tmp_path: Path):
    """The same id with another end: what it keeps back waits for that one."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension(10.0, tenant="t"))
        rig.send("x@a.test", tenant="t")
        await asyncio.sleep(5)
        later = rig.suspension(100.0, tenant="t")
        await rig.suspend(later)
        await rig.settled()
        await rig.stop()

    assert rig.events("delivered")[0]["time"] >= later.until_s - NOT_EARLIER_S


# ---- with other orders


@swiftly
async def test_parked_mail_can_be_held_and_cancelled(loop: SwiftLoop, tmp_path: Path):
    """It is where it is not seen: on the disk alone; a retry leaves it suspended."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension(60.0, tenant="t"))
        rig.send("cancelled@a.test", "held@a.test", "goes@a.test", tenant="t")
        await asyncio.sleep(2)

        assert (await rig.act("retry")).touched == 0
        assert (await rig.act("cancel", recipient="cancelled@*")).touched == 1
        assert (await rig.act("hold", recipient="held@*")).touched == 1
        assert rig.dispatcher.parking.parts == 1
        await rig.until(lambda: rig.finals == 2)
        await rig.act("release")
        await rig.settled()
        await rig.stop()

    assert sink.profiles["a"].by_recipient() == {"goes@a.test": 1, "held@a.test": 1}


@swiftly
async def test_a_reload_ends_no_suspension(loop: SwiftLoop, tmp_path: Path):
    """Mail whose policy or owner is another one afterwards waits as long, and then goes where it belongs."""
    async with Sink([Profile(name="a"), Profile(name="b"), Profile(name="c"), Profile(name="d")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        ends = rig.suspension(60.0, tenant="t"), rig.suspension(60.0, "s2", site="*")
        await rig.suspend(*ends)
        for name in "abcd":
            rig.send(f"parked@{name}.test", tenant="t")
            rig.send(f"waits@{name}.test")
        await asyncio.sleep(2)

        rig.reload(workers=2, big='[match]\ndomains = ["b.test"]\n')
        await asyncio.sleep(50)
        assert rig.finals == 0
        await rig.until(lambda: rig.finals + len(rig.mover.moves) == 8)
        await rig.stop()

    assert 0 < len(rig.mover.moves) < 8
    assert all(line["time"] >= ends[0].until_s - NOT_EARLIER_S for line in rig.events())
    for name in "abcd":
        assert set(sink.profiles[name].by_recipient().values()) <= {1}
