"""Reserving: limits across destinations, of a tenant, a campaign, a sender domain or a source.

Right before its MAIL a message takes a token of each limit that holds for it, all or none (`mta_policies.reservations`;
`mta.handoff.lending` gets more of them). Where there is none it is parked in the hold of the limit that lacks, so that
others of its pool go on. Tokens that come let go as many as there are: the most urgent first, tenants and campaigns in
turns, each in the order in which they came; who comes later does not pass them.
"""

import asyncio
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mta.delivery.channel import Channel
from mta.delivery.job import WAITING, Job
from mta.delivery.parking import Lot
from mta.delivery.shortage import Shortage, Told
from mta.reporting.waiting import Explain, Reason
from mta_policies.answers import SYSTEM_SOURCE
from mta_policies.cross_limit import CrossLimit, limit_of, value_of
from mta_policies.leases import Lease, Shut
from mta_policies.reservations import REPORT_S, WANT_MAX, Reservations

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.pool import Pool
    from mta.handoff.lending import Lending

AT_HAND_S = 0.1  # so long a message and its connection wait for another worker's answer, which takes a millisecond
CALLED_S = 2.0  # so long a message that was let go keeps its token, where its pool cannot send it
KNOWN_MAX = 10_000  # of who mail comes from it is remembered so often what limits it
HOLDS_AT_ONCE = 200  # that one sweep looks at, in turns
FORGET_S = 10.0  # between looks for what nobody needs any more

PREFIX = "limit"
"""Of what is kept over restarts (`mta.delivery.keeping`)."""

LIMIT = "limit per"
"""How a reason's limit begins."""

Share = tuple[str, str, "Pool"]
"""Tenant, campaign, and where it goes."""


class _Hold:
    """A key that lacks tokens, and the mail that waits for it."""

    __slots__ = ("_lots", "called", "keeper", "key")

    def __init__(self, key: str, keeper: Shortage) -> None:
        self.key = key
        self.keeper = keeper
        self._lots: dict[int, dict[Share, Lot]] = {}
        """By priority; whose turn it is comes first."""
        self.called: dict[int, float] = {}
        """Items that were let go and not sent yet, and since when."""

    def lots(self) -> list[Lot]:
        """All of them."""
        return [lot for lots in self._lots.values() for lot in lots.values()]

    def waiting(self, most: float = math.inf) -> int:
        """How many items wait; counted no further than `most`."""
        count = 0
        for lots in self._lots.values():
            for lot in lots.values():
                count += len(lot.parked)
                if count >= most:
                    return count
        return count

    def is_waited_for(self, priority: int) -> bool:
        """Whether mail waits that goes before newer mail of this priority."""
        return any(lot.parked for urgency, lots in self._lots.items() if urgency >= priority for lot in lots.values())

    def lot(self, pool: "Pool", job: Job) -> Lot:
        """Where a job is parked."""
        lots = self._lots.setdefault(job.priority, {})
        share = job.tenant, job.campaign, pool
        lot = lots.get(share)
        if lot is None:
            lot = lots[share] = Lot(self.keeper)
        return lot

    def turns(self, room: int, now_s: float) -> Iterator[tuple[Lot, int]]:
        """From which lots so many items go, which are taken out before the next is asked for. What goes where nothing
        can be sent now stays: it would keep its tokens from others."""
        for urgency in sorted(self._lots, reverse=True) if room > 0 else ():
            lots = self._lots[urgency]
            at = len(lots)
            while room > 0 and at > 0 and lots:
                share, lot = next(iter(lots.items()))
                is_down = not share[2].is_closed and share[2].opener.health_wait_s(now_s) > 0
                count = 0 if is_down else min(len(lot.parked), max(1, room // len(lots)))
                if count:
                    room -= count
                    yield lot, count
                else:
                    at -= 1
                del lots[share]
                if lot.parked:
                    lots[share] = lot
            if not lots:
                del self._lots[urgency]


class Reserving:
    """Of one worker."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._clock = engine.clock
        self.active = False
        """There are limits across destinations: the one thing that is looked at where there are none."""
        self._lending: Lending
        self._reservations = Reservations(())
        self._written: dict[CrossLimit, str] = {}
        self._by_sender = False
        self._known: dict[tuple[str, str, str, str], tuple[str, ...]] = {}
        self._holds: dict[str, _Hold] = {}
        self._granted: dict[str, None] = {}
        """Keys of which something came, and whose holds have not been looked at since."""
        self._called: dict[str, None] = {}
        """Keys whose holds let something go that is not sent yet."""
        self._at_hand: dict[Channel, tuple[Pool, Job, asyncio.TimerHandle]] = {}
        """Messages that wait for another worker's answer, each with the connection that it is to go out over."""
        self._tells = False
        self._timer: asyncio.TimerHandle | None = None
        self._forgot_s = 0.0

    def start(self, lending: "Lending", limits: Sequence[CrossLimit], written: Sequence[str]) -> None:
        """These limits hold, each written at that place (file:line)."""
        self._lending = lending
        lending.start(self, limits)
        self._engine.keeping.register(PREFIX, lending, dict[str, int])
        self._set(limits, written)

    def change(self, limits: Sequence[CrossLimit], written: Sequence[str]) -> None:
        """Other limits from now on, also for what waits."""
        self._lending.change(limits)
        self._set(limits, written)
        if self.active:
            self._tell_soon()
        for key, hold in list(self._holds.items()):
            if limit_of(limits, key) is None:
                self._end(hold)
            else:
                self._granted[key] = None

    def _set(self, limits: Sequence[CrossLimit], written: Sequence[str]) -> None:
        self._reservations.change(limits)
        self._written = dict(zip(limits, written, strict=True))
        self._by_sender = any(limit.per == "sender-domain" for limit in limits)
        self._known.clear()
        self.active = bool(limits)

    def close(self) -> None:
        """Nothing is sent any more: what is left of the leases goes back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.active:
            self._lending.tell([], self._reservations.give_back(self._clock.monotonic_s()))
            self.active = False
            self._lending.close()

    # what a job needs

    def _keys_of(self, source: str, job: Job) -> tuple[str, ...]:
        """The keys of a job that anything limits; without its sender's domain where it is not in memory."""
        sender = ""
        if self._by_sender and job.envelope is not None:
            sender = job.envelope.sender_domain
        return self._keys(source, job.tenant, job.campaign, sender)

    def _keys(self, source: str, tenant: str, campaign: str, sender: str) -> tuple[str, ...]:
        whose = source, tenant, campaign, sender
        keys = self._known.get(whose)
        if keys is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            named = [f"source {source or SYSTEM_SOURCE}"]
            named += [f"tenant {tenant}"] if tenant else []
            named += [f"campaign {tenant}/{campaign}"] if campaign else []
            named += [f"sender-domain {sender}"] if sender else []
            keys = self._known[whose] = self._reservations.limited(named)
        return keys

    def takes(self, pool: "Pool", job: Job, channel: Channel) -> bool:
        """Takes what a job needs whose MAIL is said now over a connection. False: there is not all of it; the job waits
        here, and the connection comes back to its pool by itself."""
        keys = self._keys_of(pool.source.name, job)
        if not keys:
            return True
        now_s = self._clock.monotonic_s()
        if self._reservations.reserve(keys, now_s):
            if any(self._lending.is_own(key) for key in keys):
                self._tell()  # what this worker owns it has at once
            if self._reservations.reserve(keys, now_s):
                self._lack(self._reservations.lacking(keys, now_s), pool, job, channel, now_s)
                return False
        if not self._tells:
            self._tell_soon()
        if self._holds:
            for key in keys:
                hold = self._holds.get(key)
                if hold is not None:
                    hold.called.pop(job.seq, None)
        return True

    def _lack(self, key: str, pool: "Pool", job: Job, channel: Channel, now_s: float) -> None:
        """There is nothing of a key for this job: it waits, for the answer of another worker with its connection."""
        hold = self._holds.get(key)
        is_first = hold is None or job.seq in hold.called
        if is_first and not self._lending.is_own(key) and self._reservations.why(key) is None:
            self._at_hand[channel] = pool, job, self._engine.loop.call_later(AT_HAND_S, self._late, channel, key)
            self._reservations.want(key, 1, now_s)
            self._tell_soon()
            return
        self._park(key, pool, job)
        pool.idle.append(channel)

    def _answered(self) -> None:
        """Something came: who waited for it may go on."""
        now_s = self._clock.monotonic_s()
        for channel, (pool, job, timer) in list(self._at_hand.items()):
            if not self._reservations.lacking(self._keys_of(pool.source.name, job), now_s):
                del self._at_hand[channel]
                timer.cancel()
                if job.state == WAITING:
                    pool.take_back(job, is_next=True)
                self._goes_on(pool, channel)

    def _late(self, channel: Channel, key: str) -> None:
        """No answer came in time."""
        pool, job, _ = self._at_hand.pop(channel)
        if job.state == WAITING and not pool.is_closed:
            self._park(key, pool, job)
        elif job.state == WAITING:
            self._engine.route(job)
        self._goes_on(pool, channel)

    @staticmethod
    def _goes_on(pool: "Pool", channel: Channel) -> None:
        """A connection is its pool's again."""
        if not channel.is_leaving:
            pool.idle.append(channel)
        pool.pump()

    def _park(self, key: str, pool: "Pool", job: Job) -> None:
        hold = self._holds.get(key)
        if hold is None:
            hold = self._holds[key] = _Hold(key, Shortage(lambda: self._told(key)))
            self._engine.parking.asks(self, self._kept)
        hold.called.pop(job.seq, None)
        self._engine.parking.park(hold.lot(pool, job), job, job.parts)
        self._reservations.want(key, hold.waiting(WANT_MAX), self._clock.monotonic_s())
        self._tell_soon()

    def returns(self, pool: "Pool", job: Job) -> None:
        """What `takes` took was not used: no MAIL followed."""
        if self.active:
            self._reservations.returned(self._keys_of(pool.source.name, job), self._clock.monotonic_s())

    def _kept(self, pool: "Pool", job: Job) -> Iterator[tuple[Lot, Sequence[int]]]:
        """See `mta.delivery.parking.Kept`."""
        holds = [hold for key in self._keys_of(pool.source.name, job) if (hold := self._holds.get(key)) is not None]
        is_called = any(job.seq in hold.called for hold in holds)
        for hold in holds:
            if not self._lets(hold, job, is_called):
                yield hold.lot(pool, job), job.parts
                return

    def _lets(self, hold: _Hold, job: Job, is_called: bool) -> bool:
        """Whether a job may try its luck: it was let go, or nobody waits before it and there is something left.
        `is_called`: some limit let it go; what the others have left it may take from those whom they let go: these wait
        for it in their turn, and nobody would ever have a token of each."""
        if job.seq in hold.called:
            return True
        left = self._reservations.left(hold.key, self._clock.monotonic_s())
        if is_called:
            return left > 0
        return not hold.is_waited_for(job.priority) and left > len(hold.called)

    # what comes (`mta.handoff.lending.Borrower`)

    def granted(self, lease: Lease) -> None:
        """See `Borrower`."""
        self._reservations.granted(lease, self._clock.monotonic_s())
        if lease.key in self._holds:
            self._granted[lease.key] = None
        self._tell_soon()

    def shut(self, shut: Shut) -> None:
        """See `Borrower`."""
        self._reservations.told(shut)

    def lender_is_new(self, worker: int) -> None:
        """See `Borrower`."""
        self._reservations.ask_again(lambda key: self._lending.lender(key) == worker)
        self._tell_soon()

    def has_to_save(self) -> None:
        """See `Borrower`."""
        self._engine.keeping.soon()

    def _tell_soon(self) -> None:
        """Say what there is to say at the end of this turn, and let go of what may go."""
        if not self._tells:
            self._tells = True
            self._engine.loop.call_soon(self._on_tell)

    def _on_tell(self) -> None:
        self._tells = False
        if self._at_hand:
            self._answered()
        self._release()
        self._tell()

    def _tell(self) -> None:
        now_s = self._clock.monotonic_s()
        asks, reports = self._reservations.asks(now_s), self._reservations.reports(now_s)
        if asks or reports:
            self._lending.tell(asks, reports)
        if self._timer is None and self._reservations.has_leases:
            self._timer = self._engine.loop.call_later(REPORT_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._tell()

    # what waits

    def _release(self) -> None:
        """Let go of as much as there are tokens for."""
        if not self._granted:
            return
        granted, self._granted = self._granted, {}
        now_s = self._clock.monotonic_s()
        for key in granted:
            hold = self._holds.get(key)
            if hold is not None:
                self._release_from(hold, now_s)

    def _release_from(self, hold: _Hold, now_s: float) -> None:
        parking, key = self._engine.parking, hold.key
        left = self._reservations.left(key, now_s)
        for lot, count in hold.turns(left - len(hold.called), now_s):
            for seq in islice(lot.parked, count):
                hold.called[seq] = now_s
            self._called[key] = None
            parking.free_some(lot, count)
        if hold.called:
            self._reservations.keep(key, now_s)
        if waiting := hold.waiting(WANT_MAX):
            if left <= len(hold.called):  # else who waits goes where nothing can be sent now, and needs no more of it
                self._reservations.want(key, waiting, now_s)
        elif not hold.called and left:
            self._end(hold)

    def _end(self, hold: _Hold) -> None:
        """Nothing waits for this key any more."""
        del self._holds[hold.key]
        for lot in hold.lots():
            self._engine.parking.free(lot)
        if not self._holds:
            self._engine.parking.asks(self, None)

    def sweep(self) -> None:
        """Look at what was let go and not sent, and ask again for what nobody answered."""
        if not (self.active or self._holds):
            return
        now_s = self._clock.monotonic_s()
        for key in list(self._called):
            hold = self._holds.get(key)
            if hold is not None:
                hold.called = {seq: called_s for seq, called_s in hold.called.items() if now_s - called_s < CALLED_S}
                self._release_from(hold, now_s)
            if hold is None or not hold.called:
                del self._called[key]
        for key in list(islice(self._holds, HOLDS_AT_ONCE)):
            hold = self._holds.pop(key)
            self._holds[key] = hold
            self._release_from(hold, now_s)
        if now_s - self._forgot_s > FORGET_S:
            self._forgot_s = now_s
            self._reservations.sweep(now_s)
        self._tell()

    # why

    def shortage_of(self, source: str, tenant: str, campaign: str, sender: str) -> Shortage | None:
        """What mail of this kind will wait for when its turn comes; None: nothing, as far as it is known."""
        if not self.active:
            return None
        wall_s = self._clock.wall_s()
        for key in self._keys(source, tenant, campaign, sender.rpartition("@")[2].lower() if self._by_sender else ""):
            shut = self._reservations.why(key)
            if key in self._holds or (shut is not None and shut.until_s > wall_s):
                return Shortage(lambda key=key: self._told(key))
        return None

    def _told(self, key: str) -> Told:
        """What waits for a key waits for this."""
        limit = limit_of(self._reservations.limits, key)
        if limit is None:
            return "", Reason("turn")
        shut = self._reservations.why(key)
        why = shut.why if shut is not None else "rate" if limit.rate else "quota" if limit.quota else "window"
        reason = Reason(why, f"{LIMIT} {limit.per}", value_of(limit, why), self._written[limit])
        if shut is not None:
            reason.next_s = shut.until_s
        hold = self._holds.get(key)
        if why == "rate":
            reason.per_s = min((rate.per_second for rate in limit.rate), default=0.0)
            reason.before = max(0, hold.waiting() - 1) if hold is not None else 0
        words = {"rate": "the rate", "quota": "the quota", "window": "the hours"}[why]
        return f"{words} of {key}: {reason.value}", reason


def waits_of(pool: "Pool", question: Explain) -> Told | None:
    """What the next message would wait for, as far as a limit across destinations is known to be reached; None: for
    nothing."""
    reserving = pool.site.destination.engine.reserving
    shortage = reserving.shortage_of(pool.source.name, question.tenant, question.campaign, "")
    return shortage.told() if shortage is not None else None
