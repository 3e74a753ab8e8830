"""A peer that follows a script: an SMTP server on a real loopback socket that says what a test tells it to say.

A script is a list of steps. `Expect` waits for a command, `Say` answers, and the others misbehave: they split
replies, stall, reset, close, or stop reading. One script per connection, in order; the last one serves all that
follow.

    async with ScriptedPeer([*hello("PIPELINING"), *accept()]) as peer:
        ... connect to peer.address, peer.port ...
    assert peer.contents == [b"Subject: hi\\r\\n\\r\\n"]

What does not follow the script is kept in `problems` and raised when the peer is closed.
"""

import asyncio
import fnmatch
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Self, cast

READ_BYTES_MAX = 64 * 1024 * 1024  # of one command or content


class Expect(NamedTuple):
    """Waits for a command line that matches, with * and ? as in file names, whatever the case."""

    pattern: str


class Content(NamedTuple):
    """Waits for content up to its end mark and keeps it, dots taken back."""


class Say(NamedTuple):
    """Sends text, each line with CRLF; `split` sends every byte by itself."""

    text: str
    split: bool = False


class SayBytes(NamedTuple):
    """Sends bytes as they are."""

    data: bytes


class StartTls(NamedTuple):
    """Shakes hands as the server."""

    context: ssl.SSLContext


class Do(NamedTuple):
    """Does what the test wrote for it."""

    what: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Read(NamedTuple):
    """Waits for so many bytes, whatever they are, and forgets them."""

    bytes_expected: int


class Until(NamedTuple):
    """Waits for the test to say that it goes on."""

    event: asyncio.Event


class Stall(NamedTuple):
    """Does nothing until the other side has closed, but reads."""


class StallDeaf(NamedTuple):
    """Does nothing and reads nothing until the peer is closed."""


class Close(NamedTuple):
    """Closes the connection in order."""


class Reset(NamedTuple):
    """Resets the connection."""


Step = Expect | Content | Say | SayBytes | StartTls | Do | Read | Until | Stall | StallDeaf | Close | Reset


def hello(*keywords: str) -> list[Step]:
    """Greeting and EHLO, answered with these keywords."""
    lines = ["peer.example", *keywords]
    marks = ["-"] * (len(lines) - 1) + [" "]
    reply = "\n".join(f"250{mark}{line}" for mark, line in zip(marks, lines, strict=True))
    return [Say("220 peer.example ESMTP"), Expect("EHLO *"), Say(reply)]


def accept(recipients: int = 1, reply: str = "250 2.0.0 queued") -> list[Step]:
    """One pipelined transaction, all of whose recipients are accepted."""
    replies = ["250 2.1.0 ok"] + ["250 2.1.5 ok"] * recipients + ["354 go ahead"]
    expected: list[Step] = [Expect("MAIL FROM:<*"), *[Expect("RCPT TO:<*")] * recipients, Expect("DATA")]
    return [*expected, Say("\n".join(replies)), Content(), Say(reply)]


def goodbye() -> list[Step]:
    """QUIT, answered and closed."""
    return [Expect("QUIT"), Say("221 2.0.0 bye"), Close()]


class ScriptError(AssertionError):
    """The other side did not do what the script says."""


class ScriptedPeer:
    """Listens on a loopback port while it is used as an asynchronous context manager."""

    def __init__(self, *scripts: Sequence[Step], address: str = "127.0.0.1") -> None:
        """At least one script."""
        assert scripts, "a peer needs a script"
        self.address = address
        self.port = 0
        self.commands: list[list[str]] = []
        """Per connection, what was expected and came."""
        self.contents: list[bytes] = []
        """Of all connections, in the order of their end marks."""
        self.clients: list[str] = []
        """Per connection, the address it came from."""
        self.problems: list[str] = []
        self._scripts = scripts
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self.address, 0, limit=READ_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._closing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None and self.problems:
            raise ScriptError("; ".join(self.problems))

    async def finished(self) -> None:
        """Waits until every connection so far has come to the end of its script and is closed."""
        await asyncio.gather(*self._tasks)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.commands)
        commands: list[str] = []
        self.commands.append(commands)
        self.clients.append(writer.get_extra_info("peername")[0])
        script = self._scripts[min(number, len(self._scripts) - 1)]
        step: Step | None = None
        try:
            for step in script:
                await self._follow(step, reader, writer, commands)
                if isinstance(step, Close | Reset):
                    return
            if rest := await reader.read(READ_BYTES_MAX):
                self.problems.append(f"connection {number}: the script is over, but there came {rest[:80]!r}")
        except ScriptError as error:
            self.problems.append(f"connection {number}: {error}")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.problems.append(f"connection {number}: {error!r} at {step}")
        finally:
            writer.close()

    async def _follow(
        self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, commands: list[str]
    ) -> None:
        match step:
            case Expect(pattern):
                line = (await reader.readuntil(b"\r\n")).removesuffix(b"\r\n").decode()
                commands.append(line)
                if not fnmatch.fnmatchcase(line.upper(), _literal_brackets(pattern.upper())):
                    raise ScriptError(f"expected {pattern!r}, there came {line!r}")
            case Content():
                self.contents.append(await _read_content(reader))
            case Say(text, split):
                data = "".join(line + "\r\n" for line in text.split("\n")).encode()
                for piece in [data[i : i + 1] for i in range(len(data))] if split else [data]:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)  # the loop may hand the byte on before the next one follows
            case SayBytes(data):
                writer.write(data)
                await writer.drain()
            case StartTls(context):
                await writer.start_tls(context)
            case Do(what):
                await what(reader, writer)
            case Read(bytes_expected):
                await reader.readexactly(bytes_expected)
            case Until(event):
                await event.wait()
            case Stall():
                while await reader.read(READ_BYTES_MAX):
                    pass
            case StallDeaf():
                cast(asyncio.Transport, writer.transport).pause_reading()
                await self._closing.wait()
            case Reset():
                linger = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close sends RST
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            case Close():
                await writer.drain()


def _literal_brackets(pattern: str) -> str:
    return re.sub(r"\[", "[[]", pattern)


async def _read_content(reader: asyncio.StreamReader) -> bytes:
    content = bytearray()
    while not (content == b".\r\n" or content.endswith(b"\r\n.\r\n")):
        content += await reader.readuntil(b"\r\n")
    lines = bytes(content[:-3]).split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
