"""A site that takes no mail backs off as one, whichever way it says so: one connection knocks, no message storms, and
when it is well again all goes at once."""

import asyncio
from pathlib import Path

import pytest

from bench.sink import Profile, Provider, Sink
from mta.testing.delivery_rig import DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_policies.answers import Answer, Subject
from mta_policies.provider_model import Steady

MESSAGES = 60


class Closed(Steady):
    """Greets with 421."""

    is_closed = True

    def opened(self, way: Subject, now_s: float) -> Answer | None:
        del way, now_s
        return Answer(421, "4.3.2", "not now", "greeting") if self.is_closed else None


async def ill(provider: Provider, how: str) -> None:
    match how:
        case "refused":
            await provider.set_down(True)
        case "timed out":
            provider.profile.greeting_latency_s = 100_000.0
        case _:
            provider.model = Closed()


async def well(provider: Provider) -> None:
    await provider.set_down(False)
    provider.profile.greeting_latency_s = 0.0
    if isinstance(provider.model, Closed):
        provider.model.is_closed = False


HOW = [("refused", "connect"), ("timed out", "greeting"), ("421", "greeting")]


@pytest.mark.parametrize(("how", "stage"), HOW, ids=[how for how, _ in HOW])
@swiftly
async def test_one_knocks_and_the_others_wait(loop: SwiftLoop, tmp_path: Path, how: str, stage: str):
    """Half an hour: a knock every two minutes at the most, never two at once; one message tells, none counts it."""
    async with Sink([Profile(name="a")]) as sink:
        provider = sink.profiles["a"]
        await ill(provider, how)
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domains_of(sink.profiles)
        for name in names(MESSAGES, "a.test"):
            rig.send(name)
        await asyncio.sleep(600.0)  # the first connections were begun before anybody knew
        [site] = rig.dispatcher.domains.sites.values()
        [pool] = site.pools.values()
        most, knocks = 0, pool.site.destination.tally.connections_opened
        for _ in range(180):
            await asyncio.sleep(10.0)
            most = max(most, len(pool.channels))
        knocks = pool.site.destination.tally.connections_opened - knocks
        told = rig.events("deferred")
        await well(provider)
        back_s = loop.wall_s()
        await rig.settled(700.0)
        await rig.stop()

    assert most <= 1
    assert 2 <= knocks <= 20
    assert {line["stage"] for line in told} == {stage}
    assert len(told) <= knocks + 25
    assert {line["recipient"] for line in told} == {"r0@a.test"}
    delivered = sorted(line["time"] for line in rig.events("delivered"))
    assert {line["attempt"] for line in rig.events("delivered")} == {1}
    assert delivered[0] - back_s < 450.0  # a probe that hears no greeting waits for it for five minutes
    assert delivered[-1] - delivered[0] < 2.0
