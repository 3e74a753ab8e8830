"""Summing up: what is counted from a glance is what a list shows recipient by recipient."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery import summed_site, walk
from mta.delivery.registry import HELD_S
from mta.model.outcome import Reply
from mta.model.selection import Selection
from mta.reporting.events import Fate, Way, encode_note
from mta.reporting.waiting import List, Listed, RecipientRow, SiteRow, Summarized, Summary
from mta.resolve.errors import no_answer
from mta.testing.delivery_rig import DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_queue import cooling
from mta_queue.store import Loaded

SELECTIONS: list[dict[str, Any]] = [
    {"all": True}, {"domain": "*a.test"}, {"site": "mx.a.test"}, {"site": "mx.gone.test"}, {"policy": "default"},
    {"policy": "other"}, {"tenant": "shop"}, {"recipient": "x1*"}, {"sender": "a@*", "campaign": "c1"},
    {"older_than_s": 500.0}, {"source": "*"}, {"source": "lost"}, {"source": "out"}, {"id": "m3"},
]  # fmt: skip


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites are known from the third item on, so that nearly all are counted from a glance."""
    monkeypatch.setattr(walk, "ITEMS_AT_ONCE", 8)
    monkeypatch.setattr(walk, "GLANCES_AT_ONCE", 4)


async def listed(rig: DeliveryRig, selection: Selection) -> list[RecipientRow]:
    answer = await rig.clerk.answer(List(selection, 10_000, ""))
    assert isinstance(answer, Listed), answer
    return answer.rows


async def summed(rig: DeliveryRig, selection: Selection) -> Summarized:
    answer = await rig.clerk.answer(Summary(selection))
    assert isinstance(answer, Summarized), answer
    return answer


def counted(rows: list[RecipientRow]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What a summary has to say of these."""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for key in {(row.policy, row.site) for row in rows}:
        some = [row for row in rows if (row.policy, row.site) == key]
        next_s = [row.next_s for row in some if row.state == "scheduled"]
        found[key] = (
            len({row.domain for row in some}),
            Counter(row.state for row in some),
            min(row.accepted_s for row in some),
            min(next_s, default=0.0),
            max((row for row in some), key=lambda row: row.last_s).last_reply,
        )
    return found


def told(row: SiteRow) -> tuple[Any, ...]:
    states = ("ready", "scheduled", "held", "suspended", "sending")
    counts = Counter({state: count for state in states if (count := getattr(row, state))})
    return row.domains, counts, row.oldest_s, row.next_s, row.last_reply


def deferred(rig: DeliveryRig, site: str, text: str) -> bytes:
    """The note of an attempt there, a moment ago."""
    return encode_note(Fate("deferred", rig.loop.wall_s(), Reply(451, "4.7.1", text), "rcpt", attempt=1, way=Way(
        f"mx.{site}", "default", "", "out" if site == "b.test" else "", "", f"mx.{site}"
    )))  # fmt: skip


def channels(rig: DeliveryRig) -> list[Any]:
    sites = rig.dispatcher.domains.sites.values()
    return [channel for site in sites for pool in site.pools.values() for channel in pool.channels]


def put(rig: DeliveryRig, seq: int, due_s: float, note: bytes, parts: tuple[int, ...] = (0,)) -> None:
    """Its recipients wait until then, as after an attempt, or before it where there is no note."""
    rig.store.postpone(seq, parts, due_s, note or None)


@swiftly
async def test_a_summary_says_what_a_list_shows(loop: SwiftLoop, tmp_path: Path):
    """Of every state, with and without a job, at known and unknown sites, hot and cool, whatever is asked for."""
    async with Sink([Profile(name="a"), Profile(name="b"), Profile(name="slow", latency_s=60.0)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domains_of(sink.profiles)
        rig.domain("aa.test", "mx.a.test")
        rig.resolver.found["lost.test"] = no_answer("lost.test", "time-out")
        for name in ("x@a.test", "x@b.test", "x@aa.test"):
            rig.send(name)
        await rig.settled()  # these sites are known
        await sink.profiles["a"].set_down(True)
        far_s = loop.wall_s() + 86_000
        singles = [*names(30, "a.test"), *names(9, "b.test"), *names(9, "gone.test")]
        later = [
            rig.send(name, send_at_s=far_s, tenant="shop", campaign=f"c{at % 3}") for at, name in enumerate(singles)
        ]
        loop.jump_s = -1000.0  # what comes now is older than what came before
        later += [rig.send("x1@a.test", "x2@b.test", "x3@gone.test", send_at_s=far_s) for _ in range(6)]
        known = ["x1@a.test x2@b.test", "x1@b.test x2@a.test", "x1@a.test y@aa.test", "x1@aa.test", "x1@b.test"]
        later += [rig.send(*each.split(), send_at_s=far_s) for each in known]
        loop.jump_s = 0.0
        await asyncio.sleep(600)
        for at, message_id in enumerate(later):
            seq, count = rig.seqs[message_id], len(rig.store.living_parts(rig.seqs[message_id]))
            site = "a.test" if at < 30 else "b.test" if at < 39 else "gone.test"
            if at % 4:
                await asyncio.sleep(1)
                put(rig, seq, far_s + at % 5, deferred(rig, site, f"said {at}"), tuple(range(count)))
            if at % 7 == 3:
                put(rig, seq, HELD_S + 5, b"", tuple(range(count)))
            if at in (50, 54, 55):
                rig.store.finish(seq, (at % 2,), b"")
            if at == 52:
                put(rig, seq, far_s + 9, deferred(rig, site, "in part"), (2,))
        for number in range(4):
            rig.send(f"y{number}@a.test", tenant="shop")
            rig.send(f"y{number}@lost.test", "z@b.test" if number == 2 else "z@a.test")
        await asyncio.sleep(60)
        for _ in range(3):
            await asyncio.sleep(cooling.COOL_S)
        for name in names(12, "slow.test"):
            rig.send(name)
        for name in names(3, "slow.test"):  # these go first
            rig.send(f"urgent-{name}", priority=9)
        await rig.until(lambda: any(channel.job for channel in channels(rig)))
        await asyncio.sleep(4 * cooling.COOL_S)
        just = rig.send("just@b.test", send_at_s=far_s)
        await asyncio.sleep(0.01)
        put(rig, rig.seqs[just], far_s, deferred(rig, "b.test", "just now"))

        for suspensions in ([], [rig.suspension(tenant="sh*")], [rig.suspension(site="mx.a.test")]):
            await rig.suspend(*suspensions)
            for chosen in SELECTIONS:
                selection = Selection(**chosen)
                rows, answer = await listed(rig, selection), await summed(rig, selection)
                assert {(row.policy, row.site): told(row) for row in answer.rows} == counted(rows), chosen
                assert answer.messages == len({row.id for row in rows}), chosen
                for one in answer.rows:
                    some = [row for row in rows if (row.policy, row.site) == (one.policy, one.site)]
                    kept = {row.waits_for for row in some if row.state in ("held", "suspended")}
                    ready = {row.waits_for for row in some if row.state == "ready"}
                    assert bool(one.waits_for) == any(ready) if ready else one.waits_for in (kept or {""}), chosen
        states = Counter(row.state for row in await listed(rig, Selection(all=True)))
        await rig.stop()

    assert set(states) == {"ready", "scheduled", "held", "suspended", "sending"}


@swiftly
async def test_of_domains_whose_site_is_not_known_the_latest_notes_are_read(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As after a start: they say where all went that was tried; the rest has no site yet."""
    rig = DeliveryRig(loop, tmp_path, port=1)
    far_s = loop.wall_s() + 86_000
    for name in names(200, "gone.test"):
        rig.send(name, send_at_s=far_s)
    await asyncio.sleep(5)
    for at, seq in enumerate(rig.seqs.values()):
        if at % 4:
            put(rig, seq, far_s + at, deferred(rig, "gone.test", f"said {at}"))
    read: list[int] = []
    load_soon = rig.store.load_soon

    def loads(seqs: Any, done: Any, wants: Any = None) -> None:
        def loaded(items: list[Loaded]) -> None:
            read.extend(item.seq for item in items)
            done(items)

        load_soon(seqs, loaded, wants)

    for _ in range(3):
        await asyncio.sleep(cooling.COOL_S)
    monkeypatch.setattr(rig.store, "load_soon", loads)
    rows = (await summed(rig, Selection(all=True))).rows
    await rig.stop()

    shown = [(row.site, row.domains, row.scheduled, row.next_s - far_s, row.last_reply) for row in rows]
    assert shown == [("", 1, 50, 0.0, ""), ("mx.gone.test", 1, 150, 1.0, "451 4.7.1 said 199")]
    assert len(read) < 20


@swiftly
async def test_the_last_reply_is_of_the_latest_that_still_waits(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where notes lie in several segments, and the latest item of all ends while the others are looked at."""
    monkeypatch.setattr(summed_site, "LATEST_KEPT", 2)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domains_of(sink.profiles)
        rig.send("x@a.test")
        await rig.settled()
        far_s = loop.wall_s() + 86_000
        for name in names(12, "a.test"):
            rig.send(name, send_at_s=far_s)
        await asyncio.sleep(5)
        seqs = [seq for seq in rig.seqs.values() if rig.store.is_living(seq)]
        for turn, seq in enumerate([*seqs[3:], *seqs[:3]]):
            rig.store._journal._committer._segment_bytes_max = 1
            put(rig, seq, far_s, deferred(rig, "a.test", f"turn {turn}"))
            await asyncio.sleep(20)
        [before] = (await summed(rig, Selection(all=True))).rows
        rig.store.finish(seqs[2], (0,), b"")
        [after] = (await summed(rig, Selection(all=True))).rows
        assert rig.store.segments > 10
        await rig.stop()

    assert before.last_reply == "451 4.7.1 turn 11"
    assert after.last_reply == "451 4.7.1 turn 10"
