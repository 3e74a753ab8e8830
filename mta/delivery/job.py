"""A job: some recipients of one message on their way to one site, from the moment they may go until their fate.

While it waits longer than a moment its envelope and content leave memory (it is *cold*) and are read back from the
queue when its turn is near.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from mta.model.envelope import Envelope
from mta.model.outcome import Reply

WAITING, LOADING, SIGNING, SENDING, ENDING, ENDED = range(6)
"""In a lane, or for its domain; being read back; being signed; in a transaction; its end is being written down, with
a notification before it; delivered, put off or given up (lanes drop it when they meet it)."""


TURN_BYTES = 64 * 1024  # of content are one turn: up to here a transaction is round trips, beyond it is bytes
TURNS_MAX = 16  # that one message uses at most: a share must not wait for minutes because of one message


class Home(Protocol):
    """Where jobs wait that nobody can send yet."""

    def cooled(self, job: "Job") -> None:
        """A job left memory: it may be far from its turn, and end as a number (`mta.delivery.spills`)."""
        ...


class Signature:
    """What is put before a message's content, once for all its jobs and attempts."""

    __slots__ = ("domains", "fields", "waiting")

    def __init__(self, fields: bytes | None = None, domains: str = "") -> None:
        self.fields = fields
        """DKIM-Signature fields, each ending in CRLF; b"" where there is nothing to sign, None: not signed yet."""
        self.domains = domains
        """Whose signatures they are, for events: "a.test,esp.test"."""
        self.waiting: list[Callable[[Reply | None], None]] | None = None
        """It is being signed: whoever is called when that is done, with the reason where it cannot be."""


class Job:
    """Recipients (`parts`, indexes into the envelope) of the queue's item `seq`."""

    __slots__ = (
        "accepted_s",
        "attempts",
        "campaign",
        "charge_bytes",
        "content",
        "cost",
        "domain",
        "envelope",
        "expires_s",
        "expiry_step",
        "home",
        "is_mixed",
        "is_watched",
        "own_expire_s",
        "parts",
        "prefer_host",
        "priority",
        "seq",
        "signature",
        "source",
        "state",
        "tenant",
    )

    def __init__(
        self,
        seq: int,
        parts: Sequence[int],
        domain: str,
        envelope: Envelope,
        content: bytes | None,
        source: str,
        attempts: int = 0,
        prefer_host: str = "",
        signature: Signature | None = None,
    ) -> None:
        self.seq = seq
        self.parts = parts
        self.domain = domain
        """The recipients' domain, or the first one's where a transaction mixes domains of a site."""
        self.is_mixed = False
        """Its recipients are of several domains."""
        self.priority = envelope.priority
        self.tenant = envelope.tenant
        self.campaign = envelope.campaign
        self.cost = 1 if envelope.size < TURN_BYTES else min(TURNS_MAX, 1 + envelope.size // TURN_BYTES)
        """Turns among the shares of a lane that it uses."""
        self.attempts = attempts
        """How often the other side has answered about these recipients."""
        self.source = source
        """Name of the source that it goes out from; retries keep it, because greylisting remembers it."""
        self.prefer_host = prefer_host
        """The host that perhaps has the message already: it is asked first."""
        self.accepted_s = envelope.send_at_s or envelope.received_s
        """What expiry counts from: Unix seconds."""
        self.own_expire_s = envelope.expire_s
        self.expires_s = 0.0
        """Unix seconds; 0 until a policy is known."""
        self.envelope: Envelope | None = envelope
        self.content: bytes | None = content
        self.charge_bytes = 0
        """What of its content memory counts for this job: jobs of one message share it."""
        self.is_watched = False
        """Memory looks after it when it stays."""
        self.expiry_step = 0
        """Where `Expiries` has it; 0: nowhere."""
        self.signature = signature
        """Shared by all jobs of the message; None where nobody began to sign it, or nothing is ever signed."""
        self.home: Home | None = None
        """Where it waits."""
        self.state = WAITING

    def part(self, parts: Sequence[int]) -> "Job":
        """A job for some of the recipients, otherwise alike; memory does not know it yet."""
        if self.signature is None:
            self.signature = Signature()
        other = Job.__new__(Job)
        for name in Job.__slots__:
            setattr(other, name, getattr(self, name))
        other.parts = parts
        other.charge_bytes = 0
        other.is_watched = False
        other.expiry_step = 0
        other.home = None
        other.state = WAITING
        return other

    def cool(self) -> None:
        """Leave memory until its turn is near."""
        self.envelope = None
        self.content = None


def is_cold(job: Job) -> bool:
    """Whether a job in a lane is no more than a few numbers, or has ended."""
    return job.envelope is None or job.state == ENDED
