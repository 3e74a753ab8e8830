"""Fates: what an attempt's outcome means for each recipient, written to the queue and told in the event log."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import msgspec

from mta.delivery.connection import SourceAddress
from mta.delivery.job import ENDING, Job
from mta.delivery.judging import AT_ONCE, verdict_of
from mta.delivery.notices import GivenUp, Notifier
from mta.delivery.pool import Pool
from mta.delivery.sites import Site
from mta.handoff.notices import Notices
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta.model.outcome import COUNTED_STAGES, Bounced, Deferred, Delivered, Outcome, Reply
from mta.reporting.events import NO_WAY, Events, Fate, FateKind, Way, encode_note, encode_notes
from mta.reporting.worker_counts import PolicyCounts
from mta_policies.engine import Verdict
from mta_policies.retry import next_attempt_s
from mta_policies.schema import Retry
from mta_queue.store import Store

EXPIRED = Reply(554, "5.4.7", "Could not be delivered before it expired")
CANCELLED_CODE, CANCELLED_ENHANCED = 554, "5.0.0"
BOUNCED_AT_ONCE = 1_000  # jobs that are given up in one turn of the loop: some ten milliseconds


class Plan(Protocol):
    """Where fates put what is tried again, and what they count."""

    def later(self, due_s: float, seq: int, parts: Sequence[int]) -> None:
        """Try these parts again then (Unix seconds)."""
        ...

    def split(self, job: Job, parts: Sequence[int]) -> Job:
        """Some recipients of a job as a job of their own; the job itself goes on with the others, or ends."""
        ...

    def ended(self, job: Job) -> None:
        """A job left memory."""
        ...

    def set_aside(self, job: Job, error: Exception) -> None:
        """An error of ours stopped a job."""
        ...

    def soon(self, call: Callable[[], None]) -> None:
        """Go on with this in the next turn of the loop."""
        ...

    def tally(self, policy: str) -> PolicyCounts:
        """The counters of a policy; "": it is not known which."""
        ...


class Fates:
    """Decides, records, tells."""

    def __init__(
        self,
        store: Store,
        events: Events,
        plan: Plan,
        clock: Clock,
        random: Random,
        *,
        wants_dsn: Callable[[Envelope], bool],
        hostname: str,
    ) -> None:
        """`wants_dsn`: whether the sender of a message is told of recipients that are given up; `hostname`: who says
        so."""
        self._store = store
        self._events = events
        self._plan = plan
        self._clock = clock
        self._random = random
        self._notifier = Notifier(store, clock, self, wants_dsn=wants_dsn, hostname=hostname)
        self.delivered = 0
        """Recipients, as all of these but the last."""
        self.deferred = 0
        self.bounced = 0
        self.expired = 0
        self.cancelled = 0
        self.uncertain = 0
        self.dsn = 0
        """Notifications to senders."""
        self.after_crash = 0
        """Recipients tried again whose earlier delivery was perhaps under way when the server died."""
        self._found_before = 0
        self._found_s = 0.0

    def start(self, notices: Notices) -> None:
        """From now on senders can be told."""
        self._notifier.notices = notices

    def crashed(self, found_before: int, now_s: float) -> None:
        """The server died before this start: items with a lower seq that are due now (Unix seconds) were perhaps on
        their way, and what becomes of them next is told as `after_crash`."""
        self._found_before = found_before
        self._found_s = now_s

    @property
    def wants_dsn(self) -> Callable[[Envelope], bool]:
        """See the constructor; a reload sets it anew."""
        return self._notifier.wants_dsn

    @wants_dsn.setter
    def wants_dsn(self, wants: Callable[[Envelope], bool]) -> None:
        self._notifier.wants_dsn = wants

    @property
    def ending(self) -> int:
        """Jobs whose end is being written down, with a notification before it."""
        return self._notifier.ending

    # after a transaction

    def settle(self, pool: Pool, job: Job, outcomes: Sequence[Outcome], way: Way, was_used: bool) -> None:
        """A transaction ended with one outcome for every recipient of the job; `was_used`: it was not the first of its
        connection."""
        after_crash = job.seq < self._found_before and self._was_due(job)
        if len(outcomes) == 1:
            outcome = outcomes[0]
            if type(outcome) is Delivered:
                self._delivered(pool, job, job.parts, outcome, way, after_crash)
                self._plan.ended(job)
                return
        again: list[int] = []
        given_up: list[GivenUp] = []
        is_next = True
        judged = pool.site.destination.judging.judged(pool, job, outcomes, way, self._envelope(job))
        for outcome, parts, verdict in judged:
            if isinstance(outcome, Delivered):
                self._delivered(pool, job, parts, outcome, way, after_crash)
            elif verdict is AT_ONCE:
                again += parts
            elif isinstance(outcome, Bounced):
                given_up.append(GivenUp(parts, self._bounced(job, outcome, way, verdict, after_crash)))
            elif (is_attempt := _is_attempt(outcome, was_used)) or verdict.after_s:
                self._put_off(pool, job, parts, outcome, way, verdict, is_attempt, after_crash)
            else:
                self._tell_deferred(job, parts, outcome, way, verdict)
                again += parts
                is_next = was_used  # on a new connection another message may have better luck
        self._go_on(pool, job, again, is_next, given_up)

    def _go_on(self, pool: Pool, job: Job, again: Sequence[int], is_next: bool, given_up: Sequence[GivenUp]) -> None:
        """What becomes of the job when the others of its recipients have their fates."""
        count = len(job.parts)
        ending = rest = None
        if given_up:
            parts = [part for each in given_up for part in each.parts]
            ending = job if len(parts) == count else self._plan.split(job, parts)
        if again:
            rest = job if len(again) == count else self._plan.split(job, again)
        if job not in (ending, rest):
            self._plan.ended(job)
        if ending is not None:
            self._end(ending, given_up)
        if rest is not None:
            pool.take_back(rest, is_next)

    def _was_due(self, job: Job) -> bool:
        """Nothing has become of it since the start, and its time had come then: it may have been on its way."""
        found_s, parts = self._found_s, job.parts
        if not any(due_s <= found_s and part in parts for part, due_s in self._store.dues(job.seq)):
            return False
        self.after_crash += len(parts)
        return True

    def _delivered(
        self, pool: Pool, job: Job, parts: Sequence[int], outcome: Delivered, way: Way, after_crash: bool
    ) -> None:
        signature = job.signature
        fate = Fate(
            "delivered",
            self._clock.wall_s(),
            outcome.reply,
            outcome.stage,
            job.attempts + 1,
            0.0,
            way,
            False,
            "",
            signature.domains if signature is not None else "",
            after_crash=after_crash,
        )
        count = len(parts)
        self.delivered += count
        pool.site.destination.tally.delivered += count
        envelope = job.envelope or self._envelope(job)  # before it is finished: a dead item cannot be read any more
        self._store.finish(job.seq, parts, encode_note(fate))
        if envelope is not None:
            for part in parts:
                self._events.fate(envelope, envelope.recipients[part], fate)

    def _bounced(self, job: Job, outcome: Bounced, way: Way, verdict: Verdict, after_crash: bool) -> Fate:
        return Fate(
            "bounced",
            self._clock.wall_s(),
            outcome.reply,
            outcome.stage,
            job.attempts + outcome.from_peer,
            way=way,
            category=verdict.category,
            dkim=_signed_by(job),
            from_peer=outcome.from_peer,
            after_crash=after_crash,
            rule=verdict.rule,
            hard=verdict.hard,
        )

    def _put_off(
        self,
        pool: Pool,
        job: Job,
        parts: Sequence[int],
        outcome: Deferred,
        way: Way,
        verdict: Verdict,
        is_attempt: bool,
        after_crash: bool,
    ) -> None:
        pool.site.destination.tally.deferred += len(parts)
        self.uncertain += len(parts) if outcome.uncertain else 0
        retry = pool.retry_for(job.tenant)
        self._postpone(job, parts, outcome, way, retry, job.attempts + is_attempt, verdict, after_crash)

    def _postpone(
        self,
        job: Job,
        parts: Sequence[int],
        outcome: Deferred,
        way: Way,
        retry: Retry,
        attempts: int,
        verdict: Verdict,
        after_crash: bool = False,
    ) -> None:
        now_s = self._clock.wall_s()
        due_s = next_attempt_s(retry, attempts, now_s, self._random.random(), verdict.after_s)
        due_s = min(due_s, max(job.expires_s, now_s))
        signature = job.signature
        fate = Fate(
            "deferred",
            now_s,
            outcome.reply,
            outcome.stage,
            attempts,
            due_s,
            way,
            outcome.uncertain,
            category=verdict.category,
            dkim=_signed_by(job),
            signature=(signature.fields or b"") if signature is not None else b"",
            from_peer=outcome.from_peer,
            after_crash=after_crash,
            rule=verdict.rule,
        )
        self.deferred += len(parts)
        envelope = self._envelope(job)
        self._store.postpone(job.seq, parts, due_s, encode_note(fate))
        self._plan.later(due_s, job.seq, parts)
        if envelope is not None:
            for part in parts:
                self._events.fate(envelope, envelope.recipients[part], fate)

    def _tell_deferred(self, job: Job, parts: Sequence[int], outcome: Deferred, way: Way, verdict: Verdict) -> None:
        """The connection broke before the peer said anything about the message: no attempt, it stays in its lane."""
        fate = Fate(
            "deferred",
            self._clock.wall_s(),
            outcome.reply,
            outcome.stage,
            job.attempts,
            way=way,
            category=verdict.category,
            dkim=_signed_by(job),
            from_peer=outcome.from_peer,
            rule=verdict.rule,
        )
        envelope = self._envelope(job)
        if envelope is not None:
            for part in parts:
                self._events.fate(envelope, envelope.recipients[part], fate)

    # without one

    def tell_delay(
        self,
        job: Job,
        stage: str,
        reply: Reply,
        site: Site | None,
        source: SourceAddress | None,
        wait_s: float,
        verdict: Verdict | None = None,
    ) -> None:
        """One message tells for all that wait behind a site that is down, or a domain that cannot be resolved."""
        envelope = self._envelope(job)
        if envelope is None:
            return
        way = NO_WAY
        if site is not None:
            way = Way(
                site=site.name, policy=site.destination.policy.name, source=source.name if source is not None else ""
            )
        now_s = self._clock.wall_s()
        verdict = verdict or verdict_of(stage, reply)
        category, rule = verdict.category, verdict.rule
        fate = Fate("deferred", now_s, reply, stage, job.attempts, now_s + wait_s, way, category=category, rule=rule)
        for part in job.parts:
            self._events.fate(envelope, envelope.recipients[part], fate)

    def defer_local(self, job: Job, reply: Reply, retry: Retry, way: Way = NO_WAY) -> None:
        """It cannot go for a reason of ours: tried again by the schedule, which it does not use up. The job ends."""
        if job.state >= ENDING:
            return
        self._plan.tally(way.policy).deferred += len(job.parts)
        outcome = Deferred(reply, "local", from_peer=False)
        self._postpone(job, job.parts, outcome, way, retry, job.attempts, verdict_of("local", reply))
        self._plan.ended(job)

    def bounce(self, job: Job, stage: str, reply: Reply, way: Way = NO_WAY) -> None:
        """Never, for all recipients of a job that is in no transaction."""
        self._give_up(job, "bounced", reply, stage, way)

    def bounce_waiting(self, pool: Pool, stage: str, reply: Reply) -> None:
        """Nothing can ever be sent to this site."""
        self.bounce_all(pool.take_jobs(), stage, reply, pool.way, pool.pump)

    def bounce_all(
        self,
        jobs: Sequence[Job],
        stage: str,
        reply: Reply,
        way: Way = NO_WAY,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Never, for jobs that are in no lane any more, in slices; whoever of them has another fate before its turn
        keeps that. `on_end`: they all have one."""
        for job in jobs[:BOUNCED_AT_ONCE]:
            self.bounce(job, stage, reply, way)
        rest = jobs[BOUNCED_AT_ONCE:]
        self._plan.soon((lambda: self.bounce_all(rest, stage, reply, way, on_end)) if rest else on_end)

    def expire(self, job: Job, way: Way = NO_WAY) -> None:
        """Its time is over; `way` as far as it is known where it would have gone."""
        self._give_up(job, "expired", EXPIRED, "local", way)

    def _give_up(self, job: Job, event: FateKind, reply: Reply, stage: str, way: Way) -> None:
        """The job ends now or, where its sender is told, in a moment."""
        if job.state >= ENDING:
            return
        verdict = verdict_of(stage, reply)
        fate = Fate(
            event,
            self._clock.wall_s(),
            reply,
            stage,
            job.attempts,
            way=way,
            category=verdict.category,
            from_peer=False,
            hard=verdict.hard,
        )
        self._end(job, [GivenUp(job.parts, fate)])

    def cancel_parts(
        self, seq: int, parts: Sequence[int], envelope: Envelope, reason: str, attempts: int = 0, category: str = ""
    ) -> None:
        """An admin said so: recorded and told at once, and nobody is notified. Jobs are the caller's business."""
        self._finish(seq, parts, envelope, [GivenUp(parts, self.cancelled_fate(reason, attempts, category))])

    def cancelled_fate(self, reason: str, attempts: int, category: str = "") -> Fate:
        """An admin said so, now."""
        reply = Reply(CANCELLED_CODE, CANCELLED_ENHANCED, reason)
        now_s = self._clock.wall_s()
        return Fate("cancelled", now_s, reply, "local", attempts, category=category, from_peer=False)

    def cancel_job(self, job: Job, given_up: Sequence[GivenUp], on_end: Callable[[bool], None]) -> None:
        """An admin said so, and the sender is told; `on_end` hears whether that was possible. Where it was not, the
        recipients are looked at again a while later as the queue has them."""
        self._notifier.end(job, given_up, on_end)

    def tells(self, envelope: Envelope) -> bool:
        """Whether the sender hears of what is given up."""
        return self._notifier.wants(envelope)

    # the end of a job

    def _end(self, job: Job, given_up: Sequence[GivenUp]) -> None:
        try:
            self._notifier.end(job, given_up)
        except Exception as error:  # noqa: BLE001 - one of many that are given up must not keep the others
            self._plan.set_aside(job, error)

    def record(
        self,
        job: Job,
        envelope: Envelope,
        given_up: Sequence[GivenUp],
        notice: Envelope | None = None,
        on_durable: Callable[[], None] | None = None,
    ) -> None:
        """See `mta.delivery.notices.Recorder`."""
        if notice is None and len(given_up) > 1:
            for each in given_up:
                self._finish(job.seq, each.parts, envelope, [each])
        else:
            parts = [part for each in given_up for part in each.parts]
            self._finish(job.seq, parts, envelope, given_up, notice, on_durable)
        self._plan.ended(job)

    def put_off(self, job: Job, wait_s: float) -> None:
        """See `mta.delivery.notices.Recorder`."""
        self._plan.later(self._clock.wall_s() + wait_s, job.seq, job.parts)
        self._plan.ended(job)

    def lost(self, job: Job) -> None:
        """See `mta.delivery.notices.Recorder`."""
        self._plan.ended(job)

    def failed(self, job: Job, error: Exception) -> None:
        """See `mta.delivery.notices.Recorder`."""
        self._plan.set_aside(job, error)

    def _finish(
        self,
        seq: int,
        parts: Sequence[int],
        envelope: Envelope,
        given_up: Sequence[GivenUp],
        notice: Envelope | None = None,
        on_durable: Callable[[], None] | None = None,
    ) -> None:
        self._store.finish(seq, parts, encode_notes(given_up), on_durable)
        if notice is not None:
            self.dsn += 1
            self._events.received(notice)
        for each in given_up:
            self._count(each)
            for part in each.parts:
                self._events.fate(envelope, envelope.recipients[part], each.fate)

    def _count(self, given_up: GivenUp) -> None:
        count, fate = len(given_up.parts), given_up.fate
        if fate.event == "bounced":
            self.bounced += count
            self._plan.tally(fate.way.policy).bounced += count
        elif fate.event == "expired":
            self.expired += count
            self._plan.tally(fate.way.policy).expired += count
        else:
            self.cancelled += count

    def _envelope(self, job: Job) -> Envelope | None:
        """The envelope, from the disk where the job is cold (rare: one message tells for many)."""
        if job.envelope is not None:
            return job.envelope
        loaded = self._store.load(job.seq)
        try:
            return envelopes.decode(loaded.meta) if loaded is not None else None
        except msgspec.DecodeError:
            return None


def _signed_by(job: Job) -> str:
    return job.signature.domains if job.signature is not None else ""


def _is_attempt(outcome: Deferred, was_used: bool) -> bool:
    """Whether the other side answered about this message, so that it uses up the schedule.

    Whoever got as far as RCPT had an answer to MAIL. A 421 to MAIL on a connection that took mail before is about the
    connection (RFC 5321 3.8); to the first MAIL of one it may well be about the message.
    """
    if outcome.stage not in COUNTED_STAGES:
        return False
    if outcome.stage == "mail":
        return outcome.from_peer and not (was_used and outcome.reply.code == 421)
    return True
