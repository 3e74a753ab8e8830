"""A channel: one connection as its pool knows it, with the job that is on it."""

import asyncio
from typing import TYPE_CHECKING, Literal

from mta.delivery.connection import Connection, Target
from mta.delivery.job import Job
from mta.model.dates import date_header
from mta.model.outcome import Outcome, Reply
from mta.reporting.events import Way
from mta.smtp.client import Outgoing

if TYPE_CHECKING:
    from mta.delivery.pool import Pool

TlsMode = Literal["none", "opportunistic", "required", "verify"]


class Channel:
    """Owns one connection, from the attempt to connect until it is closed."""

    __slots__ = (
        "_connection",
        "_opened",
        "_pool",
        "idle_since_s",
        "is_leaving",
        "job",
        "messages",
        "recipients",
        "target",
        "tls_mode",
        "way",
    )

    def __init__(self, pool: "Pool", target: Target, tls_mode: TlsMode) -> None:
        engine = pool.site.destination.engine
        self._pool = pool
        self.target = target
        self.tls_mode: TlsMode = tls_mode
        self._opened: asyncio.Future[tuple[str, Reply] | None] = engine.loop.create_future()
        self.job: Job | None = None
        self.messages = 0
        self.recipients = 0
        self.idle_since_s = 0.0
        self.is_leaving = False
        self.way = Way()
        self._connection = Connection(
            engine.loop, target, pool.source, tls_mode, self, engine.sweeper, engine.tls, engine.timeouts
        )

    async def open(self) -> tuple[str, Reply] | None:
        """Connect and greet; None: ready, else (stage, reply) of what went wrong."""
        self._connection.open()
        return await self._opened

    def send(self, job: Job) -> None:
        """Begin a transaction; its content is in memory."""
        envelope, content = job.envelope, job.content
        assert envelope is not None, "a job that is sent is in memory"
        assert content is not None, "a job that is sent is in memory"
        if envelope.date_missing:
            content = date_header(self._pool.site.destination.engine.clock.wall_s()) + content
        self.job = job
        self.messages += 1
        parts, recipients = job.parts, envelope.recipients
        self.recipients += len(parts)
        addresses = [recipients[parts[0]].address] if len(parts) == 1 else [recipients[part].address for part in parts]
        self._connection.send(
            Outgoing(envelope.sender, addresses, content, len(content), envelope.body_8bit, envelope.smtputf8)
        )

    def leave(self) -> None:
        """Say goodbye now, or after the transaction that is under way."""
        if self.is_leaving and self.job is None:
            return
        self.is_leaving = True
        if self.job is None:
            self._pool.drop_idle(self)
            self._connection.quit()

    def quit(self) -> None:
        """A gate needs this idle connection's place."""
        self.leave()

    def abort(self) -> None:
        """Break off at once; what is in flight ends as the dialogue says."""
        self._connection.abort()

    # the connection's owner

    def connection_ready(self, connection: Connection) -> None:
        """Greeted, encrypted as wanted: messages may go."""
        site = self._pool.site
        address = connection.local_address
        tls = f"{connection.tls_version} {connection.tls_cipher}".strip()
        self.way = Way(
            site=site.name,
            policy=site.destination.policy.name,
            pool="",
            source=self._pool.source.name,
            source_address=address,
            host=self.target.host,
            address=self.target.address,
            tls=tls,
        )
        if not self._opened.done():
            self._opened.set_result(None)

    def connection_failed(self, connection: Connection, stage: str, reply: Reply, from_peer: bool) -> None:
        """It never became ready."""
        if not self._opened.done():
            self._opened.set_result((stage, reply))

    def transaction_done(self, connection: Connection, outcomes: list[Outcome], usable: bool) -> None:
        """Every recipient has its outcome."""
        job, self.job = self.job, None
        assert job is not None, "a transaction has a job"
        self._pool.done(self, job, outcomes, usable)

    def connection_lost_idle(self, connection: Connection) -> None:
        """The peer hung up while nothing was under way."""
        self.is_leaving = True
        self._pool.drop_idle(self)

    def connection_gone(self, connection: Connection) -> None:
        """It does not count any more."""
        self.is_leaving = True
        if not self._opened.done():
            self._opened.set_result(("connect", Reply(451, "4.4.1", "connection lost")))
        self._pool.gone(self)
