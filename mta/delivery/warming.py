"""Warming: sources that are new send to each provider what their plan allows that day, and no more.

Mail that is over the plan takes a source of the overflow pool as soon as it comes, or when the day's room is used up;
without such a pool it waits, and no attempt is counted. What a day allows is drawn beforehand from an account of the
whole machine (`keeping.py`), so that no crash and no other worker passes it. Where no plan is written nothing is asked.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from mta.delivery.calendars import LOOK_S
from mta.delivery.channel import Channel
from mta.delivery.connection import SourceAddress
from mta.delivery.job import Job
from mta.delivery.pool import Pool
from mta.delivery.shortage import Told
from mta.delivery.sites import PumpRound
from mta.model.outcome import Deferred, Delivered, Outcome
from mta.reporting.questions import WarmedUp, WarmupRow
from mta.reporting.waiting import Reason
from mta_policies.allotments import Draw
from mta_policies.answers import Answer
from mta_policies.engine import Verdict
from mta_policies.limits import Share
from mta_policies.warmth import Day, Plan, Turn, Warmth, complains, what_next
from mta_policies.warmup import PREFIX, Standing, Warmup

if TYPE_CHECKING:
    from mta.delivery.destination import Destination
    from mta.delivery.dispatcher import Dispatcher

ROWS_AT_ONCE = 500  # for people, before the loop turns: a few milliseconds
BRAKING = frozenset({"slow", "suspend", "probe"})
"""Actions of a rule that say that the provider is not pleased."""

Origin = Callable[[str, str], str]
"""Source, and a policy's name or a destination's key -> where its plan is written: "mta.toml:41"."""

_DAY = ("start_s", "day", "back", "sent", "perhaps", "complaints", "held_s", "last_sent_s")
"""What is handed over of each day."""


class Warming:
    """Of one worker; `mta.delivery.keeping.Kept` and `Drawing`."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self.warmup = Warmup((), ZoneInfo, self._turned)
        self.origin: Origin = lambda source, provider: ""
        self.active = False
        """Some source has a plan: the one thing that is looked at where none has."""
        self._plans: Sequence[Plan] = ()
        self._waiting: dict[tuple[str, str], dict[Pool, None]] = {}
        """Pools that wait for what is drawn or under way."""
        self._round = PumpRound(engine.loop)
        self._answer: Answer | None = None
        """What a provider has just complained with."""
        engine.keeping.register(PREFIX, self, Warmth)
        engine.keeping.draw_for(self)

    def change(self, plans: Sequence[Plan], origin: Origin) -> None:
        """These plans hold from now on; to be called before sources and pools are told."""
        self._plans = plans
        self.warmup.change(plans)
        self.origin = origin
        self.active = bool(plans)
        if self.warmup.wants:
            self._engine.keeping.soon()

    def of_pool(self, pool: Pool) -> "Warm | None":
        """What holds for a pool; None: its source is warm."""
        plan = self.warmup.plan(pool.source.name) if self.active else None
        known = pool.warming
        if plan is None:
            if known is not None:
                known.close()
            return None
        return known if known is not None and known.plan == plan else Warm(self, pool, plan, known)

    @property
    def engine(self) -> "Dispatcher":
        return self._engine

    def waits(self, key: tuple[str, str], pool: Pool) -> None:
        """A pool is to go on when something was drawn or has ended."""
        self._waiting.setdefault(key, {})[pool] = None

    def wake(self, key: tuple[str, str]) -> None:
        """There may be room, or it is sure that there is none."""
        pools = self._waiting.pop(key, None)
        if pools:
            self._round.add(pool.site for pool in pools)

    def _turned(self, turn: Turn) -> None:
        self._engine.events.warmup(turn, shown(turn.provider), self._answer)

    def complained(self, key: tuple[str, str], answer: Answer, rule: str) -> None:
        """A provider is not pleased with a source."""
        self._answer = answer
        try:
            self.warmup.complained(*key, self._engine.clock.wall_s(), rule)
        finally:
            self._answer = None

    # kept

    def to_save(self, wall_s: float) -> Mapping[str, Warmth]:
        """See `mta.delivery.keeping.Kept`, as for the next three."""
        return self.warmup.to_save(wall_s)

    def saved(self, states: Mapping[str, Warmth]) -> None:
        """Nobody waits for it."""

    def dump(self, wall_s: float) -> Mapping[str, Warmth]:
        return self.warmup.dump()

    def load(self, states: Mapping[str, Warmth]) -> None:
        self.warmup.load(states)

    def draws(self, wall_s: float) -> list[Draw]:
        """See `mta.delivery.keeping.Drawing`, as for the next two."""
        warmup = self.warmup
        return warmup.draws(wall_s) if warmup.wants or warmup.is_common else []

    def drawn(self, draw: Draw, got: int, wall_s: float) -> None:
        self.wake(self.warmup.drawn(draw, got, wall_s))

    def give_back(self, wall_s: float) -> list[Draw]:
        return self.warmup.give_back(wall_s)

    # a destination goes to another worker

    def leave(self, destination: "Destination") -> None:
        """It is used here no more."""
        if self.active:
            self.warmup.leave(destination.account, self._engine.clock.wall_s())
            if self.warmup.wants:
                self._engine.keeping.soon()

    def state(self, destination: "Destination") -> dict[str, dict[str, list[float]]]:
        """How warm sources are there, as far as this worker has counted."""
        states: dict[str, dict[str, list[float]]] = {}
        for source, share, warmth in self.warmup.counted(destination.account):
            days = [float(getattr(day, name)) for day in warmth.days for name in _DAY]
            states.setdefault(f"{PREFIX} {source}", {})[share.tag] = days
        return states

    def restore(self, destination: "Destination", source: str, values: Mapping[str, Sequence[float]]) -> None:
        """Another worker has counted so far."""
        for tag, numbers in values.items():
            share = Share.of_tag(tag)
            days = [_day_of(numbers[at : at + len(_DAY)]) for at in range(0, len(numbers), len(_DAY))]
            self.warmup.take_over(source, destination.account, share, Warmth(days, share.of))

    # for people

    async def rows(self) -> WarmedUp:
        """All plans, and how every source stands at every provider that this worker knows of."""
        rows = [self._row_of_plan(plan) for plan in self._plans]
        for standing in self.warmup.standings(self._engine.clock.wall_s()):
            rows.append(self._row(standing))
            if len(rows) % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return WarmedUp(rows)

    def _row(self, standing: Standing) -> WarmupRow:
        plan, today, share = standing.plan, standing.today, standing.share
        days = plan.days_of(standing.provider)
        row = self._row_of_plan(plan, standing.provider)
        allowed = today.allowed(days)
        then, row.missing = what_next(today, days, share.of)
        row.index, row.of = share.index, share.of
        row.day = min(today.in_force, len(days)) + 1
        row.allowed = 0 if allowed == math.inf else int(allowed)
        row.sent, row.under_way, row.last_sent_s = today.sent, standing.under_way, today.last_sent_s
        row.held_s, row.why = today.held_s, today.why
        row.next_day, row.next_s = then + 1, standing.ends_s
        row.next_allowed = days[then] if then < len(days) else 0
        return row

    def _row_of_plan(self, plan: Plan, provider: str = "") -> WarmupRow:
        days = plan.days_of(provider)
        return WarmupRow(
            source=plan.source,
            provider=shown(provider),
            days=len(days),
            allowed=days[0],
            overflow_pool=plan.overflow_pool,
            start_s=plan.start_s,
            origin=self.origin(plan.source, provider),
        )


class Warm:
    """One pool whose source has a plan."""

    def __init__(self, warming: Warming, pool: Pool, plan: Plan, before: "Warm | None" = None) -> None:
        self._warming = warming
        self._pool = pool
        self.plan = plan
        self._begun: dict[Channel, int] = before.take_begun() if before is not None else {}
        """Recipients of the transaction that is under way on a connection."""

    @property
    def _key(self) -> tuple[str, str]:
        return self.plan.source, self._pool.site.destination.account

    def take_begun(self) -> dict[Channel, int]:
        """What is under way goes on in another."""
        begun, self._begun = self._begun, {}
        return begun

    def close(self) -> None:
        """The source has no plan any more."""
        for channel in list(self._begun):
            self.gone(channel)

    # asked

    def room(self) -> float:
        """How many recipients may be begun now; inf: any number."""
        warming = self._warming
        room = warming.warmup.room(*self._key, warming.engine.clock.wall_s(), self._share)
        if warming.warmup.wants:
            warming.engine.keeping.soon()
        return room

    @property
    def _share(self) -> Share:
        return self._pool.site.destination.share

    def most(self, recipients_max: int) -> int:
        """How many recipients a transaction may have that begins now; -1: none may begin. `recipients_max`: by other
        limits, as what is returned 0: no limit."""
        room = self.room()
        if room <= 0:
            return -1
        if room == math.inf:
            return recipients_max
        return min(recipients_max, int(room)) if recipients_max else int(room)

    def wait_s(self) -> float:
        """How long to wait before looking again; inf: something wakes the pool."""
        wait_s = self._wait_s()
        if wait_s == math.inf:
            self._warming.waits(self._key, self._pool)
        return min(wait_s, LOOK_S) if wait_s < math.inf else math.inf

    def _wait_s(self) -> float:
        return self._warming.warmup.wait_s(*self._key, self._warming.engine.clock.wall_s(), self._share)

    def _left(self) -> float:
        return self._warming.warmup.left(*self._key, self._warming.engine.clock.wall_s(), self._share)

    def takes(self) -> bool:
        """Whether a message more has room today."""
        return self._left() > self._pool.waiting

    # over the plan

    def sends_on(self, job: Job) -> bool:
        """Whether a message that comes now has no room today and takes another source: it is there then."""
        if not self.plan.overflow_pool or self.takes() or (other := self._choose()) is None:
            return False
        self._give(job, other)
        other.push(job)
        return True

    def diverts(self) -> bool:
        """Where the day is used up, let what waits here go by the overflow pool. -> whether it does."""
        if not self.plan.overflow_pool or self._left() > 0 or self._choose() is None:
            return False
        pool = self._pool
        jobs = pool.take_jobs()
        pool.spill.take_all()
        others: dict[Pool, None] = {}
        for job in jobs:
            other = self._choose() or pool
            if other is not pool:
                self._give(job, other)
                others[other] = None
            other.put(job)
        for other in others:
            other.pump()
        return True

    def _choose(self) -> Pool | None:
        site = self._pool.site

        def takes(source: SourceAddress) -> bool:
            if source.name == self.plan.source:
                return False
            other = site.pool(source.name)
            return other.warming is None or other.warming.takes()

        source = self._warming.engine.sources.first(self.plan.overflow_pool, takes)
        return site.pool(source.name) if source is not None else None

    def _give(self, job: Job, other: Pool) -> None:
        job.source = other.source.name
        self._pool.site.destination.tally.overflowed += len(job.parts)

    # told

    def began(self, channel: Channel, recipients: int) -> None:
        """A MAIL is being said."""
        self._begun[channel] = recipients
        self._warming.warmup.began(*self._key, recipients)

    def ended(self, channel: Channel, outcomes: Sequence[Outcome]) -> None:
        """Its transaction is over."""
        begun = self._begun.pop(channel, 0)
        if begun:
            taken = sum(type(outcome) is Delivered for outcome in outcomes)
            uncertain = sum(isinstance(outcome, Deferred) and outcome.uncertain for outcome in outcomes)
            self._count(taken, uncertain, max(0, begun - taken - uncertain))

    def gone(self, channel: Channel) -> None:
        """A connection is closed; what was under way there nobody can say anything about."""
        self._count(0, self._begun.pop(channel, 0), 0)

    def _count(self, taken: int, uncertain: int, failed: int) -> None:
        warming, warmup = self._warming, self._warming.warmup
        wall_s = warming.engine.clock.wall_s()
        warmup.delivered(*self._key, wall_s, taken)
        warmup.failed(*self._key, wall_s, uncertain, perhaps=True)
        warmup.failed(*self._key, wall_s, failed)
        if warmup.wants:
            warming.engine.keeping.soon()
        warming.wake(self._key)

    def judged(self, verdict: Verdict, answer: Answer) -> None:
        """What an answer that was not "delivered" meant."""
        rule = verdict.rule if any(action.action in BRAKING for action in verdict.done) else ""
        if rule or complains(verdict.category, answer):
            self._warming.complained(self._key, answer, rule)

    # for people

    def told(self) -> Told | None:
        """What mail of the pool waits for, where the plan keeps it; None: it does not."""
        wait_s = self._wait_s()
        if wait_s == 0.0 or (wait_s == math.inf and self._left() > 0):
            return None
        warming, (source, account) = self._warming, self._key
        wall_s = warming.engine.clock.wall_s()
        origin = warming.origin(source, account)
        limit, next_s = f"warmup {source}", wall_s + wait_s if wait_s < math.inf else 0.0
        if wall_s < self.plan.start_s:
            return f"the start of the warm-up of {source}", Reason("warmup", limit, "", origin, next_s=next_s)
        day, allowed, sent = warming.warmup.allowed(source, account, wall_s, self._share)
        value = f"{int(allowed):,} messages on day {day}"
        if wait_s == math.inf:
            words = f"the warm-up of {source}, whose last messages of today are under way"
        else:
            taken = f"{sent:,} of {int(allowed):,} messages to {shown(account)} today"
            words = f"the warm-up of {source}, which has sent {taken}"
        return words, Reason("warmup", limit, value, origin, next_s=next_s)


def shown(account: str) -> str:
    """What people call a destination."""
    kind, _, name = account.partition(":")
    return name if kind in ("policy", "site") else account


def _day_of(numbers: Sequence[float]) -> Day:
    start_s, day, back, sent, perhaps, complaints, held_s, last_sent_s = numbers
    why = "it was held before another worker went on" if held_s else ""
    return Day(start_s, int(day), int(back), int(sent), int(perhaps), int(complaints), held_s, why, last_sent_s)
