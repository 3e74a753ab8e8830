"""Answers: what came back about a message or a connection, and about whose mail it was.

Whoever delivers makes an `Answer` of every outcome that is not plainly "delivered" and a `Subject` of the way that
the mail took; `engine.Judge` says what they mean. Rules count and act by scope: by everything that the subject has
in common with other mail, as one text, the scope key: "source out-1 > google".
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

STAGES = ("dns", "connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "content", "local")
"""Where an attempt was when the answer came; `content` is the reply to the final dot, `local` a reason of our own."""

MESSAGE_STAGES = frozenset({"mail", "rcpt", "data", "content"})
"""Where the other side answers about this message; at the others about the connection, or nobody answers."""

_GREYLISTING = re.compile(r"gr[ea]y[ -]?list", re.IGNORECASE)
_TEXT_CHARS_MAX = 500  # of a reply are looked at for it

IPV4_NETBLOCK_BITS = 24  # the longest prefix that is routed on its own on the Internet
IPV6_NETBLOCK_BITS = 64  # one network of hosts (RFC 4291 2.5.1)

SYSTEM_SOURCE = "system"
"""How the system's own address is called in a scope key, where no source is configured."""


class Answer(NamedTuple):
    """What a peer said, or what we say for it."""

    code: int
    enhanced: str
    """`5.1.1`, or "" where there was none (RFC 3463)."""
    text: str
    stage: str
    """One of `STAGES`."""
    host: str = ""
    """The mail host's name; "" where it did not come to one."""
    from_peer: bool = True
    """False: our own words for a time-out, a lost connection, the DNS."""

    @property
    def is_greylisting(self) -> bool:
        """It says that whoever is new has to come again (RFC 6647): nothing is wrong with sender or message."""
        return bool(_GREYLISTING.search(self.text[:_TEXT_CHARS_MAX]))


class Subject(NamedTuple):
    """About whose mail. What is not known, or does not apply to a connection, is ""."""

    source: str = ""
    """The source's name; "" is the system's own address."""
    source_address: str = ""
    site: str = ""
    provider: str = ""
    """The policy's name; where that is `default`, the name of the destination: site or route."""
    tenant: str = ""
    campaign: str = ""
    recipient: str = ""
    dkim_domain: str = ""
    """Of the first signature that is ours."""
    spf_domain: str = ""
    """The domain of MAIL FROM; for the null sender the name of EHLO (RFC 7208 2.4)."""


def scope_key(scope: str, subject: Subject) -> str:
    """Whom an action of this scope is for: "dkim-domain example.com > google"; "" where the subject has no such thing.

    A campaign is one of its tenant, so it is told with it: "campaign shop/spring > google". Beside the scopes that
    rules may name there is "path": source, DKIM domain and site together.
    """
    value = _value(scope, subject)
    if not value:
        return ""
    return f"provider {value}" if scope == "provider" else f"{scope} {value} > {subject.provider}"


def _value(scope: str, subject: Subject) -> str:
    match scope:
        case "source":
            return subject.source or SYSTEM_SOURCE
        case "site":
            return subject.site
        case "provider":
            return subject.provider
        case "tenant":
            return subject.tenant
        case "campaign":
            return f"{subject.tenant}/{subject.campaign}" if subject.campaign else ""
        case "recipient":
            return subject.recipient
        case "dkim-domain":
            return subject.dkim_domain
        case "spf-domain":
            return subject.spf_domain
        case "netblock":
            return netblock(subject.source_address)
        case "path":
            return f"{subject.source or SYSTEM_SOURCE} {subject.dkim_domain or '-'} {subject.site}"
        case _:
            raise AssertionError(f"no such scope: {scope}")


@lru_cache(maxsize=1024)
def netblock(address: str) -> str:
    """The network of a source address that providers hold responsible together; "" for no address."""
    if not address:
        return ""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    bits = IPV4_NETBLOCK_BITS if isinstance(parsed, IPv4Address) else IPV6_NETBLOCK_BITS
    return str(ip_network((parsed, bits), strict=False))
