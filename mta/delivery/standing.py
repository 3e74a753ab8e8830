"""Standing: where a recipient that waits stands at this moment.

What the queue and the registry know costs no visit to the disk; of what was read back only as much is decoded as the
asker needs.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mta.delivery.intake import past
from mta.delivery.job import ENDING, SENDING, Job
from mta.delivery.parking import Keeper
from mta.delivery.pool import Pool
from mta.delivery.registry import HELD_S, due_before, is_exported
from mta.delivery.shortage import Shortage
from mta.delivery.sites import Site
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope
from mta.model.selection import Criteria
from mta.reporting.events import Fate, Way
from mta.reporting.waiting import State
from mta_policies.policy import Policy
from mta_policies.retry import expires_s
from mta_policies.schema import Retry
from mta_queue.store import Loaded

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher


class LastAttempt(msgspec.Struct, frozen=True, array_like=True):
    """As much of a `Fate` as says when and where the last attempt went: decoded in half the time."""

    event: str
    time_s: float
    reply: msgspec.Raw
    stage: msgspec.Raw
    attempt: int
    next_attempt_s: float
    way: Way


_NOTHING: Mapping[int, Any] = MappingProxyType({})
_decode_last = msgspec.msgpack.Decoder(LastAttempt).decode


class Stand(NamedTuple):
    """One recipient of one item."""

    part: int
    state: State
    due_s: float
    """When it may be tried, as the queue says; of what is held, as it said before: Unix seconds."""
    policy: str = ""
    site: str = ""
    source: str = ""
    """"" where nobody asked for it, too."""
    job: Job | None = None
    pool: Pool | None = None
    note: bytes = b""
    """Of the last attempt, as it was read back."""
    keeper: Keeper | None = None
    """Of what is suspended, or ready but for a limit of single messages."""
    is_leaving: bool = False
    """It is on its way to another worker."""
    is_exported: bool = False
    """It is held, and an export alone does so."""
    is_spilled: bool = False
    """It has its place in a lane, or waits for its mail hosts, as a number: there is no job for it yet."""

    @property
    def fate(self) -> Fate | None:
        """What the last attempt ended with; decoded anew each time."""
        return past(self.note)

    @property
    def is_touchable(self) -> bool:
        """Whether it may be taken where it stands: no transaction, no end and no move is under way."""
        return self.state != "sending" and not self.is_leaving

    @property
    def attempts(self) -> int:
        """How often the other side has answered about it."""
        if self.job is not None:
            return self.job.attempts
        fate = self.fate
        return fate.attempt if fate is not None else 0


class ItemStand(NamedTuple):
    """Living recipients of one item."""

    seq: int
    envelope: Envelope
    stands: list[Stand]


class Standings:
    """Looks things up; holds nothing."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine

    def unread(self, seq: int) -> list[Stand]:
        """How an item's recipients stand as far as memory knows: no place, and what is suspended counts as ready or
        scheduled."""
        engine = self._engine
        dues = engine.store.dues(seq)
        if not dues:
            return []
        jobs = self._jobs(seq)
        leaving = engine.registry.leaving(seq)
        wall_s = engine.clock.wall_s()
        return [_unplaced(part, due_s, jobs.get(part), part in leaving, wall_s) for part, due_s in dues]

    def item(self, item: Loaded, criteria: Criteria | None = None, *, wants_source: bool = True) -> ItemStand | None:
        """How an item that was read back stands now, with those recipients alone that match; None where none does, or
        nothing of it waits here any more. Without `wants_source` the source of the last attempt is left out where
        the criteria do not ask for it."""
        if criteria is not None:
            if not criteria.may_be(item.item_id):
                return None
            if criteria.is_everything:
                criteria = None
        engine, seq = self._engine, item.seq
        dues = engine.store.dues(seq)  # it was read a while ago
        if not dues:
            return None
        envelope = envelopes.decode(item.meta)
        wall_s = engine.clock.wall_s()
        if criteria is not None and not criteria.has_message(
            envelope.tenant, envelope.campaign, envelope.sender, wall_s - envelope.received_s
        ):
            return None
        jobs = self._jobs(seq)
        leaving = engine.registry.leaving(seq)
        parked = engine.parking.parked(seq) if engine.parking.parts else _NOTHING
        needs_source = criteria.needs_source if criteria is not None else wants_source
        is_quiet = not (leaving or parked)
        states = item.parts
        one = states[0] if len(states) == 1 else None
        notes = {one[0]: one[2]} if one is not None else {state[0]: state[2] for state in states}
        stands: list[Stand] = []
        for part, due_s in dues:
            recipient = envelope.recipients[part]
            if criteria is not None and not criteria.has_recipient(recipient.domain, recipient.address):
                continue
            note, job = notes.get(part, b""), jobs.get(part)
            if job is not None:
                stand = self._of_job(part, due_s, job, recipient.domain, note, envelope)
            elif is_quiet and wall_s < due_s < HELD_S:  # most of a long queue: nothing else need be asked
                _, policy, site_name, source = self._place(recipient.domain, note, needs_source)
                stand = Stand(part, "scheduled", due_s, policy, site_name, source, None, None, note)
            else:
                is_leaving = part in leaving
                keeper = parked.get(part)
                stand = self._without_job(seq, part, due_s, envelope, note, keeper, is_leaving, needs_source, wall_s)
            if criteria is None or criteria.has_place(stand.site, stand.policy, stand.source):
                stands.append(stand)
        return ItemStand(seq, envelope, stands) if stands else None

    def _jobs(self, seq: int) -> Mapping[int, Job]:
        jobs = self._engine.registry.jobs(seq)
        return {part: job for job in jobs for part in job.parts} if jobs else _NOTHING

    def _of_job(self, part: int, due_s: float, job: Job, domain: str, note: bytes, envelope: Envelope) -> Stand:
        site = self._engine.domains.place(job.domain)
        pool: Pool | None = None
        if site is not None:
            policy, site_name = site.destination.policy.name, site.name
            pool = site.pools.get(job.source) or next(iter(site.pools.values()), None)
        else:
            policy, site_name = self.policy(domain).name, ""
        keeper: Keeper | None = None
        state = _state_of(job)
        if state == "ready" and pool is not None:
            state, keeper = self._kept_back(pool, envelope, part)
        return Stand(part, state, due_s, policy, site_name, job.source, job, pool, note, keeper)

    def _without_job(
        self,
        seq: int,
        part: int,
        due_s: float,
        envelope: Envelope,
        note: bytes,
        keeper: Keeper | None,
        is_leaving: bool,
        needs_source: bool,
        wall_s: float,
    ) -> Stand:
        engine, domain = self._engine, envelope.recipients[part].domain
        state: State
        by_export = is_spilled = False
        if due_s >= HELD_S:
            state, by_export, due_s = "held", is_exported(due_s), due_before(due_s)
        elif is_leaving:
            state = "ready"
        elif keeper is not None:
            state = "ready" if isinstance(keeper, Shortage) else "suspended"
        else:
            state = "scheduled" if due_s > wall_s else "ready"
        site, policy, site_name, source = self._place(domain, note, needs_source)
        pool: Pool | None = None
        if state == "ready" and not is_leaving and keeper is None:
            pool = engine.spills.pool_of(seq, domain) if site is not None else None
            is_spilled = pool is not None or (site is None and engine.domains.is_spilled(seq, domain))
            if pool is not None:
                source = pool.source.name
                state, keeper = self._kept_back(pool, envelope, part)
        if state not in ("suspended", "ready"):
            keeper = None
        return Stand(
            part,
            state,
            due_s,
            policy,
            site_name,
            source,
            None,
            pool,
            note,
            keeper,
            is_leaving,
            by_export,
            is_spilled,
        )

    def _place(self, domain: str, note: bytes, needs_source: bool) -> tuple[Site | None, str, str, str]:
        """Where mail without a job goes: the site if it is known, the names of policy, site and source: as the last
        attempt had them, where nobody has looked for the mail hosts since."""
        site = self._engine.domains.place(domain)
        last = last_of(note) if note and (site is None or needs_source) else None
        way = last.way if last is not None else None
        source = way.source if way is not None else ""
        if site is not None:
            return site, site.destination.policy.name, site.name, source
        if way is not None and way.site:
            return None, way.policy, way.site, source
        return None, self.policy(domain).name, "", source

    def _kept_back(self, pool: Pool, envelope: Envelope, part: int) -> tuple[State, Keeper | None]:
        """What goes no further when its turn comes is told so at once."""
        suspensions = self._engine.suspensions
        keeper: Keeper | None = None
        if suspensions.active:
            keeper = suspensions.suspension_of(pool) or suspensions.of_part(pool, envelope, part)
        if keeper is None and pool.braked is not None:
            keeper = pool.braked.longest()
        if keeper is None and (reserving := self._engine.reserving).active:
            return "ready", reserving.shortage_of(pool.source.name, envelope.tenant, envelope.campaign, envelope.sender)
        return ("ready" if keeper is None else "suspended"), keeper

    def policy(self, domain: str) -> Policy:
        """The one that holds for a domain, as far as that is known without its mail hosts."""
        placement = self._engine.placement
        placed = placement.decided(domain)
        return placed.policy if placed is not None else placement.policies.default

    def retry(self, stand: Stand, tenant: str) -> Retry:
        """When what was deferred there of this tenant's mail is tried again, and given up."""
        if stand.pool is not None:
            return stand.pool.retry_for(tenant)
        policies = self._engine.placement.policies
        policy = policies.policies.get(stand.policy)
        return (policy or policies.default).retry_for(tenant, stand.source)

    def expires_s(self, envelope: Envelope, stand: Stand) -> float:
        """When it is given up: Unix seconds."""
        if stand.job is not None and stand.job.expires_s:
            return stand.job.expires_s
        retry = self.retry(stand, envelope.tenant)
        return expires_s(retry, envelope.send_at_s or envelope.received_s, envelope.expire_s)


def _unplaced(part: int, due_s: float, job: Job | None, is_leaving: bool, wall_s: float) -> Stand:
    """As far as it is known without the envelope."""
    if job is not None:
        return Stand(part, _state_of(job), due_s, job=job)
    if due_s >= HELD_S:
        return Stand(part, "held", due_before(due_s), is_leaving=is_leaving, is_exported=is_exported(due_s))
    state: State = "scheduled" if due_s > wall_s and not is_leaving else "ready"
    return Stand(part, state, due_s, is_leaving=is_leaving)


def _state_of(job: Job) -> State:
    return "sending" if job.state in (SENDING, ENDING) else "ready"


def last_of(note: bytes) -> LastAttempt | None:
    """What a note says of the last attempt; None where it says nothing that is understood."""
    try:
        return _decode_last(note)
    except msgspec.DecodeError:
        return None  # of a version that is gone


def parts_of(stands: Sequence[Stand]) -> list[int]:
    """Their numbers."""
    return [stand.part for stand in stands]
