"""A restraint: what one firing does to the mail of its scope key, at one owner. Pure.

Some scopes are of all the mail that one source has for one site (source, netblock, site, provider): there it is the
connections that are slowed or stopped. The others are of single messages: of these so many may be under way as a
firing says connections. What the policy itself allows holds beside it; whoever sends asks both.
Buckets run on monotonic seconds (`now_s`), firings on Unix seconds (`wall_s`).
"""

import math

from msgspec.structs import replace

from mta_policies.adapting import nearest
from mta_policies.answers import Subject, scope_key
from mta_policies.firing import Change, Firing
from mta_policies.firings import Firings
from mta_policies.limits import Meter, Share
from mta_policies.policy import Policy
from mta_policies.probing import Probing
from mta_policies.schema import Limits
from mta_policies.units import Rate

POOL_SCOPES = ("source", "netblock", "site", "provider")
"""What all mail of a source for a site has in common."""

JOB_SCOPES = ("recipient", "tenant", "campaign", "dkim-domain", "spf-domain", "path")
"""What single messages have."""

EFFECTIVE = frozenset({"slow", "suspend", "probe"})
"""Actions that keep mail back; an alert does not."""

NOTHING = Limits()


def keys_of_pool(subject: Subject) -> list[str]:
    """Every scope key that a source at a site has."""
    return [key for scope in POOL_SCOPES if (key := scope_key(scope, subject))]


def keys_of_job(subject: Subject) -> list[str]:
    """Every scope key that a message has beside."""
    return [key for scope in JOB_SCOPES if (key := scope_key(scope, subject))]


def provider_of_key(key: str) -> str:
    """The provider that a scope key is of."""
    _, bound, provider = key.rpartition(" > ")
    return provider if bound else key.partition(" ")[2]


class Restraint:
    """What a firing does; `change` follows the firing as it is extended or goes on."""

    __slots__ = ("_firings", "_policy", "_probing", "_share", "_source", "firing", "is_of_pools", "meter")

    def __init__(
        self,
        firing: Firing,
        firings: Firings,
        policy: Policy,
        source: str,
        share: Share,
        now_s: float,
        wall_s: float,
    ) -> None:
        """`source`: its name, where the firing is of one."""
        self.firing = firing
        self.is_of_pools = firing.scope in POOL_SCOPES
        self._firings = firings
        self._policy = policy
        self._source = source
        self._share = share
        self._probing = self._probing_of(firing, wall_s)
        self.meter = Meter(self._limits(wall_s), share, now_s)
        """What goes is told to it as to the policy's own."""

    def change(self, firing: Firing, now_s: float, wall_s: float) -> None:
        """The same firing, a little later: extended, or one step on, here or at another owner."""
        known = self.firing
        self.firing = firing
        if self._probing is None or firing.last_s != known.last_s or firing.state != self._probing.state():
            self._probing = self._probing_of(firing, wall_s)
        self.meter.change(self._limits(wall_s), self._share, now_s)

    def reload(self, policy: Policy, share: Share, now_s: float, wall_s: float) -> None:
        """Another version of the policy, or another share of it."""
        self._policy, self._share = policy, share
        if self._probing is not None:
            self._probing.goal = self._goal() or self._probing.goal
        self.meter.change(self._limits(wall_s), share, now_s)

    # asked

    def wait_s(self, wall_s: float) -> float:
        """Seconds in which nothing goes at all; 0.0: something may, as far as the meter lets it."""
        if self.firing.action == "suspend":
            return max(0.0, self.firing.until_s - wall_s)
        return self._probing.wait_s(wall_s) if self._probing is not None else 0.0

    @property
    def listens(self) -> bool:
        """Whether it wants to hear of what was delivered."""
        return self._probing is not None

    def tightened(self, limits: Limits) -> Limits:
        """The limits of a source at a site, as far as this is about each of them."""
        effect = self.firing.effect
        if self.firing.action != "slow" or not self.is_of_pools:
            return limits
        if effect.factor:
            limits = scaled(limits, effect.factor)
        return replace(
            limits,
            messages_per_connection=_lower(limits.messages_per_connection, effect.messages_per_connection),
            recipients_per_transaction=_lower(limits.recipients_per_transaction, effect.recipients_per_transaction),
        )

    # told: the steps of a probe, done in `firings` already; None where nothing of note has changed

    def opened(self, wall_s: float) -> Change | None:
        """A connection was begun, or a transaction of a message's own scope."""
        return self._step(self._probing.opened(wall_s), wall_s) if self._probing is not None else None

    def delivered(self, wall_s: float, begun_s: float) -> Change | None:
        """A message was taken, on a connection that was begun then."""
        return self._step(self._probing.delivered(wall_s, begun_s), wall_s) if self._probing is not None else None

    def refused(self, wall_s: float) -> Change | None:
        """The rule matched again, its trigger pulled or not: the time of the firing counts from the last failure."""
        if self._probing is None:
            return None
        return self._step(self._probing.refused(wall_s), wall_s, has_failed=True)

    def _step(self, why: str, wall_s: float, *, has_failed: bool = False) -> Change | None:
        probing = self._probing
        if not why or probing is None:
            return None
        if probing.is_well:
            return self._firings.end(self.firing.id, wall_s, why)
        return self._firings.step(self.firing.id, probing.state(), wall_s, why, has_failed=has_failed)

    # what it comes to

    def _probing_of(self, firing: Firing, wall_s: float) -> Probing | None:
        return Probing.of(firing, self._goal(), wall_s) if firing.action == "probe" else None

    def _goal(self) -> int:
        """The connections behind which all is well."""
        return self._policy.connections_max(self._source)

    def _limits(self, wall_s: float) -> Limits:
        """What the meter measures."""
        effect = self.firing.effect
        if self._probing is not None:
            return Limits(connections=max(1, self._probing.connections_max(wall_s)))
        if self.firing.action != "slow":
            return NOTHING
        level = scaled(self._level(), effect.factor) if effect.factor else NOTHING
        return Limits(
            connections=_lower(level.connections, effect.connections),
            connection_rate=(*level.connection_rate, *effect.connection_rate),
            rate=(*level.rate, *effect.rate),
        )

    def _level(self) -> Limits:
        """What the policy says for all of the firing's mail together."""
        match self.firing.scope:
            case "source" | "netblock":
                return self._policy.for_source(self._source).source_limits
            case "provider":
                return self._policy.provider_limits
            case _:
                return NOTHING


def scaled(limits: Limits, factor: float) -> Limits:
    """A part of every rate and of the connections, never less than one."""
    return replace(
        limits,
        connections=max(1, math.floor(limits.connections * factor)) if limits.connections else 0,
        connection_rate=tuple(_scaled(rate, factor) for rate in limits.connection_rate),
        rate=tuple(_scaled(rate, factor) for rate in limits.rate),
    )


def _scaled(rate: Rate, factor: float) -> Rate:
    return nearest(rate.per_second * factor)


def _lower(one: int, other: int) -> int:
    """The smaller of two counts of which 0 means no limit."""
    return min(one, other) if one and other else one or other
