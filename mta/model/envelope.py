"""The envelope: who a message is from, who it goes to, and what the sender asked for.

It is written to the queue as msgpack beside the content (`encode`, `decode`), so fields may be added at
the end of a struct, never moved or removed.
"""

import msgspec

PRIORITY_DEFAULT = 5
PRIORITY_MAX = 9
POOL_DEFAULT = "default"
"""The pool of sources of all mail whose tenant and headers name none."""


class Recipient(msgspec.Struct, frozen=True, array_like=True):
    """One RCPT TO."""

    address: str
    """As it goes on the wire between < and >: `a@b.example`, `"a b"@b.example`; may hold UTF-8 (RFC 6531)."""
    domain: str
    """What is routed by: lower-case A-labels (`xn--...`) or an address literal with its brackets."""


class Glance(msgspec.Struct, array_like=True):
    """The beginning of an envelope: what the message is and where it goes. It is decoded in half the time."""

    id: str
    """Unique over machines and restarts; sorts by time; told in the `250` and in every event."""
    sender: str
    """MAIL FROM as it goes on the wire, "" for the null sender."""
    recipients: list[Recipient]
    received_s: float
    """When the `250` was earned: Unix seconds."""
    size: int
    """Bytes of content as stored: CRLF line ends, not dot-stuffed, with the headers added at the door."""
    body_8bit: bool = False
    """The content has bytes over 127 or the sender said BODY=8BITMIME (RFC 6152)."""
    smtputf8: bool = False
    """The sender said SMTPUTF8 (RFC 6531)."""
    priority: int = PRIORITY_DEFAULT
    tenant: str = ""
    campaign: str = ""

    @property
    def sender_domain(self) -> str:
        """In lower case; "" for the null sender."""
        return self.sender.rpartition("@")[2].lower()


class Envelope(Glance, array_like=True):
    """All that is known of a message beside its content."""

    pool: str = ""
    """Name of the pool of sources; "" for `POOL_DEFAULT`."""
    message_id: str = ""
    from_domain: str = ""
    client: str = ""
    """Address of the client that handed the message in."""
    send_at_s: float = 0.0
    """Not before this time (Unix seconds); 0: at once."""
    expire_s: float = 0.0
    """Seconds from acceptance, or from `send_at_s`, after which the message is given up; 0: as the policy says."""
    told_recipients: list[str] | None = None
    """Who tells `received`: None: another owner of the message; else this one, with all recipients of the message,
    where [] stands for just those of this envelope."""
    date_missing: bool = False
    """A delayed message came without Date: one is added when it becomes due."""
    cause_id: str = ""
    """Of a delivery status notification: the message that it tells about; "" for every other message."""
    cause_recipients: list[str] | None = None
    """Of a delivery status notification: the recipients of that message that it tells about."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)
_decode_glance = msgspec.msgpack.Decoder(Glance).decode


def encode(envelope: Envelope) -> bytes:
    """The bytes that the queue keeps beside the content."""
    return _encoder.encode(envelope)


def decode(meta: bytes) -> Envelope:
    """The opposite of `encode`; raises msgspec.DecodeError where the bytes are not an envelope."""
    return _decoder.decode(meta)


def glance(meta: bytes) -> Glance:
    """The beginning of what `decode` gives; raises msgspec.DecodeError where the bytes do not begin as an envelope."""
    return _decode_glance(meta)
