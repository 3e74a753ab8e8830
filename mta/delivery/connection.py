"""A connection to a peer: the socket, TLS and deadlines around one ClientSession.

The owner opens it, gives it one message after another and is called back; it never waits. Nothing is started per
command: what arrived goes through the session, what the session has to say is written once, and the deadline is a
number that the Sweeper looks at. Whatever happens the owner hears `connection_gone` exactly once, and before it one
outcome for every recipient of a message under way.
"""

import asyncio
import os
import socket
import sys
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

from mta.delivery.deadlines import NEVER_S, Sweeper, Timeouts
from mta.delivery.tls import TlsContexts, TlsError, TlsLayer
from mta.model.outcome import Outcome, Reply
from mta.smtp.client import CONTENT_WHOLE_BYTES_MAX, ClientSession, Outgoing, Phase, TlsMode

_IP_BIND_ADDRESS_NO_PORT = (
    24  # linux/in.h: bind to the address, let connect choose the port, so that they never run out
)

_WAITING_FOR = {
    "greeting": "the greeting", "ehlo": "the reply to EHLO", "helo": "the reply to HELO", "starttls": "TLS",
    "rset": "the reply to RSET", "mail": "the reply to MAIL", "rcpt": "the reply to RCPT", "data": "the reply to DATA",
    "content": "the reply to the content",
}  # fmt: skip


class Target(NamedTuple):
    """Whom to connect to."""

    host: str
    """The MX's name: for TLS and events."""
    address: str
    """IPv4 or IPv6, which decides the family."""
    port: int


class SourceAddress(NamedTuple):
    """Whom we connect as."""

    name: str
    ipv4: str
    """"" for the system's choice."""
    ipv6: str
    ehlo: str


class ConnectionOwner(Protocol):
    """Who opened a connection and hears of it. Calls come from the loop or from within the connection's methods."""

    def connection_ready(self, connection: "Connection") -> None:
        """It may be given its first message, at once or later."""
        ...

    def transaction_done(self, connection: "Connection", outcomes: list[Outcome], usable: bool) -> None:
        """One outcome per recipient, in order. `usable`: the next `send` or `quit` may come at once; else it is
        closing by itself."""
        ...

    def connection_failed(self, connection: "Connection", stage: str, reply: Reply, from_peer: bool) -> None:
        """It was never ready and is closed or closing. Stage `local`: the reason is here, not at the peer."""
        ...

    def connection_lost_idle(self, connection: "Connection") -> None:
        """It was ready and had nothing to do; the peer closed it or said 421."""
        ...

    def connection_gone(self, connection: "Connection") -> None:
        """Exactly once, as the last call: it counts no more."""
        ...


@lru_cache(maxsize=16)
def _timeouts_by_phase(timeouts: Timeouts) -> dict[Phase, float]:
    return {
        "greeting": timeouts.greeting_s, "ehlo": timeouts.ehlo_s, "helo": timeouts.ehlo_s,
        "starttls": timeouts.starttls_s, "ready": NEVER_S, "rset": timeouts.mail_s, "mail": timeouts.mail_s,
        "rcpt": timeouts.rcpt_s, "data": timeouts.data_s, "content": timeouts.content_end_s,
    }  # fmt: skip


class _State(Enum):
    NEW = auto()
    CONNECTING = auto()
    TALKING = auto()
    LEAVING = auto()  # QUIT is said: the peer closes, or its time runs out
    ABORTED = auto()  # closed by us: only the transport's last word is missing
    GONE = auto()


class Connection(asyncio.Protocol):
    """One connection. Use: `open`, then `send` whenever the owner was told that it may, at last `quit`."""

    __slots__ = (
        "_busy", "_connecting", "_loop", "_owner", "_paused", "_phase", "_replies", "_session", "_silent", "_state",
        "_sweeper", "_timeout_of", "_timeouts", "_tls", "_tls_contexts", "_tls_mode", "_transport", "_was_made",
        "deadline_s", "idle_since_s", "local_address", "source", "target", "tls_cipher", "tls_version",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        source: SourceAddress,
        tls_mode: TlsMode,
        owner: ConnectionOwner,
        sweeper: Sweeper,
        tls: TlsContexts,
        timeouts: Timeouts,
    ) -> None:
        self.target = target
        self.source = source
        self.idle_since_s = 0.0
        """Monotonic seconds, as coarse as a sweep; only good while it is ready and has nothing to do."""
        self.local_address = ""
        """Where it goes out from, once it is connected."""
        self.tls_version = ""
        self.tls_cipher = ""
        self.deadline_s = NEVER_S
        self._loop = loop
        self._tls_mode: TlsMode = tls_mode
        self._owner = owner
        self._sweeper = sweeper
        self._tls_contexts = tls
        self._timeouts = timeouts
        self._timeout_of = _timeouts_by_phase(timeouts)
        self._session = ClientSession(self, source.ehlo, tls=tls_mode)
        self._state = _State.NEW
        self._connecting: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._tls: TlsLayer | None = None
        self._phase: Phase = "greeting"  # that the deadline was set for
        self._replies = 0
        self._paused = False
        self._was_made = False
        self._silent = False  # the owner closes it and knows
        self._busy = False  # within the session: what it says is written when it returns

    # ---- what the owner calls

    def open(self) -> None:
        """Begins to connect."""
        assert self._state is _State.NEW
        self._state = _State.CONNECTING
        self._sweeper.add(self)
        self.deadline_s = self._sweeper.now_s + self._timeouts.connect_s
        self._connecting = self._loop.create_task(self._connect())
        self._connecting.add_done_callback(self._connect_ended)  # also when it is cancelled before its first step

    def send(self, outgoing: Outgoing) -> None:
        """Begins a transaction; only when the owner was told that it may."""
        if self._busy:
            self._session.send(outgoing)
            return
        self._busy = True
        self._session.send(outgoing)
        self._settle()

    def quit(self) -> None:
        """Says QUIT and lets the peer close; one that is not ready yet is aborted, one that is closing goes on so."""
        if self._session.phase in ("quit", "closed"):
            return
        if self._session.phase != "ready" or self._transport is None:
            self.abort()
            return
        self._session.quit()
        if not self._busy:
            self._settle()

    def abort(self) -> None:
        """Closes at once. Recipients under way are told as deferred, an idle or unready connection is only gone."""
        self._silent = True
        self._give_up(Reply(451, "4.4.2", "connection closed by us"))

    def limit_size(self, bytes_max: int) -> None:
        """Larger messages are not tried over this connection, which is ready."""
        self._session.limit_size(bytes_max)

    @property
    def messages(self) -> int:
        """Transactions begun with the peer; what was bounced without a byte to it is none."""
        return self._session.messages

    @property
    def recipients(self) -> int:
        """Recipients of all of them."""
        return self._session.recipients

    @property
    def is_ready(self) -> bool:
        """Whether `send` may be called."""
        return self._session.phase == "ready"

    @property
    def is_blocked(self) -> bool:
        """Whether the peer does not take what was written to it."""
        return self._paused

    @property
    def tls_resumed(self) -> bool:
        """Whether TLS took up an earlier connection's session."""
        return self._tls is not None and self._tls.is_resumed

    # ---- what the session tells

    def ready(self) -> None:
        self._owner.connection_ready(self)

    def done(self, outcomes: list[Outcome], usable: bool) -> None:
        self._owner.transaction_done(self, outcomes, usable)

    def failed(self, stage: str, reply: Reply, from_peer: bool) -> None:
        if not self._silent:
            self._owner.connection_failed(self, stage, reply, from_peer)

    def lost(self) -> None:
        if not self._silent:
            self._owner.connection_lost_idle(self)

    def start_tls(self) -> None:
        assert self._transport is not None
        self._phase, self._replies = "starttls", self._session.replies
        self.deadline_s = self._sweeper.now_s + self._timeouts.handshake_s
        try:
            self._tls = TlsLayer(self._tls_contexts, self.target.host, self.target.port, self._tls_mode)
        except TlsError as error:
            self._session.connection_lost(Reply(451, "4.7.5", str(error)))
            return
        self._transport.write(self._tls.outgoing())

    # ---- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's has the methods but not the class
        if self._state is not _State.CONNECTING:
            transport.abort()  # uvloop hands over what it has closed already, and never tells that it is lost
            return
        self._was_made = True
        self._transport = transport
        self._state = _State.TALKING
        self.deadline_s = self._sweeper.now_s + self._timeouts.greeting_s
        transport.set_write_buffer_limits(high=CONTENT_WHOLE_BYTES_MAX)
        local = transport.get_extra_info("sockname")
        self.local_address = local[0] if local else ""

    def data_received(self, data: bytes) -> None:
        if self._tls is not None:
            data = self._decrypt(self._tls, data)
            if not data:
                return
        self._busy = True
        self._session.receive(data)
        self._settle()

    def eof_received(self) -> None:
        self._give_up(Reply(451, "4.4.2", "connection closed by the peer"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state is _State.TALKING:
            why = f": {exc.strerror}" if isinstance(exc, OSError) and exc.strerror else ""
            self._give_up(Reply(451, "4.4.2", f"connection lost{why}"))
        self._gone()

    def pause_writing(self) -> None:
        self._paused = True
        if self._session.phase == "content":
            self.deadline_s = self._sweeper.now_s + self._timeouts.content_block_s

    def resume_writing(self) -> None:
        self._paused = False
        if self._session.phase == "content":
            self._write_content()

    def deadline_passed(self) -> None:
        """The peer has taken too long for what we waited for."""
        if self._state is _State.CONNECTING:
            self._give_up(Reply(451, "4.4.1", f"no answer from {self._where()}"))
        elif self._state is not _State.TALKING:
            if self._transport is not None:
                self._transport.abort()
        elif self._paused:
            self._give_up(Reply(451, "4.4.2", "timed out: the peer does not take what we send"))
        else:
            self._give_up(Reply(451, "4.4.2", f"timed out while waiting for {_WAITING_FOR[self._session.phase]}"))

    # ---- inside

    async def _connect(self) -> None:
        stage, connecting = "local", None
        try:
            connecting = self._bound_socket()
            stage = "connect"
            await self._loop.sock_connect(connecting, (self.target.address, self.target.port))
            await self._loop.create_connection(lambda: self, sock=connecting)
        except OSError as error:
            if self._state is _State.CONNECTING:
                self._state = _State.ABORTED
                why = os.strerror(error.errno) if error.errno else str(error)
                words = f"cannot connect to {self._where()}: {why}"
                if stage == "local":
                    words = f"cannot use the source {self.source.name}: {why}"
                reply = Reply(451, "4.3.5" if stage == "local" else "4.4.1", words)
                self._owner.connection_failed(self, stage, reply, False)
        finally:
            if connecting is not None and not self._was_made:
                connecting.close()

    def _connect_ended(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if not self._was_made:
            self._gone()
        if not task.cancelled():
            task.result()

    def _bound_socket(self) -> socket.socket:
        is_ipv6 = ":" in self.target.address
        local = self.source.ipv6 if is_ipv6 else self.source.ipv4
        bound = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            if local:
                if sys.platform == "linux":
                    bound.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                bound.bind((local, 0))
        except OSError:
            bound.close()
            raise
        return bound

    def _where(self) -> str:
        return f"{self.target.host}[{self.target.address}]:{self.target.port}"

    def _settle(self) -> None:
        """After the session was told something: writes what it says and sets the deadline for what follows."""
        self._busy = False
        session = self._session
        out = session.data_to_send()
        if out:
            self._write(out)
        phase = session.phase
        if phase is self._phase and session.replies == self._replies:
            return  # a piece of a reply is no progress: dripping does not move the deadline
        self._phase, self._replies = phase, session.replies
        now_s = self._sweeper.now_s
        timeout_s = self._timeout_of.get(phase)
        if timeout_s is None:
            self._end(phase)
            return
        self.deadline_s = now_s + timeout_s
        if phase == "ready":
            self.idle_since_s = now_s
        elif session.has_more or self._paused:
            self._write_content()

    def _write(self, out: bytes | memoryview) -> None:
        transport = self._transport
        if transport is not None:
            transport.write(out if self._tls is None else self._tls.encrypt(out))

    def _write_content(self) -> None:
        """Large content, as far as the peer takes it; every block that it takes gives it new time."""
        session = self._session
        while session.has_more and not self._paused:
            self._write(session.data_to_send())
        waits_for_block = session.has_more or self._paused
        timeout_s = self._timeouts.content_block_s if waits_for_block else self._timeouts.content_end_s
        self.deadline_s = self._sweeper.now_s + timeout_s

    def _decrypt(self, layer: TlsLayer, data: bytes) -> bytes:
        """What the peer says, b"" for nothing yet. Takes the handshake on."""
        transport = self._transport
        was_established = layer.is_established
        if transport is None or self._state not in (_State.TALKING, _State.LEAVING):
            return b""
        try:
            plain = layer.feed(data)
        except TlsError as error:
            transport.write(layer.outgoing())
            self._give_up(Reply(451, "4.7.5", str(error)), flush=True)
            return b""
        if out := layer.outgoing():
            transport.write(out)
        if layer.is_established and not was_established:
            self.tls_version, self.tls_cipher = layer.version, layer.cipher
            if plain:
                self._give_up(Reply(451, "4.5.0", "the peer spoke before EHLO"))
                return b""
            self._session.tls_established()
            self._settle()
        if layer.is_closed:
            self._loop.call_soon(self.eof_received)  # behind what it said before
        return plain

    def _end(self, phase: Phase) -> None:
        """The session is over: after QUIT the peer is given time to close, else we do."""
        if self._state is _State.TALKING:
            if phase == "quit":
                self._state = _State.LEAVING
                self.deadline_s = self._sweeper.now_s + self._timeouts.quit_s
            else:
                self._give_up(Reply(451, "4.4.2", "connection closed by us"))

    def _give_up(self, reason: Reply, *, flush: bool = False) -> None:
        """Tells what is still to be told and closes; what is written already only leaves with `flush`."""
        state, transport = self._state, self._transport
        if state in (_State.NEW, _State.ABORTED, _State.GONE):
            return
        self._state = _State.ABORTED
        if transport is None:
            self.deadline_s = NEVER_S
            if not self._silent:
                self._owner.connection_failed(self, "connect", reason, False)
            if self._connecting is not None:
                self._connecting.cancel()
            return
        self._session.connection_lost(reason)
        self.deadline_s = self._sweeper.now_s + self._timeouts.quit_s
        if flush:
            transport.close()
        else:
            transport.abort()

    def _gone(self) -> None:
        if self._state is _State.GONE:
            return
        self._state = _State.GONE
        self.deadline_s = NEVER_S
        self._sweeper.discard(self)
        self._transport = None
        if self._tls is not None:
            self._tls.close()  # takes its session for the next connection
        self._owner.connection_gone(self)
