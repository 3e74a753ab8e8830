"""A mailing: what a load sends, to whom, and every single message of it.

Always the same recipients and bodies for the same seed. Only the ids, unless the plan says them, are drawn at
random, so that two runs against one server can be told apart.
"""

import secrets
from email.utils import formatdate
from itertools import accumulate
from random import Random
from string import ascii_lowercase
from typing import NamedTuple

import msgspec

BODY_LINE = b"The quick brown fox jumps over the lazy dog, and the mail goes out at once.\r\n"
LINE_BYTES = len(BODY_LINE)
UNIQUE_LINES = 4_096  # lines of random text that unique bodies are cut from, each beginning at another one
STRIDE = 1_021  # a prime, so that neighbours have little in common
WORDS = 2_000


class Domain(msgspec.Struct, forbid_unknown_fields=True):
    """A share of the recipients."""

    name: str
    weight: float = 1.0
    words: dict[str, float] = {}
    """Shares of its recipients with a special local part (see bench.temper): `{"unknown": 0.02}`."""


class Plan(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to be sent, and how."""

    host: str = "127.0.0.1"
    port: int = 2525
    messages: int = 1_000
    sessions: int = 20
    sizes: list[int] = msgspec.field(default_factory=lambda: [4_096])
    """Bytes of content, header included; taken in turn."""
    domains: list[Domain] = msgspec.field(default_factory=lambda: [Domain("sink.test")])
    recipients_per_message: int = 1
    rate_per_s: float = 0.0
    priority: int | None = None
    """X-MTA-Priority of every message; None: the header is left out."""
    headers: list[str] = []
    """Further header lines."""
    sender: str = "shop@load.test"
    run_id: str = ""
    """First part of every id; "": drawn at random."""
    seed: int = 1
    """Which recipients are drawn."""
    unique: bool = False
    """Every body is another one, as of mail that was written for its reader; else all are the same."""
    persist: bool = False
    """A message refused with 4xx is tried again until it is taken."""
    reconnect_s: float = 0.0
    """For so long after its first loss a session tries to come back, also where nothing listens yet at the start;
    0: a lost session stays lost."""


class Message(NamedTuple):
    """One message to hand in."""

    id: str
    envelope: bytes
    """MAIL, every RCPT, and DATA."""
    recipients: int
    content: bytes
    """With the final dot."""
    due_s: float
    """Monotonic; 0.0: when its turn comes."""
    number: int = 0
    """Of its plan, from 0."""


class Maker:
    """Makes the messages of a plan, always the same recipients for the same seed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._random = Random(plan.seed)
        self._weights = list(accumulate(domain.weight for domain in plan.domains))
        self.run_id = plan.run_id or secrets.token_hex(4)
        head = [f"From: Load <{plan.sender}>", f"Date: {formatdate()}", "MIME-Version: 1.0", *plan.headers]
        if plan.priority is not None:
            head.append(f"X-MTA-Priority: {plan.priority}")
        self._head = "".join(f"{line}\r\n" for line in head)
        self._lines = UNIQUE_LINES if plan.unique else 1
        size = max(plan.sizes) + self._lines * LINE_BYTES
        self._body = random_text(size, plan.seed) if plan.unique else BODY_LINE * (size // LINE_BYTES + 1)

    def make(self, number: int, due_s: float) -> Message:
        """The message of this number, from 0."""
        plan = self._plan
        message_id = f"{self.run_id}-{number}"
        recipients = [self._recipient(number, each) for each in range(plan.recipients_per_message)]
        first = f"This is {message_id}.\r\n" if plan.unique else ""
        head = (
            f"{self._head}To: <{recipients[0]}>\r\nSubject: Message {number}\r\n"
            f"Message-ID: <{message_id}@load.test>\r\nX-Bench-Id: {message_id}\r\n\r\n{first}"
        ).encode()
        size = plan.sizes[number % len(plan.sizes)]
        rcpt = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in recipients)
        envelope = f"MAIL FROM:<{plan.sender}>\r\n{rcpt}DATA\r\n".encode()
        at = number * STRIDE % self._lines * LINE_BYTES
        body = self._body[at : at + max(0, size - len(head) - 2)]
        if body[-1:] == b"\r":
            body = body[:-1] + b"!"  # a bare CR would be refused
        content = b"%b%b\r\n.\r\n" % (head, body)
        return Message(message_id, envelope, len(recipients), content, due_s, number)

    def _recipient(self, number: int, each: int) -> str:
        domain = self._plan.domains[0]
        if len(self._weights) > 1:
            domain = self._random.choices(self._plan.domains, cum_weights=self._weights)[0]
        tag = f"{number}.{each}" if each else f"{number}"
        if domain.words:
            draw = self._random.random()
            for word, share in domain.words.items():
                draw -= share
                if draw < 0:
                    return f"{word}+{tag}@{domain.name}"
        return f"user{tag}@{domain.name}"


def random_text(size: int, seed: int) -> bytes:
    """At least so many bytes of words in lines of `LINE_BYTES`, as people write: single blanks, none at the end."""
    random = Random(seed)
    words = ["".join(random.choices(ascii_lowercase, k=random.randint(2, 9))) for _ in range(WORDS)]
    width = LINE_BYTES - 2
    lines = []
    for _ in range(size // LINE_BYTES + 1):
        line = " ".join(random.choices(words, k=width // 3))[:width]
        lines.append(f"{line[:-1]}." if line[-1] == " " else line)
    return "".join(f"{line}\r\n" for line in lines).encode()
