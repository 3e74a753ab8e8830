"""Firings with several owners of a destination, and when it goes from one to another: what fires at one holds for all,
what is allowed is shared, and nobody begins anew with a burst."""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery import brakes
from mta.handoff.placement import Destination
from mta.reporting.questions import Rules
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_policies.answers import Answer
from mta_policies.firing import Change
from mta_policies.firings import Firings
from mta_policies.rulebook import Action
from mta_policies.units import rate

SAID = "451 4.7.28 unusual rate of mail"


def shared(then: str, trigger: str = "", more: str = "", owners: int = 2) -> str:
    return (
        f'owners = {owners}\nmatch = {{ domains = ["*.test"] }}\n{more}\n{PLAIN}[[rule]]\nname = "unusual"\n'
        f'when = {{ text = "unusual rate" }}\n{trigger}\nthen = [{{ {then} }}]\n'
    )


class Workers:
    """Two of them, whose rules tell each other what they set off, as the supervisor does."""

    def __init__(self, loop: SwiftLoop, tmp_path: Path, sink: Sink, policy: str) -> None:
        self.rigs: list[DeliveryRig] = []
        for me in (0, 1):
            (tmp_path / str(me)).mkdir()
            rig = DeliveryRig(loop, tmp_path / str(me), port=sink.port, workers=2, me=me, micro=policy)
            rig.domains_of(sink.profiles)
            rig.dispatcher.restraints.report = lambda changes, me=me: self._tell(1 - me, changes)
            self.rigs.append(rig)
        self._loop = loop
        self._tasks: list[asyncio.Task[object]] = []

    def _tell(self, worker: int, changes: Sequence[Change]) -> None:
        told = Rules(list(changes))
        self._tasks.append(self._loop.create_task(self.rigs[worker].clerk.answer(told)))

    def send(self, count: int, domain: str = "a.test", to: Sequence[int] = (0, 1)) -> None:
        for me in to:
            for name in names(count, domain):
                self.rigs[me].send(f"w{me}-{name}")

    async def settled(self) -> list[float]:
        """-> When messages were delivered, by either."""
        for rig in self.rigs:
            await rig.settled()
        for rig in self.rigs:
            await rig.stop()
        return sorted(line["time"] for rig in self.rigs for line in rig.events("delivered"))

    def told(self, me: int) -> list[str]:
        return [line["change"] for line in self.rigs[me].events("rule")]


@swiftly
async def test_what_fires_at_one_holds_at_the_other(loop: SwiftLoop, tmp_path: Path):
    """From the reply on, and it is told once; the other's mail waits as long."""
    refuses = Profile(name="a", deferred_percent=100, deferred_reply=SAID)
    async with Sink([refuses]) as sink:
        workers = Workers(loop, tmp_path, sink, shared('action = "suspend", for = "2h"'))
        workers.send(1, to=[0])
        await workers.rigs[0].until(lambda: bool(workers.told(0)))
        fired_s = loop.wall_s()
        refuses.deferred_percent = 0
        workers.send(10)
        times = await workers.settled()

    assert times[0] - fired_s > 7_199
    assert (workers.told(0), workers.told(1)) == (["fired"], [])


@pytest.mark.parametrize(
    ("effect", "most"),
    [('rate = "6/min"', 0), ("connections = 2", 2), ('factor = "25%"', 2)],
    ids=["a rate", "connections", "a part"],
)
@swiftly
async def test_what_is_slowed_is_shared_out(loop: SwiftLoop, tmp_path: Path, effect: str, most: int):
    """Both together keep to it, and both send."""
    async with Sink([Profile(name="a", deferred_percent=100, deferred_reply=SAID, latency_s=0.5)]) as sink:
        provider = sink.profiles["a"]
        more = "[source_limits]\nconnections = 8"
        text = shared(f'action = "slow", {effect}, for = "2h", scope = "source"', more=more)
        workers = Workers(loop, tmp_path, sink, text)
        workers.send(1, to=[0])
        await workers.rigs[0].until(lambda: bool(workers.told(0)))
        provider.profile.deferred_percent = 0
        await asyncio.sleep(5.0)
        provider.connections_max = 0
        workers.send(20)
        times = await workers.settled()

    if most:
        assert provider.connections_max == most
    else:  # each has half of it, and may begin with one
        assert all(times[n + 2] - times[n] > 19.0 for n in range(len(times) - 2))
        assert times[-1] - times[0] < 10.0 * len(times)


@swiftly
async def test_a_probe_is_one_connection_of_both(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One of them tries it; the second connection of the second step is the other's, for the mail that it has left."""
    monkeypatch.setattr(brakes, "PASSED_S", math.inf)
    async with Sink([Profile(name="a", deferred_percent=100, deferred_reply=SAID, latency_s=0.5)]) as sink:
        provider = sink.profiles["a"]
        more = "[source_limits]\nconnections = 2"
        text = shared('action = "probe", silence = "10m", scope = "source"', more=more)
        workers = Workers(loop, tmp_path, sink, text)
        workers.send(1, to=[0])
        await workers.rigs[0].until(lambda: bool(workers.told(0)))
        fired_s = loop.wall_s()
        provider.profile.deferred_percent = 0
        await asyncio.sleep(10.0)
        provider.connections_max = 0
        workers.send(150)
        await asyncio.sleep(640.0)
        while_alone = provider.connections_max
        times = await workers.settled()

    assert times[0] - fired_s >= 600
    assert while_alone == 1
    assert provider.connections_max == 2
    assert [*workers.told(0), *workers.told(1)].count("ended") == 1


@pytest.mark.parametrize("then", ['"slow", connections = 1, for = "2h"', '"probe", silence = "10m"'])
@swiftly
async def test_an_owner_without_a_connection_gives_mail_to_the_other(loop: SwiftLoop, tmp_path: Path, then: str):
    """A hundred messages a minute: nothing waits for the end of the firing, and no long queue moves at once."""
    async with Sink([Profile(name="a", deferred_percent=100, deferred_reply=SAID)]) as sink:
        workers = Workers(loop, tmp_path, sink, shared(f'action = {then}, scope = "source"'))
        first, second = sorted(workers.rigs, key=_index)
        first.send("w0@a.test")
        await first.until(lambda: bool(first.events("rule")))
        for name in names(150, "a.test"):
            second.send(name)
        await asyncio.sleep(50.0)
        early = len(second.mover.moves)
        await asyncio.sleep(30.0)
        minute = len(second.mover.moves)
        await asyncio.sleep(60.0)
        assert (early, minute, len(second.mover.moves)) == (0, 100, 150)
        assert {owner for _, _, _, owner in second.mover.moves} == {first.mesh.me}
        assert first.mover.moves == []
        for rig in workers.rigs:
            await rig.act("cancel")
            await rig.stop()


def _index(rig: DeliveryRig) -> int:
    placed = rig.dispatcher.placement.decided("a.test")
    assert placed is not None
    share = rig.dispatcher.placement.share(placed)
    assert share is not None
    return share.index


@pytest.mark.parametrize(
    ("trigger", "at_one", "at_other", "fires"),
    [
        ('trigger = { count = 4, in = "1h" }', 3, 3, False),
        ('trigger = { count = 4, in = "1h" }', 4, 0, True),
        ("trigger = { consecutive = 4 }", 3, 3, False),
        ("trigger = { consecutive = 4 }", 4, 0, True),
        ('trigger = { share = "50%", of = 4, in = "1h" }', 3, 3, False),
        ('trigger = { share = "50%", of = 4, in = "1h" }', 4, 0, True),
    ],
)
@swiftly
async def test_each_counts_what_it_sees(
    loop: SwiftLoop, tmp_path: Path, trigger: str, at_one: int, at_other: int, fires: bool
):
    """As docs/decisions/0009 says: a trigger is pulled by what one owner sees; what it sets off holds for all."""
    refuses = Profile(name="a", deferred_percent=100, deferred_reply=SAID)
    async with Sink([refuses]) as sink:
        workers = Workers(loop, tmp_path, sink, shared('action = "alert"', trigger))
        workers.send(at_one, to=[0])
        workers.send(at_other, to=[1])
        rigs = workers.rigs
        await rigs[0].until(lambda: sum(len(rig.events("deferred")) for rig in rigs) == at_one + at_other)
        await asyncio.sleep(1.0)
        known = [len(rig.dispatcher.restraints.firings) for rig in rigs]
        for rig in rigs:
            await rig.act("cancel")
            await rig.stop()

    assert known == [int(fires)] * 2


# a destination goes from one worker to another


def slowed(loop: SwiftLoop, per: str) -> Change:
    answer = Answer(421, "4.7.28", "too fast", "mail")
    action = Action("slow", for_s=86_400.0, scope="provider", rate=(rate(per),))
    return Firings().fire("micro", "elsewhere", action, "provider micro", answer, loop.wall_s(), "f1", scope="provider")


@swiftly
async def test_a_new_owner_goes_on_with_what_a_firing_allows(loop: SwiftLoop, tmp_path: Path):
    """What the old one sent counts: the new one waits for the rest of the quarter of an hour."""
    policy = shared('action = "alert"', owners=1)
    async with Sink([Profile(name="a")]) as sink:
        workers = Workers(loop, tmp_path, sink, policy)
        old, new = workers.rigs if workers.rigs[0].dispatcher.placement.share(_placed(workers)) else workers.rigs[::-1]
        change = slowed(loop, "4/h")
        await old.clerk.answer(Rules([change]))
        await new.clerk.answer(Rules([change]))
        old.send("first@a.test")
        await old.until(lambda: old.finals == 1)
        state = old.dispatcher.domains.destinations["policy:micro"].state()
        await asyncio.sleep(60.0)

        workers_of = next(count for count in range(2, 50) if _owns(new, count))
        new.reload(workers=workers_of, micro=policy)
        new.claims.states = [state]
        new.send("second@a.test")
        await new.settled()
        await old.stop()
        await new.stop()

    [first], [second] = old.events("delivered"), new.events("delivered")
    assert second["time"] - first["time"] >= 899.0


def _placed(workers: Workers) -> Destination:
    placed = workers.rigs[0].dispatcher.placement.decided("a.test")
    assert placed is not None
    return placed


def _owns(rig: DeliveryRig, workers: int) -> bool:
    rig.dispatcher.placement.workers, before = workers, rig.dispatcher.placement.workers
    placed = rig.dispatcher.placement.decided("a.test")
    assert placed is not None
    owns = rig.dispatcher.placement.share(placed) is not None
    rig.dispatcher.placement.workers = before
    return owns


@swiftly
async def test_what_a_firing_keeps_goes_along(loop: SwiftLoop, tmp_path: Path):
    """A tenant's mail is parked, and a reload gives the destination to another worker: it moves there."""
    policy = shared('action = "alert"', owners=1)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=policy)
        rig.domains_of(sink.profiles)
        action = Action("suspend", for_s=7_200.0, scope="tenant")
        answer = Answer(421, "4.7.28", "too fast", "mail")
        change = Firings().fire("micro", "r", action, "tenant shop > micro", answer, loop.wall_s(), "f1")
        await rig.clerk.answer(Rules([change]))
        for name in names(50, "a.test"):
            rig.send(name, tenant="shop")
        await rig.until(lambda: rig.dispatcher.parking.parts == 50)

        rig.reload(workers=next(count for count in range(2, 50) if not _owns(rig, count)), micro=policy)
        await rig.until(lambda: len(rig.mover.moves) == 50, 30.0)
        assert rig.dispatcher.parking.parts == 0
        assert not rig.dispatcher.parking.active
        await rig.stop()

    assert {parts for _, parts, _, _ in rig.mover.moves} == {(0,)}
