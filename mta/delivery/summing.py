"""Summing up: what waits in this worker, by site.

Nearly all of a long queue is mail for sites that are known, waiting for nothing special: of it only the beginning of
the envelope is read, and it is counted by what the queue has in memory. Only what is in hand, or is the first of its
kind at a site, is looked at as closely as a list would. Of the notes the latest few of each site are read, for its last
reply.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mta.delivery.intake import past
from mta.delivery.reasons import Reasons
from mta.delivery.registry import HELD_S
from mta.delivery.sieve import Sieve
from mta.delivery.standing import ItemStand, Stand, Standings, last_of
from mta.delivery.walk import Pace, Walk
from mta.model import envelope as envelopes
from mta.model.selection import Criteria, Selection
from mta.reporting.events import glance_note
from mta.reporting.questions import OTHER_SITES, SiteRow, Summarized
from mta_queue.store import Loaded

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

SITES_MAX = 10_000  # rows of a summary; the smallest of a policy share one
REPLY_CHARS_MAX = 300  # a peer may say 32 KB
SITES_AT_ONCE = 100  # looked up between two looks at the clock
LATEST_KEPT = 8  # items of a site whose notes are read, of as many segments

NEVER_S = float("inf")


class _Site:
    """A row while it is put together."""

    __slots__ = (
        "domains",
        "held",
        "kept_back",
        "last_note",
        "last_s",
        "latest",
        "next_s",
        "note_offset",
        "note_segment",
        "note_seq",
        "oldest_s",
        "policy",
        "ready",
        "scheduled",
        "sending",
        "site",
        "suspended",
        "waiting",
    )

    def __init__(self, policy: str, site: str) -> None:
        self.policy = policy
        self.site = site
        self.domains: dict[str, None] = {}
        self.ready = self.scheduled = self.held = self.suspended = self.sending = 0
        self.oldest_s = self.next_s = NEVER_S
        self.last_note = b""
        """Of the latest attempt that was seen."""
        self.last_s = 0.0
        self.note_segment = self.note_offset = self.note_seq = 0
        """Of the notes that were not read the last in this segment, and whose it is."""
        self.latest: dict[int, tuple[int, int]] = {}
        """The same, offset and item, of other segments."""
        self.waiting = ""
        """Why the first of its recipients that is ready does not go."""
        self.kept_back = ""
        """The same of the first that an admin keeps back."""

    def add(self, item: ItemStand, stand: Stand) -> None:
        """One recipient more."""
        envelope = item.envelope
        match stand.state:
            case "scheduled":
                self.scheduled += 1
                self.next_s = min(self.next_s, stand.due_s)
            case "ready":
                self.ready += 1
            case "held":
                self.held += 1
            case "suspended":
                self.suspended += 1
            case "sending":
                self.sending += 1
        self.domains[envelope.recipients[stand.part].domain] = None
        self.oldest_s = min(self.oldest_s, envelope.received_s)
        self.note(stand.note)

    def note(self, note: bytes) -> None:
        """What was said of one recipient."""
        if note and (time_s := glance_note(note)) > self.last_s:
            self.last_s, self.last_note = time_s, note

    def turn_to(self, segment: int, offset: int, seq: int) -> None:
        """A note of this item lies in another segment than that of the one before. Of two that lie in segments that
        were written as things happened the one further behind was said later; copies have segments of their own."""
        latest = self.latest
        latest[self.note_segment] = self.note_offset, self.note_seq
        if len(latest) > LATEST_KEPT:
            del latest[min(latest)]
        known = latest.pop(segment, (0, 0))
        self.note_segment = segment
        self.note_offset, self.note_seq = max(known, (offset, seq))

    def latest_seqs(self) -> list[int]:
        """Whose notes are to be read to know the last one."""
        return [seq for seq in (self.note_seq, *(seq for _, seq in self.latest.values())) if seq]

    def row(self) -> SiteRow:
        """As it is answered, but for what is known of the site alone."""
        return SiteRow(
            self.policy,
            self.site,
            len(self.domains),
            self.ready,
            self.scheduled,
            self.held,
            self.suspended,
            self.sending,
            self.oldest_s if self.oldest_s < NEVER_S else 0.0,
            self.next_s if self.next_s < NEVER_S else 0.0,
        )


class _Goal(NamedTuple):
    """Where mail for a domain goes; `site` is None where nobody asked for that."""

    domain: str
    site: _Site | None


_Glanced = tuple[float, Sequence[_Goal], Loaded]
"""An item of which only the beginning of the envelope was looked at: when it was accepted, where it goes (by part), and
the item, without notes where all its domains have a known site."""


class Summing:
    """One summary. `_wants` is the reading thread's, all else the loop's."""

    def __init__(
        self, engine: "Dispatcher", standings: Standings, reasons: Reasons, walk: Walk, selection: Selection
    ) -> None:
        self._engine = engine
        self._standings = standings
        self._reasons = reasons
        self._walk = walk
        criteria = Criteria(selection)
        self._criteria = None if criteria.is_everything else criteria
        self._sieve = Sieve(engine, criteria) if self._criteria is not None else None
        self._sites: dict[tuple[str, str], _Site] = {}
        self._messages = 0
        self._goals: dict[str, _Goal] = {}
        """Of the domains whose site is known."""
        self._asked: dict[str, None] = {}
        """Domains that the thread met and knows nothing of."""
        self._seen: dict[int, envelopes.Glance] = {}
        """What the thread has read of items that must be looked at more closely."""
        self._glanced: dict[int, _Glanced] = {}
        """What the loop has not counted yet."""
        self._left: dict[tuple[str, str, str], _Goal] = {}
        """By domain, policy and site: where the last attempt of mail went whose site is not known now."""

    async def run(self) -> Summarized:
        """What waits and is meant; of more than SITES_MAX sites those with the fewest recipients are put together.
        Raises StoppingError."""
        pace = self._walk.pace()
        async for seqs, items in self._walk.slices(pace, wants=self._wants):
            self._tell()
            for loaded in items:
                if not self._glance(loaded):
                    self._look(loaded)
                if pace.is_due:
                    await pace.turn()
            unread = self._count(seqs)
            async for some in self._walk.items(pace, unread):
                for loaded in some:
                    self._look(loaded)
                    if pace.is_due:
                        await pace.turn()
        await self._read_latest(pace)
        rows: list[SiteRow] = []
        for at, (_, site) in enumerate(sorted(self._sites.items())):
            if site.domains:  # else nothing that waits there is meant
                rows.append(self._row(site))
            if at % SITES_AT_ONCE == 0 and pace.is_due:
                await pace.turn()
        return Summarized(rows if len(rows) <= SITES_MAX else _folded(rows), self._messages)

    def _wants(self, seq: int, meta: bytes) -> bool:
        """Whether an item must be looked at closely; else what is needed of it is kept."""
        try:
            seen = envelopes.glance(meta)
        except msgspec.DecodeError:
            return True  # it is the loop's to say so
        criteria = self._criteria
        if criteria is not None and self._sieve is not None:
            if not self._sieve.may_be(seen):
                return False
            if criteria.needs_source:
                return True
        known = self._goals.get
        goals: list[_Goal] = []
        for recipient in seen.recipients:
            goal = known(recipient.domain)
            if goal is None:
                self._asked[recipient.domain] = None
                self._seen[seq] = seen
                return True
            if criteria is not None and not criteria.has_recipient(recipient.domain, recipient.address):
                goal = _NOWHERE
            goals.append(goal)
        self._glanced[seq] = seen.received_s, goals, Loaded(seq, seen.id, meta, [])
        return False

    def _tell(self) -> None:
        """Find out what the thread asked for."""
        if self._sieve is not None:
            self._sieve.tell()
        while self._asked:
            domain, _ = self._asked.popitem()
            found = self._engine.domains.place(domain)
            if found is not None:
                policy = found.destination.policy.name
                is_meant = self._criteria is None or self._criteria.has_place(found.name, policy, "")
                self._goals[domain] = _Goal(domain, self._site(policy, found.name)) if is_meant else _NOWHERE

    def _site(self, policy: str, name: str) -> _Site:
        site = self._sites.get((policy, name))
        if site is None:
            site = self._sites[policy, name] = _Site(policy, name)
        return site

    def _glance(self, loaded: Loaded) -> bool:
        """Prepare to count an item that was read with its notes, because the site of a domain is not known; False where
        more must be known of it."""
        seq, _, meta, states = loaded
        seen = self._seen.pop(seq, None) or envelopes.glance(meta)
        if self._criteria is not None:
            return False
        goals = [_NOWHERE] * len(seen.recipients)
        place = self._engine.domains.place
        for part, _, note in states:
            domain = seen.recipients[part].domain
            if place(domain) is not None:
                return False
            last = last_of(note) if note else None
            if last is not None and last.way.site:
                key = domain, last.way.policy, last.way.site
            else:
                key = domain, self._standings.policy(domain).name, ""
            goal = self._left.get(key)
            if goal is None:
                goal = self._left[key] = _Goal(domain, self._site(*key[1:]))
            goals[part] = goal
            site = goal.site
            if last is not None and site is not None and last.time_s > site.last_s:
                site.last_s, site.last_note = last.time_s, note
        self._glanced[seq] = seen.received_s, goals, loaded
        return True

    def _count(self, seqs: Sequence[int]) -> list[int]:
        """What was glanced at of a slice, as it stands now; -> what must be read for that: what was just touched, and
        what has parts in different states."""
        engine, take = self._engine, self._glanced.pop
        busy = engine.registry.busy(seqs)
        parking = engine.parking
        if parking.parts:
            busy = {*busy, *(seq for seq in seqs if parking.parked(seq))}
        wall_s = engine.clock.wall_s()
        unread: list[int] = []
        for seq, stands in zip(seqs, engine.store.stands(seqs), strict=True):
            glanced = take(seq, None)
            if glanced is None:
                continue
            received_s, goals, loaded = glanced
            if stands is None:
                unread.append(seq)
                continue
            due_s, mask, note_segment, note_offset = stands
            living = goals[:1] if mask == 1 else [goal for part, goal in enumerate(goals) if mask >> part & 1]
            is_scheduled = wall_s < due_s < HELD_S
            is_looked_at = seq in busy or not (is_scheduled or self._is_plain(due_s, living))
            if is_looked_at:
                self._look(loaded)
            is_meant = False
            for domain, site in living:
                if site is None:
                    continue
                if note_segment == site.note_segment:
                    if note_offset > site.note_offset:
                        site.note_offset, site.note_seq = note_offset, seq
                elif note_segment:
                    site.turn_to(note_segment, note_offset, seq)
                if is_looked_at:
                    continue
                is_meant = True
                if is_scheduled:
                    site.scheduled += 1
                    if due_s < site.next_s:
                        site.next_s = due_s
                elif due_s >= HELD_S:
                    site.held += 1
                else:
                    site.ready += 1
                site.domains[domain] = None
                if received_s < site.oldest_s:
                    site.oldest_s = received_s
            self._messages += is_meant
        return unread

    def _is_plain(self, due_s: float, goals: Sequence[_Goal]) -> bool:
        """Whether these, which are held or ready, differ in nothing from others that were looked at."""
        if due_s >= HELD_S:
            return all(site is None or site.kept_back for _, site in goals)
        engine = self._engine
        is_free = not (engine.suspensions.active or engine.parking.active or engine.restraints.active)
        return is_free and all(site is None or site.waiting for _, site in goals)

    def _look(self, loaded: Loaded) -> None:
        """Count an item as a list would show it."""
        item = self._standings.item(loaded, self._criteria, wants_source=False)
        if item is None:
            return
        self._messages += 1
        for stand in item.stands:
            site = self._site(stand.policy, stand.site)
            site.add(item, stand)
            if stand.state == "ready" and not site.waiting:
                site.waiting = self._reasons.waits_for(item.envelope, stand)
            elif stand.state in ("held", "suspended") and not site.kept_back:
                site.kept_back = self._reasons.waits_for(item.envelope, stand)

    async def _read_latest(self, pace: Pace) -> None:
        """Read the notes that were said last."""
        wanted: dict[int, list[_Site]] = {}
        for site in self._sites.values():
            for seq in site.latest_seqs():
                wanted.setdefault(seq, []).append(site)
        async for items in self._walk.items(pace, sorted(wanted)):
            for loaded in items:
                recipients = envelopes.glance(loaded.meta).recipients
                for part, _, note in loaded.parts:
                    for site in wanted[loaded.seq]:
                        if recipients[part].domain in site.domains:
                            site.note(note)
                if pace.is_due:
                    await pace.turn()

    def _row(self, site: _Site) -> SiteRow:
        """With what is said of a site as it is now, not of its recipients."""
        row = site.row()
        row.waits_for = site.waiting if row.ready else site.kept_back
        if site.last_note and (fate := past(site.last_note)) is not None:
            row.last_reply = str(fate.reply)[:REPLY_CHARS_MAX]
        for domain in site.domains:
            found = self._engine.domains.place(domain)
            if found is None or found.name != row.site or not row.site:
                continue
            row.connections = found.connections
            pools = [pool for pool in found.pools.values() if pool.waiting]
            busiest = max(pools, key=lambda pool: pool.waiting, default=None)
            if busiest is not None and row.ready:
                row.waits_for = self._reasons.of_pool(busiest)[0]
            break
        return row


_NOWHERE = _Goal("", None)


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
