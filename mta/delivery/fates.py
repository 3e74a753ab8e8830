"""Fates: what an attempt's outcome means for each recipient, written to the queue and told in the event log."""

from collections.abc import Sequence
from random import Random
from typing import Protocol

import msgspec

from mta.delivery.connection import SourceAddress
from mta.delivery.job import ENDED, Job
from mta.delivery.pool import Pool
from mta.delivery.sites import Site
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta.model.outcome import COUNTED_STAGES, Bounced, Deferred, Delivered, Outcome, Reply
from mta.reporting.events import NO_WAY, Events, Fate, FateKind, Way, encode_note
from mta_policies.retry import next_attempt_s
from mta_policies.schema import Retry
from mta_queue.store import Store

EXPIRED = Reply(554, "5.4.7", "Could not be delivered before it expired")
TOO_MANY_RECIPIENTS = frozenset(
    {(452, "4.5.3"), (452, ""), (552, "5.5.3")}
)  # RFC 5321 4.5.3.1.10: the others come in another transaction at once


class Plan(Protocol):
    """Where fates put what is tried again."""

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


class Fates:
    """Decides, records, tells."""

    def __init__(
        self,
        store: Store,
        events: Events,
        plan: Plan,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store = store
        self._events = events
        self._plan = plan
        self._clock = clock
        self._random = random
        self.delivered = 0
        self.deferred = 0
        self.bounced = 0
        self.expired = 0
        self.uncertain = 0

    def settle(self, pool: Pool, job: Job, outcomes: Sequence[Outcome], way: Way, was_used: bool) -> None:
        """A transaction ended with one outcome for every recipient of the job; `was_used`: it was not the first of its
        connection."""
        if len(outcomes) == 1:
            outcome = outcomes[0]
            if type(outcome) is Delivered:
                self.delivered += 1
                self._end(job, job.parts, "delivered", outcome.reply, outcome.stage, job.attempts + 1, way)
                self._plan.ended(job)
                return
        alike: dict[Outcome, list[int]] = {}
        for part, outcome in zip(job.parts, outcomes, strict=True):
            alike.setdefault(outcome, []).append(part)
        some_delivered = any(type(outcome) is Delivered for outcome in alike)
        again: list[int] = []
        is_next = True
        for outcome, parts in alike.items():
            if isinstance(outcome, Delivered):
                self.delivered += len(parts)
                self._end(job, parts, "delivered", outcome.reply, outcome.stage, job.attempts + 1, way)
            elif some_delivered and _is_too_many(outcome):
                again += parts
            elif isinstance(outcome, Bounced):
                self.bounced += len(parts)
                attempt = job.attempts + outcome.from_peer
                self._end(job, parts, "bounced", outcome.reply, outcome.stage, attempt, way)
            elif _is_attempt(outcome, was_used):
                self._put_off(job, parts, outcome, way, pool.retry)
            else:
                self._tell_deferred(job, parts, outcome, way)
                again += parts
                is_next = was_used  # on a new connection another message may have better luck
        if not again:
            self._plan.ended(job)
            return
        rest = job
        if len(again) < len(job.parts):
            rest = self._plan.split(job, again)
            self._plan.ended(job)
        pool.take_back(rest, is_next)

    def _end(
        self, job: Job, parts: Sequence[int], event: FateKind, reply: Reply, stage: str, attempt: int, way: Way
    ) -> None:
        fate = Fate(event, self._clock.wall_s(), reply, stage, attempt, 0.0, way)
        envelope = job.envelope or self._envelope(job)  # before it is finished: a dead item cannot be read any more
        self._store.finish(job.seq, parts, encode_note(fate))
        if envelope is not None:
            for part in parts:
                self._events.fate(envelope, envelope.recipients[part], fate)

    def _put_off(self, job: Job, parts: Sequence[int], outcome: Deferred, way: Way, retry: Retry) -> None:
        now_s = self._clock.wall_s()
        attempts = job.attempts + 1
        due_s = min(next_attempt_s(retry, attempts, now_s, self._random.random()), max(job.expires_s, now_s))
        fate = Fate("deferred", now_s, outcome.reply, outcome.stage, attempts, due_s, way, outcome.uncertain)
        self.deferred += len(parts)
        self.uncertain += len(parts) if outcome.uncertain else 0
        self._store.postpone(job.seq, parts, due_s, encode_note(fate))
        self._plan.later(due_s, job.seq, parts)
        envelope = self._envelope(job)
        if envelope is not None:
            for part in parts:
                self._events.fate(envelope, envelope.recipients[part], fate)

    def _tell_deferred(self, job: Job, parts: Sequence[int], outcome: Deferred, way: Way) -> None:
        """The connection broke before the peer said anything about the message: no attempt, it stays in its lane."""
        fate = Fate("deferred", self._clock.wall_s(), outcome.reply, outcome.stage, job.attempts, 0.0, way)
        envelope = self._envelope(job)
        if envelope is not None:
            for part in parts:
                self._events.fate(envelope, envelope.recipients[part], fate)

    def tell_delay(
        self, job: Job, stage: str, reply: Reply, site: Site | None, source: SourceAddress | None, wait_s: float
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
        fate = Fate("deferred", now_s, reply, stage, job.attempts, now_s + wait_s, way)
        for part in job.parts:
            self._events.fate(envelope, envelope.recipients[part], fate)

    def bounce(self, job: Job, stage: str, reply: Reply, way: Way = NO_WAY) -> None:
        """Never, for all recipients of a job that waits."""
        self.bounced += len(job.parts)
        self._give_up(job, "bounced", reply, stage, way)

    def bounce_waiting(self, pool: Pool, stage: str, reply: Reply) -> None:
        """Nothing can ever be sent to this site."""
        way = Way(site=pool.site.name, policy=pool.site.destination.policy.name, source=pool.source.name)
        for job in pool.take_jobs():
            self.bounce(job, stage, reply, way)

    def expire(self, job: Job) -> None:
        """Its time is over."""
        if job.state == ENDED:
            return
        self.expired += len(job.parts)
        self._give_up(job, "expired", EXPIRED, "local", NO_WAY)

    def _give_up(self, job: Job, event: FateKind, reply: Reply, stage: str, way: Way) -> None:
        try:
            self._end(job, job.parts, event, reply, stage, job.attempts, way)
        except Exception as error:  # noqa: BLE001 - one of many that are given up must not keep the others
            self._plan.set_aside(job, error)
        else:
            self._plan.ended(job)

    def _envelope(self, job: Job) -> Envelope | None:
        """The envelope, from the disk where the job is cold (rare: one message tells for many)."""
        if job.envelope is not None:
            return job.envelope
        loaded = self._store.load(job.seq)
        try:
            return envelopes.decode(loaded.meta) if loaded is not None else None
        except msgspec.DecodeError:
            return None


def _is_too_many(outcome: Outcome) -> bool:
    reply = outcome.reply
    return outcome.stage == "rcpt" and (reply.code, reply.enhanced) in TOO_MANY_RECIPIENTS


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
