"""ProviderSession: one connection to a ScriptedProvider: SMTP as its temper has it."""

import asyncio
import ssl
from collections.abc import Callable

from mta.testing.memory_network import MemoryTransport
from mta.testing.memory_tls import ServerTls, server_context
from mta.testing.scripted_provider import Front, Taken, Tls, Transaction
from mta.testing.simulated_loop import SimulatedLoop


class ProviderSession(asyncio.Protocol):
    """Of one client."""

    transport: MemoryTransport

    def __init__(self, front: Front, source: str, address: str, client: SimulatedLoop) -> None:
        self._front = front
        self._provider = front.provider
        self._source = source
        self._address = address
        self._client = client
        self._layer: ServerTls | None = None
        self._tls: Tls = "none"
        self._read = bytearray()
        self._in_content = False
        self._is_over = False
        self._is_counted = True
        self._messages = 0
        self._transaction: Transaction
        self._named = 0
        self._addresses: list[str] = []
        self._said_s = 0.0
        self._taken: Taken | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)
        self.transport = transport
        if self._provider.chance(self._provider.temper.greets_421):
            self._part("421 4.3.2 not now")
        else:
            self._say("220 mx.example ESMTP")

    # what it says

    def _say(self, text: str, then: Callable[[], None] | None = None) -> float:
        """-> when it is said."""
        loop = self._provider.loop
        at_s = max(self._said_s, loop.time() + self._provider.temper.slow_s)
        data = text.replace("\n", "\r\n").encode() + b"\r\n"
        if self._layer is not None:
            data = self._layer.encrypt(data)

        def say() -> None:
            self.transport.write(data)
            if then is not None:
                then()

        self._said_s = at_s
        if at_s > loop.time():
            loop.exactly_at(at_s, say)
        else:
            say()
        return at_s

    def _part(self, text: str) -> None:
        self._is_over = True
        self._say(text, self._close)

    def _close(self) -> None:
        self._is_over = True
        self._gone()
        self.transport.close()

    def _break(self) -> None:
        self._is_over = True
        self._gone()
        self.transport.abort()

    # how it ends

    def _gone(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._provider.closed(self._source, self._front.site)

    def eof_received(self) -> None:
        self._left()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()

    def _left(self) -> None:
        self._is_over = True
        if self._is_counted and self._taken is not None:
            self._taken.left_s = self._provider.loop.time() - self._provider.latency_s
        self._gone()

    # what it hears

    def data_received(self, data: bytes) -> None:
        if self._layer is not None:
            data = self._decrypt(self._layer, data)
        self._read += data
        while not self._is_over:
            if self._in_content:
                end = 0 if self._read.startswith(b".\r\n") else self._read.find(b"\r\n.\r\n") + 2
                if not self._read.startswith(b".\r\n") and end < 2:
                    return
                content = bytes(self._read[:end]).replace(b"\r\n.", b"\r\n")  # RFC 5321 4.5.2
                del self._read[: end + 3]
                self._in_content = False
                self._end(content)
            else:
                end = self._read.find(b"\r\n")
                if end < 0:
                    return
                line = self._read[:end].decode(errors="replace")
                del self._read[: end + 2]
                self._command(line)

    def _decrypt(self, layer: ServerTls, data: bytes) -> bytes:
        try:
            plain = layer.feed(data)
        except ssl.SSLError:  # the client does not like us
            self._break()
            return b""
        if out := layer.outgoing():
            self.transport.write(out)
        return plain

    def _command(self, line: str) -> None:
        provider, temper = self._provider, self._provider.temper
        verb = line[:4].upper()
        if verb == "EHLO":
            if line[5:] != provider.names[self._source]:
                provider.witness.violated(f"{provider.name}: the source {self._source} says {line}")
            self._say(self._hello())
        elif line.upper() == "STARTTLS":
            self._start_tls()
        elif verb == "MAIL":
            self._mail()
        elif verb == "RCPT":
            self._say(self._rcpt(line[line.index("<") + 1 : line.index(">")]))
        elif verb == "DATA":
            if provider.chance(temper.drops):
                self._break()
            elif not self._addresses:
                self._say("554 5.5.1 no valid recipients")
            else:
                self._in_content = True
                self._say("354 go ahead")
        elif verb == "RSET":
            self._addresses = []
            self._say("250 2.0.0 ok")
        elif verb == "QUIT":
            self._is_over = True
            self._say("221 2.0.0 bye", None if provider.chance(temper.lingers) else self._close)
        else:
            self._say("500 5.5.2 what?")

    def _hello(self) -> str:
        temper = self._provider.temper
        size = f" {temper.size_max}" if temper.size_max else ""
        words = [word + (size if word == "SIZE" else "") for word in temper.keywords]
        if temper.tls != "none" and self._layer is None:
            words.append("STARTTLS")
        lines = ["mx.example", *words]
        return "\n".join(f"250{' ' if at == len(lines) else '-'}{word}" for at, word in enumerate(lines, 1))

    def _start_tls(self) -> None:
        tls = self._provider.temper.tls
        if tls in ("none", "refused"):
            self._say("454 4.7.0 not now")
        elif tls == "broken":
            self._say("220 2.0.0 go ahead", lambda: self.transport.write(b"250 what is TLS?\r\n"))
        else:
            self._say("220 2.0.0 go ahead")
            self._tls = tls
            self._layer = ServerTls(server_context(f"*.{self._provider.name}.test", is_trusted=tls == "good"))

    def _mail(self) -> None:
        provider, temper = self._provider, self._provider.temper
        self._messages += 1
        self._named = 0
        self._addresses = []
        self._is_refused = False
        self._transaction = Transaction(
            provider.name,
            self._front.site,
            self._source,
            self._address,
            self._client,
            provider.loop.time() - provider.latency_s,
            self._tls,
        )
        provider.begun(self._transaction)
        provider.messages(self._messages)
        if provider.chance(temper.mail_421):
            self._part("421 4.3.2 closing")
        elif provider.chance(temper.mail_4xx):
            self._is_refused = True
            self._say("451 4.3.0 not this one now")
        else:
            self._say("250 2.1.0 ok")

    def _rcpt(self, address: str) -> str:
        provider, temper = self._provider, self._provider.temper
        self._named += 1
        provider.recipients(self._named)
        provider.witness.begun(address, self._transaction)
        is_new = address not in provider.asked
        provider.asked.add(address)
        if self._is_refused:
            return "503 5.5.1 MAIL first"
        if address.startswith("bad"):
            provider.witness.refused(address, 550, provider.name)
            return "550 5.1.1 unknown"
        if temper.recipients_max and len(self._addresses) >= temper.recipients_max:
            return "452 4.5.3 too many recipients"
        if (temper.is_grey and is_new) or provider.chance(temper.rcpt_4xx):
            return "450 4.7.1 come again"
        self._addresses.append(address)
        return "250 2.1.5 ok"

    def _end(self, content: bytes) -> None:
        provider, temper = self._provider, self._provider.temper
        now_s = provider.loop.time()
        is_dropped = provider.chance(temper.drops_after_dot)
        if is_dropped and provider.chance(0.5):
            self._break()
            return
        if not is_dropped and provider.chance(temper.dot_4xx):
            self._say("451 4.3.0 not now")
            return
        if not is_dropped and provider.chance(temper.dot_5xx):
            for address in self._addresses:
                provider.witness.refused(address, 554, provider.name)
            self._say("554 5.7.1 not this")
            return
        taken = Taken(self._transaction, self._addresses, content, now_s, float("inf"))
        if is_dropped:
            taken.left_s = now_s
            self._break()
        else:
            self._taken = taken
            if not provider.chance(temper.stalls):
                taken.reply_s = self._say("250 2.0.0 taken") + provider.latency_s
        provider.witness.taken(taken)
