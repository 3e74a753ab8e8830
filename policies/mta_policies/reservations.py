"""Reservations: a worker's side of limits across destinations. Pure: now_s is monotonic seconds.

Before a message goes, its keys (tenant, campaign, sender domain, source) are reserved, all or none. What a worker holds
is lent to it by the keys' owners (`leases`), a little at a time: a key that is used much is asked for more at once,
before it runs dry, and what is not used goes back. The owner may be this worker itself: it is asked in the same way.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mta_policies.cross_limit import CrossLimit, limit_of
from mta_policies.leases import Lease, Shut

WANT_MAX = 1_000  # tokens in one lease: half a second of what one worker sends
REPORT_S = 0.1  # the owner hears so often what was used; less often, and a fast key runs dry
IDLE_S = 0.5  # a lease of which nothing was used for so long goes back: others may wait for it
WAIT_S = 1.0  # asked again after so long, if nobody came; tokens that arrive are told before
FORGET_S = 60.0  # without a lease and without a question a key is nothing but its name
KNOWN_MAX = 10_000  # keys of which it is remembered whether anything limits them


class Ask(NamedTuple):
    """To the owner of a key: so many tokens are wanted; 0: no more."""

    key: str
    wanted: int


class Report(NamedTuple):
    """To the owner of a key: so many tokens of a lease were used since the last report."""

    lease: int
    key: str
    spent: int
    is_done: bool
    """Nothing more of it will be used: what is left goes back."""


class _Purse:
    """What this worker holds of one key."""

    __slots__ = ("asked_s", "is_short", "leases", "shut", "spent_s", "want")

    def __init__(self, now_s: float) -> None:
        self.leases: list[_Held] = []
        self.want = 1
        """How many to ask for next time."""
        self.asked_s = -1.0
        """When it was asked for; negative: no answer is awaited."""
        self.is_short = False
        """Somebody waits."""
        self.shut: Shut | None = None
        """Why nothing comes for a while."""
        self.spent_s = now_s
        """When one was used last."""

    def usable(self, now_s: float) -> "_Held | None":
        """A lease that has one left."""
        for held in self.leases:
            if held.left and now_s <= held.until_s:
                return held
        return None

    def left(self, now_s: float) -> int:
        return sum(held.left for held in self.leases if now_s <= held.until_s)


class _Held:
    """A lease as far as it is used."""

    __slots__ = ("count", "id", "left", "spent", "until_s")

    def __init__(self, lease: Lease) -> None:
        self.id = lease.id
        self.count = self.left = lease.count
        self.until_s = lease.until_s
        self.spent = 0
        """Not yet reported."""


class Reservations:
    """All that one worker holds."""

    def __init__(self, limits: Sequence[CrossLimit]) -> None:
        self.limits = limits
        self._is_limited: dict[str, bool] = {}
        self._purses: dict[str, _Purse] = {}
        self._to_report: dict[str, None] = {}
        self._used_up: dict[str, None] = {}
        """Those of them of which a lease has none left."""
        self._to_ask: dict[str, None] = {}
        self._reported_s = 0.0

    def limited(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Those of the keys that anything limits: to be found once for a job, and reserved."""
        return tuple(key for key in keys if self._limits(key))

    def reserve(self, keys: Sequence[str], now_s: float) -> float:
        """Takes a token of each of these (`limited`) keys, or none. -> 0.0: the message may go; else seconds until it
        is worth trying again, if `granted` does not say so before."""
        held: list[tuple[str, _Purse, _Held]] = []
        is_short = False
        for key in keys:
            purse = self._purses.get(key)
            if purse is None:
                purse = self._purses[key] = _Purse(now_s)
            lease = purse.usable(now_s)
            if lease is None:
                is_short = purse.is_short = True
                self._to_ask[key] = None
            else:
                held.append((key, purse, lease))
        if is_short:
            return WAIT_S
        for key, purse, lease in held:
            lease.left -= 1
            lease.spent += 1
            purse.spent_s = now_s
            if lease.left <= lease.count // 2:
                self._to_ask[key] = None
                if not lease.left:
                    self._used_up[key] = None
        return 0.0

    def lacking(self, keys: Sequence[str], now_s: float) -> str:
        """The first of the keys of which there is none here; "": there is one of each."""
        for key in keys:
            purse = self._purses.get(key)
            if purse is None or purse.usable(now_s) is None:
                return key
        return ""

    def left(self, key: str, now_s: float) -> int:
        """How many of a key there are here."""
        purse = self._purses.get(key)
        return purse.left(now_s) if purse is not None else 0

    def want(self, key: str, count: int, now_s: float) -> None:
        """So many messages wait for a key."""
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = _Purse(now_s)
        purse.is_short = True
        purse.want = max(purse.want, min(count, WANT_MAX))
        self._to_ask[key] = None

    def keep(self, key: str, now_s: float) -> None:
        """Messages that will use what is here are on their way: it is not idle."""
        purse = self._purses.get(key)
        if purse is not None:
            purse.spent_s = now_s

    def why(self, key: str) -> Shut | None:
        """Why the owner of a key lends nothing for a while, as it said last; None: it did not."""
        purse = self._purses.get(key)
        return purse.shut if purse is not None else None

    def returned(self, keys: Sequence[str], now_s: float) -> None:
        """What was reserved was not used after all: no message went."""
        for key in keys:
            purse = self._purses.get(key)
            held = (
                next((each for each in purse.leases if each.spent and now_s <= each.until_s), None) if purse else None
            )
            if held is not None:
                held.left += 1
                held.spent -= 1

    def granted(self, lease: Lease, now_s: float) -> None:
        """The owner lent some: whoever waits for this key may try again."""
        purse = self._purses.get(lease.key)
        if purse is None:
            purse = self._purses[lease.key] = _Purse(now_s)
        purse.asked_s = -1.0
        purse.shut = None
        purse.leases.append(_Held(lease))
        self._to_report[lease.key] = None
        if now_s > lease.until_s:  # it was long on its way
            self._to_ask[lease.key] = None
            return
        if purse.is_short and lease.count >= purse.want:
            purse.want = min(purse.want * 2, WANT_MAX)
        purse.is_short = False
        purse.spent_s = now_s

    def told(self, shut: Shut) -> None:
        """The owner lends nothing for a while."""
        purse = self._purses.get(shut.key)
        if purse is not None:
            purse.shut = shut

    def asks(self, now_s: float) -> list[Ask]:
        """What is to be told to the owners of the keys; after `reserve`, once a turn of the loop."""
        if not self._to_ask:
            return []
        asks: list[Ask] = []
        for key in self._to_ask:
            purse = self._purses.get(key)
            if purse is None:
                continue
            # An owner that was restarted has forgotten who asked.
            if purse.asked_s < 0 or now_s - purse.asked_s >= WAIT_S:
                purse.asked_s = now_s
                asks.append(Ask(key, purse.want))
        self._to_ask.clear()
        return asks

    def ask_again(self, is_meant: Callable[[str], bool]) -> None:
        """The owner of these keys is another, who knows nothing: who waits asks at once."""
        for key, purse in self._purses.items():
            if is_meant(key):
                purse.asked_s = -1.0
                purse.shut = None
                if purse.is_short:
                    self._to_ask[key] = None

    def reports(self, now_s: float) -> list[Report]:
        """What is to be told to the owners of the keys; every turn of the loop, or every `REPORT_S`."""
        is_time = now_s - self._reported_s >= REPORT_S or now_s < self._reported_s
        if not (self._used_up or (is_time and self._to_report)):
            return []
        reports: list[Report] = []
        keys = list(self._to_report if is_time else self._used_up)
        self._used_up.clear()
        for key in keys:
            self._report(key, self._purses[key], reports, now_s, is_time)
        if is_time:
            self._reported_s = now_s
        return reports

    def _report(self, key: str, purse: _Purse, reports: list[Report], now_s: float, is_time: bool) -> None:
        is_idle = now_s - purse.spent_s >= IDLE_S
        for held in list(purse.leases):
            is_done = not held.left or now_s > held.until_s or is_idle
            if not is_done and not (is_time and held.spent):
                continue
            reports.append(Report(held.id, key, held.spent, is_done))
            held.spent = 0
            if is_done:
                purse.leases.remove(held)
                if held.left > held.count // 2:
                    purse.want = max(1, purse.want // 2)
        if not purse.leases:
            self._to_report.pop(key, None)
            if is_idle and not purse.is_short:
                del self._purses[key]

    @property
    def has_leases(self) -> bool:
        """Whether anything is held, so that `reports` must be called."""
        return bool(self._to_report)

    def next_s(self) -> float:
        """When `reports` is worth calling though nothing happens."""
        return self._reported_s + REPORT_S

    def change(self, limits: Sequence[CrossLimit]) -> None:
        """Other limits from now on. What is held of keys whose limit is another now goes back with the next report."""
        before, self.limits = self.limits, limits
        self._is_limited.clear()
        for key, purse in self._purses.items():
            limit = limit_of(limits, key)
            if limit != limit_of(before, key):
                purse.want, purse.shut = 1, None
                purse.is_short = purse.is_short and limit is not None
                for held in purse.leases:
                    held.until_s = -math.inf
                    self._used_up[key] = None

    def sweep(self, now_s: float) -> None:
        """Forget keys that nobody has asked for in a while."""
        for key, purse in list(self._purses.items()):
            if not purse.leases and now_s - max(purse.spent_s, purse.asked_s) > FORGET_S:
                del self._purses[key]
                self._to_report.pop(key, None)
                self._used_up.pop(key, None)

    def give_back(self, now_s: float) -> list[Report]:
        """All that is held: this worker stops."""
        for key, purse in self._purses.items():
            for held in purse.leases:
                held.until_s = -math.inf
                self._used_up[key] = None
        return self.reports(now_s)

    def _limits(self, key: str) -> bool:
        known = self._is_limited.get(key)
        if known is None:
            if len(self._is_limited) >= KNOWN_MAX:
                self._is_limited.clear()
            known = self._is_limited[key] = limit_of(self.limits, key) is not None
        return known
