"""What must hold after a round of crashes. Pure: from what clients, providers, event log and queue files say.

- Every recipient of a message that got 250 has it, or bounced and its sender was told, once.
- Nobody has what was never accepted; where the client never heard the reply, either is right.
- A recipient has a message twice only where the server told of it (`after_crash`, `uncertain`), and only at the end of
  what a connection carried before it was cut: what was on its way, or answered and not yet recorded.
- The event log names one final fate a recipient; a line told again says the same, a delivery made again says why.
- The queue is empty and its files are sound.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.ledger import NOBODY, Mail, bench_id
from bench.temper import Delivery

FINAL = frozenset({"delivered", "bounced", "expired", "cancelled"})
_NOTICE_ID = re.compile(rb"^Message-ID: <([^>]*)>", re.MULTILINE)
_TOLD = re.compile(rb"^Final-Recipient: rfc822; *([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
_ABOUT = re.compile(rb"^X-Bench-Id: ([^\r\n]*)", re.MULTILINE)


class Notice(NamedTuple):
    """A notification as it came to the sender."""

    id: str
    about: str
    """The `X-Bench-Id` of the message that it tells of."""
    recipients: tuple[str, ...]


class Facts(NamedTuple):
    """All that is known after a round."""

    recipients: Mapping[str, Sequence[str]]
    """Of every message that was handed in, by its `X-Bench-Id`."""
    accepted: set[str]
    uncertain: set[str]
    """The connection broke before the reply to the content."""
    put_off: set[str]
    """The client was told to try again, and did: where workers died meanwhile, some of it may have been taken."""
    deliveries: Mapping[str, Sequence[Delivery]]
    """By provider, in the order in which they came."""
    notices: Sequence[Notice]
    events: Sequence[Mapping[str, Any]]
    queue_problems: Sequence[str] = ()
    queue_items: int = 0


class Problem(NamedTuple):
    """Something that must not be."""

    text: str
    message: str = ""
    """The `X-Bench-Id` that it is about; "" for none."""


def notice_of(delivery: Delivery) -> Notice:
    """A notification, read by what a mail program would look for."""
    own, about = _NOTICE_ID.search(delivery.content), _ABOUT.search(delivery.content)
    told = tuple(each.decode("utf-8", "replace") for each in _TOLD.findall(delivery.content))
    return Notice(own[1].decode() if own else "", about[1].decode() if about else "", told)


class _Told:
    """The event log, sorted by message and recipient."""

    def __init__(self, facts: Facts) -> None:
        self.received: set[Mail] = set()
        self.ids: dict[Mail, set[str]] = defaultdict(set)
        """The server's ids of a mail: more than one only where a client was told "try again" and did."""
        self.fates: dict[Mail, list[Mapping[str, Any]]] = defaultdict(list)
        for event in facts.events:
            message = bench_id(event)
            if message not in facts.recipients:
                continue  # a notification
            if event["event"] == "received":
                self.received.update(Mail(message, recipient) for recipient in event["recipients"])
            elif "recipient" in event:
                self.fates[Mail(message, event["recipient"])].append(event)
                self.ids[Mail(message, event["recipient"])].add(event["id"])

    def may_be_twice(self, mail: Mail) -> bool:
        """The server said so, or has it from a client that handed it in twice."""
        said = any(event.get("after_crash") or event.get("uncertain") for event in self.fates[mail])
        return said or len(self.ids[mail]) > 1


def problems(facts: Facts) -> list[Problem]:
    """All that is wrong; nothing where all is well."""
    told = _Told(facts)
    arrived = Counter(
        Mail(delivery.id, recipient)
        for deliveries in facts.deliveries.values()
        for delivery in deliveries
        for recipient in delivery.recipients
    )
    found = [Problem(f"in the queue's files: {each}") for each in facts.queue_problems]
    if facts.queue_items:
        found.append(Problem(f"{facts.queue_items} messages are left in the queue"))
    found += _lost_and_strange(facts, arrived)
    found += _twice(facts, told, arrived)
    found += _fates(facts, told, arrived)
    found += _notices(facts, told)
    return found


def _lost_and_strange(facts: Facts, arrived: Counter[Mail]) -> Iterable[Problem]:
    for message in facts.accepted:
        for recipient in facts.recipients[message]:
            if not is_nobody(recipient) and Mail(message, recipient) not in arrived:
                yield Problem(f"lost: accepted, and {recipient} does not have it", message)
    handed_in = facts.accepted | facts.uncertain
    for mail in arrived:
        if mail.id not in handed_in or mail.recipient not in facts.recipients[mail.id]:
            yield Problem(f"strange: {mail.recipient} has it, and it was never accepted", mail.id)
        elif is_nobody(mail.recipient):
            yield Problem(f"strange: {mail.recipient} has it and refuses all mail", mail.id)


def _twice(facts: Facts, told: _Told, arrived: Counter[Mail]) -> Iterable[Problem]:
    for mail, count in arrived.items():
        if count > 1 and not told.may_be_twice(mail):
            yield Problem(f"{mail.recipient} has it {count} times, and the event log does not say why", mail.id)
    for provider, deliveries in facts.deliveries.items():
        left = Counter(Mail(each.id, recipient) for each in deliveries for recipient in each.recipients)
        by_connection: dict[int, list[tuple[Delivery, bool]]] = defaultdict(list)
        for delivery in deliveries:
            mails = [Mail(delivery.id, recipient) for recipient in delivery.recipients]
            left.subtract(mails)
            again = any(left[mail] > 0 and len(told.ids[mail]) < 2 for mail in mails)
            by_connection[delivery.connection].append((delivery, again))
        for number, carried in by_connection.items():
            unrecorded = [again for _, again in carried]
            first = unrecorded.index(True) if True in unrecorded else len(unrecorded)
            if not all(unrecorded[first:]):
                text = f"came again, though what connection {number} of {provider} carried later did not"
                yield Problem(text, carried[first][0].id)


def _fates(facts: Facts, told: _Told, arrived: Counter[Mail]) -> Iterable[Problem]:
    for message in facts.accepted:
        for recipient in facts.recipients[message]:
            mail = Mail(message, recipient)
            if mail not in told.received:
                yield Problem(f"untold: no `received` with {recipient}", message)
            if not any(event["event"] in FINAL for event in told.fates[mail]):
                yield Problem(f"untold: no final fate of {recipient}", message)
    for mail, events in told.fates.items():
        if len(told.ids[mail]) > 1 and mail.id not in facts.put_off:
            yield Problem(f"{mail.recipient} was handed in once and has several ids", mail.id)
        by_id: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for event in events:
            if event["event"] in FINAL:
                by_id[event["id"]].append(event)
        for server_id, finals in by_id.items():
            kinds = {event["event"] for event in finals}
            if len(kinds) > 1:
                yield Problem(f"{mail.recipient} has several fates as {server_id}: {', '.join(sorted(kinds))}", mail.id)
            again = {event["time"] for event in finals if not event.get("after_crash")}
            if len(again) > 1:
                yield Problem(
                    f"{mail.recipient} ended {len(again)} times as {server_id}, and no crash is named", mail.id
                )
        delivered = any(event["event"] == "delivered" for event in events)
        if delivered and mail not in arrived:
            yield Problem(f"{mail.recipient} is told as delivered and does not have it", mail.id)


def _notices(facts: Facts, told: _Told) -> Iterable[Problem]:
    by_mail: dict[Mail, set[str]] = defaultdict(set)
    for notice in facts.notices:
        for recipient in notice.recipients:
            by_mail[Mail(notice.about, recipient)].add(notice.id)
    for mail, ids in by_mail.items():
        if not is_nobody(mail.recipient):
            yield Problem(f"the sender was told that {mail.recipient} does not get it", mail.id)
        elif len(ids) > max(1, len(told.ids[mail])):
            yield Problem(f"the sender heard of {mail.recipient} in {len(ids)} notifications", mail.id)
    for message in facts.accepted:
        for recipient in facts.recipients[message]:
            if is_nobody(recipient) and Mail(message, recipient) not in by_mail:
                yield Problem(f"the sender never heard that {recipient} does not get it", message)


def is_nobody(recipient: str) -> bool:
    """Whether this recipient never takes anything."""
    return recipient.startswith(NOBODY)


def story(facts: Facts, message: str) -> list[str]:
    """All that is known of one message, a line each."""
    if message not in facts.recipients:
        return []
    heard = "250" if message in facts.accepted else "no reply" if message in facts.uncertain else "no 250"
    lines = [f"{message}: the client heard {heard}; recipients {', '.join(facts.recipients[message])}"]
    for event in facts.events:
        if bench_id(event) == message:
            more = {key: event[key] for key in ("attempt", "code", "stage", "after_crash", "uncertain") if key in event}
            who = event.get("recipient", "")
            lines.append(f"{event['time']:.3f} worker {event['worker']} {event['id']} {event['event']} {who} {more}")
    for provider, deliveries in facts.deliveries.items():
        lines += [
            f"{provider} took it at {each.at_s:.3f} on connection {each.connection} for {', '.join(each.recipients)}"
            for each in deliveries
            if each.id == message
        ]
    return lines + [f"notification {each.id}: {each.recipients}" for each in facts.notices if each.about == message]
