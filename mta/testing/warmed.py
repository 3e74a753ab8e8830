"""Warmed: what providers took from sources that are new, day by day, laid beside the plans of `[[warmup]]`.

Nobody out here knows on which day of its plan a source is, but the latest that it can be: one further for every
calendar day on which half of what was allowed was really taken. So much a day is the most, whoever sent it, crashes or
not. Where the event log says that a source is held, no more goes than the day before allows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from mta.config import Config
from mta.testing.promised_mail import Recipient
from mta.testing.scripted_provider import Taken, Transaction
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.watcher import TAKEN_S, Watcher, Wrong, owners_of
from mta_policies.local_time import period
from mta_policies.warmth import USED_SHARE, Plan

Key = tuple[str, str]
"""Source and provider."""


class Warmed(Watcher):
    """Of one machine."""

    def __init__(self, clock: SimulatedClock, owners: int) -> None:
        """`owners`: how many a destination has at most, of which each says for itself when a day is over."""
        self.turns: Counter[str] = Counter()
        """What the event log said of plans."""
        self.full = 0
        """How often all was taken that a day may allow."""
        self._clock = clock
        self._owners = owners
        self._plans: dict[str, Plan] = {}
        self._shared: set[str] = set()
        """Providers with several owners, of whom each is held by itself."""
        self._sources: set[str] = set()
        self._taken: dict[Key, dict[float, int]] = {}
        """Recipients on each calendar day, the earliest met first."""
        self._held: dict[Key, tuple[float, float, int]] = {}
        """Since when, monotonic, on which day, and what it allows then."""

    def configured(self, config: Config) -> None:
        """See `Watcher`."""
        self._plans = {plan.source: plan for plan in config.warmup_plans}
        policies = config.policy_set.policies
        self._shared = {name for name, policy in policies.items() if owners_of(policy, config) > 1}
        self._sources |= self._plans.keys()
        self._held.clear()  # perhaps another worker goes on

    def killed(self) -> None:
        """See `Watcher`."""
        self._held.clear()

    def delays(self, recipient: Recipient, transaction: Transaction) -> bool:
        """See `Watcher`: what goes by the overflow pool came from a new source."""
        return bool(self._sources)

    def begun(self, recipient: Recipient, transaction: Transaction, *, is_first: bool) -> Iterator[Wrong]:
        """See `Watcher`."""
        plan = self._plans.get(transaction.source)
        if plan is None:
            return
        where = f"{recipient.address} goes to {transaction.provider} from {plan.source}"
        wall_s = self._clock.reached(transaction.sent_s)
        if wall_s < plan.start_s:
            yield f"{where} before its plan begins", recipient.message
        since_s, day_s, allowed = self._held.get((plan.source, transaction.provider), (0.0, 0.0, 0))
        if allowed and transaction.sent_s > since_s + TAKEN_S and self._day_s(plan, transaction.sent_s) == day_s:
            known = self._taken.get((plan.source, transaction.provider), {}).get(day_s, 0)
            if known >= allowed:
                yield f"{where}, which is held and has sent {known}, {allowed} are allowed", recipient.message

    def _day_s(self, plan: Plan, at_s: float) -> float:
        return period("day", ZoneInfo(plan.zone), self._clock.wall_at(at_s))[0]

    def taken(self, taken: Taken, recipients: list[Recipient]) -> Iterator[Wrong]:
        """See `Watcher`."""
        transaction = taken.transaction
        plan = self._plans.get(transaction.source)
        if plan is None:
            return
        days = self._taken.setdefault((plan.source, transaction.provider), {})
        day_s = self._day_s(plan, transaction.sent_s)
        is_heard = taken.reply_s < float("inf")
        if is_heard and self._day_s(plan, taken.reply_s) != day_s:
            return  # it counts on the day on which it ends
        days[day_s] = days.get(day_s, 0) + len(recipients)
        allowed = self._allowed(plan, transaction.provider, days, day_s)
        self.full += days[day_s] == allowed
        if days[day_s] > allowed:
            told = f"{transaction.provider} took {days[day_s]} from {plan.source} in a day, {allowed:g} are allowed"
            yield told, recipients[0].message

    def _allowed(self, plan: Plan, provider: str, days: Mapping[float, int], day_s: float) -> float:
        """On a calendar day, at most."""
        planned, day = plan.days_of(provider), 0
        for start_s, count in days.items():
            if start_s == day_s:
                break
            day += day < len(planned) and count >= USED_SHARE * planned[day] / self._owners
        return planned[day] if day < len(planned) else float("inf")

    def told(self, event: Mapping[str, Any]) -> Iterator[Wrong]:
        """See `Watcher`."""
        if event["event"] != "warmup":
            return
        change, source, provider = event["change"], event["source"], event["provider"]
        self.turns[change] += 1
        plan, allowed = self._plans.get(source), event.get("allowed", 0)
        if plan is None:
            return
        planned = plan.days_of(provider)
        if (change == "warm") != (not allowed) or (allowed and allowed not in planned):
            yield f"the plan of {source} at {provider} is told as {change}, {allowed} allowed", None
        if not event.get("reason"):
            yield f"nobody says why {source} is on day {event['day']} at {provider}", None
        if change == "held" and provider not in self._shared:
            now_s = self._clock.monotonic_s()
            self._held[source, provider] = now_s, self._day_s(plan, now_s), allowed
