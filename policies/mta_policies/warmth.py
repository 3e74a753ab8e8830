"""Warmth: how warm a source is at a provider, day by day. Pure.

The plan is a row of numbers: what one provider may be sent on the first day, the second, and so on. A day of it is
over when most of it was really taken on a calendar day; idle days and complaints go back.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from mta_policies.answers import Answer
from mta_policies.bounces import POLICY, SPAM

USED_SHARE = 0.5
"""A day on which at least this share of what was allowed was taken counts, and the next one allows more."""

IDLE_DAYS = 3  # so many days without mail change nothing: a long weekend; every further one is a day back
COLD_DAYS = 30  # idle for so long, it begins anew, warm or not: reputation is counted over a month
DAYS_KEPT = 4  # of them today is one; more than yesterday only for clocks that jump

DAY_S = 86400.0


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
        """`provider`: a policy's name, or a destination's key that ends in one ("route:0:google")."""
        return self.providers.get(provider.rpartition(":")[2], self.days) if self.providers else self.days


class Day(msgspec.Struct):
    """One calendar day of a source at a provider."""

    start_s: float
    day: int = 0
    """The day of the plan, from 0; as many as the plan has: it is warm."""
    back: int = 0
    """So many days before it the source is today, because it was idle; for good when something is sent."""
    sent: int = 0
    """Taken by the provider."""
    perhaps: int = 0
    """Nobody knows whether it was; so many less may be sent."""
    complaints: int = 0
    held_s: float = 0.0
    """When the provider had complained too much; 0.0: it has not."""
    why: str = ""
    """Of `held_s`."""
    last_sent_s: float = 0.0

    @property
    def in_force(self) -> int:
        """The day of the plan, from 0, that says what today allows."""
        return max(0, self.day - self.back - bool(self.held_s))

    def allowed(self, days: Sequence[int]) -> float:
        """How many messages this calendar day allows; inf: no limit."""
        return days[self.in_force] if self.in_force < len(days) else math.inf


class Warmth(msgspec.Struct):
    """How warm one source is at one provider."""

    days: list[Day]
    """The last calendar days with mail, and today, which is the last: a clock that jumps finds them again."""
    owners: int = 1
    """How many share the destination; each counts its own part."""

    @property
    def today(self) -> Day:
        return self.days[-1]


class Turn(NamedTuple):
    """A source is on another day of its plan at a provider: something for the event log."""

    what: Literal["day", "warm", "held"]
    """Another day of the plan | its plan is over | a day back at once."""
    source: str
    provider: str
    at_s: float
    day: int
    """From 1."""
    days: int
    allowed: int
    """Messages today; 0: no limit."""
    sent: int
    """Today."""
    why: str


def is_newer(warmth: Warmth, known: Warmth) -> bool:
    """Of two copies of a state one was counted further."""
    one, other = warmth.today, known.today
    return (one.start_s, one.sent, one.complaints) > (other.start_s, other.sent, other.complaints)


def turn_to(state: Warmth, days: Sequence[int], start_s: float) -> str:
    """It is another calendar day: one that was there before goes on, a new one follows the day before it. -> why it
    is the day of the plan that it is."""
    why = ""
    known = next((day for day in state.days if day.start_s == start_s), None)
    if known is not None:
        state.days.remove(known)
    else:
        earlier = [day for day in state.days if day.start_s < start_s]
        if earlier:
            known, why = _next_day(max(earlier, key=lambda day: day.start_s), days, start_s, state.owners)
        else:
            known = msgspec.structs.replace(state.today, start_s=start_s)  # nothing is allowed twice
    state.days = [*(day for day in state.days if day.sent or day.complaints), known][-DAYS_KEPT:]
    return why


def _next_day(last: Day, days: Sequence[int], start_s: float, owners: int) -> tuple[Day, str]:
    """A day is over: does it count?"""
    day, why = last.day, ""
    if last.sent:
        day -= last.back
        if last.held_s:
            day, why = max(0, min(day, len(days)) - 1), f"it was held: {last.why}"
        elif day < len(days) and last.sent >= USED_SHARE * days[day] / owners:
            day, why = day + 1, f"{last.sent:,} of {days[day]:,} messages were taken"
    idle_days = round((start_s - last.last_sent_s) / DAY_S - 0.5) if last.last_sent_s else 0
    back = max(0, idle_days - IDLE_DAYS) if day < len(days) else 0
    back = day if idle_days >= COLD_DAYS else min(day, back)
    if back:
        why = f"nothing was sent for {idle_days:,} days"
    return Day(start_s, day, back, last_sent_s=last.last_sent_s), why


def what_next(today: Day, days: Sequence[int], owners: int = 1) -> tuple[int, int]:
    """The day of the plan (from 0; as many as it has: over) that follows today as it stands, and how many messages have
    to be taken today yet for the one after that; 0: none."""
    then, _ = _next_day(today, days, today.start_s + DAY_S, owners)
    missing = 0
    if not today.held_s and today.in_force < len(days):
        missing = max(0, math.ceil(USED_SHARE * days[today.in_force] / owners) - today.sent)
    return min(then.in_force, len(days)), missing


def complains(category: str, answer: Answer) -> bool:
    """Whether a provider says that it does not like what a source sends; one that greylists says so to everybody."""
    if category not in (POLICY, SPAM) or not answer.from_peer:
        return False
    return not answer.is_greylisting
