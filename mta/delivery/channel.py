"""A channel: one connection as its pool knows it, with the job that is on it."""

from typing import TYPE_CHECKING

from mta.delivery.connection import Connection, Target
from mta.delivery.job import Job
from mta.model.dates import date_header
from mta.model.outcome import Outcome, Reply
from mta.reporting.events import Way
from mta.smtp.client import Outgoing, TlsMode
from mta_policies.engine import Counts

if TYPE_CHECKING:
    from mta.delivery.pool import Pool


class Channel:
    """Owns one connection, from the attempt to connect until it is closed."""

    __slots__ = (
        "_connection",
        "_has_quit",
        "_pool",
        "begun_s",
        "begun_wall_s",
        "counts",
        "idle_since_s",
        "is_leaving",
        "is_lent",
        "is_opening",
        "job",
        "messages",
        "ready_s",
        "recipients",
        "target",
        "tls_mode",
        "way",
    )

    def __init__(self, pool: "Pool", target: Target, tls_mode: TlsMode, now_s: float) -> None:
        engine = pool.site.destination.engine
        self._pool = pool
        self.target = target
        self.tls_mode: TlsMode = tls_mode
        self.job: Job | None = None
        self.messages = 0
        """Transactions begun, the one under way included."""
        self.recipients = 0
        self.begun_wall_s = engine.clock.wall_s()
        """Unix seconds; not reckoned from the next: the loop's time stands still while it works."""
        self.begun_s = now_s
        """Monotonic seconds, as the two below."""
        self.ready_s = 0.0
        self.idle_since_s = 0.0
        self.is_opening = True
        """Nobody knows yet whether it will be ready."""
        self.is_leaving = False
        """It takes no further job."""
        self.is_lent = False
        """It has nothing to do, and gates were told."""
        self.counts: Counts | None = None
        """What deliveries on it count for, as the rules are."""
        self._has_quit = False
        self.way = Way()
        self._connection = Connection(
            engine.loop, target, pool.source, tls_mode, self, engine.sweeper, engine.tls, engine.timeouts
        )

    def open(self) -> None:
        """Connect and greet; the pool hears `ready`, `not_opened` or only `gone`."""
        self._connection.open()

    def send(self, job: Job) -> None:
        """Begin a transaction; its content is in memory."""
        envelope, content = job.envelope, job.content
        assert envelope is not None, "a job that is sent is in memory"
        assert content is not None, "a job that is sent is in memory"
        if envelope.date_missing:
            # When it became due, so that every recipient and every attempt has the same.
            content = date_header(job.accepted_s) + content
        signature = job.signature
        if signature is not None and signature.fields:
            content = signature.fields + content
        parts, recipients = job.parts, envelope.recipients
        addresses = [recipients[parts[0]].address] if len(parts) == 1 else [recipients[part].address for part in parts]
        outgoing = Outgoing(envelope.sender, addresses, content, len(content), envelope.body_8bit, envelope.smtputf8)
        self.job = job
        self.messages += 1
        self.recipients += len(parts)
        self._connection.send(outgoing)

    def leave(self) -> None:
        """Say goodbye now, or after the transaction that is under way."""
        if not self.is_leaving:
            self.is_leaving = True
            self._pool.leaving(self)
        if self.job is None and not self._has_quit:
            self._has_quit = True
            self._connection.quit()

    def abort(self) -> None:
        """Break off at once; what is in flight ends as the dialogue says."""
        self._connection.abort()

    # the connection's owner

    def connection_ready(self, connection: Connection) -> None:
        """Greeted, encrypted as wanted: messages may go."""
        pool = self._pool
        self.way = Way(
            site=pool.site.name,
            policy=pool.site.destination.policy.name,
            source=connection.source.name,
            source_address=connection.local_address,
            host=self.target.host,
            address=self.target.address,
            tls=f"{connection.tls_version} {connection.tls_cipher}".strip(),
        )
        self.is_opening = False
        if pool.limits.message_size_max:
            connection.limit_size(pool.limits.message_size_max)
        pool.ready(self)

    def connection_failed(self, connection: Connection, stage: str, reply: Reply, from_peer: bool) -> None:
        """It never became ready."""
        self._closes()
        if self.is_opening:
            self.is_opening = False
            self._pool.opener.not_opened(self, stage, reply, from_peer)

    def transaction_done(self, connection: Connection, outcomes: list[Outcome], usable: bool) -> None:
        """Every recipient has its outcome."""
        job, self.job = self.job, None
        if not usable:
            self._closes()
        if job is not None:  # else it was set aside while it was being sent
            self._pool.done(self, job, outcomes)

    def connection_lost_idle(self, connection: Connection) -> None:
        """The peer hung up while nothing was under way."""
        self._closes()

    def connection_gone(self, connection: Connection) -> None:
        """It does not count any more."""
        self._closes()
        self._pool.gone(self)

    def _closes(self) -> None:
        """It is closing by itself."""
        self._has_quit = True
        if not self.is_leaving:
            self.is_leaving = True
            self._pool.leaving(self)
