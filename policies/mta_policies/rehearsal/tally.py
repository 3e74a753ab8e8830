"""A tally: what became of one provider's mail, in a record or in a rehearsal, counted as it goes.

Counts are of recipients, but for transactions and connections. Series are by bins of time; what is told may be of any
time.
"""

from array import array
from typing import Final, NamedTuple

import msgspec

from mta_policies.rehearsal.traffic import NEVER_S

FIRINGS_MAX: Final = 1_000  # spans of firings that are kept for pictures

SIZE: Final = "limits.message_size_max"
"""A limit that nothing waits for: what it stops is refused at once."""

SERIES: Final = ("arrived", "delivered", "deferred", "ended")


class Where(NamedTuple):
    """Whose limits they are."""

    policy: str
    source: str


class RuleCount(msgspec.Struct):
    """One rule at one provider."""

    matches: int = 0
    firings: int = 0
    """What it set off: slow, suspend, probe, alert."""
    first_s: float = NEVER_S
    """When it matched first."""
    policy: str = ""
    """In which it was found."""


class Span(msgspec.Struct):
    """A firing in force."""

    rule: str
    action: str
    key: str
    since_s: float
    until_s: float


class Tally:
    """One provider's."""

    def __init__(self, bin_s: float) -> None:
        self.bin_s = bin_s
        self.arrived = 0
        self.delivered = 0
        self.deferred = 0
        """Answers that put a recipient off."""
        self.bounced = 0
        self.expired = 0
        self.cancelled = 0
        self.attempts = 0
        """Recipients that the other side answered about."""
        self.transactions = 0
        self.connections = 0
        self.failures = 0
        """Connections that could not be opened."""
        self.first_s = NEVER_S
        """When the first mail was due."""
        self.last_delivered_s = 0.0
        self.waits_s = array("d")
        """Of what was delivered: how long after it was due."""
        self.rules: dict[str, RuleCount] = {}
        self.categories: dict[str, int] = {}
        self.bound_s: dict[str, float] = {}
        """What mail that was due waited for, and for how long, the times of all pools together."""
        self.where: dict[str, Where] = {}
        """Whose limit that was, where it was met first."""
        self.spans: list[Span] = []
        self.series: dict[str, dict[int, int]] = {name: {} for name in SERIES}
        self._arrived, self._delivered, self._ended = (self.series[name] for name in ("arrived", "delivered", "ended"))

    # counted

    def arrive(self, at_s: float, count: int = 1) -> None:
        """Mail is due for the first time."""
        self.arrived += count
        if at_s < self.first_s:
            self.first_s = at_s
        at = int(at_s // self.bin_s)
        self._arrived[at] = self._arrived.get(at, 0) + count

    def deliver(self, at_s: float, wait_s: float) -> None:
        """The other side took it, so long after it was due for the first time."""
        self.attempts += 1
        self.delivered += 1
        if at_s > self.last_delivered_s:
            self.last_delivered_s = at_s
        self.waits_s.append(wait_s)
        at = int(at_s // self.bin_s)
        for series in (self._delivered, self._ended):
            series[at] = series.get(at, 0) + 1

    def defer(self, at_s: float) -> None:
        """It is put off by the other side."""
        self.attempts += 1
        self.deferred += 1
        self._mark("deferred", at_s)

    def bounce(self, at_s: float, count: int = 1, *, is_attempt: bool = True) -> None:
        """Refused for good."""
        self.attempts += count if is_attempt else 0
        self.bounced += count
        self._mark("ended", at_s, count)

    def expire(self, at_s: float) -> None:
        """Its time was over."""
        self.expired += 1
        self._mark("ended", at_s)

    def cancel(self, at_s: float) -> None:
        """An admin took it out."""
        self.cancelled += 1
        self._mark("ended", at_s)

    def classed(self, category: str, count: int = 1) -> None:
        """An answer that was not "delivered" is of this category."""
        self.categories[category] = self.categories.get(category, 0) + count

    def matched(self, rule: str, at_s: float, policy: str) -> RuleCount:
        """A rule matched."""
        count = self.rules.get(rule)
        if count is None:
            count = self.rules[rule] = RuleCount(policy=policy)
        count.matches += 1
        count.first_s = min(count.first_s, at_s)
        return count

    def fired(self, span: Span) -> None:
        """Something is in force from now on."""
        if len(self.spans) < FIRINGS_MAX:
            self.spans.append(span)

    def bound(self, cause: str, for_s: float, where: Where) -> None:
        """Mail that was due waited so long for this."""
        if cause in self.bound_s:
            self.bound_s[cause] += for_s
        else:
            self.bound_s[cause], self.where[cause] = for_s, where

    def _mark(self, name: str, at_s: float, count: int = 1) -> None:
        series = self.series[name]
        at = int(at_s // self.bin_s)
        series[at] = series.get(at, 0) + count

    # asked

    @property
    def waiting(self) -> int:
        """What has not come to an end."""
        return self.arrived - self.delivered - self.bounced - self.expired - self.cancelled

    @property
    def drained_s(self) -> float:
        """From the first mail until the last was delivered; 0.0: none was."""
        return max(0.0, self.last_delivered_s - self.first_s) if self.delivered else 0.0

    def wait_s(self, share: float) -> float:
        """So long waited at most this share of what was delivered, the quickest: 0.5 is the median."""
        return self.wait_times_s(share)[0]

    def wait_times_s(self, *shares: float) -> list[float]:
        """The same of several shares; 0.0 where nothing was delivered."""
        ordered = sorted(self.waits_s) or [0.0]
        return [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares]

    def backlog(self) -> list[tuple[float, int]]:
        """How much waited at the end of each bin in which that changed."""
        waiting, points = 0, []
        arrived, ended = self.series["arrived"], self.series["ended"]
        for at in sorted(arrived.keys() | ended.keys()):
            waiting += arrived.get(at, 0) - ended.get(at, 0)
            points.append(((at + 1) * self.bin_s, waiting))
        return points

    @property
    def backlog_max(self) -> int:
        """The most that waited."""
        return max((waiting for _, waiting in self.backlog()), default=0)
