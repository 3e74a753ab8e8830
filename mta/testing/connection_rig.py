"""A rig for connections: an owner that writes down what it hears, and time that passes by hand.

owner = RecordingOwner(mail("b@x"))
async with ScriptedPeer([*hello("PIPELINING"), *accept(), *goodbye()]) as peer:
    ConnectionRig().connect(peer, owner)
    await owner.heard("gone")
assert owner.told == ["ready", "done", "gone"]
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from mta.delivery.connection import Connection, SourceAddress, Target
from mta.delivery.deadlines import Sweeper, Timeouts
from mta.delivery.tls import TlsContexts
from mta.model.outcome import Outcome, Reply
from mta.smtp.client import TlsMode
from mta.smtp.outgoing import Outgoing
from mta.testing.fake_clock import FakeClock
from mta.testing.scripted_peer import ScriptedPeer

SMALL_CONTENT = b"Subject: hi\r\n\r\n.hello\r\n"
HANG_S = 60.0  # a test that waits longer has failed
TIMEOUTS = Timeouts(  # no two alike, so that a deadline tells which it is
    connect_s=30, greeting_s=301, ehlo_s=302, starttls_s=121, handshake_s=61, mail_s=303, rcpt_s=304, data_s=122,
    content_block_s=181, content_end_s=601, quit_s=5,
)  # fmt: skip
HERE = SourceAddress("here", "", "", "me.example")


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test of sockets runs on the server's loop and on the standard library's."""

    def runs(run: Callable[..., None], **arguments: object) -> None:
        run(test(**arguments))

    own = inspect.signature(test)
    run = inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    runs.__name__, runs.__doc__, runs.__module__ = test.__name__, test.__doc__, test.__module__
    runs.__dict__.update(test.__dict__)
    runs.__dict__["__signature__"] = own.replace(parameters=[run, *own.parameters.values()], return_annotation=None)
    return pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])(runs)


def mail(*recipients: str, content: bytes = SMALL_CONTENT) -> Outgoing:
    """A message with this content; without recipients it is for one."""
    return Outgoing("a@me.example", recipients or ("b@x",), content, len(content))


class RecordingOwner:
    """Writes down what it hears; sends what it was given, then says QUIT or waits."""

    def __init__(self, *messages: Outgoing, quits: bool = True) -> None:
        self.messages = list(messages)
        self.quits = quits
        self.told: list[str] = []
        self.outcomes: list[list[Outcome]] = []
        self.failure: tuple[str, Reply, bool] | None = None
        self.usable: list[bool] = []
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    def connection_ready(self, connection: Connection) -> None:
        self._tell("ready")
        self._go_on(connection)

    def transaction_done(self, connection: Connection, outcomes: list[Outcome], usable: bool) -> None:
        self.outcomes.append(outcomes)
        self.usable.append(usable)
        self._tell("done")
        if usable:
            self._go_on(connection)

    def connection_failed(self, connection: Connection, stage: str, reply: Reply, from_peer: bool) -> None:
        self.failure = (stage, reply, from_peer)
        self._tell("failed")

    def connection_lost_idle(self, connection: Connection) -> None:
        self._tell("lost")

    def connection_gone(self, connection: Connection) -> None:
        self._tell("gone")

    def _go_on(self, connection: Connection) -> None:
        if self.messages:
            connection.send(self.messages.pop(0))
        elif self.quits:
            connection.quit()

    def _tell(self, what: str) -> None:
        self.told.append(what)
        for waited_for, future in self._waiting:
            if waited_for == what and not future.done():
                future.set_result(None)

    async def heard(self, what: str) -> None:
        """Waits until it has been told."""
        if what not in self.told:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((what, future))
            async with asyncio.timeout(HANG_S):
                await future
        if what == "gone":
            await asyncio.sleep(0)  # whatever might wrongly follow has its chance


class ConnectionRig:
    """What a worker would give its connections; time passes by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sweeper = Sweeper(self.clock)
        self.tls = TlsContexts()

    def connect(
        self, peer: ScriptedPeer | Target, owner: RecordingOwner, *, source: SourceAddress = HERE, tls: TlsMode = "none"
    ) -> Connection:
        """A connection that has begun to connect. The peer's name is mx.peer.example."""
        target = peer if isinstance(peer, Target) else Target("mx.peer.example", peer.address, peer.port)
        loop = asyncio.get_running_loop()
        connection = Connection(loop, target, source, tls, owner, self.sweeper, self.tls, TIMEOUTS)
        connection.open()
        return connection

    def pass_time(self, seconds: float) -> None:
        """With a sweep at the end."""
        self.clock.advance(seconds)
        self.sweeper.sweep()


async def until(happened: Callable[[], bool]) -> None:
    """Lets the loop turn until it has happened."""
    async with asyncio.timeout(HANG_S):
        while not happened():  # noqa: ASYNC110  # what is waited for is a state of the peer or the kernel, not an event
            await asyncio.sleep(0)
