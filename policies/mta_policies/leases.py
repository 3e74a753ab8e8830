"""Leases: limits that hold across destinations, kept by one worker for each key and lent to all. Pure: now_s is
monotonic seconds, which all processes of a machine share, wall_s Unix seconds.

A key is "tenant shop", "campaign shop/spring", "sender-domain example.com" or "source out-1"; the worker that owns it
keeps its account: rates, a quota, hours. Others ask for tokens, get a lease of some for a short time, and report what
they used. What is lent counts as gone until it is reported: so the sum of all workers never passes a limit, whatever
is lost or late. A worker that died has used all that it did not report; one lease is small, so that little is
lost. A new owner of a key begins when all leases of the old one have run out.

Nothing here is more than a few numbers for each key, and each call is about one of them: a script in Redis can do the
same for several machines.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from mta_policies.cross_limit import CrossLimit, limit_of
from mta_policies.limits import WHOLE, Bucket
from mta_policies.local_time import Zones
from mta_policies.quota import Counter
from mta_policies.quota import State as QuotaState
from mta_policies.windows import Hours

LEASE_S = 2.0  # a worker that stalls longer loses what it holds; a new owner of a key waits as long
REPORT_S_MAX = 1.0  # a report that comes later than so long after the lease's end is not heard any more
QUOTA_PART = 100  # one lease is at most a hundredth of what is left of a quota: more a crash does not lose
ACCOUNTS_MAX = 100_000  # keys with an account of their own, 50 MB; what comes beyond shares one
LOOK_S_MAX = 10.0  # calendars are looked at so often: the wall clock may have been set
PAUSE_S = 0.01  # between two leases of a key where less is free than is wanted: small ones cost as much as large ones
SHUT_S_MIN = 1.0  # whoever waits for less long need not be told for what
PERIOD_S_MAX = 32 * 86400.0  # a month is over then: what was used in it is of no more use
UNLIMITED = 1_000_000_000  # tokens: of a key that only hours limit
IDLE_S_MAX = 60.0  # how long an account that nobody uses is kept where forgetting it forgets nothing


class Lease(msgspec.Struct, frozen=True):
    """So many tokens of a key, for one worker."""

    id: int
    key: str
    count: int
    until_s: float
    """Monotonic seconds: afterwards none of it may be used."""


class Shut(msgspec.Struct, frozen=True):
    """Why nothing of a key is lent for a while."""

    key: str
    why: Literal["rate", "quota", "window"]
    until_s: float
    """Unix seconds."""


class Account:
    """One key's limits, and what of them is lent."""

    __slots__ = (
        "_buckets",
        "_counter",
        "_hours",
        "leases",
        "lent",
        "lent_s",
        "limit",
        "look_s",
        "served_s",
        "told",
        "wanted",
    )

    def __init__(self, limit: CrossLimit, zones: Zones, now_s: float, wall_s: float) -> None:
        self.limit = limit
        self._buckets = [Bucket(rate, WHOLE, now_s) for rate in limit.rate]
        self._counter = Counter(limit.quota, zones, wall_s, is_kept=True) if limit.quota else None
        self._hours = Hours(limit.window, zones)
        self.lent = 0
        """Tokens in leases, used or not, that are not reported."""
        self.leases: dict[int, tuple[str, int, float]] = {}
        """Lease's id -> who has it, what of it is not reported, until when."""
        self.wanted: dict[tuple[str, str], int] = {}
        """Worker and key -> how many it waits for; whoever waits longest first."""
        self.told: dict[tuple[str, str], Shut] = {}
        """What those who wait were told."""
        self.served_s = now_s
        self.lent_s = -math.inf
        self.look_s = math.inf
        """When `Ledger.serve` looks at it again."""

    def use_up(self, now_s: float) -> None:
        """Nobody knows what went up to then: every rate's burst is used up; -inf: nothing went."""
        for bucket in self._buckets if now_s > -math.inf else ():
            bucket.use(math.inf, now_s)

    def free(self, now_s: float, wall_s: float) -> int:
        """How many may be lent now."""
        if self._hours.wait_s(wall_s):
            return 0
        free = min((bucket.free(now_s) for bucket in self._buckets), default=UNLIMITED)
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
            return UNLIMITED
        return max(1, self._counter.room(wall_s) // QUOTA_PART)

    def spend(self, count: int, now_s: float, wall_s: float) -> None:
        """So many of what is lent went."""
        self.lent -= count
        for bucket in self._buckets:
            bucket.take_many(count, now_s)
        if self._counter:
            self._counter.take(wall_s, count)

    def wait_s(self, now_s: float, wall_s: float) -> float:
        """When one more may be lent, if nobody reports before; inf: not without a report."""
        if wait_s := self._hours.wait_s(wall_s):
            return wait_s
        wait_s = max((bucket.wait_many_s(self.lent + 1, now_s) for bucket in self._buckets), default=0.0)
        return max(wait_s, self._counter.wait_s(wall_s)) if self._counter else wait_s

    def shut(self, key: str, now_s: float, wall_s: float) -> Shut | None:
        """Why nothing is lent now, whatever is reported; None: not for long."""
        why: Literal["rate", "quota", "window"] = "window"
        wait_s = self._hours.wait_s(wall_s)
        if not wait_s and self._counter is not None and not self._counter.room(wall_s):
            why, wait_s = "quota", self._counter.wait_s(wall_s)
        elif not wait_s:
            why, wait_s = "rate", max((bucket.wait_s(now_s) for bucket in self._buckets), default=0.0)
        return Shut(key, why, wall_s + wait_s) if wait_s >= SHUT_S_MIN else None

    def changed(self, limit: CrossLimit, zones: Zones, now_s: float, wall_s: float) -> "Account":
        """The account as it goes on under another limit."""
        account = Account(limit, zones, now_s, wall_s)
        account.use_up(now_s)
        if self._counter:
            account.load(self._counter.state(wall_s), wall_s)
        account.lent, account.leases, account.wanted = self.lent, self.leases, self.wanted
        account.look_s = self.look_s
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

    def __init__(
        self, limits: Sequence[CrossLimit], zones: Zones, now_s: float, *, is_fresh: bool = False, first_id: int = 1
    ) -> None:
        """Begins after `LEASE_S`, when no lease of a former owner is left; at once where there was none (`is_fresh`:
        the whole server starts). `first_id`: of its leases, higher than any of a former owner, whose leases are
        reported to this one."""
        self._limits = limits
        self._zones = zones
        self._begins_s = now_s if is_fresh else now_s + LEASE_S
        self._used_up_s = dict.fromkeys(limits, -math.inf if is_fresh else self._begins_s)
        """Nobody knows what went before a limit held here: accounts that are made begin with the burst used up then."""
        self._accounts: dict[str, Account] = {}
        self._kept: dict[str, QuotaState] = {}
        self._dirty: dict[str, None] = {}
        """Accounts of which something was told since the last `serve`."""
        self._looks: list[tuple[float, str]] = []
        """When which account is to be looked at again; one that does not say `look_s` is of no more use."""
        self._counting: dict[str, None] = {}
        """Accounts whose quota may have to be saved."""
        self.waits_for_saving = False
        """Somebody may get something as soon as what `to_save` has is saved."""
        self._shut: list[tuple[str, Shut]] = []
        self._next_id = first_id
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
            self._touch(name, account)
        else:
            account.wanted.pop((holder, key), None)
        account.served_s = now_s

    def report(
        self, holder: str, lease: int, key: str, spent: int, now_s: float, wall_s: float, *, is_done: bool
    ) -> None:
        """A worker used so many tokens of a lease since its last report. `is_done`: what is left comes back."""
        name, account = self._account(key, now_s, wall_s)
        held = account.leases.get(lease) if account else None
        if account is None or held is None:
            return  # too late: it counted as used up; or a former owner's
        who, left, until_s = held
        assert who == holder, "no two leases have one number"
        spent = min(spent, left)
        account.spend(spent, now_s, wall_s)
        account.leases[lease] = holder, left - spent, until_s
        if is_done or left == spent:
            account.lent -= left - spent
            del account.leases[lease]
        self._touch(name, account)

    def died(self, holder: str, now_s: float, wall_s: float) -> None:
        """A worker is gone. What it held and did not report counts as used."""
        for name, account in self._accounts.items():
            account.wanted = {asked: count for asked, count in account.wanted.items() if asked[0] != holder}
            account.told = {asked: told for asked, told in account.told.items() if asked[0] != holder}
            for lease, (who, left, _) in list(account.leases.items()):
                if who == holder:
                    account.spend(left, now_s, wall_s)
                    del account.leases[lease]
                    self._touch(name, account)

    def _touch(self, name: str, account: Account) -> None:
        self._dirty[name] = None
        if account.limit.quota is not None:
            self._counting[name] = None

    # done

    def serve(self, now_s: float, wall_s: float) -> list[tuple[str, Lease]]:
        """Lends what is free to those who wait, in turns: (worker, lease). Looks at what was told of since the last
        time, and at whom it is time for."""
        if now_s < self._begins_s:
            return []
        names, self._dirty = self._dirty, {}
        while self._looks and self._looks[0][0] <= now_s:
            look_s, name = heapq.heappop(self._looks)
            account = self._accounts.get(name)
            if account is not None and account.look_s == look_s:
                names[name] = None
        served: list[tuple[str, Lease]] = []
        for name in names:
            account = self._accounts.get(name)
            if account is not None and account.wanted:
                self._serve(name, account, served, now_s, wall_s)
        self._sweep(now_s, wall_s)
        return served

    def _serve(self, name: str, account: Account, served: list[tuple[str, Lease]], now_s: float, wall_s: float) -> None:
        self._take_back(account, now_s, wall_s)
        free = account.free(now_s, wall_s)
        length_s = account.lease_s(wall_s)
        pause_s = account.lent_s + PAUSE_S - now_s
        if 0 < pause_s <= PAUSE_S and free < sum(account.wanted.values()):
            self._look_at(name, account, now_s + pause_s)
            return
        while free > 0 and account.wanted and length_s > 0:
            part = max(1, free // len(account.wanted))
            (holder, key), wanted = next(iter(account.wanted.items()))
            count = min(wanted, part, account.most(wall_s))
            del account.wanted[holder, key]
            account.told.pop((holder, key), None)
            lease, self._next_id = self._next_id, self._next_id + 1
            account.leases[lease] = holder, count, now_s + length_s
            account.lent += count
            free -= count
            account.served_s = account.lent_s = now_s
            served.append((holder, Lease(lease, key, count, now_s + length_s)))
        if not account.wanted:
            account.look_s = math.inf
            return
        if account.limit.quota is not None:
            self._counting[name] = None
            self.waits_for_saving = True
        for asked in account.wanted:
            shut, before = account.shut(asked[1], now_s, wall_s), account.told.get(asked)
            if shut is not None and (before is None or before.why != shut.why or before.until_s < wall_s):
                account.told[asked] = shut
                self._shut.append((asked[0], shut))
        ends = [until_s + REPORT_S_MAX for _, _, until_s in account.leases.values()]
        wait_s = min(max(account.wait_s(now_s, wall_s), PAUSE_S), LOOK_S_MAX)
        self._look_at(name, account, min(now_s + wait_s, *ends, math.inf))

    def _look_at(self, name: str, account: Account, look_s: float) -> None:
        account.look_s = look_s
        heapq.heappush(self._looks, (look_s, name))

    def shut(self) -> list[tuple[str, Shut]]:
        """Whom to tell that nothing is lent for a while: what the last `serve` found."""
        shut, self._shut = self._shut, []
        return shut

    def next_s(self, now_s: float) -> float:
        """When `serve` is worth calling again, though nothing is told, monotonic seconds; inf: nobody waits."""
        if now_s < self._begins_s:
            return self._begins_s if self._dirty or self._looks else math.inf
        if self._dirty:
            return now_s
        while self._looks:
            look_s, name = self._looks[0]
            account = self._accounts.get(name)
            if account is not None and account.look_s == look_s and account.wanted:
                return look_s
            heapq.heappop(self._looks)
        return math.inf

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
                self._forget(key, account, wall_s)

    def _forget(self, key: str, account: Account, wall_s: float) -> None:
        """Without an account; what was used of its quota stays known: its period may come back, with the limit (an
        admin tries something for a minute) or with the clock."""
        del self._accounts[key]
        state = {start: used for start, used in account.state(wall_s).items() if used}
        if state:
            self._kept[key] = state
            if len(self._kept) > ACCOUNTS_MAX:
                del self._kept[next(iter(self._kept))]

    def change(self, limits: Sequence[CrossLimit], now_s: float, wall_s: float) -> None:
        """Other limits from now on. What is lent stays lent, what was used of a quota stays used; where a rate changed
        its burst is used up."""
        self._limits = limits
        begins_s = max(self._begins_s, now_s)
        self._used_up_s = {limit: self._used_up_s.get(limit, begins_s) for limit in limits}
        for key, account in list(self._accounts.items()):
            limit = limit_of(limits, key)
            if limit is None:
                self._forget(key, account, wall_s)
            elif limit != account.limit:
                changed = self._accounts[key] = account.changed(limit, self._zones, now_s, wall_s)
                self._touch(key, changed)

    # kept

    def to_save(self, wall_s: float) -> dict[str, QuotaState]:
        """States of quotas that have to be saved before more is lent, by key; other keys' stay as they were saved."""
        if not self._counting:
            return {}
        names, self._counting = self._counting, {}
        self.waits_for_saving = False
        accounts = ((name, self._accounts.get(name)) for name in names)
        states = ((name, account.to_save(wall_s)) for name, account in accounts if account is not None)
        return {name: state for name, state in states if state is not None}

    def saved(self, states: Mapping[str, QuotaState]) -> None:
        """These are safe on disk."""
        for name, state in states.items():
            if account := self._accounts.get(name):
                account.saved(state)
                self._dirty[name] = None

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
        account.use_up(self._used_up_s[limit])
        account.load(self._kept.pop(key, {}), wall_s)
        return key, account
