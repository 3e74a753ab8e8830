"""Quotas and windows in the running engine, over real loopback sockets: what may not go waits, is no failed attempt,
and goes when it may."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.reporting.waiting import Reason, Show, Shown, Summarized, Summary
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly

DAY_S, HOUR_S = 86_400.0, 3600.0
LONG = PLAIN.replace('expire = "1d"', 'expire = "30d"')


def limited(limit: str, table: str = "limits") -> str:
    if table == "limits":
        return LONG.replace("[limits]\n", f"[limits]\n{limit}\n")
    return f"{LONG}[{table}]\n{limit}\n"


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, default: str, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default, **options)
    rig.domains_of(sink.profiles)
    return rig


def delivered(rig: DeliveryRig) -> int:
    return len(rig.events("delivered"))


def to_midnight_s(loop: SwiftLoop) -> float:
    """UTC's next."""
    return DAY_S - loop.wall_s() % DAY_S


async def why(rig: DeliveryRig, message_id: str) -> tuple[str, Reason]:
    shown = await rig.clerk.answer(Show(message_id))
    assert isinstance(shown, Shown)
    reason = shown.rows[0].reason
    assert reason is not None
    assert shown.rows[0].attempts == 0
    assert shown.rows[0].state == "ready"
    return shown.rows[0].waits_for, reason


def set_clock(loop: SwiftLoop, hours: float) -> None:
    """The wall clock shows so many hours of the next day in UTC."""
    loop.jump_s += to_midnight_s(loop) + hours * HOUR_S


@pytest.mark.parametrize("table", ["limits", "source_limits", "provider_limits"])
@swiftly
async def test_a_quota_holds_until_its_period_is_over(loop: SwiftLoop, tmp_path: Path, table: str):
    """So many go and no more, at every level; the others go at midnight, and `why` says all that."""
    async with Sink([Profile(name="a")]) as sink:
        default = limited("quota = { count = 7 }", table)
        rig = rig_for(loop, tmp_path, sink, default)
        set_clock(loop, 24 - 1 / 60)
        ids = [rig.send(name) for name in names(10, "a.test")]
        await asyncio.sleep(30)
        assert delivered(rig) == 7
        left = [each for each in ids if each not in {line["id"] for line in rig.events("delivered")}]
        words, reason = await why(rig, left[-1])
        assert words.startswith("the next day of the quota of 7 messages a day (UTC)")
        line = 1 + default.splitlines().index("quota = { count = 7 }")
        assert (reason.kind, reason.limit) == ("quota", f"{table}.quota")
        assert reason.origin.endswith(f"default.toml:{line}")
        assert reason.next_s == pytest.approx(loop.wall_s() + to_midnight_s(loop))
        summary = await rig.clerk.answer(Summary())
        assert isinstance(summary, Summarized)
        assert "quota of 7 messages" in summary.rows[0].waits_for
        midnight_s = loop.wall_s() + to_midnight_s(loop)
        await rig.settled(40)
        assert all(-0.01 < line["time"] - midnight_s < 5 for line in rig.events("delivered")[7:])
        assert not rig.events("deferred")
        await rig.stop()


@swiftly
async def test_sites_share_a_quota_in_turns(loop: SwiftLoop, tmp_path: Path):
    """Of all sites of a provider together no more goes, whatever waits where; a site of another one is free."""
    profiles = [Profile(name=f"d{number}") for number in range(4)]
    micro = 'match = { domains = ["d0.test", "d1.test", "d2.test"] }\n[provider_limits]\nquota = { count = 500 }\n'
    async with Sink(profiles) as sink:
        rig = rig_for(loop, tmp_path, sink, LONG, micro=micro)
        set_clock(loop, 12)
        for number in range(4):
            for name in names(300, f"d{number}.test"):
                rig.send(name)
        await asyncio.sleep(60)
        counts = [sum(sink.profiles[f"d{number}"].by_recipient().values()) for number in range(4)]
        assert counts[3] == 300
        assert sum(counts[:3]) == 500
        assert min(counts) > 0
        set_clock(loop, 0)
        await rig.settled(60)
        await rig.stop()


@swiftly
async def test_outside_of_its_window_nothing_begins(loop: SwiftLoop, tmp_path: Path):
    """No connection either, and open ones end by their idle time; at the opening it goes at once, without an attempt
    used up."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, limited('window = "08:00-09:00"'))
        set_clock(loop, 9 - 1 / 60)
        rig.send("in@a.test")
        await asyncio.sleep(61)
        assert delivered(rig) == 1
        connections = sink.profiles["a"].connections
        message = rig.send("out@a.test")
        await asyncio.sleep(70)
        assert sink.profiles["a"].connections == connections
        assert rig.dispatcher.connections == 0
        words, reason = await why(rig, message)
        assert words == "the hours in which mail may go: 08:00-09:00 UTC"
        assert (reason.kind, reason.limit, reason.value) == ("window", "limits.window", "08:00-09:00 UTC")
        opens_s = loop.wall_s() + to_midnight_s(loop) + 8 * HOUR_S
        assert reason.next_s == pytest.approx(opens_s)
        set_clock(loop, 8 - 1 / 60)
        await asyncio.sleep(59)
        assert sink.profiles["a"].connections == connections
        await rig.settled(10)
        assert not rig.events("deferred")
        await rig.stop()


@swiftly
async def test_a_shared_window_wakes_all_who_wait(loop: SwiftLoop, tmp_path: Path):
    """Many sites behind one provider's window, woken together at its opening."""
    profiles = [Profile(name=f"d{number}") for number in range(5)]
    micro = 'match = { domains = ["*.test"] }\n[provider_limits]\nwindow = ["22:00-23:00", "08:00-09:00"]\n'
    async with Sink(profiles) as sink:
        rig = rig_for(loop, tmp_path, sink, LONG, micro=micro)
        set_clock(loop, 8 - 2 / 60)
        opens_s = loop.wall_s() + 120
        for number in range(5):
            rig.send(f"x@d{number}.test")
        await asyncio.sleep(110)
        assert not delivered(rig)
        await rig.settled(60)
        late = [round(line["time"] - opens_s, 3) for line in rig.events("delivered")]
        assert all(-0.01 < each < 5 for each in late), late
        await rig.stop()


@swiftly
async def test_a_wall_clock_that_jumps_opens_periods_within_half_a_minute(loop: SwiftLoop, tmp_path: Path):
    """Back: what was used in the period that comes again stays used."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, limited("quota = { count = 3 }"))
        set_clock(loop, 12)
        for name in names(9, "a.test"):
            rig.send(name)
        await asyncio.sleep(10)
        assert delivered(rig) == 3
        set_clock(loop, 12)
        await asyncio.sleep(40)
        assert delivered(rig) == 6
        loop.jump_s -= DAY_S
        await asyncio.sleep(100)
        assert delivered(rig) == 6
        loop.jump_s += 2 * DAY_S
        await rig.settled(60)
        await rig.stop()


@swiftly
async def test_a_reload_in_the_middle_keeps_what_was_used(loop: SwiftLoop, tmp_path: Path):
    """A larger quota lets the difference go, a smaller one nothing, none everything."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, limited("quota = { count = 300 }"))
        set_clock(loop, 12)
        for name in names(700, "a.test"):
            rig.send(name)
        await asyncio.sleep(20)
        assert delivered(rig) == 300
        rig.reload(limited("quota = { count = 500 }"))
        await rig.until(lambda: delivered(rig) > 300, 1.0)
        await asyncio.sleep(20)
        assert delivered(rig) == 500
        rig.reload(limited("quota = { count = 100 }"))
        await asyncio.sleep(80)
        assert delivered(rig) == 500
        rig.reload(limited('window = "00:00-01:00"'))
        await asyncio.sleep(20)
        assert delivered(rig) == 500
        rig.reload(LONG)
        await rig.until(lambda: delivered(rig) > 500, 1.0)
        await rig.settled(60)
        await rig.stop()


@swiftly
async def test_a_clean_stop_gives_back_what_was_drawn_and_not_used(loop: SwiftLoop, tmp_path: Path):
    """What a worker holds ahead of time is a hundredth, which a crash would lose."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, limited("quota = { count = 1000 }"))
        set_clock(loop, 12)
        for name in names(95, "a.test"):
            rig.send(name)
        await asyncio.sleep(10)
        accounts = rig.counters.accounts
        ((key, periods),) = accounts.dump().items()
        ((start_s, (_, drawn)),) = periods.items()
        assert 95 <= drawn <= 105
        await rig.dispatcher.stop(5.0)
        await rig.dispatcher.keeping.stop()
        assert accounts.drawn(key, start_s) == 95
        await rig.stop()


@swiftly
async def test_owners_share_a_quota_as_they_need_it(loop: SwiftLoop, tmp_path: Path):
    """Two workers, most of the mail at one: together they send all of the quota and no more."""
    async with Sink([Profile(name="a")]) as sink:
        rigs = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            rigs.append(rig_for(loop, tmp_path / name, sink, "owners = 2\n" + limited("quota = { count = 300 }")))
        one, two = rigs
        one.counters.serve(two.dispatcher.keeping)
        set_clock(loop, 12)
        for name in names(400, "a.test"):
            one.send(name)
        for name in names(40, "a.test"):
            two.send(f"t{name}")
        await asyncio.sleep(20)
        assert delivered(two) == 40
        assert 250 <= delivered(one) <= 260
        await asyncio.sleep(2 * 60 + 10)  # what one of them does not need it gives back, and the other asks again
        assert delivered(one) == 260
        set_clock(loop, 0)
        await one.settled(60)
        for rig in rigs:
            await rig.stop()


@swiftly
async def test_while_the_account_is_not_answered_nothing_goes(loop: SwiftLoop, tmp_path: Path):
    """A disk that takes no write lets no message pass a quota; `why` says that it is waited for."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, limited("quota = { count = 1000 }"))
        rig.counters.is_stuck = True
        message = rig.send("x@a.test")
        await asyncio.sleep(20)
        assert delivered(rig) == 0
        words, reason = await why(rig, message)
        assert words.endswith("of which some is being written down as used")
        assert reason.kind == "quota"
        rig.counters.go_on()
        await rig.settled(10)
        await rig.stop()


@swiftly
async def test_a_source_has_a_quota_of_its_own(loop: SwiftLoop, tmp_path: Path):
    """[sources."..."] says it for one; the other's mail goes."""
    own = 'match = { domains = ["a.test"] }\n[sources."new-*".limits]\nquota = { count = 2, per = "hour" }\n'
    sources = [SourceAddress("new-1", "127.0.0.1", "", "new.test"), SourceAddress("old-1", "127.0.0.1", "", "old.test")]
    pools = {"new": {"new-1": 1}, "old": {"old-1": 1}}
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, LONG, micro=own, sources=sources, pools=pools)
        set_clock(loop, 12)
        for number in range(4):
            rig.send(f"n{number}@a.test", pool="new")
            rig.send(f"o{number}@a.test", pool="old")
        await asyncio.sleep(10)
        gone = [line["recipient"][0] for line in rig.events("delivered")]
        assert (gone.count("n"), gone.count("o")) == (2, 4)
        loop.jump_s += HOUR_S
        await rig.settled(60)
        await rig.stop()


@swiftly
async def test_what_is_urgent_passes_first_at_a_shared_quota(loop: SwiftLoop, tmp_path: Path):
    """Where two sites wait for the next hour of a small quota, the more urgent mail has it."""
    micro = 'match = { domains = ["*.test"] }\n[provider_limits]\nquota = { count = 2, per = "hour" }\n'
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, LONG, micro=micro)
        set_clock(loop, 13 - 1 / 120)
        rig.send("x@a.test")
        rig.send("x@b.test")
        await asyncio.sleep(5)
        rig.send("later@a.test", priority=5)
        await asyncio.sleep(5)
        rig.send("urgent@b.test", priority=9)
        await rig.settled(30)
        assert [line["recipient"] for line in rig.events("delivered")][2:] == ["urgent@b.test", "later@a.test"]
        await rig.stop()
