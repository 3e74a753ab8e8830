"""Warm-up: a new source sends a little more on every day that it really sent. Pure: now_s is Unix seconds.

A plan says how many messages a provider may be sent on the first day, the second, and so on; behind its end there is no
limit. A day counts only where most of what it allowed was really taken by the provider: a source that had nothing to
send is no warmer for it, and one that was left alone for long goes some days back. Where the provider complains, the
source goes a day back at once. What is over the plan goes by the pool of warm sources, or waits for the next day. The
server does not use it yet.
"""

import copy
import math
from collections.abc import Mapping, Sequence

import msgspec

from mta_policies.limits import WHOLE, Share
from mta_policies.local_time import Zones, period

USED_SHARE = 0.5
"""A day on which at least this share of what was allowed was taken counts, and the next one allows more."""

IDLE_DAYS = 3  # so many days without mail change nothing: a long weekend; every further one is a day back
COLD_DAYS = 30  # idle for so long, it begins anew, warm or not: reputation is counted over a month
BAD_SHARE = 0.05  # of a day's answers, that complain: the provider is not pleased
BAD_MIN = 3  # complaints; fewer are chance
DAYS_KEPT = 4  # of them today is one; more than yesterday only for clocks that jump
STATES_MAX = 10_000  # sources times providers, 4 MB; the one that was idle longest is forgotten, and begins anew

_DAY_S = 86400.0


class Plan(msgspec.Struct, frozen=True):
    """What `[[warmup]]` says of one source."""

    source: str
    days: tuple[int, ...]
    """Messages to one provider on each day; afterwards there is no limit."""
    providers: dict[str, tuple[int, ...]] = {}
    """Other days for some providers, by the policy's name."""
    start_s: float = 0.0
    """Nothing goes before; Unix seconds."""
    zone: str = "UTC"
    """Where the day begins at midnight."""
    overflow_pool: str = ""
    """By whose sources goes what is over the plan; "": it waits for the next day."""

    def days_of(self, provider: str) -> tuple[int, ...]:
        return self.providers.get(provider, self.days)


class Day(msgspec.Struct):
    """One calendar day of a source at a provider."""

    start_s: float
    day: int = 0
    """The day of the plan, from 0; as many as the plan has: it is warm."""
    back: int = 0
    """So many days before it the source is today, because it was idle; for good when something is sent."""
    sent: int = 0
    """Taken by the provider."""
    complaints: int = 0
    is_held: bool = False
    """The provider complained too much."""
    last_sent_s: float = 0.0

    def allowed(self, days: Sequence[int], share: Share) -> float:
        """How many messages this calendar day allows."""
        day = self.day - self.back
        if day >= len(days):
            return math.inf
        return share.count(days[max(0, day - 1 if self.is_held else day)])


class Warmth(msgspec.Struct):
    """How warm one source is at one provider."""

    days: list[Day]
    """The last calendar days with mail, and today, which is the last: a clock that jumps finds them again."""
    owners: int = 1
    """How many share the destination; each has its part of what is allowed."""

    @property
    def today(self) -> Day:
        return self.days[-1]


class Warmup:
    """All sources that are being warmed, at the providers that this worker sends to."""

    def __init__(self, plans: Sequence[Plan], zones: Zones) -> None:
        self._zones = zones
        self._plans: dict[str, Plan] = {plan.source: plan for plan in plans}
        self._states: dict[tuple[str, str], Warmth] = {}
        self._under_way: dict[tuple[str, str], int] = {}

    def plan(self, source: str) -> Plan | None:
        """None: this source is not being warmed, and nothing here need be called for it."""
        return self._plans.get(source)

    # asked

    def room(self, source: str, provider: str, now_s: float, share: Share = WHOLE) -> float:
        """How many more messages may be begun now, those under way counted as sent; inf: no limit."""
        plan = self._plans.get(source)
        if plan is None:
            return math.inf
        if now_s < plan.start_s:
            return 0.0
        state = self._look(plan, provider, now_s)
        state.owners = share.of
        allowed = state.today.allowed(plan.days_of(provider), share)
        return max(0.0, allowed - state.today.sent - self._under_way.get((source, provider), 0))

    def wait_s(self, source: str, provider: str, now_s: float, share: Share = WHOLE) -> float:
        """0.0: one may be begun; inf: when one that is under way has failed; else seconds until the next day or the
        start."""
        if self.room(source, provider, now_s, share) > 0:
            return 0.0
        plan = self._plans[source]
        if now_s < plan.start_s:
            return plan.start_s - now_s
        today = self._states[source, provider].today
        if today.sent < today.allowed(plan.days_of(provider), share):
            return math.inf
        return max(1.0, period("day", self._zones(plan.zone), now_s)[1] - now_s)

    def warmth(self, source: str, provider: str) -> Warmth | None:
        """For people to look at."""
        return self._states.get((source, provider))

    # told

    def began(self, source: str, provider: str) -> None:
        """A message is being sent; `delivered` or `failed` follows."""
        if source in self._plans:
            self._under_way[source, provider] = self._under_way.get((source, provider), 0) + 1

    def delivered(self, source: str, provider: str, now_s: float) -> None:
        """The provider took it."""
        plan = self._plans.get(source)
        if plan is not None:
            self._ended(source, provider)
            today = self._look(plan, provider, now_s).today
            today.sent += 1
            today.last_sent_s = now_s

    def failed(self, source: str, provider: str, now_s: float, *, complains: bool) -> str:
        """It was not taken. `complains`: the answer speaks of reputation, rate or spam. -> why the source is held from
        now on; "": nothing has changed."""
        plan = self._plans.get(source)
        if plan is None:
            return ""
        self._ended(source, provider)
        today = self._look(plan, provider, now_s).today
        if not complains or today.day - today.back >= len(plan.days_of(provider)):
            return ""
        today.complaints += 1
        if today.is_held or today.complaints < max(BAD_MIN, BAD_SHARE * (today.sent + today.complaints)):
            return ""
        today.is_held = True
        return f"{today.complaints} complaints beside {today.sent} messages taken: a day back"

    def change(self, plans: Sequence[Plan]) -> None:
        """Other plans from now on; a source that is in both goes on where it was."""
        self._plans = {plan.source: plan for plan in plans}
        self._states = {key: state for key, state in self._states.items() if key[0] in self._plans}

    # kept

    def dump(self) -> dict[str, dict[str, Warmth]]:
        """Source -> provider -> how warm it is."""
        states: dict[str, dict[str, Warmth]] = {}
        for (source, provider), state in self._states.items():
            states.setdefault(source, {})[provider] = copy.deepcopy(state)
        return states

    def load(self, states: Mapping[str, Mapping[str, Warmth]]) -> None:
        """Goes on with what was dumped; where two owners become one, what they sent today adds up."""
        for source, providers in states.items():
            for provider, state in providers.items():
                known = self._states.get((source, provider))
                if known is None:
                    self._states[source, provider] = copy.deepcopy(state)
                elif known.today.start_s == state.today.start_s:
                    known.today.sent += state.today.sent
                    known.today.day = min(known.today.day, state.today.day)

    def _ended(self, source: str, provider: str) -> None:
        left = self._under_way.pop((source, provider), 0) - 1
        if left > 0:
            self._under_way[source, provider] = left

    def _look(self, plan: Plan, provider: str, now_s: float) -> Warmth:
        """The state, with the calendar day that it is now as today."""
        key = plan.source, provider
        state = self._states.get(key)
        if state is not None and state.today.start_s <= now_s < state.today.start_s + _DAY_S - 2 * 3600:
            return state  # no day is shorter than that
        start_s, _ = period("day", self._zones(plan.zone), now_s)
        if state is None:
            self._forget()
            state = self._states[key] = Warmth([Day(start_s)])
        elif start_s != state.today.start_s:
            _turn_to(state, plan.days_of(provider), start_s)
        return state

    def _forget(self) -> None:
        """Room for one more."""
        if len(self._states) >= STATES_MAX:
            del self._states[min(self._states, key=lambda key: self._states[key].today.start_s)]


def _turn_to(state: Warmth, days: Sequence[int], start_s: float) -> None:
    """It is another calendar day: one that was there before goes on, a new one follows the day before it."""
    known = next((day for day in state.days if day.start_s == start_s), None)
    if known is not None:
        state.days.remove(known)
    else:
        earlier = [day for day in state.days if day.start_s < start_s]
        if earlier:
            known = _next_day(max(earlier, key=lambda day: day.start_s), days, start_s, state.owners)
        else:
            known = msgspec.structs.replace(state.today, start_s=start_s)  # nothing is allowed twice
    state.days = [*(day for day in state.days if day.sent or day.complaints), known][-DAYS_KEPT:]


def _next_day(last: Day, days: Sequence[int], start_s: float, owners: int) -> Day:
    """A day is over: does it count?"""
    day = last.day
    if last.sent:
        day -= last.back
        if last.is_held:
            day = max(0, min(day, len(days)) - 1)
        elif day < len(days) and last.sent >= USED_SHARE * days[day] / owners:
            day += 1
    idle_days = round((start_s - last.last_sent_s) / _DAY_S - 0.5) if last.last_sent_s else 0
    back = max(0, idle_days - IDLE_DAYS) if day < len(days) else 0
    return Day(start_s, day, day if idle_days >= COLD_DAYS else min(day, back), last_sent_s=last.last_sent_s)
