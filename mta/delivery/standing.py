"""Standing: where a recipient that waits stands at this moment, and what it waits for, in one sentence."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from mta.delivery.dispatcher import past
from mta.delivery.job import ENDING, LOADING, SENDING, SIGNING, Job
from mta.delivery.pool import Pool
from mta.delivery.registry import HELD_S, is_held
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope
from mta.model.selection import Facts
from mta.reporting.events import Fate
from mta.reporting.questions import State, Suspension
from mta_policies.retry import expires_s
from mta_policies.schema import Limits, Policy
from mta_policies.units import render_rates
from mta_queue.store import Loaded, PartState

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

COUNTED_BEFORE_MAX = 100_000  # jobs of a lane that are looked at to say how many go before one: a few milliseconds


class Stand(NamedTuple):
    """One recipient of one item."""

    part: int
    state: State
    due_s: float
    """When it may be tried, as the queue says; of what is held, as it said before: Unix seconds."""
    policy: str
    site: str
    source: str
    job: Job | None = None
    pool: Pool | None = None
    fate: Fate | None = None
    """Of the last attempt."""
    suspension: Suspension | None = None
    is_leaving: bool = False
    """It is on its way to another worker."""

    @property
    def is_touchable(self) -> bool:
        """Whether it may be taken where it stands: no transaction, no end and no move is under way."""
        return self.state != "sending" and not self.is_leaving


class ItemStand(NamedTuple):
    """All living recipients of one item."""

    seq: int
    envelope: Envelope
    stands: list[Stand]

    def facts(self, stand: Stand, wall_s: float) -> Facts:
        """What a selection is laid beside."""
        envelope = self.envelope
        recipient = envelope.recipients[stand.part]
        return Facts(
            envelope.id,
            recipient.domain,
            stand.site,
            stand.policy,
            stand.source,
            envelope.tenant,
            envelope.campaign,
            envelope.sender,
            recipient.address,
            wall_s - envelope.received_s,
        )


class Standings:
    """Looks things up; holds nothing."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine

    def item(self, item: Loaded) -> ItemStand | None:
        """How an item that was read back stands now; None where nothing of it waits here any more."""
        engine = self._engine
        states = engine.store.waiting_parts(item.seq)  # it was read a while ago
        if not states:
            return None
        envelope = envelopes.decode(item.meta)
        seq = item.seq
        jobs: dict[int, Job] = {}
        for job in engine.registry.jobs(seq):
            for part in job.parts:
                jobs[part] = job
        leaving = engine.registry.leaving(seq)
        parked = engine.suspensions.parked(seq) if engine.suspensions.parked_parts else {}
        fates: dict[bytes, Fate | None] = {}
        stands = []
        for state in states:
            note = state.note
            try:
                fate = fates[note]
            except KeyError:
                fate = fates[note] = past(note)
            part = state.part
            domain = envelope.recipients[part].domain
            job = jobs.get(part)
            if job is not None:
                stands.append(self._as_suspended(self._of_job(state, job, domain, fate), envelope))
            else:
                stands.append(self._without_job(state, domain, fate, parked.get(part), part in leaving))
        return ItemStand(seq, envelope, stands)

    def _of_job(self, state: PartState, job: Job, domain: str, fate: Fate | None) -> Stand:
        site = self._engine.domains.place(job.domain)
        pool: Pool | None = None
        policy, site_name = self._policy(domain).name, ""
        if site is not None:
            policy, site_name = site.destination.policy.name, site.name
            pool = site.pools.get(job.source) or next(iter(site.pools.values()), None)
        suspension: Suspension | None = None
        if job.state in (SENDING, ENDING):
            standing = "sending"
        else:
            standing = "ready"
            if pool is not None and self._engine.suspensions.active:
                suspension = self._engine.suspensions.suspension_of(pool)
                standing = "ready" if suspension is None else "suspended"
        return Stand(state.part, standing, state.due_s, policy, site_name, job.source, job, pool, fate, suspension)

    def _as_suspended(self, stand: Stand, envelope: Envelope) -> Stand:
        """What goes no further when its turn comes is told so at once."""
        suspensions = self._engine.suspensions
        if stand.state != "ready" or stand.pool is None or not suspensions.active:
            return stand
        suspension = suspensions.of_part(stand.pool, envelope, stand.part)
        return stand if suspension is None else stand._replace(state="suspended", suspension=suspension)

    def _without_job(
        self, state: PartState, domain: str, fate: Fate | None, suspension: Suspension | None, is_leaving: bool
    ) -> Stand:
        due_s = state.due_s
        standing: State
        if is_held(due_s):
            standing, due_s = "held", due_s - HELD_S
        elif is_leaving:
            standing = "ready"
        elif suspension is not None:
            standing = "suspended"
        else:
            standing = "scheduled" if due_s > self._engine.clock.wall_s() else "ready"
        source = fate.way.source if fate is not None else ""
        site = self._engine.domains.place(domain)
        if site is not None:
            policy, site_name = site.destination.policy.name, site.name
        elif fate is not None and fate.way.site:
            policy, site_name = fate.way.policy, fate.way.site
        else:
            policy, site_name = self._policy(domain).name, ""
        return Stand(state.part, standing, due_s, policy, site_name, source, None, None, fate, suspension, is_leaving)

    def _policy(self, domain: str) -> Policy:
        placement = self._engine.placement
        placed = placement.decided(domain)
        return placed.policy if placed is not None else placement.policies.default

    def expires_s(self, envelope: Envelope, stand: Stand) -> float:
        """When it is given up: Unix seconds."""
        if stand.job is not None and stand.job.expires_s:
            return stand.job.expires_s
        if stand.pool is not None:
            retry = stand.pool.retry
        else:
            policy = self._engine.placement.policies.policies.get(stand.policy)
            retry = (policy or self._engine.placement.policies.default).for_source(stand.source)[2]
        return expires_s(retry, envelope.send_at_s or envelope.received_s, envelope.expire_s)

    # what it waits for

    def waits_for(self, envelope: Envelope, stand: Stand, *, is_exact: bool = False) -> str:
        """One sentence; `is_exact`: also how many go before it."""
        match stand.state:
            case "held":
                return "an admin, who holds it"
            case "scheduled":
                return "its next attempt" if stand.fate is not None else "the time that its sender asked for"
            case "suspended":
                return suspended(stand.suspension)
            case "sending":
                return ""
        if stand.is_leaving:
            return "its way to the worker that owns its mail hosts"
        job = stand.job
        if job is None:
            return "its turn to be read back from the disk"
        domain = envelope.recipients[stand.part].domain
        if stand.pool is None:
            return self._engine.domains.waits_for(job.domain, self._engine.loop.time()) or f"the mail hosts of {domain}"
        reason = self.pool_waits_for(stand.pool)
        if not reason and job.state == SIGNING:
            return "its signature"
        if not reason and job.state == LOADING:
            return "its content, which is being read back from the disk"
        lane = stand.pool.lane
        before = jobs_before(lane, job) if is_exact and len(lane) <= COUNTED_BEFORE_MAX else 0
        return f"{reason or 'its turn'}; {before:,} before it" if before else reason or "its turn"

    def pool_waits_for(self, pool: Pool) -> str:
        """Why a pool does not send all that it has at once; "" where nothing but its connections keeps it."""
        now_s = self._engine.loop.time()
        site = pool.site
        if self._engine.suspensions.active:
            suspension = self._engine.suspensions.suspension_of(pool)
            if suspension is not None:
                return suspended(suspension)
        if site.holds:
            return "other workers, which still have connections to its mail hosts"
        if site.backoff.failures or pool.backoff.failures:
            wait_s = max(site.backoff.wait_s(now_s), pool.backoff.wait_s(now_s))
            stage, reply = pool.failure
            next_try = "being tried now" if wait_s in (0.0, float("inf")) else f"next try in {wait_s:.0f} s"
            open_now = sum(not channel.is_opening for channel in pool.channels)
            if open_now:
                most = f"no more than {open_now:,} connection{'' if open_now == 1 else 's'}"
                return f"{site.name}, which takes {most} ({stage}: {reply})"
            return f"{site.name}, which does not take mail ({stage}: {reply}); {next_try}"
        limits = pool.limits
        if pool.meter.has_rate and pool.meter.transaction_wait_s(now_s) > 0:
            return f"the rate of {_rates(limits)}"
        for gate in pool.allowance.turns:
            if gate in pool.waits:
                return f"a rate that mail to all sites of {site.destination.policy.name} shares"
        if pool.idle or (pool.channels and not pool.opening and len(pool.channels) < pool.meter.connections_max):
            return ""
        if len(pool.channels) >= pool.meter.connections_max:
            most = int(pool.meter.connections_max)
            return f"the limit of {most:,} connection{'' if most == 1 else 's'}"
        for gate in pool.allowance.gates:
            if gate in pool.waits:
                return f"a limit of connections that mail to all sites of {site.destination.policy.name} shares"
        if pool.opening:
            return "a connection, which is being opened"
        if pool.meter.connection_wait_s(now_s) > 0:
            return "the rate of new connections"
        return "a connection"


def suspended(suspension: Suspension | None) -> str:
    """What somebody reads of a suspension: its end is a time of its own (`next_s`)."""
    if suspension is None:
        return "the end of a suspension"
    return f"the end of suspension {suspension.id}" + (f" ({suspension.reason})" if suspension.reason else "")


def jobs_before(lane: Iterable[Job], job: Job) -> int:
    """How many jobs of a lane have their turn before this one."""
    before = 0
    is_met = False
    for other in lane:
        if other is job:
            is_met = True
        elif other.priority > job.priority or (other.priority == job.priority and not is_met):
            before += 1
    return before


def _rates(limits: Limits) -> str:
    text = render_rates(limits.rate)
    return text if isinstance(text, str) else " and ".join(text)
