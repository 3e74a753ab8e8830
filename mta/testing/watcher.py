"""Watcher: somebody who looks at a simulation's mail from outside, beside the ledger, for one kind of limit."""

from collections.abc import Iterable, Mapping
from typing import Any

from mta.config import Config
from mta.testing.promised_mail import Message, Recipient
from mta.testing.scripted_provider import Taken, Transaction
from mta_policies.policy import Policy

TAKEN_S = 1.0  # after a reload all workers keep to it, and what they sent before has arrived

Wrong = tuple[str, Message | None]
"""What must not be, and the message that it is about."""


def owners_of(policy: Policy, config: Config) -> int:
    """Among how many workers its limits are divided."""
    return min(policy.owners, config.worker_count)


class Watcher:
    """Sees nothing wrong; others look at more."""

    def configured(self, config: Config) -> None:
        """This holds, from `TAKEN_S` from now on for certain: the start, a reload, a restart."""

    def killed(self) -> None:
        """A worker is gone, and what it had not told."""

    def all_gone(self) -> None:
        """So are all of them, with the supervisor."""

    def muted(self, policy: str, rule: str) -> None:
        """From now on an admin takes what a policy's rule set off its effect."""

    def begun(self, recipient: Recipient, transaction: Transaction, *, is_first: bool) -> Iterable[Wrong]:
        """A provider is asked for a recipient, the first of its transaction or another."""
        return ()

    def taken(self, taken: Taken, recipients: list[Recipient]) -> Iterable[Wrong]:
        """A provider took a message."""
        return ()

    def told(self, event: Mapping[str, Any]) -> Iterable[Wrong]:
        """A line is in the event log."""
        return ()

    def delays(self, recipient: Recipient, transaction: Transaction) -> bool:
        """Whether this mail may have waited for something else than its turn."""
        return False

    def keeps(self, recipient: Recipient) -> bool:
        """Whether mail may expire for it though all is well."""
        return False

    def ended(self) -> Iterable[Wrong]:
        """All is over."""
        return ()
