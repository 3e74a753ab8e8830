"""Exports: mail that waits is held and handed out, so that it can go on on another server.

What is handed out is held on stable storage before, so that it cannot be sent from here as well; that it was an export
that held it is written down with it (`registry.EXPORTED_S`). It lies here until `Remove` names it.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from mta.delivery.acts import ACT_S, Acts, Tally
from mta.delivery.registry import EXPORTED_S
from mta.delivery.standing import ItemStand, Stand, Standings
from mta.delivery.walk import Walk
from mta.model import envelope as envelopes
from mta.model.selection import Criteria
from mta.reporting.moved_mail import Export, Exported, MovedItem, MovedRecipient, Piece, PieceOf

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

PIECE_BYTES_MAX = 1 << 20  # base64, JSON and the control line carry it in a few milliseconds
ITEM_OVERHEAD_BYTES = 512  # of an item in the answer, beside its content
REPLY_CHARS_MAX = 300
UNREADABLE = "held, because the content cannot be read (mta queue verify)"


class Exports:
    """This worker's side."""

    def __init__(self, engine: "Dispatcher", acts: Acts, is_kept_back: Callable[[int], bool]) -> None:
        self._engine = engine
        self._acts = acts
        self._standings = Standings(engine)
        self._walk = Walk(engine, is_kept_back)

    async def page(self, question: Export) -> Exported:
        """The next items that match, held and durably so. Raises NotWrittenError, StoppingError."""
        engine = self._engine
        seqs = engine.store.seqs()
        first = bisect_right(seqs, question.after)
        wanted = seqs[first:]
        tally, stint, criteria = Tally(), self._walk.stint(), Criteria(question.selection)
        found: list[tuple[ItemStand, list[Stand]]] = []
        used_bytes = next_seq = 0
        budget_bytes = min(question.budget_bytes, PIECE_BYTES_MAX)
        end_s = engine.clock.monotonic_s() + ACT_S
        async for some, items in self._walk.meant(stint, criteria, wanted):
            for loaded in items:
                item = self._standings.item(loaded, criteria)
                stands = tally.touchable(item.stands) if item is not None else []
                if item is not None and stands:
                    self._acts.hold_exported(item.seq, stands, item.envelope, EXPORTED_S)
                    found.append((item, stands))
                    used_bytes += min(engine.store.content_size(item.seq), budget_bytes) + ITEM_OVERHEAD_BYTES
                if used_bytes >= budget_bytes:
                    next_seq = loaded.seq
                    break
                if stint.is_due:
                    await stint.turn()
            if not next_seq and some and engine.clock.monotonic_s() > end_s:
                next_seq = some[-1]
            if next_seq:
                break
        if found:
            await self._acts.written()
        contents = await self._contents([item.seq for item, _ in found])
        moved: list[MovedItem] = []
        for (item, stands), content in zip(found, contents, strict=True):
            if content is None:
                tally.leave(UNREADABLE, len(stands))
            else:
                moved.append(self._moved(item, stands, content, budget_bytes))
        if next_seq and next_seq == wanted[-1]:
            next_seq = 0
        looked_at = first + (bisect_right(wanted, next_seq) if next_seq else len(wanted))
        return Exported(moved, next_seq, tally.left, looked_at, len(seqs))

    async def piece(self, question: Piece) -> PieceOf:
        """A part of an item's content; raises LookupError where it is not to be had."""
        content = self._engine.store.content_now(question.seq)
        if content is None:
            [content] = await self._contents([question.seq])
        if content is None:
            raise LookupError(f"item {question.seq} is not here any more, or cannot be read")
        length = min(question.length, PIECE_BYTES_MAX)
        return PieceOf(content[question.offset : question.offset + length])

    def _moved(self, item: ItemStand, stands: Sequence[Stand], content: bytes, budget_bytes: int) -> MovedItem:
        envelope = item.envelope
        share = msgspec.structs.replace(
            envelope,
            recipients=[envelope.recipients[stand.part] for stand in stands],
            told_recipients=None,
            cause_recipients=None,
        )
        recipients: list[MovedRecipient] = []
        for stand in stands:
            recipient, fate = envelope.recipients[stand.part], stand.fate
            recipients.append(
                MovedRecipient(
                    recipient.address,
                    recipient.domain,
                    stand.due_s,
                    stand.state == "held" and not stand.is_exported,
                    fate.attempt if fate is not None else 0,
                    str(fate.reply)[:REPLY_CHARS_MAX] if fate is not None else "",
                    stand.part,
                    stand.note if fate is not None else b"",
                )
            )
        return MovedItem(
            envelope.id,
            envelope.sender,
            recipients,
            envelope.received_s,
            envelopes.encode(share),
            len(content),
            content[:budget_bytes],
            item.seq,
            self._engine.placement.me,
        )

    async def _contents(self, seqs: Sequence[int]) -> list[bytes | None]:
        """None for each that is not to be had."""
        found: list[bytes | None] = []
        while len(found) < len(seqs):
            read: asyncio.Future[list[bytes | None]] = self._engine.loop.create_future()

            def done(contents: list[bytes | None], read: asyncio.Future[list[bytes | None]] = read) -> None:
                if not read.done():
                    read.set_result(contents)

            self._engine.store.contents_soon(seqs[len(found) :], PIECE_BYTES_MAX, done)
            found += await read
        return found
