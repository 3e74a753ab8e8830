"""Reasons: what a recipient that waits is waiting for: in words, and with the limit, where it is written, and when its
turn comes as well as that can be known.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mta.delivery.brakes import Brake
from mta.delivery.calendars import Calendar, shut_words
from mta.delivery.gate import Gate, SharedLimit
from mta.delivery.job import LOADING, SIGNING, Job
from mta.delivery.parking import Keeper
from mta.delivery.pool import Pool
from mta.delivery.reserving import LIMIT
from mta.delivery.shortage import Shortage, Told
from mta.delivery.standing import Stand, Standings
from mta.model.envelope import Envelope
from mta.reporting.questions import Suspension
from mta.reporting.rule_words import effect_of, rule_written
from mta.reporting.waiting import Reason, ReasonKind
from mta_policies.limits import Meter
from mta_policies.schema import Limits
from mta_policies.units import rates_text, render_duration

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

COUNTED_BEFORE_MAX = 100_000  # jobs of a lane that are looked at to say how many go before one: a few milliseconds
NEXT_ATTEMPT = "its next attempt"
DELAYED = "the time that its sender asked for"


class Reasons:
    """Looks things up; holds nothing."""

    def __init__(self, engine: "Dispatcher", standings: Standings) -> None:
        self._engine = engine
        self._standings = standings

    def waits_for(self, envelope: Envelope, stand: Stand) -> str:
        """One sentence."""
        if stand.state == "scheduled":  # most of a long queue: nothing need be looked up for the words alone
            return NEXT_ATTEMPT if stand.note else DELAYED
        words, reason = self._told(envelope, stand)
        return f"{words}, {reason.origin}" if reason.limit.startswith(LIMIT) else words

    def exact(self, seq: int, envelope: Envelope, stand: Stand) -> Told:
        """The sentence and all that is known of a recipient of this item, how many go before it too."""
        words, reason = self._told(envelope, stand)
        job, pool = stand.job, stand.pool
        if stand.state != "ready" or pool is None:
            return words, reason
        behind = _behind_numbers(pool, job) if job is not None else 0
        if job is None:
            before = pool.before(envelope.priority, seq)
            reason.before = pool.waiting if before is None else before
        elif behind:
            reason.before = behind
        elif len(pool.lane) <= COUNTED_BEFORE_MAX:
            reason.before = jobs_before(pool.lane, job)
        if reason.before:
            words += f"; {'about ' if job is None or behind else ''}{reason.before:,} before it"
        if reason.per_s:
            reason.next_s = max(reason.next_s, self._engine.clock.wall_s()) + reason.before / reason.per_s
        return words, reason

    def expires_from(self, envelope: Envelope, stand: Stand) -> str:
        """Where the time after which it is given up is written."""
        if envelope.expire_s:
            return "X-MTA-Expire of the message"
        return self._origin(stand.policy, ("retry", "expire"), stand.source, envelope.tenant)

    def _told(self, envelope: Envelope, stand: Stand) -> Told:
        engine = self._engine
        match stand.state:
            case "held" if stand.is_exported:
                return "an export, which holds it", Reason("exported")
            case "held":
                return "an admin, who holds it", Reason("held")
            case "scheduled":
                return self._scheduled(envelope, stand)
            case "suspended":
                return self.kept(stand.keeper)
            case "sending":
                return "", Reason("sending")
        if isinstance(stand.keeper, Shortage):
            return stand.keeper.told()
        if stand.is_leaving:
            return "its way to the worker that owns its mail hosts", Reason("moving")
        job = stand.job
        domain = job.domain if job is not None else envelope.recipients[stand.part].domain
        if stand.pool is None:
            if job is None and not stand.is_spilled:
                return "its turn to be read back from the disk", Reason("turn")
            now_s = engine.loop.time()
            words = engine.domains.waits_for(domain, now_s) or f"the mail hosts of {domain}"
            return words, Reason("lookup", next_s=self._wall_s(engine.domains.next_look_s(domain)))
        words, reason = self.of_pool(stand.pool)
        if words or job is None:
            return words or "its turn", reason
        if job.state == SIGNING:
            return "its signature", Reason("signature")
        if job.state == LOADING:
            return "its content, which is being read back from the disk", Reason("content")
        return "its turn", reason

    def _scheduled(self, envelope: Envelope, stand: Stand) -> Told:
        if not stand.note:
            return DELAYED, Reason("delayed", next_s=stand.due_s)
        fate = stand.fate
        schedule = self._standings.retry(stand, envelope.tenant).schedule
        step = max(0, min(fate.attempt if fate is not None else 1, len(schedule)) - 1)
        value = render_duration(schedule[step]) if schedule else ""
        origin = self._origin(stand.policy, ("retry", "schedule"), stand.source, envelope.tenant)
        return NEXT_ATTEMPT, Reason("schedule", "retry.schedule", value, origin, next_s=stand.due_s)

    def _wall_s(self, monotonic_s: float) -> float:
        """A moment of the loop's as Unix seconds; 0.0 stays 0.0."""
        return monotonic_s - self._engine.loop.time() + self._engine.clock.wall_s() if monotonic_s else 0.0

    def _origin(self, policy: str, path: tuple[str, str], source: str, tenant: str = "") -> str:
        policies = self._engine.placement.policies
        return policies.origin(policy, path, source, tenant) if policy in policies.policies else ""

    # what a whole pool waits for

    def of_pool(self, pool: Pool) -> Told:
        """Why a pool does not send all that it has at once; "" where nothing but its connections keeps it."""
        now_s, site = self._engine.loop.time(), pool.site
        if self._engine.suspensions.active:
            suspension = self._engine.suspensions.suspension_of(pool)
            if suspension is not None:
                return self.kept(suspension)
        if pool.braked is not None and (firing := pool.braked.longest()) is not None:
            return self.kept(firing, pool.braked.wait_s())
        if site.holds:
            return "other workers, which still have connections to its mail hosts", Reason("claim")
        for table, calendar in pool.allowance.calendars():
            if calendar.is_shut or (pool.waiting and calendar.wait_s() > 0):
                return self._shut(pool, table, calendar)
        if pool.warming is not None and (told := pool.warming.told()) is not None:
            return told
        if site.backoff.failures or pool.backoff.failures:
            return self._down(pool, now_s)
        meter = pool.meter
        if meter.has_rate and (wait_s := meter.transaction_wait_s(now_s)) > 0:
            return f"the rate of {_rates(pool.limits)}", self._rate(pool, "limits", pool.limits, meter, wait_s)
        if (brake := _brake_of(pool, pool.allowance.turns, now_s)) is not None:
            return self.kept(brake.firing, brake.limit.meter.transaction_wait_s(now_s))
        for table, shared in self._gates(pool, pool.allowance.turns):
            reason = self._rate(pool, table, shared.limits, shared, shared.transaction_wait_s(now_s))
            return f"a rate that mail to all sites of {site.destination.policy.name} shares", reason
        if pool.idle or (pool.channels and not pool.opener.count and len(pool.channels) < meter.connections_max):
            return "", Reason("turn")
        if len(pool.channels) >= meter.connections_max:
            most = int(meter.connections_max)
            words = f"the limit of {most:,} connection{'' if most == 1 else 's'}"
            return words, self._limit(pool, "connections", "limits", "connections", str(pool.limits.connections))
        if (brake := _brake_of(pool, pool.allowance.gates, now_s)) is not None:
            return self.kept(brake.firing, brake.limit.meter.connection_wait_s(now_s))
        for table, shared in self._gates(pool, pool.allowance.gates):
            words = f"a limit of connections that mail to all sites of {site.destination.policy.name} shares"
            if shared.connection_wait_s(now_s) == math.inf:
                value = str(shared.limits.connections)
                return words, self._limit(pool, "connections", table, "connections", value)
            value = _rates(shared.limits, "connection_rate")
            return words, self._limit(pool, "connection_rate", table, "connection_rate", value)
        if pool.opener.count:
            return "a connection, which is being opened", Reason("connecting")
        if (wait_s := meter.connection_wait_s(now_s)) > 0:
            value = _rates(pool.limits, "connection_rate")
            reason = self._limit(pool, "connection_rate", "limits", "connection_rate", value)
            reason.next_s = self._engine.clock.wall_s() + wait_s if wait_s < math.inf else 0.0
            return "the rate of new connections", reason
        return "a connection", Reason("connecting")

    def _down(self, pool: Pool, now_s: float) -> Told:
        site = pool.site
        wait_s = max(site.backoff.wait_s(now_s), pool.backoff.wait_s(now_s))
        stage, reply, _ = pool.opener.failure
        is_trying = wait_s in (0.0, math.inf)
        reason = Reason("down", next_s=0.0 if is_trying else self._engine.clock.wall_s() + wait_s)
        open_now = sum(not channel.is_opening for channel in pool.channels)
        if open_now:
            most = f"no more than {open_now:,} connection{'' if open_now == 1 else 's'}"
            return f"{site.name}, which takes {most} ({stage}: {reply})", reason
        next_try = "being tried now" if is_trying else f"next try in {wait_s:.0f} s"
        return f"{site.name}, which does not take mail ({stage}: {reply}); {next_try}", reason

    def _shut(self, pool: Pool, table: str, calendar: Calendar) -> Told:
        """Hours that are over, or a quota that is used up."""
        kind, words, value, next_s = shut_words(calendar)
        reason = self._limit(pool, kind, table, kind, value)
        reason.next_s, reason.owners = next_s, 1
        return words, reason

    def _gates(self, pool: Pool, gates: Iterable[Gate]) -> Iterable[tuple[str, Meter]]:
        """The shared limits among these that the pool waits at, or would: their table, and what they count."""
        destination = pool.site.destination
        shared = {"source_limits": destination.source_limit(pool.source), "provider_limits": destination.provider_limit}
        now_s = self._engine.loop.time()
        for gate in gates:
            for table, limit in shared.items():
                if gate in (limit.turns, limit.connections) and _stops(pool, gate, limit, now_s):
                    yield table, limit.meter

    def kept(self, keeper: Keeper | None, wait_s: float = math.inf) -> Told:
        """Words about a suspension or a firing: its end is a time of its own (`next_s`)."""
        if keeper is None:
            return "the end of a suspension", Reason("suspended")
        if isinstance(keeper, Shortage):
            return keeper.told()
        if isinstance(keeper, Suspension):
            words = f"the end of suspension {keeper.id}" + (f" ({keeper.reason})" if keeper.reason else "")
            return words, Reason("suspended", next_s=keeper.until_s)
        policy = self._engine.placement.policies.policies.get(keeper.policy)
        until_s = min(keeper.until_s, self._engine.clock.wall_s() + wait_s)
        words = f"{keeper.id} (rule {keeper.rule} for {keeper.key}: {effect_of(keeper)})"
        written = rule_written(policy, keeper.rule) if policy is not None else ""
        return words, Reason(
            "rule", f"rule {keeper.rule}", effect_of(keeper), written, next_s=until_s, firing=keeper.id
        )

    def _limit(self, pool: Pool, kind: ReasonKind, table: str, key: str, value: str) -> Reason:
        destination = pool.site.destination
        origin = self._origin(destination.policy.name, (table, key), pool.source.name)
        return Reason(kind, f"{table}.{key}", value, origin, destination.share.of)

    def _rate(self, pool: Pool, table: str, limits: Limits, meter: Meter, wait_s: float) -> Reason:
        reason = self._limit(pool, "rate", table, "rate", _rates(limits))
        reason.per_s = min((rate.per_second for rate in limits.rate), default=0.0) / meter.share.of
        if wait_s < math.inf:
            reason.next_s = self._engine.clock.wall_s() + wait_s
        return reason


def _brake_of(pool: Pool, gates: Iterable[Gate], now_s: float) -> Brake | None:
    """What a firing does, that the pool waits for at one of these gates, or would."""
    brakes = pool.braked.brakes if pool.braked is not None else ()
    for gate in gates:
        for brake in brakes:
            if gate in (brake.limit.turns, brake.limit.connections) and _stops(pool, gate, brake.limit, now_s):
                return brake
    return None


def _stops(pool: Pool, gate: Gate, limit: SharedLimit, now_s: float) -> bool:
    """Whether the pool waits at a gate of this limit; where nothing waits in it, whether it would."""
    if gate in pool.waits or pool.waiting:
        return gate in pool.waits
    meter = limit.meter
    return (meter.transaction_wait_s(now_s) if gate is limit.turns else meter.connection_wait_s(now_s)) > 0


def _behind_numbers(pool: Pool, job: Job) -> int:
    """How many of its own share go before a job that came when others waited as numbers already; 0: none do."""
    share = pool.lane.share_of(job.priority, job)
    if share is None or share.later is None or share.spilled is None or job not in share.later:
        return 0
    return len(share.entries) + len(share.spilled) + list(share.later).index(job)


def jobs_before(lane: Iterable[Job], job: Job) -> int:
    """About how many jobs of a lane have their turn before this one: those of higher priorities, those before it in its
    own share (campaign of a tenant), and of every other share as many, for shares take turns."""
    before = place = 0
    is_met = False
    others: Counter[tuple[str, str]] = Counter()
    for other in lane:
        if other is job:
            is_met = True
        elif other.priority > job.priority:
            before += 1
        elif other.priority == job.priority:
            if other.tenant == job.tenant and other.campaign == job.campaign:
                place += not is_met
            else:
                others[other.tenant, other.campaign] += 1
    if not is_met:
        return 0  # it has left the lane to be signed, or to go
    return before + place + sum(min(count, place + 1) for count in others.values())


def _rates(limits: Limits, name: str = "rate") -> str:
    return rates_text(getattr(limits, name))
