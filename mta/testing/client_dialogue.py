"""A dialogue of the client's session with a peer made of bytes: no socket, and all that was told is written down.

session, recorder = sending("b@x")
session.receive(YES_1)
assert sent(session) == CONTENT + b".\r\n"
"""

from collections.abc import Sequence

from mta.model.outcome import Outcome, Reply
from mta.smtp.client import ClientSession, TlsMode
from mta.smtp.outgoing import Outgoing

CONTENT = b"Subject: hi\r\n\r\nhello\r\n"
YES_1 = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n"
YES_3 = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n250 2.1.5 ok\r\n250 2.1.5 ok\r\n354 go\r\n"
QUEUED = b"250 2.0.0 queued as 1\r\n"
QUEUED_REPLY = Reply(250, "2.0.0", "queued as 1")


class Recorder:
    """A handler that writes down what it is told, and may hand over the next message at once."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.next: list[Outgoing] = []
        self.depth = self.depth_max = 0
        self.session: ClientSession | None = None

    def ready(self) -> None:
        self.told.append(("ready",))

    def start_tls(self) -> None:
        self.told.append(("start_tls",))

    def failed(self, stage: str, reply: Reply, from_peer: bool) -> None:
        self.told.append(("failed", stage, reply, from_peer))

    def lost(self) -> None:
        self.told.append(("lost",))

    def done(self, outcomes: list[Outcome], usable: bool) -> None:
        self.depth += 1
        self.depth_max = max(self.depth, self.depth_max)
        self.told.append(("done", outcomes, usable))
        if self.next and usable:
            assert self.session is not None
            self.session.send(self.next.pop(0))
        self.depth -= 1

    def names(self) -> list[object]:
        return [told[0] for told in self.told]

    @property
    def outcomes(self) -> list[Outcome]:
        """Of the only message."""
        (done,) = [told for told in self.told if told[0] == "done"]
        assert isinstance(done[1], list)
        return done[1]

    @property
    def usable(self) -> bool:
        (done,) = [told for told in self.told if told[0] == "done"]
        return bool(done[2])


def new(tls: TlsMode = "none") -> tuple[ClientSession, Recorder]:
    recorder = Recorder()
    session = ClientSession(recorder, "me.example", tls=tls)
    recorder.session = session
    return session, recorder


def ehlo(*keywords: str) -> bytes:
    lines = ["peer.example", *keywords]
    return b"".join(b"250%b%b\r\n" % (b" " if i == len(lines) else b"-", k.encode()) for i, k in enumerate(lines, 1))


def ready(*keywords: str) -> tuple[ClientSession, Recorder]:
    """A session that is ready for its first message."""
    session, recorder = new()
    session.receive(b"220 peer.example ESMTP\r\n")
    session.data_to_send()
    session.receive(ehlo(*keywords))
    assert session.phase == "ready"
    recorder.told.clear()
    return session, recorder


def mail(*recipients: str, sender: str = "a@me.example", content: bytes = CONTENT, size: int | None = None,
         body_8bit: bool = False, smtputf8: bool = False) -> Outgoing:  # fmt: skip
    return Outgoing(
        sender, recipients or ("b@x",), content, len(content) if size is None else size, body_8bit, smtputf8
    )


def sent(session: ClientSession) -> bytes:
    """All that the session has to say now."""
    said = b"".join([bytes(session.data_to_send())])
    while session.has_more:
        said += bytes(session.data_to_send())
    return said


def sending(*recipients: str, keywords: Sequence[str] = ("PIPELINING",)) -> tuple[ClientSession, Recorder]:
    """A session that has begun a transaction and written its first commands."""
    session, recorder = ready(*keywords)
    session.send(mail(*recipients))
    sent(session)
    return session, recorder


NO = Reply(550, "5.1.1", "no")
LATER = Reply(450, "4.2.1", "later")
BYE = Reply(421, "4.7.0", "bye")
