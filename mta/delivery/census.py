"""The census: what waits in this worker, summed up by site, listed recipient by recipient, or shown for one message.

The queue keeps no index of what an admin may ask for: it is walked, in slices while mail goes on. A list is asked for
page by page, so what a walk found is kept for the pages that follow.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from mta.delivery.reasons import Reasons
from mta.delivery.standing import ItemStand, Stand, Standings
from mta.delivery.summing import Summing
from mta.delivery.walk import Stint, Walk
from mta.model import envelope as envelopes
from mta.model.selection import Criteria, Selection
from mta.reporting.questions import Suspension
from mta.reporting.waiting import LIST_MAX, List, Listed, Reason, RecipientRow, Show, Shown, Summarized, Summary
from mta_policies.firing import Firing
from mta_queue.store import Loaded

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

PAGES_KEPT_S = 60.0  # so long after a page the next one is found without another walk
LISTS_KEPT_MAX = 4
MESSAGES_KEPT_MAX = 100_000  # that a walk finds for the pages to come: some 15 MB
RECIPIENTS_MAX = 10_000  # of one message that are listed or shown
REPLY_CHARS_MAX = 300  # a peer may say 32 KB
PAGE_ITEMS_AT_ONCE = 256

_Found = str
"""Message id, NUL and seq: one of a hundred thousand that the garbage collector need not look at."""


class _Pages:
    """Messages that a walk found for a list, in order of their ids."""

    __slots__ = ("after", "found", "is_all", "until_s")

    def __init__(self, after: str, found: list[_Found], is_all: bool, until_s: float) -> None:
        self.after = after
        self.found = found
        self.is_all = is_all
        """Nothing that matched sorts behind them."""
        self.until_s = until_s

    def has(self, after: str, now_s: float) -> bool:
        """Whether the page behind this id can be had from here."""
        if now_s > self.until_s or after < self.after:
            return False
        return self.is_all or (bool(self.found) and after < _id_of(self.found[-1]))


class Census:
    """Answers `Summary`, `List` and `Show`."""

    def __init__(self, engine: "Dispatcher", is_kept_back: Callable[[int], bool]) -> None:
        self._engine = engine
        self._standings = Standings(engine)
        self._reasons = Reasons(engine, self._standings)
        self._walk = Walk(engine, is_kept_back)
        self._pages: dict[Selection, _Pages] = {}

    # summed up

    async def summary(self, question: Summary) -> Summarized:
        """What waits, by site."""
        return await Summing(self._engine, self._standings, self._reasons, self._walk, question.selection).run()

    # listed

    async def page(self, question: List) -> Listed:
        """Recipients that match, of the messages that follow."""
        selection, limit = question.selection, max(1, min(question.limit, LIST_MAX))
        now_s = self._engine.loop.time()
        pages = self._pages.get(selection)
        if not question.after or pages is None or not pages.has(question.after, now_s):
            pages = await self._find(selection, question.after)
        self._keep(selection, pages)
        criteria, stint = Criteria(selection), self._walk.stint()
        rows: list[RecipientRow] = []
        found = pages.found
        at = bisect_right(found, f"{question.after}\1") if question.after else 0
        while at < len(found) and len(rows) < limit:
            to = self._whole(found, min(at + PAGE_ITEMS_AT_ONCE, len(found)))
            by_id: dict[str, list[RecipientRow]] = {}
            async for items in self._walk.items(stint, [_seq_of(each) for each in found[at:to]]):
                for loaded in items:
                    by_id.setdefault(loaded.item_id, []).extend(self._rows(loaded, criteria))
                    if stint.is_due:
                        await stint.turn()
            while at < to and len(rows) < limit:
                message_id = _id_of(found[at])
                rows += by_id.get(message_id, ())
                while at < to and _id_of(found[at]) == message_id:
                    at += 1
        return Listed(rows, at < len(found) or not pages.is_all)

    def _keep(self, selection: Selection, pages: _Pages) -> None:
        """For the page that follows; the longest forgotten list goes where there are too many."""
        now_s = self._engine.loop.time()
        self._pages.pop(selection, None)
        kept = [(key, other) for key, other in self._pages.items() if other.until_s >= now_s]
        self._pages = dict(kept[-(LISTS_KEPT_MAX - 1) :])
        self._pages[selection] = pages
        pages.until_s = now_s + PAGES_KEPT_S

    def _whole(self, found: Sequence[_Found], to: int) -> int:
        """Further, where it would part items of one message."""
        while 0 < to < len(found) and _id_of(found[to]) == _id_of(found[to - 1]):
            to += 1
        return to

    async def _find(self, selection: Selection, after: str) -> _Pages:
        """Walk over everything for the messages that match, of which the first are kept."""
        found: list[_Found] = []
        is_all = True
        criteria, stint = Criteria(selection), self._walk.stint()
        async for some in self._matching(criteria, stint):
            found += [f"{message_id}\0{seq}" for message_id, seq in some if message_id > after]
            if len(found) >= MESSAGES_KEPT_MAX + MESSAGES_KEPT_MAX // 4:  # more at once would be a long turn
                found.sort()
                del found[self._whole(found, MESSAGES_KEPT_MAX) :]
                is_all = False
        found.sort()
        if len(found) > MESSAGES_KEPT_MAX and not is_all:
            del found[self._whole(found, MESSAGES_KEPT_MAX) :]
        return _Pages(after, found, is_all, 0.0)

    async def _matching(self, criteria: Criteria, stint: Stint) -> AsyncIterator[list[tuple[str, int]]]:
        """Slices of what matches: ids of messages and seqs."""
        ids: dict[int, str] = {}

        def wants(seq: int, meta: bytes) -> bool:
            try:
                ids[seq] = envelopes.glance(meta).id
            except msgspec.DecodeError:
                return True
            return False

        if criteria.is_everything:  # nothing need be known of it but its id
            async for seqs, items in self._walk.slices(stint, wants=wants):
                unread = [(loaded.item_id, loaded.seq) for loaded in items]
                yield [(ids.pop(seq), seq) for seq in seqs if seq in ids] + unread
            return
        async for _, items in self._walk.meant(stint, criteria):
            found: list[tuple[str, int]] = []
            for loaded in items:
                if self._standings.item(loaded, criteria) is not None:
                    found.append((loaded.item_id, loaded.seq))
                if stint.is_due:
                    await stint.turn()
            yield found

    def _rows(self, loaded: Loaded, criteria: Criteria) -> list[RecipientRow]:
        item = self._standings.item(loaded, criteria)
        if item is None:
            return []
        return [self._row(item, stand, is_exact=False) for stand in item.stands[:RECIPIENTS_MAX]]

    def _row(self, item: ItemStand, stand: Stand, *, is_exact: bool) -> RecipientRow:
        envelope, fate, reasons = item.envelope, stand.fate, self._reasons
        recipient = envelope.recipients[stand.part]
        next_s = 0.0
        if stand.state == "scheduled":
            next_s = stand.due_s
        elif stand.state == "suspended" and isinstance(stand.keeper, Suspension | Firing):
            next_s = stand.keeper.until_s
        reason: Reason | None = None
        if is_exact:
            words, reason = reasons.exact(item.seq, envelope, stand)
        else:
            words = reasons.waits_for(envelope, stand)
        return RecipientRow(
            id=envelope.id,
            recipient=recipient.address,
            sender=envelope.sender,
            domain=recipient.domain,
            state=stand.state,
            policy=stand.policy,
            site=stand.site,
            source=stand.source,
            tenant=envelope.tenant,
            campaign=envelope.campaign,
            priority=envelope.priority,
            size=envelope.size,
            accepted_s=envelope.received_s,
            next_s=next_s,
            expires_s=self._standings.expires_s(envelope, stand),
            attempts=stand.job.attempts if stand.job is not None else fate.attempt if fate is not None else 0,
            waits_for=words,
            last_reply=str(fate.reply)[:REPLY_CHARS_MAX] if fate is not None else "",
            last_host=fate.way.host if fate is not None else "",
            last_s=fate.time_s if fate is not None else 0.0,
            worker=self._engine.placement.me,
            reason=reason,
            expires_from=reasons.expires_from(envelope, stand) if is_exact else "",
        )

    # shown

    async def show(self, question: Show) -> Shown:
        """All recipients of one message that wait here, at most RECIPIENTS_MAX."""
        shown = Shown([])
        stint, criteria = self._walk.stint(), Criteria(Selection(id=question.id))
        async for _, items in self._walk.meant(stint, criteria):
            for loaded in items:
                item = self._standings.item(loaded, criteria)
                if item is None:
                    continue
                envelope = item.envelope
                shown.message_id, shown.from_domain = envelope.message_id, envelope.from_domain
                shown.client = envelope.client
                for stand in item.stands[: RECIPIENTS_MAX - len(shown.rows)]:
                    shown.rows.append(self._row(item, stand, is_exact=True))
                    if stint.is_due:
                        await stint.turn()
        return shown


def _id_of(found: _Found) -> str:
    return found.partition("\0")[0]


def _seq_of(found: _Found) -> int:
    return int(found.partition("\0")[2])
