"""Traffic: the mail of a rehearsal. When each recipient's was due, and what became of it where that is known.

Times are Unix seconds. There may be millions of recipients, so one is a few numbers: what it has in common with others
stands once, in its stream.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mta_policies.answers import Answer, Subject

NEVER_S = float("inf")


class Stream:
    """Mail that is alike: of one sender's domain, tenant and campaign, from one source to one domain."""

    __slots__ = ("domain", "number", "policy", "site", "subject")

    def __init__(self, number: int, domain: str, site: str, policy: str, subject: Subject) -> None:
        self.number = number
        """Its place in `Traffic.streams`."""
        self.domain = domain
        """The recipients'."""
        self.site = site
        """"" where nobody knows the mail hosts."""
        self.policy = policy
        """Whose limits held when it was recorded; "" where that is not known."""
        self.subject = subject
        """Who is meant by rules, but for the recipient and the provider."""


class Said(NamedTuple):
    """An answer about a message that is not "delivered"."""

    at_s: float
    answer: Answer
    category: str
    """As it is classed without any rule."""


class Mail:
    """One recipient of one message."""

    __slots__ = (
        "accepted_s",
        "attempts",
        "due_s",
        "ended",
        "ended_s",
        "message",
        "recipient",
        "said",
        "size",
        "stream",
    )

    def __init__(
        self,
        recipient: str,
        message: int,
        stream: Stream,
        due_s: float,
        accepted_s: float,
        size: int = 0,
        attempts: int = 0,
    ) -> None:
        self.recipient = recipient
        self.message = message
        """Recipients of one message go in one transaction, where they have the same way."""
        self.stream = stream
        self.due_s = due_s
        """Not tried before."""
        self.accepted_s = accepted_s
        """What expires counts from here."""
        self.size = size
        self.attempts = attempts
        """Made before it was due."""
        self.said: tuple[Said, ...] = ()
        """What was said about it in the record, in the order of time."""
        self.ended = ""
        """delivered, bounced, expired or cancelled in the record; "": it was not over."""
        self.ended_s = NEVER_S


class Crowd(NamedTuple):
    """Messages that are all alike, as of a campaign: none of them is made before it is its turn."""

    stream: Stream
    messages: int
    at_s: float
    """When the first is due."""
    every_s: float = 0.0
    """From one to the next; 0: all at once."""
    recipients: int = 1
    """Of each message."""
    size: int = 0
    number: int = 0
    """Of the first message."""

    def mail(self, number: int) -> Mail:
        """A recipient of that message, counted from 0."""
        due_s = self.at_s + number * self.every_s
        return Mail("", self.number + number, self.stream, due_s, due_s, self.size)


class Traffic(NamedTuple):
    """What is rehearsed, in the order in which it becomes due; recipients of one message stand together."""

    mails: Sequence[Mail]
    streams: Sequence[Stream]
    start_s: float
    end_s: float
    """When the record ends; of invented mail when the last of it is due."""
    crowds: Sequence[Crowd] = ()
