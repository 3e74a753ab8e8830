"""The server's side of a session, as a machine without a socket (RFC 5321).

The shell hands in what the network brought (`receive`), and sends what has gathered (`data_to_send`) once a turn:
a group of commands in, one write of replies out. The session calls its handler when a sender, a message or a
refusal is there. After `message` it takes no further command until the shell gave the `answer`, which it does
when the message is on stable storage; what comes in meanwhile is kept, up to a limit.

What may follow what stands in states.py, what the commands may say in grammar.py, where content ends in content.py.
"""

import functools
from collections.abc import Callable
from typing import Final, Literal, Protocol

import msgspec

from mta.model.envelope import Recipient
from mta.smtp import grammar, replies, states
from mta.smtp.content import ContentReceiver
from mta.smtp.grammar import CommandError
from mta.smtp.states import Action, State

ERRORS_SLOW = 10  # after so many refused commands the shell takes its time with every reply
ERRORS_MAX = 20  # the next refused command after these ends the session
BUFFERED_BYTES_MAX = 1_048_576  # commands sent ahead of an answer: ten thousand RCPT; nobody honest has more to say

KEYWORDS: Final = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
"""What EHLO offers beside SIZE (RFC 2920, RFC 6152, RFC 6531, RFC 2034)."""
_DATA = b"DATA\r\n"  # as nearly everybody writes it, at the end of what came
_DATA_BYTES = len(_DATA)

# Bound once: to look a member up in an enum's class costs as much as a comparison.
_READY, _SENDER, _RECIPIENTS = State.READY, State.SENDER, State.RECIPIENTS
_CONTENT, _WAITING, _CLOSED, _SILENT = State.CONTENT, State.WAITING, State.CLOSED, State.SILENT


class ServerSettings(msgspec.Struct, frozen=True):
    """What a session must know of its listener and its client."""

    hostname: str
    """Our name in the greeting, ASCII."""
    size_max: int
    """Bytes of content, as SIZE tells it (RFC 1870)."""
    recipients_max: int
    """Recipients of one message; at least 100 (RFC 5321 4.5.3.1.8)."""
    addresses: Literal["strict", "japan"] = "strict"
    long_lines: Literal["refuse", "pass"] = "refuse"
    relay: bool = False
    """This client may send to everyone: it is trusted, or has shown who it is."""
    offers: tuple[str, ...] = ()
    """Further keywords for the answer to EHLO."""


class Transaction(msgspec.Struct):
    """A message as it was handed in."""

    sender: str
    """As it goes on the wire between < and >; "" for the null sender."""
    recipients: list[Recipient]
    """In the order of RCPT, at least one."""
    content: bytes
    """Dots taken back, CRLF line ends only; empty, or ends with CRLF."""
    body_8bit: bool
    """BODY=8BITMIME was said, or the content has bytes over 127."""
    smtputf8: bool


class ServerHandler(Protocol):
    """Who is told what happens in a session."""

    def mail(self, sender: str, size_declared: int) -> bytes | None:
        """MAIL is about to be accepted. Returns None, or a reply to refuse it with: `replies.NO_SPACE`."""
        ...

    def message(self, transaction: Transaction) -> None:
        """A message is complete. `ServerSession.answer` must follow, now or later."""
        ...

    def rejected(self, stage: str, reply: bytes, sender: str, recipient: str) -> None:
        """Something was refused; `stage` says what: mail, rcpt, data, content, or session where that ends with it."""
        ...


class ServerSession:
    """One connection, from greeting to close. Not to be called from inside the handler, save `answer`."""

    __slots__ = (
        "_body_8bit",
        "_content",
        "_group_ended",
        "_handler",
        "_japan",
        "_kept",
        "_kept_bytes",
        "_recipients",
        "_relay",
        "_replies",
        "_rest",
        "_sender",
        "_settings",
        "_smtputf8",
        "_swallowing_line",
        "errors",
        "helo",
        "is_esmtp",
        "state",
    )

    def __init__(self, settings: ServerSettings, handler: ServerHandler) -> None:
        self._settings = settings
        self._handler = handler
        self._relay = settings.relay
        self._japan = settings.addresses == "japan"
        self._content = ContentReceiver(settings.size_max, settings.long_lines)
        self.state = State.SILENT
        """Where it is; only the session itself changes it."""
        self._replies: list[bytes] = []
        self._rest = b""
        self._swallowing_line = False
        self._group_ended = False
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._sender = ""
        self._recipients: list[Recipient] = []
        self._body_8bit = False
        self._smtputf8 = False
        self.errors = 0
        """Commands refused since the last accepted message: the shell is slower after ERRORS_SLOW."""
        self.helo = ""
        """What the client called itself, "" before EHLO or HELO."""
        self.is_esmtp = False
        """The client said EHLO."""

    @property
    def wants_close(self) -> bool:
        """The last reply was said: the shell sends what there is to send and closes."""
        return self.state is _CLOSED

    @property
    def waiting(self) -> bool:
        """A message was handed over and its answer has not come."""
        return self.state is _WAITING

    @property
    def in_content(self) -> bool:
        """Content is coming in; its deadline is longer than a command's (RFC 5321 4.5.3.2)."""
        return self.state is _CONTENT

    @property
    def buffered_bytes(self) -> int:
        """What was received and cannot be read yet: the shell pauses reading where it is much."""
        return len(self._rest) + self._kept_bytes

    @property
    def content_bytes(self) -> int:
        """What is in memory of the content that is coming in: for the sum over all sessions."""
        return self._content.buffered_bytes

    @property
    def has_transaction(self) -> bool:
        """MAIL was accepted and the message's fate is open: a session that should end may first finish it."""
        return self.state not in (State.SILENT, State.CONNECTED, State.READY, State.CLOSED)

    def greeting(self) -> bytes:
        """The first words, to be sent at once. A client that speaks before is refused."""
        if self.state is not State.SILENT:
            return b""
        self.state = State.CONNECTED
        return replies.greeting(self._settings.hostname)

    def data_to_send(self) -> bytes:
        """All replies that have gathered, once; b"" where there are none. The client is taken to have them now."""
        if not self._replies:
            return b""
        said = b"".join(self._replies)
        self._replies.clear()
        self._group_ended = False
        return said

    def receive(self, data: bytes) -> None:
        """Takes what the network brought, cut anywhere. Replies gather for `data_to_send`."""
        state = self.state
        if state is _WAITING:
            self._keep(data)
        elif state is _CLOSED or not data:
            return
        elif self._group_ended or state is _SILENT:
            self._out_of_step()
        else:
            self._run(data)

    def answer(self, reply: bytes) -> None:
        """Our reply to the content; then the session goes on with what was received meanwhile."""
        if self.state is not _WAITING:
            raise RuntimeError("no message waits for an answer")
        self._replies.append(reply)
        if reply.startswith(b"2"):
            self.errors = 0
        self._reset()
        kept, self._kept = self._kept, []
        too_much, self._kept_bytes = self._kept_bytes > BUFFERED_BYTES_MAX, 0
        if too_much:
            self._close(replies.TOO_MUCH_AHEAD)
        elif kept:
            self._run(b"".join(kept))

    def _keep(self, data: bytes) -> None:
        if self._kept_bytes <= BUFFERED_BYTES_MAX:
            self._kept.append(data)
        self._kept_bytes = min(self._kept_bytes + len(data), BUFFERED_BYTES_MAX + 1)

    def _run(self, data: bytes) -> None:
        """Reads commands and content until the data are used up, an answer is waited for, or the session ends."""
        at = 0
        if self._rest:
            data, self._rest = self._rest + data, b""
        size = len(data)
        quick = not self._swallowing_line
        while at < size:
            state = self.state
            # The three things that nearly all of the day is spent with come first, each in its usual form.
            if state is _CONTENT:
                at = self._content.feed(data, at)
                if at < 0:
                    return
                self._content_ended()
                continue
            if state is _READY:
                if quick and (mail := grammar.quick_mail(data, at)):
                    at = mail[1]
                    self._mail(mail[0])
                    continue
            elif state is _SENDER or state is _RECIPIENTS:
                if quick and self._relay and (rcpt := grammar.quick_rcpt(data, at)):
                    at = rcpt[1]
                    self._rcpt(rcpt[0])
                    continue
                if quick and state is _RECIPIENTS and size - at == _DATA_BYTES and data.endswith(_DATA):
                    self._group_ended = True
                    self._data(b"")
                    return
            elif state is _WAITING:
                self._keep(data[at:])
                return
            elif state is _CLOSED:
                return
            end = data.find(b"\n", at)
            if end < 0:
                self._unfinished_line(data[at:] if at else data)
                return
            self._line(data[at:end])
            at, quick = end + 1, True
            if self._group_ended and at < size and self.state is not _CLOSED:
                self._out_of_step()

    def _unfinished_line(self, rest: bytes) -> None:
        """Keeps what may become a command, forgets what has grown past every limit (constant memory)."""
        if self._swallowing_line:
            return
        if len(rest) >= states.LINE_BYTES_MAX:
            self._swallowing_line = True
        else:
            self._rest = rest

    def _line(self, line: bytes) -> None:
        """One line without its LF."""
        if self._swallowing_line:
            self._swallowing_line = False
            self._refuse(replies.LINE_TOO_LONG)
            return
        if not line.endswith(b"\r"):
            # Only CRLF ends a command; but to wait for it would leave a client that forgot the CR without a word.
            self._refuse(replies.BARE_LINE_FEED if len(line) < states.LINE_BYTES_MAX else replies.LINE_TOO_LONG)
            return
        command = line[:-1].rstrip(b" \t")  # RFC 5321 4.1.1: blanks at the end are tolerated
        word, _, args = command.partition(b" ")
        name = word.upper()
        verb = states.VERBS.get(name)
        if len(line) >= (verb.line_bytes_max if verb else states.COMMAND_LINE_BYTES_MAX):
            self._refuse(replies.LINE_TOO_LONG)
        elif not grammar.is_clean(command):
            self._refuse(replies.BAD_BYTES)
        elif verb is None:
            self._refuse(replies.UNKNOWN)
        else:
            self._group_ended = verb.ends_group
            step = states.TABLE[self.state, name]
            if isinstance(step, bytes):
                self._refuse_step(name, step)
            else:
                _ACTIONS[step](self, args)

    # --- commands

    def _greet(self, args: bytes, *, is_esmtp: bool) -> None:
        try:
            self.helo = grammar.hello_name(args)
        except CommandError as refused:
            self._refuse(refused.reply)
            return
        self.is_esmtp = is_esmtp
        self._reset()
        settings = self._settings
        if is_esmtp:
            keywords = (f"SIZE {settings.size_max}", *KEYWORDS, *settings.offers)
            self._replies.append(replies.ehlo(settings.hostname, keywords))
        else:
            self._replies.append(replies.helo(settings.hostname))

    def _mail_command(self, args: bytes) -> None:
        try:
            self._mail(grammar.parse_mail(args, japan=self._japan))
        except CommandError as refused:
            self._reject("mail", refused.reply, grammar.address_as_given(args), "")

    def _mail(self, mail: grammar.Mail) -> None:
        if mail.size_declared > self._settings.size_max:
            self._reject("mail", replies.TOO_BIG, mail.sender, "")
            return
        refusal = self._handler.mail(mail.sender, mail.size_declared)
        if refusal is not None:
            self._reject("mail", refusal, mail.sender, "")
            return
        self._sender = mail.sender
        self._body_8bit = mail.body_8bit
        self._smtputf8 = mail.smtputf8
        self.state = _SENDER
        self._replies.append(replies.MAIL_OK)

    def _rcpt_command(self, args: bytes) -> None:
        if not self._relay:
            # Before any look at the address: whatever its form, a stranger hears the same.
            self._reject("rcpt", replies.RELAY_DENIED, self._sender, grammar.address_as_given(args))
            return
        try:
            self._rcpt(
                grammar.parse_rcpt(args, hostname=self._settings.hostname, smtputf8=self._smtputf8, japan=self._japan)
            )
        except CommandError as refused:
            # A mailing with some bad addresses in it is no attack: where the client may relay, these do not count.
            self._reject("rcpt", refused.reply, self._sender, grammar.address_as_given(args), counted=False)

    def _rcpt(self, recipient: Recipient) -> None:
        if len(self._recipients) >= self._settings.recipients_max:
            self._reject("rcpt", replies.TOO_MANY_RECIPIENTS, self._sender, recipient.address)
            return
        self._recipients.append(recipient)
        self.state = _RECIPIENTS
        self._replies.append(replies.RCPT_OK)

    def _data(self, args: bytes) -> None:
        if args:
            self._refuse(replies.NO_ARGUMENT)
            return
        self.state = _CONTENT  # the receiver began anew when the last content had ended
        self._replies.append(replies.GO_AHEAD)

    def _rset(self, args: bytes) -> None:
        if args:
            self._refuse(replies.NO_ARGUMENT)
            return
        if self.state is not State.CONNECTED:
            self._reset()
        self._replies.append(replies.RSET_OK)

    def _noop(self, args: bytes) -> None:
        self._replies.append(replies.NOOP_OK)

    def _vrfy(self, args: bytes) -> None:
        if args:
            self._replies.append(replies.VRFY_OK)
        else:
            self._refuse(replies.ARGUMENT_MISSING)

    def _help(self, args: bytes) -> None:
        self._replies.append(replies.HELP_OK)

    def _quit(self, args: bytes) -> None:
        if args:
            self._refuse(replies.NO_ARGUMENT)
        else:
            self._close(replies.goodbye(self._settings.hostname))

    # --- what follows from them

    def _content_ended(self) -> None:
        received = self._content
        content, refusal = received.content, received.refusal
        received.begin()
        if refusal is not None:
            sender = self._sender
            self._reset()
            self._reject("content", refusal, sender, "", counted=False)
            return
        self.state = _WAITING
        self._handler.message(
            Transaction(
                self._sender, self._recipients, content, self._body_8bit or not content.isascii(), self._smtputf8
            )
        )

    def _reset(self) -> None:
        """Forgets the transaction (RFC 5321 4.1.1.5); the client has said its name."""
        self.state = _READY
        self._sender = ""
        self._recipients = []
        self._body_8bit = False
        self._smtputf8 = False

    def _refuse_step(self, name: bytes, refusal: bytes) -> None:
        if name == b"DATA" and refusal is replies.NO_RECIPIENTS:
            self._reject("data", refusal, self._sender, "")
        else:
            self._refuse(refusal)

    def _refuse(self, refusal: bytes) -> None:
        """Says no to a command, or ends the session where there were too many."""
        self.errors += 1
        if self.errors > ERRORS_MAX:
            self._handler.rejected("session", replies.TOO_MANY_ERRORS, self._sender, "")
            self._close(replies.TOO_MANY_ERRORS)
        else:
            self._replies.append(refusal)

    def _reject(self, stage: str, refusal: bytes, sender: str, recipient: str, *, counted: bool = True) -> None:
        """Says no to mail and tells the handler; a "not now" of ours is no error of the client's."""
        self._handler.rejected(stage, refusal, sender, recipient)
        if counted and refusal.startswith(b"5"):
            self._refuse(refusal)
        else:
            self._replies.append(refusal)

    def _out_of_step(self) -> None:
        """The client did not wait for us: what it sent was not meant for the state that we are in."""
        self._handler.rejected("session", replies.OUT_OF_STEP, self._sender, "")
        self._close(replies.OUT_OF_STEP)

    def _close(self, last_reply: bytes) -> None:
        self._replies.append(last_reply)
        self._reset()
        self._content.begin()
        self._rest = b""
        self.state = _CLOSED


_ACTIONS: Final[dict[Action, Callable[[ServerSession, bytes], None]]] = {
    Action.HELLO: functools.partial(ServerSession._greet, is_esmtp=True),
    Action.OLD_HELLO: functools.partial(ServerSession._greet, is_esmtp=False),
    Action.MAIL: ServerSession._mail_command,
    Action.RCPT: ServerSession._rcpt_command,
    Action.DATA: ServerSession._data,
    Action.RESET: ServerSession._rset,
    Action.NOTHING: ServerSession._noop,
    Action.VERIFY: ServerSession._vrfy,
    Action.HELP: ServerSession._help,
    Action.QUIT: ServerSession._quit,
}
