"""Limits: how many connections at once, and how often a destination may be knocked on. Pure: callers pass now_s.

A `Meter` keeps one level of limits: a source towards a site, a source towards a provider, or all sources
together. The owner of a destination asks every level that applies, takes the longest wait, and tells all of
them what it did. Time is monotonic seconds; it may stand still.

A rate is spread evenly, with a burst of at most one second's worth and at least one. It is kept as one number,
the time at which all that was sent would have been sent evenly; waiting means letting the clock catch up with
it. Several rates at once are several such numbers, and the slowest decides.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from mta_policies.schema import Limits
from mta_policies.units import Rate

BURST_S = 1.0
"""At most so many seconds' worth of a rate go at once."""

_ROUNDING_S = 1e-6
"""A wait shorter than this is none: the caller would come back at the very same moment. It is not gained: the next
one waits the longer."""


class Share(msgspec.Struct, frozen=True):
    """One owner's part of a limit: the `index`-th of `of` owners."""

    index: int = 0
    of: int = 1

    def count(self, whole: int) -> int:
        """This owner's part of a number; the first owners have one more where it does not divide."""
        return whole // self.of + (self.index < whole % self.of)

    @property
    def tag(self) -> str:
        """As it is kept and handed over: "0/2"."""
        return f"{self.index}/{self.of}"

    @classmethod
    def of_tag(cls, tag: str) -> "Share":
        """The opposite of `tag`; ValueError where it is none."""
        index, _, of = tag.partition("/")
        return cls(int(index), int(of))


WHOLE: Final = Share()
"""Of a single owner: all of it."""


class Bucket:
    """One rate of one owner. Begins full: the first burst may go at once."""

    __slots__ = ("_ahead_s", "_even_s", "_since_s", "_taken", "interval_s", "rate")

    def __init__(self, rate: Rate, share: Share, now_s: float) -> None:
        self.rate = rate
        per_second = rate.per_second / share.of
        self.interval_s = 1.0 / per_second
        self._ahead_s = (max(1.0, per_second * BURST_S) - 1.0) * self.interval_s
        # The time at which all would have been sent evenly is since + taken * interval: counted, not added up, so that
        # no rounding gathers over millions of messages.
        self._set(now_s, 0.0)

    def _set(self, since_s: float, taken: float) -> None:
        self._since_s = since_s
        self._taken = taken
        self._even_s = since_s + taken * self.interval_s

    def wait_s(self, now_s: float) -> float:
        wait_s = self._even_s - self._ahead_s - now_s
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def take(self, now_s: float) -> None:
        if self._even_s > now_s:
            self._taken = taken = self._taken + 1.0
            self._even_s = self._since_s + taken * self.interval_s
        else:
            self._set(now_s, 1.0)

    def take_many(self, count: int, now_s: float) -> None:
        """So many went, the last of them now; the others counted as late as that."""
        if count:
            self.take(now_s)
            self._set(self._since_s, self._taken + count - 1)

    def free(self, now_s: float) -> int:
        """How many may go at this moment."""
        return int(1.0 + self._ahead_s / self.interval_s - self.used(now_s) + _ROUNDING_S)

    def wait_many_s(self, count: int, now_s: float) -> float:
        """Seconds until so many may go at one moment; inf: never, the burst is smaller."""
        burst = 1.0 + self._ahead_s / self.interval_s
        if count > burst + _ROUNDING_S:
            return math.inf
        return max(0.0, (self.used(now_s) + count - burst) * self.interval_s)

    def used(self, now_s: float) -> float:
        """How many of the burst are used up at this time."""
        return max(0.0, self._taken - (now_s - self._since_s) / self.interval_s)

    def use(self, used: float, now_s: float) -> None:
        """Goes on where another bucket was: so many more of the burst are used up, at most all of it."""
        burst = 1.0 + self._ahead_s / self.interval_s
        self._set(now_s, min(self.used(now_s) + used, burst))


State = dict[str, list[float]]
"""What one owner hands to the next: of "connection_rate" and "rate", how many of each rate's burst are used up."""


class Meter:
    """One level of limits in one owner. Ask before, tell after; nothing is refused here, only waits are named."""

    __slots__ = (
        "_connection_buckets",
        "_rate_bucket",
        "connections_max",
        "connections_open",
        "has_rate",
        "is_unlimited",
        "limits",
        "rate_buckets",
        "share",
    )

    def __init__(self, limits: Limits, share: Share, now_s: float) -> None:
        self.connections_open = 0
        self._connection_buckets: tuple[Bucket, ...] = ()
        self.rate_buckets: tuple[Bucket, ...] = ()
        """Of transactions; others after each `change`."""
        self._set(limits, share, now_s)

    def _set(self, limits: Limits, share: Share, now_s: float) -> None:
        self.limits = limits
        self.share = share
        self.connections_max: float = share.count(limits.connections) if limits.connections else math.inf
        self._connection_buckets = tuple(Bucket(rate, share, now_s) for rate in limits.connection_rate)
        self.rate_buckets = tuple(Bucket(rate, share, now_s) for rate in limits.rate)
        self._rate_bucket = self.rate_buckets[0] if len(self.rate_buckets) == 1 else None
        self.has_rate = bool(self.rate_buckets)
        """Where False, `transaction_wait_s` and `transaction` need not be called."""
        self.is_unlimited = not (self.has_rate or self._connection_buckets or limits.connections)
        """Where True, nothing ever waits; `opened` and `closed` are still to be told, for a reload may set limits."""

    def connection_wait_s(self, now_s: float) -> float:
        """Seconds until a connection may be opened; 0.0: now; inf: not before one is closed."""
        if self.connections_open >= self.connections_max:
            return math.inf
        wait_s = 0.0
        for bucket in self._connection_buckets:
            wait_s = max(wait_s, bucket.wait_s(now_s))
        return wait_s

    def opened(self, now_s: float) -> None:
        """A connection is being opened: it counts from the first SYN on."""
        self.connections_open += 1
        for bucket in self._connection_buckets:
            bucket.take(now_s)

    def closed(self) -> None:
        """A connection no longer counts: the peer has closed it, or 5 s have passed since QUIT."""
        assert self.connections_open > 0, "closed more often than opened"
        self.connections_open -= 1

    def transaction_wait_s(self, now_s: float) -> float:
        """Seconds until the next MAIL may be said; 0.0: now."""
        if self._rate_bucket is not None:
            return self._rate_bucket.wait_s(now_s)
        wait_s = 0.0
        for bucket in self.rate_buckets:
            wait_s = max(wait_s, bucket.wait_s(now_s))
        return wait_s

    def transaction(self, now_s: float) -> None:
        """A MAIL is being said."""
        if self._rate_bucket is not None:
            self._rate_bucket.take(now_s)
            return
        for bucket in self.rate_buckets:
            bucket.take(now_s)

    def change(self, limits: Limits, share: Share, now_s: float) -> None:
        """Other limits from now on (a reload, other owners). What was used up stays used up; open connections stay
        open, and where they are too many none is opened until enough have gone."""
        if limits == self.limits and share == self.share:
            return
        state = self.state(now_s)
        self._set(limits, share, now_s)
        _go_on(self._connection_buckets, state.get("connection_rate", []), now_s)
        _go_on(self.rate_buckets, state.get("rate", []), now_s)

    def state(self, now_s: float) -> State:
        """What the next owner must know. Connections are not in it: an owner closes its own before it hands over."""
        return {
            "connection_rate": [bucket.used(now_s) for bucket in self._connection_buckets],
            "rate": [bucket.used(now_s) for bucket in self.rate_buckets],
        }

    def restore(self, state: State, now_s: float) -> None:
        """Goes on where another owner was; of several (two owners become one) what they used adds up: never a fresh
        burst."""
        _go_on(self._connection_buckets, state.get("connection_rate", []), now_s)
        _go_on(self.rate_buckets, state.get("rate", []), now_s)


def may_begin(meters: Sequence[Meter], now_s: float) -> bool:
    """Whether no rate of any of them keeps the next transaction waiting."""
    for meter in meters:
        for bucket in meter.rate_buckets:
            if bucket._even_s - bucket._ahead_s - now_s > _ROUNDING_S:  # as `wait_s`, without a call for each
                return False
    return True


def begin(meters: Sequence[Meter], now_s: float) -> None:
    """A MAIL is being said that counts for all of them."""
    for meter in meters:
        for bucket in meter.rate_buckets:
            bucket.take(now_s)


def _go_on(buckets: tuple[Bucket, ...], used: list[float], now_s: float) -> None:
    """Each rate goes on where the one in its place was; where there are more or fewer now, where the fullest was;
    where there was none nobody knows what went out, and each begins with its burst used up."""
    most = max(used, default=math.inf)
    for i, bucket in enumerate(buckets):
        bucket.use(used[i] if len(used) == len(buckets) else most, now_s)
