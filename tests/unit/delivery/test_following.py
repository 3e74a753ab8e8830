"""A domain's mail hosts change to those of another provider while its mail waits: it goes there, by that policy."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.resolve.errors import no_answer, no_domain
from mta.testing.delivery_rig import DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly

RETRY = '[retry]\nschedule = ["5m"]\njitter = "0%"\nexpire = "2d"\n'
OLD = f'match = {{ mx = ["*.old.test"] }}\n[provider_limits]\nrate = "4/h"\n{RETRY}'
NEW = f'match = {{ mx = ["*.new.test"] }}\n[limits]\nconnections = 1\n{RETRY}'


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, old=OLD, new=NEW, **options)
    for domain in ("moves.test", "stays.test"):
        rig.domain(domain, "mx.old.test", address=sink.profiles["old"].address)
    rig.resolver.ttl_s = 600.0
    return rig


def moves(rig: DeliveryRig, sink: Sink) -> None:
    rig.domain("moves.test", "mx.new.test", address=sink.profiles["new"].address)


def times(rig: DeliveryRig, **fields: str) -> list[float]:
    told = rig.events("delivered")
    return [line["time"] for line in told if all(line[name] == value for name, value in fields.items())]


@swiftly
async def test_mail_behind_a_slow_rate(loop: SwiftLoop, tmp_path: Path):
    """When the old answer of the DNS is over what waits goes to the new provider; the old one's rate goes on as it was
    for those who stay, neither faster nor slower."""
    async with Sink([Profile(name="old"), Profile(name="new")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        for name in names(6, "stays.test"):
            rig.send(name)
        for name in names(30, "moves.test"):
            rig.send(name)
        await asyncio.sleep(60.0)
        moves(rig, sink)
        moved_s = loop.wall_s()
        await rig.settled()
        await rig.stop()

    moved = times(rig, policy="new")
    assert set(times(rig, domain="moves.test")) >= set(moved)
    assert len(moved) >= 29
    assert 540.0 <= moved[0] - moved_s < 700.0
    assert moved[-1] - moved[0] < 60.0
    assert sink.profiles["new"].connections_max == 1
    old = sorted(times(rig, policy="old"))
    assert all(899.9 <= later - earlier < 902.0 for earlier, later in itertools.pairwise(old))
    assert {line["site"] for line in rig.events("delivered") if line["domain"] == "stays.test"} == {"mx.old.test"}


@swiftly
async def test_mail_behind_a_site_that_is_down(loop: SwiftLoop, tmp_path: Path):
    """It would else wait there for as long as it may."""
    async with Sink([Profile(name="old", down=True), Profile(name="new")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        for name in names(20, "moves.test"):
            rig.send(name)
        await asyncio.sleep(60.0)
        moves(rig, sink)
        await rig.settled(700.0)
        await rig.stop()

    assert len(times(rig, policy="new")) == 20


@swiftly
async def test_mail_that_is_suspended_there(loop: SwiftLoop, tmp_path: Path):
    """What an admin keeps from the old provider does not wait for his word when it goes elsewhere."""
    async with Sink([Profile(name="old"), Profile(name="new")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension(86_000.0, site="mx.old.test"))
        rig.send("x@moves.test")
        rig.send("x@stays.test")
        await asyncio.sleep(60.0)
        moves(rig, sink)
        await rig.until(lambda: rig.finals == 1, 700.0)
        assert times(rig, domain="moves.test") == times(rig, policy="new")
        await rig.suspend()
        await rig.settled()
        await rig.stop()


@pytest.mark.parametrize(("error", "told"), [(no_answer, "delivered"), (no_domain, "bounced")])
@swiftly
async def test_a_look_up_that_fails(loop: SwiftLoop, tmp_path: Path, error: Any, told: str):
    """Where nobody answers the old hosts stay; where the domain is gone nothing waits for them."""
    async with Sink([Profile(name="old"), Profile(name="new")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension(3_000.0, site="mx.old.test"))
        rig.send("x@moves.test")
        await asyncio.sleep(60.0)
        rig.resolver.found["moves.test"] = error("moves.test", *(["time-out"] if error is no_answer else []))
        await asyncio.sleep(2_000.0)
        early = list(rig.fates())
        await rig.settled()
        await rig.stop()

    assert bool(early) is (told == "bounced")
    assert [line["event"] for line in rig.events() if line["event"] in ("delivered", "bounced")] == [told]


@swiftly
async def test_one_answer_serves_all_and_is_not_asked_for_again(loop: SwiftLoop, tmp_path: Path):
    """A hundred messages that wait for an hour cost a look-up for each time that the answer was over."""
    async with Sink([Profile(name="old"), Profile(name="new")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension(3_600.0, site="mx.old.test"))
        for number in range(100):
            rig.send(f"r{number}@{'moves' if number % 2 else 'stays'}.test")
        await asyncio.sleep(3_599.0)
        asked = dict(rig.resolver.asked)
        await rig.act("cancel")
        await rig.stop()

    assert asked["moves.test"] == asked["stays.test"]
    assert 4 <= asked["moves.test"] <= 7
