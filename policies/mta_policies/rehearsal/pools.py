"""Pools of a rehearsal: what waits for one site from one source, its connections, and the limits that it shares.

As in delivery, but a connection is only a time at which it is free again, and one pool has the whole of every limit:
owners' shares add up to it. Times are Unix seconds, for buckets as well: the clock of a rehearsal does not jump.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mta_policies.answers import Subject
from mta_policies.backoff import Backoff
from mta_policies.engine import Judge
from mta_policies.limits import WHOLE, Meter
from mta_policies.local_time import Zones
from mta_policies.policy import Policy
from mta_policies.quota import Counter
from mta_policies.rehearsal.lane import Job, Lane
from mta_policies.rehearsal.tally import Tally, Where
from mta_policies.rehearsal.traffic import Stream
from mta_policies.restraint import Restraint, keys_of_pool
from mta_policies.schema import Limits, Retry
from mta_policies.throughput import Throughput
from mta_policies.windows import Hours

if TYPE_CHECKING:
    from mta_policies.rehearsal.holds import Hold

Ask = Callable[[float], float]
"""now_s -> seconds to wait; 0.0: none."""


class Connection:
    """One that is open or being opened."""

    __slots__ = ("begun_s", "idle_s", "job", "messages", "pool", "ready_s", "recipients", "told")

    def __init__(self, pool: "Pool", told: "list[Level]", now_s: float) -> None:
        self.pool = pool
        self.told = told
        """Shared levels that count it."""
        self.begun_s = now_s
        self.ready_s = 0.0
        self.idle_s = 0.0
        """Since when it has nothing to do."""
        self.messages = 0
        self.recipients = 0
        self.job: Job | None = None


class Gate:
    """Where pools wait for a shared limit, one after another."""

    __slots__ = ("ask", "cause", "level", "timer_s", "waiting")

    def __init__(self, level: "Level", ask: Ask, cause: str) -> None:
        self.level = level
        self.ask = ask
        self.cause = cause
        self.waiting: dict[Pool, None] = {}
        """In the order in which they came."""
        self.timer_s = 0.0
        """When it looks again; 0.0: no time is set."""


class Times:
    """Hours and quota of one level of limits."""

    __slots__ = ("asks", "counter")

    def __init__(self, name: str, limits: Limits, zones: Zones, now_s: float) -> None:
        self.asks: list[tuple[Ask, str]] = []
        self.counter: Counter | None = None
        """To be told of every transaction."""
        if limits.window:
            self.asks.append((Hours(limits.window, zones).wait_s, f"{name}.window"))
        if limits.quota is not None:
            self.counter = Counter(limits.quota, zones, now_s)
            self.asks.append((self.counter.wait_s, f"{name}.quota"))


class Level:
    """One level of limits that pools share: a source's, a provider's, or a firing's."""

    __slots__ = ("doors", "idle", "meter", "restraint", "times", "turns")

    def __init__(self, name: str, meter: Meter, times: Times | None, restraint: Restraint | None = None) -> None:
        """`restraint`: of a firing, whose `name` says all; `times`: of all others."""
        self.meter = meter
        self.times = times
        self.restraint = restraint
        self.turns = Gate(self, meter.transaction_wait_s, name if restraint else f"{name}.rate")
        self.doors = Gate(self, meter.connection_wait_s, name if restraint else f"{name}.connections")
        self.idle: dict[Connection, None] = {}
        """Connections without a job, for who needs their place."""

    @property
    def over(self) -> bool:
        """More connections are open than may be."""
        return self.meter.connections_open > self.meter.connections_max


class Destination:
    """A provider, a route or a site, as delivery has it: what shares limits and a judge."""

    def __init__(self, policy: Policy, provider: str, judge: Judge, zones: Zones, now_s: float) -> None:
        self.policy = policy
        self.provider = provider
        """As rules know it."""
        self.judge = judge
        self._zones = zones
        self.provider_level = self._level("provider_limits", policy.provider_limits, now_s)
        self._source_levels: dict[str, Level] = {}
        self.sites: dict[str, Site] = {}

    def _level(self, name: str, limits: Limits, now_s: float) -> Level:
        return Level(name, Meter(limits, WHOLE, now_s), Times(name, limits, self._zones, now_s))

    def source_level(self, source: str, now_s: float) -> Level:
        """Of one source over all sites."""
        level = self._source_levels.get(source)
        if level is None:
            _, limits, _ = self.policy.for_source(source)
            level = self._source_levels[source] = self._level("source_limits", limits, now_s)
        return level


class Site:
    """All pools of one site: they are down together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.backoff = Backoff()
        self.pools: dict[str, Pool] = {}
        """By source."""


class Pool:
    """One site, one source."""

    def __init__(
        self,
        destination: Destination,
        site: Site,
        stream: Stream,
        tally: Tally,
        zones: Zones,
        delivery_s: float,
        now_s: float,
    ) -> None:
        self.destination = destination
        self.site = site
        self.tally = tally
        """Who counts its connections and what its mail waits for."""
        self.source = stream.subject.source
        self.stream = stream
        """Some of its mail, for who asks about the way."""
        self.delivery_s = delivery_s
        self.subject = Subject(
            source=self.source,
            source_address=stream.subject.source_address,
            site=site.name,
            provider=destination.provider,
        )
        """Who is meant where no message is."""
        self.keys = keys_of_pool(self.subject)
        policy = destination.policy
        self.where = Where(policy.name, self.source)
        self.policy_limits, _, self.retry = policy.for_source(self.source)
        self.meter = Meter(self.policy_limits, WHOLE, now_s)
        self.times = Times("limits", self.policy_limits, zones, now_s)
        self.shared = [destination.source_level(self.source, now_s), destination.provider_level]
        self.retries: dict[str, Retry] = {}
        """By tenant."""
        self.tenants: dict[str, Hold | None] = {}
        """What tenants allow themselves here."""
        self.backoff = Backoff()
        self.begun = 0
        """Transactions."""
        self.throughput = Throughput()
        self.lane = Lane()
        self.idle: list[Connection] = []
        self.connections: dict[Connection, None] = {}
        self.opening = 0
        self.version = -1
        """Of the firings that it last looked at."""
        self.restraints: list[Level] = []
        self.timer_s = 0.0
        """When it looks again; 0.0: no time is set."""
        self.cause = ""
        """What its mail waits for; "": nothing but its connections being opened."""
        self.cause_s = 0.0
        """Since when."""
        self.limits = self.policy_limits
        self.asks: list[tuple[Ask, str]] = []
        self.counters: list[Counter] = []
        self.turns: list[Gate] = []
        self.doors: list[Gate] = []
        self.set_limits(now_s)

    def set_limits(self, now_s: float) -> None:
        """Its limits as they are with the firings in force."""
        limits = self.policy_limits
        for level in self.restraints:
            assert level.restraint is not None, "of a firing"
            limits = level.restraint.tightened(limits)
        if limits is not self.limits:
            self.limits = limits
            self.meter.change(limits, WHOLE, now_s)
        levels = [*self.shared, *self.restraints]
        times = [self.times, *(level.times for level in self.shared if level.times)]
        self.asks = [ask for each in times for ask in each.asks]
        self.counters = [each.counter for each in times if each.counter is not None]
        self.asks += [(level.restraint.wait_s, level.turns.cause) for level in self.restraints if level.restraint]
        if self.meter.has_rate:
            self.asks.append((self.meter.transaction_wait_s, "limits.rate"))
        self.turns = [level.turns for level in levels if level.meter.has_rate]
        self.doors = [level.doors for level in levels if not level.meter.is_unlimited]

    def block(self, cause: str, now_s: float) -> None:
        """Its mail waits for that from now on; "": for nothing."""
        if cause != self.cause:
            if self.cause:
                self.tally.bound(self.cause, now_s - self.cause_s, self.where)
            self.cause, self.cause_s = cause, now_s

    @property
    def levels(self) -> list[Level]:
        """All that count its connections and transactions beside its own meter."""
        return [*self.shared, *self.restraints]

    def recipients_max(self, tenant: str) -> int:
        """In one transaction of this tenant's mail; 0: no limit."""
        own = self.destination.policy.for_tenant(tenant).limits.recipients_per_transaction
        counts = (self.limits.recipients_per_transaction, self.limits.recipients_per_connection, own)
        return min(filter(None, counts), default=0)

    def is_too_large(self, size: int, tenant: str) -> bool:
        """For the policy, or for what the tenant allows itself."""
        most, own = self.policy_limits.message_size_max, self.destination.policy.for_tenant(tenant).limits
        return 0 < most < size or 0 < own.message_size_max < size

    def retry_for(self, tenant: str) -> Retry:
        """When mail of this tenant is tried again."""
        retry = self.retries.get(tenant)
        if retry is None:
            retry = self.retries[tenant] = self.destination.policy.retry_for(tenant, self.source)
        return retry
