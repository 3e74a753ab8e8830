"""Suspensions: an admin says that nothing of a kind goes out for a while, mail to come included.

What is suspended by where it goes (policy, site, source, or everything) keeps its place in its lane: its pools begin
nothing. What is suspended by what it is (domain, tenant, sender ...) is parked when its turn comes (`parking.py`).
Limits are told of neither.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mta.delivery.job import Job
from mta.delivery.parking import Lot
from mta.delivery.pool import Pool
from mta.delivery.sites import PumpRound
from mta.model.envelope import Envelope
from mta.model.selection import Facts, Selection, matches
from mta.reporting.questions import Suspension

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher


class _Held:
    """One suspension, and what it keeps back."""

    __slots__ = ("is_of_pools", "is_over", "is_told", "lot", "place", "suspension", "tells")

    def __init__(self, suspension: Suspension, tells: bool) -> None:
        self.suspension = suspension
        self.tells = tells
        self.is_over = False
        """Its time is over; it is remembered until somebody says that it is gone, so that its end is told once."""
        self.is_told = False
        """Its end was told."""
        self.lot = Lot(suspension)
        chosen = suspension.selection
        self.is_of_pools = not (chosen.needs_envelope or chosen.domain)
        """Whole pools are meant."""
        self.place = Selection(site=chosen.site, policy=chosen.policy, source=chosen.source)
        """What it says of pools; empty where it says nothing of them."""

    def is_for(self, pool: Pool) -> bool:
        """Whether mail of a pool may be meant."""
        if self.place.is_empty:
            return not self.suspension.selection.is_empty
        site = pool.site
        facts = Facts("", "", site.name, site.destination.policy.name, pool.source.name, "", "", "", "", 0.0)
        return matches(self.place, facts)


class Suspensions:
    """All that hold now on this worker."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._known: dict[str, _Held] = {}
        self.active = False
        """Anything is suspended: the one thing that is looked at where nothing is."""
        self._pools: list[_Held] = []
        self._jobs: list[_Held] = []
        self._round = PumpRound(engine.loop)

    # what holds

    def replace(self, suspensions: Sequence[Suspension], *, tells: bool = False, ended_by: str = "") -> None:
        """These hold from now on and no others. Where `tells`, beginnings and ends go to the event log."""
        engine = self._engine
        now_s = engine.clock.wall_s()
        events = engine.events
        wanted = {each.id: each for each in suspensions}
        for name in [name for name in self._known if name not in wanted]:
            held = self._known.pop(name)
            if tells and not held.is_told:
                events.resumed(now_s, name, str(held.suspension.selection), ended_by)
            engine.parking.free(held.lot)
        for name, suspension in wanted.items():
            known = self._known.get(name)
            if known is not None and known.suspension == suspension:
                known.tells = known.tells or tells
                continue
            if suspension.until_s <= now_s and known is None:
                continue
            held = self._known[name] = _Held(suspension, tells)
            if known is not None:
                held.tells = held.tells or known.tells
                engine.parking.free(known.lot)
            elif tells:
                chosen = str(suspension.selection)
                events.suspended(now_s, name, chosen, suspension.until_s, suspension.reason, suspension.by)
        self._changed()
        self._pump()

    def sweep(self) -> None:
        """End what is over."""
        if not self.active:
            return
        now_s = self._engine.clock.wall_s()
        over = [held for held in self._known.values() if not held.is_over and held.suspension.until_s <= now_s]
        if not over:
            return
        for held in over:
            held.is_over = True
            if held.tells:
                held.is_told = True
                self._engine.events.resumed(now_s, held.suspension.id, str(held.suspension.selection), "")
            self._engine.parking.free(held.lot)
        self._changed()
        self._pump()

    def _changed(self) -> None:
        holding = [held for held in self._known.values() if not held.is_over]
        self._pools = [held for held in holding if held.is_of_pools]
        self._jobs = [held for held in holding if not held.is_of_pools]
        self.active = bool(holding)
        self._engine.parking.asks(self, self._kept if self._jobs else None)

    def _pump(self) -> None:
        """Whole pools may perhaps go on."""
        self._round.add(self._engine.domains.sites.values())

    @property
    def holding(self) -> list[Suspension]:
        """Those that hold now."""
        return [held.suspension for held in self._known.values() if not held.is_over]

    # asked by pools

    def pool_until_s(self, pool: Pool) -> float:
        """Until when a whole pool may begin nothing: monotonic seconds, 0.0: it may."""
        until_s = 0.0
        engine = self._engine
        for held in self._pools:
            if held.is_for(pool):
                until_s = max(until_s, held.suspension.until_s)
        rest_s = until_s - engine.clock.wall_s()
        return engine.loop.time() + rest_s if rest_s > 0 else 0.0

    def suspension_of(self, pool: Pool) -> Suspension | None:
        """The one that keeps a whole pool back longest."""
        holding = [held.suspension for held in self._pools if held.is_for(pool)]
        return max(holding, key=lambda each: each.until_s, default=None)

    def of_part(self, pool: Pool, envelope: Envelope, part: int) -> Suspension | None:
        """The one that will keep a recipient back when its turn comes, where not the whole pool is."""
        site, age_s = pool.site, self._engine.clock.wall_s() - envelope.received_s
        facts = facts_of(envelope, part, site.name, site.destination.policy.name, pool.source.name, age_s)
        holding = [
            held.suspension for held in self._jobs if held.is_for(pool) and matches(held.suspension.selection, facts)
        ]
        return max(holding, key=lambda each: each.until_s, default=None)

    def _kept(self, pool: Pool, job: Job) -> Iterator[tuple[Lot, Sequence[int]]]:
        """See `mta.delivery.parking.Kept`."""
        for held in self._jobs:
            if held.is_for(pool):
                yield held.lot, self._suspended(held.suspension.selection, pool, job)

    def _suspended(self, chosen: Selection, pool: Pool, job: Job) -> Sequence[int]:
        envelope = job.envelope
        site = pool.site
        policy, source = site.destination.policy.name, pool.source.name
        if envelope is None:
            if chosen.needs_envelope or job.is_mixed:
                return ()  # asked again with the envelope in memory
            facts = Facts("", job.domain, site.name, policy, source, "", "", "", "", 0.0)
            return job.parts if matches(chosen, facts) else ()
        age_s = self._engine.clock.wall_s() - envelope.received_s
        return [
            part for part in job.parts if matches(chosen, facts_of(envelope, part, site.name, policy, source, age_s))
        ]


def facts_of(envelope: Envelope, part: int, site: str, policy: str, source: str, age_s: float) -> Facts:
    """What a selection is laid beside."""
    recipient = envelope.recipients[part]
    return Facts(
        envelope.id,
        recipient.domain,
        site,
        policy,
        source,
        envelope.tenant,
        envelope.campaign,
        envelope.sender,
        recipient.address,
        age_s,
    )
