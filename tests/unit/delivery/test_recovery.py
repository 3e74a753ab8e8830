"""The way back after a block, against a provider that enforces what Google publishes: over real loopback sockets, with
the published times, which pass when there is nothing left to do."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.sink import Profile, Provider, Sink
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.fake_clock import WALL_START_S
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_policies.answers import Subject
from mta_policies.probing import Probing
from mta_policies.provider_model import Google

POLICY = """
match = {{ domains = ["a.test"] }}
[limits]
connections = 3
[retry]
schedule = ["5m"]
jitter = "0%"
expire = "2d"
[[rule]]
name = "blocked"
when = {{ code = "421", enhanced = "4.7.28" }}
then = [{{ {then} }}]
"""
PROBE = 'action = "probe", silence = "10m", scope = "source"'
SUSPEND = 'action = "suspend", for = "10m", scope = "source"'
MESSAGES = 450
ONE_A_MINUTE = 'action = "slow", rate = "1/min", connections = 1, scope = "source"'


class Recovery(NamedTuple):
    """What the provider saw from the block on."""

    rig: DeliveryRig
    provider: Provider
    model: Google
    begun_s: float
    open: list[tuple[float, int]]
    """Connections, every few seconds."""

    @property
    def refused(self) -> list[float]:
        """Seconds after the block began."""
        return [line["time"] - self.begun_s for line in self.rig.events("deferred")]

    @property
    def taken(self) -> list[float]:
        return sorted(line["time"] - self.begun_s for line in self.rig.events("delivered"))

    @property
    def steps(self) -> list[str]:
        return [line["reason"].partition(":")[0] for line in self.rig.events("rule")]


@asynccontextmanager
async def recovery(loop: SwiftLoop, tmp_path: Path, then: str, penalty_s: float) -> AsyncIterator[Recovery]:
    """Three connections carry mail, then the provider blocks them for so long."""
    async with Sink([Profile(name="a", latency_s=0.5)]) as sink:
        provider = sink.profiles["a"]
        provider.model = model = Google(penalty_s)
        provider.clock = loop.time
        rig = DeliveryRig(loop, tmp_path, port=sink.port, google=POLICY.format(then=then))
        rig.domains_of(sink.profiles)
        for number in range(MESSAGES):
            rig.send(f"r{number}@a.test")
        await rig.until(lambda: provider.connections_open == 3 and rig.finals >= 9)
        model.block(Subject("127.0.0.1"), loop.time())
        found = Recovery(rig, provider, model, loop.wall_s(), [])
        yield found
        await rig.stop()


PENALTY_S = 1500.0
WAY = [*2 * ["one connection is tried", "refused again"], "one connection is tried"]
"""Two silences end before the penalty does."""


@swiftly
async def test_silence_one_connection_and_one_more_at_a_time(loop: SwiftLoop, tmp_path: Path):
    """A probe that fails is a silence again; no step of it is punished, and in the end all is well by itself."""
    async with recovery(loop, tmp_path, PROBE, PENALTY_S) as found:
        while found.rig.finals < MESSAGES:
            await asyncio.sleep(5.0)
            found.open.append((loop.wall_s() - found.begun_s, found.provider.connections_open))
            assert loop.time() < 10_000, found.rig.left()
        await found.rig.settled()

    probes = WAY.count("one connection is tried")
    assert found.steps[1:] == [*WAY, "2 connections", "3 connections", "3 connections carry mail"]
    assert found.model.punished == 0
    under_way = [refused_s for refused_s in found.refused if refused_s < 60]
    assert 1 <= len(under_way) <= 3
    assert len(found.refused) - len(under_way) == probes - 1
    back_s = next(taken_s for taken_s in found.taken if taken_s > 60)
    assert back_s >= 600 * probes
    for at_s, connections in found.open:
        if 60 < at_s < back_s:
            assert connections <= 1
        elif back_s <= at_s < back_s + 120:
            assert connections <= 1 + (at_s - back_s) // 58, at_s
    quiet = sorted([*under_way[-1:], *found.refused[len(under_way) :], back_s])
    assert all(later - earlier >= 600 for earlier, later in itertools.pairwise(quiet))


@pytest.mark.parametrize("then", [SUSPEND, ONE_A_MINUTE], ids=["a suspension", "one a minute"])
@swiftly
async def test_a_wrong_recovery_is_punished(loop: SwiftLoop, tmp_path: Path, then: str):
    """By the same provider: three connections at once behind ten minutes, or mail that never lets them pass."""
    async with recovery(loop, tmp_path, then, 540.0) as found:
        await found.rig.until(lambda: len(found.refused) > 0 and found.refused[-1] > 601.0, 2_000.0)

    assert found.model.punished >= 1
    assert found.model.is_blocked(Subject("127.0.0.1"), loop.time())


@swiftly
async def test_a_step_counts_what_its_connection_carries_however_late_in_a_turn_it_was_begun(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The wall clock goes on while a turn of the loop lasts, and the loop's own time does not."""
    told: list[tuple[float, float]] = []
    opened, delivered = Probing.opened, Probing.delivered

    def opens(probing: Probing, now_s: float) -> str:
        if reason := opened(probing, now_s):
            told.append((now_s, 0.0))
        return reason

    def delivers(probing: Probing, now_s: float, begun_s: float) -> str:
        told.append((now_s, begun_s))
        return delivered(probing, now_s, begun_s)

    monkeypatch.setattr(Probing, "opened", opens)
    monkeypatch.setattr(Probing, "delivered", delivers)
    async with recovery(loop, tmp_path, PROBE, 540.0) as found:

        def wall_s() -> float:
            late_s = 0.05 if found.provider.connections_open == 0 else 0.0
            return WALL_START_S + loop.time() + late_s

        monkeypatch.setattr(loop, "wall_s", wall_s)
        await found.rig.until(lambda: "2 connections" in found.steps, 2_000.0)

    first = next(at for at, (_, begun_s) in enumerate(told) if begun_s == 0.0)
    opened_s, (_, begun_s) = told[first][0], told[first + 1]
    assert begun_s >= opened_s
