"""How much happens in a scenario, and how often policies and mta.toml say more than limits and retries."""

from collections.abc import Callable
from random import Random
from typing import TypeVar

import msgspec

from mta.testing.drawn_adapts import DrawnAdapts
from mta.testing.drawn_hours import DrawnHours
from mta.testing.drawn_limits import DrawnLimits
from mta.testing.drawn_plans import DrawnPlans
from mta.testing.drawn_tenants import DrawnTenants

T = TypeVar("T")


class Size(msgspec.Struct, frozen=True):
    """How much happens. What is a float but `trouble_s` is how often there is such a thing, of 1."""

    messages: int = 24
    trouble_s: float = 3600.0
    accidents: int = 2
    """Crashes, power failures and restarts."""
    acts: int = 4
    """Of admins: suspensions, holds, cancellations, reloads."""
    crowds: float = 0.35
    """Much mail of several tenants and priorities for one destination."""
    rules: float = 0.4
    """Policies with rules."""
    quotas: float = 0.25
    """Policies with quotas."""
    limits: float = 0.12
    """Limits across destinations."""
    plans: float = 0.2
    """Sources that are new, where there are sources."""
    hours: float = 0.12
    """Hours in which mail may go."""
    adapts: float = 0.15
    """Rates that follow what the provider says."""
    tenants: float = 0.15
    """Tenants with limits and retries of their own."""
    owners: tuple[int, ...] = (1, 1, 2)
    """How many workers a destination has, as far as there are as many: one of these."""


SMALL = Size()
BIG = Size(messages=250, trouble_s=20 * 3600.0, accidents=6, acts=8)
BARE = Size(rules=0.0, quotas=0.0, limits=0.0, plans=0.0, hours=0.0, adapts=0.0, tenants=0.0)


class Features(msgspec.Struct):
    """What the policies and mta.toml of a seed say more; None: nothing of the kind. Each is drawn by a chance of its
    own, so that another share of one leaves the stories of all seeds without it as they were."""

    rules: Random | None = None
    quotas: Random | None = None
    hours: DrawnHours | None = None
    limits: DrawnLimits | None = None
    plans: DrawnPlans | None = None
    adapts: DrawnAdapts | None = None
    tenants: DrawnTenants | None = None

    @classmethod
    def draw(cls, seed: int, size: Size) -> "Features":
        """Those of a seed."""

        def drawn(prime: int, share: float, make: Callable[[Random], T]) -> T | None:
            random = Random(seed * 7919 + prime)
            return make(random) if random.random() < share else None

        hours = drawn(19, size.hours, lambda random: DrawnHours(random, size.trouble_s))
        return cls(
            rules=drawn(13, size.rules, lambda random: random),
            quotas=drawn(17, size.quotas, lambda random: random),
            hours=hours,
            limits=drawn(23, size.limits, lambda random: DrawnLimits(random, hours)),
            plans=drawn(29, size.plans, DrawnPlans),
            adapts=drawn(31, size.adapts, DrawnAdapts),
            tenants=drawn(37, size.tenants, lambda random: DrawnTenants(random, hours)),
        )
