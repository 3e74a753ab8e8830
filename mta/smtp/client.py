"""The client's side of the dialogue: one session hands messages to one peer. Pure: bytes in, bytes out.

The shell gives `receive` whatever arrived and writes what `data_to_send` returns; what happened is told to a
ClientHandler. With PIPELINING (RFC 2920) MAIL, every RCPT and DATA leave in one write and their replies are
counted off strictly; without it the same steps go one at a time. In either case MAIL leaves with what is written
for `send`: an abandoned transaction is reset in that write, or before its end is told. Every recipient of every message
gets exactly one outcome, whatever the peer says and wherever the connection breaks.

    greeting -> ehlo [-> helo] [-> starttls -> ehlo] -> ready -> [rset ->] mail -> rcpt ... -> data -> content -> ready
    mail, rcpt, data -> rset -> ready: nothing was sent, to a peer without PIPELINING
    any of them -> quit (QUIT is written, nothing more is told) or closed (not a byte more; the shell aborts)
"""

import re
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.smtp.content import stuff
from mta.smtp.outgoing import Capabilities, Outgoing, capabilities_of, commands_of
from mta.smtp.reply_reader import MalformedReplyError, ReplyReader, reply_of

CONTENT_WHOLE_BYTES_MAX = 256 * 1024  # up to here content leaves in one write
CONTENT_PIECE_BYTES = 128 * 1024  # larger content leaves in pieces of this size, so that a peer can stop us

TlsMode = Literal["none", "opportunistic", "required", "verify"]
Phase = Literal[
    "greeting", "ehlo", "helo", "starttls", "ready", "rset", "mail", "rcpt", "data", "content", "quit", "closed"
]

LOST = Reply(451, "4.4.2", "connection lost")

# All of a pipelined group's replies when every one is the plainest yes: MAIL, RCPTs, 354.
_all_accepted = re.compile(rb"250 [ -~]*\r\n(?:250 [ -~]*\r\n)+354 [ -~]*\r\n").fullmatch
# The plainest yes to the final dot.
_delivered = re.compile(rb"250 (?:(2\.[0-9]{1,3}\.[0-9]{1,3}) )?([!-~](?:[ -~]{0,800}[!-~])?)\r\n").fullmatch

_STAGE_OF = {"helo": "ehlo", "rset": "mail"}


class ClientHandler(Protocol):
    """Who is told what happened. Calls come from within the session's methods."""

    def ready(self) -> None:
        """The connection may be given its first message now."""
        ...

    def start_tls(self) -> None:
        """The peer said 220 to STARTTLS: begin the handshake, then call `tls_established` (or `connection_lost`)."""
        ...

    def done(self, outcomes: list[Outcome], usable: bool) -> None:
        """A message's end: one outcome per recipient, in order. `usable`: `send` may be called at once."""
        ...

    def failed(self, stage: str, reply: Reply, from_peer: bool) -> None:
        """The connection was never ready and never will be."""
        ...

    def lost(self) -> None:
        """The connection was ready and had nothing to do; it cannot be used any more."""
        ...


class ClientSession:
    """The dialogue with one peer. After each call the shell writes `data_to_send` and looks at `phase`."""

    __slots__ = (
        "_accepted", "_at", "_dirty", "_ehlo", "_farewell", "_handler", "_out", "_outcomes", "_outgoing",
        "_reader", "_rest", "_secure", "_steps", "_telling", "_tls", "_untold", "_was_ready",
        "capabilities", "messages", "phase", "recipients", "replies",
    )  # fmt: skip

    def __init__(self, handler: ClientHandler, ehlo: str, *, tls: TlsMode = "opportunistic") -> None:
        self._handler = handler
        self._ehlo = ehlo
        self._tls: TlsMode = tls
        self._secure = False
        self._was_ready = False
        self.phase: Phase = "greeting"
        self.capabilities = Capabilities()
        self.replies = 0
        """Replies taken so far: what a deadline looks at beside `phase` to see whether the peer gets on."""
        self.messages = 0
        """Transactions begun with the peer; what was bounced here is none."""
        self.recipients = 0
        self._reader = ReplyReader()
        self._out = b""
        self._rest: memoryview | None = None  # large content that has not left yet
        self._outgoing: Outgoing | None = None
        self._steps: list[bytes] = []  # the commands still to be said, last one first, without PIPELINING
        self._outcomes: list[Outcome | None] = []  # empty as long as nobody was refused
        self._at = 0  # which recipient is being answered
        self._accepted = 0
        self._dirty = False  # an abandoned transaction must be reset before the next one
        self._farewell = False  # a 421 has been seen behind the reply that is being taken
        self._telling = False
        self._untold: list[Outcome] | None = None

    # ---- what the shell calls

    def receive(self, data: bytes) -> None:
        """Takes what the peer sent, split anywhere; tells the handler what follows from it."""
        phase = self.phase
        if phase == "mail":
            outgoing = self._outgoing
            if (
                outgoing is not None
                and _all_accepted(data) is not None
                and data.count(b"\n") == len(outgoing.recipients) + 2
                and self.capabilities.pipelining
                and not self._reader.rest
                and not self._reader.lines
            ):
                self._accepted = len(outgoing.recipients)
                self._begin_content(outgoing)
                return
        elif phase == "content":
            match = _delivered(data)
            if (
                match is not None
                and not self._outcomes
                and self._rest is None
                and self._outgoing is not None
                and not self._reader.rest
                and not self._reader.lines
            ):
                enhanced, text = match.groups()
                delivered = Delivered(Reply(250, enhanced.decode() if enhanced else "", text.decode()))
                recipients = len(self._outgoing.recipients)
                self._outgoing = None
                self._dirty = False
                self.phase = "ready"
                self._tell([delivered] if recipients == 1 else [delivered] * recipients, True)
                return
        self._receive_slowly(data)

    def data_to_send(self) -> bytes | memoryview:
        """What to write now, empty for nothing. Of large content one piece: ask again while `has_more`."""
        out = self._out
        if out:
            self._out = b""
            return out
        if self._rest is None:
            return out
        piece, rest = self._rest[:CONTENT_PIECE_BYTES], self._rest[CONTENT_PIECE_BYTES:]
        self._rest = rest or None
        return piece

    @property
    def has_more(self) -> bool:
        """Whether a part of large content is still to be fetched with `data_to_send`."""
        return self._rest is not None

    def send(self, outgoing: Outgoing) -> None:
        """Begins a transaction; only in phase `ready`. A message that the peer cannot take is bounced on the spot,
        without a byte to the peer: `done` is then called from here or, inside `done`, after it returned."""
        assert self.phase == "ready", self.phase
        assert self._untold is None, "one message at a time"
        refusal = self._begin(outgoing)
        if refusal is not None:
            self._tell([refusal] * len(outgoing.recipients), True)

    def quit(self) -> None:
        """Says QUIT, whose reply is not waited for (phase `quit`); only in phase `ready`."""
        assert self.phase == "ready", self.phase
        self._out = b"QUIT\r\n"
        self.phase = "quit"

    def tls_established(self) -> None:
        """The handshake is done. What was said in clear is forgotten and EHLO said again (RFC 3207 4.2)."""
        assert self.phase == "starttls", self.phase
        self._secure = True
        self.capabilities = Capabilities()
        self._reader = ReplyReader()
        self._say_ehlo()

    def connection_lost(self, reason: Reply = LOST) -> None:
        """The connection is gone or given up (then `reason` says why). Tells whatever was still to be told."""
        if self.phase not in ("quit", "closed"):
            self._break(reason, from_peer=False)

    # ---- replies

    def _receive_slowly(self, data: bytes) -> None:
        reader = self._reader
        if self.phase not in ("quit", "closed"):
            reader.feed(data)
        while (phase := self.phase) not in ("quit", "closed"):
            try:
                reply = reader.next()
            except MalformedReplyError as error:
                self._break(Reply(451, "4.5.0", str(error)), from_peer=False)
                return
            if reply is None:
                if phase == "ready" and not reader.is_between:
                    self._break(LOST, from_peer=False)
                return
            self.replies += 1
            code, lines = reply
            if reader.rest and (phase in _ENDS_GROUP or not self.capabilities.pipelining):
                # Nobody asked for what follows: verdicts may be shifted, unless the peer only says good-bye.
                if phase == "starttls" or not _may_be_421(reader.rest):
                    self._poison("the peer sent a reply that nobody asked for")
                    return
                self._farewell = True
            if code == 421 and phase != "content":
                self._break(reply_of(code, lines), from_peer=True)
                return
            _ON_REPLY[phase](self, code, lines)
            if self._farewell and self.phase not in ("quit", "closed"):
                self._take_farewell()
                return

    def _take_farewell(self) -> None:
        """Something is still under way, but the peer says 421 behind its last reply; perhaps all of it is here."""
        try:
            reply = self._reader.next()
        except MalformedReplyError:
            reply = None
        if reply is not None and reply[0] == 421:
            self._break(reply_of(*reply), from_peer=True)
        else:
            self._break(Reply(451, "4.4.2", "the peer is closing the connection"), from_peer=False)

    def _on_greeting(self, code: int, lines: list[bytes]) -> None:
        if code == 220:
            self._say_ehlo()
        else:
            self._refuse_service("greeting", code, lines)

    def _on_ehlo(self, code: int, lines: list[bytes]) -> None:
        if code >= 500:
            self.phase = "helo"  # RFC 5321 3.2
            self._out = f"HELO {self._ehlo}\r\n".encode()
        elif code >= 300:
            self._refuse_service("ehlo", code, lines)
        else:
            self.capabilities = capabilities_of(lines)
            self._greeted()

    def _on_helo(self, code: int, lines: list[bytes]) -> None:
        if code >= 300:
            self._refuse_service("ehlo", code, lines)
        else:
            self._greeted()

    def _say_ehlo(self) -> None:
        self.phase = "ehlo"
        self._out = f"EHLO {self._ehlo}\r\n".encode()

    def _greeted(self) -> None:
        if self._farewell:
            return
        if self._tls != "none" and not self._secure:
            if self.capabilities.starttls:
                self.phase = "starttls"
                self._out = b"STARTTLS\r\n"
                return
            if self._tls != "opportunistic":
                self._leave()
                self._handler.failed("starttls", Reply(451, "4.7.4", "TLS is required but not offered"), False)
                return
        self.phase = "ready"
        self._was_ready = True
        self._handler.ready()

    def _on_starttls(self, code: int, lines: list[bytes]) -> None:
        if code == 220:
            self._handler.start_tls()
        else:
            self._refuse_service("starttls", code, lines)

    def _on_ready(self, code: int, lines: list[bytes]) -> None:
        self._break(LOST, from_peer=False)

    def _on_rset(self, code: int, lines: list[bytes]) -> None:
        if code >= 300:
            self._break(reply_of(code, lines), from_peer=True)
        elif self.capabilities.pipelining:
            self.phase = "mail"
        else:
            self._dirty = False
            self._finish()

    def _on_mail(self, code: int, lines: list[bytes]) -> None:
        if 300 <= code < 400:
            self._poison("the reply does not fit the command MAIL")
            return
        if code >= 400:
            self._decide(_fate(reply_of(code, lines), "mail"))
            if not self.capabilities.pipelining:
                self._finish()
                return
        self.phase = "rcpt"
        self._say_next()

    def _on_rcpt(self, code: int, lines: list[bytes]) -> None:
        outgoing = self._transaction()
        if 300 <= code < 400:
            self._poison("the reply does not fit the command RCPT")
            return
        if not self._outcomes or self._outcomes[self._at] is None:  # else MAIL was refused already
            if code < 300:
                self._accepted += 1
            else:
                self._verdicts()[self._at] = _fate(reply_of(code, lines), "rcpt")
        self._at += 1
        if self._at == len(outgoing.recipients):
            if not (self._accepted or self.capabilities.pipelining):
                self._finish()
                return
            self.phase = "data"
        self._say_next()

    def _on_data(self, code: int, lines: list[bytes]) -> None:
        if code == 354:
            if self._accepted:
                self._begin_content(self._transaction())
            else:  # RFC 2920 3.1: never a body to nobody
                self.phase = "content"
                self._out = b".\r\n"
        elif code < 400:
            self._poison("the reply does not fit the command DATA")
        else:
            self._decide(_fate(reply_of(code, lines), "data"))
            self._finish()

    def _on_content(self, code: int, lines: list[bytes]) -> None:
        reply = reply_of(code, lines)
        if self._rest is not None:  # the peer speaks in the middle of the content
            if code < 400:
                self._poison("the peer answered before the content was complete")
            else:
                self._decide(_fate(reply, "content"))
                self._close()
                self._tell_all(usable=False)
        elif 300 <= code < 400:
            self._poison("the reply does not fit the end of the content")
        else:
            self._decide(Delivered(reply) if code < 300 else _fate(reply, "content"))
            self._dirty = False
            self._finish(usable=code != 421)

    def limit_size(self, bytes_max: int) -> None:
        """Larger messages are not tried, whatever the peer offers; called when it is ready."""
        offered = self.capabilities.size_max
        most = min(offered, bytes_max) if offered else bytes_max
        self.capabilities = msgspec.structs.replace(self.capabilities, size_max=most)

    # ---- the steps of a transaction

    def _begin(self, outgoing: Outgoing) -> Bounced | None:
        """Writes the first commands, or tells why this message cannot go to this peer."""
        commands = commands_of(outgoing, self.capabilities)
        if isinstance(commands, Bounced):
            return commands
        self.messages += 1
        self.recipients += len(outgoing.recipients)
        self._outgoing = outgoing
        self._outcomes = []
        self._at = self._accepted = 0
        if self.capabilities.pipelining:
            self._out = b"RSET\r\n" + commands if self._dirty else commands
        else:
            self._steps = commands.splitlines(keepends=True)[::-1]
            self._out = self._steps.pop()
        self.phase = "rset" if self._dirty else "mail"
        self._dirty = True
        return None

    def _say_next(self) -> None:
        """One command at a time for peers without PIPELINING; the others have them all."""
        if not self.capabilities.pipelining:
            self._out = self._steps.pop()

    def _begin_content(self, outgoing: Outgoing) -> None:
        content = stuff(outgoing.content)
        if len(content) <= CONTENT_WHOLE_BYTES_MAX:
            self._out = content
        else:
            self._rest = memoryview(content)
        self.phase = "content"

    def _transaction(self) -> Outgoing:
        outgoing = self._outgoing
        assert outgoing is not None
        return outgoing

    def _verdicts(self) -> list[Outcome | None]:
        """The list of outcomes, made when the first recipient needs another than the rest."""
        if not self._outcomes:
            self._outcomes = [None] * len(self._transaction().recipients)
        return self._outcomes

    def _decide(self, outcome: Outcome) -> None:
        """`outcome` is the fate of every recipient who has none yet."""
        self._outcomes = [verdict or outcome for verdict in self._verdicts()]

    # ---- ends

    def _finish(self, *, usable: bool = True) -> None:
        """Every recipient has an outcome and every reply has come: tells them."""
        usable = usable and not self._farewell
        if not usable:
            self._leave()
        elif self._dirty and not self.capabilities.pipelining:
            # MAIL is what rates count: it must not wait for a reply to RSET when its turn has come.
            self.phase = "rset"
            self._out = b"RSET\r\n"
            return
        else:
            self.phase = "ready"
        self._tell_all(usable)

    def _refuse_service(self, stage: str, code: int, lines: list[bytes]) -> None:
        """The peer does not want to talk with us."""
        reply = reply_of(code, lines)
        if code < 400:
            self._break(Reply(451, "4.5.0", f"the reply does not fit: {reply}"), from_peer=False)
        else:
            self._leave()
            self._handler.failed(stage, reply, True)

    def _poison(self, why: str) -> None:
        """Replies and commands are out of step: no verdict of this transaction can be believed."""
        self._outcomes = []
        self._break(Reply(451, "4.5.0", why), from_peer=False)

    def _break(self, reply: Reply, *, from_peer: bool) -> None:
        """Nothing more will be said about what is under way; what has no outcome yet is deferred."""
        phase = self.phase
        stage = _STAGE_OF.get(phase, phase)
        uncertain = phase == "content" and self._accepted > 0 and not self._out and self._rest is None
        if from_peer and phase != "content":  # RFC 5321 3.8: the peer says 421 and closes
            self._leave()
        else:
            self._close()
        if self._outgoing is not None:
            self._decide(Deferred(reply, stage, uncertain, from_peer))
            self._tell_all(usable=False)
        elif not self._was_ready:
            self._handler.failed(stage, reply, from_peer)
        elif self._untold is None:
            self._handler.lost()

    def _leave(self) -> None:
        self.phase = "quit"
        self._out = b"QUIT\r\n"

    def _close(self) -> None:
        self.phase = "closed"
        self._out = b""
        self._rest = None

    def _tell_all(self, usable: bool) -> None:
        outcomes = [outcome for outcome in self._outcomes if outcome is not None]
        assert len(outcomes) == len(self._transaction().recipients)
        self._outgoing = None
        self._tell(outcomes, usable)

    def _tell(self, outcomes: list[Outcome], usable: bool) -> None:
        if self._telling:  # from within the handler's own `done`: told when that has returned, not on top of it
            self._untold = outcomes
            return
        while True:
            self._telling = True
            self._handler.done(outcomes, usable)
            self._telling = False
            if self._untold is None:
                return
            outcomes, self._untold = self._untold, None
            usable = self.phase == "ready"


_ON_REPLY: dict[str, Callable[[ClientSession, int, list[bytes]], None]] = {
    "greeting": ClientSession._on_greeting,
    "ehlo": ClientSession._on_ehlo,
    "helo": ClientSession._on_helo,
    "starttls": ClientSession._on_starttls,
    "ready": ClientSession._on_ready,
    "rset": ClientSession._on_rset,
    "mail": ClientSession._on_mail,
    "rcpt": ClientSession._on_rcpt,
    "data": ClientSession._on_data,
    "content": ClientSession._on_content,
}
_ENDS_GROUP = frozenset({"greeting", "ehlo", "helo", "starttls", "data", "content"})


def _fate(reply: Reply, stage: str) -> Outcome:
    return Bounced(reply, stage) if reply.is_permanent else Deferred(reply, stage)


def _may_be_421(rest: bytes) -> bool:
    return rest[:3] == b"421"[: len(rest)]
