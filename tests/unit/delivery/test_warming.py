"""Sources that are new: what goes from them in a day is what the plan says, the rest by others or later."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery.channel import Channel
from mta.delivery.connection import SourceAddress
from mta.delivery.job import Job
from mta.reporting.questions import WarmedUp, WarmupRow, Warmups
from mta.reporting.waiting import Show, Shown
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names, slow_signatures
from mta.testing.fake_counters import FakeCounters
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_policies.warmth import Plan

DAY_S = 86400.0
PROVIDER = 'match = { domains = ["*.test"] }\n' + PLAIN.replace('"1d"', '"30d"')
OVER = Plan("new", (10, 20), overflow_pool="old")
WAITS = Plan("new", (10, 20))


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, *plans: Plan, **options: Any) -> DeliveryRig:
    sources = [SourceAddress(name, "", "", "me.test") for name in ("new", "old", "older")]
    pools = {"default": {"new": 1}, "old": {"old": 1, "older": 1}}
    rig = DeliveryRig(loop, tmp_path, port=sink.port, sources=sources, pools=pools, big=PROVIDER, **options)
    rig.domains_of(sink.profiles)
    rig.dispatcher.warming.change(plans, lambda source, provider: "mta.toml:7")
    return rig


def tomorrow(loop: SwiftLoop, before_s: float = 0.0) -> None:
    """The clock shows the next midnight, or so long before it."""
    loop.jump_s += DAY_S - loop.wall_s() % DAY_S - before_s


def delivered(rig: DeliveryRig, source: str = "") -> int:
    return sum(line["source"] == source or not source for line in rig.events("delivered"))


async def row_of(rig: DeliveryRig, provider: str = "big") -> WarmupRow:
    answer = await rig.clerk.answer(Warmups())
    assert isinstance(answer, WarmedUp)
    [row] = [row for row in answer.rows if row.provider == provider]
    return row


async def waits_for(rig: DeliveryRig, message_id: str) -> Any:
    shown = await rig.clerk.answer(Show(message_id))
    assert isinstance(shown, Shown)
    return shown.rows[0]


@swiftly
async def test_what_is_over_the_plan_goes_by_the_overflow_pool(loop: SwiftLoop, tmp_path: Path):
    """At once, by all of its sources, whatever site of the provider it is for; the next day allows more."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, OVER)
        for name in names(15, "a.test"):
            rig.send(name)
            rig.send(name.replace("a.test", "b.test"))
        await rig.settled(600)
        first = [delivered(rig, source) for source in ("new", "old", "older")]
        tomorrow(loop)
        for name in names(30, "a.test"):
            rig.send(name)
        await rig.settled(600)
        row = await row_of(rig)
        await rig.stop()

    assert first == [10, 10, 10]
    assert delivered(rig, "new") == 10 + 20
    assert (row.day, row.sent, row.allowed, row.missing, row.next_allowed) == (2, 20, 20, 0, 0)
    assert [(line["change"], line["day"], line["allowed"]) for line in rig.events("warmup")] == [("day", 2, 20)]
    assert rig.dispatcher.tallies["big"].overflowed == 20 + 10


@swiftly
async def test_without_one_it_waits_for_the_next_day(loop: SwiftLoop, tmp_path: Path):
    """No attempt is counted, and it is told what keeps it and until when."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, WAITS)
        ids = [rig.send(name) for name in names(25, "a.test")]
        await asyncio.sleep(600)
        went = delivered(rig)
        row = await waits_for(rig, ids[-1])
        midnight_s = (await row_of(rig)).next_s
        tomorrow(loop, before_s=45.0)
        await rig.settled(120)
        await rig.stop()

    assert went == 10
    assert (row.state, row.attempts) == ("ready", 0)
    assert row.waits_for == "the warm-up of new, which has sent 10 of 10 messages to big today; 14 before it"
    assert (row.reason.kind, row.reason.limit, row.reason.origin) == ("warmup", "warmup new", "mta.toml:7")
    assert row.reason.value == "10 messages on day 1"
    late = [line["time"] for line in rig.events("delivered")][10:]
    assert row.reason.next_s == pytest.approx(midnight_s)
    assert midnight_s % DAY_S == 0
    assert all(midnight_s <= time_s < midnight_s + 60 for time_s in late)
    assert rig.events("deferred") == []


@swiftly
async def test_nothing_goes_before_the_start(loop: SwiftLoop, tmp_path: Path):
    """Then the first day's."""
    start_s = loop.wall_s() + 90
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, Plan("new", (100,), start_s=start_s))
        rig.send("x@a.test")
        await asyncio.sleep(60)
        row = await waits_for(rig, "m1")
        await rig.settled()
        await rig.stop()

    assert row.waits_for == "the start of the warm-up of new"
    assert row.reason.next_s == pytest.approx(start_s)
    assert rig.events("delivered")[0]["time"] >= start_s


@swiftly
async def test_recipients_count_and_a_transaction_has_no_more_than_there_is_room_for(loop: SwiftLoop, tmp_path: Path):
    """The rest of the message takes another source."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, OVER)
        rig.send(*names(14, "a.test"))
        await rig.settled(600)
        await rig.stop()

    assert (delivered(rig, "new"), delivered(rig)) == (10, 14)


@swiftly
async def test_what_is_refused_leaves_its_room(loop: SwiftLoop, tmp_path: Path):
    """Only what the provider took is counted."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, OVER)
        for at in range(30):
            rig.send(f"unknown+{at}@a.test")
        await rig.settled(600)
        for name in names(10, "a.test"):
            rig.send(name)
        await rig.settled(600)
        await rig.stop()

    assert len(rig.events("bounced")) == 30
    assert delivered(rig, "new") == 10


@swiftly
async def test_what_perhaps_arrived_is_counted(loop: SwiftLoop, tmp_path: Path):
    """The connection broke behind the final dot: the next attempt takes another source, for the day is used up."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, OVER)
        rig.send(*(f"dropdot.1+{at}@a.test" for at in range(10)))
        await rig.settled(3600)
        await rig.stop()

    assert sum(bool(line.get("uncertain")) for line in rig.events("deferred") if line["source"] == "new") == 10
    assert (delivered(rig, "new"), delivered(rig)) == (0, 10)


@swiftly
async def test_what_an_error_stops_counts_as_sent(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows how far it came; it keeps nothing under way for ever."""
    send, bad = Channel.send, set[int]()

    def sends(channel: Channel, job: Job) -> None:
        send(channel, job)
        if job.source == "new" and not bad:
            bad.add(job.seq)
            raise ValueError("this one")

    monkeypatch.setattr(Channel, "send", sends)
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, OVER)
        for name in names(12, "a.test"):
            rig.send(name)
        await rig.until(lambda: rig.finals == 11)
        for name in names(2, "a.test"):
            rig.send(name)
        await rig.until(lambda: rig.finals == 13)
        row = await row_of(rig)
        await rig.stop()
        loop.problems.clear()

    assert (delivered(rig, "new"), delivered(rig)) == (9, 13)
    assert row.under_way == 0


@swiftly
async def test_complaints_hold_a_source(loop: SwiftLoop, tmp_path: Path):
    """It is told with what was said; the day before holds, and the rest takes another source."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, OVER)
        for name in names(10, "a.test"):
            rig.send(name)
        await rig.settled(600)
        tomorrow(loop)
        refuses = sink.profiles["a"].profile
        refuses.deferred_percent, refuses.deferred_reply = 100, "451 4.7.1 your reputation is low"
        for name in names(3, "a.test"):
            rig.send(name)
        await rig.until(lambda: len(rig.events("deferred")) == 3)
        refuses.deferred_percent = 0
        for name in names(30, "a.test"):
            rig.send(name)
        await rig.settled(3600)
        row = await row_of(rig)
        await rig.stop()

    [_, held] = rig.events("warmup")
    assert (held["change"], held["source"], held["provider"], held["day"], held["allowed"]) == (
        "held",
        "new",
        "big",
        1,
        10,
    )
    assert held["reason"] == "3 complaints beside 0 messages taken"
    assert (held["code"], held["text"], held["stage"]) == (451, "your reputation is low", "rcpt")
    assert delivered(rig, "new") == 10 + 10
    assert (row.why, row.next_day) == (held["reason"], 1)


@swiftly
async def test_the_day_goes_on_after_a_crash(loop: SwiftLoop, tmp_path: Path):
    """What was drawn and not used is lost; a clean stop gives it back."""
    plan = Plan("new", (100, 200), overflow_pool="old")
    async with Sink([Profile(name="a")]) as sink:
        counters: FakeCounters | None = None
        went = []
        for life, count in enumerate((13, 10, 200)):
            folder = tmp_path / str(life)
            folder.mkdir()
            rig = rig_for(loop, folder, sink, plan)
            counters = counters or rig.counters
            counters.serve(rig.dispatcher.keeping)
            for name in names(count, "a.test"):
                rig.send(name)
            await rig.settled(600)
            went.append(delivered(rig, "new"))
            if life == 1:
                await rig.dispatcher.stop(1.0)
                await rig.dispatcher.keeping.stop()
            rig.dispatcher.keeping.tell = lambda told: None  # dead
            await rig.stop()

    assert went[:2] == [13, 10]
    assert 100 - 10 - 5 <= sum(went) <= 100


@swiftly
async def test_a_reload_in_the_middle(loop: SwiftLoop, tmp_path: Path):
    """A longer day holds at once; a source whose plan is gone is warm."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, WAITS)
        for name in names(40, "a.test"):
            rig.send(name)
        await asyncio.sleep(60)
        went = [delivered(rig)]
        for plans in ([Plan("new", (25, 50))], []):
            rig.dispatcher.warming.change(plans, lambda source, provider: "")
            rig.reload(big=PROVIDER)
            await asyncio.sleep(120)
            went.append(delivered(rig))
        await rig.settled(600)
        await rig.stop()

    assert went == [10, 25, 40]


@swiftly
async def test_nothing_goes_before_it_is_drawn(loop: SwiftLoop, tmp_path: Path):
    """While the disk takes its time the source waits; what is drawn then goes at once."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, WAITS)
        rig.counters.is_stuck = True
        for name in names(5, "a.test"):
            rig.send(name)
        await asyncio.sleep(300)
        went = delivered(rig)
        rig.counters.go_on()
        await rig.settled(5)
        await rig.stop()

    assert went == 0


@swiftly
async def test_another_worker_goes_on_where_this_one_was(loop: SwiftLoop, tmp_path: Path):
    """With what it was told at the change of owners, not with what it knew from its start."""
    async with Sink([Profile(name="a")]) as sink:
        (tmp_path / "one").mkdir()
        rig = rig_for(loop, tmp_path / "one", sink, OVER)
        for name in names(10, "a.test"):
            rig.send(name)
        await rig.settled(600)
        tomorrow(loop)
        for name in names(3, "a.test"):
            rig.send(name)
        await rig.settled(600)
        [destination] = rig.dispatcher.domains.destinations.values()
        state = destination.state()
        (tmp_path / "two").mkdir()
        other = rig_for(loop, tmp_path / "two", sink, OVER)
        other.claims.states = [state]
        other.reload(big=PROVIDER)
        other.send("x@a.test")
        await other.settled(600)
        row = await row_of(other)
        await rig.stop()
        await other.stop()

    assert (row.day, row.sent) == (2, 4)


WORDS = ("ok", "ok", "ok", "unknown", "tempfail.1", "421.1", "drop.1", "deferdot.1", "dropdot.1", "slow")


@pytest.mark.parametrize("seed", range(3))
@swiftly
async def test_no_weather_passes_the_plan(loop: SwiftLoop, tmp_path: Path, seed: int):
    """Whatever peers do, with signatures that come late or without, a day's mail from a new source, that which perhaps
    arrived too, is no more than the plan allows, and everything has its fate."""
    random = Random(seed)
    plan = Plan("new", (12, 24, 48), overflow_pool=random.choice(["old", ""]))
    options = {"signatures": slow_signatures(loop)} if seed % 2 else {}
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, plan, **options)
        for at in range(120):
            domain = random.choice(["a.test", "b.test"])
            rig.send(*{f"{random.choice(WORDS)}.{at}.{each}@{domain}" for each in range(random.choice([1, 1, 3]))})
            if random.random() < 0.2:
                await asyncio.sleep(random.choice([1.0, 60.0]))
            if random.random() < 0.02:
                tomorrow(loop)
        for _ in range(2):
            await asyncio.sleep(900.0)
            tomorrow(loop)
        await rig.settled(3600)
        await rig.stop()

    sent: dict[int, int] = {}
    for line in rig.events():
        if line.get("source") == "new" and (line["event"] == "delivered" or line.get("uncertain")):
            day = int(line["time"] // DAY_S)
            sent[day] = sent.get(day, 0) + 1
    assert sent
    assert all(count <= allowed for count, allowed in zip(sent.values(), plan.days, strict=False)), sent
