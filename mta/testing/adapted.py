"""Adapted: what the event log says of rates that follow a provider ([adapt]), and what really went on their paths.

A rate stays between floor and ceiling; a complaint lowers it and quiet raises it, a step at a time and with its reason.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mta.config import Config
from mta.testing.account import burst, most
from mta.testing.promised_mail import Message, Recipient
from mta.testing.scripted_provider import Transaction
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.watcher import TAKEN_S, Watcher, Wrong, owners_of
from mta_policies import units
from mta_policies.adapting import RULE, SCOPE, Law, nearest
from mta_policies.answers import Subject, scope_key

_STEP = re.compile(r"(\S+) to ([^\s:]+)(:?)")
"""Why a rate is another: a colon and what the provider said follow where it was lowered."""

TOLD_S = 1.0  # a line may come so much later than what it tells
PASSED_S = 1.0
"""A message that may go counts then, and goes a little later."""


class Path:
    """One source, DKIM domain and site, while it has one rate."""

    def __init__(self, policy: str, rate: float, owners: int, from_s: float) -> None:
        self.policy = policy
        self.rate = rate
        self.owners = owners
        self.from_s = from_s
        self.until_s = math.inf
        """An admin muted it then."""
        self.messages: dict[int, float] = {}
        """Number -> when it first went."""

    def over(self, at_s: float) -> None:
        """Another rate may hold since then."""
        self.messages = {number: sent_s for number, sent_s in self.messages.items() if sent_s < at_s}


class Adapted(Watcher):
    """Of one machine."""

    def __init__(
        self,
        clock: SimulatedClock,
        site_of: Callable[[Transaction], str],
        dkim_domain_of: Callable[[Message], str],
    ) -> None:
        """`site_of`: its name in scope keys."""
        self.changes: Counter[str] = Counter()
        """What the event log said of rates."""
        self.sent = 0
        """How many messages went on a path with a rate."""
        self._clock = clock
        self._site_of = site_of
        self._dkim_domain_of = dkim_domain_of
        self._laws: list[dict[str, Law]] = []
        """Policy -> what it says now, and what it said until the last reload."""
        self._owners: dict[str, int] = {}
        self._since_s = 0.0
        self._paths: dict[str, Path] = {}
        self._over: list[tuple[str, Path]] = []
        self._muted: set[str] = set()
        """Policies whose rates an admin once did not like: who knows when they hold."""
        self._keys: set[str] = set()
        """Of all that ever had a rate."""

    def configured(self, config: Config) -> None:
        """See `Watcher`."""
        policies = config.policy_set.policies
        laws = {name: Law.of(policy.adapt, policy.limits) for name, policy in policies.items() if policy.adapt.on}
        self._laws = [{name: law for name, law in laws.items() if law is not None}, *self._laws][:2]
        self._owners = {name: owners_of(policy, config) for name, policy in policies.items()}
        self._since_s = self._clock.monotonic_s() + TAKEN_S
        self._forget()

    def killed(self) -> None:
        """See `Watcher`: what it told nobody is over."""
        self._forget()

    def muted(self, policy: str, rule: str) -> None:
        """See `Watcher`: what waits for the policy's rates goes at once. What went before counts."""
        if rule == RULE:
            self._muted.add(policy)
            for path in self._paths.values():
                if path.policy == policy:
                    path.until_s = min(path.until_s, self._clock.monotonic_s())

    def _forget(self) -> None:
        self._over += self._paths.items()
        self._paths = {}

    def told(self, event: Mapping[str, Any]) -> Iterator[Wrong]:
        """See `Watcher`."""
        if event["event"] != "rule" or event.get("rule") != RULE:
            return
        change, policy, key = event["change"], event.get("policy", ""), event.get("key", "")
        why = event.get("reason", "")
        self.changes[change] += 1
        if (known := self._paths.pop(key, None)) is not None:
            known.over(self._clock.monotonic_s() - TOLD_S)
            self._over.append((key, known))
        if change == "muted" and policy not in self._muted:
            yield f"the rates of {policy} are told as muted, and no admin did so", None
        if change not in ("fired", "extended", "stepped") or event.get("by") != "rule":
            return
        self._keys.add(key)
        rates = event.get("rate", ())
        if event["action"] != "slow" or len(rates) != 1:
            yield f"a rate of {key} is told as {event}", None
            return
        rate = units.rate(rates[0]).per_second
        known_laws = self._laws[: 1 if self._clock.monotonic_s() > self._since_s else 2]
        laws = [law for each in known_laws if (law := each.get(policy)) is not None]
        if not any(nearest(law.floor).per_second <= rate <= nearest(law.ceiling).per_second for law in laws):
            yield f"the rate of {key} is {rates[0]}, and should be in {laws}", None
        told = _STEP.match(why)
        if not told or told[2] != rates[0]:
            yield f"the rate of {key} is {rates[0]}, and why is told as {why!r}", None
        elif not any(rate == nearest(law.floor).per_second for law in laws):  # after a reload that may be higher
            before = units.rate(told[1]).per_second
            if rate > before if told[3] else rate < before:
                yield f"the rate of {key} goes the wrong way: {why}", None
        if policy not in self._muted:
            self._paths[key] = Path(policy, rate, self._owners.get(policy, 1), self._clock.monotonic_s() + TAKEN_S)

    def begun(self, recipient: Recipient, transaction: Transaction, *, is_first: bool) -> Iterable[Wrong]:
        """See `Watcher`."""
        if self._paths and is_first:
            path = self._paths.get(self._key(recipient, transaction))
            if path is not None and path.from_s < transaction.sent_s < path.until_s:
                self.sent += 1
                path.messages.setdefault(recipient.message.number, transaction.sent_s)
        return ()

    def delays(self, recipient: Recipient, transaction: Transaction) -> bool:
        """See `Watcher`."""
        return bool(self._keys) and self._key(recipient, transaction) in self._keys

    def _key(self, recipient: Recipient, transaction: Transaction) -> str:
        message = recipient.message
        if recipient.address == message.sender:
            return ""
        subject = Subject(
            source=transaction.source,
            site=self._site_of(transaction),
            provider=transaction.provider,
            dkim_domain=self._dkim_domain_of(message),
        )
        return scope_key(SCOPE, subject)

    def ended(self) -> Iterator[Wrong]:
        """See `Watcher`."""
        self._forget()
        for key, path in self._over:
            at_once = burst(path.rate, path.owners) + path.rate * PASSED_S
            if (worst := most(sorted(path.messages.values()), path.rate)) > at_once + 1.0:
                yield f"{worst:.2f} messages at once for {key} by {path.rate:g}/s, {at_once:.2f} may go", None
