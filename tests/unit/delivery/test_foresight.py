"""What the next message to an address would wait for, and what rules hold for it: the truth, and nothing changes by
asking."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.reporting.questions import Rules
from mta.reporting.waiting import Explain, Explained, Outlook
from mta.resolve.errors import no_answer
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_policies.answers import Answer
from mta_policies.firings import Firings
from mta_policies.rulebook import Action
from mta_policies.units import rate

RETRY = '[retry]\nschedule = ["5m"]\njitter = "0%"\nexpire = "1d"\n'


def rig_for(loop: SwiftLoop, folder: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, folder, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


async def outlooks(rig: DeliveryRig, address: str, *sources: str, **more: str) -> list[Outlook]:
    question = Explain(address, address.rpartition("@")[2], list(sources or [""]), **more)
    answer = await rig.clerk.answer(question)
    assert isinstance(answer, Explained), answer
    return answer.outlooks


async def kinds(rig: DeliveryRig, address: str, **more: str) -> list[str]:
    [outlook] = await outlooks(rig, address, **more)
    return [wait.reason.kind for wait in outlook.waits]


async def fire(rig: DeliveryRig, key: str, action: str, **effect: Any) -> str:
    scope: Any = key.partition(" ")[0]
    done = Action(action, for_s=7_200.0, scope=scope, **effect)  # type: ignore[arg-type]
    answer = Answer(421, "4.7.28", "too fast", "mail")
    name = f"f{len(rig.dispatcher.restraints.firings)}"
    change = Firings().fire("default", "r", done, key, answer, rig.loop.wall_s(), name, scope=scope)
    await rig.clerk.answer(Rules([change]))
    return name


@swiftly
async def test_where_no_mail_has_gone_yet(loop: SwiftLoop, tmp_path: Path):
    """It goes at once; what rules hold is known, and asking leaves nothing behind."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        [before] = await outlooks(rig, "x@a.test")
        name = await fire(rig, "site mx.a.test > mx.a.test", "suspend")
        [after] = await outlooks(rig, "x@a.test")
        domains = rig.dispatcher.domains
        assert (domains.sites, domains.destinations, rig.dispatcher.parking.active) == ({}, {}, False)
        await rig.stop()

    assert (before.policy, before.site, before.waits, before.firings) == ("default", "mx.a.test", [], [])
    assert after.firings == [name]
    [wait] = after.waits
    assert wait.words == f"{name} (rule r for site mx.a.test > mx.a.test: nothing goes)"
    assert (wait.reason.kind, wait.reason.firing) == ("rule", name)
    assert wait.reason.next_s == pytest.approx(loop.wall_s() + 7_200, abs=5)


LIMITS = [
    ("limits", 'rate = "6/min"', "rate", "limits.rate", "6/min"),
    ("source_limits", 'rate = "6/min"', "rate", "source_limits.rate", "6/min"),
    ("provider_limits", 'rate = "6/min"', "rate", "provider_limits.rate", "6/min"),
    (
        "limits",
        'connection_rate = "2/h"\nmessages_per_connection = 1',
        "connection_rate",
        "limits.connection_rate",
        "2/h",
    ),
]


@pytest.mark.parametrize(
    ("table", "line", "kind", "limit", "value"), LIMITS, ids=[f"{t} {n}" for t, _, n, *_ in LIMITS]
)
@swiftly
async def test_a_limit_that_is_used_up(
    loop: SwiftLoop, tmp_path: Path, table: str, line: str, kind: str, limit: str, value: str
):
    """Though nothing waits there: which one, where it is written, and until when; then nothing keeps it."""
    policy = f'match = {{ domains = ["a.test"] }}\n[{table}]\n{line}\n{RETRY}'
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, micro=policy)
        rig.send("first@a.test")
        await asyncio.sleep(1.0)
        [outlook] = await outlooks(rig, "x@a.test")
        now_s = loop.wall_s()
        await asyncio.sleep(3_700.0)
        [later] = await outlooks(rig, "x@a.test")
        await rig.act("cancel")
        await rig.stop()

    [wait] = outlook.waits
    assert (wait.reason.kind, wait.reason.limit, wait.reason.value) == (kind, limit, value)
    assert wait.reason.origin.endswith("micro.toml:3")
    assert now_s < wait.reason.next_s <= now_s + 1_800
    assert later.waits == []


@swiftly
async def test_hours_in_which_nothing_goes(loop: SwiftLoop, tmp_path: Path):
    """Which they are, where they are written, and when they end."""
    hour = datetime.fromtimestamp(loop.wall_s(), UTC).hour
    hours = f"{(hour + 2) % 24:02}:00-{(hour + 3) % 24:02}:00 UTC"
    policy = f'match = {{ domains = ["a.test"] }}\n[limits]\nwindow = "{hours}"\n{RETRY}'
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, micro=policy)
        [outlook] = await outlooks(rig, "x@a.test")
        await rig.stop()

    [wait] = outlook.waits
    assert (wait.reason.kind, wait.reason.limit) == ("window", "limits.window")
    assert wait.reason.origin.endswith("micro.toml:3")
    assert datetime.fromtimestamp(wait.reason.next_s, UTC).hour == (hour + 2) % 24


@swiftly
async def test_everything_else_that_may_keep_it(loop: SwiftLoop, tmp_path: Path):
    """A suspension of a site or of a tenant, a firing on one message, a site that is down, mail hosts that nobody
    knows; for other mail it is otherwise."""
    async with Sink([Profile(name="a"), Profile(name="b"), Profile(name="down", down=True)]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.resolver.found["lost.test"] = no_answer("lost.test", "time-out")
        rig.send("x@down.test")
        await asyncio.sleep(20.0)
        await rig.suspend(rig.suspension(900.0, site="mx.a.test"), rig.suspension(900.0, name="s2", tenant="shop"))
        await fire(rig, "campaign bank/spring > mx.b.test", "slow", rate=(rate("1/h"),))
        found = {
            "site": await kinds(rig, "x@a.test"),
            "tenant": await kinds(rig, "x@b.test", tenant="shop"),
            "both": await kinds(rig, "x@a.test", tenant="shop"),
            "other": await kinds(rig, "x@b.test"),
            "down": await kinds(rig, "x@down.test"),
            "lost": await kinds(rig, "x@lost.test"),
            "slow": await kinds(rig, "x@b.test", tenant="bank", campaign="spring"),
        }
        rig.send("r@b.test", tenant="bank", campaign="spring")
        await asyncio.sleep(5.0)
        found["slow, used up"] = await kinds(rig, "x@b.test", tenant="bank", campaign="spring")
        await rig.act("cancel")
        await rig.stop()

    assert found == {
        "site": ["suspended"],
        "tenant": ["suspended"],
        "both": ["suspended", "suspended"],
        "other": [],
        "down": ["down"],
        "lost": ["lookup"],
        "slow": [],
        "slow, used up": ["rule"],
    }


@swiftly
async def test_which_firings_are_in_force_for_it(loop: SwiftLoop, tmp_path: Path):
    """Of every scope those that hold for it, and what may hold, depending on who sends."""
    async with Sink([Profile(name="a")]) as sink:
        sources = [SourceAddress(f"s{number}", f"127.0.{number}.1", "", "x.test") for number in (1, 2)]
        rig = rig_for(loop, tmp_path, sink, sources=sources)
        meant = [
            "source s1 > mx.a.test",
            "netblock 127.0.1.0/24 > mx.a.test",
            "site mx.a.test > mx.a.test",
            "provider mx.a.test",
            "tenant shop > mx.a.test",
            "campaign shop/spring > mx.a.test",
            "recipient x@a.test > mx.a.test",
            "dkim-domain any.test > mx.a.test",
            "spf-domain any.test > mx.a.test",
            "path s1 any.test mx.a.test > mx.a.test",
        ]
        others = [
            "source s2 > mx.a.test",
            "netblock 127.0.2.0/24 > mx.a.test",
            "site mx.b.test > mx.b.test",
            "provider mx.b.test",
            "tenant bank > mx.a.test",
            "campaign shop/winter > mx.a.test",
            "recipient y@a.test > mx.a.test",
            "dkim-domain any.test > mx.b.test",
            "path s2 any.test mx.a.test > mx.a.test",
        ]
        wanted = [await fire(rig, key, "alert") for key in meant]
        for key in others:
            await fire(rig, key, "alert")
        [one, two] = await outlooks(rig, "x@a.test", "s1", "s2", tenant="shop", campaign="spring")
        await rig.stop()

    assert one.firings == wanted
    assert set(two.firings) & set(wanted) == set(wanted) - {wanted[0], wanted[1], wanted[-1]}


@swiftly
async def test_only_who_owns_it_answers(loop: SwiftLoop, tmp_path: Path):
    """And a source that the server does not know is left out."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, workers=2, micro=f'match = {{ domains = ["a.test"] }}\n{RETRY}')
        placed = rig.dispatcher.placement.decided("a.test")
        assert placed is not None
        is_ours = rig.dispatcher.placement.share(placed) is not None
        assert len(await outlooks(rig, "x@a.test", "", "gone")) == is_ours
        rig.dispatcher.placement.me = 1
        assert len(await outlooks(rig, "x@a.test", "")) == 1 - is_ours
        await rig.stop()
