"""A pool: what waits for one site from one source, and the connections that it goes out over.

`pump` is called whenever something may have become possible: mail came, a connection is ready, a limit has room
again. It sends while it can and arranges to be called when it cannot: by a timer (rates, a site that is down), a gate
(limits shared with other pools), `gone` (a connection's place is free), the backlog (mail read back) or the search for
a host. Connections are kept open and never serve another site.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mta.delivery.allowance import Allowance
from mta.delivery.backlog import PARKED_AT_ONCE, Backlog
from mta.delivery.channel import Channel
from mta.delivery.connection import SourceAddress
from mta.delivery.gate import Gate
from mta.delivery.health import health_of
from mta.delivery.job import SENDING, TURNS_MAX, WAITING, Job
from mta.delivery.opener import Opener
from mta.delivery.pace import Pace
from mta.delivery.promises import Promises
from mta.delivery.search import Search
from mta.delivery.targets import Targets
from mta.model.outcome import Delivered, Outcome
from mta.reporting.events import Way
from mta_policies.backoff import Backoff
from mta_policies.schema import Limits, Retry

if TYPE_CHECKING:
    from mta.delivery.brakes import Braked
    from mta.delivery.sites import Site
    from mta.delivery.warming import Warm

OVERDUE_WAIT_S = 1.0  # between looks at a disk that does not take the fates of what was sent


class Pool:
    """One site, one source."""

    def __init__(self, site: "Site", source: SourceAddress) -> None:
        self.site = site
        self.source = source
        self._engine = site.destination.engine
        self._loop = self._engine.loop
        self._backlog = Backlog(self)
        self.lane = self._backlog.lane
        """Jobs that wait, what is being signed or is ready included."""
        self.spill = self._backlog.spill
        """What is behind them."""
        self.idle: list[Channel] = []
        """Ready and without a job; the one used last is used next."""
        self.channels: dict[Channel, None] = {}
        """All that count, in the order in which they were begun."""
        self.waits: dict[Gate, int] = {}
        self.backoff = Backoff()
        self.is_closed = False
        self.targets = Targets(site)
        self.search = Search(self)
        self._promises = Promises(self)
        self.opener = Opener(self, self._backlog, self._promises)
        self._pace = Pace()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self.address = ""
        """Where the latest connection went out from."""
        brakes = site.destination.brakes
        self.braked = brakes.of_pool(self) if brakes is not None else None
        """What firings do here; None: nothing."""
        self.warming: Warm | None = None
        """What the plan of a source lets go that is new; None: it has none."""
        self.warming = self._engine.warming.of_pool(self)
        self.allowance = Allowance(self)
        self.meter = self.allowance.meter

    @property
    def waiting(self) -> int:
        """All that waits: jobs, and items as numbers."""
        return self.lane.waiting

    def before(self, priority: int, seq: int) -> int | None:
        """About how many go before an item that waits as a number; None where it does not wait here so."""
        if seq not in self.spill.seqs:
            return None
        ahead = self.lane.before(priority, seq)
        return None if ahead is None else ahead + self.lane.ahead + len(self.lane.picked)

    @property
    def limits(self) -> Limits:
        """As they hold for this source here."""
        return self.allowance.limits

    def retry_for(self, tenant: str) -> Retry:
        """When what this source deferred here of a tenant's mail is tried again."""
        return self.allowance.retry_for(tenant)

    def pace(self) -> float:
        """Messages a second that were really begun in the last minute; 0.0 where that is not known yet."""
        return self._pace.per_s(self.channels, self._loop.time())

    def reload(self, source: SourceAddress) -> None:
        """Policy, share, keys or the source's address changed: take the values, keep what was used of the limits."""
        self._restage()
        self.warming = self._engine.warming.of_pool(self)
        self.allowance.reload(self.channels)
        for channel in list(self.channels):
            if channel.is_leaving:
                self.leaving(channel)
            elif source != self.source:
                channel.leave()
            elif channel in self.idle:
                self._lend(channel)
        self.source = source

    def brake(self, braked: "Braked | None") -> None:
        """What firings do here became another."""
        if braked is not None or self.braked is not None:
            self.braked = braked
            self.reload(self.source)

    # mail waits

    def put(self, job: Job) -> None:
        """A job may go, with the next `pump`."""
        if self.warming is not None and self.warming.sends_on(job):
            return
        if not self.admits(job):
            return
        self.lane.push(job.priority, job)
        if job.envelope is None:
            self._engine.memory.watch(job)
            self._backlog.cooled(job)

    def admits(self, job: Job) -> bool:
        """A job is this pool's from now on; False: its time was over, and it is given up."""
        allowance = self.allowance
        retry = allowance.retry_for(job.tenant) if allowance.has_retries else allowance.retry
        job.expires_s = job.accepted_s + (job.own_expire_s or retry.expire_s)
        job.home = self._backlog
        most = allowance.recipients_max
        if most and len(job.parts) > most:  # each of its transactions is a turn, though they follow one another
            job.cost = max(job.cost, min(TURNS_MAX, -(-len(job.parts) // most)))
        if job.content is None and job.expires_s <= self._engine.clock.wall_s():
            self._engine.fates.expire(job, self.way)
            return False
        return True

    def push(self, job: Job) -> None:
        """A job may go."""
        if not self._goes_at_once(job):
            self.put(job)
            self.pump()
        elif self.admits(job):
            if job.expires_s <= self._engine.clock.wall_s():  # while its domain was looked up
                self._engine.fates.expire(job, self.way)
                return
            channel = self.idle.pop()
            if channel.is_lent:
                self.allowance.busy(channel)
            self._send(channel, job)

    def _goes_at_once(self, job: Job) -> bool:
        """Nothing waits before it, nothing is counted or kept back here, and a connection has nothing to do: it need
        not go through the lane. `pump` would do the same; it is asked where anything is not so plain."""
        if not self.idle or self.lane:
            return False
        engine, allowance = self._engine, self.allowance
        return (
            allowance.is_free
            and (len(job.parts) == 1 or len(job.parts) <= allowance.recipients_max or not allowance.recipients_max)
            and engine.signatures.is_off
            and self.braked is None
            and job.content is not None
            and not (
                job.prefer_host
                or allowance.limits.recipients_per_connection
                or self.lane.signs
                or self.lane.spilled
                or self.spill.is_returning
                or self._backlog.is_loading
                or engine.parking.active
                or engine.reserving.active
                or engine.suspensions.active
                or engine.is_overdue
                or self.site.holds
                or self.is_closed
            )
        )

    def take_back(self, job: Job, is_next: bool) -> None:
        """A job that was sent or promised and is still to go; `is_next`: before all others."""
        job.state = WAITING
        if self.is_closed:
            self._engine.route(job)
        elif is_next:
            self.lane.push_front(job.priority, job)
        else:
            self.lane.push(job.priority, job)

    def take_jobs(self, wanted: Callable[[Job], bool] | None = None) -> list[Job]:
        """Take out the jobs that wait and are wanted (None: everything): they go another way. What is spilled is not
        among them (`spill.take_all`)."""
        return self._backlog.take_jobs(wanted)

    def loaded(self, jobs: Sequence[Job]) -> None:
        """Jobs of this pool were read back."""
        if self.is_closed:
            for job in jobs:
                self._engine.route(job)
        else:
            self._backlog.give_back(jobs)
            self.pump()

    def signed(self, job: Job) -> None:
        """A job is ready; a busy connection fetches it by itself."""
        if self.idle or job.prefer_host or not self.channels:
            self.pump()

    def _restage(self) -> None:
        if self._engine.signatures.is_off is self._backlog.signs:
            self._backlog.restage()

    def granted(self, gate: Gate) -> None:
        """A shared limit has room for this pool."""
        self.pump(gate)

    @property
    def way(self) -> Way:
        """Where its mail goes, as far as that is known without a connection."""
        return Way(site=self.site.name, policy=self.site.destination.policy.name, source=self.source.name)

    def pump(self, granted: Gate | None = None) -> None:
        """Send while it is possible."""
        lane, engine, backlog = self.lane, self._engine, self._backlog
        if not lane or self.is_closed or self.site.holds:
            if lane.short:
                self.spill.refill()
            return
        if engine.signatures.is_off is lane.signs:
            self._restage()
        if backlog.parked:
            backlog.parked = 0
        now_s = self._loop.time()
        if engine.suspensions.active and self._stands_still(engine.suspensions.pool_until_s(self) - now_s, now_s):
            return
        if self.braked is not None and self.braked.stops and self._stands_still(self.braked.wait_s(), now_s):
            return
        if engine.is_overdue:
            self.wake_in(OVERDUE_WAIT_S, now_s)
            return
        idle, allowance, meter = self.idle, self.allowance, self.meter
        signs = lane.signs
        had_channels = bool(self.channels)
        if signs and had_channels:
            backlog.sign_ahead(now_s)
        while lane:
            if not idle and meter.connections_open >= meter.connections_max and allowance.has_rates_alone:
                break  # one that is done pumps again
            most, is_let = allowance.recipients_max, allowance.is_free or allowance.lets(now_s)
            if not is_let:
                if self.warming is not None and (most := self.warming.most(most)) < 0:
                    if not self.warming.diverts():
                        self._stands_still(self.warming.wait_s(), now_s)
                    return
                wait_s = meter.transaction_wait_s(now_s)
                if wait_s > 0:
                    self.wake_in(wait_s, now_s)
                    return
                if allowance.calendar is not None and self._stands_still(allowance.calendar.wait_s(), now_s):
                    return
            if not idle:
                self.opener.open(now_s, granted)
                if signs and self.channels and not had_channels:
                    backlog.sign_ahead(now_s)
                break
            if signs and not backlog.has_ready(now_s):
                if granted is not None and granted in allowance.turns and backlog.is_loading:
                    granted.expect(self)
                break
            if signs and engine.parking.active:
                is_let = False  # looking for what is ready may have let others go
            if not is_let and allowance.turns and allowance.stops(allowance.turns, now_s, granted):
                return
            job = backlog.next(most, now_s)
            if job is None:
                if backlog.is_loading:
                    for gate in allowance.turns:
                        gate.expect(self)
                break
            if job.prefer_host:
                channel = self._promises.channel(job, now_s)
                if channel is None:
                    if self.search.is_running and job.prefer_host and lane.peek() is job:
                        break
                    continue
            elif allowance.limits.recipients_per_connection:
                channel = self._with_room(job)
                if channel is None:
                    continue
            else:
                channel = idle.pop()
            if engine.reserving.active and not engine.reserving.takes(self, job, channel):
                backlog.parked += 1
                continue
            if not allowance.is_free:
                if allowance.tenants is not None and (job := allowance.tenants.takes(whole := job)) is None:
                    engine.reserving.returns(self, whole)
                    backlog.parked += 1
                    idle.append(channel)
                    continue
                allowance.transaction()
                if self.warming is not None:
                    self.warming.began(channel, len(job.parts))
            if channel.is_lent:
                allowance.busy(channel)
            self._send(channel, job)
            granted = None
        if lane.short:
            self.spill.refill()
        if self.waits and not lane and not self.spill.is_returning:
            allowance.leave_gates()
        if backlog.parked >= PARKED_AT_ONCE:
            self._loop.call_soon(self.pump)

    def _stands_still(self, wait_s: float, now_s: float) -> bool:
        """Whether nothing begins here for a while, as an admin or a rule says; others need not wait for this pool."""
        if wait_s > 0:
            self.allowance.leave_gates()
            self.wake_in(wait_s, now_s)
        return wait_s > 0

    def _with_room(self, job: Job) -> Channel | None:
        """An idle connection that may take so many recipients more; None: the job is back in the lane."""
        channel = self.idle.pop()
        if not channel.recipients or channel.recipients + len(job.parts) <= self.limits.recipients_per_connection:
            return channel
        self.lane.push_front(job.priority, job)
        channel.leave()
        return None

    def _send(self, channel: Channel, job: Job) -> None:
        job.state = SENDING
        try:
            channel.send(job)
        except Exception as error:  # noqa: BLE001 - one message that cannot be sent must not stop all others
            channel.job = None
            self._engine.set_aside(job, error)
            channel.abort()

    # connections

    def ready(self, channel: Channel) -> None:
        """A connection can take its first message."""
        self.opener.opened()
        channel.ready_s = channel.idle_since_s = self._loop.time()
        self._goes_from(channel.way.source_address)
        if self.is_closed or channel.is_leaving:
            channel.leave()
            return
        self.idle.append(channel)
        self._promises.keep(channel)
        self.pump()
        self._lend(channel)

    def _goes_from(self, address: str) -> None:
        """Where a connection really goes out from: rules may know that network."""
        if address != self.address:
            self.address = address
            brakes = self.site.destination.brakes
            if brakes is not None:
                self.brake(brakes.of_pool(self))

    def done(self, channel: Channel, job: Job, outcomes: list[Outcome]) -> None:
        """A transaction ended."""
        if (
            len(outcomes) > 1
            or type(outcomes[0]) is not Delivered
            or self.site.backoff.failures
            or self.backoff.failures
        ):
            self._judge(channel, job, outcomes)
        if self.site.destination.listens or self.warming is not None:
            self.site.destination.judging.heard(self, channel, job, outcomes)
        try:
            self._engine.fates.settle(self, job, outcomes, channel.way, channel.messages > 1)
        except Exception as error:  # noqa: BLE001 - what one message did must not stop all others
            self._engine.set_aside(job, error)
        allowance = self.allowance
        if allowance.tenants is not None:
            allowance.tenants.ended(job.tenant)
        is_over = channel.is_leaving or self.is_closed or self._engine.is_stopping
        if is_over or allowance.is_used_up(channel):
            channel.leave()
            self.pump()
            return
        self.idle.append(channel)
        self.pump()
        if channel.job is None and not channel.is_leaving:
            channel.idle_since_s = self._loop.time()
            self._lend(channel)

    def _judge(self, channel: Channel, job: Job, outcomes: list[Outcome]) -> None:
        """What outcomes say about the peer's health, and whether anything was said to it."""
        is_well = health_of(outcomes, channel.messages == 1)
        if is_well:
            if self.site.backoff.answered(channel.begun_s) | self.backoff.answered(channel.begun_s):
                self._loop.call_soon(self.site.pump)
        elif is_well is False:
            self.backoff.failed(self._loop.time(), self._engine.random.random(), channel.begun_s)
        reserving = self._engine.reserving
        if reserving.active and all(outcome.stage == "local" for outcome in outcomes):
            reserving.returns(self, job)

    @property
    def head_priority(self) -> int:
        """The priority of what goes next, -1 where there is nothing."""
        return self._backlog.head_priority()

    def _lend(self, channel: Channel) -> None:
        if self.allowance.gates and channel.job is None and not channel.is_leaving:
            self.allowance.lend(channel)

    def leaving(self, channel: Channel) -> None:
        """A connection takes no further job."""
        if channel in self.idle:
            self.idle.remove(channel)
        self.allowance.leaving(channel)

    def gone(self, channel: Channel) -> None:
        """A connection is closed: its place is free."""
        self.channels.pop(channel, None)
        self._pace.gone(channel)
        if channel.is_opening:
            channel.is_opening = False
            self.opener.count -= 1
        self._promises.end(channel, is_gone=True)
        if self.warming is not None:
            self.warming.gone(channel)
        was_probe = self.opener.no_probe(channel)
        self.allowance.gone(channel)
        if was_probe:
            self.site.pump()
        else:
            self.pump()

    # time

    def wake_in(self, wait_s: float, now_s: float) -> None:
        """Look again then; where it is inf something else will wake us."""
        if wait_s == math.inf:
            return
        if self._timer is not None:
            if self._timer_s <= now_s + wait_s:
                return
            self._timer.cancel()
        self._timer_s = now_s + wait_s
        self._timer = self._loop.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.pump()

    def sweep(self, now_s: float, idle_before_s: float) -> None:
        """Say goodbye on connections that had nothing to do since that time, but not while mail waits for its turn."""
        for channel in list(self.idle):
            if channel.idle_since_s < idle_before_s and (not self.waits or self.allowance.is_shut):
                channel.leave()
            else:
                self._lend(channel)
        self.targets.sweep(now_s)
        self._pace.look(self.channels, now_s)

    @property
    def is_unused(self) -> bool:
        """Nothing waits, nothing is open."""
        if self.lane.waiting or self.spill.is_returning:
            return False
        if self.allowance.tenants is not None and self.allowance.tenants.parked:
            return False
        return not (self.channels or self._backlog.is_loading or self.search.is_running)

    @property
    def is_sending(self) -> bool:
        """A transaction is under way."""
        return any(channel.job is not None for channel in self.channels)

    def close(self) -> None:
        """Leave: idle connections say goodbye, busy ones after their transaction."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.search.cancel()
        self.allowance.close()
        for channel in list(self.channels):
            channel.leave()

    def abort(self) -> None:
        """Cut off what is open."""
        for channel in list(self.channels):
            channel.abort()
