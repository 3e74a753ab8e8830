"""One provider of a running sink: its connections, and what they count.

Replies to a group of commands leave in one write; content is looked through once for its end. It parses as
little as possible: only what clients that follow RFC 5321 send is understood.
"""

import asyncio
import functools
import math
import re
import ssl
from collections import defaultdict
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Protocol, cast

from bench.temper import SAMPLES_MAX, Bucket, Counts, Delivery, Profile, Verdict, Verdicts
from mta_policies.answers import Answer, Subject
from mta_policies.provider_model import ProviderModel

END = b"\r\n.\r\n"
BACKLOG = 4_096  # connections that the kernel holds until they are taken; a burst opens hundreds at once
JOINED_BYTES_MAX = 262_144  # content received so far above which joining pieces would cost more than a bytearray
_HEADER_ID = re.compile(rb"\r\nMessage-ID:[ \t]*(?:\r\n[ \t]+)?<?([^\r\n>]*)", re.IGNORECASE)


class SinkConnection(asyncio.Protocol):
    """One client. Replies to a group of commands leave in one write."""

    __slots__ = (
        "_blocked", "_close", "_dot", "_in_content", "_mail_recipients", "_number", "_replies", "_rest", "_searched",
        "_sender", "_taken", "_tls", "address", "client", "is_modelled", "provider", "transport",
    )  # fmt: skip

    def __init__(self, provider: "Provider") -> None:
        self.provider = provider
        self._rest: bytes | bytearray = b""
        self._replies: list[bytes] = []
        self._blocked = self._in_content = self._close = self._tls = False
        self._searched = self._mail_recipients = 0
        self._sender = self._dot = ""
        self._taken: list[str] = []
        self.is_modelled = False
        """The provider's model knows of it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.client: str = peer[0] if peer else ""
        self.address: str = local[0] if local else ""
        is_over = self.provider.connected(self)
        self._number = self.provider.connections_total
        profile = self.provider.profile
        refusal = profile.connections_over if is_over else self.provider.taken(self)
        if refusal:
            self._say("CONNECT", refusal)
            self._close = True
        else:
            self._replies.append(self.provider.greeting)
        if profile.greeting_latency_s:
            self.provider.loop.call_later(profile.greeting_latency_s, self._flush)
        else:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._blocked = True
        self.provider.disconnected(self)

    def data_received(self, data: bytes) -> None:
        rest = self._rest
        if rest:
            if type(rest) is bytes and len(rest) > JOINED_BYTES_MAX:
                rest = bytearray(rest)
            rest += data
            self._rest = rest
        else:
            self._rest = data
        if not self._blocked:
            self._go_on()

    def _go_on(self) -> None:
        """Takes all that is complete; leaves what is not, or what comes after a blocking command, in `_rest`."""
        data, at = self._rest, 0
        while not self._blocked:
            if self._in_content:
                end = data.find(END, max(at, self._searched))
                if end < 0:
                    break
                self._message(bytes(data[at + 2 : end + 2]))
                self._in_content, self._searched = False, 0
                at = end + 5
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            is_data = self._command(bytes(data[at:end]))
            at = end if is_data else end + 2  # the search begins at the CRLF of DATA: ".CRLF" alone is an end too
        self._rest = data[at:] if at else data
        if self._in_content:
            self._searched = max(0, len(self._rest) - 4)
        self._flush()

    def _command(self, line: bytes) -> bool:
        """Answers one command; True where content follows."""
        verb = line[:4].upper()
        replies = self._replies
        if verb == b"RCPT":
            self._rcpt(line)
        elif verb == b"MAIL":
            self._mail(line)
        elif verb == b"DATA":
            if self._taken:
                replies.append(b"354 Go ahead\r\n")
                self._in_content = True
                return True
            self._say("DATA", "554 5.5.1 No valid recipients")
        elif verb == b"EHLO":
            replies.append(self.provider.ehlo_reply(self._tls))
        elif verb == b"RSET":
            self._reset()
            replies.append(b"250 2.0.0 Ok\r\n")
        elif verb == b"QUIT":
            replies.append(b"221 2.0.0 Bye\r\n")
            self._close = self._blocked = True
        elif verb in (b"HELO", b"NOOP"):
            replies.append(b"250 Ok\r\n")
        elif line.upper() == b"STARTTLS" and self.provider.tls is not None and not self._tls:
            self._starttls(self.provider.tls)
        else:
            self._say("OTHER", "502 5.5.2 Not understood")
        return False

    def _mail(self, line: bytes) -> None:
        provider = self.provider
        self._reset()
        self._sender = line[line.find(b"<") + 1 : line.rfind(b">")].decode("utf-8", "replace")
        refusal = provider.mail(self._number, self.address)
        if self.is_modelled and not refusal:
            refusal, self._dot = provider.modelled(self)
        if refusal:
            self._sender = ""
            self._say("MAIL", refusal)
            if refusal.startswith("421"):
                self._close = self._blocked = True
        else:
            self._replies.append(b"250 2.1.0 Ok\r\n")

    def _rcpt(self, line: bytes) -> None:
        provider = self.provider
        recipient = line[line.find(b"<") + 1 : line.rfind(b">")].decode("utf-8", "replace")
        self._mail_recipients += 1
        verdict = provider.rcpt(self.client, self._sender, recipient)
        if verdict.reply.startswith(b"2"):
            self._taken.append(recipient)
            self._dot = self._dot or verdict.dot
        if verdict.delay_s:
            self._blocked = True
            if verdict.delay_s != math.inf:
                provider.loop.call_later(verdict.delay_s, self._unblock, verdict.reply)
        elif not verdict.reply:
            self._cut()
        else:
            self._replies.append(verdict.reply)
            if verdict.close:
                self._close = self._blocked = True

    def _message(self, content: bytes) -> None:
        provider = self.provider
        if not self._dot:
            provider.message(self._number, self._sender, self._taken, content)
            self._replies.append(b"250 2.0.0 Taken\r\n")
        elif self._dot == "drop":
            provider.replies["DOT drop"] += 1
            self._cut()
        else:
            self._say("DOT", self._dot)
            if self._dot.startswith("421"):
                self._close = self._blocked = True
        provider.counts_recipients(self._mail_recipients)
        self._reset()

    def _reset(self) -> None:
        self._sender = self._dot = ""
        self._taken = []
        self._mail_recipients = 0

    def _say(self, command: str, reply: str) -> None:
        self.provider.replies[f"{command} {reply[:3]}"] += 1
        self._replies.append(reply.encode() + b"\r\n")

    def _unblock(self, reply: bytes) -> None:
        if not self.transport.is_closing():
            self._replies.append(reply)
            self._blocked = False
            self._go_on()

    def _cut(self) -> None:
        """Ends the connection at once, without the replies that wait."""
        self._blocked = True
        self._replies.clear()
        self.transport.abort()

    def _flush(self) -> None:
        if not self._replies:
            return
        out = b"".join(self._replies)
        self._replies.clear()
        if self.provider.profile.latency_s:
            self.provider.loop.call_later(self.provider.profile.latency_s, self._write, out, self._close)
        else:
            self._write(out, self._close)

    def _write(self, out: bytes, close: bool) -> None:
        if not self.transport.is_closing():
            self.transport.write(out)
            if close:
                self.transport.close()

    def _starttls(self, context: ssl.SSLContext) -> None:
        self.transport.pause_reading()  # else the client's first TLS bytes could come before TLS is in place
        self._replies.append(b"220 2.0.0 Ready to start TLS\r\n")
        self._flush()
        self._blocked = True
        provider = self.provider

        async def upgrade() -> None:
            self._rest = b""  # said in clear behind STARTTLS; what comes from now on is encrypted
            try:
                transport = await provider.loop.start_tls(self.transport, self, context, server_side=True)
            except OSError:  # ssl.SSLError is one
                return
            assert transport is not None
            self.transport = transport
            self._tls, self._blocked = True, False
            self._reset()
            provider.tls_handshakes += 1
            self._go_on()  # EHLO may have come with the end of the handshake

        begin = functools.partial(provider.run, upgrade)
        provider.loop.call_later(provider.profile.latency_s, begin)  # behind the 220, which is as late


class Listener(Protocol):
    """Whom a provider tells; the sink."""

    tls: ssl.SSLContext | None
    messages: int
    shares_port: bool

    def changed(self) -> None: ...

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None: ...


class Provider(Counts):
    """One provider of a running sink: its counts, and its temper in `profile`, whose fields may be changed."""

    def __init__(self, profile: Profile, sink: Listener) -> None:
        super().__init__()
        self.profile = profile
        self.name, self.address, self.port = profile.name, profile.address, profile.port
        self.tls = sink.tls
        self.loop = asyncio.get_running_loop()
        self._sink = sink
        self._verdicts = Verdicts(profile)
        self._buckets: defaultdict[str, Bucket] = defaultdict(Bucket)
        self.connections: set[SinkConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None
        self.greeting = f"220 {profile.name}.sink.test ESMTP\r\n".encode()
        self.model: ProviderModel | None = None
        """What it does beside its temper, such as blocks that last; by the client's address. To be set before the first
        connection."""
        self.clock: Callable[[], float] = monotonic
        """The model's time in seconds."""

    async def set_down(self, down: bool) -> None:
        """Refuses connections and cuts the open ones, or listens again on the same address and port."""
        self.profile.down = down
        if down and self._server is not None:
            server, self._server = self._server, None
            server.close()
            for connection in list(self.connections):
                connection.transport.abort()
            await server.wait_closed()
            await self._sink.until(lambda: not self.connections)
        elif not down and self._server is None:
            self._server = await self.loop.create_server(
                lambda: SinkConnection(self),
                self.address,
                self.port,
                reuse_address=True,
                reuse_port=self._sink.shares_port,
                backlog=BACKLOG,
            )

    def run(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Runs it in a task that is referred to while it runs."""
        task = self.loop.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connected(self, connection: SinkConnection) -> bool:
        """Counts a connection; True where it is one too many."""
        profile = self.profile
        is_over = 0 < profile.connections_max <= self.open_at(connection.address)
        self.connections_over += is_over
        self.connections.add(connection)
        self.connections_open += 1
        self.connections_max = max(self.connections_max, self.connections_open)
        self.connections_total += 1
        by_client = self.connections_open_by_client
        by_client[connection.client] += 1
        if by_client[connection.client] > self.connections_max_by_client[connection.client]:
            self.connections_max_by_client[connection.client] = by_client[connection.client]
        self.messages_per_connection.append(0)
        if profile.times:
            self.connection_times.append(monotonic())
        self._sink.changed()
        return is_over

    def taken(self, connection: SinkConnection) -> str:
        """What the model greets a connection with; "" where it takes it, or there is none."""
        if self.model is None:
            return ""
        said = self.model.opened(Subject(connection.client), self.clock())
        connection.is_modelled = said is None
        return _words(said)

    def modelled(self, connection: SinkConnection) -> tuple[str, str]:
        """What the model says of a transaction that begins, at once or to its final dot; "" where it takes it."""
        assert self.model is not None, "it has taken the connection"
        said = self.model.answer(Subject(connection.client), self.clock())
        words = _words(said)
        return ("", words) if said is not None and said.stage == "content" else (words, "")

    def disconnected(self, connection: SinkConnection) -> None:
        if connection.is_modelled and self.model is not None:
            self.model.closed(Subject(connection.client), self.clock())
        self.connections.discard(connection)
        self.connections_open -= 1
        self.connections_open_by_client[connection.client] -= 1
        self._sink.changed()

    def open_at(self, address: str) -> int:
        """Connections that count together with one at this address of ours."""
        return self.connections_open

    def bucket_of(self, address: str) -> Bucket:
        """The rate that counts for this address of ours."""
        return self._buckets[""]

    def ehlo_reply(self, is_tls: bool) -> bytes:
        profile = self.profile
        lines = [f"{profile.name}.sink.test", f"SIZE {profile.size_max}", "8BITMIME", "SMTPUTF8", *profile.extensions]
        if profile.pipelining:
            lines.append("PIPELINING")
        if self.tls is not None and not is_tls:
            lines.append("STARTTLS")
        return "".join(f"250-{line}\r\n" for line in lines).encode() + b"250 ENHANCEDSTATUSCODES\r\n"

    def mail(self, connection_number: int, address: str = "") -> str:
        """Counts a MAIL; a refusal, or "" where it is taken."""
        profile, now_s = self.profile, monotonic()
        self.mails += 1
        if profile.times:
            self.mail_times.append(now_s)
        if profile.rate_per_s and not self.bucket_of(address).take(profile.rate_per_s, profile.burst, now_s):
            self.mails_over += 1
            if profile.rate_over:
                return profile.rate_over
        if 0 < profile.messages_per_connection <= self.messages_per_connection[connection_number - 1]:
            self.mails_over += 1
            if profile.messages_over:
                return profile.messages_over
        self.messages_per_connection[connection_number - 1] += 1
        return ""

    def rcpt(self, client: str, sender: str, recipient: str) -> Verdict:
        """Counts a RCPT and says what it gets."""
        verdict = self._verdicts.verdict(client, sender, recipient, monotonic())
        if self.profile.keep != "counts":
            self.attempts[recipient] += 1
        if not verdict.reply.startswith(b"2"):
            self.replies["RCPT " + (verdict.reply[:3].decode() or "silence")] += 1
        return verdict

    def counts_recipients(self, count: int) -> None:
        self.recipients_max = max(self.recipients_max, count)

    def message(self, connection_number: int, sender: str, recipients: list[str], content: bytes) -> None:
        self.messages += 1
        self.recipients += len(recipients)
        self.bytes += len(content)
        self.signed += is_signed(content)
        self._sink.messages += 1
        keep, every = self.profile.keep, self.profile.sample_every
        if every and self.messages % every == 1 % every and len(self.samples) < SAMPLES_MAX:
            self.samples.append(unstuffed(content))
        if keep != "counts":
            kept = unstuffed(content) if keep == "contents" else b""
            self.add(
                Delivery(
                    message_id(content), sender, tuple(recipients), len(content), monotonic(), connection_number, kept
                )
            )
        self._sink.changed()


def _words(said: Answer | None) -> str:
    return f"{said.code} {said.enhanced} {said.text}" if said is not None else ""


def unstuffed(content: bytes) -> bytes:
    """Without the dots that were put before dots at the beginning of a line (RFC 5321 4.5.2)."""
    return (b"\r\n" + content).replace(b"\r\n..", b"\r\n.")[2:]


def is_signed(content: bytes) -> bool:
    """Whether the header has a DKIM-Signature; at the top is where it costs nothing to see."""
    if content.startswith(b"DKIM-Signature:"):
        return True
    return content.find(b"\r\nDKIM-Signature:", 0, content.find(b"\r\n\r\n") + 1) >= 0


def message_id(content: bytes) -> str:
    """`X-Bench-Id` of the header as it is written by our generator, else Message-ID, else ""."""
    at = content.find(b"\r\nX-Bench-Id: ", 0, 65_536)
    if at >= 0:
        return content[at + 14 : content.find(b"\r\n", at + 14)].decode("ascii", "replace")
    head_end = content.find(b"\r\n\r\n")
    found = _HEADER_ID.search(b"\r\n" + content[: head_end if head_end >= 0 else len(content)])
    return found[1].decode("ascii", "replace").strip() if found else ""
