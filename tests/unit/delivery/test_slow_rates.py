"""Rates slower than one a minute are kept to the message: at every level, over reloads, and by who has been away."""

import asyncio
import itertools
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.testing.delivery_rig import DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly

SOURCES = [SourceAddress(f"s{number}", f"127.0.1.{number}", "", f"s{number}.test") for number in (1, 2)]


def policy(table: str = "limits", rate: str = "4/h", connections: str = "") -> str:
    limits = f"[{table}]\n" + (f'rate = "{rate}"\n' if rate else "") + connections
    return f'match = {{ domains = ["*.test"] }}\n{limits}\n[retry]\nschedule = ["5m"]\nexpire = "20d"\n'


def times_of(rig: DeliveryRig) -> list[float]:
    return sorted(line["time"] for line in rig.events("delivered"))


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.mark.parametrize(("table", "ways"), [("limits", 4), ("source_limits", 2), ("provider_limits", 1)])
@swiftly
async def test_four_an_hour(loop: SwiftLoop, tmp_path: Path, table: str, ways: int):
    """Of each source to each site, of each source, or of all: no pair is nearer than a quarter of an hour, none is
    later; and a reload that changes nothing, or lowers what else there is, begins nothing anew."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, sources=SOURCES, micro=policy(table))
        rig.domains_of(sink.profiles)
        for number in range(4 * ways):
            rig.send(f"r{number}@{'ab'[number // 2 % 2]}.test")
        for _ in range(3):
            await asyncio.sleep(700.0)
            rig.reload(micro=policy(table, connections="connections = 4\n"))
        await rig.settled()
        await rig.stop()

    sent: dict[tuple[str, ...], list[float]] = {}
    for line in rig.events("delivered"):
        way = {"limits": (line["source"], line["site"]), "source_limits": (line["source"],), "provider_limits": ()}
        sent.setdefault(way[table], []).append(line["time"])
    assert len(sent) == ways
    for times in sent.values():
        assert len(times) == 4
        assert all(899.9 <= gap <= 902.0 for gap in gaps(sorted(times)))


@swiftly
async def test_twenty_a_day_are_remembered(loop: SwiftLoop, tmp_path: Path):
    """However long no mail came in between: the next one waits for what is left of the 72 minutes."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=policy(rate="20/d"))
        rig.domains_of(sink.profiles)
        rig.send("first@a.test")
        await asyncio.sleep(3_900.0)
        kept = len(rig.dispatcher.domains.sites)
        rig.send("second@a.test")
        await rig.settled()
        await asyncio.sleep(4_400.0)
        left = len(rig.dispatcher.domains.sites)
        await rig.stop()

    assert gaps(times_of(rig)) == [pytest.approx(4_320.0, abs=2.0)]
    assert (kept, left) == (1, 0)


@swiftly
async def test_what_holds_over_all_sites_is_remembered_by_the_last(loop: SwiftLoop, tmp_path: Path):
    """A site without mail is let go though the others use up the rate; the last one stays as long as that is so."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=policy("provider_limits", "20/d"))
        rig.domains_of(sink.profiles)
        rig.send("first@a.test")
        await asyncio.sleep(3_000.0)
        rig.send("second@b.test")
        kept = []
        for _ in range(2):
            await asyncio.sleep(3_000.0)
            kept.append([site.name for site in rig.dispatcher.domains.sites.values()])
        await rig.stop()

    assert [len(names) for names in kept] == [1, 0]
    assert len(times_of(rig)) == 2


@swiftly
async def test_whoever_follows_a_worker_that_was_killed(loop: SwiftLoop, tmp_path: Path):
    """It does not know what went a moment before, and begins as if all had that might; an hour later it does not
    matter any more."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=policy(rate="4/h"))
        rig.dispatcher.follows_s = loop.time()
        rig.domains_of(sink.profiles)
        start_s = loop.wall_s()
        rig.send("first@a.test")
        await asyncio.sleep(3_600.0)
        rig.send("first@b.test")
        await rig.settled()
        await rig.stop()

    first, second = times_of(rig)
    assert first - start_s == pytest.approx(900.0, abs=2.0)
    assert second - start_s == pytest.approx(3_600.0, abs=2.0)


CHANGES = [
    ("lowered", "2/h", 1_800.0),
    ("raised", "1/min", 60.0),
    ("removed", "", 0.0),
]


@pytest.mark.parametrize(("how", "rate", "gap_s"), CHANGES, ids=[how for how, _, _ in CHANGES])
@swiftly
async def test_a_rate_is_changed_in_the_middle(loop: SwiftLoop, tmp_path: Path, how: str, rate: str, gap_s: float):
    """From the reload on the new one holds, for what waits too; what was sent before counts."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=policy(rate="4/h"))
        rig.domains_of(sink.profiles)
        for name in names(8, "a.test"):
            rig.send(name)
        await rig.until(lambda: rig.finals == 3)
        await asyncio.sleep(30.0)
        reloaded_s = loop.wall_s()
        rig.reload(micro=policy(rate=rate))
        await rig.settled()
        await rig.stop()

    times = times_of(rig)
    after = times[3:]
    assert len(after) == 5
    if rate:
        assert after[0] - times[2] >= min(gap_s, 900.0) - 0.1 or after[0] - reloaded_s >= gap_s - 31.0
        assert all(gap_s - 0.1 <= gap <= gap_s + 2.0 for gap in gaps(after))
    else:
        assert after[-1] - reloaded_s < 2.0


@swiftly
async def test_a_limit_of_connections_is_removed_in_the_middle(loop: SwiftLoop, tmp_path: Path):
    """Then there are as many as default says; and when one is written again they leave."""
    async with Sink([Profile(name="a", latency_s=0.5)]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=policy(rate="", connections="connections = 2\n"))
        rig.domains_of(sink.profiles)
        for name in names(200, "a.test"):
            rig.send(name)
        await rig.until(lambda: provider.messages > 5)
        before = provider.connections_max
        rig.reload(micro=policy(rate=""))
        await rig.until(lambda: provider.connections_open > 2)
        rig.reload(micro=policy(rate="", connections="connections = 1\n"))
        await rig.until(lambda: provider.connections_open == 1)
        provider.connections_max = 1
        await rig.settled()
        await rig.stop()

    assert before == 2
    assert provider.connections_max == 1
