"""Server dialogues for tests: a session with a handler that notes everything, and what to say to it."""

from dataclasses import dataclass, field
from typing import Any

from mta.smtp.server import ServerSession, ServerSettings, Transaction

SETTINGS = ServerSettings(hostname="mail.example.com", size_max=10_000, recipients_max=3, relay=True)
STRANGER = ServerSettings(hostname="mail.example.com", size_max=10_000, recipients_max=3)
STORED = b"250 2.0.0 Stored\r\n"
MESSAGE = b"Subject: x\r\n\r\nHello\r\n"
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
FAKE_ENDS = [
    b"\n.\n",
    b"\n.\r",
    b"\r.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
]


@dataclass
class Handler:
    """Notes everything; answers messages at once unless told to wait."""

    answers_at_once: bool = True
    refuse_mail: bytes | None = None
    session: ServerSession | None = None
    senders: list[tuple[str, int]] = field(default_factory=list)
    messages: list[Transaction] = field(default_factory=list)
    rejections: list[tuple[str, bytes, str, str]] = field(default_factory=list)

    def mail(self, sender: str, size_declared: int) -> bytes | None:
        self.senders.append((sender, size_declared))
        return self.refuse_mail

    def message(self, transaction: Transaction) -> None:
        self.messages.append(transaction)
        if self.answers_at_once:
            assert self.session is not None
            self.session.answer(STORED)

    def rejected(self, stage: str, reply: bytes, sender: str, recipient: str) -> None:
        self.rejections.append((stage, reply, sender, recipient))


def open_session(settings: ServerSettings = SETTINGS, **more: Any) -> tuple[ServerSession, Handler]:
    """A session before its greeting."""
    handler = Handler(**more)
    handler.session = ServerSession(settings, handler)
    return handler.session, handler


def greeted(settings: ServerSettings = SETTINGS, **more: Any) -> tuple[ServerSession, Handler]:
    """A session after EHLO."""
    session, handler = open_session(settings, **more)
    session.greeting()
    say(session, b"EHLO client.example\r\n")
    return session, handler


def say(session: ServerSession, *groups: bytes) -> bytes:
    """Hands in each group and collects what is said to it."""
    said = []
    for group in groups:
        session.receive(group)
        said.append(session.data_to_send())
    return b"".join(said)


def codes(said: bytes) -> list[str]:
    """Code and enhanced code of each reply."""
    return [b" ".join(line.split(b" ")[:2]).decode() for line in said.splitlines() if line[3:4] == b" "]
