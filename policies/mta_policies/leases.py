"""Leases: limits that hold across destinations, kept by one worker for each key and lent to all. Pure: now_s is
monotonic seconds, which all processes of a machine share, wall_s Unix seconds.

A key is "tenant shop", "campaign shop/spring", "sender-domain example.com" or "source out-1"; the worker that owns it
keeps its account: rates, a quota, hours. Others ask for tokens, get a lease of some for a short time, and report what
they used. What is lent counts as gone until it is reported: so the sum of all workers never passes a limit, whatever
is lost or late. A worker that died has used all that it did not report, unless somebody knows better; one lease is
small, so that little is lost. A new owner of a key begins when all leases of the old one have run out.

Nothing here is more than a few numbers for each key, and each call is about one of them: a script in Redis can do the
same for several machines. The server does not use it yet.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mta_policies.limits import WHOLE, Bucket
from mta_policies.local_time import Zones
from mta_policies.match import name_matches
from mta_policies.quota import Counter
from mta_policies.quota import State as QuotaState
from mta_policies.schema import Quota
from mta_policies.units import Rate
from mta_policies.windows import Hours, Window

LEASE_S = 2.0  # a worker that stalls longer loses what it holds; a new owner of a key waits as long
REPORT_S_MAX = 1.0  # a report that comes later than so long after the lease's end is not heard any more
QUOTA_PART = 100  # one lease is at most a hundredth of what is left of a quota: more a crash does not lose
ACCOUNTS_MAX = 100_000  # keys with an account of their own, 50 MB; what comes beyond shares one
LOOK_S_MAX = 10.0  # calendars are looked at so often: the wall clock may have been set
PERIOD_S_MAX = 32 * 86400.0  # a month is over then: what was used in it is of no more use
IDLE_S_MAX = 60.0  # how long an account that nobody uses is kept where forgetting it forgets nothing


class CrossLimit(msgspec.Struct, frozen=True):
    """What `[[limit]]` says: for each tenant, campaign, sender domain or source whose name matches, one account."""

    per: str
    name: str = "*"
    rate: tuple[Rate, ...] = ()
    quota: Quota | None = None
    windows: tuple[Window, ...] = ()


class Lease(msgspec.Struct, frozen=True):
    """So many tokens of a key, for one worker."""

    id: int
    key: str
    count: int
    until_s: float
    """Monotonic seconds: afterwards none of it may be used."""


class Account:
    """One key's limits, and what of them is lent."""

    __slots__ = ("_buckets", "_counter", "_hours", "leases", "lent", "limit", "served_s", "wanted")

    def __init__(self, limit: CrossLimit, zones: Zones, now_s: float, wall_s: float) -> None:
        self.limit = limit
        self._buckets = [Bucket(rate, WHOLE, now_s) for rate in limit.rate]
        self._counter = Counter(limit.quota, WHOLE, zones, wall_s, is_kept=True) if limit.quota else None
        self._hours = Hours(limit.windows, zones)
        self.lent = 0
        """Tokens in leases, used or not, that are not reported."""
        self.leases: dict[int, tuple[str, int, float]] = {}
        """Lease's id -> who has it, what of it is not reported, until when."""
        self.wanted: dict[tuple[str, str], int] = {}
        """Worker and key -> how many it waits for; whoever waits longest first."""
        self.served_s = now_s

    def use_up(self, now_s: float) -> None:
        """Nobody knows what went: every rate's burst is used up."""
        for bucket in self._buckets:
            bucket.use(math.inf, now_s)

    def free(self, now_s: float, wall_s: float) -> int:
        """How many may be lent now."""
        if self._hours.wait_s(wall_s):
            return 0
        free = min((bucket.free(now_s) for bucket in self._buckets), default=1_000_000_000)
        if self._counter:
            free = min(free, self._counter.free(wall_s))
        return max(0, free - self.lent)

    def lease_s(self, wall_s: float) -> float:
        """How long a lease may last: never into another calendar day or out of a window."""
        length_s = min(LEASE_S, self._hours.open_s(wall_s))
        return min(length_s, self._counter.ends_s(wall_s) - wall_s) if self._counter else length_s

    def most(self, wall_s: float) -> int:
        """The largest lease."""
        if not self._counter:
            return 1_000_000_000
        return max(1, self._counter.room(wall_s) // QUOTA_PART)

    def spend(self, count: int, now_s: float, wall_s: float) -> None:
        """So many of what is lent went."""
        self.lent -= count
        for bucket in self._buckets:
            bucket.take_many(count, now_s)
        if self._counter:
            self._counter.take(wall_s, count)

    def wait_s(self, now_s: float, wall_s: float) -> float:
        """When it is worth looking again, where none is free."""
        if wait_s := self._hours.wait_s(wall_s):
            return wait_s
        wait_s = max((bucket.wait_s(now_s) for bucket in self._buckets), default=0.0)
        return max(wait_s, self._counter.wait_s(wall_s)) if self._counter else wait_s

    def changed(self, limit: CrossLimit, zones: Zones, now_s: float, wall_s: float) -> "Account":
        """The account as it goes on under another limit."""
        account = Account(limit, zones, now_s, wall_s)
        account.use_up(now_s)
        if self._counter:
            account.load(self._counter.state(wall_s), wall_s)
        account.lent, account.leases, account.wanted = self.lent, self.leases, self.wanted
        return account

    def is_idle(self, now_s: float, wall_s: float) -> bool:
        """Whether an account made anew would be the same."""
        if self.leases or self.wanted or now_s - self.served_s < IDLE_S_MAX:
            return False
        if self._counter and self._counter.used(wall_s):
            return False
        return all(bucket.used(now_s) == 0.0 for bucket in self._buckets)

    # kept

    def to_save(self, wall_s: float) -> QuotaState | None:
        return self._counter.to_save(wall_s) if self._counter else None

    def saved(self, state: QuotaState) -> None:
        if self._counter:
            self._counter.saved(state)

    def state(self, wall_s: float) -> QuotaState:
        """What of the quota is used; what is lent is."""
        if not self._counter:
            return {}
        self._counter.take(wall_s, self.lent)
        state = self._counter.state(wall_s)
        self._counter.take(wall_s, -self.lent)
        return state

    def load(self, state: QuotaState, wall_s: float) -> None:
        if self._counter:
            self._counter.load(state, wall_s)


class Ledger:
    """The accounts of all keys that one worker owns."""

    def __init__(self, limits: Sequence[CrossLimit], zones: Zones, now_s: float, *, is_fresh: bool = False) -> None:
        """Begins after `LEASE_S`, when no lease of a former owner is left; at once where there was none (`is_fresh`:
        the whole server starts)."""
        self._limits = limits
        self._zones = zones
        self._is_fresh = is_fresh
        self._begins_s = now_s if is_fresh else now_s + LEASE_S
        self._accounts: dict[str, Account] = {}
        self._kept: dict[str, QuotaState] = {}
        self._waiting: dict[str, None] = {}
        self._last_id = 0
        self._swept_s = now_s

    def __len__(self) -> int:
        return len(self._accounts)

    # told by workers

    def ask(self, holder: str, key: str, count: int, now_s: float, wall_s: float) -> None:
        """A worker wants so many tokens of a key; 0: no more. `serve` says what it gets."""
        name, account = self._account(key, now_s, wall_s)
        if account is None:
            return
        if count > 0:
            account.wanted[holder, key] = count
            self._waiting[name] = None
        else:
            account.wanted.pop((holder, key), None)
        account.served_s = now_s

    def report(self, lease: int, key: str, spent: int, now_s: float, wall_s: float, *, is_done: bool) -> None:
        """A worker used so many tokens of a lease since its last report. `is_done`: what is left comes back."""
        _, account = self._account(key, now_s, wall_s)
        held = account.leases.get(lease) if account else None
        if account is None or held is None:
            return  # too late: it counted as used up
        holder, left, until_s = held
        spent = min(spent, left)
        account.spend(spent, now_s, wall_s)
        account.leases[lease] = holder, left - spent, until_s
        if is_done or left == spent:
            account.lent -= left - spent
            del account.leases[lease]

    def died(self, holder: str, now_s: float, wall_s: float, spent: Mapping[int, int] | None = None) -> None:
        """A worker is gone. What it held and did not report counts as used, but where `spent` knows a lease: so many of
        its tokens went since its last report, and the others come back."""
        for account in self._accounts.values():
            account.wanted = {asked: count for asked, count in account.wanted.items() if asked[0] != holder}
            for lease, (who, left, _) in list(account.leases.items()):
                if who == holder:
                    used = min(left, (spent or {}).get(lease, left))
                    account.spend(used, now_s, wall_s)
                    account.lent -= left - used
                    del account.leases[lease]

    # done

    def serve(self, now_s: float, wall_s: float) -> list[tuple[str, Lease]]:
        """Lends what is free to those who wait, in turns: (worker, lease)."""
        if now_s < self._begins_s:
            return []
        served: list[tuple[str, Lease]] = []
        for name in list(self._waiting):
            account = self._accounts[name]
            self._take_back(account, now_s, wall_s)
            free = account.free(now_s, wall_s)
            length_s = account.lease_s(wall_s)
            while free > 0 and account.wanted and length_s > 0:
                part = max(1, free // len(account.wanted))
                (holder, key), wanted = next(iter(account.wanted.items()))
                count = min(wanted, part, account.most(wall_s))
                del account.wanted[holder, key]
                self._last_id += 1
                account.leases[self._last_id] = holder, count, now_s + length_s
                account.lent += count
                free -= count
                account.served_s = now_s
                served.append((holder, Lease(self._last_id, key, count, now_s + length_s)))
            if not account.wanted:
                del self._waiting[name]
        self._sweep(now_s, wall_s)
        return served

    def next_s(self, now_s: float, wall_s: float) -> float:
        """When `serve` is worth calling again, though nothing is told, monotonic seconds; inf: nobody waits."""
        if not self._waiting:
            return math.inf
        if now_s < self._begins_s:
            return self._begins_s
        soonest_s = now_s + LOOK_S_MAX
        for name in self._waiting:
            account = self._accounts[name]
            ends = [until_s + REPORT_S_MAX for _, _, until_s in account.leases.values()]
            wait_s = account.wait_s(now_s, wall_s)
            soonest_s = min(soonest_s, now_s + wait_s if wait_s else math.inf, *ends)
        return soonest_s

    def _take_back(self, account: Account, now_s: float, wall_s: float) -> None:
        """A lease of which nothing was heard in time is used up."""
        for lease, (_, left, until_s) in list(account.leases.items()):
            if now_s > until_s + REPORT_S_MAX:
                account.spend(left, now_s, wall_s)
                del account.leases[lease]

    def _sweep(self, now_s: float, wall_s: float) -> None:
        """Forget accounts that are as new."""
        if now_s - self._swept_s < IDLE_S_MAX:
            return
        self._swept_s = now_s
        for key, account in list(self._accounts.items()):
            self._take_back(account, now_s, wall_s)
            if account.is_idle(now_s, wall_s):
                del self._accounts[key]

    def change(self, limits: Sequence[CrossLimit], now_s: float, wall_s: float) -> None:
        """Other limits from now on. What is lent stays lent, what was used of a quota stays used; where a rate changed
        its burst is used up."""
        self._limits = limits
        for key, account in list(self._accounts.items()):
            limit = limit_of(limits, key)
            if limit is None:
                del self._accounts[key]
                self._waiting.pop(key, None)
            elif limit != account.limit:
                self._accounts[key] = account.changed(limit, self._zones, now_s, wall_s)

    # kept

    def to_save(self, wall_s: float) -> dict[str, QuotaState]:
        """States of quotas that have to be saved before more is lent, by key; other keys' stay as they were saved."""
        states = ((key, account.to_save(wall_s)) for key, account in self._accounts.items())
        return {key: state for key, state in states if state is not None}

    def saved(self, states: Mapping[str, QuotaState]) -> None:
        """These are safe on disk."""
        for key, state in states.items():
            if account := self._accounts.get(key):
                account.saved(state)

    def state(self, wall_s: float) -> dict[str, QuotaState]:
        """What is used of all quotas: at a clean stop, or for other owners."""
        states = ((key, account.state(wall_s)) for key, account in self._accounts.items())
        kept = {
            key: state for key, state in self._kept.items() if max(map(int, state), default=0) > wall_s - PERIOD_S_MAX
        }
        return kept | {key: state for key, state in states if state}

    def load(self, states: Mapping[str, QuotaState]) -> None:
        """What was saved of the keys that are owned here from now on."""
        self._kept |= states

    def _account(self, key: str, now_s: float, wall_s: float) -> tuple[str, Account | None]:
        """The key's account, made where there is none; None where nothing limits it."""
        known = self._accounts.get(key)
        if known is not None:
            return key, known
        limit = limit_of(self._limits, key)
        if limit is None:
            return key, None
        if len(self._accounts) >= ACCOUNTS_MAX:
            key = f"{limit.per} {limit.name} and others"
            if key in self._accounts:
                return key, self._accounts[key]
        account = self._accounts[key] = Account(limit, self._zones, now_s, wall_s)
        if not self._is_fresh:
            account.use_up(self._begins_s)
        account.load(self._kept.pop(key, {}), wall_s)
        return key, account


def limit_of(limits: Iterable[CrossLimit], key: str) -> CrossLimit | None:
    """The limit that holds for a key: of several that match the longest name, of equal ones the first."""
    per, _, name = key.partition(" ")
    matching = [limit for limit in limits if limit.per == per and name_matches(limit.name, name)]
    return max(matching, key=lambda limit: ("*" not in limit.name, len(limit.name)), default=None)
