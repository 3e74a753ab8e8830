"""Restrained: what rules set off, as the event log tells it, laid beside what providers see afterwards.

A worker's rule fires and has its effect there at once; the others hear of it within a moment, and one that starts reads
of it. From then on nothing goes that a `suspend` or the silence of a `probe` is for, and what a `slow` is for no faster
than it says, over all workers together, until its time is over or somebody ends it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from mta.testing.account import burst
from mta.testing.promised_mail import Message, Recipient
from mta.testing.scripted_provider import TOKEN_SLACK, Transaction
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.simulated_loop import SimulatedLoop
from mta_policies import units
from mta_policies.answers import Subject, scope_key
from mta_policies.rulebook import SCOPES

TOLD_S = 1.0  # from its line in the event log until all workers know
SLACK_S = 1.0  # the log tells times to the millisecond and half a second late, and a sweep looks at them
SAVED_S = 1.0  # what is not told for so long is perhaps not in the file
COUNTED = frozenset({"source", "netblock", "site", "provider"})
"""Scopes of which a slow counts transactions; of the others it counts messages."""

Identity = tuple[str, str, str, str]
"""Policy, rule, action and key: of the same there is one at a time."""


class Held(msgspec.Struct, eq=False):
    """One firing, as far as it can be seen from outside."""

    action: str
    key: str
    from_s: float
    """All know of it: monotonic seconds."""
    until_wall_s: float
    until_s: float
    """Where the wall clock was set back it lasts no longer from there than it was made for."""
    rate: float = 0.0
    """Transactions a second; 0.0: nobody counts."""
    burst: float = 0.0
    tokens: float = 0.0
    tokens_s: float = 0.0


class Restrained:
    """All firings of one simulation."""

    def __init__(
        self,
        clock: SimulatedClock,
        *,
        site_of: Callable[[Transaction], str],
        dkim_domain_of: Callable[[Message], str],
        spf_domain_of: Callable[[Recipient, Transaction], str],
        silence_s_of: Callable[[str, str], float],
        owners_of: Callable[[str], int],
    ) -> None:
        """`site_of`: its name in scope keys; `silence_s_of`: of a policy's rule that probes; `owners_of`: a policy."""
        self.seen: Counter[tuple[str, str]] = Counter()
        """Action and scope of all that fired."""
        self.kept = 0
        """How often something went whose scope was restrained then, or had been."""
        self._clock = clock
        self._site_of = site_of
        self._dkim_domain_of = dkim_domain_of
        self._spf_domain_of = spf_domain_of
        self._silence_s_of = silence_s_of
        self._owners_of = owners_of
        self._held: dict[Identity, Held] = {}
        self._keys: set[str] = set()
        """Of all that ever fired."""
        self._void_s: dict[Identity, float] = {}
        """Lines about it that come before are of what an admin has ended."""
        self._muted: set[tuple[str, str]] = set()
        self._began_s: dict[SimulatedLoop, float] = {}
        self._hears_s: dict[SimulatedLoop, float] = {}

    # who knows

    def begins(self, loop: SimulatedLoop) -> None:
        """A worker's process: it reads the file of what is in force."""
        self._began_s[loop] = loop.time()

    def hears(self, loop: SimulatedLoop) -> None:
        """It is told what was made since, and what is to come."""
        self._hears_s[loop] = loop.time()

    def _known_s(self, held: Held, loop: SimulatedLoop) -> float:
        """Since when a worker has to know."""
        told_s = held.from_s - TOLD_S
        if told_s + SAVED_S < self._began_s.get(loop, math.inf):
            return -math.inf
        return max(held.from_s, self._hears_s.get(loop, math.inf) + TOLD_S)

    # what the event log says

    def told(self, event: Mapping[str, Any]) -> str:
        """A `rule` event is in the log; -> what it says in a word, "" nothing of note."""
        identity = (event.get("policy", ""), event["rule"], event.get("action", ""), event.get("key", ""))
        change, now_s = event["change"], self._clock.monotonic_s()
        if change in ("ended", "cancelled"):
            self._held.pop(identity, None)
        elif change in ("fired", "extended", "stepped") and identity[:2] not in self._muted:
            if change == "fired":
                self.seen[event["action"], event["scope"]] += 1
                self._keys.add(event["key"])
            if now_s > self._void_s.get(identity, -math.inf):
                self._hold(identity, event, now_s)
        return f"{change}: {event.get('action', '')} for {event.get('key', '')} by {event['rule']}"

    def _hold(self, identity: Identity, event: Mapping[str, Any], now_s: float) -> None:
        held, until_wall_s = self._held.get(identity), event["until"]
        if event["action"] == "probe":
            if event["change"] != "fired" and not event.get("reason", "").startswith("refused again"):
                return
            until_wall_s = event["time"] + self._silence_s_of(event["policy"], event["rule"])
            held = None
        until_s = now_s + until_wall_s - event["time"]
        if held is not None:
            held.until_wall_s, held.until_s = until_wall_s, until_s
            return
        held = self._held[identity] = Held(event["action"], event["key"], now_s + TOLD_S, until_wall_s, until_s)
        if event["action"] == "slow" and event["scope"] in COUNTED and event.get("rate"):
            owners = self._owners_of(event["policy"])
            held.rate = min(units.rate(rate).per_second for rate in event["rate"])
            held.burst = held.tokens = burst(held.rate, owners)
            held.tokens_s = held.from_s

    # what admins and accidents do

    def ended(self, identity: Identity) -> None:
        """An admin cancels it; what workers did to it in this moment is void."""
        self._held.pop(identity, None)
        self._void_s[identity] = self._clock.monotonic_s() + 2 * TOLD_S

    def shortened(self, identity: Identity, for_s: float) -> None:
        """An admin sets its end: so long from now."""
        if (held := self._held.get(identity)) is not None:
            held.until_wall_s = min(held.until_wall_s, self._clock.wall_s() + for_s)
            held.until_s = min(held.until_s, self._clock.monotonic_s() + for_s)

    def muted(self, policy: str, rule: str) -> None:
        """From now on nobody knows for sure what this rule does."""
        self._muted.add((policy, rule))
        for identity in [identity for identity in self._held if identity[:2] == (policy, rule)]:
            del self._held[identity]

    def power_lost(self) -> None:
        """What is not in the file is forgotten."""
        now_s = self._clock.monotonic_s()
        for identity, held in list(self._held.items()):
            if held.from_s > now_s - SAVED_S:
                del self._held[identity]

    def refill(self) -> None:
        """A process forgot what it sent: it may begin with a burst."""
        for held in self._held.values():
            held.tokens = held.burst

    def reloaded(self) -> None:
        """Owners and their shares are others: what was slowed is not counted any more."""
        for held in self._held.values():
            held.rate = 0.0

    # what providers see

    def concerns(self, recipient: Recipient, transaction: Transaction) -> bool:
        """Whether anything that ever fired was for this mail."""
        return bool(self._keys) and not self._keys.isdisjoint(self._keys_of(recipient, transaction))

    def begun(self, recipient: Recipient, transaction: Transaction, *, is_first: bool) -> Iterator[str]:
        """A recipient was named, the first of its transaction or another; -> what must not be."""
        if not self._held:
            return
        keys = self._keys_of(recipient, transaction)
        for identity, held in list(self._held.items()):
            if held.key not in keys:
                continue
            self.kept += 1
            known_s = self._known_s(held, transaction.client)
            is_known = transaction.sent_s > known_s
            reached_s = self._clock.reached(max(known_s, held.from_s - TOLD_S))
            is_over = transaction.sent_s > held.until_s - SLACK_S or reached_s >= held.until_wall_s - SLACK_S
            if not is_known or is_over:
                continue
            if held.action in ("suspend", "probe"):
                yield f"while {identity[1]} keeps {held.key}: {held.action}"
            elif is_first and held.rate and self._is_too_fast(held):
                yield f"faster than {identity[1]} lets {held.key}: {held.rate:g}/s with a burst of {held.burst:g}"

    def _is_too_fast(self, held: Held) -> bool:
        now_s = self._clock.monotonic_s()
        held.tokens = min(held.burst, held.tokens + max(0.0, now_s - held.tokens_s) * held.rate) - 1.0
        held.tokens_s = max(now_s, held.tokens_s)
        if held.tokens >= -TOKEN_SLACK:
            return False
        held.tokens += 1.0
        return True

    def _keys_of(self, recipient: Recipient, transaction: Transaction) -> set[str]:
        message = recipient.message
        if recipient.address == message.sender:
            return set()
        subject = Subject(
            source=transaction.source,
            source_address=transaction.address if transaction.source else "",  # the system's is known when it was used
            site=self._site_of(transaction),
            provider=transaction.provider,
            tenant=message.tenant,
            campaign=message.campaign,
            recipient=recipient.address,
            dkim_domain=self._dkim_domain_of(message),
            spf_domain=self._spf_domain_of(recipient, transaction),
        )
        return {scope_key(scope, subject) for scope in SCOPES} - {""}
