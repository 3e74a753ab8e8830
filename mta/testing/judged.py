"""A pool as fates know it, with a judge but no mail: what rules say counts, what they set off is kept."""

from types import SimpleNamespace
from typing import Any, cast

from mta.delivery.connection import SourceAddress
from mta.delivery.destination import Destination
from mta.delivery.judging import Judging
from mta.delivery.pool import Pool
from mta.model.clock import Clock
from mta.reporting.worker_counts import PolicyCounts
from mta_policies.engine import unknown_pace
from mta_policies.firing import Change
from mta_policies.firings import Firings
from mta_policies.limits import WHOLE
from mta_policies.policy import Policy
from mta_policies.schema import PolicyFile
from mta_policies.tree import Tree


def plain_policy(name: str = "default", file: PolicyFile | None = None) -> Policy:
    """A policy without rules, or what a file says."""
    return Policy(name, file or PolicyFile(), Tree({}, {}), ())


class FakeRestraints:
    """Keeps what rules set off."""

    def __init__(self) -> None:
        self.firings = Firings()
        self.changes: list[Change] = []
        self._count = 0

    def new_id(self) -> str:
        self._count += 1
        return f"f{self._count}"

    def made(self, changes: list[Change]) -> None:
        self.changes += changes


def judged_pool(clock: Clock, tally: PolicyCounts, policy: Policy | None = None, **more: Any) -> Pool:
    """In place of a `Pool`, with more of its attributes."""
    policy = policy or plain_policy()
    more = {"retry_for": lambda tenant: more["retry"], **more}
    engine = SimpleNamespace(clock=clock, restraints=FakeRestraints())
    destination = SimpleNamespace(
        engine=engine, policy=policy, provider=policy.name, brakes=None, tally=tally, share=WHOLE
    )
    destination.listen = lambda: None
    destination.judging = Judging(cast(Destination, destination))
    site = SimpleNamespace(name="mx.x", destination=destination)
    source = SourceAddress("s1", "192.0.2.10", "", "me.test")
    return cast(
        Pool,
        SimpleNamespace(site=site, source=source, address="", braked=None, warming=None, pace=unknown_pace, **more),
    )
