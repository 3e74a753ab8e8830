"""What became of an attempt, recipient by recipient. A fate is a value."""

import msgspec

STAGES = ("dns", "connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "content", "local")
"""Where in its life an attempt was when its outcome was decided; `content` is the reply to the final dot."""

COUNTED_STAGES = frozenset({"mail", "rcpt", "data", "content"})
"""Only where the other side answered about this message is it an attempt that uses up the schedule."""


class Reply(msgspec.Struct, frozen=True):
    """An SMTP reply, the peer's or one of ours."""

    code: int
    enhanced: str
    """`5.1.1`, or "" where the peer gave none (RFC 3463)."""
    text: str
    """The lines' texts without codes, joined with a blank."""

    @property
    def is_positive(self) -> bool:
        return 200 <= self.code < 400

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))


class Delivered(msgspec.Struct, frozen=True):
    """The other side took responsibility."""

    reply: Reply
    stage: str = "content"


class Deferred(msgspec.Struct, frozen=True):
    """Not now."""

    reply: Reply
    stage: str
    uncertain: bool = False
    """The connection broke after the final dot: the peer may have it. Retried on the same MX first."""
    from_peer: bool = True
    """False where the reply is our own words for what happened (time-out, connection lost, DNS)."""


class Bounced(msgspec.Struct, frozen=True):
    """Never."""

    reply: Reply
    stage: str
    from_peer: bool = True


Outcome = Delivered | Deferred | Bounced
