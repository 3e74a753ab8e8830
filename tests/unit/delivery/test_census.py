"""The census: what waits, where it stands, and what for, in sentences that a person reads."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery.job import Job
from mta.delivery.reasons import jobs_before
from mta.delivery.walk import ITEMS_AT_ONCE
from mta.model.envelope import Envelope
from mta.model.selection import Selection
from mta.reporting.waiting import List, Listed, RecipientRow, Show, Shown, SiteRow, Summarized, Summary
from mta.resolve.errors import no_answer
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_queue.timetable import Lane

ALL = Selection(all=True)


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


async def summary(rig: DeliveryRig, **selection: Any) -> dict[str, SiteRow]:
    answer = await rig.clerk.answer(Summary(Selection(**selection) if selection else ALL))
    assert isinstance(answer, Summarized), answer
    return {row.site: row for row in answer.rows}


async def page(rig: DeliveryRig, limit: int = 100, after: str = "", **selection: Any) -> Listed:
    answer = await rig.clerk.answer(List(Selection(**selection) if selection else ALL, limit, after))
    assert isinstance(answer, Listed), answer
    return answer


async def rows(rig: DeliveryRig, **selection: Any) -> dict[str, RecipientRow]:
    return {row.recipient: row for row in (await page(rig, **selection)).rows}


# ---- summed up


@swiftly
async def test_every_recipient_is_in_one_state(loop: SwiftLoop, tmp_path: Path):
    """Ready, scheduled, held, suspended and being sent, by site; what has no site yet by its policy."""
    async with Sink([Profile(name="a"), Profile(name="b"), Profile(name="slow", latency_s=60.0)]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.resolver.found["lost.test"] = no_answer("lost.test", "time-out")
        rig.send("tempfail@a.test", "full@a.test")
        await rig.until(lambda: len(rig.events("deferred")) == 2)
        began_s = rig.events("deferred")[0]["time"]
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test")
        rig.send("x@lost.test", "y@lost.test")
        rig.send("x@slow.test")
        rig.send("held@b.test", send_at_s=loop.wall_s() + 900)
        rig.send("later@b.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(2)
        await rig.act("hold", recipient="held@*")
        await rig.suspend(rig.suspension(tenant="t"))
        rig.send("parked@a.test", tenant="t")
        await rig.until(lambda: any(channel.job for channel in _channels(rig)), within_s=250)
        found = await summary(rig)
        await rig.stop()

    a, slow, b, lost = found["mx.a.test"], found["mx.slow.test"], found[""], found[""]
    assert (a.policy, a.domains) == ("default", 1)
    assert (a.ready, a.scheduled, a.held, a.suspended, a.sending) == (1, 2, 0, 1, 0)
    assert a.next_s == pytest.approx(began_s + 300, abs=1)
    assert "full" in a.last_reply or "4.3.0" in a.last_reply
    assert "mx.a.test, which does not take mail (connect" in a.waits_for
    assert (slow.sending, slow.connections) == (1, 1)
    assert (b.scheduled, b.held, b.domains) == (1, 1, 2)
    assert lost.ready == 2
    assert lost.waits_for.startswith("the mail hosts of lost.test: 451 4.4.3")


def _channels(rig: DeliveryRig) -> list[Any]:
    sites = rig.dispatcher.domains.sites.values()
    return [channel for site in sites for pool in site.pools.values() for channel in pool.channels]


@swiftly
async def test_a_summary_of_some_counts_only_those(loop: SwiftLoop, tmp_path: Path):
    """Recipients that match, and the messages that have one."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        for name in "ab":
            await sink.profiles[name].set_down(True)
        for number in range(10):
            rig.send(f"x{number}@a.test", f"x{number}@b.test", tenant="odd" if number % 2 else "even")
        await asyncio.sleep(3)

        answer = await rig.clerk.answer(Summary(Selection(domain="A.test", tenant="odd")))
        await rig.stop()

    assert isinstance(answer, Summarized)
    assert answer.messages == 5
    assert [(row.site, row.ready) for row in answer.rows] == [("mx.a.test", 5)]


@swiftly
async def test_the_sum_is_right_for_many(loop: SwiftLoop, tmp_path: Path):
    """More items than one slice has, with very different numbers of recipients."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension(all=True))
        for number in range(3 * ITEMS_AT_ONCE):
            rig.send(*names(1 if number % 50 else 120, "a.test"))
        recipients = len(rig.accepted)
        await asyncio.sleep(3)
        found = await summary(rig)
        await rig.suspend()
        await rig.settled()
        assert await summary(rig) == {}
        await rig.stop()

    assert found["mx.a.test"].suspended == recipients


@swiftly
async def test_very_many_sites_fit_in_an_answer(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those with the fewest recipients are put together, and no recipient is left out."""
    monkeypatch.setattr("mta.delivery.summed_site.SITES_MAX", 2)
    async with Sink([Profile(name=name) for name in "abcd"]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await rig.suspend(rig.suspension(all=True))
        for count, name in enumerate("abcd", 1):
            rig.send(*names(count, f"{name}.test"))
        await asyncio.sleep(1)
        found = await summary(rig)
        await rig.stop()

    assert {site: (row.suspended, row.domains) for site, row in found.items()} == {
        "mx.c.test": (3, 1),
        "mx.d.test": (4, 1),
        "*": (3, 2),
    }


# ---- listed


@swiftly
async def test_pages_follow_each_other(loop: SwiftLoop, tmp_path: Path):
    """Oldest message first, no message parted, each listed once, though messages come and go between two pages."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.count = 1000
        await sink.profiles["a"].set_down(True)
        for _ in range(100):
            rig.send("x@a.test", "y@a.test", "z@a.test")
        await asyncio.sleep(3)

        seen: list[str] = []
        after, pages = "", 0
        while True:
            found = await page(rig, limit=10, after=after)
            ids = [row.id for row in found.rows]
            assert ids == sorted(ids)
            assert 10 <= len(ids) <= 12 or not found.more
            seen += ids
            pages += 1
            if not found.more:
                break
            after = ids[-1]
            if pages == 3:
                await rig.act("cancel", id="m1099")
                rig.send("new@a.test", "new2@a.test", "new3@a.test")
        await rig.stop()

    numbers = [int(message_id[1:]) for message_id in dict.fromkeys(seen)]
    assert set(range(1001, 1099)) | {1100} <= set(numbers)
    assert 1099 not in numbers
    assert {seen.count(message_id) for message_id in seen} == {3}


@swiftly
async def test_a_page_in_the_middle_needs_no_page_before(loop: SwiftLoop, tmp_path: Path):
    """Another command asks for what sorts behind an id: it is looked for anew, also long after the last page."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.count = 100
        await sink.profiles["a"].set_down(True)
        for name in names(20, "a.test"):
            rig.send(name)
        await asyncio.sleep(3)

        first = await page(rig, limit=5, after="m110")
        await asyncio.sleep(600)
        rig.send("new@a.test")
        await asyncio.sleep(3)
        second = await page(rig, limit=100, after="m115")
        none = await page(rig, limit=100, after="m999")
        await rig.stop()

    assert [row.id for row in first.rows] == [f"m{number}" for number in range(111, 116)]
    assert first.more
    assert [row.id for row in second.rows] == [f"m{number}" for number in range(116, 122)]
    assert not second.more
    assert none == Listed([])


@swiftly
async def test_more_than_is_kept_is_found_again(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A list longer than a walk keeps is found by several walks, in order and whole."""
    monkeypatch.setattr("mta.delivery.census.MESSAGES_KEPT_MAX", 7)
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.count = 100
        await sink.profiles["a"].set_down(True)
        for name in names(60, "a.test"):
            rig.send(name)
        await asyncio.sleep(3)

        seen: list[str] = []
        more = True
        while more:
            found = await page(rig, limit=3, after=seen[-1] if seen else "")
            seen += [row.id for row in found.rows]
            more = found.more
        await rig.stop()

    assert seen == [f"m{number}" for number in range(101, 161)]


@swiftly
async def test_a_row_says_all_there_is_to_know(loop: SwiftLoop, tmp_path: Path):
    """Of a recipient that was deferred: when, by whom, in which words, and when it is tried again and given up."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        accepted_s = loop.wall_s()
        rig.send("full@a.test", tenant="t", campaign="c", priority=7)
        await rig.until(lambda: bool(rig.events("deferred")))
        told = rig.events("deferred")[0]
        row = (await rows(rig, tenant="T"))["full@a.test"]
        await rig.stop()

    assert row.state == "scheduled"
    assert row.waits_for == "its next attempt"
    assert row.next_s == pytest.approx(told["next_attempt"], abs=0.001)
    assert row.expires_s == pytest.approx(accepted_s + 86_400, abs=1)
    assert (row.id, row.sender, row.domain) == ("m1", "a@shop.test", "a.test")
    assert (row.policy, row.site, row.tenant, row.campaign, row.priority) == ("default", "mx.a.test", "t", "c", 7)
    assert (row.attempts, row.last_host) == (1, "mx.a.test")
    assert row.last_reply.startswith("452 4.2.2")
    assert row.last_s == pytest.approx(told["time"], abs=0.001)
    assert row.accepted_s == pytest.approx(accepted_s, abs=1)


# ---- what it waits for


async def _sentences(rig: DeliveryRig) -> set[str]:
    return {row.waits_for for row in (await page(rig)).rows}


@swiftly
async def test_what_holds_mail_up_is_said(loop: SwiftLoop, tmp_path: Path):
    """Its limits, by their numbers."""
    async with Sink([Profile(name="a", latency_s=30.0)]) as sink:
        limits = '[limits]\nconnections = 3\n[retry]\nschedule = ["5m"]\n'
        rig = rig_for(loop, tmp_path, sink, default=limits)
        for name in names(10, "a.test"):
            rig.send(name)
        await rig.until(lambda: len([channel for channel in _channels(rig) if channel.job]) == 3)
        sentences = await _sentences(rig)
        last = await rig.clerk.answer(Show("m10"))
        await rig.stop()
    assert sentences == {"", "the limit of 3 connections"}
    assert isinstance(last, Shown)
    assert last.rows[0].waits_for == "the limit of 3 connections; 6 before it"


@swiftly
async def test_what_a_suspension_means_is_suspended_before_its_turn(loop: SwiftLoop, tmp_path: Path):
    """Behind a site that is down nothing has its turn: what would be kept back then is told so at once."""
    async with Sink([Profile(name="a", down=True)]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.send("x@a.test", tenant="shop")
        rig.send("y@a.test", tenant="boss")
        await rig.until(lambda: bool(rig.events("deferred")))
        await rig.suspend(rig.suspension(tenant="sh*"))
        found = await rows(rig)
        only_shop = await summary(rig, tenant="shop")
        await rig.stop()
    assert (found["x@a.test"].state, found["y@a.test"].state) == ("suspended", "ready")
    assert found["x@a.test"].waits_for == "the end of suspension s1 (because)"
    assert (only_shop["mx.a.test"].suspended, only_shop["mx.a.test"].waits_for) == (1, found["x@a.test"].waits_for)


@swiftly
async def test_a_rate_is_said(loop: SwiftLoop, tmp_path: Path):
    """As the policy has it."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default='[limits]\nconnections = 3\nrate = "6/min"\n')
        for name in names(4, "a.test"):
            rig.send(name)
        await rig.until(lambda: rig.finals == 1)
        sentences = await _sentences(rig)
        await rig.stop()
    assert sentences == {"the rate of 6/min"}


@swiftly
async def test_a_limit_of_the_provider_is_said(loop: SwiftLoop, tmp_path: Path):
    """With the name of the policy that has it."""
    big = '[match]\ndomains = ["a.test", "b.test"]\n[provider_limits]\nconnections = 1\n'
    async with Sink([Profile(name="a", latency_s=30.0), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, big=big)
        rig.send("x@a.test")
        await rig.until(lambda: any(channel.job for channel in _channels(rig)))
        rig.send("x@b.test")
        await asyncio.sleep(1)
        found = await rows(rig, domain="b.test")
        await rig.stop()
    assert found["x@b.test"].policy == "big"
    assert found["x@b.test"].waits_for == "a limit of connections that mail to all sites of big shares"


@swiftly
async def test_other_reasons_are_said(loop: SwiftLoop, tmp_path: Path):
    """An admin, a suspension, its sender, the mail hosts, a move."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.resolver.found["lost.test"] = no_answer("lost.test", "time-out")
        rig.send("held@a.test", send_at_s=loop.wall_s() + 100)
        rig.send("later@a.test", send_at_s=loop.wall_s() + 100)
        await asyncio.sleep(1)
        await rig.act("hold", recipient="held@*")
        await rig.suspend(rig.suspension(tenant="t"), rig.suspension(name="s2", site="mx.b.test"))
        rig.send("parked@a.test", tenant="t")
        rig.send("whole@b.test")
        rig.send("lost@lost.test")
        await asyncio.sleep(1)
        found = await rows(rig)
        until_s = loop.wall_s() + 598
        rig.resolver.delay_s = 5.0
        rig.send("asked@c.test")
        await asyncio.sleep(1)
        found |= await rows(rig, domain="c.test")
        await rig.stop()

    states = {recipient.partition("@")[0]: (row.state, row.waits_for) for recipient, row in found.items()}
    assert states == {
        "held": ("held", "an admin, who holds it"),
        "later": ("scheduled", "the time that its sender asked for"),
        "parked": ("suspended", "the end of suspension s1 (because)"),
        "whole": ("suspended", "the end of suspension s2 (because)"),
        "lost": ("ready", states["lost"][1]),
        "asked": ("ready", "the mail hosts of c.test, which are being looked up"),
    }
    assert "the mail hosts of lost.test: 451 4.4.3" in states["lost"][1]
    assert "; next try in " in states["lost"][1]
    assert found["parked@a.test"].next_s == pytest.approx(until_s, abs=2)
    assert found["whole@b.test"].next_s == pytest.approx(until_s, abs=2)


@swiftly
async def test_what_moves_away_says_so(loop: SwiftLoop, tmp_path: Path):
    """It is another worker's in a moment."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, workers=2)
        for number in range(20):
            rig.domain(f"d{number}.test", f"mx.d{number}.test", address=sink.profiles["a"].address)
            rig.send(f"x@d{number}.test")
        await rig.until(lambda: len(rig.mover.moves) + rig.finals == 20)
        found = await rows(rig)
        await rig.stop()
    assert {row.waits_for for row in found.values()} == {"its way to the worker that owns its mail hosts"}


# ---- shown


@swiftly
async def test_a_message_is_shown_with_its_place(loop: SwiftLoop, tmp_path: Path):
    """All its recipients that wait, how many go before them, and what only the envelope tells; of others nothing."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=PLAIN.replace("= 10", "= 0"))
        rig.send("done@a.test", "full@a.test", message_id="<x@shop>", from_domain="shop.test", client="192.0.2.7")
        await rig.until(lambda: rig.finals == 1)
        shown = await rig.clerk.answer(Show("m1"))
        unknown = await rig.clerk.answer(Show("m2"))
        await rig.stop()

    assert isinstance(shown, Shown)
    assert [(row.recipient, row.state) for row in shown.rows] == [("full@a.test", "scheduled")]
    assert (shown.message_id, shown.from_domain, shown.client) == ("<x@shop>", "shop.test", "192.0.2.7")
    assert unknown == Shown([])


def test_the_place_in_a_lane_is_counted_as_the_lane_goes():
    """Higher priorities first, first come first served within."""
    lane: Lane[Job] = Lane()
    jobs = [
        Job(seq, (0,), "a.test", Envelope("m", "", [], 0.0, 0, priority=priority), None, "")
        for seq, priority in enumerate((5, 0, 9, 5, 5, 9, 0))
    ]
    for job in jobs:
        lane.push(job.priority, job)

    counted = {jobs_before(lane, job): job for job in jobs}
    taken = [lane.pop() for _ in jobs]

    assert [counted[place] for place in range(len(jobs))] == taken
