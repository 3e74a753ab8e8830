"""Judging: what answers mean by the rules of the policy, and what follows for the recipients that they are about.

What comes back from the other side, but for a plain "delivered", is told to the destination's judge
(`mta_policies.engine`) once a reply; its verdict may make a deferral of a refusal or the other way round. What it sets
off for other mail is handed on to `restraints.py`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mta.delivery.job import Job
from mta.model.envelope import Envelope
from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.reporting.events import Way
from mta_policies.answers import Answer, Subject
from mta_policies.bounces import classify
from mta_policies.engine import Judge, Verdict
from mta_policies.firing import Change
from mta_policies.limits import Share
from mta_policies.policy import Policy

if TYPE_CHECKING:
    from mta.delivery.channel import Channel
    from mta.delivery.destination import Destination
    from mta.delivery.pool import Pool

NO_VERDICT = Verdict("", "", False)
"""Of what needs none."""

AT_ONCE = Verdict("", "", False)
"""Of recipients that were too many for one transaction: they come in another one at once, and nothing is wrong."""

TOO_MANY_RECIPIENTS = frozenset(
    {(452, "4.5.3"), (452, ""), (552, "5.5.3")}
)  # RFC 5321 4.5.3.1.10: the others come in another transaction at once


class Judged(NamedTuple):
    """Recipients with one outcome and one verdict."""

    outcome: Outcome
    """As it is to be taken: where a rule says so it is another than the reply alone would be."""
    parts: Sequence[int]
    verdict: Verdict


class Judging:
    """The judge of one destination, and how delivery speaks with it."""

    def __init__(self, destination: "Destination") -> None:
        self._engine = destination.engine
        self._destination = destination
        restraints = self._engine.restraints
        self._judge = Judge(destination.policy, restraints.firings, restraints.new_id, destination.share)

    @property
    def listens(self) -> bool:
        """Whether what is delivered is to be told, too."""
        return self._judge.listens

    def change(self, policy: Policy, share: Share) -> None:
        """Other rules from now on, or another share of the destination; what was counted for rules that stay stays
        counted."""
        self._judge.change(policy, share)

    def forget(self, rule: str, key: str) -> None:
        """What a rule counted for a scope key begins anew."""
        self._judge.forget(rule, key)

    # after a transaction

    def judged(
        self, pool: "Pool", job: Job, outcomes: Sequence[Outcome], way: Way, envelope: Envelope | None
    ) -> list[Judged]:
        """What became of each recipient of a job; alike ones together."""
        alike: dict[Outcome, list[int]] = {}
        for part, outcome in zip(job.parts, outcomes, strict=True):
            alike.setdefault(outcome, []).append(part)
        some_delivered = any(type(outcome) is Delivered for outcome in alike)
        judged: list[Judged] = []
        for outcome, parts in alike.items():
            if isinstance(outcome, Delivered):
                judged.append(Judged(outcome, parts, NO_VERDICT))
            elif some_delivered and _is_too_many(outcome):
                judged.append(Judged(outcome, parts, AT_ONCE))
            else:
                judged += self._refused(pool, job, outcome, parts, way, envelope)
        return judged

    def _refused(
        self,
        pool: "Pool",
        job: Job,
        outcome: Deferred | Bounced,
        parts: Sequence[int],
        way: Way,
        envelope: Envelope | None,
    ) -> Iterator[Judged]:
        answer = _answer_of(outcome, way)
        if outcome.stage == "local":
            yield Judged(outcome, parts, unjudged(answer))
            return
        # RCPT is answered for each recipient; another reply was said once, whoever it is about.
        replies = [[part] for part in parts] if outcome.stage == "rcpt" else [parts]
        alike: dict[Verdict, list[int]] = {}
        for about in replies:
            subject = self.subject(pool, job, about[0], way, envelope)
            verdict = self._judge.judge(answer, subject, self._now_s(), pool.pace)
            self._follow(pool, job, verdict, answer)
            alike.setdefault(verdict._replace(changes=()), []).extend(about)
        for verdict, about in alike.items():
            yield Judged(_as_said(outcome, verdict), about, verdict)

    def _follow(self, pool: "Pool", job: Job | None, verdict: Verdict, answer: Answer) -> None:
        """What a verdict sets off for other mail."""
        destination, restraints = self._destination, self._engine.restraints
        if pool.warming is not None:
            pool.warming.judged(verdict, answer)
        if verdict.rule and destination.brakes is not None:
            restraints.made(list(destination.brakes.refused(pool, job, verdict.rule)))
        if verdict.changes:
            restraints.made(verdict.changes)
        destination.listen()

    def heard(self, pool: "Pool", channel: "Channel", job: Job, outcomes: Sequence[Outcome]) -> None:
        """A transaction ended; to be called where the destination listens, or the pool's source has a plan. What was
        taken is told here, once."""
        if pool.warming is not None:
            pool.warming.ended(channel, outcomes)
        if len(outcomes) == 1:
            taken = job.parts[0] if type(outcomes[0]) is Delivered else -1
        else:
            pairs = zip(job.parts, outcomes, strict=True)
            taken = next((part for part, outcome in pairs if type(outcome) is Delivered), -1)
        if taken < 0:
            return
        destination, judge = self._destination, self._judge
        changes: Sequence[Change] = ()
        if judge.hears_messages:
            subject = self.subject(pool, job, taken, channel.way, job.envelope)
            changes = judge.delivered(subject, self._now_s())
            listens = judge.listens
        elif listens := judge.hears_ways:
            counts = channel.counts
            if counts is None or counts.epoch is not judge.epoch:
                address, site = channel.way.source_address, pool.site.name
                counts = channel.counts = judge.counts(Subject(pool.source.name, address, site, destination.provider))
            listens = judge.taken(counts, self._engine.clock.wall_s())
        if destination.brakes is not None and destination.brakes.listens:
            changes = [*changes, *destination.brakes.delivered(pool, job, channel)]
        if changes:
            self._engine.restraints.made(changes)
        if changes or (destination.listens and not listens):
            destination.listen()

    def subject(self, pool: "Pool", job: Job, part: int, way: Way, envelope: Envelope | None) -> Subject:
        """About whose mail something was said."""
        source = pool.source
        signed = job.signature.domains if job.signature is not None else ""
        recipient = sender_domain = ""
        if envelope is not None:
            recipient = envelope.recipients[part].address
            sender_domain = envelope.sender_domain
        return Subject(
            source.name,
            way.source_address or pool.address or source.ipv4 or source.ipv6,
            pool.site.name,
            self._destination.provider,
            job.tenant,
            job.campaign,
            recipient,
            signed.partition(",")[0],
            sender_domain or source.ehlo,
        )

    # without one

    def not_opened(self, pool: "Pool", stage: str, reply: Reply, host: str, from_peer: bool) -> Verdict:
        """A connection did not become ready, or none could be tried."""
        answer = Answer(reply.code, reply.enhanced, reply.text, stage, host, from_peer)
        if stage == "local":
            return unjudged(answer)
        source = pool.source
        subject = Subject(
            source.name, pool.address or source.ipv4 or source.ipv6, pool.site.name, self._destination.provider
        )
        verdict = self._judge.judge(answer, subject, self._now_s(), pool.pace)
        self._follow(pool, None, verdict, answer)
        return verdict

    def _now_s(self) -> float:
        return self._engine.clock.wall_s()


def unjudged(answer: Answer) -> Verdict:
    """How an answer is classed that no rule is asked about."""
    category = classify(answer)
    return Verdict("", category.name, category.hard)


def verdict_of(stage: str, reply: Reply) -> Verdict:
    """The same, for our own words."""
    return unjudged(Answer(reply.code, reply.enhanced, reply.text, stage, "", False))


def _answer_of(outcome: Deferred | Bounced, way: Way) -> Answer:
    reply = outcome.reply
    return Answer(reply.code, reply.enhanced, reply.text, outcome.stage, way.host, outcome.from_peer)


def _as_said(outcome: Deferred | Bounced, verdict: Verdict) -> Outcome:
    """The outcome, or what a rule makes of it. What the other side perhaps has is never given up by a rule."""
    if isinstance(outcome, Bounced):
        if verdict.disposition == "defer":
            return Deferred(outcome.reply, outcome.stage, from_peer=outcome.from_peer)
    elif verdict.disposition == "bounce" and not outcome.uncertain:
        return Bounced(outcome.reply, outcome.stage, outcome.from_peer)
    return outcome


def _is_too_many(outcome: Outcome) -> bool:
    reply = outcome.reply
    return outcome.stage == "rcpt" and (reply.code, reply.enhanced) in TOO_MANY_RECIPIENTS
