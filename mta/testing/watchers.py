"""Watchers: all who look at a scenario's mail for what its policies and mta.toml say beside limits and retries."""

from collections.abc import Callable

from mta.config import Config
from mta.testing.adapted import Adapted
from mta.testing.bounds import Bounds
from mta.testing.engine_size import Features
from mta.testing.promised_mail import Message
from mta.testing.put_off import PutOff
from mta.testing.scripted_provider import Transaction
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.warmed import Warmed
from mta.testing.watcher import Watcher


class Watchers:
    """Each kind; `watching` are those who have something to look at."""

    def __init__(
        self,
        clock: SimulatedClock,
        features: Features,
        owners: int,
        *,
        site_of: Callable[[Transaction], str],
        dkim_domain_of: Callable[[Message], str],
        expires_s_of: Callable[[str], float],
    ) -> None:
        """`owners`: how many a destination has at most; `site_of`: its name in scope keys; `expires_s_of`: when a
        recipient's mail does, Unix seconds."""
        self.bounds = Bounds(clock)
        self.warmed = Warmed(clock, owners)
        self.adapted = Adapted(clock, site_of, dkim_domain_of)
        self.put_off = PutOff(expires_s_of)
        self.watching: list[Watcher] = []
        if features.limits is not None or features.hours is not None or features.tenants is not None:
            self.watching.append(self.bounds)
        if features.plans is not None:
            self.watching.append(self.warmed)
        if features.adapts is not None:
            self.watching.append(self.adapted)
        if features.tenants is not None:
            self.watching.append(self.put_off)

    def configured(self, config: Config) -> None:
        """See `Watcher`, as for the next three."""
        for watcher in self.watching:
            watcher.configured(config)

    def killed(self) -> None:
        for watcher in self.watching:
            watcher.killed()

    def muted(self, policy: str, rule: str) -> None:
        for watcher in self.watching:
            watcher.muted(policy, rule)

    def all_gone(self) -> None:
        for watcher in self.watching:
            watcher.killed()
            watcher.all_gone()
