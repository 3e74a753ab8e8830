"""The census: what waits in this worker, summed up by site, listed recipient by recipient, or shown for one message.

The queue keeps no index of what an admin may ask for: it is walked, in slices while mail goes on. A list is asked for
page by page, so what a walk found is kept for the pages that follow.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mta.delivery.standing import ItemStand, Stand, Standings
from mta.delivery.walk import Walk
from mta.model.selection import Selection, matches
from mta.reporting.questions import (
    LIST_MAX,
    OTHER_SITES,
    List,
    Listed,
    RecipientRow,
    Show,
    Shown,
    SiteRow,
    Summarized,
    Summary,
)
from mta_queue.store import Loaded

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

PAGES_KEPT_S = 60.0  # so long after a page the next one is found without another walk
LISTS_KEPT_MAX = 4
MESSAGES_KEPT_MAX = 100_000  # that a walk finds for the pages to come: some 15 MB
SITES_MAX = 10_000  # rows of a summary; the smallest of a policy share one
RECIPIENTS_MAX = 10_000  # of one message that are listed or shown
REPLY_CHARS_MAX = 300  # a peer may say 32 KB
ROWS_AT_ONCE = 500  # made in one turn of the loop: a few milliseconds
PAGE_ITEMS_AT_ONCE = 64

_Found = tuple[str, int]
"""Message id and seq."""


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
        return self.is_all or (bool(self.found) and after < self.found[-1][0])


class _Site:
    """A row of the summary while it is put together."""

    __slots__ = ("domains", "kept_back", "last_s", "row", "waiting")

    def __init__(self, policy: str, site: str) -> None:
        self.row = SiteRow(policy, site)
        self.domains: dict[str, None] = {}
        self.last_s = 0.0
        self.waiting = ""
        """Why the first of its recipients that is ready does not go."""
        self.kept_back = ""
        """The same of the first that an admin keeps back."""

    def add(self, item: ItemStand, stand: Stand) -> None:
        """One recipient more."""
        row, envelope = self.row, item.envelope
        match stand.state:
            case "ready":
                row.ready += 1
            case "scheduled":
                row.scheduled += 1
                if not row.next_s or stand.due_s < row.next_s:
                    row.next_s = stand.due_s
            case "held":
                row.held += 1
            case "suspended":
                row.suspended += 1
            case "sending":
                row.sending += 1
        self.domains[envelope.recipients[stand.part].domain] = None
        if not row.oldest_s or envelope.received_s < row.oldest_s:
            row.oldest_s = envelope.received_s
        fate = stand.fate
        if fate is not None and fate.time_s > self.last_s:
            self.last_s = fate.time_s
            row.last_reply = str(fate.reply)[:REPLY_CHARS_MAX]


class Census:
    """Answers `Summary`, `List` and `Show`."""

    def __init__(self, engine: "Dispatcher", is_kept_back: Callable[[int], bool]) -> None:
        self._engine = engine
        self._standings = Standings(engine)
        self._walk = Walk(engine, is_kept_back)
        self._pages: dict[Selection, _Pages] = {}

    # summed up

    async def summary(self, question: Summary) -> Summarized:
        """What waits, by site; of more than SITES_MAX sites those with the fewest recipients are put together."""
        sites: dict[tuple[str, str], _Site] = {}
        messages = 0
        pace = _Pace()
        async for items in self._walk.items():
            for loaded in items:
                item = self._standings.item(loaded)
                if item is None:
                    continue
                stands = self._matching(question.selection, item)
                messages += bool(stands)
                for stand in stands:
                    key = (stand.policy, stand.site)
                    site = sites.get(key)
                    if site is None:
                        site = sites[key] = _Site(*key)
                    site.add(item, stand)
                    if stand.state == "ready" and not site.waiting:
                        site.waiting = self._standings.waits_for(item.envelope, stand)
                    elif stand.state in ("held", "suspended") and not site.kept_back:
                        site.kept_back = self._standings.waits_for(item.envelope, stand)
                if pace.is_due(len(item.stands)):
                    await asyncio.sleep(0)
        for at, site in enumerate(sites.values()):
            self._complete(site)
            if at % ROWS_AT_ONCE == ROWS_AT_ONCE - 1:
                await asyncio.sleep(0)
        rows = [site.row for _, site in sorted(sites.items())]
        return Summarized(rows if len(rows) <= SITES_MAX else _folded(rows), messages)

    def _complete(self, site: _Site) -> None:
        """What is said of a site as it is now, not of its recipients."""
        row = site.row
        row.domains = len(site.domains)
        row.waits_for = site.waiting if row.ready else site.kept_back
        for domain in site.domains:
            found = self._engine.domains.place(domain)
            if found is None or found.name != row.site or not row.site:
                continue
            row.connections = found.connections
            pools = [pool for pool in found.pools.values() if len(pool.lane)]
            busiest = max(pools, key=lambda pool: len(pool.lane), default=None)
            if busiest is not None and row.ready:
                row.waits_for = self._standings.pool_waits_for(busiest)
            break

    def _matching(self, selection: Selection, item: ItemStand) -> list[Stand]:
        if selection.all and selection == _ALL:
            return item.stands
        wall_s = self._engine.clock.wall_s()
        return [stand for stand in item.stands if matches(selection, item.facts(stand, wall_s))]

    # listed

    async def page(self, question: List) -> Listed:
        """Recipients that match, of the messages that follow."""
        selection, limit = question.selection, max(1, min(question.limit, LIST_MAX))
        now_s = self._engine.loop.time()
        pages = self._pages.get(selection)
        if not question.after or pages is None or not pages.has(question.after, now_s):
            pages = await self._find(selection, question.after)
        self._keep(selection, pages)
        rows: list[RecipientRow] = []
        found = pages.found
        at = bisect_right(found, (question.after, 1 << 64)) if question.after else 0
        while at < len(found) and len(rows) < limit:
            to = self._whole(found, min(at + PAGE_ITEMS_AT_ONCE, len(found)))
            by_id: dict[str, list[RecipientRow]] = {}
            async for items in self._walk.items([seq for _, seq in found[at:to]]):
                for loaded in items:
                    rows_of = self._rows(loaded, selection)
                    by_id.setdefault(loaded.item_id, []).extend(rows_of)
            while at < to and len(rows) < limit:
                message_id = found[at][0]
                rows += by_id.get(message_id, ())
                while at < to and found[at][0] == message_id:
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
        while 0 < to < len(found) and found[to][0] == found[to - 1][0]:
            to += 1
        return to

    async def _find(self, selection: Selection, after: str) -> _Pages:
        """Walk over everything for the messages that match, of which the first are kept."""
        found: list[_Found] = []
        is_all = True
        pace = _Pace()
        async for items in self._walk.items():
            for loaded in items:
                if loaded.item_id <= after or (selection.id and loaded.item_id != selection.id):
                    continue
                item = self._standings.item(loaded)
                if item is None:
                    continue
                if self._matching(selection, item):
                    found.append((loaded.item_id, loaded.seq))
                if pace.is_due(len(item.stands)):
                    await asyncio.sleep(0)
            if len(found) >= 2 * MESSAGES_KEPT_MAX:
                found.sort()
                del found[self._whole(found, MESSAGES_KEPT_MAX) :]
                is_all = False
        found.sort()
        if len(found) > MESSAGES_KEPT_MAX and not is_all:
            del found[self._whole(found, MESSAGES_KEPT_MAX) :]
        return _Pages(after, found, is_all, 0.0)

    def _rows(self, loaded: Loaded, selection: Selection) -> list[RecipientRow]:
        item = self._standings.item(loaded)
        if item is None:
            return []
        return [self._row(item, stand, False) for stand in self._matching(selection, item)[:RECIPIENTS_MAX]]

    def _row(self, item: ItemStand, stand: Stand, is_exact: bool) -> RecipientRow:
        envelope, fate, standings = item.envelope, stand.fate, self._standings
        recipient = envelope.recipients[stand.part]
        next_s = 0.0
        if stand.state == "scheduled":
            next_s = stand.due_s
        elif stand.state == "suspended" and stand.suspension is not None:
            next_s = stand.suspension.until_s
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
            expires_s=standings.expires_s(envelope, stand),
            attempts=stand.job.attempts if stand.job is not None else fate.attempt if fate is not None else 0,
            waits_for=standings.waits_for(envelope, stand, is_exact=is_exact),
            last_reply=str(fate.reply)[:REPLY_CHARS_MAX] if fate is not None else "",
            last_host=fate.way.host if fate is not None else "",
            last_s=fate.time_s if fate is not None else 0.0,
            worker=self._engine.placement.me,
        )

    # shown

    async def show(self, question: Show) -> Shown:
        """All recipients of one message that wait here, at most RECIPIENTS_MAX."""
        shown = Shown([])
        async for items in self._walk.items():
            for loaded in items:
                if loaded.item_id != question.id:
                    continue
                item = self._standings.item(loaded)
                if item is None:
                    continue
                envelope = item.envelope
                shown.message_id, shown.from_domain = envelope.message_id, envelope.from_domain
                shown.client = envelope.client
                shown.rows += [self._row(item, stand, True) for stand in item.stands[:RECIPIENTS_MAX]]
        return shown


class _Pace:
    """Says when the loop should turn."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = 0

    def is_due(self, rows: int) -> bool:
        """So many more were looked at."""
        self._done += rows
        if self._done < ROWS_AT_ONCE:
            return False
        self._done = 0
        return True


def _folded(rows: Sequence[SiteRow]) -> list[SiteRow]:
    """As many rows as an answer may have: the sites with the fewest recipients become one row a policy."""
    by_size = sorted(rows, key=lambda row: -(row.ready + row.scheduled + row.held + row.suspended + row.sending))
    others: dict[str, SiteRow] = {}
    for row in by_size[SITES_MAX:]:
        other = others.setdefault(row.policy, SiteRow(row.policy, OTHER_SITES))
        for name in ("domains", "ready", "scheduled", "held", "suspended", "sending", "connections"):
            setattr(other, name, getattr(other, name) + getattr(row, name))
        other.oldest_s = min(filter(None, (other.oldest_s, row.oldest_s)), default=0.0)
        other.next_s = min(filter(None, (other.next_s, row.next_s)), default=0.0)
    kept = sorted(by_size[:SITES_MAX], key=lambda row: (row.policy, row.site))
    return [*kept, *others.values()]


_ALL = Selection(all=True)
