"""Pace: how fast a pool really sent in the last minute, from what its connections count in any case.

Nothing is counted for a message: what connections have begun is summed up when the pool is looked after, and when
somebody asks.
"""

from collections import deque
from collections.abc import Iterable

from mta.delivery.channel import Channel

WINDOW_S = 60.0
MARK_S = 10.0  # between two sums: what is asked for is of the last minute to a sixth of it
SHOWN_S = 15.0  # in a shorter time nobody has shown a pace


class Pace:
    """Of one pool. Monotonic seconds."""

    __slots__ = ("_gone", "_marks")

    def __init__(self) -> None:
        self._gone = 0
        self._marks: deque[tuple[float, int]] = deque()
        """When, and how many messages were begun by then; the oldest first."""

    def gone(self, channel: Channel) -> None:
        """A connection is closed."""
        self._gone += channel.messages

    def look(self, channels: Iterable[Channel], now_s: float) -> None:
        """To be called every few seconds while the pool is in use."""
        marks = self._marks
        if marks and now_s - marks[-1][0] > WINDOW_S:
            marks.clear()  # nobody looked, so nothing was sent: what was before says nothing of now
        if not marks or now_s - marks[-1][0] >= MARK_S:
            marks.append((now_s, self._begun(channels)))
            while now_s - marks[0][0] > WINDOW_S:
                marks.popleft()

    def per_s(self, channels: Iterable[Channel], now_s: float) -> float:
        """Messages a second; 0.0 where that is not known yet."""
        if not self._marks:
            return 0.0
        first_s, before = self._marks[0]
        over_s = now_s - first_s
        return (self._begun(channels) - before) / over_s if SHOWN_S <= over_s <= WINDOW_S + MARK_S else 0.0

    def _begun(self, channels: Iterable[Channel]) -> int:
        return self._gone + sum(channel.messages for channel in channels)
