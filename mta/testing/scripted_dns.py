"""Scripted DNS answers for the resolver's tests: an asker that says what was written down, and a resolver on it."""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence

import pytest

from mta.resolve.answers import Answer, Kind, Outcome, failed
from mta.resolve.errors import ResolveError
from mta.resolve.nameservers import Budget
from mta.resolve.resolver import Resolver
from mta.testing.fake_clock import FakeClock

TTL_S = 3_600
NO_NAME = Answer("no-name", ttl_s=300)
EMPTY = Answer("empty", ttl_s=300)
FAILED = failed("the nameserver says SERVFAIL")


class Script:
    """An asker that says what was written down for (name, type); everything else does not exist."""

    def __init__(self, answers: dict[tuple[str, Kind], Sequence[str] | Answer]) -> None:
        self.answers = answers
        self.asked: Counter[tuple[str, Kind]] = Counter()
        self.confirmed: dict[tuple[str, Kind], Collection[Outcome]] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, name: str, kind: Kind, budget: Budget, confirm: Collection[Outcome] = ()) -> Answer:
        self.asked[name, kind] += 1
        self.confirmed[name, kind] = confirm
        await self.gate.wait()
        said = self.answers.get((name, kind), NO_NAME)
        if not isinstance(said, Answer):
            said = Answer("found", tuple(said), TTL_S)
        return said if said.name else said._replace(name=name)


class Fixture:
    """A resolver with its script and its clock."""

    def __init__(
        self,
        answers: dict[tuple[str, Kind], Sequence[str] | Answer],
        *,
        prohibited: Sequence[str] = (),
        own_names: Sequence[str] = (),
        own_addresses: Sequence[str] = (),
        use_ipv6: bool = True,
    ) -> None:
        self.script = Script(answers)
        self.clock = FakeClock()
        self.resolver = Resolver(
            nameservers=["127.0.0.1:1"],
            clock=self.clock,
            prohibited=prohibited,
            own_names=own_names,
            own_addresses=own_addresses,
            use_ipv6=use_ipv6,
            asker=self.script,
        )


async def error_of(fixture: Fixture, domain: str) -> ResolveError:
    with pytest.raises(ResolveError) as caught:
        await fixture.resolver.mail_hosts(domain)
    return caught.value


async def renewals() -> None:
    """Waits for what the resolver asks behind the scenes."""
    await asyncio.wait([task for task in asyncio.all_tasks() if task.get_name().startswith("resolve ")])
