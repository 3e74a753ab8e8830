"""Sending: pools open connections and begin transactions, whenever something may have become possible."""

from typing import Final

from mta_policies.answers import Answer
from mta_policies.backoff import WAIT_MAX_S
from mta_policies.rehearsal.agenda import Agenda
from mta_policies.rehearsal.fates import Fates, chance
from mta_policies.rehearsal.force import Force
from mta_policies.rehearsal.gates import Gates
from mta_policies.rehearsal.holds import Hold, Holds
from mta_policies.rehearsal.lane import Job
from mta_policies.rehearsal.pools import Connection, Gate, Pool
from mta_policies.rehearsal.recorded import Provider
from mta_policies.rehearsal.traffic import NEVER_S

TURN_S: Final = 5.0  # so long a connection is kept while other sites of the provider wait for its place
OPENING_MAX: Final = 20  # connections that one pool opens at the same time
CONNECTIONS_MAX: Final = 1_000  # of one pool, where no limit is set: more a server does not hold for one site
FAILURES_MAX: Final = 8  # in a row: from then on a site that is known to be down is not tried before it is up

DOWN: Final = "a pause after a connection that failed"


class Sending:
    """Of one rehearsal."""

    def __init__(
        self,
        agenda: Agenda,
        provider: Provider,
        connect_s: float,
        idle_s: float,
    ) -> None:
        """`connect_s`: until a connection can carry its first message; `idle_s`: one without mail is kept so long.
        Set the others before anything is pumped."""
        self._agenda = agenda
        self._provider = provider
        self._connect_s = connect_s
        self._idle_s = idle_s
        self.gates: Gates
        self.holds: Holds
        self.force: Force
        self.fates: Fates

    def pump(self, pool: Pool, granted: Gate | None = None) -> None:
        """Send while it is possible. `granted`: a shared limit has room for one."""
        lane, now_s = pool.lane, self._agenda.now_s
        while lane.waiting:
            if pool.version != self.force.firings.version:
                self.force.feel(pool)
            wait_s, cause = 0.0, ""
            for ask, named in pool.asks:
                asked_s = ask(now_s)
                if asked_s > wait_s:
                    wait_s, cause = asked_s, named
            if wait_s > 0:
                pool.block(cause, now_s)
                self._agenda.wake(pool, wait_s, self.pump)
                return
            connection = self._idle(pool)
            if connection is None:
                self._open(pool, granted)
                return
            stopped = self._stopped(pool.turns, pool, granted) if pool.turns else None
            job = self._next(pool) if stopped is None else None
            if job is None:
                pool.idle.append(connection)
                if stopped is not None:
                    pool.block(stopped.cause, now_s)
                    return
                break
            self._start(pool, connection, job)
            granted = None
        pool.block("", now_s)

    def _stopped(self, gates: list[Gate], pool: Pool, granted: Gate | None) -> Gate | None:
        """The gate at which a pool has to wait."""
        return next((gate for gate in gates if self.gates.stops(gate, pool, granted)), None)

    # mail

    def _next(self, pool: Pool) -> Job | None:
        """The next job that may go; what is over ends, what has to wait for itself is parked."""
        lane, now_s = pool.lane, self._agenda.now_s
        asks_holds = self.holds.has_any or bool(pool.destination.policy.tenant_trees)
        while lane.waiting:
            if asks_holds and (row := lane.first_row) is not None:
                wait_s, longest = _longest(self.holds.find(row.crowd.stream, (), pool), now_s)
                if longest is not None:
                    self.holds.park(longest, lane.pop_row(), pool, wait_s)
                    continue
            job = lane.popleft()
            if self.fates.is_over(job, pool):
                continue
            if asks_holds:
                holds = self.holds.find(job.stream, job.mails, pool)
                wait_s, longest = _longest(holds, now_s)
                if longest is not None:
                    self.holds.park(longest, job, pool, wait_s)
                    continue
                job.holds = tuple(holds)
            return job
        return None

    def _start(self, pool: Pool, connection: Connection, job: Job) -> None:
        """MAIL is said."""
        now_s = self._agenda.now_s
        if now_s >= pool.throughput.next_s:
            pool.throughput.mark(pool.begun, now_s)
        pool.begun += 1
        if pool.meter.has_rate:
            pool.meter.transaction(now_s)
        for gate in pool.turns:
            gate.level.meter.transaction(now_s)
        for counter in pool.counters:
            counter.take(now_s)
        for hold in job.holds:
            hold.begin(now_s)
        connection.job = job
        connection.messages += 1
        connection.recipients += len(job.mails)
        pool.tally.transactions += 1
        self._agenda.at(now_s + pool.delivery_s, self._done, connection)

    def _done(self, connection: Connection) -> None:
        """A transaction ended."""
        pool, job = connection.pool, connection.job
        assert job is not None, "it was started"
        connection.job = None
        for hold in job.holds:
            hold.end()
        is_useless = self.fates.settle(connection, job)
        limits = pool.limits
        if (
            is_useless
            or 0 < limits.messages_per_connection <= connection.messages
            or 0 < limits.recipients_per_connection <= connection.recipients
            or self._is_too_many(connection)
            or self._is_wanted(connection)
        ):
            self.leave(connection)
        else:
            connection.idle_s = self._agenda.now_s
            pool.idle.append(connection)
        for hold in job.holds:
            if hold.parked:
                self.holds.release(hold)
        self.pump(pool)
        self._lend(connection)

    # connections

    def _idle(self, pool: Pool) -> Connection | None:
        """A connection that can carry a message; those that were idle too long have left meanwhile."""
        while pool.idle:
            connection = pool.idle.pop()
            for level in connection.told:
                level.idle.pop(connection, None)
            if self._agenda.now_s - connection.idle_s <= self._idle_s and not self._is_too_many(connection):
                return connection
            self.leave(connection)
        return None

    def _open(self, pool: Pool, granted: Gate | None) -> None:
        """Open as many connections as there is mail for and limits allow; say what stops it."""
        now_s, cause = self._agenda.now_s, ""
        while pool.opening < min(pool.lane.waiting, OPENING_MAX):
            wait_s, cause = max(pool.site.backoff.wait_s(now_s), pool.backoff.wait_s(now_s)), DOWN
            if wait_s <= 0:
                is_full = len(pool.connections) >= CONNECTIONS_MAX
                wait_s = NEVER_S if is_full else pool.meter.connection_wait_s(now_s)
                cause = "limits.connections" if wait_s == NEVER_S else "limits.connection_rate"
            if wait_s > 0:
                self._agenda.wake(pool, wait_s, self.pump)
                break
            stopped = self._stopped(pool.doors, pool, granted)
            if stopped is not None:
                cause = stopped.cause
                break
            self._begin(pool)
            granted, cause = None, ""
        pool.block(cause, now_s)

    def _begin(self, pool: Pool) -> None:
        now_s = self._agenda.now_s
        connection = Connection(pool, pool.levels, now_s)
        pool.connections[connection] = None
        pool.opening += 1
        pool.meter.opened(now_s)
        for level in connection.told:
            level.meter.opened(now_s)
        for level in pool.restraints:
            if level.restraint is not None and (change := level.restraint.opened(now_s)) is not None:
                self.force.made((change,), pool.tally)
        pool.site.backoff.begin(connection)
        pool.backoff.begin(connection)
        pool.tally.connections += 1
        self._agenda.at(now_s + self._connect_s, self._ready, connection)

    def _ready(self, connection: Connection) -> None:
        """It can carry mail, or it failed."""
        pool, now_s = connection.pool, self._agenda.now_s
        pool.opening -= 1
        answer = self._provider.opened(pool.stream, now_s)
        if answer is not None:
            self._failed(connection, answer)
            return
        connection.ready_s = connection.idle_s = now_s
        pool.idle.append(connection)
        self.pump(pool)
        self._lend(connection)

    def _failed(self, connection: Connection, answer: Answer) -> None:
        """A connection could not be opened: the site, or this source there, is left alone for a while."""
        pool, now_s = connection.pool, self._agenda.now_s
        health = pool.site.backoff if answer.stage in ("dns", "connect") else pool.backoff
        self._gone(connection)
        pool.tally.failures += health.failed(now_s, chance(len(pool.site.name), health.failures), connection.begun_s)
        self.fates.judged(pool, None, answer, [])
        if health.failures >= FAILURES_MAX:
            until_s = self._provider.down_until_s(pool.stream, now_s)
            if until_s > now_s + WAIT_MAX_S:
                pool.tally.failures += int((until_s - now_s) / WAIT_MAX_S) if until_s != NEVER_S else 0
                health.until_s = until_s
        self._pump_site(pool)

    def leave(self, connection: Connection) -> None:
        """QUIT, on one that is not among the pool's idle ones any more."""
        pool = connection.pool
        self._provider.closed(pool.stream, self._agenda.now_s)
        self._gone(connection)
        if pool.lane.waiting:
            self._agenda.at(self._agenda.now_s, self.pump, pool)

    def _gone(self, connection: Connection) -> None:
        """Its place is free."""
        pool = connection.pool
        del pool.connections[connection]
        pool.meter.closed()
        for level in connection.told:
            level.meter.closed()
            level.idle.pop(connection, None)
            if level.doors.waiting:
                self._agenda.at(self._agenda.now_s, self.gates.wake, level.doors)
        if pool.site.backoff.end(connection) | pool.backoff.end(connection):
            self._agenda.at(self._agenda.now_s, self._pump_site, pool)

    def _pump_site(self, pool: Pool) -> None:
        """For a pool and those beside it something became possible."""
        for each in list(pool.site.pools.values()):
            self.pump(each)

    @staticmethod
    def _is_too_many(connection: Connection) -> bool:
        """There are more connections than may be: a firing lowered a limit."""
        if not connection.pool.restraints:
            return False
        meter = connection.pool.meter
        return meter.connections_open > meter.connections_max or any(level.over for level in connection.told)

    def _is_wanted(self, connection: Connection) -> bool:
        """Another pool's mail waits for its place, and it had its turn."""
        now_s = self._agenda.now_s
        for level in connection.told:
            waiting = level.doors.waiting
            if not waiting or now_s - connection.ready_s < TURN_S or len(waiting) == (connection.pool in waiting):
                continue
            if level.doors.ask(now_s) == NEVER_S:
                waiting.pop(connection.pool, None)  # behind those whom it makes room for
                return True
        return False

    def _lend(self, connection: Connection) -> None:
        """An idle connection without mail makes room for another site's, now or when some comes."""
        pool = connection.pool
        if connection.job is not None or connection not in pool.connections or pool.lane.waiting:
            return
        is_wanted = pool.site.backoff.is_probe(connection) or pool.backoff.is_probe(connection)
        for level in connection.told:
            if level.doors.waiting:
                is_wanted = True
        if is_wanted:
            pool.idle.remove(connection)
            self.leave(connection)
            return
        for level in connection.told:
            level.idle[connection] = None


def _longest(holds: list[Hold], now_s: float) -> tuple[float, Hold | None]:
    """How long they keep a message, and which of them longest; None: it may go."""
    wait_s, longest = 0.0, None
    for hold in holds:
        if (hold_s := hold.wait_s(now_s)) > wait_s:
            wait_s, longest = hold_s, hold
    return wait_s, longest
