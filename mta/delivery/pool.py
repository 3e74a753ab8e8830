"""A pool: what waits for one site from one source, and the connections that it goes out over.

`pump` is called whenever something may have become possible: mail came, a connection is ready, a limit has room
again. It sends while it can and arranges to be called when it cannot. Connections are kept open and never serve
another site.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mta.delivery.backoff import Backoff
from mta.delivery.channel import Channel, TlsMode
from mta.delivery.connection import SourceAddress
from mta.delivery.gate import Gate
from mta.delivery.job import ENDED, LOADING, SENDING, WAITING, Job
from mta.model.outcome import Delivered, Outcome, Reply
from mta.resolve.errors import ResolveError
from mta_policies.limits import Meter
from mta_policies.schema import Limits
from mta_queue.timetable import Lane

if TYPE_CHECKING:
    from mta.delivery.sites import Site

LOADED_AHEAD = 32  # cold jobs that one visit to the disk brings back
TARGETS_MAX = 5  # addresses that one attempt to connect tries (THREATS: a thousand MX)


class Pool:
    """One site, one source."""

    def __init__(self, site: "Site", source: SourceAddress) -> None:
        self.site = site
        self.source = source
        self.lane: Lane[Job] = Lane()
        self.idle: list[Channel] = []
        self.channels: set[Channel] = set()
        self.waits: dict[Gate, int] = {}
        self.backoff = Backoff()
        self.opening = 0
        self._engine = site.destination.engine
        self._loop = self._engine.loop
        self._is_loading = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._openers: set[asyncio.Task[None]] = set()
        limits, _, self.retry = site.destination.policy.for_source(source.name)
        self.limits: Limits = limits
        self.meter = Meter(limits, site.destination.share, self._loop.time())
        self._set_gates()

    def _set_gates(self) -> None:
        destination = self.site.destination
        shared = (destination.source_limit(self.source), destination.provider_limit)
        self._shared = shared
        limited = [limit for limit in shared if not limit.meter.is_unlimited]
        self._turn_gates = [limit.turns for limit in limited if limit.meter.has_rate]
        self._connection_gates = [limit.connections for limit in limited]
        self._is_free = not (self.meter.has_rate or self._turn_gates)

    def reload(self) -> None:
        """The policy changed: take its values, keep what was used of them."""
        self.limits, _, self.retry = self.site.destination.policy.for_source(self.source.name)
        self.meter.change(self.limits, self.site.destination.share, self._loop.time())
        for gate in list(self.waits):
            gate.leave(self)
        self._set_gates()

    # mail waits

    def push(self, job: Job) -> None:
        """A job may go."""
        job.expires_s = job.accepted_s + (job.own_expire_s or self.retry.expire_s)
        most = self.limits.recipients_per_transaction
        if most and len(job.parts) > most:
            for at in range(0, len(job.parts), most):
                part = job.part(job.parts[at : at + most])
                self._engine.memory.split(job, part)
                self.lane.push(job.priority, part)
            job.state = ENDED
        else:
            self.lane.push(job.priority, job)
        self.pump()

    def granted(self, gate: Gate) -> None:
        """A shared limit has room for this pool."""
        self.pump(gate)

    def pump(self, granted: Gate | None = None) -> None:
        """Send while it is possible."""
        lane, site = self.lane, self.site
        if not lane or site.is_closed or site.is_held:
            return
        now_s = self._loop.time()
        while lane:
            if not self._is_free:
                wait_s = self.meter.transaction_wait_s(now_s)
                if wait_s > 0:
                    self._wake_in(wait_s, now_s)
                    return
                if self._turn_gates:
                    priority = lane.head_priority()
                    for gate in self._turn_gates:
                        if gate.stops(self, priority, now_s, granted):
                            return
            if not self.idle:
                self._open(now_s, granted)
                return
            job = self._next_job()
            if job is None:
                return
            channel = self._channel_for(job, now_s)
            if channel is None:
                lane.push_front(job.priority, job)
                return
            if not self._is_free:
                self.meter.transaction(now_s)
                for limit in self._shared:
                    limit.meter.transaction(now_s)
            self._send(channel, job)
            granted = None

    def _next_job(self) -> Job | None:
        """The next job with its content in memory; None where none can go now."""
        lane, engine = self.lane, self._engine
        while lane:
            job = lane.pop()
            if job.state == ENDED:
                continue
            if job.expires_s <= engine.clock.wall_s():
                engine.fates.expire(job)
                continue
            if job.content is not None:
                return job
            if job.envelope is not None:
                content = engine.store.content_now(job.seq)
                if content is not None:
                    engine.memory.loaded_in_place(job, content)
                    return job
            if self._is_loading:
                lane.push_front(job.priority, job)
                return None
            self._load(job)
        return None

    def _head(self) -> Job | None:
        """The next job, still in the lane."""
        job = self.lane.peek()
        while job is not None and job.state == ENDED:
            self.lane.pop()
            job = self.lane.peek()
        return job

    def _load(self, first: Job) -> None:
        """Bring the next few cold jobs back from the disk; hot ones behind them may pass meanwhile."""
        self._is_loading = True
        jobs = [first]
        while self.lane and len(jobs) < LOADED_AHEAD and self.lane.head_priority() == first.priority:
            job = self._head()
            if job is None or job.content is not None:
                break
            self.lane.pop()
            if job.state == WAITING:
                jobs.append(job)
        for job in jobs:
            job.state = LOADING
        self._engine.memory.load(jobs, self._loaded)

    def _loaded(self, jobs: Sequence[Job]) -> None:
        self._is_loading = False
        for job in reversed(jobs):
            if job.state == LOADING:
                job.state = WAITING
                if self.site.is_closed:
                    self._engine.route(job)
                else:
                    self.lane.push_front(job.priority, job)
        self.pump()

    # connections

    def _channel_for(self, job: Job, now_s: float) -> Channel | None:
        """An idle connection for this job, the one used last first; None: one is being opened."""
        most = self.limits.recipients_per_connection
        if not job.prefer_host and not most:
            return self._not_idle(self.idle.pop())
        for channel in reversed(self.idle):
            if job.prefer_host and channel.target.host != job.prefer_host:
                continue
            if most and channel.recipients and channel.recipients + len(job.parts) > most:
                continue
            self.idle.remove(channel)
            return self._not_idle(channel)
        if job.prefer_host:
            prefer, job.prefer_host = job.prefer_host, ""  # asked for once: whoever answers then is right
            if self._may_open(now_s, None, job.priority):
                self._start_opening(now_s, prefer)
                return None
            return self._not_idle(self.idle.pop())
        self.idle[0].leave()
        self._open(now_s, None)
        return None

    def _not_idle(self, channel: Channel) -> Channel:
        for gate in self._connection_gates:
            gate.busy(channel)
        return channel

    def _send(self, channel: Channel, job: Job) -> None:
        job.state = SENDING
        channel.send(job)

    def _open(self, now_s: float, granted: Gate | None) -> None:
        """Open as many connections as there is mail for and limits allow."""
        while self.opening < len(self.lane):
            if not self._may_open(now_s, granted, self.lane.head_priority()):
                return
            self._start_opening(now_s, "")
            granted = None

    def _may_open(self, now_s: float, granted: Gate | None, priority: int) -> bool:
        for health in (self.site.backoff, self.backoff):
            if health.failures:
                if self.opening or self.channels:
                    return False
                wait_s = health.wait_s(now_s)
                if wait_s > 0:
                    self._wake_in(wait_s, now_s)
                    return False
        wait_s = self.meter.connection_wait_s(now_s)
        if wait_s > 0:
            self._wake_in(wait_s, now_s)
            return False
        return not any(gate.stops(self, priority, now_s, granted) for gate in self._connection_gates)

    def _start_opening(self, now_s: float, prefer_host: str) -> None:
        for health in (self.site.backoff, self.backoff):
            health.is_probing = health.failures > 0
        self.opening += 1
        self._reserve(now_s)
        task = self._loop.create_task(self._connect(prefer_host))
        self._openers.add(task)
        task.add_done_callback(self._openers.discard)

    def _reserve(self, now_s: float) -> None:
        self.meter.opened(now_s)
        for limit in self._shared:
            limit.meter.opened(now_s)

    def free(self) -> None:
        """A connection that was counted is closed, or was never begun."""
        self.meter.closed()
        for limit in self._shared:
            limit.meter.closed()

    async def _connect(self, prefer_host: str) -> None:
        """Try the site's hosts in order until one is ready; the first try's place is reserved already."""
        reserved = True
        tried = 0
        failure: tuple[str, Reply] | None = None
        try:
            async for target in self.site.targets(self.source, prefer_host):
                modes: list[TlsMode] = [self.site.destination.policy.tls]
                while modes:
                    if not reserved and not await self._reserve_again():
                        break
                    reserved = False
                    channel = Channel(self, target, modes.pop())
                    self.channels.add(channel)
                    opened = await channel.open()
                    if opened is None:
                        self._ready(channel)
                        return
                    failure = opened
                    if opened[0] == "starttls" and channel.tls_mode == "opportunistic":
                        modes.append("none")  # in clear, but never on the connection that failed
                tried += 1
                if tried >= TARGETS_MAX or self.site.is_closed:
                    break
        except ResolveError as error:
            if error.permanent and failure is None:
                self._engine.fates.bounce_waiting(self, "dns", error.reply)
                return
            failure = failure or ("dns", error.reply)
        finally:
            self.opening -= 1
            if reserved:
                self.free()
        if failure is not None:
            self._failed(*failure)
        else:
            self.pump()

    async def _reserve_again(self) -> bool:
        """A place for the next host of the same attempt; False where the limits have none soon."""
        for _ in range(100):
            now_s = self._loop.time()
            meters = (self.meter, *(limit.meter for limit in self._shared))
            wait_s = max(meter.connection_wait_s(now_s) for meter in meters)
            if wait_s == 0:
                self._reserve(now_s)
                return True
            await asyncio.sleep(0.05 if wait_s == math.inf else min(wait_s, 5.0))
        return False

    def _ready(self, channel: Channel) -> None:
        if self.site.is_closed:
            channel.leave()
            return
        self.add_idle(channel)
        self.pump()

    def add_idle(self, channel: Channel) -> None:
        """A connection can take the next message."""
        channel.idle_since_s = self._loop.time()
        self.idle.append(channel)
        for gate in self._connection_gates:
            gate.idle(channel)

    def _failed(self, stage: str, reply: Reply) -> None:
        """No host of the site could be used: leave it alone for a while. One message tells, the others wait."""
        health = self.site.backoff if stage in ("dns", "connect") else self.backoff
        now_s = self._loop.time()
        health.failed(now_s, self._engine.random.random())
        self.site.backoff.is_probing = False
        self.backoff.is_probing = False
        wait_s = max(0.0, health.until_s - now_s)
        head = self._head()
        if head is not None and not self.channels:
            self._engine.fates.tell_delay(head, stage, reply, self.site, self.source, wait_s)
        if health.failures:
            self._wake_in(wait_s, now_s)
            self.site.wake_in(wait_s)

    def done(self, channel: Channel, job: Job, outcomes: list[Outcome], usable: bool) -> None:
        """A transaction ended."""
        if any(map(_is_answer, outcomes)):
            if self.site.backoff.failures or self.backoff.failures:
                self.site.backoff.answered()
                self.backoff.answered()
                self._loop.call_soon(self.site.pump)
        elif any(outcome.stage != "local" for outcome in outcomes):
            self.backoff.failed(self._loop.time(), self._engine.random.random())
        self._engine.fates.settle(self, job, outcomes, channel.way)
        if not usable or channel.is_leaving or self._is_used_up(channel):
            channel.leave()
        else:
            self.add_idle(channel)
        self.pump()

    def _is_used_up(self, channel: Channel) -> bool:
        most = self.limits.messages_per_connection
        if (most and channel.messages >= most) or self.site.is_closed or self._engine.is_stopping:
            return True
        for gate in self._connection_gates:
            urgent = gate.head_priority()
            if urgent >= 0 and urgent > (self.lane.head_priority() if self.lane else -1):
                return True
        return False

    def drop_idle(self, channel: Channel) -> None:
        """An idle connection is leaving or lost."""
        if channel in self.idle:
            self.idle.remove(channel)
            self._not_idle(channel)

    def gone(self, channel: Channel) -> None:
        """A connection is closed: its place is free."""
        self.channels.discard(channel)
        self.drop_idle(channel)
        self.free()
        for gate in self._connection_gates:
            gate.gone(channel)
        self.pump()

    # time

    def _wake_in(self, wait_s: float, now_s: float) -> None:
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

    def sweep(self, idle_before_s: float) -> None:
        """Say goodbye on connections that had nothing to do since that time."""
        for channel in [channel for channel in self.idle if channel.idle_since_s < idle_before_s]:
            channel.leave()

    @property
    def is_unused(self) -> bool:
        """Nothing waits, nothing is open."""
        return not (self.lane or self.channels or self.opening or self._is_loading)

    def close(self) -> None:
        """Leave: idle connections say goodbye, busy ones after their transaction."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for gate in list(self.waits):
            gate.leave(self)
        for channel in list(self.channels):
            channel.leave()

    def abort(self) -> None:
        """Cut off what is open."""
        for opener in list(self._openers):
            opener.cancel()
        for channel in list(self.channels):
            channel.abort()

    @property
    def is_sending(self) -> bool:
        """A transaction is under way."""
        return any(channel.job is not None for channel in self.channels)

    def take_jobs(self, domain: str | None = None) -> list[Job]:
        """Take out what waits for a domain (None: everything): it goes another way."""
        taken: list[Job] = []
        kept: list[Job] = []
        while self.lane:
            job = self.lane.pop()
            if job.state == WAITING:
                (taken if domain is None or job.domain == domain else kept).append(job)
        for job in kept:
            self.lane.push(job.priority, job)
        return taken


def _is_answer(outcome: Outcome) -> bool:
    """The peer spoke about the message, and not about itself as 421 does (RFC 5321 4.2.2)."""
    return isinstance(outcome, Delivered) or (outcome.from_peer and outcome.reply.code != 421)
