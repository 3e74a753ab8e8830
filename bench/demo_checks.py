"""The demo's judgement: whether the door, the event log, the providers and the sender all tell the same story.

Nothing is believed that one side alone says. The server's event log says what became of each message; the providers
counted what they were given; the ids of all that arrived say whether each came once; a few messages are verified with
a library that is not ours and the key that the DNS publishes.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import dkim
import dns.message
import dns.query
import dns.rdatatype

from bench.demo_cast import PROVIDERS, SHOP, Mailing
from bench.fates import Fates, Tally
from bench.load import Result
from bench.rig import SinkCounts

DNS_TIMEOUT_S = 5.0
SHOWN_MAX = 3  # examples of what is wrong
REPORT = b"multipart/report"


class Seen(NamedTuple):
    """What there is to judge by, when all is over."""

    mailing: Mailing
    result: Result
    fates: Fates
    counts: Mapping[str, SinkCounts]
    arrived: Sequence[str]
    """The id of every message that any mail host took; a notification carries that of the message it is about."""
    samples: Sequence[bytes]
    """Contents that arrived."""


class Check(NamedTuple):
    """One thing that must hold."""

    claim: str
    """In the words of one who has seen it hold."""
    wrong: list[str]
    """What does not; empty: it holds."""


Txt = Callable[[str], bytes]
"""The TXT record of a name; b"" where there is none."""


def checks(seen: Seen, txt: Txt) -> list[Check]:
    """All of them, held or not."""
    return [exactly_once(seen), limits(seen), signed(seen, txt), notified(seen)]


def exactly_once(seen: Seen) -> Check:
    """What was accepted arrived, neither missing nor twice, and the event log knows."""
    wrong = []
    accepted, mailing = seen.result.accepted, seen.mailing
    if len(accepted) != mailing.plan.messages:
        wrong.append(f"not all of {mailing.plan.messages:,} messages were accepted: {seen.result.report()}")
    often = Counter(seen.arrived)
    wrong += _some("never arrived", [each for each in accepted if not often[each]])
    wrong += _some("arrived that nobody had accepted", sorted(often.keys() - set(accepted)))
    wrong += _some("arrived more than once", [each for each, count in often.items() if count > 1])
    for name, tally in _tallies(seen):
        count = seen.counts[name]
        expected = mailing.messages[name] - mailing.undeliverable[name]
        if not count.messages == tally.counts["delivered"] == expected:
            told = f"told were {tally.counts['delivered']:,}, right are {expected:,}"
            wrong.append(f"{name} took {count.messages:,} messages, {told}")
        if tally.counts["bounced"] != mailing.undeliverable[name]:
            wrong.append(f"{name}: {tally.counts['bounced']:,} bounced, right are {mailing.undeliverable[name]:,}")
        if tally.counts["expired"]:
            wrong.append(f"{name}: {tally.counts['expired']:,} messages were given up")
    if seen.fates.told_twice:
        wrong.append(f"{seen.fates.told_twice:,} fates were told twice")
    delivered = mailing.plan.messages - mailing.notifications
    return Check(f"{delivered:,} messages arrived, each exactly once; the event log has every fate.", wrong)


def limits(seen: Seen) -> Check:
    """Nobody was given more connections, messages a connection or messages a second than allowed."""
    wrong = []
    for provider in PROVIDERS:
        count = seen.counts[provider.name]
        if count.connections_max > provider.connections:
            wrong.append(f"{provider.name} saw {count.connections_max} connections of {provider.connections} allowed")
        if count.connections_over:
            wrong.append(f"{provider.name} turned away {count.connections_over:,} connections")
        if count.mails_over:
            wrong.append(f"{provider.name} refused {count.mails_over:,} messages as too many or too fast")
    return Check("No provider saw more connections or messages than it allows.", wrong)


def signed(seen: Seen, txt: Txt) -> Check:
    """Every message carries a signature; those of the samples are good."""
    wrong = []
    for provider in PROVIDERS:
        count = seen.counts[provider.name]
        if count.signed != count.messages:
            wrong.append(f"{provider.name}: {count.messages - count.signed:,} messages came without a signature")
    letters = [each for each in seen.samples if not is_notification(each)]
    if not letters:
        wrong.append("no sample was kept")
    bad = sum(not verify(each, txt) for each in letters)
    if bad:
        wrong.append(f"{bad} of {len(letters)} signatures cannot be verified")
    return Check(f"All were signed; {len(letters)} were verified with dkimpy and the published key.", wrong)


def notified(seen: Seen) -> Check:
    """The sender was told of each message that could not be delivered, and of no other."""
    wrong, right, count = [], seen.mailing.notifications, seen.counts[SHOP]
    if count.messages != right:
        wrong.append(f"{count.messages:,} notifications reached the sender, right are {right:,}")
    if count.duplicates:
        wrong.append(f"{count.duplicates:,} notifications came twice")
    strange = [each for each in seen.samples if is_notification(each) and b"\r\nAction: failed\r\n" not in each]
    if strange:
        wrong.append(f"{len(strange)} notifications do not say `Action: failed`")
    return Check(f"The shop was told of the {right:,} that could not be delivered, once of each.", wrong)


def is_notification(content: bytes) -> bool:
    """Whether it is a delivery status notification (RFC 6522)."""
    return REPORT in content[: content.find(b"\r\n\r\n")].lower()


def verify(content: bytes, txt: Txt) -> bool:
    """Whether its signature is good, in dkimpy's opinion."""
    try:
        return dkim.verify(content, dnsfunc=lambda name, timeout=5: txt(_text(name)) or None)
    except dkim.DKIMException:
        return False


def txt_from(port: int) -> Txt:
    """Asks the name server on this port of 127.0.0.1, once for each name."""
    known: dict[str, bytes] = {}

    def ask(name: str) -> bytes:
        if name not in known:
            query = dns.message.make_query(name, dns.rdatatype.TXT)
            answer = dns.query.tcp(query, "127.0.0.1", DNS_TIMEOUT_S, port)
            records = [record for rrset in answer.answer for record in rrset]
            known[name] = b"".join(records[0].strings) if records else b""
        return known[name]

    return ask


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _some(what: str, ids: Sequence[str]) -> list[str]:
    """One line on them, with examples."""
    if not ids:
        return []
    more = " ..." if len(ids) > SHOWN_MAX else ""
    return [f"{len(ids):,} messages {what}: {', '.join(ids[:SHOWN_MAX])}{more}"]


def _tallies(seen: Seen) -> list[tuple[str, Tally]]:
    return [(name, tally) for name, tally in seen.fates.tallies.items() if name != SHOP]
