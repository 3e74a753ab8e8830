"""What a DNS message says about one question, as a value. Pure: messages in, answers out.

The one distinction that mail depends on: *no such thing* is said by somebody who knows; everything else that
is not an answer is a failure, and a failure proves nothing.
"""

from typing import Literal, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

Kind = Literal["MX", "A", "AAAA"]
Outcome = Literal["found", "empty", "no-name", "alias", "failed"]


class Answer(NamedTuple):
    """What was said."""

    outcome: Outcome
    """found: there are records. empty: the name exists, without records of this type. no-name: it does not exist.
    alias: the name is another one's alias, and the message does not say what that one has. failed: no answer."""
    records: tuple[str, ...] = ()
    """Addresses, or `preference name` of mail hosts, as the message has them."""
    ttl_s: float = 0.0
    """The least TTL on the way, for "no such thing" that of the SOA; not clamped."""
    name: str = ""
    """Where the chain of aliases ended."""
    aliases: int = 0
    """How many there were."""
    why: str = ""
    """For a failure: in words."""


def failed(why: str) -> Answer:
    """No answer, for the reason given."""
    return Answer("failed", why=why)


def read(message: dns.message.Message, kind: Kind) -> Answer:
    """What the message says about the question that it repeats, with the aliases followed that it holds."""
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return failed(f"the nameserver says {dns.rcode.to_text(rcode)}")
    if not isinstance(message, dns.message.QueryMessage):
        return failed("the nameserver's message is no answer to a query")
    try:
        chain = message.resolve_chaining()
    except dns.message.ChainTooLong:
        return failed(f"a chain of {dns.message.MAX_CHAIN} aliases or more, or a loop of them")
    except dns.exception.DNSException as error:
        return failed(f"the nameserver's answer contradicts itself ({type(error).__name__})")
    name = host_text(chain.canonical_name)
    aliases = len(chain.cnames)
    if chain.answer is not None:
        records = tuple(_record_text(record) for record in chain.answer)
        return Answer("found", records, chain.minimum_ttl, name, aliases)
    if rcode == dns.rcode.NXDOMAIN:
        return Answer("no-name", (), chain.minimum_ttl, name, aliases)
    has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in message.authority)
    if aliases and not has_soa:
        return Answer("alias", (), chain.minimum_ttl, name, aliases)
    if not has_soa and any(rrset.rdtype == dns.rdatatype.NS for rrset in message.authority):
        return failed("the nameserver only refers to others")  # it knows nothing about the name itself
    return Answer("empty", (), chain.minimum_ttl, name, aliases)


def host_text(name: dns.name.Name) -> str:
    """The name without the root's dot; "" for the root. Odd bytes come as dnspython escapes them."""
    return name.to_text(omit_final_dot=True) if len(name) > 1 else ""


def _record_text(record: object) -> str:
    exchange = getattr(record, "exchange", None)
    if exchange is None:
        return getattr(record, "address", "")
    return f"{getattr(record, 'preference', 0)} {host_text(exchange)}"
