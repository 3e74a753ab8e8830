"""Names as they may be asked for: domains, hosts and address literals. Pure.

What is not plain letters, digits, hyphens and underscores never becomes a query: a name from a stranger's
RCPT or MX record could otherwise carry blanks, bytes that mean something to a log, or a label that is no label.
International names come here as A-labels already.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

NAME_CHARS_MAX = 253  # RFC 1035 2.3.4, without the root's dot
_LABEL = r"[a-z0-9_-]{1,63}"  # RFC 1035 2.3.4; the underscore is in use in host names
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC = re.compile(r"[0-9.]+")
_LITERAL = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f.:]+)\]", re.IGNORECASE)
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def clean_name(name: str) -> str:
    """The name in lower case without a trailing dot; "" where it cannot be a host's or a domain's name.

    Addresses without brackets are no names: `10 192.0.2.1` in an MX record is a mistake, not a host.
    """
    name = name.lower().removesuffix(".")
    if len(name) > NAME_CHARS_MAX or not _NAME.fullmatch(name) or _NUMERIC.fullmatch(name):
        return ""
    return name


def literal_address(name: str) -> IPv4Address | IPv6Address | None:
    """The address of `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3), also written without brackets."""
    if name.startswith("["):
        match = _LITERAL.fullmatch(name)
        if match is None:
            return None
        name = match[1]
    try:
        return ip_address(name)
    except ValueError:
        return None


def is_loopback_name(name: str) -> bool:
    """`localhost` and what is below it mean this machine and are never asked for (RFC 6761 6.3)."""
    return name == "localhost" or name.endswith(".localhost")
