"""The door of a worker for tests: real sockets on loopback, on the loop that the server runs on, and nothing behind it.

Time stands still until a test moves it; `house.submitter` decides what becomes of a message.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from mta.model.envelope import Envelope
from mta.model.identity import IdMaker
from mta.reporting.events import Events
from mta.submission.accept import Acceptor, Tenants
from mta.submission.listener import Doors, ListenerSettings
from mta.submission.session import SessionLimits
from mta.testing.fake_clock import FakeClock

PATIENCE_S = 20.0  # before a test that waits in vain fails
REFUSED = b"452 4.3.1 Cannot write the message down now\r\n"


class Submitter:
    """Takes messages, refuses them, or keeps them waiting."""

    def __init__(self) -> None:
        self.does = "accept"
        self.taken: list[tuple[Envelope, bytes]] = []
        self.waiting: list[tuple[Callable[[], None], Callable[[bytes], None]]] = []

    def submit(
        self,
        envelope: Envelope,
        content: bytes,
        on_accepted: Callable[[], None],
        on_refused: Callable[[bytes], None],
    ) -> None:
        self.taken.append((envelope, content))
        if self.does == "accept":
            asyncio.get_running_loop().call_soon(on_accepted)
        elif self.does == "refuse at once":
            on_refused(REFUSED)
        elif self.does == "accept at once":
            on_accepted()
        else:
            self.waiting.append((on_accepted, on_refused))

    def accept(self) -> None:
        """The message that has waited longest is on stable storage."""
        self.waiting.pop(0)[0]()

    def refuse(self) -> None:
        """It cannot be written down."""
        self.waiting.pop(0)[1](REFUSED)

    @property
    def contents(self) -> list[bytes]:
        return [content for _, content in self.taken]


class Client:
    """One connection that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), PATIENCE_S)

    async def ask(self, data: bytes, lines: int = 1) -> bytes:
        """Says it, and hears so many lines."""
        self.say(data)
        return b"".join([await self.line() for _ in range(lines)])

    async def rest(self) -> bytes:
        """All that comes before the server's end of the stream."""
        return await asyncio.wait_for(self.reader.read(-1), PATIENCE_S)

    async def greet(self) -> None:
        assert (await self.line()).startswith(b"220 ")
        assert (await self.ask(b"HELO client.test\r\n")).startswith(b"250 ")

    async def envelope(self, parameters: bytes = b"") -> None:
        """MAIL, RCPT and DATA; content may follow."""
        said = await self.ask(b"MAIL FROM:<a@shop.test>" + parameters + b"\r\nRCPT TO:<b@d.test>\r\nDATA\r\n", 3)
        assert said.splitlines()[2].startswith(b"354 "), said


class House:
    """A worker's doors with one listener."""

    def __init__(self, **more) -> None:
        self.clock = FakeClock()
        self.submitter = Submitter()
        self.event_lines: list[bytes] = []
        self.settings = ListenerSettings(
            hostname="mail.test",
            size_max_bytes=more.pop("size_max_bytes", 1_000_000),
            recipients_max=more.pop("recipients_max", 1000),
            trusted=more.pop("trusted", ("127.0.0.0/8", "::1/128")),
        )
        self.acceptor = Acceptor(
            clock=self.clock,
            ids=IdMaker(1),
            submitter=self.submitter,
            events=Events(self.event_lines.append, worker=0, prefix="e"),
            tenants=Tenants([], []),
            content_bytes_max=more.pop("content_bytes_max", 10_000_000),
            size_max_bytes=self.settings.size_max_bytes,
        )
        host = more.pop("host", "127.0.0.1")
        limits = SessionLimits(**more.pop("limits", {}))
        self.doors = Doors(asyncio.get_running_loop(), self.clock, self.acceptor, limits=limits, **more)
        self.bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.bound.bind((host, 0))
        self.address = self.bound.getsockname()[:2]
        self.clients: list[Client] = []

    async def open(self) -> None:
        await self.doors.open([(self.bound, self.settings)])

    async def connect(self, **more) -> Client:
        """A client that has not heard our greeting yet."""
        client = Client(*await asyncio.open_connection(*self.address, **more))
        self.clients.append(client)
        return client

    async def client(self) -> Client:
        """A client that has been greeted."""
        client = await self.connect()
        await client.greet()
        return client

    def later(self, seconds: float) -> None:
        """Time passes, and the deadlines are looked at."""
        self.clock.advance(seconds)
        self.doors.check()

    async def until(self, condition: Callable[[], object]) -> None:
        """Lets the loop turn until something has come about."""
        end_s = asyncio.get_running_loop().time() + PATIENCE_S
        while not condition():
            assert asyncio.get_running_loop().time() < end_s, "it never came about"
            await asyncio.sleep(0)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.event_lines]


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The server's own loop: its transports differ from the standard library's."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., Awaitable[House]]]:
    """Makes houses with the given limits, open, and takes them down after the test."""
    houses: list[House] = []

    async def make(**more) -> House:
        house = House(**more)
        houses.append(house)
        await house.open()
        return house

    yield make
    for house in houses:
        for client in house.clients:
            client.writer.close()
        await house.doors.close(0)
        await house.until(lambda house=house: not house.doors.connections)
