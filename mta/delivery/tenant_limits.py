"""Tenant limits: what tenants allow themselves at one pool, beside what the policy allows everybody.

A message that may not go is parked when its turn comes, so that others get on, and comes back when there is room. It
counts right before its transaction begins.
"""

import math
from typing import TYPE_CHECKING

from mta.delivery.calendars import calendar, shut_words
from mta.delivery.job import SENDING, Job
from mta.delivery.parking import SWEEP_S, Lot
from mta.delivery.shortage import Shortage, Told
from mta.model.outcome import Reply
from mta.reporting.waiting import Explain, Reason
from mta_policies.limits import Meter
from mta_policies.schema import Limits
from mta_policies.units import rates_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.pool import Pool

RELEASED_MAX = 1_000  # parked messages that come back at once
LOST_S = 10.0  # one that came back and was not seen so long later does not count any more


class TenantLimit:
    """Of one tenant."""

    __slots__ = (
        "_coming",
        "_pool",
        "_released_s",
        "_timer",
        "_under_way",
        "calendar",
        "limits",
        "lot",
        "meter",
        "tenant",
    )

    def __init__(self, pool: "Pool", tenant: str, limits: Limits) -> None:
        self._pool = pool
        self.tenant = tenant
        destination = pool.site.destination
        self.limits = limits
        self.meter = destination.meter(limits)
        """Its connections are transactions under way."""
        self.calendar = calendar(destination.engine, None, self._key, limits, destination.share, self.wake)
        self.lot = Lot(Shortage(self.told))
        self._under_way: set[Job] = set()
        self._coming = 0
        """How many were let go lately and have not come by yet."""
        self._released_s = 0.0
        self._timer = False

    @property
    def _key(self) -> str:
        """Of the quota's account."""
        pool = self._pool
        return f"{pool.site.destination.account} tenant {self.tenant} {pool.site.name} {pool.source.name}"

    def change(self, limits: Limits) -> None:
        """Another version of the policy, or another share of it."""
        destination = self._pool.site.destination
        self.limits = limits
        self.meter.change(limits, destination.share, destination.engine.loop.time())
        self.calendar = calendar(destination.engine, self.calendar, self._key, limits, destination.share, self.wake)

    def wait_s(self) -> float:
        """Seconds until one more may begin; 0.0: now; inf: when one that is under way has ended."""
        wait_s = self._pace_s()
        return wait_s if self.calendar is None else max(wait_s, self.calendar.wait_s())

    def _pace_s(self) -> float:
        """As rate and transactions under way have it."""
        if self.meter.connections_max < math.inf:
            self._under_way = {job for job in self._under_way if job.state == SENDING}
            if len(self._under_way) >= self.meter.connections_max:
                return math.inf
        return self.meter.transaction_wait_s(self._pool.site.destination.engine.loop.time())

    @property
    def is_reached(self) -> bool:
        """Whether it is known that the next one waits; a quota of which nothing was drawn yet is not."""
        if self.calendar is not None and not self.calendar.is_shut:
            return self._pace_s() > 0
        return self.wait_s() > 0

    def lets(self) -> bool:
        """Whether one more may begin; one that was let go has come by."""
        if self._coming:
            self._coming -= 1
        return self.wait_s() <= 0

    def begin(self, job: Job) -> None:
        """A transaction begins."""
        self.meter.transaction(self._pool.site.destination.engine.clock.monotonic_s())
        if self.calendar is not None:
            self.calendar.take()
        if self.meter.connections_max < math.inf:
            self._under_way.add(job)

    def wake(self) -> None:
        """Look again: the calendar has something."""
        self._coming = 0
        self.release()

    def release(self) -> None:
        """Let go of as many of those parked as may begin, perhaps."""
        lot = self.lot
        if not lot.parked:
            return
        engine = self._pool.site.destination.engine
        wait_s = self.wait_s()
        if wait_s > 0:
            if wait_s < SWEEP_S and not self._timer:
                self._timer = True
                engine.loop.call_later(wait_s, self._on_timer)
            return
        count = min(self._room(), RELEASED_MAX) - self._coming
        if count > 0:
            before = len(lot.parked)
            engine.parking.free_some(lot, count)
            self._coming += before - len(lot.parked)
            self._released_s = engine.loop.time()

    def _room(self) -> int:
        """How many may begin before somebody looks again, about."""
        room = self.meter.connections_max - len(self._under_way)
        for rate in self.limits.rate:
            room = min(room, max(1, math.ceil(rate.per_second / self.meter.share.of * SWEEP_S)))
        free = self.calendar.free() if self.calendar is not None else None
        return int(min(room, RELEASED_MAX if free is None else free))

    def _on_timer(self) -> None:
        self._timer = False
        self.release()

    def sweep(self) -> None:
        """What was let go and has not come by for long went another way."""
        if self._pool.site.destination.engine.loop.time() - self._released_s > LOST_S:
            self._coming = 0
        self.release()

    def close(self) -> None:
        """It holds no more."""
        self._pool.site.destination.engine.parking.free(self.lot)
        if self.calendar is not None:
            self.calendar.close()

    def told(self) -> Told:
        """What those parked wait for: see `mta.delivery.shortage`."""
        of = f"that the tenant {self.tenant} has here"
        next_s = 0.0
        engine = self._pool.site.destination.engine
        if self.calendar is not None and self.calendar.wait_s() > 0:
            kind, words, value, next_s = shut_words(self.calendar)
            words = f"{words}, {of}"
        elif self.wait_s() == math.inf:
            kind, value = "connections", str(self.limits.connections)
            words = f"the limit of {value} transaction{'s' if self.limits.connections > 1 else ''} at once {of}"
        elif (wait_s := self.meter.transaction_wait_s(engine.loop.time())) > 0:
            value = rates_text(self.limits.rate)
            kind, words, next_s = "rate", f"the rate of {value} {of}", engine.clock.wall_s() + wait_s
        else:
            return "its turn", Reason("turn")
        return words, Reason(kind, f"limits.{kind}", value, self._origin(kind), self._owners(kind), next_s=next_s)

    def _owners(self, kind: str) -> int:
        return self.meter.share.of if kind in ("rate", "connections") else 1

    def _origin(self, key: str) -> str:
        destination = self._pool.site.destination
        policies, name = destination.engine.placement.policies, destination.policy.name
        if name not in policies.policies:
            return ""
        return policies.origin(name, ("limits", key), self._pool.source.name, self.tenant)


class TenantLimits:
    """Of all tenants that have limits of their own at one pool; made where there are any."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._known: dict[str, TenantLimit] = {}
        pool.site.destination.engine.tenants.add(self)

    def of(self, tenant: str) -> TenantLimit | None:
        """What a tenant allows itself; None: nothing is said."""
        limit = self._known.get(tenant)
        if limit is None:
            policy = self._pool.site.destination.policy
            if tenant in policy.tenants_with_limits:
                limit = self._known[tenant] = TenantLimit(self._pool, tenant, policy.for_tenant(tenant).limits)
        return limit

    def reload(self) -> None:
        """The policy, or this worker's share of it, changed."""
        policy = self._pool.site.destination.policy
        for tenant, limit in list(self._known.items()):
            if tenant in policy.tenants_with_limits:
                limit.change(policy.for_tenant(tenant).limits)
                limit.wake()
            else:
                limit.close()
                del self._known[tenant]

    def meters(self) -> "Iterable[tuple[str, Meter]]":
        """What each tenant has used, by its name."""
        return ((tenant, limit.meter) for tenant, limit in self._known.items())

    @property
    def parked(self) -> int:
        """Recipients that wait for one of them."""
        return sum(limit.lot.parts for limit in self._known.values())

    def kept(self, job: Job) -> "Iterable[tuple[Lot, Sequence[int]]]":
        """See `mta.delivery.parking.Kept`."""
        limit = self.of(job.tenant)
        return () if limit is None or limit.lets() else ((limit.lot, list(job.parts)),)

    def takes(self, job: Job) -> Job | None:
        """The job whose transaction begins now, or as much of it as may go together; None: it does not, and is gone."""
        limit = self.of(job.tenant)
        if limit is None:
            return job
        engine, limits = self._pool.site.destination.engine, limit.limits
        if limits.message_size_max and job.content is not None and len(job.content) > limits.message_size_max:
            text = f"the message has {len(job.content)} bytes, its tenant lets {limits.message_size_max} go there"
            reply = Reply(552, "5.3.4", text)
            engine.fates.bounce(job, "local", reply, self._pool.way)
            return None
        if limit.wait_s() > 0:
            engine.parking.park(limit.lot, job, list(job.parts))
            return None
        most = limits.recipients_per_transaction
        if most and len(job.parts) > most:
            rest = engine.split(job, job.parts[most:])
            job.parts = job.parts[:most]
            self._pool.lane.push_front(rest.priority, rest)
        limit.begin(job)
        return job

    def ended(self, tenant: str) -> None:
        """A transaction of a tenant has ended: another one of his may begin."""
        limit = self._known.get(tenant)
        if limit is not None:
            limit.release()

    def sweep(self) -> None:
        """Look at the clock."""
        for limit in self._known.values():
            if limit.lot.parked:
                limit.sweep()

    def close(self) -> None:
        """The pool sends nothing any more: what is parked goes another way."""
        self._pool.site.destination.engine.tenants.remove(self)
        for limit in self._known.values():
            limit.close()
        self._known.clear()


def waits_of(pool: "Pool", question: Explain) -> Told | None:
    """What the next message of a tenant would wait for, as far as that is known; None: for nothing of its own."""
    tenants = pool.allowance.tenants
    limit = tenants.of(question.tenant) if tenants is not None else None
    if limit is None or not limit.is_reached:
        return None
    return limit.told()


class Tenants:
    """All pools of a worker where tenants have limits of their own."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._pools: dict[TenantLimits, None] = {}

    def add(self, limits: TenantLimits) -> None:
        """A pool has some."""
        self._pools[limits] = None
        self._engine.parking.asks(self, _kept)

    def remove(self, limits: TenantLimits) -> None:
        """It has none any more."""
        self._pools.pop(limits, None)
        if not self._pools:
            self._engine.parking.asks(self, None)

    def sweep(self) -> None:
        """Look at the clock."""
        for limits in self._pools:
            limits.sweep()


def _kept(pool: "Pool", job: Job) -> "Iterable[tuple[Lot, Sequence[int]]]":
    limits = pool.allowance.tenants
    return limits.kept(job) if limits is not None else ()
