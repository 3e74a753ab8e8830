"""Summing up: what waits in this worker, by site.

Nearly all of a long queue is mail waiting for nothing special: of it only the beginning of the envelope is read, and it
is counted by what the queue has in memory. Only what is in hand, or is the first of its kind at a site, is looked at as
closely as a list would. Of the notes the latest few of each site are read, for its last reply. After a start few sites
are known: then mail is counted by domain, whose latest notes say where it went.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mta.delivery.intake import past
from mta.delivery.reasons import Reasons
from mta.delivery.registry import HELD_S
from mta.delivery.sieve import Sieve
from mta.delivery.standing import Standings, last_of
from mta.delivery.summed_site import SummedSite, folded
from mta.delivery.walk import Stint, Walk
from mta.model import envelope as envelopes
from mta.model.selection import Criteria, Selection
from mta.reporting.waiting import SiteRow, Summarized
from mta_queue.store import Loaded, PartState

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

APART_MAX = 10_000  # domains whose site is not known and whose mail is counted without its notes
REPLY_CHARS_MAX = 300  # a peer may say 32 KB
SITES_AT_ONCE = 100  # looked up between two looks at the clock


class _Goal(NamedTuple):
    """Where mail for a domain goes; `site` is None where nobody asked for that."""

    domain: str
    site: SummedSite | None


_Glanced = tuple[float, Sequence[_Goal], bytes, Sequence[PartState]]
"""An item of which only the beginning of the envelope was looked at: when it was accepted, where it goes (by part), its
envelope, and its parts where they were read."""


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
        self._sites: dict[tuple[str, str], SummedSite] = {}
        self._messages = 0
        self._goals: dict[str, _Goal] = {}
        """Of the domains whose site is known."""
        self._asked: dict[str, None] = {}
        """Domains that the thread met and knows nothing of."""
        self._seen: dict[int, envelopes.Glance] = {}
        """What the thread has read of items that must be looked at more closely."""
        self._glanced: dict[int, _Glanced] = {}
        """What the loop has not counted yet."""
        self._apart: dict[str, SummedSite] = {}
        """By domain whose site is not known: what was tried of its mail. Where that went say its latest notes."""
        self._left: dict[tuple[str, str, str], _Goal] = {}
        """By domain, policy and site: where the last attempt of mail went that was read with its notes."""

    async def run(self) -> Summarized:
        """What waits and is meant; of more than SITES_MAX sites those with the fewest recipients are put together.
        Raises StoppingError."""
        stint = self._walk.stint()
        async for seqs, items in self._walk.slices(stint, wants=self._wants):
            self._tell()
            for loaded in items:
                if not self._glance(loaded):
                    self._look(loaded)
                if stint.is_due:
                    await stint.turn()
            unread = self._count(seqs)
            async for some in self._walk.items(stint, unread):
                for loaded in some:
                    self._look(loaded)
                    if stint.is_due:
                        await stint.turn()
        await self._read_latest(stint)
        await self._join_apart(stint)
        rows: list[SiteRow] = []
        for at, (_, site) in enumerate(sorted(self._sites.items())):
            if site.domains:  # else nothing that waits there is meant
                rows.append(self._row(site))
            if at % SITES_AT_ONCE == 0 and stint.is_due:
                await stint.turn()
        return Summarized(folded(rows), self._messages)

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
        recipients, known = seen.recipients, self._goals.get
        if criteria is None and len(recipients) == 1 and (one := known(recipients[0].domain)):  # nearly all
            self._glanced[seq] = seen.received_s, (one,), meta, ()
            return False
        goals: list[_Goal] = []
        for recipient in recipients:
            goal = known(recipient.domain)
            if goal is None:
                self._asked[recipient.domain] = None
                self._seen[seq] = seen
                return True
            if criteria is not None and not criteria.has_recipient(recipient.domain, recipient.address):
                goal = _NOWHERE
            goals.append(goal)
        self._glanced[seq] = seen.received_s, goals, meta, ()
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
            elif self._criteria is None and len(self._apart) < APART_MAX:
                policy = self._standings.policy(domain).name
                apart = self._apart[domain] = SummedSite(policy, "")
                apart.untried = self._site(policy, "")
                self._goals[domain] = _Goal(domain, apart)

    def _site(self, policy: str, name: str) -> SummedSite:
        site = self._sites.get((policy, name))
        if site is None:
            site = self._sites[policy, name] = SummedSite(policy, name)
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
        self._glanced[seq] = seen.received_s, goals, meta, states
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
            received_s, goals, meta, states = glanced
            if stands is None:
                unread.append(seq)
                continue
            due_s, mask, note_segment, note_offset = stands
            living = goals[:1] if mask == 1 else [goal for part, goal in enumerate(goals) if mask >> part & 1]
            is_scheduled = wall_s < due_s < HELD_S
            is_looked_at = seq in busy or not (is_scheduled or self._is_plain(due_s, living))
            if is_looked_at:
                if note_segment and not states and any(site is not None and site.untried for _, site in living):
                    unread.append(seq)
                    continue
                self._look(Loaded(seq, envelopes.glance(meta).id, meta, list(states)))
            is_meant = False
            for domain, known in living:
                if known is None:
                    continue
                site = known if note_segment or known.untried is None else known.untried
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
            apart = self._apart.get(item.envelope.recipients[stand.part].domain)
            if apart is not None:  # others of the domain need not be looked at
                apart.waiting, apart.kept_back = apart.waiting or site.waiting, apart.kept_back or site.kept_back

    async def _read_latest(self, stint: Stint) -> None:
        """Read the notes that were said last."""
        wanted: dict[int, list[SummedSite]] = {}
        for site in (*self._sites.values(), *self._apart.values()):
            for seq in site.latest_seqs():
                wanted.setdefault(seq, []).append(site)
        async for items in self._walk.items(stint, sorted(wanted)):
            for loaded in items:
                recipients = envelopes.glance(loaded.meta).recipients
                for part, _, note in loaded.parts:
                    for site in wanted[loaded.seq]:
                        if recipients[part].domain in site.domains:
                            site.note(note)
                if stint.is_due:
                    await stint.turn()

    async def _join_apart(self, stint: Stint) -> None:
        """Count what is known by its domain alone where it went the last time, or goes now."""
        for at, (domain, apart) in enumerate(self._apart.items()):
            if apart.domains:
                found = self._engine.domains.place(domain)
                last = last_of(apart.last_note)
                if found is not None:
                    key = found.destination.policy.name, found.name
                elif last is not None and last.way.site:
                    key = last.way.policy, last.way.site
                else:
                    key = apart.policy, ""
                self._site(*key).join(apart)
            if at % SITES_AT_ONCE == 0 and stint.is_due:
                await stint.turn()

    def _row(self, site: SummedSite) -> SiteRow:
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
