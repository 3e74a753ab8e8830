"""The fair lane: what is ready for one destination, in fair shares. Pure.

The highest priority goes first. Within it tenants take turns, and within a tenant its campaigns, by deficit round robin
over messages (docs/decisions/0007-fair-shares.md): a share that used more than its turn waits until it is even. So one
tenant's million delays another's ten by nothing, and nobody gains by splitting his mail into campaigns. Within a share
it is first come first served; what is far from its turn is spilled (`Line`).
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from mta_queue.line import Line
from mta_queue.timetable import PRIORITY_MAX

SHORT = 64  # entries of a share at which what is spilled should begin to come back


class Entry(Protocol):
    """What waits."""

    tenant: str
    campaign: str
    cost: int
    """Turns that it uses, one or more."""


T = TypeVar("T", bound=Entry)


class Share(Line[T]):
    """One campaign of one tenant, at one priority."""

    __slots__ = ("campaign", "credit", "is_in_turn", "priority", "tenant")

    def __init__(self, priority: int, tenant: str, campaign: str) -> None:
        super().__init__()
        self.priority = priority
        self.tenant = tenant
        self.campaign = campaign
        self.credit = 1
        """Turns that it may use before the others of its tenant; less than one: it owes them."""
        self.is_in_turn = False
        """It is in its tenant's ring."""


class _Tenant(Generic[T]):
    __slots__ = ("credit", "ring")

    def __init__(self) -> None:
        self.credit = 1
        self.ring: deque[Share[T]] = deque()
        """Campaigns whose turn may come, the next one first."""


class _Level(Generic[T]):
    """One priority. While it has one share alone (`only`, which may be empty) nothing is counted."""

    __slots__ = ("_priority", "only", "ring", "shares", "tenants")

    def __init__(self, priority: int) -> None:
        self._priority = priority
        self.only: Share[T] | None = Share(priority, "", "")
        self.shares: dict[tuple[str, str], Share[T]] = {}
        self.tenants: dict[str, _Tenant[T]] = {}
        """Those with an entry whose turn may come."""
        self.ring: deque[_Tenant[T]] = deque()

    def share(self, tenant: str, campaign: str) -> Share[T]:
        """Where mail of this kind waits; made where there is none."""
        only = self.only
        if only is not None:
            if only.tenant == tenant and only.campaign == campaign:
                return only
            if only.is_empty:
                only.tenant, only.campaign = tenant, campaign
                return only
            self.only = None
            self.shares[only.tenant, only.campaign] = only
            if only.entries:
                self.enter(only)
        share = self.shares.get((tenant, campaign))
        if share is None:
            share = self.shares[tenant, campaign] = Share(self._priority, tenant, campaign)
        return share

    def find(self, tenant: str, campaign: str) -> Share[T] | None:
        """The share of this mail, if it has one."""
        only = self.only
        if only is not None:
            return only if only.tenant == tenant and only.campaign == campaign else None
        return self.shares.get((tenant, campaign))

    def all(self) -> Iterable[Share[T]]:
        """Every share."""
        return list(self.shares.values()) if self.only is None else (self.only,)

    def enter(self, share: Share[T]) -> None:
        """A share has its first entry: its turn comes behind all others'."""
        tenant = self.tenants.get(share.tenant)
        if tenant is None:
            tenant = self.tenants[share.tenant] = _Tenant()
            self.ring.append(tenant)
        share.credit = 1
        share.is_in_turn = True
        tenant.ring.append(share)

    def leave(self, share: Share[T]) -> None:
        """A share has no entry any more."""
        tenant = self.tenants[share.tenant]
        tenant.ring.remove(share)
        share.is_in_turn = False
        if not tenant.ring:
            del self.tenants[share.tenant]
            self.ring.remove(tenant)

    def forget(self, share: Share[T]) -> None:
        """An empty share costs nothing; of two one is left, and nothing is counted any more."""
        self.shares.pop((share.tenant, share.campaign), None)
        if len(self.shares) == 1:
            [self.only] = self.shares.values()
            self.only.is_in_turn = False
            self.shares = {}
            self.tenants.clear()
            self.ring.clear()

    def turn(self) -> Share[T]:
        """Whose turn it is; the same until an entry was taken."""
        ring = self.ring
        tenant = ring[0]
        if len(ring) == 1:
            tenant.credit = 1  # who is alone owes nobody
        while tenant.credit <= 0:
            tenant.credit += 1
            ring.rotate(-1)
            tenant = ring[0]
        campaigns = tenant.ring
        share = campaigns[0]
        if len(campaigns) == 1:
            share.credit = 1
        while share.credit <= 0:
            share.credit += 1
            campaigns.rotate(-1)
            share = campaigns[0]
        return share

    def charge(self, share: Share[T], cost: int) -> None:
        """An entry of the share whose turn it was is gone."""
        share.credit -= cost
        self.ring[0].credit -= cost


class FairLane(Generic[T]):
    """Entries whose turn may come, by priority and share, and the numbers that are spilled behind them.

    `len` is the number of entries that `pop` gives out one after another.
    """

    __slots__ = ("_later", "_length", "_levels", "filled", "short", "spilled")

    def __init__(self) -> None:
        self._levels: list[_Level[T] | None] = [None] * (PRIORITY_MAX + 1)
        self.filled = 0
        """Bit n: priority n has an entry; so that nothing is searched, and 0 where `pop` has nothing."""
        self._length = 0
        self._later = 0
        self.spilled = 0
        """How many are only numbers; those that are being read back are not among them."""
        self.short: dict[Share[T], None] = {}
        """Shares whose spilled ones should come back: to be taken out by whoever sees to it."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        """All entries, in no particular order; the lane must not change meanwhile."""
        for level in self._levels:
            if level is not None:
                for share in level.all():
                    yield from share

    @property
    def waiting(self) -> int:
        """All that wait: entries, those behind what is spilled too, and numbers."""
        return len(self) + self._later + self.spilled

    def push(self, priority: int, entry: T) -> None:
        """Behind all others of its priority and share."""
        level = self._levels[priority]
        if level is None:
            level = self._levels[priority] = _Level(priority)
        share = level.only
        if share is None or share.tenant != entry.tenant or share.campaign != entry.campaign:
            share = level.share(entry.tenant, entry.campaign)
        if share.later is not None:
            share.later.append(entry)
            self._later += 1
            return
        entries = share.entries
        if not entries:
            self.filled |= 1 << priority
            if level.only is None:
                level.enter(share)
        entries.append(entry)
        self._length += 1

    def pop(self) -> T:
        """Whose turn it is, taken out; IndexError where there is no entry."""
        if not self.filled:
            raise IndexError("pop from an empty lane")
        level = self._levels[self.filled.bit_length() - 1]
        assert level is not None, "what is filled is there"
        share = level.only
        if share is None:
            share = level.turn()
            entry = share.entries.popleft()
            level.charge(share, entry.cost)
        else:
            entry = share.entries.popleft()
        self._length -= 1
        if share.later is not None or (not share.entries and level.only is None):
            self._put_right(level, share)
        elif not share.entries:
            self.filled ^= 1 << share.priority
        return entry

    def peek(self) -> T | None:
        """Whose turn it is; None where there is no entry."""
        if not self.filled:
            return None
        level = self._levels[self.filled.bit_length() - 1]
        assert level is not None, "what is filled is there"
        return (level.only or level.turn()).entries[0]

    def head_priority(self) -> int:
        """The priority of whose turn it is; -1 where there is no entry."""
        return self.filled.bit_length() - 1

    def _put_right(self, level: _Level[T], share: Share[T]) -> None:
        """What follows from what was taken out of a share or came back to it."""
        if share.later is not None and len(share.entries) <= SHORT:
            if share.spilled:
                self.short[share] = None
            else:
                later = len(share.later)
                if share.close_up():
                    self._length += later
                    self._later -= later
        if level.only is None:
            if share.entries:
                if not share.is_in_turn:
                    level.enter(share)
            else:
                if share.is_in_turn:
                    level.leave(share)
                if share.is_empty:
                    self.short.pop(share, None)
                    level.forget(share)
        only = level.only
        if only.entries if only is not None else level.ring:
            self.filled |= 1 << share.priority
        else:
            self.filled &= ~(1 << share.priority)

    # what is spilled

    def share_of(self, priority: int, entry: T) -> Share[T] | None:
        """Where mail like this one waits; None where none does."""
        level = self._levels[priority]
        return level.find(entry.tenant, entry.campaign) if level is not None else None

    def overflow(self, share: Share[T], kept: int, is_cold: Callable[[T], bool]) -> list[T]:
        """Takes out what is cold behind the first `kept` (at least one) entries of a share, the oldest first.

        They are to be given to `spill`, or dropped, before `settle`.
        """
        had_later = share.later is not None
        cold = share.overflow(kept, is_cold)
        if share.later is not None and not had_later:
            moved = len(share.later) + len(cold)
            self._length -= moved
            self._later += moved
        self._later -= len(cold)
        return cold

    def spill(self, share: Share[T], seq: int, expires_s: float) -> None:
        """One that `overflow` took out waits as a number from now on."""
        share.spill(seq, expires_s)
        self.spilled += 1

    def settle(self, share: Share[T]) -> None:
        """All that `overflow` took out was spilled or dropped."""
        level = self._levels[share.priority]
        assert level is not None, "a share's priority is known"
        self._put_right(level, share)

    def take_spilled(self, share: Share[T], most: int) -> list[int]:
        """Takes out the first numbers of a share, to be read back and `returned`."""
        taken = share.take(most)
        self.spilled -= len(taken)
        return taken

    def returned(self, share: Share[T], count: int, entries: Iterable[T]) -> None:
        """So many numbers of a share were read back, and these are what became of them: behind its entries."""
        before, later = len(share.entries), self._later_of(share)
        share.returned(count, entries)
        self._length += len(share.entries) - before
        self._later += self._later_of(share) - later
        self.settle(share)

    def _later_of(self, share: Share[T]) -> int:
        return len(share.later) if share.later is not None else 0

    def shares(self) -> Iterator[Share[T]]:
        """Those with something spilled."""
        for level in self._levels:
            if level is not None:
                for share in level.all():
                    if share.spilled:
                        yield share

    def expired(self, share: Share[T], now_s: float) -> list[int]:
        """Takes out the numbers of a share that are over."""
        if not share.spilled:
            return []
        expired = share.spilled.expired(now_s)
        if expired:
            self.spilled -= len(expired)
            self.settle(share)
        return expired

    def weed(self, share: Share[T], chunk: int, is_wanted: Callable[[int], bool]) -> list[int]:
        """Takes out the numbers that are not wanted of one chunk of a share."""
        removed = share.spilled.weed(chunk, is_wanted) if share.spilled else []
        if removed:
            self.spilled -= len(removed)
            self.settle(share)
        return removed

    def before(self, priority: int, seq: int) -> int | None:
        """About how many have their turn before a number that is spilled at this priority; None where it is not."""
        for share in self.shares():
            place = share.spilled.place(seq) if share.spilled and share.priority == priority else None
            if place is None:
                continue
            place += len(share.entries) + share.loading
            before = place
            for level in self._levels[priority:]:
                for other in level.all() if level is not None else ():
                    if other is not share:
                        size = len(other.entries) + self._later_of(other) + other.waiting_spilled + other.loading
                        before += size if other.priority > priority else min(size, place + 1)
            return before
        return None

    # taken out

    def remove(self, is_wanted: Callable[[T], bool]) -> list[T]:
        """Takes out the entries that are wanted, priority by priority and share by share."""
        removed: list[T] = []
        for level in reversed(self._levels):
            for share in level.all() if level is not None else ():
                before, later = len(share.entries), self._later_of(share)
                removed += share.remove(is_wanted)
                self._length += len(share.entries) - before
                self._later += self._later_of(share) - later
                self.settle(share)
        return removed

    def take_all_spilled(self) -> "list[array[int]]":
        """Takes out all numbers, priority by priority and share by share."""
        taken: list[array[int]] = []
        for level in reversed(self._levels):
            for share in level.all() if level is not None else ():
                if share.spilled:
                    taken.append(share.spilled.take_all())
                    self.settle(share)
        self.spilled = 0
        self.short.clear()
        return taken
