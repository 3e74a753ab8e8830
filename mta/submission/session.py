"""A session: one client's connection, between its socket and the pure dialogue in mta.smtp.server."""

import asyncio
import ipaddress
from typing import TYPE_CHECKING, cast

from mta.smtp import replies
from mta.smtp.server import ERRORS_SLOW, ServerSession, Transaction

if TYPE_CHECKING:
    from mta.submission.listener import Listener

READ_AHEAD_BYTES = 256 * 1024  # what may gather behind a message that is being written down before we stop reading
UNREAD_REPLIES_BYTES_MAX = 256 * 1024  # replies that a client does not read: beyond this it is cut off
COMMAND_TIMEOUT_S = 300.0  # RFC 5321 4.5.3.2.7
CONTENT_TIMEOUT_S = 180.0  # RFC 5321 4.5.3.2.5: between two blocks of content
SESSION_S_MAX = 86_400.0  # a kept-open session of an application may live a day
CONTENT_BYTES_PER_S_MIN = 50  # over any minute of content: a client that drips keeps memory for hours
SLOW_REPLY_S = 1.0  # how long a client with many errors waits for every reply


class Session(asyncio.Protocol):
    """Reads for the dialogue, writes its replies, keeps the deadlines."""

    __slots__ = (
        "_began_s",
        "_content_since_s",
        "_dialogue",
        "_doors",
        "_is_paused",
        "_is_slow",
        "_last_s",
        "_listener",
        "_peer",
        "_received_bytes",
        "_received_then",
        "_transport",
        "client",
        "is_trusted",
    )

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self._doors = listener.doors
        self._peer = ""
        self.client = ""
        """The client's address, as events and Received tell it."""
        self.is_trusted = False
        self._is_paused = False
        self._is_slow = False
        self._received_bytes = self._received_then = 0
        self._content_since_s = 0.0
        self._began_s = self._last_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of asyncio's
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        self.client = _plain(self._peer)
        doors = self._doors
        self._began_s = self._last_s = doors.loop.time()
        refusal = doors.refusal(self._peer)
        doors.clients[self._peer] += 1
        doors.sessions.add(self)
        self.is_trusted = self._listener.is_trusted(self._peer)
        self._dialogue = ServerSession(self._listener.server_settings(self.is_trusted), self)
        if refusal:
            self._transport.write(refusal)
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(UNREAD_REPLIES_BYTES_MAX)
        self._transport.write(self._dialogue.greeting())

    def data_received(self, data: bytes) -> None:
        dialogue = self._dialogue
        self._last_s = self._doors.loop.time()
        self._received_bytes += len(data)
        dialogue.receive(data)
        if dialogue.waiting:
            if not self._is_paused and dialogue.buffered_bytes > READ_AHEAD_BYTES:
                self._is_paused = True
                self._transport.pause_reading()
            said = dialogue.data_to_send()
            if said:
                self._transport.write(said)
            return
        if dialogue.in_content:
            self._doors.acceptor.content_grew(self, dialogue.content_bytes)
        self._say()

    def _say(self) -> None:
        dialogue = self._dialogue
        if dialogue.errors > ERRORS_SLOW and not dialogue.wants_close:
            if not self._is_slow:
                self._is_slow = True
                self._transport.pause_reading()
                self._doors.loop.call_later(SLOW_REPLY_S, self._say_late)
            return
        said = dialogue.data_to_send()
        if said:
            self._transport.write(said)
        if dialogue.wants_close:
            self._transport.close()

    def _say_late(self) -> None:
        self._is_slow = False
        if self._transport.is_closing():
            return
        said = self._dialogue.data_to_send()
        if said:
            self._transport.write(said)
        if self._dialogue.wants_close:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """The client will say no more; whatever is being written down is answered into the void."""

    def connection_lost(self, exc: Exception | None) -> None:
        doors = self._doors
        doors.sessions.discard(self)
        doors.clients[self._peer] -= 1
        if doors.clients[self._peer] <= 0:
            del doors.clients[self._peer]
        doors.acceptor.content_grew(self, 0)

    def pause_writing(self) -> None:
        """The client does not read what we say: there is nothing to wait for."""
        self._transport.abort()

    # the dialogue's handler

    def mail(self, sender: str, size_declared: int) -> bytes | None:
        """Whether a message may begin now."""
        if self._doors.is_closing:
            return replies.SHUTTING_DOWN
        return self._doors.acceptor.refusal(size_declared)

    def message(self, transaction: Transaction) -> None:
        """A message is complete: it is answered when it is on stable storage."""
        dialogue = self._dialogue
        self._doors.acceptor.content_grew(self, 0)
        self._doors.acceptor.accept(
            transaction,
            self._listener.settings,
            client=self.client,
            helo=dialogue.helo,
            is_esmtp=dialogue.is_esmtp,
            is_trusted=self.is_trusted,
            answer=self._answer,
        )

    def rejected(self, stage: str, reply: bytes, sender: str, recipient: str) -> None:
        """Something was refused."""
        self._doors.acceptor.rejected(stage, reply, sender, recipient, self.client, self._listener.settings.tenant)

    def _answer(self, reply: bytes) -> None:
        if self._transport.is_closing():
            return
        self._last_s = self._doors.loop.time()
        self._dialogue.answer(reply)
        if self._is_paused and not self._dialogue.waiting:
            self._is_paused = False
            self._transport.resume_reading()
        self._say()
        if self._doors.is_closing and not self._dialogue.has_transaction:
            self._end(replies.SHUTTING_DOWN)

    # time

    def check_deadlines(self, now_s: float) -> None:
        """Called about once a second."""
        dialogue = self._dialogue
        if dialogue.waiting or self._transport.is_closing():
            return  # the delay is ours
        if dialogue.in_content:
            if now_s - self._last_s > CONTENT_TIMEOUT_S:
                self._end(replies.TIMED_OUT)
                return
            since_s = now_s - self._content_since_s
            if since_s > 60.0:
                received = self._received_bytes - self._received_then
                if self._content_since_s and received < CONTENT_BYTES_PER_S_MIN * since_s:
                    self._end(replies.TIMED_OUT)
                    return
                self._content_since_s, self._received_then = now_s, self._received_bytes
            return
        self._content_since_s = 0.0
        if now_s - self._last_s > COMMAND_TIMEOUT_S or now_s - self._began_s > SESSION_S_MAX:
            self._end(replies.TIMED_OUT)

    def shut_down(self) -> None:
        """The server stops: a session between messages ends now, the others after their answer."""
        if not self._dialogue.has_transaction:
            self._end(replies.SHUTTING_DOWN)

    def cut_off(self) -> None:
        """Its time is over."""
        self._transport.abort()

    def _end(self, last_words: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(last_words)
            self._transport.close()


def _plain(address: str) -> str:
    """An IPv4 address that came over an IPv6 socket is told as what it is; a zone is not told."""
    if ":" in address:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(parsed)
    return address
