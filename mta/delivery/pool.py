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
from mta.delivery.connection import SourceAddress, Target
from mta.delivery.gate import Gate
from mta.delivery.health import health_of
from mta.delivery.job import SENDING, TURNS_MAX, WAITING, Job
from mta.delivery.promises import Promises
from mta.delivery.search import Search
from mta.delivery.targets import Targets
from mta.model.outcome import Delivered, Outcome, Reply
from mta.reporting.events import Way
from mta_policies.backoff import Backoff
from mta_policies.engine import Verdict
from mta_policies.schema import Limits, Retry

if TYPE_CHECKING:
    from mta.delivery.brakes import Braked
    from mta.delivery.sites import Site

OVERDUE_WAIT_S = 1.0  # between looks at a disk that does not take the fates of what was sent
OPENING_MAX = 20  # connections that one pool opens at the same time: a site that takes none must not use up sockets
TARGETS_MAX = 6  # addresses that fail in a row before the site is left alone for a while: a domain may name a thousand

_UNKNOWN: "Failure" = ("connect", Reply(451, "4.4.1", "no host could be reached"), None)

Failure = tuple[str, Reply, Verdict | None]
"""Stage, reply and what the policy's rules make of it, as far as they were asked."""


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
        self.opening = 0
        """How many of them may still become ready."""
        self.waits: dict[Gate, int] = {}
        self.backoff = Backoff()
        self.is_closed = False
        self.targets = Targets(site)
        self.search = Search(self)
        self._failures_in_row = 0
        self.failure = _UNKNOWN
        """Of the last connection that did not become ready."""
        self._promises = Promises(self)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self.address = ""
        """Where the latest connection went out from."""
        brakes = site.destination.brakes
        self.braked = brakes.of_pool(self) if brakes is not None else None
        """What firings do here; None: nothing."""
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

    @property
    def retry(self) -> Retry:
        """When what this source deferred here is tried again."""
        return self.allowance.retry

    def reload(self, source: SourceAddress) -> None:
        """Policy, share, keys or the source's address changed: take the values, keep what was used of the limits."""
        self._restage()
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
        if not self.admits(job):
            return
        self.lane.push(job.priority, job)
        if job.envelope is None:
            self._engine.memory.watch(job)
            self._backlog.cooled(job)

    def admits(self, job: Job) -> bool:
        """A job is this pool's from now on; False: its time was over, and it is given up."""
        job.expires_s = job.accepted_s + (job.own_expire_s or self.allowance.retry.expire_s)
        job.home = self._backlog
        most = self.allowance.recipients_max
        if most and len(job.parts) > most:  # each of its transactions is a turn, though they follow one another
            job.cost = max(job.cost, min(TURNS_MAX, -(-len(job.parts) // most)))
        if job.content is None and job.expires_s <= self._engine.clock.wall_s():
            self._engine.fates.expire(job, self.way)
            return False
        return True

    def push(self, job: Job) -> None:
        """A job may go."""
        self.put(job)
        self.pump()

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
        if self.braked is not None and self._stands_still(self.braked.wait_s(), now_s):
            return
        if engine.is_overdue:
            self._wake_in(OVERDUE_WAIT_S, now_s)
            return
        idle, allowance = self.idle, self.allowance
        signs = lane.signs
        had_channels = bool(self.channels)
        if signs and had_channels:
            backlog.sign_ahead(now_s)
        while lane:
            if not allowance.is_free:
                wait_s = self.meter.transaction_wait_s(now_s)
                if wait_s > 0:
                    self._wake_in(wait_s, now_s)
                    return
            if not idle:
                self._open(now_s, granted)
                if signs and self.channels and not had_channels:
                    backlog.sign_ahead(now_s)
                break
            if signs and not backlog.has_ready(now_s):
                if granted is not None and granted in allowance.turns and backlog.is_loading:
                    granted.expect(self)
                break
            if allowance.turns and allowance.stops(allowance.turns, now_s, granted):
                return
            job = backlog.next(allowance.recipients_max, now_s)
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
            if allowance.gates:
                allowance.busy(channel)
            if not allowance.is_free:
                allowance.transaction()
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
            self._wake_in(wait_s, now_s)
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

    def _open(self, now_s: float, granted: Gate | None) -> None:
        """Open as many connections as there is mail for and limits allow."""
        if self.meter.connections_open >= self.meter.connections_max:
            return
        while self.opening < OPENING_MAX and self.opening < len(self.lane):
            job = self._backlog.reason_to_open()
            if job is None or not self._open_for_head(job, now_s, granted):
                return
            granted = None

    def opens_for(self, job: Job, now_s: float) -> bool:
        """Open a connection for the head of the lane beside those being opened, if that is possible now."""
        return self.opening < OPENING_MAX and self._open_for_head(job, now_s, None)

    def _open_for_head(self, job: Job, now_s: float, granted: Gate | None) -> bool:
        """Open a connection, if that is possible now; one to the host that the head of the lane prefers is its own."""
        if not self._is_well(now_s):
            return False
        target = self.targets.choose_host(job.prefer_host) if job.prefer_host else None
        if target is None:
            if job.prefer_host and not self.targets.is_known(job.prefer_host, now_s):
                self.search.begin(job.prefer_host)
                return False
            job.prefer_host = ""
            target = self.targets.choose(now_s)
        if target is None:
            self.search.begin()
            return False
        if not self._may_open(now_s, granted):
            return False
        channel = self._begin(target, now_s)
        if job.prefer_host:
            self._promises.give(channel)
        return True

    def health_wait_s(self, now_s: float) -> float:
        """How long site and source are left alone yet."""
        return max(self.site.backoff.wait_s(now_s), self.backoff.wait_s(now_s))

    def _is_well(self, now_s: float) -> bool:
        """Whether site and source are up, or may be probed now."""
        wait_s = self.health_wait_s(now_s)
        if wait_s > 0:
            self._wake_in(wait_s, now_s)
        return wait_s <= 0

    def _may_open(self, now_s: float, granted: Gate | None) -> bool:
        wait_s = self.meter.connection_wait_s(now_s)
        if wait_s > 0:
            self._wake_in(wait_s, now_s)
            return False
        return not self.allowance.stops(self.allowance.gates, now_s, granted)

    def _begin(self, target: Target, now_s: float) -> Channel:
        """A connection that counts from now on until it is `gone`."""
        channel = Channel(self, target, self.targets.tls_mode(target, now_s), now_s)
        self.opening += 1
        self.channels[channel] = None
        self.allowance.opened(now_s)
        self.site.destination.tally.connections_opened += 1
        self.site.backoff.begin(channel)
        self.backoff.begin(channel)
        if self.braked is not None:
            self.braked.opened()
        channel.open()
        return channel

    def ready(self, channel: Channel) -> None:
        """A connection can take its first message."""
        self.opening -= 1
        self._failures_in_row = 0
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

    def not_opened(self, channel: Channel, stage: str, reply: Reply, from_peer: bool) -> None:
        """A connection did not become ready: try the next address, or leave the site alone when there is none."""
        now_s = self._loop.time()
        self.opening -= 1
        self.site.destination.tally.connections_failed += 1
        self._no_probe(channel)
        self._promises.end(channel)
        if stage == "starttls" and channel.tls_mode == "opportunistic":
            self.failure = (stage, reply, None)
            self.targets.goes_in_clear(channel.target, now_s)
        else:
            judging, host = self.site.destination.judging, channel.target.host
            self.failure = (stage, reply, judging.not_opened(self, stage, reply, host, from_peer))
            if self.targets.failed(channel.target, now_s):
                self._failures_in_row += 1
                if self._failures_in_row >= TARGETS_MAX:
                    self.failed(*self.failure, channel.begun_s)
                    return
        self.site.pump()

    def failed(self, stage: str, reply: Reply, verdict: Verdict | None = None, begun_s: float = math.inf) -> None:
        """No host of the site could be used: leave it alone for a while. One message tells, the others wait."""
        if verdict is None:
            verdict = self.site.destination.judging.not_opened(self, stage, reply, "", False)
        self._failures_in_row = 0
        health = self.site.backoff if stage in ("dns", "connect") else self.backoff
        now_s = self._loop.time()
        is_news = health.failed(now_s, self._engine.random.random(), begun_s)
        head = self._backlog.first() if is_news else None
        self.site.pump()
        if head is not None and all(channel.is_leaving or channel.is_opening for channel in self.channels):
            wait_s = max(0.0, health.until_s - now_s)
            self._engine.fates.tell_delay(head, stage, reply, self.site, self.source, wait_s, verdict)

    def _no_probe(self, channel: Channel) -> bool:
        return self.site.backoff.end(channel) | self.backoff.end(channel)

    def is_probe(self, channel: Channel) -> bool:
        """Whether this connection shows if the site is up again."""
        return self.site.backoff.is_probe(channel) or self.backoff.is_probe(channel)

    def done(self, channel: Channel, job: Job, outcomes: list[Outcome]) -> None:
        """A transaction ended."""
        if (
            len(outcomes) > 1
            or type(outcomes[0]) is not Delivered
            or self.site.backoff.failures
            or self.backoff.failures
        ):
            self._judge(channel, outcomes)
        if self.site.destination.listens:
            self.site.destination.judging.heard(self, channel, job, outcomes)
        try:
            self._engine.fates.settle(self, job, outcomes, channel.way, channel.messages > 1)
        except Exception as error:  # noqa: BLE001 - what one message did must not stop all others
            self._engine.set_aside(job, error)
        is_over = channel.is_leaving or self.is_closed or self._engine.is_stopping
        if is_over or self.allowance.is_used_up(channel):
            channel.leave()
            self.pump()
            return
        self.idle.append(channel)
        self.pump()
        if channel.job is None and not channel.is_leaving:
            channel.idle_since_s = self._loop.time()
            self._lend(channel)

    def _judge(self, channel: Channel, outcomes: list[Outcome]) -> None:
        """What outcomes say about the peer's health."""
        is_well = health_of(outcomes, channel.messages == 1)
        if is_well:
            if self.site.backoff.answered(channel.begun_s) | self.backoff.answered(channel.begun_s):
                self._loop.call_soon(self.site.pump)
        elif is_well is False:
            self.backoff.failed(self._loop.time(), self._engine.random.random(), channel.begun_s)

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
        if channel.is_opening:
            channel.is_opening = False
            self.opening -= 1
        self._promises.end(channel, is_gone=True)
        was_probe = self._no_probe(channel)
        self.allowance.gone(channel)
        if was_probe:
            self.site.pump()
        else:
            self.pump()

    # time

    def _wake_in(self, wait_s: float, now_s: float) -> None:
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
            if channel.idle_since_s < idle_before_s and not self.waits:
                channel.leave()
            else:
                self._lend(channel)
        self.targets.sweep(now_s)

    @property
    def is_unused(self) -> bool:
        """Nothing waits, nothing is open."""
        if self.lane.waiting or self.spill.is_returning:
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
        self.allowance.leave_gates()
        for channel in list(self.channels):
            channel.leave()

    def abort(self) -> None:
        """Cut off what is open."""
        for channel in list(self.channels):
            channel.abort()
