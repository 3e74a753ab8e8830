"""Fates: what the answers of a rehearsal mean for each recipient, and when what was put off comes again."""

from collections.abc import Callable, Iterable
from typing import Final

from mta_policies.answers import Answer
from mta_policies.bounces import classify
from mta_policies.rehearsal.agenda import Agenda
from mta_policies.rehearsal.force import Force
from mta_policies.rehearsal.lane import Job
from mta_policies.rehearsal.pools import Connection, Pool
from mta_policies.rehearsal.recorded import Provider
from mta_policies.rehearsal.tally import SIZE, Tally
from mta_policies.rehearsal.traffic import Mail
from mta_policies.rehearsal.ways import Way, Ways
from mta_policies.restraint import Restraint
from mta_policies.retry import expires_s, next_attempt_s

TOO_LARGE: Final = Answer(552, "5.3.4", "Message is larger than the policy allows", "local", "", False)

BEFORE_CONNECTIONS: Final = frozenset({"dns", "local"})
"""Stages at which mail is refused for good without any connection."""


class Fates:
    """Of one rehearsal."""

    def __init__(
        self, agenda: Agenda, ways: Ways, force: Force, provider: Provider, pump: Callable[[Pool], None]
    ) -> None:
        """`pump`: a pool has mail again."""
        self._agenda = agenda
        self._ways = ways
        self._force = force
        self._provider = provider
        self._pump = pump
        self._again: dict[Job, Pool] = {}

    # before it goes out

    def ends_early(self, mail: Mail, way: Way) -> bool:
        """What never comes to a connection: too large by the policy, or refused in the record before there was one."""
        if way.pool.is_too_large(mail.size, way.subject.tenant):
            self.refuse(way.pool, way.tally, mail.due_s, 1)
            return True
        if mail.ended != "bounced":
            return False
        answer = mail.said[-1].answer
        if answer.stage not in BEFORE_CONNECTIONS or (answer.code, answer.enhanced) == TOO_LARGE[:2]:
            return False
        way.tally.bounce(mail.due_s, is_attempt=False)
        way.tally.classed(mail.said[-1].category)
        return True

    @staticmethod
    def refuse(pool: Pool, tally: Tally, at_s: float, count: int) -> None:
        """So many recipients whose message is too large."""
        tally.bounce(at_s, count, is_attempt=False)
        tally.classed(classify(TOO_LARGE).name, count)
        if pool.policy_limits.message_size_max:
            tally.bound(SIZE, 0.0, pool.where)

    def is_over(self, job: Job, pool: Pool) -> bool:
        """Ends recipients that expired or were cancelled by now. -> nobody is left."""
        now_s = self._agenda.now_s
        expire_s = pool.retry_for(job.mails[0].stream.subject.tenant).expire_s
        for mail in job.mails:
            if now_s >= mail.accepted_s + expire_s or (mail.ended == "cancelled" and now_s >= mail.ended_s):
                return self._end(job, pool, now_s)
        return False

    def _end(self, job: Job, pool: Pool, until_s: float) -> bool:
        """The same, told as of its own time."""
        retry = pool.retry_for(job.mails[0].stream.subject.tenant)
        left = []
        for mail in job.mails:
            tally = self._ways.tally(mail)
            over_s = max(mail.due_s, expires_s(retry, mail.accepted_s))
            if mail.ended == "cancelled" and mail.ended_s <= min(over_s, until_s):
                tally.cancel(max(mail.due_s, mail.ended_s))
            elif over_s <= until_s:
                tally.expire(over_s)
            else:
                left.append(mail)
        job.mails = left or job.mails
        return not left

    def close(self, left: Iterable[tuple[Job, Pool]], until_s: float) -> None:
        """Nothing more goes out: what is left expires, or waits beyond `until_s`."""
        for job, pool in (*left, *self._again.items()):
            self._end(job, pool, until_s)

    # after a transaction

    def settle(self, connection: Connection, job: Job) -> bool:
        """The fates of a job's recipients. -> the connection is of no more use."""
        now_s, provider = self._agenda.now_s, self._provider
        job.first_s = job.first_s or now_s
        if len(job.mails) == 1:  # as most are
            mail = job.mails[0]
            answer = provider.answer(mail, job.first_s, now_s)
            if answer is None:
                self._ways.of(mail.stream).tally.deliver(now_s, now_s - mail.due_s)
                self._delivered(connection, job, mail)
                self._answered(connection)
                return False
            self._refused(connection.pool, job, answer, job.mails)
            return self._is_trouble(connection, (answer,), is_well=False)
        alike: dict[Answer, list[Mail]] = {}
        delivered: Mail | None = None
        for mail in job.mails:
            answer = provider.answer(mail, job.first_s, now_s)
            if answer is None:
                delivered = mail
                self._ways.tally(mail).deliver(now_s, now_s - mail.due_s)
            else:
                alike.setdefault(answer, []).append(mail)
        if delivered is not None:
            self._delivered(connection, job, delivered)
        for answer, mails in alike.items():
            for about in [[mail] for mail in mails] if answer.stage == "rcpt" else [mails]:
                self._refused(connection.pool, job, answer, about)
        return self._is_trouble(connection, alike, is_well=delivered is not None)

    def _delivered(self, connection: Connection, job: Job, mail: Mail) -> None:
        """A message was taken: who counts that is told."""
        pool, now_s = connection.pool, self._agenda.now_s
        judge = pool.destination.judge
        if judge.listens:
            self._force.made(judge.delivered(self._ways.subject(mail), now_s), pool.tally)
        if not (pool.restraints or job.holds):
            return
        for restraint in _restraints(pool, job):
            if restraint.listens and (change := restraint.delivered(now_s, connection.begun_s)) is not None:
                self._force.made((change,), pool.tally)

    def _refused(self, pool: Pool, job: Job, answer: Answer, mails: list[Mail]) -> None:
        """An answer that is not "delivered", about these recipients."""
        now_s, first = self._agenda.now_s, mails[0]
        disposition, after_s = self.judged(pool, job, answer, mails)
        if disposition == "bounce" or (answer.code >= 500 and disposition != "defer"):
            for mail in mails:
                self._ways.tally(mail).bounce(now_s)
            return
        for mail in mails:
            self._ways.tally(mail).defer(now_s)
        again = Job(mails, job.attempts + 1, job.first_s)
        retry = pool.retry_for(first.stream.subject.tenant)
        if after_s:
            due_s = now_s + after_s
        else:
            due_s = next_attempt_s(retry, again.attempts, now_s, chance(first.message, again.attempts))
        self._again[again] = pool
        self._agenda.at(min(due_s, expires_s(retry, first.accepted_s)), self._come_again, again)

    def _come_again(self, job: Job) -> None:
        pool = self._again.pop(job)
        pool.lane.append(job)
        if not pool.cause:
            self._pump(pool)

    def judged(self, pool: Pool, job: Job | None, answer: Answer, mails: list[Mail]) -> tuple[str, float]:
        """What rules make of an answer: about these recipients, or where there are none about a connection.
        -> its disposition, and after how many seconds it comes again."""
        now_s = self._agenda.now_s
        tally: Tally = self._ways.tally(mails[0]) if mails else pool.tally
        subject = self._ways.subject(mails[0]) if mails else pool.subject
        verdict = pool.destination.judge.judge(answer, subject, now_s, lambda: pool.throughput.per_s(pool.begun, now_s))
        for mail in mails:
            self._ways.tally(mail).classed(verdict.category)
        if verdict.rule:
            count = tally.matched(verdict.rule, now_s, pool.where.policy)
            count.firings += sum(change.what == "fired" for change in verdict.changes)
            for restraint in _restraints(pool, job):
                if restraint.firing.rule == verdict.rule and (change := restraint.refused(now_s)) is not None:
                    self._force.made((change,), pool.tally)
        if verdict.changes:
            self._force.made(verdict.changes, tally)
        return verdict.disposition, verdict.after_s

    # what it says of the peer's health

    def _answered(self, connection: Connection) -> None:
        """The peer is well: others may go on."""
        pool = connection.pool
        if (pool.site.backoff.failures or pool.backoff.failures) and (
            pool.site.backoff.answered(connection.begun_s) | pool.backoff.answered(connection.begun_s)
        ):
            for other in pool.site.pools.values():
                self._agenda.at(self._agenda.now_s, self._pump, other)

    def _is_trouble(self, connection: Connection, answers: Iterable[Answer], *, is_well: bool) -> bool:
        """As in delivery: an answer about the message is well; 421, or a connection lost with its first message, is
        not, and the connection is over. -> it is of no more use."""
        pool = connection.pool
        is_gone = is_ill = False
        for answer in answers:
            if answer.from_peer and answer.code != 421:
                is_well = True
            else:
                is_gone = True
                is_ill = is_ill or answer.from_peer or connection.messages == 1
        if is_well:
            self._answered(connection)
        elif is_ill:
            unit = chance(len(pool.site.name), pool.backoff.failures)
            pool.backoff.failed(self._agenda.now_s, unit, connection.begun_s)
        return is_gone


def _restraints(pool: Pool, job: Job | None) -> list[Restraint]:
    """Of firings, that hold for a pool and a job in it."""
    found = [level.restraint for level in pool.restraints if level.restraint is not None]
    if job is not None and job.holds:
        found += [hold.restraint for hold in job.holds if hold.restraint is not None]
    return found


def chance(what: int, time: int) -> float:
    """A chance from 0 to 1 (1 not included), the same in every run: two runs differ by their policies alone."""
    mixed = (what * 0x9E3779B97F4A7C15 + time * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ (mixed >> 31)) / 2.0**64
