"""An allowance: all limits that hold for one pool, its own and those that it shares with others.

Everything is asked for and told here once; the pool does not know at which level a limit stands.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mta.delivery.calendars import Calendar, calendar
from mta.delivery.channel import Channel
from mta.delivery.gate import Gate, SharedLimit
from mta.delivery.tenant_limits import TenantLimits
from mta_policies.limits import begin, may_begin
from mta_policies.schema import Limits, Retry

if TYPE_CHECKING:
    from mta.delivery.pool import Pool

TURN_S = 5.0  # so long a connection is kept while other sites of the provider wait for its place


class Allowance:
    """What one source may do at one site."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        destination = pool.site.destination
        self._loop = destination.engine.loop
        self._clock = destination.engine.clock
        self.limits, _, self.retry = destination.policy.for_source(pool.source.name)
        self.limits = self._tightened()
        self.has_retries = bool(destination.policy.tenants_with_retry)
        """Some tenants have a retry of their own: `retry_for` knows it."""
        self.tenants: TenantLimits | None = None
        """What tenants allow themselves here; None: nobody says anything."""
        self.meter = destination.meter(self.limits)
        """The pool's own: how many connections it has and how often it may send."""
        self.calendar: Calendar | None = None
        """The pool's own hours and quota; None: it has neither."""
        self._braking: list[SharedLimit] = []
        self._set_gates()

    def _tightened(self) -> Limits:
        """The policy's limits, or less where firings say so."""
        braked = self._pool.braked
        return self.limits if braked is None else braked.tightened(self.limits)

    def _set_gates(self) -> None:
        limits, destination = self.limits, self._pool.site.destination
        per_transaction, per_connection = limits.recipients_per_transaction, limits.recipients_per_connection
        self.recipients_max = min(filter(None, (per_transaction, per_connection)), default=0)
        """In one transaction; 0: no limit."""
        shared = [destination.source_limit(self._pool.source), destination.provider_limit, *self._brakes()]
        self._shared: Sequence[SharedLimit] = shared
        self.turns: Sequence[Gate] = [limit.turns for limit in shared if limit.has_turns]
        """Where a transaction may have to wait."""
        self.gates: Sequence[Gate] = [limit.connections for limit in shared if not limit.meter.is_unlimited]
        """Where a new connection may have to wait."""
        self.hours: Sequence[Gate] = [limit.turns for limit in shared if limit.calendar is not None]
        """Those of the turns that may be hours away: no connection is begun for them before."""
        self.calendar = self._own_calendar()
        self._set_tenants()
        own = [self.calendar] if self.calendar is not None else []
        self._calendars = [*own, *(limit.calendar for limit in shared if limit.calendar is not None)]
        self._rated = [meter for meter in (self.meter, *(limit.meter for limit in shared)) if meter.has_rate]
        self.is_free = not (self.meter.has_rate or self.turns or own or self.tenants or self._pool.warming)
        """Transactions need not be asked for."""
        self.has_rates_alone = not (self._calendars or self._pool.warming)
        """Neither hours nor a quota nor a plan holds a transaction back: `lets` knows all that does."""
        self._messages_max, self._recipients_in_all = limits.messages_per_connection, per_connection

    def _set_tenants(self) -> None:
        if not self._pool.site.destination.policy.tenants_with_limits:
            if self.tenants is not None:
                self.tenants.close()
            self.tenants = None
        elif self.tenants is None:
            self.tenants = TenantLimits(self._pool)
        else:
            self.tenants.reload()

    def retry_for(self, tenant: str) -> Retry:
        """When this tenant's mail that was deferred here is tried again."""
        if not self.has_retries:
            return self.retry
        return self._pool.site.destination.policy.retry_for(tenant, self._pool.source.name)

    def _own_calendar(self) -> Calendar | None:
        pool = self._pool
        destination = pool.site.destination
        key = f"{destination.account} limits {pool.site.name} {pool.source.name}"
        return calendar(destination.engine, self.calendar, key, self.limits, destination.share, pool.pump)

    @property
    def is_shut(self) -> bool:
        """Whether hours or a quota let nothing begin."""
        return any(each.wait_s() > 0 for each in self._calendars)

    def calendars(self) -> Iterable[tuple[str, Calendar]]:
        """Those that hold here, and the table of each."""
        destination = self._pool.site.destination
        source_limit, provider_limit = destination.source_limit(self._pool.source), destination.provider_limit
        tables = {
            "limits": self.calendar,
            "source_limits": source_limit.calendar,
            "provider_limits": provider_limit.calendar,
        }
        for table, kept in tables.items():
            if kept is not None:
                yield table, kept

    def close(self) -> None:
        """The pool sends nothing any more, but what is under way."""
        self.leave_gates()
        if self.calendar is not None:
            self.calendar.close()
        if self.tenants is not None:
            self.tenants.close()

    def _brakes(self) -> Sequence[SharedLimit]:
        """The limits of firings; of a new one the connections that are open count, too."""
        pool = self._pool
        before, self._braking = self._braking, pool.braked.limits if pool.braked is not None else []
        for limit in self._braking:
            if limit not in before:
                limit.meter.connections_open += len(pool.channels)
        for limit in before:
            if limit not in self._braking:
                limit.meter.connections_open -= len(pool.channels)
        return self._braking

    def reload(self, channels: Iterable[Channel]) -> None:
        """The policy or this worker's share changed: take the values, keep what was used of them."""
        self.leave_gates()
        for gate in self.gates:
            for channel in channels:
                gate.forget(channel)
        destination = self._pool.site.destination
        self.limits, _, self.retry = destination.policy.for_source(self._pool.source.name)
        self.limits = self._tightened()
        self.has_retries = bool(destination.policy.tenants_with_retry)
        self.meter.change(self.limits, destination.share, self._loop.time())
        self._set_gates()

    def lets(self, now_s: float) -> bool:
        """Whether nothing holds the next transaction back; where something does, or may, it is to be asked for."""
        if not self.has_rates_alone:
            return False
        for gate in self.turns:
            if gate.waiting or gate.expected is not None:
                return False
        return may_begin(self._rated, now_s)

    def stops(self, gates: Sequence[Gate], now_s: float, granted: Gate | None) -> bool:
        """Whether the pool has to wait at one of these gates."""
        priority = self._pool.lane.head_priority()
        for gate in gates:  # noqa: SIM110 - a generator would cost every message half a microsecond
            if gate.stops(self._pool, priority, now_s, granted):
                return True
        return False

    def leave_gates(self) -> None:
        """The pool waits nowhere."""
        for gate in list(self._pool.waits):
            gate.leave(self._pool)

    # what is told

    def transaction(self) -> None:
        """A MAIL is being said. Counted by the clock: the loop's time may be as old as its turn, and what is counted
        too early lets the next one come too soon."""
        begin(self._rated, self._clock.monotonic_s())
        for each in self._calendars:
            each.take()

    def opened(self, now_s: float) -> None:
        """A connection is begun: it counts until it is `gone`."""
        self.meter.opened(now_s)
        for limit in self._shared:
            limit.meter.opened(now_s)

    def busy(self, channel: Channel) -> None:
        """A connection that was lent works again."""
        channel.is_lent = False
        for gate in self.gates:
            gate.busy(channel)

    def lend(self, channel: Channel) -> None:
        """An idle connection may make room for other sites, where there is no mail or it had its turn."""
        if self._pool.head_priority < 0 or self._loop.time() - channel.ready_s >= TURN_S:
            channel.is_lent = True
            for gate in self.gates:
                gate.idle(channel)

    def leaving(self, channel: Channel) -> None:
        """A connection takes no further job."""
        for gate in self.gates:
            gate.leaving(channel)

    def gone(self, channel: Channel) -> None:
        """A connection is closed: its place is free, for whoever waits longest."""
        self.meter.closed()
        for limit in self._shared:
            limit.meter.closed()
        for limit in self._shared:
            limit.connections.gone(channel)

    def is_used_up(self, channel: Channel) -> bool:
        """Whether a connection has carried what it may, or others need its place more than the pool's own mail."""
        if 0 < self._messages_max <= channel.messages or 0 < self._recipients_in_all <= channel.recipients:
            return True
        for gate in self.gates:
            if gate.waiting:
                now_s = self._loop.time()
                if gate.wants(self._pool, self._pool.head_priority, now_s - channel.ready_s >= TURN_S, now_s):
                    gate.leave(self._pool)  # behind those whom it makes room for
                    return True
        return False
