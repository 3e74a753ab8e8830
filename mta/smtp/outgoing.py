"""Outgoing: one transaction with a peer, and whether this peer can be told it. Pure: values in, bytes out.

What a message needs (size, 8-bit content, UTF-8 addresses) is laid beside what the peer offers. Where the peer
lacks something the message is bounced here, with our own words and without a byte to the peer: it is never
sent broken. Where a message only says that it might need something but is plain ASCII it goes without.
"""

from collections.abc import Sequence

import msgspec

from mta.model.outcome import Bounced, Reply

SIZE_DIGITS_MAX = 20  # RFC 1870 3


class Outgoing(msgspec.Struct, frozen=True):
    """One transaction: a message and those of its recipients who are to get it over this connection."""

    sender: str
    """As it goes on the wire between < and >; "" for the null sender."""
    recipients: Sequence[str]
    """At least one, each as it goes on the wire."""
    content: bytes
    """With CRLF line ends, not dot-stuffed."""
    size: int
    """Bytes of `content`, for SIZE= (RFC 1870)."""
    body_8bit: bool = False
    smtputf8: bool = False


class Capabilities(msgspec.Struct, frozen=True):
    """What the peer's latest EHLO reply offers (RFC 5321 4.1.1.1); a peer that knows only HELO offers nothing."""

    size: bool = False
    size_max: int = 0
    """Largest message in bytes; 0: not told (RFC 1870 4)."""
    pipelining: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    starttls: bool = False
    chunking: bool = False


def commands_of(outgoing: Outgoing, capabilities: Capabilities) -> bytes | Bounced:
    """MAIL, one RCPT per recipient and DATA, a line each; or the fate of a message that the peer cannot take."""
    parameters = ""
    if 0 < capabilities.size_max < outgoing.size:
        text = f"the message has {outgoing.size} bytes, the peer takes {capabilities.size_max}"
        return _bounced(552, "5.3.4", text)
    if capabilities.size:
        parameters = f" SIZE={outgoing.size}"
    sender, recipients = outgoing.sender, outgoing.recipients
    if outgoing.body_8bit:
        if capabilities.eight_bit:
            parameters += " BODY=8BITMIME"
        elif not outgoing.content.isascii():  # RFC 6152 3
            return _bounced(554, "5.6.3", "the message has 8-bit content, which the peer does not take")
    path_end = ">\r\nRCPT TO:<"
    to = recipients[0] if len(recipients) == 1 else path_end.join(recipients)
    if outgoing.smtputf8 or not (to.isascii() and sender.isascii()):
        if capabilities.smtputf8:
            parameters += " SMTPUTF8"
        elif not (to.isascii() and sender.isascii() and outgoing.content.isascii()):  # RFC 6531 3.2
            return _bounced(554, "5.6.7", "the message needs SMTPUTF8, which the peer does not offer")
    commands = f"MAIL FROM:<{sender}>{parameters}\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode()
    lines = len(recipients) + 2
    if commands.count(b"\n") != lines or commands.count(b"\r") != lines:
        return _bounced(553, "5.1.3", "an address holds a line end")
    return commands


def _bounced(code: int, enhanced: str, text: str) -> Bounced:
    return Bounced(Reply(code, enhanced, text), "local", False)


def capabilities_of(lines: list[bytes]) -> Capabilities:
    """Reads an EHLO reply's lines but the first (RFC 5321 4.1.1.1); what we do not know is passed over."""
    offered = {}
    for line in lines[1:]:
        keyword, _, parameters = line.strip().partition(b" ")
        offered[keyword.upper()] = parameters.strip()
    size = offered.get(b"SIZE", b"")
    return Capabilities(
        size=b"SIZE" in offered,
        size_max=int(size) if size.isdigit() and len(size) <= SIZE_DIGITS_MAX else 0,
        pipelining=b"PIPELINING" in offered,
        eight_bit=b"8BITMIME" in offered,
        smtputf8=b"SMTPUTF8" in offered,
        starttls=b"STARTTLS" in offered,
        chunking=b"CHUNKING" in offered,
    )
