"""Holds: what keeps single messages back, whatever way they go.

A firing whose scope is of messages (a tenant, a campaign, a DKIM domain ...), or what a tenant allows itself: so many
transactions under way, so fast, at these hours. Whoever must wait is parked behind the hold that says so, and goes on
when there is room, one after another.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mta_policies.firings import Firings
from mta_policies.limits import WHOLE, Meter
from mta_policies.local_time import Zones
from mta_policies.rehearsal.agenda import Agenda
from mta_policies.rehearsal.lane import Job, Row
from mta_policies.rehearsal.pools import Pool, Times
from mta_policies.rehearsal.tally import Tally, Where
from mta_policies.rehearsal.traffic import NEVER_S, Mail, Stream
from mta_policies.restraint import EFFECTIVE, JOB_SCOPES, Restraint, keys_of_job
from mta_policies.tenants import NO_LIMITS

if TYPE_CHECKING:
    from mta_policies.firing import Firing

AGAIN_S = 1.0  # a message that was let go may have to wait for its pool; so long later the next one is looked at


class Hold:
    """One of them."""

    __slots__ = ("cause", "meter", "parked", "restraint", "since_s", "tally", "timer_s", "times", "where")

    def __init__(self, cause: str, meter: Meter, times: Times | None, restraint: Restraint | None) -> None:
        self.cause = cause
        self.meter = meter
        self.times = times
        self.restraint = restraint
        self.parked: deque[tuple[Job | Row, Pool]] = deque()
        self.timer_s = 0.0
        self.since_s = 0.0
        """Since when somebody is parked."""
        self.tally: Tally | None = None
        self.where = Where("", "")
        """Of the first who was parked."""

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next transaction may begin; inf: when one ends."""
        meter = self.meter
        if meter.connections_open >= meter.connections_max:
            return NEVER_S
        wait_s = meter.transaction_wait_s(now_s)
        if self.restraint is not None:
            wait_s = max(wait_s, self.restraint.wait_s(now_s))
        for ask, _ in self.times.asks if self.times is not None else ():
            wait_s = max(wait_s, ask(now_s))
        return wait_s

    def begin(self, now_s: float) -> None:
        """A transaction begins."""
        self.meter.transaction(now_s)
        self.meter.opened(now_s)
        if self.times is not None and self.times.counter is not None:
            self.times.counter.take(now_s)
        if self.restraint is not None:
            self.restraint.opened(now_s)

    def end(self) -> None:
        """It ended."""
        self.meter.closed()

    def take(self) -> tuple[Job, Pool]:
        """Who is parked first. There is somebody."""
        item, pool = self.parked[0]
        if isinstance(item, Job):
            self.parked.popleft()
            return item, pool
        job = item.take()
        if item.is_over:
            self.parked.popleft()
        return job, pool


class Holds:
    """All of a rehearsal."""

    def __init__(
        self,
        agenda: Agenda,
        firings: Firings,
        zones: Zones,
        pump: Callable[[Pool], None],
    ) -> None:
        """`pump`: a pool has mail again."""
        self._agenda = agenda
        self._firings = firings
        self._zones = zones
        self._pump = pump
        self._version = -1
        self._of_firings: dict[str, Hold] = {}
        self._of_tenants: list[Hold] = []
        self._by_key: dict[str, list[Hold]] = {}
        self._keys: dict[int, list[str]] = {}
        self._known: dict[int, list[Hold]] = {}
        """By stream: what was found since firings changed last."""
        self._has_recipients = False
        """Whether any firing is of single recipients."""
        self.has_any = False
        """Whether any firing may hold messages."""

    def follow(self) -> None:
        """Firings changed, perhaps."""
        if self._version == self._firings.version:
            return
        now_s = self._agenda.now_s
        self._version = self._firings.version
        known, self._by_key = self._of_firings, {}
        self._of_firings = {}
        self._known.clear()
        self._has_recipients = False
        for firing in self._firings.in_force(now_s):
            if firing.scope in JOB_SCOPES and firing.action in EFFECTIVE:
                self._has_recipients = self._has_recipients or firing.scope == "recipient"
                hold = known.pop(firing.id, None)
                if hold is not None:
                    self._of_firings[firing.id] = hold
                    assert hold.restraint is not None, "it is of a firing"
                    if hold.restraint.firing is not firing:
                        hold.restraint.change(firing, now_s, now_s)
                    self._by_key.setdefault(firing.key, []).append(hold)
                else:
                    self._by_key.setdefault(firing.key, [])
        self.has_any = bool(self._by_key)
        for hold in known.values():
            self.release(hold, is_over=True)

    def find(self, stream: Stream, mails: Iterable[Mail], pool: Pool) -> list[Hold]:
        """What holds for a job with these recipients; for a row of a crowd, whose recipients have no names: ()."""
        found = self._of_keys(stream, mails, pool) if self.has_any else []
        tenant = stream.subject.tenant
        if tenant and pool.destination.policy.tenant_trees:
            own = self._of_tenant(tenant, pool)
            if own is not None:
                return [*found, own]
        return found

    def _of_keys(self, stream: Stream, mails: Iterable[Mail], pool: Pool) -> list[Hold]:
        """Of firings."""
        if not self._has_recipients and stream.number in self._known:
            return self._known[stream.number]
        keys = self._keys_of(stream, mails, pool)
        found = [hold for key in keys if key in self._by_key for hold in self._holds(key, pool)]
        if not self._has_recipients:
            self._known[stream.number] = found
        return found

    def _holds(self, key: str, pool: Pool) -> list[Hold]:
        """Of a scope key; a firing that is new gets its hold with the first message."""
        holds = self._by_key[key]
        for firing in self._firings.for_keys([key], self._agenda.now_s):
            if firing.action in EFFECTIVE and firing.id not in self._of_firings:
                holds.append(self._make(firing, pool))
        return holds

    def _make(self, firing: "Firing", pool: Pool) -> Hold:
        now_s = self._agenda.now_s
        restraint = Restraint(firing, self._firings, pool.destination.policy, pool.source, WHOLE, now_s, now_s)
        hold = self._of_firings[firing.id] = Hold(cause_of(firing), restraint.meter, None, restraint)
        return hold

    def _of_tenant(self, tenant: str, pool: Pool) -> Hold | None:
        if tenant not in pool.tenants:
            limits = pool.destination.policy.for_tenant(tenant).limits
            hold = None
            if limits != NO_LIMITS:
                name, now_s = f"tenant {tenant}", self._agenda.now_s
                hold = Hold(name, Meter(limits, WHOLE, now_s), Times(name, limits, self._zones, now_s), None)
                self._of_tenants.append(hold)
            pool.tenants[tenant] = hold
        return pool.tenants[tenant]

    def _keys_of(self, stream: Stream, mails: Iterable[Mail], pool: Pool) -> list[str]:
        """Its scope keys; those of the recipient are its own, the others its stream's."""
        keys = self._keys.get(stream.number)
        if keys is None:
            subject = stream.subject._replace(site=pool.site.name, provider=pool.destination.provider)
            keys = self._keys[stream.number] = keys_of_job(subject)
        provider = pool.destination.provider
        return [*keys, *(f"recipient {mail.recipient} > {provider}" for mail in mails if mail.recipient)]

    # parked

    def park(self, hold: Hold, item: Job | Row, pool: Pool, wait_s: float) -> None:
        """A job, or all of a row, waits behind this."""
        last, whose = hold.parked[-1] if hold.parked else (None, pool)
        if last is None:
            hold.since_s = self._agenda.now_s
            hold.tally, hold.where = pool.tally, pool.where
        if not (isinstance(last, Row) and whose is pool and last.join(item)):
            hold.parked.append((item, pool))
        self._agenda.wake(hold, wait_s, self.release)

    def release(self, hold: Hold, *, is_over: bool = False) -> None:
        """Let go whom there is room for; all, where the hold `is_over`."""
        now_s = self._agenda.now_s
        pools: dict[Pool, None] = {}
        while hold.parked:
            wait_s = 0.0 if is_over else hold.wait_s(now_s)
            if wait_s > 0:
                self._agenda.wake(hold, wait_s, self.release)
                return
            if is_over:
                item, pool = hold.parked.popleft()
                _ = pool.lane.append_row(item) if isinstance(item, Row) else pool.lane.append(item)
                pools[pool] = None
                continue
            job, pool = hold.take()
            pool.lane.put_back(job)
            self._pump(pool)
            if pool.lane.is_first(job):
                self._agenda.wake(hold, AGAIN_S, self.release)
                break
        if not hold.parked and hold.since_s:
            if hold.tally is not None:
                hold.tally.bound(hold.cause, now_s - hold.since_s, hold.where)
            hold.since_s = 0.0
        for pool in pools:
            self._pump(pool)

    def all_parked(self) -> list[tuple[Job, Pool]]:
        """Who waits at the end."""
        found = []
        for hold in (*self._of_firings.values(), *self._of_tenants):
            while hold.parked:
                found.append(hold.take())
        return found


def cause_of(firing: "Firing") -> str:
    """How a firing is called where something waits for it."""
    return f"rule {firing.rule} ({firing.action})"
