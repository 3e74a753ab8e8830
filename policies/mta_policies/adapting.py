"""Adapting: a rate that falls fast when a provider complains and rises slowly while it does not. Pure: now_s is Unix
seconds.

Multiplicative decrease, additive increase, between the policy's floor and ceiling, for each source, DKIM domain and
site by itself. A complaint takes a part off what was really sent, not only off what was allowed; further ones mean the
same trouble until the lower rate was tried. Every minute that used at least half of what was allowed adds a part of the
rate that was complained of; near that rate and above a twentieth of it, so that most of the time is spent just below
what the provider takes. Hours after the last complaint caution ends. docs/decisions/0010-the-control-law.md has the
numbers.

What holds is a firing of the rule "adapt" that slows: it is listed, muted, cancelled, kept and told to other workers
as any other.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mta_policies.firing import Change, Firing
from mta_policies.firings import Firings
from mta_policies.limits import WHOLE, Share
from mta_policies.rulebook import Action
from mta_policies.schema import Limits
from mta_policies.units import Rate

if TYPE_CHECKING:
    from mta_policies.answers import Answer
    from mta_policies.schema import Adapt

RULE = "adapt"
SCOPE = "path"
HOLD_S = 60.0
"""One complaint a minute lowers the rate: the others are of mail that was under way."""

WINDOW_S = 60.0  # what was sent is looked at in minutes; a slower rate is raised at its next message
PACE_S_MIN = 15.0  # in a shorter time nobody has shown a pace
USED_SHARE = 0.5  # what was not used was not tried: it is no reason to allow more
CAUTION_FROM = 0.9  # of the rate that was complained of last: from there on it rises with caution
CALM_S = 6 * 3600.0  # after the last complaint: what was too much then may not be any more, and caution ends
TOLD_SHARE = 0.02  # a rise is a step, with an event, when it has come to so much
FORGET_S = 86400.0  # after a day without a complaint the ceiling holds again, used or not
PACE_SHARE_MIN = 0.1  # what was really sent is believed down to a tenth of what was allowed: one message a minute that
# is complained of does not mean that one a minute is too much


class Law(NamedTuple):
    """Between what, and in which steps; rates a second."""

    floor: float
    ceiling: float
    decrease: float = 0.5
    """Part that a complaint takes off."""
    increase: float = 0.01
    """Part of the rate complained of last that a minute puts on."""
    caution: float = 0.05
    """What is left of the increase near that rate and above."""

    @classmethod
    def of(cls, adapt: "Adapt", limits: Limits) -> "Law | None":
        """What a policy says; None where it says no ceiling."""
        ceiling = min((rate.per_second for rate in (*adapt.ceiling, *limits.rate)), default=0.0)
        if not ceiling:
            return None
        floor = min((rate.per_second for rate in adapt.floor), default=0.0)
        return cls(min(floor, ceiling), ceiling, adapt.decrease, adapt.increase)


class Adapting:
    """All adapted rates of one destination."""

    def __init__(
        self, policy: str, law: Law, firings: Firings, new_id: Callable[[], str], share: Share = WHOLE
    ) -> None:
        self.law = law
        self.share = share
        self._policy = policy
        self._firings = firings
        self._new_id = new_id
        self._windows: dict[str, _Window] = {}
        self._version = -1
        self._listens = False

    @property
    def listens(self) -> bool:
        """Whether anything is slowed: only then deliveries are to be told."""
        if self._version != self._firings.version:
            self._version = self._firings.version
            slowed = {firing.key for firing in self._firings.of_rule(self._policy, RULE)}
            self._listens = bool(slowed)
            self._windows = {key: window for key, window in self._windows.items() if key in slowed}
        return self._listens

    def rate(self, key: str) -> float:
        """What is allowed on this path now, a second."""
        firing = self._firing(key)
        return firing.state["rate"] if firing else self.law.ceiling

    def hurt(self, key: str, answer: "Answer", now_s: float, pace: float = 0.0) -> Change | None:
        """The provider complained. `pace`: messages a second that this owner really sent to the site lately, on
        whatever paths; 0.0: not known. -> None: that was the same trouble as the last complaint."""
        firing = self._firing(key)
        allowed = min(firing.state["rate"], self.law.ceiling) if firing else self.law.ceiling
        if firing is not None:
            window = self._window(key, now_s)
            window.count += 1
            if now_s - window.start_s >= WINDOW_S:
                window.next(now_s)
            # Of what was hardly tried since the last one, as by a refused probe, it says nothing about the rate.
            is_tried = window.has_delivered or window.count * self.share.of >= allowed * USED_SHARE * WINDOW_S
            if not is_tried or 0 <= now_s - firing.state["hurt_s"] < HOLD_S:
                return None
            pace = window.pace_now(now_s)  # of this path alone
        sent = min(allowed, max(pace * self.share.of, allowed * PACE_SHARE_MIN)) if pace else allowed
        rate = max(self.law.floor, min(allowed, sent * (1.0 - self.law.decrease)))
        self._windows[key] = _Window(now_s)
        state = {"rate": rate, "hurt": sent, "hurt_s": now_s, "since_s": now_s}
        why = f"{nearest(allowed)} to {nearest(rate)}:"
        effect = self._effect(rate)
        return self._firings.fire(
            self._policy, RULE, effect, key, answer, now_s, self._new_id(), scope=SCOPE, state=state, why=why
        )

    def delivered(self, key: str, now_s: float) -> Change | None:
        """A message was taken."""
        firing = self._firing(key)
        if firing is None:
            return None
        window = self._window(key, now_s)
        window.count += 1
        window.has_delivered = True
        if now_s - window.start_s < WINDOW_S:
            return None
        window.next(now_s)
        state = firing.state
        rate, hurt = state["rate"], state["hurt"]
        if window.pace * self.share.of < rate * USED_SHARE or 0 <= now_s - state["hurt_s"] < HOLD_S:
            return None
        is_cautious = rate >= CAUTION_FROM * hurt and 0 <= now_s - state["hurt_s"] < CALM_S
        step = hurt * self.law.increase * (self.law.caution if is_cautious else 1.0)
        window.gained += step / self.share.of
        raised = max(rate + window.gained, self.law.floor)
        if raised >= self.law.ceiling:
            del self._windows[key]
            return self._firings.end(firing.id, now_s, f"back at {nearest(self.law.ceiling)}")
        if raised - rate < TOLD_SHARE * rate:
            return None
        window.gained = 0.0
        state = state | {"rate": raised, "hurt": max(hurt, raised), "since_s": now_s}
        why = f"{nearest(rate)} to {nearest(raised)}"
        return self._firings.step(firing.id, state, now_s, why, self._effect(raised))

    def _window(self, key: str, now_s: float) -> "_Window":
        window = self._windows.get(key)
        if window is None or now_s < window.start_s:
            window = self._windows[key] = _Window(now_s)
        return window

    def _firing(self, key: str) -> Firing | None:
        return self._firings.find(self._policy, RULE, "slow", key)

    def _effect(self, rate: float) -> Action:
        return Action("slow", for_s=FORGET_S, rate=(nearest(rate),))


class _Window:
    """What was tried in the minute that is running, and how fast it was in the last one."""

    __slots__ = ("count", "gained", "has_delivered", "pace", "start_s")

    def __init__(self, start_s: float) -> None:
        self.start_s = start_s
        self.count = 0
        self.pace = 0.0
        self.gained = 0.0
        """By how much the rate may rise with the next step."""
        self.has_delivered = False
        """Since the rate was lowered last."""

    def next(self, now_s: float) -> None:
        """Another minute begins."""
        self.pace = self.count / (now_s - self.start_s)
        self.start_s, self.count = now_s, 0

    def pace_now(self, now_s: float) -> float:
        """A second: in the last minute or in this one, whichever was faster."""
        return max(self.pace, self.count / max(PACE_S_MIN, now_s - self.start_s))


def nearest(per_second: float) -> Rate:
    """A rate as people write it, at most a twentieth off."""
    for per_s in (1, 60, 3600):
        if per_second * per_s >= 10:
            return Rate(round(per_second * per_s), per_s)
    return Rate(max(1, round(per_second * 86400)), 86400)
