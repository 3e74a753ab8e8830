"""An opener: begins the connections of a pool, as many as there is mail for and limits allow, and knows what became of
those that never were ready: it tries the next address, or leaves the site alone for a while.
"""

import math
from typing import TYPE_CHECKING

from mta.delivery.backlog import Backlog
from mta.delivery.channel import Channel
from mta.delivery.connection import Target
from mta.delivery.gate import Gate
from mta.delivery.job import Job
from mta.delivery.promises import Promises
from mta.model.outcome import Reply
from mta_policies.engine import Verdict

if TYPE_CHECKING:
    from mta.delivery.pool import Pool

OPENING_MAX = 20  # connections that one pool opens at the same time: a site that takes none must not use up sockets
TARGETS_MAX = 6  # addresses that fail in a row before the site is left alone for a while: a domain may name a thousand

_UNKNOWN: "Failure" = ("connect", Reply(451, "4.4.1", "no host could be reached"), None)

Failure = tuple[str, Reply, Verdict | None]
"""Stage, reply and what the policy's rules make of it, as far as they were asked."""


class Opener:
    """Of one pool."""

    def __init__(self, pool: "Pool", backlog: Backlog, promises: Promises) -> None:
        self._pool = pool
        self._engine = pool.site.destination.engine
        self._loop = self._engine.loop
        self._backlog = backlog
        self._promises = promises
        self.count = 0
        """Connections that may still become ready."""
        self._failures_in_row = 0
        self.failure = _UNKNOWN
        """Of the last connection that did not become ready."""

    def open(self, now_s: float, granted: Gate | None) -> None:
        """Open as many connections as there is mail for and limits allow."""
        pool = self._pool
        if pool.meter.connections_open >= pool.meter.connections_max:
            return
        most = OPENING_MAX if pool.warming is None else min(OPENING_MAX, pool.warming.room())
        while self.count < most and self.count < len(pool.lane):
            job = self._backlog.reason_to_open()
            if job is None or not self._open_for_head(job, now_s, granted):
                return
            granted = None

    def opens_for(self, job: Job, now_s: float) -> bool:
        """Open a connection for the head of the lane beside those being opened, if that is possible now."""
        return self.count < OPENING_MAX and self._open_for_head(job, now_s, None)

    def _open_for_head(self, job: Job, now_s: float, granted: Gate | None) -> bool:
        """Open a connection, if that is possible now; one to the host that the head of the lane prefers is its own."""
        pool = self._pool
        if not self._is_well(now_s):
            return False
        target = pool.targets.choose_host(job.prefer_host) if job.prefer_host else None
        if target is None:
            if job.prefer_host and not pool.targets.is_known(job.prefer_host, now_s):
                pool.search.begin(job.prefer_host)
                return False
            job.prefer_host = ""
            target = pool.targets.choose(now_s)
        if target is None:
            pool.search.begin()
            return False
        if not self._may_open(now_s, granted):
            return False
        channel = self._begin(target, now_s)
        if job.prefer_host:
            self._promises.give(channel)
        return True

    def health_wait_s(self, now_s: float) -> float:
        """How long site and source are left alone yet."""
        pool = self._pool
        return max(pool.site.backoff.wait_s(now_s), pool.backoff.wait_s(now_s))

    def _is_well(self, now_s: float) -> bool:
        """Whether site and source are up, or may be probed now."""
        pool = self._pool
        wait_s = self.health_wait_s(now_s)
        if wait_s > 0:
            pool.wake_in(wait_s, now_s)
        return wait_s <= 0

    def _may_open(self, now_s: float, granted: Gate | None) -> bool:
        pool = self._pool
        wait_s = pool.meter.connection_wait_s(now_s)
        if wait_s > 0:
            pool.wake_in(wait_s, now_s)
            return False
        allowance = pool.allowance
        if allowance.hours and allowance.stops(allowance.hours, now_s, granted):
            return False
        return not allowance.stops(allowance.gates, now_s, granted)

    def _begin(self, target: Target, now_s: float) -> Channel:
        """A connection that counts from now on until it is `gone`."""
        pool = self._pool
        channel = Channel(pool, target, pool.targets.tls_mode(target, now_s), now_s)
        self.count += 1
        pool.channels[channel] = None
        pool.allowance.opened(now_s)
        pool.site.destination.tally.connections_opened += 1
        pool.site.backoff.begin(channel)
        pool.backoff.begin(channel)
        if pool.braked is not None:
            pool.braked.opened(channel)
        channel.open()
        return channel

    def opened(self) -> None:
        """One of them is ready."""
        self.count -= 1
        self._failures_in_row = 0

    def not_opened(self, channel: Channel, stage: str, reply: Reply, from_peer: bool) -> None:
        """A connection did not become ready: try the next address, or leave the site alone when there is none."""
        pool = self._pool
        now_s = self._loop.time()
        self.count -= 1
        pool.site.destination.tally.connections_failed += 1
        self.no_probe(channel)
        self._promises.end(channel)
        if stage == "starttls" and channel.tls_mode == "opportunistic":
            self.failure = (stage, reply, None)
            pool.targets.goes_in_clear(channel.target, now_s)
        else:
            judging, host = pool.site.destination.judging, channel.target.host
            self.failure = (stage, reply, judging.not_opened(pool, stage, reply, host, from_peer))
            if pool.targets.failed(channel.target, now_s):
                self._failures_in_row += 1
                if self._failures_in_row >= TARGETS_MAX:
                    self.failed(*self.failure, channel.begun_s)
                    return
        pool.site.pump()

    def failed(self, stage: str, reply: Reply, verdict: Verdict | None = None, begun_s: float = math.inf) -> None:
        """No host of the site could be used: leave it alone for a while. One message tells, the others wait."""
        pool = self._pool
        if verdict is None:
            verdict = pool.site.destination.judging.not_opened(pool, stage, reply, "", False)
        self._failures_in_row = 0
        health = pool.site.backoff if stage in ("dns", "connect") else pool.backoff
        now_s = self._loop.time()
        is_news = health.failed(now_s, self._engine.random.random(), begun_s)
        head = self._backlog.first() if is_news else None
        pool.site.pump()
        if head is not None and all(channel.is_leaving or channel.is_opening for channel in pool.channels):
            wait_s = max(0.0, health.until_s - now_s)
            self._engine.fates.tell_delay(head, stage, reply, pool.site, pool.source, wait_s, verdict)

    def no_probe(self, channel: Channel) -> bool:
        """A connection is over; -> whether it was to show if the site is up again."""
        pool = self._pool
        return pool.site.backoff.end(channel) | pool.backoff.end(channel)

    def is_probe(self, channel: Channel) -> bool:
        """Whether this connection shows if the site is up again."""
        pool = self._pool
        return pool.site.backoff.is_probe(channel) or pool.backoff.is_probe(channel)
