"""Turns: in what order mail went out over each way, laid beside what waited for it: priorities and fair shares.

A way is what has a lane of its own in the engine: one site, from one source, of one process. Looked at is mail that was
new, in the queue for certain, and kept from its turn by nothing but what else was to go the same way. For it must hold,
whatever peers do and limits allow:

- Once it is known to wait, mail of a lower priority goes before it only for a moment: where it takes unusually long to
  read it back from the disk or to sign it, those that are ready do not wait on.
- Between two turns of a tenant with mail each other tenant of the same priority has at most one (docs/decisions/0007),
  or as many as the first of them cost: a message of many transactions costs all of them when it begins, also those
  that its peer then puts off. What was chosen to be read back or signed before the message came goes before it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from mta.testing.promised_mail import Message, Recipient
from mta.testing.scripted_provider import Transaction
from mta.testing.simulated_loop import SimulatedLoop

READY_S = 2.0  # from 250 to its lane: a name is looked up, perhaps it moves to the worker that owns its destination
PASSED_S = 1.0  # what one visit to the disk and a signature take together, and far more
TURNS_MORE = 2  # one that was passed over while it was read back or signed is even with the others a turn or two later
AHEAD_MAX = 8  # that were read back or signed ahead, where there is one connection
AHEAD_A_CONNECTION = 2


class Way(NamedTuple):
    """What has a lane of its own."""

    provider: str
    site: str
    source: str
    client: SimulatedLoop


class Turn(msgspec.Struct, eq=False):
    """One transaction."""

    message: Message
    at_s: float
    """When its MAIL was written."""
    since_s: float
    """Since when it has waited for nothing but its turn; infinite where nobody knows."""


class Turns:
    """All of one simulation."""

    def __init__(self) -> None:
        self.compared = 0
        """How many turns there were that somebody else might have had wrongly."""
        self.connections: dict[str, int] = {}
        """Provider -> the most connections that its policy ever allowed one way; 0: no limit."""
        self._disturbed_s = 0.0
        self._troubled: set[str] = set()
        self._ways: dict[Way, list[Turn]] = {}
        self._last: Transaction | None = None

    def disturbed(self, now_s: float) -> None:
        """Something happens for which mail may wait that was ready."""
        self._disturbed_s = now_s

    def troubled(self, domain: str) -> None:
        """It is not always known any more where its mail goes."""
        self._troubled.add(domain)

    def begun(self, recipient: Recipient, transaction: Transaction, *, is_free: bool) -> None:
        """A recipient was named; `is_free`: no admin was ever in its way."""
        message = recipient.message
        if transaction is self._last or recipient.address == message.sender:
            return
        self._last = transaction
        way = Way(transaction.provider, transaction.site, transaction.source, transaction.client)
        since_s = message.accepted_s if is_free and self._waited_for_its_turn(recipient) else float("inf")
        self._ways.setdefault(way, []).append(Turn(message, transaction.sent_s, since_s + READY_S))

    def _waited_for_its_turn(self, recipient: Recipient) -> bool:
        message = recipient.message
        if recipient.begun or recipient.was_put_off or message.send_at_s or message.accepted_s <= self._disturbed_s:
            return False
        return recipient.address.partition("@")[2] not in self._troubled

    def unfair(self) -> Iterator[tuple[str, Message]]:
        """What must not be."""
        for way, turns in self._ways.items():
            for at, turn in enumerate(turns):
                if turn.since_s < turn.at_s:
                    yield from self._look_at(way, turn, turns[:at], turns[at + 1 :])

    def _look_at(self, way: Way, turn: Turn, before: list[Turn], after: list[Turn]) -> Iterator[tuple[str, Message]]:
        message = turn.message
        mine = [each for each in before if each.message.tenant == message.tenant and _is_level(each, turn)]
        since_s = max(turn.since_s, mine[-1].at_s if mine else 0.0)
        lower = [each for each in before if each.at_s > turn.since_s and each.message.priority < message.priority]
        rivals = [each for each in before if each.at_s > since_s and each.message.tenant != message.tenant]
        waited = any(each.since_s < turn.at_s and each.message.priority < message.priority for each in after)
        self.compared += bool(lower or waited or any(_is_level(each, turn) for each in rivals))
        chosen_s = self._chosen_until_s(way, turn, before)
        others: dict[str, set[int]] = {}
        for each in rivals:
            if each.at_s > chosen_s and _is_level(each, turn):
                others.setdefault(each.message.tenant, set()).add(each.message.number)
        where = f"{way.provider} {way.site} from {way.source or 'the system'} by {way.client.name}"
        if lower and lower[-1].at_s - lower[0].at_s > PASSED_S:
            told = f"of priority {message.priority} waited {turn.at_s - turn.since_s:.1f} s and more for its turn"
            passed = f"and {len(lower)} of a lower one went before it, from message {lower[0].message.number} on"
            yield f"{where}: message {message.number} {told}, {passed}", message
        most = TURNS_MORE + (_debt(turn, before) if mine else 0)
        for tenant, numbers in others.items():
            if len(numbers) > most:
                told = f"message {message.number} of tenant {message.tenant!r} waited for its turn"
                yield f"{where}: {told}, and {len(numbers)} of tenant {tenant!r} had theirs, {most} may", message

    def _chosen_until_s(self, way: Way, turn: Turn, before: list[Turn]) -> float:
        """Until when those may go that were chosen, to be read back or signed, before this one came."""
        connections = self.connections.get(way.provider, 0) or len(before)
        chosen: dict[int, float] = {}
        for each in before:
            if each.at_s > turn.since_s and _is_level(each, turn):
                chosen[each.message.number] = each.at_s
        return max([*chosen.values()][: max(AHEAD_MAX, AHEAD_A_CONNECTION * connections)], default=0.0)


def _debt(turn: Turn, before: list[Turn]) -> int:
    """How many turns, at most, the tenant had ahead of the others after its last one: a message costs no more than one
    for each recipient, and is begun again where another was in between."""
    debt = after_own = 0
    last: Message | None = None
    for each in before:
        if not _is_level(each, turn):
            continue
        if each.message.tenant != turn.message.tenant:
            debt = max(0, debt - 1)
        elif each.message is not last:
            debt += len(each.message.addresses)
        if each.message.tenant == turn.message.tenant:
            after_own = debt
        last = each.message
    return after_own


def _is_level(one: Turn, other: Turn) -> bool:
    return one.message.priority == other.message.priority
