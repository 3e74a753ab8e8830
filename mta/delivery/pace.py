"""Pace: how fast a pool really sent in the last minute, from what its connections count in any case.

Nothing is counted for a message: what connections have begun is summed up when the pool is looked after, and when
somebody asks.
"""

from collections.abc import Iterable

from mta.delivery.channel import Channel
from mta_policies.throughput import Throughput


class Pace:
    """Of one pool. Monotonic seconds."""

    __slots__ = ("_gone", "_throughput")

    def __init__(self) -> None:
        self._gone = 0
        self._throughput = Throughput()

    def gone(self, channel: Channel) -> None:
        """A connection is closed."""
        self._gone += channel.messages

    def look(self, channels: Iterable[Channel], now_s: float) -> None:
        """To be called every few seconds while the pool is in use."""
        if now_s >= self._throughput.next_s:
            self._throughput.mark(self._begun(channels), now_s)

    def per_s(self, channels: Iterable[Channel], now_s: float) -> float:
        """Messages a second; 0.0 where that is not known yet."""
        return self._throughput.per_s(self._begun(channels), now_s)

    def _begun(self, channels: Iterable[Channel]) -> int:
        return self._gone + sum(channel.messages for channel in channels)
