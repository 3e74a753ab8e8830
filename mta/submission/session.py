"""A session: one client's connection, between its socket and the pure dialogue in mta.smtp.server.

Reads for the dialogue, writes its replies once a turn, and keeps what protects everybody else: deadlines that a drip
of bytes does not move, memory that is counted over all sessions, a client that does not wait or does not read.

How a session ends matters to honest clients: where bytes lie unread when a socket is closed, the kernel resets the
connection and our last words are lost on their way. So whoever may still be sending hears our reply and our end of
the stream, and is listened to for a while longer; what it sends is thrown away.
"""

import asyncio
from typing import TYPE_CHECKING, cast

import msgspec

from mta.smtp import replies
from mta.smtp.server import ERRORS_SLOW, ServerSession, Transaction
from mta.smtp.states import State

if TYPE_CHECKING:
    from mta.submission.listener import Listener, Visitor

_CONTENT, _CLOSED = State.CONTENT, State.CLOSED  # bound once, as in the dialogue

MEMORY_SHORT = replies.reply(421, "4.3.1", "Too much mail is coming in at once, try again")
LIVED_TOO_LONG = replies.reply(421, "4.3.2", "This session has lasted long enough, connect again")


class SessionLimits(msgspec.Struct, frozen=True):
    """What a client may take of us. The defaults are what the server runs with."""

    command_timeout_s: float = 300.0
    """From our reply to the whole of the next command (RFC 5321 4.5.3.2.7), however many bytes of it come."""
    content_timeout_s: float = 180.0
    """Between two pieces of content (RFC 5321 4.5.3.2.5)."""
    content_grace_s: float = 300.0
    """Content of any size may take so long; beyond it the least rate counts."""
    content_bytes_per_s_min: float = 1000.0
    """Over the whole of a content: a modem of 1990 is faster, a drip keeps memory for days."""
    session_s_max: float = 86_400.0
    """An application may keep a session open for a day; then it ends between two messages."""
    transaction_s_max: float = 3600.0
    """What a session may live longer for the sake of the message that is under way."""
    slow_reply_s: float = 1.0
    """How long a client with many errors waits for every reply; a sweep may add a second."""
    linger_s: float = 30.0
    """How long we listen on to a client that was told goodbye while it was talking, or wait for it to read that."""
    read_ahead_bytes: int = 65_536
    """What may gather behind a message that is being written down before we stop reading; one read comes on top."""
    slice_bytes: int = 16_384
    """Commands taken in one turn of the loop, some milliseconds' worth: a flood does not stop the other sessions."""
    unread_replies_bytes_max: int = 262_144
    """Replies that a client does not read: beyond it there is nobody to wait for."""


class Session(asyncio.Protocol):
    """Reads for the dialogue, writes its replies, keeps the deadlines."""

    __slots__ = (
        "_acceptor",
        "_began_s",
        "_content_began_s",
        "_content_received",
        "_dialogue",
        "_doors",
        "_held_bytes",
        "_is_at_end",
        "_is_over",
        "_is_submitting",
        "_last_s",
        "_limits",
        "_linger_until_s",
        "_listener",
        "_now_s",
        "_rest",
        "_slice_bytes",
        "_slow_until_s",
        "_spoke_first",
        "_transport",
        "client",
        "is_trusted",
        "network",
    )

    def __init__(self, listener: "Listener", visitor: "Visitor", *, spoke_first: bool = False) -> None:
        doors = self._doors = listener.doors
        self._listener = listener
        self._acceptor = doors.acceptor
        self._limits = doors.limits
        self._slice_bytes = doors.limits.slice_bytes
        self._now_s = doors.clock.monotonic_s
        self.client = visitor.client
        """The client's address, as events and Received tell it."""
        self.network = visitor.network
        """What it is counted by."""
        self.is_trusted = visitor.is_trusted
        self._spoke_first = spoke_first
        self._dialogue = ServerSession(listener.server_settings(self.is_trusted), self)
        self._is_over = False
        self._is_at_end = False
        self._is_submitting = False
        self._rest = b""
        self._held_bytes = 0
        self._content_began_s = 0.0
        self._content_received = 0
        self._slow_until_s = 0.0
        self._linger_until_s = 0.0
        self._began_s = self._last_s = self._now_s()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of asyncio's
        self._transport.set_write_buffer_limits(self._limits.unread_replies_bytes_max)
        self._doors.entered(self)
        if self._doors.is_closing:
            self._part(replies.SHUTTING_DOWN)
        elif self._spoke_first:
            self._dialogue.receive(b"\r\n")  # whatever it was: before our greeting all is refused alike
            self._say()
        else:
            self._transport.write(self._dialogue.greeting())

    def data_received(self, data: bytes) -> None:
        dialogue = self._dialogue
        if self._is_over:
            return
        if len(data) > self._slice_bytes and not dialogue.in_content and not dialogue.waiting:
            self._transport.pause_reading()
            self._rest = data
            self._take_slice()
            return
        dialogue.receive(data)
        if dialogue.errors > ERRORS_SLOW and not dialogue.in_content:
            self._say()
            return
        said = dialogue.data_to_send()
        if not said:
            self._gathered(len(data))
            return
        self._transport.write(said)
        now_s = self._last_s = self._now_s()
        if self._held_bytes:
            self._hold(dialogue.buffered_bytes)
        state = dialogue.state
        if state is _CONTENT:
            self._content_began_s = now_s
            self._content_received = 0
        elif state is _CLOSED:
            self._leave(said)

    def _take_slice(self) -> None:
        """One part of a large group of commands a turn; replies leave behind the last one, as for any group."""
        if self._is_over:
            return
        size = self._slice_bytes
        part, self._rest = self._rest[:size], self._rest[size:]
        self._dialogue.receive(part)
        if self._rest and not self._dialogue.wants_close:
            self._doors.loop.call_soon(self._take_slice)
            return
        self._rest = b""
        self._transport.resume_reading()
        self._say()

    def _gathered(self, data_bytes: int) -> None:
        """Something came in that is no whole command or no whole content yet, or must wait for an answer."""
        dialogue = self._dialogue
        buffered = dialogue.buffered_bytes
        if dialogue.in_content:
            self._last_s = self._now_s()
            self._content_received += data_bytes
            self._hold(dialogue.content_bytes + buffered)
            if self._acceptor.is_overfull:
                # Content is never made to wait for memory: all who hold some would wait for each other.
                self._acceptor.rejected("content", MEMORY_SHORT, "", "", self.client, self._listener.settings.tenant)
                self._dismiss(MEMORY_SHORT)
        elif buffered or self._held_bytes:
            self._hold(buffered)
            if dialogue.waiting and (buffered > self._limits.read_ahead_bytes or self._acceptor.is_overfull):
                self._transport.pause_reading()

    def _hold(self, held_bytes: int) -> None:
        """So much of this client's is in memory now."""
        self._acceptor.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes

    def _say(self) -> None:
        """Send what has gathered; a client with many errors waits for it."""
        dialogue = self._dialogue
        if dialogue.errors > ERRORS_SLOW and not (dialogue.wants_close or dialogue.waiting or dialogue.in_content):
            if not self._slow_until_s:
                self._slow_until_s = self._now_s() + self._limits.slow_reply_s
                self._transport.pause_reading()
            self._hold(dialogue.buffered_bytes)
            return
        said = dialogue.data_to_send()
        if not said:
            self._gathered(0)
            return
        self._transport.write(said)
        self._last_s = self._content_began_s = self._now_s()
        self._content_received = 0
        if self._held_bytes:
            self._hold(dialogue.buffered_bytes)
        if dialogue.wants_close:
            self._leave(said)

    def eof_received(self) -> bool:
        """The client will say no more; while a message is being written down it may still listen for the answer."""
        self._is_at_end = True
        return not self._is_over and self._dialogue.waiting

    def connection_lost(self, exc: Exception | None) -> None:
        """What is being written down goes its way without the client; it will ask again."""
        self._is_over = True
        self._rest = b""
        self._hold(0)
        self._doors.left(self)

    def pause_writing(self) -> None:
        """The client does not read what we say: there is nothing to wait for."""
        self._is_over = True
        self._transport.abort()

    # the dialogue's handler

    def mail(self, sender: str, size_declared: int) -> bytes | None:
        """Whether a message may begin now."""
        if self._doors.is_closing:
            return replies.SHUTTING_DOWN
        return self._acceptor.refusal(size_declared)

    def message(self, transaction: Transaction) -> None:
        """A message is complete: it is answered when it is on stable storage."""
        dialogue = self._dialogue
        if self._held_bytes:
            self._hold(0)
        self._is_submitting = True
        self._acceptor.accept(
            transaction,
            self._listener.settings,
            client=self.client,
            helo=dialogue.helo,
            is_esmtp=dialogue.is_esmtp,
            is_trusted=self.is_trusted,
            answer=self._answer,
        )
        self._is_submitting = False

    def rejected(self, stage: str, reply: bytes, sender: str, recipient: str) -> None:
        """Something was refused."""
        self._acceptor.rejected(stage, reply, sender, recipient, self.client, self._listener.settings.tenant)

    def _answer(self, reply: bytes) -> None:
        if self._is_over:
            return
        dialogue = self._dialogue
        dialogue.answer(reply)
        if self._is_submitting:
            return  # answered at once: the dialogue is in the middle of what came in, and speaks behind it
        self._say()
        if self._is_over or dialogue.waiting:
            return
        if self._is_at_end:
            self._close()
        elif self._doors.is_closing and not dialogue.has_transaction:
            self._part(replies.SHUTTING_DOWN)
        elif not self._slow_until_s:
            self._transport.resume_reading()

    # time

    def check_deadlines(self, now_s: float) -> None:
        """Called about once a second; `now_s` is monotonic."""
        dialogue, limits = self._dialogue, self._limits
        if self._is_over:
            if self._linger_until_s and now_s > self._linger_until_s:
                self._transport.abort()
        elif self._slow_until_s:
            if now_s >= self._slow_until_s:
                self._say_late()
        elif dialogue.waiting or self._rest:
            pass  # the delay is ours
        elif dialogue.in_content:
            granted_s = limits.content_grace_s + self._content_received / limits.content_bytes_per_s_min
            if now_s - self._last_s > limits.content_timeout_s or now_s - self._content_began_s > granted_s:
                self._dismiss(replies.TIMED_OUT)
        elif self._doors.is_closing and not dialogue.has_transaction:
            self._part(replies.SHUTTING_DOWN)
        elif now_s - self._last_s > limits.command_timeout_s:
            self._part(replies.TIMED_OUT)
        else:
            lived_s = now_s - self._began_s
            if lived_s > limits.session_s_max and (
                not dialogue.has_transaction or lived_s > limits.session_s_max + limits.transaction_s_max
            ):
                self._part(LIVED_TOO_LONG)

    def _say_late(self) -> None:
        self._slow_until_s = 0.0
        dialogue = self._dialogue
        said = dialogue.data_to_send()
        if said:
            self._transport.write(said)
            self._last_s = self._now_s()
        self._transport.resume_reading()

    # the end

    def shut_down(self) -> None:
        """The server stops: a session between messages ends now, the others after their answer."""
        if not self._is_over and not self._dialogue.has_transaction:
            self._part(replies.SHUTTING_DOWN)

    def cut_off(self) -> None:
        """Its time is over. To a message that is being written down nothing is said that could be wrong."""
        if not self._is_over and not self._dialogue.waiting:
            self._part(replies.SHUTTING_DOWN)
        else:
            self._transport.abort()
            self._is_over = True

    @property
    def is_over(self) -> bool:
        """Its last words were said; it may still be listened to."""
        return self._is_over

    @property
    def is_slow(self) -> bool:
        """It had too many errors and waits for a reply that is ready."""
        return self._slow_until_s > 0

    def _leave(self, said: bytes) -> None:
        """The dialogue has ended with the last reply in `said`; who said QUIT sends nothing more."""
        if self._is_over:
            return
        if said[:-2].rpartition(b"\r\n")[2].startswith(b"221"):
            self._close()
        else:
            self._linger()

    def _part(self, last_words: bytes) -> None:
        """End a session whose client has nothing to say just now (RFC 5321 3.8)."""
        self._transport.write(last_words)
        self._close()

    def _dismiss(self, last_words: bytes) -> None:
        """End a session whose client is in the middle of something."""
        self._transport.write(last_words)
        self._linger()

    def _linger(self) -> None:
        """No more from us; what the client still sends is thrown away, so that it can read what we said."""
        self._is_over = True
        self._rest = b""
        self._hold(0)
        self._dialogue = ServerSession(self._listener.server_settings(False), self)  # the old one may hold content
        self._linger_until_s = self._now_s() + self._limits.linger_s
        self._transport.write_eof()
        self._transport.resume_reading()

    def _close(self) -> None:
        """Nothing more is expected from the client; what it has not read yet it may read for a while."""
        self._is_over = True
        self._rest = b""
        self._linger_until_s = self._now_s() + self._limits.linger_s
        self._transport.close()
