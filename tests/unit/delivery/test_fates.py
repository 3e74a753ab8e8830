"""Fates: what outcomes mean, recorded in the queue and told, each recipient once."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.delivery.fates import Fates
from mta.delivery.job import ENDED, SENDING, Job, Signature
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.reporting.events import Events, Way, decode_note
from mta.reporting.worker_counts import PolicyCounts
from mta.testing.fake_clock import FakeClock
from mta.testing.judged import judged_pool
from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_policies.schema import Retry
from mta_queue.store import Store

WAY = Way(site="mx.x", policy="default", source="s1", host="mx.x", address="192.0.2.1")
OK = Delivered(Reply(250, "2.0.0", "queued"))
UNKNOWN = Bounced(Reply(550, "5.1.1", "unknown"), "rcpt")
LATER = Deferred(Reply(451, "4.3.0", "later"), "rcpt")
MANY = Deferred(Reply(452, "4.5.3", "too many"), "rcpt")
MANY_PERMANENT = Bounced(Reply(552, "5.5.3", "too many"), "rcpt")
FULL = Deferred(Reply(452, "4.2.2", "full"), "rcpt")
BUSY = Deferred(Reply(421, "4.7.0", "busy"), "mail")
LOST_AT_MAIL = Deferred(Reply(451, "4.4.2", "lost"), "mail", from_peer=False)
LOST_AT_RCPT = Deferred(Reply(451, "4.4.2", "lost"), "rcpt", from_peer=False)
UNCERTAIN = Deferred(Reply(451, "4.4.2", "lost"), "content", uncertain=True, from_peer=False)
TOO_BIG = Bounced(Reply(552, "5.3.4", "too big"), "local", from_peer=False)
RETRY = Retry(schedule=(300.0, 900.0), jitter=0.0, expire_s=1000.0)


class Rig:
    """Fates over a real queue; what goes again and what is planned is kept."""

    def __init__(self) -> None:
        self.loop = SteppedLoop()
        self.clock = FakeClock()
        self.store = Store(Path("/queue/0"), disk=MemoryDisk(), jobs=self.loop.jobs)
        self.store.open()
        self.store.start(cast(asyncio.AbstractEventLoop, self.loop))
        self.lines: list[dict[str, object]] = []
        events = Events(lambda line: self.lines.append(json.loads(line)), worker=0, prefix="e")
        self.fates = Fates(
            self.store, events, self, self.clock, Random(1), wants_dsn=lambda envelope: False, hostname="mail.test"
        )
        self.planned: list[tuple[float, int, list[int]]] = []
        self.again: list[tuple[Job, bool]] = []
        self.tallies: dict[str, PolicyCounts] = {}
        self.pool = judged_pool(
            self.clock,
            self.tally("default"),
            retry=RETRY,
            take_back=lambda job, is_next: self.again.append((job, is_next)),
        )

    def later(self, due_s: float, seq: int, parts: Sequence[int]) -> None:
        self.planned.append((due_s, seq, list(parts)))

    def soon(self, call: Callable[[], None]) -> None:
        self.loop.call_soon(call)

    def split(self, job: Job, parts: Sequence[int]) -> Job:
        return job.part(parts)

    def ended(self, job: Job) -> None:
        job.state = ENDED

    def set_aside(self, job: Job, error: Exception) -> None:
        raise error

    def tally(self, policy: str) -> PolicyCounts:
        return self.tallies.setdefault(policy or "default", PolicyCounts())

    def job(self, recipients: int = 1) -> Job:
        names = [Recipient(f"r{number}@x", "x") for number in range(recipients)]
        envelope = Envelope("id", "a@y", names, self.clock.wall_s(), 5)
        self.store.append("id", envelopes.encode(envelope), recipients, b"hello", lambda seq: None, lambda error: None)
        seq = self.store.mark_position()
        self.loop.settle()
        job = Job(seq, range(recipients), "x", envelope, b"hello", "s1")
        job.state = SENDING
        job.expires_s = self.clock.wall_s() + 1000
        return job

    def settle(self, job: Job, *outcomes: Outcome, was_used: bool = False) -> None:
        self.fates.settle(self.pool, job, outcomes, WAY, was_used)

    def told(self) -> list[tuple[object, object, object]]:
        return [(line["recipient"], line["event"], line["attempt"]) for line in self.lines]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_delivered(rig: Rig):
    """Recorded, told, over."""
    job = rig.job()

    rig.settle(job, OK)

    assert rig.told() == [("r0@x", "delivered", 1)]
    assert not rig.store.is_living(job.seq)
    assert job.state == ENDED
    assert rig.fates.delivered == 1


def test_each_has_its_own(rig: Rig):
    """The deferred one waits in the queue with what a retry has to know."""
    job = rig.job(3)

    rig.settle(job, OK, UNKNOWN, LATER)

    assert rig.told() == [("r0@x", "delivered", 1), ("r2@x", "deferred", 1), ("r1@x", "bounced", 1)]
    due_s = rig.clock.wall_s() + 300
    assert rig.planned == [(due_s, job.seq, [2])]
    loaded = rig.store.load(job.seq)
    assert loaded is not None
    [part] = loaded.parts
    note = decode_note(part.note)
    assert (part.part, part.due_s, note.attempt, note.way.source, note.uncertain) == (2, due_s, 1, "s1", False)
    assert job.state == ENDED


@pytest.mark.parametrize(
    ("outcome", "was_used", "counts"),
    [
        (LATER, False, True),
        (FULL, False, True),
        (UNCERTAIN, True, True),
        (LOST_AT_RCPT, False, True),
        (LOST_AT_MAIL, False, False),
        (LOST_AT_MAIL, True, False),
        (BUSY, False, True),
        (BUSY, True, False),
        (MANY, False, True),
    ],
)
def test_what_counts_as_an_attempt(rig: Rig, outcome: Deferred, was_used: bool, counts: bool):
    """Only where the other side answered about this message."""
    job = rig.job()

    rig.settle(job, outcome, was_used=was_used)

    assert rig.told() == [("r0@x", "deferred", int(counts))]
    assert bool(rig.planned) is counts
    assert rig.again == ([] if counts else [(job, was_used)])


@pytest.mark.parametrize("many", [MANY, MANY_PERMANENT, Deferred(Reply(452, "", "too many"), "rcpt")])
def test_too_many_recipients_go_at_once(rig: Rig, many: Outcome):
    """Before all others, with nothing told, where some of the transaction were taken."""
    job = rig.job(3)

    rig.settle(job, OK, many, many)

    assert rig.told() == [("r0@x", "delivered", 1)]
    [(rest, is_next)] = rig.again
    assert (list(rest.parts), is_next, rest.attempts) == ([1, 2], True, 0)
    assert job.state == ENDED


def test_a_full_mailbox_is_none_of_too_many(rig: Rig):
    """452 4.2.2 is about the recipient."""
    rig.settle(rig.job(2), OK, FULL)

    assert rig.again == []
    assert len(rig.planned) == 1


def test_what_could_not_go_at_all_is_no_attempt(rig: Rig):
    """A message that the peer cannot take is bounced with the attempts that there were."""
    rig.settle(rig.job(), TOO_BIG)

    assert rig.told() == [("r0@x", "bounced", 0)]


def test_no_retry_is_planned_after_the_expiry(rig: Rig):
    """It comes back when its time is over, to be given up."""
    job = rig.job()
    job.attempts = 5
    job.expires_s = rig.clock.wall_s() + 100

    rig.settle(job, LATER)

    assert rig.planned == [(job.expires_s, job.seq, [0])]
    assert rig.told() == [("r0@x", "deferred", 6)]


@pytest.mark.parametrize("is_cold", [False, True])
def test_expired_and_bounced_ones_are_told_also_when_cold(rig: Rig, is_cold: bool):
    """Their envelope is read before the item is gone."""
    first, second = rig.job(2), rig.job()
    for job in (first, second):
        if is_cold:
            job.cool()

    rig.fates.expire(first)
    rig.fates.expire(first)
    rig.fates.bounce(second, "dns", Reply(550, "5.1.2", "no such domain"))
    rig.loop.settle()

    assert rig.told() == [("r0@x", "expired", 0), ("r1@x", "expired", 0), ("r0@x", "bounced", 0)]
    assert rig.store.items == 0
    assert first.state == second.state == ENDED
    assert (rig.fates.expired, rig.fates.bounced, rig.fates.dsn) == (2, 1, 0)
    assert (rig.tallies["default"].expired, rig.tallies["default"].bounced) == (2, 1)


def test_a_job_that_cannot_be_read_is_left_alone(rig: Rig):
    """Given up while it is cold, and its envelope is not to be had: it ends in memory and stays on the disk."""
    job = rig.job()
    job.cool()
    rig.store.load_soon = lambda seqs, done, wants=None: done([])

    rig.fates.expire(job)

    assert job.state == ENDED
    assert rig.store.is_living(job.seq)
    assert rig.lines == []


def test_recipients_are_cancelled(rig: Rig):
    """Only these, with an event that says who did it; the others of the message wait on."""
    job = rig.job(3)
    assert job.envelope is not None

    rig.fates.cancel_parts(job.seq, [0, 2], job.envelope, "Cancelled by anna", attempts=4)

    assert rig.told() == [("r0@x", "cancelled", 4), ("r2@x", "cancelled", 4)]
    assert (rig.lines[0]["code"], rig.lines[0]["enhanced"], rig.lines[0]["text"]) == (554, "5.0.0", "Cancelled by anna")
    assert rig.store.living_parts(job.seq) == (1,)
    assert rig.fates.cancelled == 2


def test_what_cannot_go_for_our_own_reasons_is_put_off(rig: Rig):
    """By the schedule, but it does not use it up."""
    job = rig.job()
    job.attempts = 1

    rig.fates.defer_local(job, Reply(451, "4.7.20", "No key"), RETRY, WAY)

    [(due_s, seq, parts)] = rig.planned
    assert (due_s, seq, parts) == (rig.clock.wall_s() + 300, job.seq, [0])
    assert job.state == ENDED
    [line] = rig.lines
    assert (line["event"], line["stage"], line["attempt"], line["enhanced"]) == ("deferred", "local", 1, "4.7.20")
    assert rig.tallies["default"].deferred == 1


def test_signatures_are_told_and_kept(rig: Rig):
    """Who signed stands in every event; a deferral keeps the fields, so that the next attempt carries the same."""
    job = rig.job(3)
    job.signature = Signature(b"DKIM-Signature: x\r\n", "a.test,b.test")

    rig.settle(job, OK, UNKNOWN, LATER)

    assert [line.get("dkim") for line in rig.lines] == ["a.test,b.test"] * 3
    loaded = rig.store.load(job.seq)
    assert loaded is not None
    note = decode_note(loaded.parts[0].note)
    assert (note.signature, note.dkim) == (b"DKIM-Signature: x\r\n", "a.test,b.test")


def test_policies_have_counters_of_their_own(rig: Rig):
    """Of the policy whose limits held."""
    rig.settle(rig.job(4), OK, UNKNOWN, LATER, OK)
    rig.fates.expire(rig.job(), Way(policy="google"))

    counts = rig.tallies["default"]
    assert (counts.delivered, counts.bounced, counts.deferred, counts.expired) == (2, 1, 1, 0)
    assert rig.tallies["google"].expired == 1


OUTCOMES = st.sampled_from([OK, UNKNOWN, LATER, MANY, FULL, BUSY, LOST_AT_MAIL, UNCERTAIN, TOO_BIG])


@given(st.lists(OUTCOMES, min_size=1, max_size=12), st.booleans())
def test_every_recipient_is_exactly_somewhere(outcomes: list[Outcome], was_used: bool):
    """Finished, planned or going again: never two of them, never none."""
    rig = Rig()
    job = rig.job(len(outcomes))

    rig.settle(job, *outcomes, was_used=was_used)

    planned = [part for _, _, parts in rig.planned for part in parts]
    again = [part for rest, _ in rig.again for part in rest.parts]
    living = list(rig.store.living_parts(job.seq))
    assert sorted(planned + again) == living
    final = [line["recipient"] for line in rig.lines if line["event"] in ("delivered", "bounced")]
    assert sorted(map(str, final)) == sorted(f"r{part}@x" for part in range(len(outcomes)) if part not in living)
    assert (job.state == ENDED) is not any(rest is job for rest, _ in rig.again)
