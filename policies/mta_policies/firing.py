"""A firing: one action of one rule for one scope key, in force for a while. And what is done to it.

These are values: plain data for files, for other workers and for the event log. `firings` keeps all that there are.
"""

from typing import Literal

import msgspec

from mta_policies.rulebook import Action

What = Literal["fired", "extended", "hit", "stepped", "ended", "cancelled", "muted", "unmuted"]


class Reply(msgspec.Struct, frozen=True):
    """The answer that a rule matched, cut."""

    code: int = 0
    enhanced: str = ""
    text: str = ""
    stage: str = ""
    host: str = ""


class Firing(msgspec.Struct, frozen=True):
    """An action in force, and why."""

    id: str
    policy: str
    rule: str
    action: str
    scope: str
    key: str
    """Whom it holds for: the scope and its value, "source out-1 > google"."""
    since_s: float
    until_s: float
    length_s: float
    """For how long it was last made or extended: it never lasts longer than that from now."""
    effect: Action
    """What the rule says is done: rate, connections, silence ..."""
    reply: Reply = Reply()
    """The latest that matched."""
    by: str = "rule"
    """Who made it or extended it last: "rule", or "command: WHO"."""
    hits: int = 1
    """How often the rule's trigger was pulled; of several owners of a destination the most that one of them saw."""
    last_s: float = 0.0
    """When last."""
    muted_until_s: float = 0.0
    """It has no effect before."""
    state: dict[str, float] = {}
    """How far its recovery has come, "since_s" being when its latest step was: kept by `probing` and `adapting`."""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What it is; of the same there is one at a time."""
        return self.policy, self.rule, self.action, self.key

    def is_in_force(self, now_s: float) -> bool:
        """Whether it has its effect."""
        return self.muted_until_s <= now_s < self.until_s


class Mute(msgspec.Struct, frozen=True):
    """What a rule fires has no effect for a while."""

    rule: str
    until_s: float
    length_s: float
    """For how long it was made: it never lasts longer than that from now."""
    policy: str = ""
    """Of this policy alone; "": of any."""
    key: str = ""
    """For this scope key alone; "": for all."""
    by: str = ""

    def is_for(self, firing: Firing) -> bool:
        return self.rule == firing.rule and self.policy in ("", firing.policy) and self.key in ("", firing.key)


class Change(msgspec.Struct, frozen=True):
    """Something was done to a firing or a mute.

    `hit`: the rule matched again and the end moved by less than a tenth: nothing for the event log, but the others
    are to know. All others are events.
    """

    what: What
    at_s: float
    firing: Firing | None = None
    mute: Mute | None = None
    by: str = "rule"
    """ "rule", "clock", or "command: WHO"."""
    why: str = ""

    @property
    def is_event(self) -> bool:
        return self.what != "hit"


class Snapshot(msgspec.Struct, frozen=True):
    """All that there is, as it is kept in a file and given to a worker that starts."""

    firings: tuple[Firing, ...] = ()
    mutes: tuple[Mute, ...] = ()
