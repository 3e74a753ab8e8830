"""What firings do to the mail of a destination, over real loopback sockets: it stands still, or goes slowly, and all
else does not."""

import asyncio
import itertools
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.reporting.questions import Rules
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names, slow_signatures
from mta.testing.firing_rig import (
    OF_MESSAGES,
    SAID,
    SLOWED,
    cancel,
    delivered_to,
    fire,
    micro,
    rig_for,
    rule,
    told,
)
from mta.testing.swift_loop import SwiftLoop, run_swiftly, swiftly
from mta_policies.cross_limit import CrossLimit
from mta_policies.firing import Firing
from mta_policies.firings import Firings
from mta_policies.rulebook import ScopeName
from mta_policies.units import rate


@swiftly
async def test_a_site_is_silent_for_as_long_as_the_rule_says(loop: SwiftLoop, tmp_path: Path):
    """From the reply on, mail to come included; other sites flow, and afterwards all of it goes."""
    refuses = Profile(name="a", deferred_percent=100, deferred_reply=SAID)
    async with Sink([refuses, Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=rule('action = "suspend", for = "2h"'))
        rig.send("x@a.test")
        await rig.until(lambda: bool(rig.events("rule")))
        refuses.deferred_percent = 0
        fired_s = rig.events("rule")[0]["time"]
        for name in names(5, "a.test"):
            rig.send(name)
            rig.send(name.replace("a.test", "b.test"))
        await asyncio.sleep(3600)
        assert len(delivered_to(rig, "b.test")) == 5
        assert delivered_to(rig, "a.test") == []
        await rig.settled()
        await rig.stop()

    assert min(delivered_to(rig, "a.test")) - fired_s >= 7199.99
    [line] = rig.events("rule")
    assert (line["change"], line["rule"], line["action"], line["key"]) == (
        "fired",
        "unusual",
        "suspend",
        "site mx.a.test > mx.a.test",
    )
    assert (line["code"], line["until"] - line["time"]) == (421, pytest.approx(7200))
    assert rig.events("deferred")[0]["rule"] == "unusual"
    assert rig.dispatcher.restraints.active is False


@swiftly
async def test_what_is_cancelled_flows_at_once(loop: SwiftLoop, tmp_path: Path):
    """And one worker of all tells it."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        firing = await fire(rig, "provider mx.a.test", "suspend", 7200.0)
        rig.send("x@a.test")
        await asyncio.sleep(100)
        assert rig.fates() == {}

        await cancel(rig, firing)
        await rig.until(lambda: rig.finals == 1, within_s=1.0)
        await rig.stop()

    assert [(line["change"], line["by"]) for line in rig.events("rule")] == [("cancelled", "command: kim")]


@pytest.mark.parametrize(
    ("key", "asks"),
    [("source system > mx.a.test", False), ("site mx.a.test > mx.a.test", False), ("tenant shop > mx.a.test", True)],
)
@swiftly
async def test_messages_are_looked_at_one_by_one_where_one_may_wait(
    loop: SwiftLoop, tmp_path: Path, key: str, asks: bool
):
    """What holds for whole pools costs a single message nothing."""
    rig = DeliveryRig(loop, tmp_path, port=25)
    rig.domain("a.test", "mx.a.test", address="192.0.2.25")
    await rig.suspend(rig.suspension(60.0, domain="a.test"))
    rig.send("x@a.test")
    await asyncio.sleep(1)
    await rig.suspend()
    firing = await fire(rig, key, "suspend", 7200.0)

    assert rig.dispatcher.parking.active is asks
    await cancel(rig, firing)
    assert rig.dispatcher.parking.active is False
    await rig.act("cancel")
    await rig.stop()


@swiftly
async def test_a_rate_that_a_firing_has_only_later_holds(loop: SwiftLoop, tmp_path: Path):
    """Its rule had only connections when it fired first."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await fire(rig, "site mx.a.test > mx.a.test", "slow", connections=1)
        rig.send("first@a.test")
        await rig.until(lambda: rig.finals == 1)
        await fire(rig, "site mx.a.test > mx.a.test", "slow", connections=1, rate=(rate("1/min"),))
        for name in names(3, "a.test"):
            rig.send(name)
        await rig.settled()
        await rig.stop()

    times_s = delivered_to(rig, "a.test")[1:]
    assert all(later - sooner >= 59.9 for sooner, later in itertools.pairwise(times_s))


@swiftly
async def test_a_muted_rule_has_no_effect(loop: SwiftLoop, tmp_path: Path):
    """What it has fired before, and what it fires meanwhile; when the time is over it has it again."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await fire(rig, "site mx.a.test > mx.a.test", "suspend", 7200.0)
        others = Firings()
        now_s = rig.loop.wall_s()
        await rig.clerk.answer(Rules([others.mute("elsewhere", now_s + 60, now_s, "kim")]))
        rig.send("x@a.test")
        await rig.until(lambda: rig.finals == 1, within_s=1.0)

        await asyncio.sleep(61)
        rig.send("y@a.test")
        await asyncio.sleep(600)
        assert rig.finals == 1
        await rig.settled()
        await rig.stop()


@swiftly
async def test_a_restart_keeps_it(loop: SwiftLoop, tmp_path: Path):
    """What was in force when the worker died is in force when it is back."""
    async with Sink([Profile(name="a")]) as sink:
        first = rig_for(loop, tmp_path, sink)
        await fire(first, "site mx.a.test > mx.a.test", "suspend", 7200.0)
        snapshot = first.dispatcher.restraints.firings.dump()
        await first.stop()

        (tmp_path / "again").mkdir()
        rig = rig_for(loop, tmp_path / "again", sink)
        rig.dispatcher.restraints.load(snapshot)
        rig.send("x@a.test")
        await asyncio.sleep(7100)
        assert rig.fates() == {}
        await rig.settled()
        await rig.stop()


@pytest.mark.parametrize("how", ["rate", "connections"])
@pytest.mark.parametrize(("key", "sites"), SLOWED, ids=[key for key, _ in SLOWED])
@swiftly
async def test_slower_together(loop: SwiftLoop, tmp_path: Path, key: str, sites: int, how: str):
    """All mail of the scope keeps to one rate, or to so many connections, beside what the policy says."""
    provider = key.rpartition(" > ")[2].removeprefix("provider ")
    policies = {"micro": micro("action = 'alert'")} if provider == "micro" else {}
    source = SourceAddress("s1", "127.0.1.1", "", "s1.test")
    effect: dict[str, Any] = {"rate": (rate("6/min"),)} if how == "rate" else {"connections": 1}
    profiles = [Profile(name=name, latency_s=0.5) for name in "ab"[:sites]]
    async with Sink(profiles) as sink:
        rig = rig_for(loop, tmp_path, sink, sources=[source], **policies)
        for profile in profiles:
            for name in names(5, f"{profile.name}.test"):
                rig.send(name)
        await asyncio.sleep(0.2)  # some connections are open
        await fire(rig, key, "slow", 7200.0, provider if provider == "micro" else "default", **effect)
        for profile in profiles:
            for name in names(10, f"{profile.name}.test"):
                rig.send(f"later-{name}")
        before = rig.finals
        start_s = loop.time()
        open_now = []
        while rig.finals < 15 * sites:
            await asyncio.sleep(0.25)
            assert loop.time() < start_s + 3600, rig.left()
            if loop.time() > start_s + 10:
                open_now.append(sum(each.connections_open for each in sink.profiles.values()))
        await rig.settled()
        await rig.stop()

    times = sorted(time_s for name in "ab"[:sites] for time_s in delivered_to(rig, f"{name}.test"))[before + 5 :]
    if how == "rate":
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 9.4
    else:
        assert max(open_now) == 1
    assert told(rig) == []


@swiftly
async def test_half_of_what_the_policy_allows(loop: SwiftLoop, tmp_path: Path):
    """A factor is of each limit of its level; other sources keep theirs."""
    policy = micro("action = 'alert'", limits="connections = 8", source_limits="connections = 8")
    sources = [SourceAddress(name, f"127.0.1.{number}", "", "x.test") for number, name in enumerate(("s1", "s2"), 1)]
    async with Sink([Profile(name="a", latency_s=0.5)]) as sink:
        rig = rig_for(loop, tmp_path, sink, sources=sources, micro=policy)
        await fire(rig, "source s1 > micro", "slow", 7200.0, "micro", factor=0.25)
        for name in names(200, "a.test"):
            rig.send(name)
        await rig.settled()
        await rig.stop()

    most = sink.profiles["a"].connections_max_by_client
    assert (most["127.0.1.1"], most["127.0.1.2"]) == (2, 8)


@swiftly
async def test_fewer_messages_a_connection_and_fewer_recipients(loop: SwiftLoop, tmp_path: Path):
    """What a provider that closes after a few messages asks for."""
    async with Sink([Profile(name="a", latency_s=0.05)]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=PLAIN.replace("connections = 10", "connections = 1"))
        await fire(
            rig,
            "site mx.a.test > mx.a.test",
            "slow",
            7200.0,
            messages_per_connection=2,
            recipients_per_transaction=3,
        )
        rig.send(*names(12, "a.test"))
        await rig.settled()
        await rig.stop()

    assert sink.messages == 4
    assert sink.profiles["a"].connections_total == 2


@swiftly
async def test_a_message_that_a_limit_keeps_uses_no_rate_up(loop: SwiftLoop, tmp_path: Path):
    """What a slow firing lets pass is parked again for want of something else, and goes when that is there."""
    half = CrossLimit("source", "*", (rate("30/min"),))
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, limits=(half,))
        await fire(rig, "tenant shop > mx.a.test", "slow", 7200.0, rate=(rate("6/min"),))
        for name in names(5, "a.test"):
            rig.send(name, tenant="shop")
            rig.send(name.replace("a.test", "b.test"), tenant="news")
        await rig.settled(120.0)
        await rig.stop()


@swiftly
async def test_a_message_in_parts_counts_for_a_rate_of_messages(loop: SwiftLoop, tmp_path: Path):
    """Though its transaction is over before anybody looks, and the others of its recipients wait."""
    text = PLAIN.replace("connections = 10", "connections = 1\nrecipients_per_transaction = 1")
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=text)
        await fire(rig, "tenant shop > mx.a.test", "slow", 7200.0, rate=(rate("6/min"),))
        begun_s = loop.time()
        rig.send(*names(3, "a.test"), tenant="shop")
        rig.send("x@a.test", tenant="shop")
        await rig.settled()
        took_s = loop.time() - begun_s
        await rig.stop()

    assert took_s >= 3 * 10


@swiftly
async def test_a_rule_that_waits_for_its_trigger(loop: SwiftLoop, tmp_path: Path):
    """Two in an hour are enough, one is not; an alert is told once."""
    refuses = Profile(name="a", deferred_percent=100, deferred_reply="451 4.7.28 unusual rate of mail")
    async with Sink([refuses]) as sink:
        text = rule('action = "alert"', 'trigger = { count = 2, in = "1h" }')
        rig = rig_for(loop, tmp_path, sink, default=text)
        rig.send("x@a.test")
        await rig.settled()
        assert told(rig) == []
        for name in names(5, "a.test"):
            rig.send(name)
        await rig.settled()
        await rig.stop()

    assert told(rig) == ["fired"]


@swiftly
async def test_a_greeting_is_judged_too(loop: SwiftLoop, tmp_path: Path):
    """Once a connection; what waits there hears nothing of it."""
    async with Sink([Profile(name="a", connections_max=1, connections_over=SAID, latency_s=1.0)]) as sink:
        text = rule('action = "slow", connections = 1, for = "1h"').replace("text =", 'stage = "greeting", text =')
        rig = rig_for(loop, tmp_path, sink, default=text)
        for name in names(12, "a.test"):
            rig.send(name)
        await rig.settled()
        await rig.stop()

    assert told(rig)[0] == "fired"
    assert sink.profiles["a"].connections_max == 1 or rig.events("rule")[0]["stage"] == "greeting"
    assert rig.events("bounced") == []


@swiftly
async def test_a_reload_in_the_middle(loop: SwiftLoop, tmp_path: Path):
    """Another policy, the same firing: the policy's own limits change beside it."""
    async with Sink([Profile(name="a", latency_s=0.2)]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await fire(rig, "site mx.a.test > mx.a.test", "slow", 100.0, connections=2)
        for name in names(100, "a.test"):
            rig.send(name)
        await asyncio.sleep(2)
        assert sink.profiles["a"].connections_open == 2

        rig.reload(PLAIN.replace("connections = 10", "connections = 5"))
        await asyncio.sleep(2)
        assert sink.profiles["a"].connections_open == 2
        for name in names(1000, "a.test"):
            rig.send(f"more-{name}")
        await asyncio.sleep(100)
        assert sink.profiles["a"].connections_max == 5
        await rig.settled()
        await rig.stop()


SCOPES: list[ScopeName] = ["site", "source", "provider", "netblock"]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_fires_and_ends_all_mail_goes(seed: int, tmp_path: Path):
    """Firings of every kind begin, change and end while mail flows: nothing is lost, no place at a gate is."""
    random = Random(seed)

    async def storm(loop: SwiftLoop) -> None:
        sources = [SourceAddress(name, f"127.0.1.{at}", "", "x.test") for at, name in enumerate(("s1", "s2"), 1)]
        profiles = [Profile(name=name, latency_s=0.1) for name in "abc"]
        async with Sink(profiles) as sink:
            rig = rig_for(loop, tmp_path, sink, sources=sources, micro=micro("action = 'alert'"))
            firings: list[Firing] = []
            for step in range(40):
                for _ in range(random.randrange(20)):
                    rig.send(f"r{step}@{random.choice('abc')}.test")
                roll = random.random()
                if roll < 0.5:
                    scope = random.choice(SCOPES)
                    firings.append(
                        await fire(rig, key_of(scope, random), *effect_of(random), "micro", **LIMITS[roll > 0.25])
                    )
                elif roll < 0.7 and firings:
                    await cancel(rig, firings.pop(random.randrange(len(firings))), tells=False)
                elif roll < 0.8:
                    rig.reload(micro=micro("action = 'alert'", limits=f"connections = {random.randrange(1, 9)}"))
                await asyncio.sleep(random.choice((0.0, 0.05, 1.0, 5.0)))
            await rig.settled()
            await asyncio.sleep(30)  # the last one is over
            rig.is_clean()
            for site in rig.dispatcher.domains.sites.values():
                for pool in site.pools.values():
                    assert pool.braked is None
                    assert pool.meter.connections_open == len(pool.channels)
            await rig.stop()

    run_swiftly(storm)


LIMITS: dict[bool, dict[str, Any]] = {True: {"connections": 1}, False: {"rate": (rate("2/s"),), "factor": 0.5}}


def key_of(scope: ScopeName, random: Random) -> str:
    value = {
        "site": f"mx.{random.choice('abc')}.test",
        "source": random.choice(("s1", "s2")),
        "netblock": "127.0.1.0/24",
    }
    return "provider micro" if scope == "provider" else f"{scope} {value[scope]} > micro"


def effect_of(random: Random) -> tuple[str, float]:
    return random.choice(("slow", "slow", "suspend")), random.choice((0.5, 3.0, 20.0))


@pytest.mark.parametrize(("key", "fields"), OF_MESSAGES, ids=[key for key, _ in OF_MESSAGES])
@swiftly
async def test_only_these_messages_wait(loop: SwiftLoop, tmp_path: Path, key: str, fields: dict[str, Any]):
    """Until it ends, or somebody ends it; others of the same pool flow."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, signatures=slow_signatures(loop) if "dkim" in key else None)
        firing = await fire(rig, key, "suspend", 7200.0)
        for number in range(20):
            rig.send("r0@a.test", **fields)
            rig.send(f"other{number}@b.test", **fields)
        await asyncio.sleep(600)
        assert delivered_to(rig, "a.test") == []
        assert len(delivered_to(rig, "b.test")) == 20
        assert rig.dispatcher.parking.parts == 20

        await cancel(rig, firing)
        await rig.until(lambda: rig.finals == 40, within_s=5.0)
        await rig.settled()
        rig.is_clean()
        await rig.stop()


@swiftly
async def test_only_these_messages_wait_for_hours(loop: SwiftLoop, tmp_path: Path):
    """Longer than a site without mail is remembered: when it is over they go."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await fire(rig, "tenant shop > mx.a.test", "suspend", 4_500.0)
        rig.send("x@a.test", tenant="shop")
        await asyncio.sleep(4_400.0)
        assert rig.dispatcher.parking.parts == 1
        await rig.settled(200.0)
        assert not rig.dispatcher.parking.active
        await rig.stop()


@pytest.mark.parametrize(("key", "fields"), OF_MESSAGES, ids=[key for key, _ in OF_MESSAGES])
@swiftly
async def test_only_these_messages_go_slowly(loop: SwiftLoop, tmp_path: Path, key: str, fields: dict[str, Any]):
    """At their rate, and the others at theirs."""
    async with Sink([Profile(name="a", latency_s=0.05), Profile(name="b", latency_s=0.05)]) as sink:
        rig = rig_for(loop, tmp_path, sink, signatures=slow_signatures(loop) if "dkim" in key else None)
        await fire(rig, key, "slow", 7200.0, rate=(rate("6/min"),))
        for number in range(6):
            rig.send("r0@a.test", **fields)
            rig.send(f"fast{number}@b.test", **fields)
        await rig.settled()
        await rig.stop()

    slow, fast = sorted(delivered_to(rig, "a.test")), sorted(delivered_to(rig, "b.test"))
    assert min(later - earlier for earlier, later in itertools.pairwise(slow)) > 9.5
    assert slow[-1] - slow[0] < 5 * 10 + 10
    assert fast[-1] - slow[0] < 5


@swiftly
async def test_a_tenant_with_one_transaction_at_a_time(loop: SwiftLoop, tmp_path: Path):
    """Connections of a scope that shares them are transactions under way."""
    async with Sink([Profile(name="a", latency_s=0.5)]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await fire(rig, "tenant shop > mx.a.test", "slow", 7200.0, connections=1)
        for number in range(8):
            rig.send(f"slow{number}@a.test", tenant="shop")
        await rig.settled()
        await rig.stop()

    times = sorted(delivered_to(rig, "a.test"))
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.9  # two round trips each


@pytest.mark.parametrize(("key", "sites"), SLOWED, ids=[key for key, _ in SLOWED])
@swiftly
async def test_they_stand_still_together(loop: SwiftLoop, tmp_path: Path, key: str, sites: int):
    """All mail of the scope, and of no other; then all of it goes."""
    provider = key.rpartition(" > ")[2].removeprefix("provider ")
    policies = {"micro": micro("action = 'alert'")} if provider == "micro" else {}
    sources = [SourceAddress(f"s{number}", f"127.0.{number}.1", "", "x.test") for number in (1, 2)]
    async with Sink([Profile(name=name) for name in "ab"]) as sink:
        rig = rig_for(loop, tmp_path, sink, sources=sources, **policies)
        await fire(rig, key, "suspend", 600.0, provider if provider == "micro" else "default")
        for number in range(8):
            rig.send(f"r{number}@{'ab'[number // 2 % 2]}.test")
        await asyncio.sleep(590.0)
        early = [(line["source"], line["domain"]) for line in rig.events("delivered")]
        await rig.settled()
        await rig.stop()

    flows = {("s1", "b.test"), ("s2", "b.test")} if sites == 1 else set()
    if key.startswith(("source", "netblock")):
        flows = {("s2", "a.test"), ("s2", "b.test")}
    assert set(early) == flows
