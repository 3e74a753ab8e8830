"""Bounds: `[[limit]]`, tenants' limits and hours at every level, laid beside every MAIL that providers see.

What is said stands in the configuration; what went is counted here, over all workers and their lives. A limit that a
reload leaves as it is goes on without a break, also over the death of a worker; where all processes are gone, rates
begin with a burst, and quotas go on.
"""

from collections import Counter
from collections.abc import Iterator

from mta.config import Config
from mta.testing.account import Account, Bound, period_of
from mta.testing.promised_mail import Recipient
from mta.testing.scripted_provider import Transaction
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.watcher import TAKEN_S, Watcher, Wrong, owners_of
from mta_policies.answers import SYSTEM_SOURCE
from mta_policies.cross_limit import CrossLimit, limit_of
from mta_policies.layers import DEFAULT
from mta_policies.policy import Policy

JUMP_S = 3.0  # what was lent before the clock was set is used within so long
HOUR_S = 3600.0

Key = tuple[str, ...]
ACROSS, TENANT = "limit", "tenant"


class Bounds(Watcher):
    """Of one machine."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.checked = 0
        """How many transactions a limit was about."""
        self.well_s = float("inf")
        """Monotonic: from then on mail waits for nothing but its limits."""
        self._clock = clock
        self._configs: list[Config] = []
        """What holds, and what may hold yet until `_since_s`."""
        self._since_s = 0.0
        self._accounts: dict[Key, Account] = {}
        self._delayed: set[str] = set()
        """Tenants, and "" for everybody, whose mail ever had limits of its own."""
        self._recipients: Counter[Transaction] = Counter()
        self._expired: list[Recipient] = []

    # what holds

    def configured(self, config: Config) -> None:
        """See `Watcher`."""
        self._configs = [config, *self._configs][:2]
        self._since_s = self._clock.monotonic_s() + TAKEN_S
        if config.limits:
            self._delayed.add("")
        for policy in config.policy_set.policies.values():
            self._delayed |= policy.tenants_with_limits
        for key, account in self._accounts.items():
            limit = limit_of(config.limits, key[1]) if key[0] == ACROSS else None
            if limit is not None and limit.quota is None:
                account.used.clear()  # it is counted anew where it comes back

    def all_gone(self) -> None:
        """See `Watcher`."""
        for account in self._accounts.values():
            account.cut()

    def _bounds(self, config: Config, recipient: Recipient, transaction: Transaction) -> Iterator[tuple[Key, Bound]]:
        """All that say something about a transaction."""
        message, source = recipient.message, transaction.source or SYSTEM_SOURCE
        policy = _policy(config, transaction)
        for key in [f"source {source}", *_keys_of(recipient)] if config.limits else ():
            limit = limit_of(config.limits, key)
            if limit is not None:
                yield (ACROSS, key), Bound(limit.rate, limit.quota, limit.window)
        if message.tenant in policy.tenants_with_limits:
            limits = policy.for_tenant(message.tenant).limits
            bound = Bound(limits.rate, limits.quota, limits.window, owners_of(policy, config))
            yield (TENANT, message.tenant, transaction.provider, transaction.site, source), bound
        limits, source_limits, _ = policy.for_source(source)
        levels = {"limits": limits, "source_limits": source_limits, "provider_limits": policy.provider_limits}
        for name, level in levels.items():
            if level.window:
                yield (name, transaction.provider), Bound(windows=level.window)

    # what went

    def begun(self, recipient: Recipient, transaction: Transaction, *, is_first: bool) -> Iterator[Wrong]:
        """See `Watcher`."""
        yield from self._of_tenant(recipient, transaction)
        if not is_first:
            return
        sent_s = transaction.sent_s
        before: dict[Key, Bound] | None = None
        if sent_s < self._since_s and len(self._configs) > 1:
            before = dict(self._bounds(self._configs[1], recipient, transaction))
        is_steady = self._clock.is_steady(sent_s - JUMP_S, sent_s)
        for key, bound in self._bounds(self._configs[0], recipient, transaction):
            self.checked += 1
            is_sure = (before is None or before.get(key) == bound) and (is_steady or key[0] != ACROSS)
            account = self._accounts.setdefault(key, Account())
            where = f"{recipient.address} goes to {transaction.provider} by {' '.join(key)}"
            for what in account.sent(bound, sent_s, self._clock.wall_at(sent_s), is_sure=is_sure):
                yield f"{where}: {what}", recipient.message

    def _of_tenant(self, recipient: Recipient, transaction: Transaction) -> Iterator[Wrong]:
        """What a tenant says of single transactions."""
        message = recipient.message
        if transaction.sent_s < self._since_s or recipient.address == message.sender:
            return
        policy = _policy(self._configs[0], transaction)
        limits = policy.for_tenant(message.tenant).limits
        self._recipients[transaction] += 1
        count = self._recipients[transaction]
        if 0 < limits.recipients_per_transaction < count:
            yield f"{recipient.address} is recipient {count} of a transaction of {message.tenant}", message
        if 0 < limits.message_size_max < message.size:
            yield f"{recipient.address} goes with {message.size} bytes, too many for {message.tenant}", message

    def delays(self, recipient: Recipient, transaction: Transaction) -> bool:
        """See `Watcher`."""
        return bool(self._delayed & {"", recipient.message.tenant})

    # what did not

    def keeps(self, recipient: Recipient) -> bool:
        """See `Watcher`: a quota does, which is looked at in the end."""
        if not any(limit.quota is not None for limit in self._across(recipient)):
            return False
        self._expired.append(recipient)
        return True

    def _across(self, recipient: Recipient) -> list[CrossLimit]:
        """Limits across destinations that a recipient's mail may wait for, from whatever source."""
        config = self._configs[0]
        keys = _keys_of(recipient) + [f"source {source.name}" for source in config.sources]
        found = dict.fromkeys(limit_of(config.limits, key) for key in keys)
        return [limit for limit in found if limit is not None]

    def ended(self) -> Iterator[Wrong]:
        """See `Watcher`."""
        for key, account in self._accounts.items():
            for what in account.too_fast():
                yield f"{' '.join(key)}: {what}", None
        for recipient in self._expired:
            final = recipient.finals[0]
            if hour := self._idle_hour(recipient, final["told_s"]):
                told = f"{recipient.address} expired, though no quota kept it in the hour from {hour:.0f} s"
                yield told, recipient.message

    def _idle_hour(self, recipient: Recipient, until_s: float) -> float:
        """When a whole hour began that had room in every quota of a waiting message; 0.0: there is none."""
        message, clock = recipient.message, self._clock
        quotas = [(limit, limit.quota) for limit in self._across(recipient) if limit.quota is not None]
        if any(quota.per != "hour" for _, quota in quotas):
            return 0.0  # of what was lost with a worker nobody out here knows, and a day began before all was well
        first_s = max(clock.wall_at(self.well_s), message.send_at_s)
        hour_s = (first_s // HOUR_S + 1) * HOUR_S
        while hour_s + HOUR_S < clock.wall_at(until_s) - JUMP_S:
            has_room = all(
                account.used[quota.per, quota.zone, period_of(quota, hour_s + HOUR_S - 1.0)] < quota.count
                for limit, quota in quotas
                for key, account in self._accounts.items()
                if key[0] == ACROSS and limit_of(self._configs[0].limits, key[1]) is limit
            )
            if has_room:
                return hour_s
            hour_s += HOUR_S
        return 0.0


def _policy(config: Config, transaction: Transaction) -> Policy:
    policies = config.policy_set.policies
    return policies.get(transaction.provider, policies[DEFAULT])


def _keys_of(recipient: Recipient) -> list[str]:
    """Of whom limits across destinations may be, but for the source."""
    message = recipient.message
    is_notice = recipient.address == message.sender
    keys = [f"tenant {message.tenant}"] if message.tenant else []
    keys += [f"campaign {message.tenant}/{message.campaign}"] if message.campaign and not is_notice else []
    keys += [f"sender-domain {message.sender.rpartition('@')[2]}"] if message.sender and not is_notice else []
    return keys
