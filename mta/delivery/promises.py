"""Promises: jobs that want one certain host, and the connections to it that are kept, or being opened, for them.

A message whose fate is uncertain is perhaps at a host already, so that host is asked first.
"""

from typing import TYPE_CHECKING

from mta.delivery.channel import Channel
from mta.delivery.job import WAITING, Job

if TYPE_CHECKING:
    from mta.delivery.pool import Pool


class Promises:
    """Of one pool."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._jobs: dict[Channel, Job] = {}

    def give(self, channel: Channel) -> None:
        """The head of the lane goes out over this connection, or over the one that gets its place."""
        self._jobs[channel] = self._pool.lane.pop()

    def keep(self, channel: Channel) -> None:
        """The connection is ready: its job is next."""
        job = self._jobs.pop(channel, None)
        if job is not None:
            self._pool.lane.push_front(job.priority, job)

    def end(self, channel: Channel, *, is_gone: bool = False) -> None:
        """The connection did not become ready, or (`is_gone`) it is closed: a job that waited for its place goes on."""
        job = self._jobs.pop(channel, None)
        if job is not None:
            job.prefer_host = job.prefer_host if is_gone and channel.ready_s else ""
            if job.state == WAITING:
                self._pool.take_back(job, True)

    def channel(self, job: Job, now_s: float) -> Channel | None:
        """An idle connection to the host that perhaps has the job; None: it waits for a connection of its own, or for
        the search for its host, or goes to any host."""
        pool = self._pool
        most = pool.limits.recipients_per_connection
        for channel in reversed(pool.idle):
            if channel.target.host == job.prefer_host and not (most and channel.recipients):
                pool.idle.remove(channel)
                return channel
        pool.lane.push_front(job.priority, job)
        if not pool.opener.opens_for(job, now_s) and job.prefer_host and not pool.search.is_running:
            self._make_place(job, now_s)
        return None

    def _make_place(self, job: Job, now_s: float) -> None:
        """Limits, or a probe, allow no connection to the host that the head of the lane prefers: an idle one leaves for
        it, where that helps."""
        pool = self._pool
        is_down = pool.opener.health_wait_s(now_s) > 0
        channel = next((each for each in pool.idle if not is_down or pool.opener.is_probe(each)), None)
        if channel is not None:
            self.give(channel)
            channel.leave()
        elif pool.idle:
            job.prefer_host = ""
