"""Exports and imports: mail leaves one queue and goes on in another, once."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.sink import Profile, Sink
from mta.delivery.clerk import Clerk
from mta.delivery.registry import is_exported
from mta.handoff.owner import Owner
from mta.model import envelope as envelopes
from mta.model.selection import Selection
from mta.reporting.moved_mail import (
    Export,
    Exported,
    ExportedItem,
    Import,
    Imported,
    Known,
    KnownAre,
    MovedItem,
    Piece,
    PieceOf,
    Remove,
    Upload,
)
from mta.reporting.questions import Acted, Failed
from mta.reporting.waiting import List, Listed, RecipientRow
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly

ALL = Selection(all=True)


def rig_for(loop: SwiftLoop, folder: Path, sink: Sink, **options: Any) -> DeliveryRig:
    folder.mkdir()
    rig = DeliveryRig(loop, folder, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    owner = Owner(rig.store, rig.dispatcher, rig.dispatcher.events.received)
    rig.clerk = Clerk(rig.dispatcher, owner.is_kept_back, owner)
    rig.clerk.is_open = True
    return rig


async def exported(rig: DeliveryRig, selection: Selection = ALL, after: int = 0) -> Exported:
    answer = await rig.clerk.answer(Export(selection, after))
    assert isinstance(answer, Exported), answer
    return answer


async def imported(rig: DeliveryRig, items: list[MovedItem]) -> Imported:
    answer = await rig.clerk.answer(Import(items))
    assert isinstance(answer, Imported), answer
    return answer


async def rows(rig: DeliveryRig) -> dict[str, RecipientRow]:
    answer = await rig.clerk.answer(List(ALL, 1000))
    assert isinstance(answer, Listed)
    return {row.recipient: row for row in answer.rows}


def removal(page: Exported) -> Remove:
    return Remove(
        [ExportedItem(item.seq, item.id, [each.part for each in item.recipients]) for item in page.items], "kim"
    )


@swiftly
async def test_mail_goes_on_elsewhere(loop: SwiftLoop, tmp_path: Path):
    """With its id, tenant, campaign, priority, times, attempts and last reply; what an admin held is held there too.
    Nothing goes from where it was, all of it once from where it is."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        old = rig_for(loop, tmp_path / "old", sink)
        old.send("tempfail.1@a.test", "x@b.test", tenant="t", campaign="c", priority=8, expire_s=7_000.0)
        await old.until(lambda: bool(old.events("deferred")) and old.finals == 1)
        old.send("held@a.test", send_at_s=loop.wall_s() + 500)
        old.send("later@a.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        await old.act("hold", recipient="held@*")
        before = await rows(old)

        page = await exported(old)
        assert (page.next, len(page.items)) == (0, 3)
        assert {row.state for row in (await rows(old)).values()} == {"held"}
        removed = await old.clerk.answer(removal(page))
        assert isinstance(removed, Acted)
        assert (removed.touched, removed.messages) == (3, 3)
        assert old.dispatcher.held == 0
        await asyncio.sleep(3_600)
        assert old.finals == 4
        await old.stop()

        new = rig_for(loop, tmp_path / "new", sink)
        loop_items = msgspec.json.decode(msgspec.json.encode(page.items), type=list[MovedItem])  # as it travels
        assert await imported(new, loop_items) == Imported(3, 3)
        after = await rows(new)
        await new.until(lambda: new.finals == 2)
        released = await new.act("release")
        await new.until(lambda: new.finals == 3)
        await new.stop()

    for address, row in before.items():
        kept = ("id", "sender", "tenant", "campaign", "priority", "attempts", "last_reply", "expires_s", "accepted_s")
        assert [getattr(after[address], name) for name in kept] == [getattr(row, name) for name in kept]
    assert {address: row.state for address, row in after.items()}["held@a.test"] == "held"
    assert released.touched == 1
    cancelled = old.events("cancelled")
    assert {(event["category"], event["text"]) for event in cancelled} == {("exported", "Exported by kim")}
    assert {event["id"] for event in new.events("received")} == {row.id for row in before.values()}
    assert sink.profiles["a"].by_recipient() == {"tempfail.1@a.test": 1, "held@a.test": 1, "later@a.test": 1}


@swiftly
async def test_due_times_are_kept(loop: SwiftLoop, tmp_path: Path):
    """To the millisecond."""
    async with Sink([Profile(name="a")]) as sink:
        old, new = rig_for(loop, tmp_path / "old", sink), rig_for(loop, tmp_path / "new", sink)
        old.send("tempfail@a.test")
        await old.until(lambda: bool(old.events("deferred")))
        before = await rows(old)
        page = await exported(old)
        await imported(new, page.items)
        after = await rows(new)
        await old.stop()
        await new.stop()
    assert after["tempfail@a.test"].next_s == pytest.approx(before["tempfail@a.test"].next_s, abs=0.002)


@swiftly
async def test_the_same_again_is_recognised(loop: SwiftLoop, tmp_path: Path):
    """What waits here already, also after a restart, and what came and went a moment ago; recipient by recipient."""
    async with Sink([Profile(name="a")]) as sink:
        old, new = rig_for(loop, tmp_path / "old", sink), rig_for(loop, tmp_path / "new", sink)
        message_id = old.send("x@a.test", "y@a.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        page = await exported(old)
        assert await imported(new, page.items) == Imported(1, 2)
        assert await imported(new, page.items) == Imported(0, 0)
        known = await new.clerk.answer(Known([(message_id, "x@a.test"), (message_id, "z@a.test"), ("m9", "x@a.test")]))
        assert known == KnownAre([0])
        await new.act("cancel", recipient="x@a.test")
        assert await imported(new, page.items) == Imported(0, 0)
        await new.stop()

        again = rig_for(loop, tmp_path / "again", sink, disk=new.disk)
        for seq, parts in again.recovered.waiting:
            again.dispatcher.found(seq, parts)
        assert await imported(again, page.items) == Imported(1, 1)  # nobody knows any more that x was here
        assert sorted(await rows(again)) == ["x@a.test", "y@a.test"]
        await again.stop()
        await old.stop()


@swiftly
async def test_an_export_that_was_broken_off_is_made_again(loop: SwiftLoop, tmp_path: Path):
    """What it held is found by the next one, and is no admin's hold; page by page nothing comes twice."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path / "old", sink)
        for number in range(20):
            rig.send(f"r{number}@a.test", content=b"Subject: x\r\n\r\n" + b"x" * 1_000, send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        first = await rig.clerk.answer(Export(ALL, 0, 4_000))
        assert isinstance(first, Exported)
        assert 0 < len(first.items) < 20
        assert rig.dispatcher.held == len(first.items)

        seen: list[str] = []
        after = 0
        while True:
            page = await rig.clerk.answer(Export(ALL, after, 4_000))
            assert isinstance(page, Exported)
            assert not any(each.held for item in page.items for each in item.recipients)
            seen += [item.id for item in page.items]
            after = page.next
            if not after:
                break
        assert len(seen) == len(set(seen)) == rig.dispatcher.held == 20
        released = await rig.act("release")
        await rig.settled()
        await rig.stop()
    assert released.touched == 20
    assert len(rig.events("delivered")) == 20


@swiftly
async def test_only_what_is_held_still_is_removed(loop: SwiftLoop, tmp_path: Path):
    """What an admin released meanwhile may be on its way; another message that has the number is another message."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path / "old", sink)
        rig.send("x@a.test", send_at_s=loop.wall_s() + 900)
        rig.send("y@a.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        page = await exported(rig)
        await rig.act("release", recipient="x@*")
        removed = await rig.clerk.answer(removal(page))
        strange = await rig.clerk.answer(Remove([ExportedItem(page.items[0].seq, "m99", [0])]))
        await rig.settled()
        await rig.stop()
    assert isinstance(removed, Acted)
    assert (removed.touched, removed.left) == (1, {"not held any more": 1})
    assert isinstance(strange, Acted)
    assert strange.touched == 0
    assert [event["recipient"] for event in rig.events("delivered")] == ["x@a.test"]


@swiftly
async def test_what_a_power_cut_leaves_is_held(loop: SwiftLoop, tmp_path: Path):
    """What was handed out is held on stable storage, by an export; what was imported is there when that was said."""
    async with Sink([Profile(name="a")]) as sink:
        old, new = rig_for(loop, tmp_path / "old", sink), rig_for(loop, tmp_path / "new", sink)
        old.send("x@a.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        page = await exported(old)
        await imported(new, page.items)
        for rig in (old, new):
            rig.disk.lose_power()
        (tmp_path / "a").mkdir()
        found = [
            list(DeliveryRig(loop, tmp_path / name, port=1, disk=rig.disk).recovered.waiting)
            for name, rig in (("old", old), ("new", new))
            if (tmp_path / name / "policies-1").rename(tmp_path / "a" / name)
        ]
    [(_, ((_, held_s),))], [(_, ((_, due_s),))] = found
    assert is_exported(held_s)
    assert due_s == pytest.approx(loop.wall_s() + 899, abs=2)


@swiftly
async def test_large_content_goes_in_pieces(loop: SwiftLoop, tmp_path: Path):
    """Both ways; a piece that is missing is noticed."""
    content = b"Subject: x\r\n\r\n" + bytes(range(32, 127)) * 1_000
    async with Sink([Profile(name="a")]) as sink:
        old, new = rig_for(loop, tmp_path / "old", sink), rig_for(loop, tmp_path / "new", sink)
        old.send("x@a.test", content=content, send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        page = await old.clerk.answer(Export(ALL, 0, 10_000))
        assert isinstance(page, Exported)
        [item] = page.items
        got = bytearray(item.content)
        assert len(got) == 10_000
        while len(got) < item.size:
            piece = await old.clerk.answer(Piece(item.seq, len(got), 30_000))
            assert isinstance(piece, PieceOf)
            got += piece.data
        assert bytes(got) == content

        half = msgspec.structs.replace(item, content=b"")
        await new.clerk.answer(Upload(item.id, 0, content[:40_000]))
        assert isinstance(await new.clerk.answer(Import([half])), Failed)
        assert isinstance(await new.clerk.answer(Upload(item.id, 50_000, content[50_000:])), Failed)
        await new.clerk.answer(Upload(item.id, 0, content[:40_000]))
        await new.clerk.answer(Upload(item.id, 40_000, content[40_000:]))
        assert await imported(new, [half]) == Imported(1, 1)
        await new.until(lambda: new.finals == 1)
        await old.stop()
        await new.stop()
    assert sink.profiles["a"].by_recipient() == {"x@a.test": 1}


@swiftly
async def test_nonsense_is_not_imported(loop: SwiftLoop, tmp_path: Path):
    """An envelope that is none, recipients that are not the envelope's: a sentence, and nothing is written."""
    async with Sink([Profile(name="a")]) as sink:
        old, new = rig_for(loop, tmp_path / "old", sink), rig_for(loop, tmp_path / "new", sink)
        old.send("x@a.test", send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(1)
        [item] = (await exported(old)).items
        envelope = envelopes.decode(item.envelope)
        envelope.recipients = envelope.recipients * 2
        wrong = [
            msgspec.structs.replace(item, envelope=b"\x01"),
            msgspec.structs.replace(item, envelope=envelopes.encode(envelope)),
            msgspec.structs.replace(item, id="m2"),
            msgspec.structs.replace(item, content=b"x"),
            msgspec.structs.replace(item, recipients=[]),
        ]
        for each in wrong:
            assert isinstance(await new.clerk.answer(Import([item, each])), Failed)
        assert new.store.items == 0
        await old.stop()
        await new.stop()
