"""Warm-up: a new source sends a little more on every day that it really sent. Pure: now_s is Unix seconds.

A plan says how many messages a provider may be sent on the first day, the second, and so on; behind its end there is no
limit. A message to three recipients counts as three. A day counts only where most of what it allowed was really taken
by the provider: a source that had nothing to send is no warmer for it, and one that was left alone for long goes some
days back. Where the provider complains, the source goes a day back at once. What is over the plan goes by the pool of
warm sources, or waits for the next day.

What a day allows is drawn from an account that all workers share (`allotments`), so that neither several owners nor a
crash pass it; how warm a source is is a state of its owner's, saved every few seconds.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from mta_policies.allotments import Allotment, Draw
from mta_policies.limits import WHOLE, Share
from mta_policies.local_time import Zones, period
from mta_policies.schema import Quota
from mta_policies.warmth import DAY_S, Day, Plan, Turn, Warmth, is_newer, turn_to

BAD_SHARE = 0.05  # of a day's answers, that complain: the provider is not pleased
BAD_MIN = 3  # complaints; fewer are chance
STATES_MAX = 20_000  # sources times providers, 10 MB; those that were idle longest are forgotten, and begin anew
FORGOTTEN_SHARE = 10  # a tenth of them at once
PORTION_MIN = 10  # messages that are drawn at a time, or
PORTION_SHARE = 20  # a twentieth of the day's: what a crash loses
COMMON_AT_ONCE = 100  # of several owners' that are looked through at a time for what is idle
SAVE_S = 2.0  # how long the file may lack what was taken

PREFIX = "warmup"
"""Of what is kept, of accounts, and of what a worker hands to another."""

_ACCOUNT = f"{PREFIX} "
_BETWEEN = " > "


class Standing(NamedTuple):
    """How a source stands at a provider, for people to look at."""

    plan: Plan
    provider: str
    share: Share
    today: Day
    ends_s: float
    """When the calendar day ends."""
    under_way: int


class _State:
    """What this worker knows of one source at one provider."""

    __slots__ = ("allotment", "share", "under_way", "warmth")

    def __init__(self, warmth: Warmth, share: Share) -> None:
        self.warmth = warmth
        self.share = share
        self.allotment: Allotment | None = None
        """What it has drawn; None where there is no limit."""
        self.under_way = 0


_Key = tuple[str, str]  # source and provider


class Warmup:
    """All sources that are being warmed, at the providers that this worker sends to. `told` hears of every turn."""

    def __init__(self, plans: Sequence[Plan], zones: Zones, told: Callable[[Turn], None] = lambda turn: None) -> None:
        self._zones = zones
        self._told = told
        self._plans: dict[str, Plan] = {plan.source: plan for plan in plans}
        self._states: dict[_Key, _State] = {}
        self._kept: dict[_Key, dict[Share, Warmth]] = {}
        """What is known of shares that this worker does not have now."""
        self._wanting: set[_Key] = set()
        """Whose allotment is short."""
        self._back: list[Draw] = []
        """What was drawn and is not needed."""
        self._common: dict[_Key, None] = {}
        """Those that have several owners: what one does not use is another's."""
        self._changed: set[tuple[_Key, Share]] = set()
        self._is_urgent = False
        self._saved_s = 0.0

    def plan(self, source: str) -> Plan | None:
        """None: this source is not being warmed, and nothing here need be called for it."""
        return self._plans.get(source)

    # asked

    def room(self, source: str, provider: str, now_s: float, share: Share = WHOLE) -> float:
        """How many more messages may be begun now, those under way counted as sent; inf: no limit. What may be sent
        and is not drawn yet is wanted from then on."""
        plan = self._plans.get(source)
        if plan is None:
            return math.inf
        if now_s < plan.start_s:
            return 0.0
        state = self._look(plan, provider, now_s, share)
        allotment = state.allotment
        if allotment is None:
            return math.inf
        left = _left(state, plan, provider)
        if left > 0 and allotment.wait_s(now_s) > 0:
            self._wants(source, provider, allotment)
        return max(0.0, min(allotment.free(now_s) - state.under_way, left))

    def left(self, source: str, provider: str, now_s: float, share: Share = WHOLE) -> float:
        """How many more messages may perhaps be begun today, drawn or not; 0.0: none, but for those that fail."""
        room = self.room(source, provider, now_s, share)
        plan, state = self._plans.get(source), self._states.get((source, provider))
        if room == math.inf or plan is None or state is None or state.allotment is None or now_s < plan.start_s:
            return room
        return room if state.allotment.is_used_up(now_s) else _left(state, plan, provider)

    def wait_s(self, source: str, provider: str, now_s: float, share: Share = WHOLE) -> float:
        """0.0: one may be begun; inf: when one that is under way has failed, or some are drawn; else seconds until the
        next day or the start."""
        if self.room(source, provider, now_s, share) > 0:
            return 0.0
        plan = self._plans[source]
        if now_s < plan.start_s:
            return plan.start_s - now_s
        state = self._states[source, provider]
        if self.left(source, provider, now_s, share) > 0 or state.under_way:
            return math.inf
        return max(1.0, period("day", self._zones(plan.zone), now_s)[1] - now_s)

    def allowed(self, source: str, provider: str, now_s: float, share: Share = WHOLE) -> tuple[int, float, int]:
        """The day of the plan (from 1), what it allows today, and how much of it was taken; a source with a plan."""
        plan = self._plans[source]
        today = self._look(plan, provider, now_s, share).warmth.today
        return today.in_force + 1, today.allowed(plan.days_of(provider)), today.sent

    def standings(self, now_s: float) -> Iterator[Standing]:
        """All that is known of sources with a plan; looking changes nothing, and may take many turns of a loop."""
        for key, state in list(self._states.items()):
            yield from self._standing(key, state.share, state.warmth, now_s, state.under_way)
        for key, shares in list(self._kept.items()):
            for share, warmth in list(shares.items()):
                yield from self._standing(key, share, warmth, now_s, 0)

    def _standing(self, key: _Key, share: Share, warmth: Warmth, now_s: float, under_way: int) -> Iterator[Standing]:
        plan = self._plans.get(key[0])
        if plan is not None:
            start_s, ends_s = period("day", self._zones(plan.zone), now_s)
            if warmth.today.start_s != start_s:
                warmth = Warmth(list(warmth.days), warmth.owners)
                turn_to(warmth, plan.days_of(key[1]), start_s)
            yield Standing(plan, key[1], share, warmth.today, ends_s, under_way)

    # told

    def began(self, source: str, provider: str, count: int = 1) -> None:
        """So many are being sent; `delivered` or `failed` follows for each."""
        state = self._states.get((source, provider))
        if state is not None:
            state.under_way += count

    def delivered(self, source: str, provider: str, now_s: float, count: int = 1) -> None:
        """The provider took so many of them."""
        plan = self._plans.get(source)
        if plan is not None and count:
            state = self._ended(plan, provider, now_s, count)
            self._take(source, provider, state, now_s, count)
            today = state.warmth.today
            today.sent += count
            today.last_sent_s = now_s
            self._changed.add(((source, provider), state.share))

    def failed(self, source: str, provider: str, now_s: float, count: int = 1, *, perhaps: bool = False) -> None:
        """So many were not taken. `perhaps`: nobody knows; what the day allows is less by them."""
        plan = self._plans.get(source)
        if plan is not None and count:
            state = self._ended(plan, provider, now_s, count)
            if perhaps:
                state.warmth.today.perhaps += count
                self._take(source, provider, state, now_s, count)

    def complained(self, source: str, provider: str, now_s: float, rule: str = "") -> str:
        """An answer spoke of reputation, rate or spam; `rule`: it set off this rule, which slows, suspends or probes.
        -> why the source is held from now on; "": nothing has changed."""
        plan = self._plans.get(source)
        state = self._states.get((source, provider))
        if plan is None or state is None:
            return ""
        state = self._look(plan, provider, now_s, state.share)
        today, days = state.warmth.today, plan.days_of(provider)
        if today.day - today.back >= len(days):
            return ""
        today.complaints += 1
        self._changed.add(((source, provider), state.share))
        is_much = today.complaints >= max(BAD_MIN, BAD_SHARE * (today.sent + today.complaints))
        if today.held_s or not (rule or is_much):
            return ""
        taken = f"{today.sent:,} message{'' if today.sent == 1 else 's'} taken"
        today.why = f"rule {rule} beside {taken}" if rule else f"{today.complaints:,} complaints beside {taken}"
        today.held_s = now_s
        self._allot(state, plan, provider, now_s)
        self._turned("held", (plan.source, provider), state, now_s, today.why)
        return today.why

    def change(self, plans: Sequence[Plan]) -> None:
        """Other plans from now on; a source that is in both goes on where it was, and one that comes back, too."""
        self._plans = {plan.source: plan for plan in plans}
        for key, state in list(self._states.items()):
            plan = self._plans.get(key[0])
            if plan is None:
                self._leave(key, state, state.warmth.today.start_s)
            else:
                self._allot(state, plan, key[1], state.warmth.today.start_s)

    # kept

    def to_save(self, now_s: float) -> dict[str, Warmth]:
        """What has changed, every few seconds; nobody waits for it."""
        if not self._changed or not (self._is_urgent or abs(now_s - self._saved_s) >= SAVE_S):
            return {}
        self._is_urgent, self._saved_s = False, now_s
        return self._take_changed()

    def _take_changed(self) -> dict[str, Warmth]:
        changed, self._changed = self._changed, set()
        found: dict[str, Warmth] = {}
        for key, share in changed:
            state = self._states.get(key)
            is_its = state is not None and state.share == share
            warmth = state.warmth if state is not None and is_its else self._kept.get(key, {}).get(share)
            if warmth is not None:
                found[_text(key, share)] = warmth
        return found

    def dump(self) -> dict[str, Warmth]:
        """How warm all are that this worker sends from, by "source > provider" and the share."""
        states = {_text(key, state.share): state.warmth for key, state in self._states.items()}
        return copy.deepcopy(self._take_changed() | states)

    def load(self, states: Mapping[str, Warmth]) -> None:
        """What was kept, by anybody; where less was counted than is known it says nothing new."""
        for text, warmth in states.items():
            (source, provider), share = _key_of(text)
            self.take_over(source, provider, share, warmth)

    def take_over(self, source: str, provider: str, share: Share, warmth: Warmth) -> None:
        """One of them."""
        key = source, provider
        state = self._states.get(key)
        if state is not None and state.share == share:
            if is_newer(warmth, state.warmth):
                state.warmth = copy.deepcopy(warmth)
            return
        shares = self._kept.setdefault(key, {})
        if share not in shares or is_newer(warmth, shares[share]):
            shares[share] = copy.deepcopy(warmth)

    def counted(self, provider: str) -> Iterator[tuple[str, Share, Warmth]]:
        """What this worker has counted there: source, of which share, how warm."""
        for source in self._plans:
            state = self._states.get((source, provider))
            if state is not None:
                yield source, state.share, state.warmth
            for share, warmth in self._kept.get((source, provider), {}).items():
                yield source, share, warmth

    def leave(self, provider: str, now_s: float) -> None:
        """This worker has nothing to send there any more: what was drawn is given back."""
        for source in self._plans:
            state = self._states.get((source, provider))
            if state is not None and not state.under_way:
                self._leave((source, provider), state, now_s)

    # drawn

    @property
    def wants(self) -> bool:
        """Whether `draws` has something to say."""
        return bool(self._wanting or self._back)

    @property
    def is_common(self) -> bool:
        """Whether `draws` is to be asked from time to time, too: what is idle goes back."""
        return bool(self._common)

    def draws(self, now_s: float) -> list[Draw]:
        """What to ask accounts for now; `drawn` follows for each that is not given back."""
        for key in list(islice(self._common, COMMON_AT_ONCE)):
            del self._common[key]
            state = self._states.get(key)
            if state is not None and state.share.of > 1:
                self._common[key] = None
                self._give_back(state, now_s, is_all=False)
        draws, self._back = self._back, []
        wanting, self._wanting = self._wanting, set()
        for key in wanting:
            state = self._states.get(key)
            draw = state.allotment.draw(now_s) if state is not None and state.allotment is not None else None
            if draw is not None:
                draws.append(draw)
        return draws

    def drawn(self, draw: Draw, got: int, now_s: float) -> _Key:
        """The answer is safe on disk. -> the source and the provider that may go on."""
        source, _, provider = draw.key.removeprefix(_ACCOUNT).partition(_BETWEEN)
        state = self._states.get((source, provider))
        if state is not None and state.allotment is not None:
            state.allotment.drawn(draw.start_s, got, now_s)
        elif got > 0:  # who wanted it has nothing to send any more
            self._back.append(Draw(draw.key, draw.start_s, draw.end_s, draw.whole, -got))
        return source, provider

    def give_back(self, now_s: float) -> list[Draw]:
        """All that was drawn and not used: this worker stops."""
        for state in self._states.values():
            self._give_back(state, now_s)
        back, self._back = self._back, []
        return back

    # inside

    def _ended(self, plan: Plan, provider: str, now_s: float, count: int) -> _State:
        state = self._states.get((plan.source, provider))
        state = self._look(plan, provider, now_s, state.share if state is not None else WHOLE)
        state.under_way = max(0, state.under_way - count)
        return state

    def _take(self, source: str, provider: str, state: _State, now_s: float, count: int) -> None:
        allotment = state.allotment
        if allotment is not None:
            for _ in range(count):
                allotment.take(now_s)
            self._wants(source, provider, allotment)

    def _wants(self, source: str, provider: str, allotment: Allotment) -> None:
        if allotment.wants:
            self._wanting.add((source, provider))

    def _look(self, plan: Plan, provider: str, now_s: float, share: Share) -> _State:
        """The state, with the calendar day that it is now as today."""
        key = plan.source, provider
        state = self._states.get(key)
        if state is not None and state.share is share:
            today = state.warmth.today
            if today.start_s <= now_s < today.start_s + DAY_S - 2 * 3600:
                return state  # no day is shorter than that
        start_s, _ = period("day", self._zones(plan.zone), now_s)
        if state is None:
            self._forget(now_s)
            state = self._states[key] = _State(self._take_up(key, share, start_s), share)
            self._allot(state, plan, provider, now_s)
        elif state.share != share:
            self._kept.setdefault(key, {})[state.share] = state.warmth
            state.warmth = self._take_up(key, share, start_s)
        state.share = share
        state.warmth.owners = share.of
        if share.of > 1:
            self._common[key] = None
        last = state.warmth.today
        if start_s != last.start_s:
            days = plan.days_of(provider)
            why = turn_to(state.warmth, days, start_s)
            today = state.warmth.today
            if today.in_force != last.in_force and today.start_s > last.start_s:
                is_warm = today.allowed(days) == math.inf
                self._turned("warm" if is_warm else "day", key, state, now_s, why)
        self._allot(state, plan, provider, now_s)
        return state

    def _take_up(self, key: _Key, share: Share, start_s: float) -> Warmth:
        """What is known of this share; else it begins where the coldest of the others is."""
        shares = self._kept.get(key, {})
        known = shares.pop(share, None)
        if not shares:
            self._kept.pop(key, None)
        if known is not None:
            return known
        if not shares:
            return Warmth([Day(start_s)], share.of)
        latest_s = max(warmth.today.start_s for warmth in shares.values())
        others = [warmth.today for warmth in shares.values() if warmth.today.start_s == latest_s]
        coldest = min(others, key=lambda day: day.day - day.back)
        return Warmth([msgspec.structs.replace(coldest, sent=0, perhaps=0, complaints=0)], share.of)

    def _allot(self, state: _State, plan: Plan, provider: str, now_s: float) -> None:
        """What this day allows is drawn from its account."""
        allowed, allotment = state.warmth.today.allowed(plan.days_of(provider)), state.allotment
        if allowed == math.inf:
            self._give_back(state, now_s)
            state.allotment = None
            return
        count = int(allowed)
        if allotment is None:
            portion = max(1, min(count, max(PORTION_MIN, count // PORTION_SHARE)) // state.share.of)
            account, quota = f"{_ACCOUNT}{plan.source}{_BETWEEN}{provider}", Quota(count, "day", plan.zone)
            state.allotment = Allotment(account, quota, state.share.of, self._zones, now_s, portion=portion)
        elif allotment.quota.count != count or allotment.quota.zone != plan.zone:
            allotment.quota = Quota(count, "day", plan.zone)

    def _give_back(self, state: _State, now_s: float, *, is_all: bool = True) -> None:
        """What was drawn, or (not `is_all`) was idle for long, goes back to the account; not where some of it is under
        way."""
        if state.allotment is not None and not state.under_way:
            draw = state.allotment.give_back(now_s, is_all=is_all)
            if draw is not None:
                self._back.append(draw)

    def _leave(self, key: _Key, state: _State, now_s: float) -> None:
        del self._states[key]
        self._give_back(state, now_s)
        self._kept.setdefault(key, {})[state.share] = state.warmth

    def _turned(self, what: Literal["day", "warm", "held"], key: _Key, state: _State, now_s: float, why: str) -> None:
        self._changed.add((key, state.share))
        self._is_urgent = True
        source, provider = key
        today, days = state.warmth.today, self._plans[source].days_of(provider)
        allowed = today.allowed(days)
        day = min(today.in_force, len(days) - 1) + 1
        allows = 0 if allowed == math.inf else int(allowed)
        self._told(Turn(what, source, provider, now_s, day, len(days), allows, today.sent, why))

    def _forget(self, now_s: float) -> None:
        """Room for one more."""
        if len(self._states) >= STATES_MAX:
            quiet = [key for key, state in self._states.items() if not state.under_way]
            quiet.sort(key=lambda key: self._states[key].warmth.today.last_sent_s)
            for key in quiet[: max(1, STATES_MAX // FORGOTTEN_SHARE)]:
                del self._states[key]


def _left(state: _State, plan: Plan, provider: str) -> float:
    """What today allows and nobody has begun here."""
    today = state.warmth.today
    return today.allowed(plan.days_of(provider)) - today.sent - today.perhaps - state.under_way


def _text(key: _Key, share: Share) -> str:
    return f"{key[0]}{_BETWEEN}{key[1]} {share.tag}"


def _key_of(text: str) -> tuple[_Key, Share]:
    source, _, rest = text.partition(_BETWEEN)
    provider, _, tag = rest.rpartition(" ")
    return (source, provider), Share.of_tag(tag)
