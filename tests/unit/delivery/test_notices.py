"""The notifier: whose sender is told, of what, and what becomes of a job meanwhile."""

import asyncio
import email
import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from mta.delivery import notices as module
from mta.delivery.fates import Fates
from mta.delivery.job import ENDED, ENDING, SENDING, Job, Signature
from mta.delivery.notices import PUT_OFF_S
from mta.handoff.notices import Notices
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.reporting.events import Events, Fate, Way, encode_note, fates_of
from mta.reporting.worker_counts import PolicyCounts
from mta.testing.fake_clock import FakeClock
from mta.testing.judged import judged_pool
from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_policies.schema import Retry
from mta_queue.store import Origin, Store

WAY = Way(site="mx.x", policy="default", source="s1", host="mx.x", address="192.0.2.1")
OK = Delivered(Reply(250, "2.0.0", "queued"))
UNKNOWN = Bounced(Reply(550, "5.1.1", "unknown"), "rcpt")
FULL = Bounced(Reply(552, "5.2.2", "full"), "rcpt")
LATER = Deferred(Reply(451, "4.3.0", "later"), "rcpt")
TOO_BIG = Bounced(Reply(552, "5.3.4", "more than it takes"), "local", from_peer=False)
RETRY = Retry(schedule=(300.0,), jitter=0.0, expire_s=86_400.0)
CONTENT = b"Subject: hi\r\nX-Mine: yes\r\n\r\nhello\r\n"


class Sent(NamedTuple):
    """A notification that was handed over."""

    envelope: Envelope
    content: bytes
    origin: Origin
    taken: Callable[[Callable[[], None]], None]
    failed: Callable[[], None]


class Rig:
    """Fates over a real queue; notifications go no further than to here."""

    def __init__(self) -> None:
        self.loop = SteppedLoop()
        self.clock = FakeClock()
        self.store = Store(Path("/queue/3"), disk=MemoryDisk(), jobs=self.loop.jobs)
        self.store.open()
        self.store.start(cast(asyncio.AbstractEventLoop, self.loop))
        self.lines: list[dict[str, Any]] = []
        self.wanted = True
        self.fates = Fates(
            self.store,
            Events(lambda line: self.lines.append(json.loads(line)), worker=0, prefix="e"),
            self,
            self.clock,
            Random(1),
            wants_dsn=lambda envelope: self.wanted,
            hostname="mail.test",
        )
        self.sent: deque[Sent] = deque()
        self.fates.start(cast(Notices, SimpleNamespace(send=lambda *each: self.sent.append(Sent(*each)))))
        self.planned: list[tuple[float, int, list[int]]] = []
        self.again: list[Job] = []
        self.aside: list[Exception] = []
        self.pool = judged_pool(
            self.clock, PolicyCounts(), retry=RETRY, take_back=lambda job, is_next: self.again.append(job)
        )

    def later(self, due_s: float, seq: int, parts: Sequence[int]) -> None:
        self.planned.append((due_s, seq, list(parts)))

    def soon(self, call: Callable[[], None]) -> None:
        self.loop.call_soon(call)

    def split(self, job: Job, parts: Sequence[int]) -> Job:
        return job.part(parts)

    def ended(self, job: Job) -> None:
        assert job.state != ENDED
        job.state = ENDED

    def set_aside(self, job: Job, error: Exception) -> None:
        self.aside.append(error)
        self.ended(job)

    def tally(self, policy: str) -> PolicyCounts:
        return PolicyCounts()

    def job(self, recipients: int = 1, sender: str = "a@shop.test", *, is_cold: bool = False, **changes: Any) -> Job:
        names = [Recipient(f"r{number}@x", "x") for number in range(recipients)]
        envelope = Envelope("01kf3a8zc0abcde00001", sender, names, self.clock.wall_s(), len(CONTENT), **changes)
        seqs: list[int] = []
        self.store.append(envelope.id, envelopes.encode(envelope), recipients, CONTENT, seqs.append, lambda error: None)
        self.loop.settle()
        job = Job(seqs[0], range(recipients), "x", envelope, CONTENT, "s1")
        job.expires_s = self.clock.wall_s() + 1000
        if is_cold:
            job.cool()
        return job

    def settle(self, job: Job, *outcomes: Outcome) -> None:
        job.state = SENDING
        self.fates.settle(self.pool, job, outcomes, WAY, False)

    def take(self) -> Sent:
        """The owner has the next notification, and lets it go when the fate is safe."""
        sent = self.sent.popleft()
        released: list[bool] = []
        sent.taken(lambda: released.append(True))
        assert not released
        self.loop.settle()
        assert released == [True]
        return sent

    def told(self) -> list[tuple[str, str]]:
        return [(line["event"], line.get("recipient") or line["recipients"][0]) for line in self.lines]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def blocks(content: bytes) -> list[Any]:
    message: Any = email.message_from_bytes(content)
    return message.get_payload()[1].get_payload()[1:]


def test_first_the_notification_then_the_fate(rig: Rig) -> None:
    """Until it is safe at its owner nothing is recorded or told; then all of it, in one record."""
    job = rig.job()

    rig.settle(job, UNKNOWN)
    assert job.state == ENDING
    assert job.content is None
    assert rig.lines == []
    assert rig.store.is_living(job.seq)
    assert rig.fates.ending == 1
    sent = rig.take()

    assert job.state == ENDED
    assert sent.origin == Origin(3, job.seq)
    assert rig.told() == [("received", "a@shop.test"), ("bounced", "r0@x")]
    received, bounced = rig.lines
    assert bounced["dsn"] == received["id"] == sent.envelope.id
    assert (received["sender"], received["size"], received["message_id"]) == (
        "",
        len(sent.content),
        f"<{sent.envelope.id}@mail.test>",
    )
    assert not rig.store.is_living(job.seq)
    assert (rig.fates.bounced, rig.fates.dsn, rig.fates.ending) == (1, 1, 0)
    assert b"X-Mine: yes" in sent.content
    assert b"hello" not in sent.content


def test_one_for_all_recipients_of_a_transaction(rig: Rig) -> None:
    """Whatever each was told; and one record, because after a crash either all of them wait or none."""
    job = rig.job(5)

    rig.settle(job, UNKNOWN, OK, FULL, UNKNOWN, LATER)
    position = rig.store.mark_position()
    sent = rig.take()

    assert sent.envelope.cause_recipients == ["r0@x", "r3@x", "r2@x"]
    assert [block["status"] for block in blocks(sent.content)] == ["5.1.1", "5.1.1", "5.2.2"]
    assert rig.store.mark_position() == position + 1
    assert rig.told() == [
        ("delivered", "r1@x"),
        ("deferred", "r4@x"),
        ("received", "a@shop.test"),
        ("bounced", "r0@x"),
        ("bounced", "r3@x"),
        ("bounced", "r2@x"),
    ]
    assert rig.store.living_parts(job.seq) == (4,)
    assert job.state == ENDED


def test_the_record_tells_it_again(rig: Rig) -> None:
    """What a crash loses of the event log: each recipient's fate, with the notification's id."""
    job = rig.job(2)
    rig.settle(job, UNKNOWN, FULL)
    notice = rig.take().envelope
    rig.store.finish(rig.job().seq, [0], b"")
    rig.loop.settle()
    again = Store(Path("/queue/3"), disk=rig.store._disk, jobs=SteppedLoop().jobs)
    rig.store._disk.kill()  # type: ignore[attr-defined]

    record = next(each for each in again.open().untold if each.kind == "finished")

    assert [(part, fate.reply, fate.dsn, fate.dsn_bytes) for part, fate in fates_of(record.note, record.parts)] == [
        (0, UNKNOWN.reply, notice.id, notice.size),
        (1, FULL.reply, notice.id, notice.size),
    ]


@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize(
    ("sender", "wanted", "changes"),
    [("", True, {}), ("a@shop.test", False, {}), ("a@shop.test", True, {"cause_id": "01jx"})],
    ids=["null sender", "the tenant wants none", "a notification"],
)
def test_who_is_not_told(rig: Rig, sender: str, wanted: bool, changes: dict[str, Any], is_cold: bool) -> None:
    """Their recipients end without."""
    rig.wanted = wanted
    job = rig.job(2, sender, is_cold=is_cold, **changes)

    rig.fates.bounce(job, "dns", Reply(550, "5.1.2", "no such domain"))
    rig.loop.settle()

    assert not rig.sent
    assert rig.told() == [("bounced", "r0@x"), ("bounced", "r1@x")]
    assert "dsn" not in rig.lines[0]
    assert job.state == ENDED
    assert rig.store.items == 0
    assert rig.fates.ending == 0


def test_cancelled_mail_is_nobodys_business(rig: Rig) -> None:
    """The admin knows; the sender is not told."""
    job = rig.job()

    assert job.envelope is not None

    rig.fates.cancel_parts(job.seq, job.parts, job.envelope, "Cancelled by anna")

    assert not rig.sent
    assert rig.told() == [("cancelled", "r0@x")]


def test_expired_when_cold(rig: Rig) -> None:
    """Envelope, header and the last answer come back from the disk."""
    job = rig.job(2, is_cold=True)
    job.attempts = 2
    last = Fate("deferred", rig.clock.wall_s() - 5, Reply(421, "4.7.0", "busy"), "mail", 2, 0.0, WAY)
    rig.store.postpone(job.seq, [0], 1.0, encode_note(last))
    rig.store.postpone(job.seq, [1], 1.0, b"of a version that is gone")

    rig.fates.expire(job)
    rig.fates.expire(job)
    assert job.state == ENDING
    rig.loop.settle()
    sent = rig.take()

    first, second = blocks(sent.content)
    assert (first["status"], first["diagnostic-code"], first["remote-mta"]) == (
        "5.4.7",
        "smtp; 421 4.7.0 busy",
        "dns; mx.x",
    )
    assert second["diagnostic-code"].startswith("x-mta; 554 5.4.7")
    assert b"X-Mine: yes" in sent.content
    assert rig.told()[1:] == [("expired", "r0@x"), ("expired", "r1@x")]
    assert rig.fates.expired == 2


def test_what_we_said_ourselves(rig: Rig) -> None:
    """Is not told as the peer's words."""
    rig.settle(rig.job(), TOO_BIG)

    [block] = blocks(rig.take().content)
    assert block["diagnostic-code"] == "x-mta; 552 5.3.4 more than it takes"


def test_without_its_content(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A content that cannot be read back is no reason not to tell."""
    job = rig.job(is_cold=True)
    monkeypatch.setattr(rig.store, "content_soon", lambda seq, done: done(None))

    rig.fates.expire(job)
    rig.loop.settle()
    sent = rig.take()

    message: Any = email.message_from_bytes(sent.content)
    assert len(message.get_payload()) == 2


def test_who_signed_is_told(rig: Rig) -> None:
    """Also with a bounce that waited for its notification."""
    job = rig.job()
    job.signature = Signature(b"DKIM-Signature: x\r\n", "shop.test")

    rig.settle(job, UNKNOWN)
    rig.take()

    assert rig.lines[-1]["dkim"] == "shop.test"


def test_a_notification_that_cannot_be_written(rig: Rig) -> None:
    """Nothing has happened; in a minute all of it again."""
    job = rig.job(3)

    rig.settle(job, UNKNOWN, OK, UNKNOWN)
    rig.sent.popleft().failed()

    assert rig.planned == [(rig.clock.wall_s() + PUT_OFF_S, job.seq, [0, 2])]
    assert job.state == ENDED
    assert rig.told() == [("delivered", "r1@x")]
    assert rig.store.living_parts(job.seq) == (0, 2)
    assert (rig.fates.bounced, rig.fates.ending) == (0, 0)


def test_so_many_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait without their content; each has its turn, warm or cold, and one that is lost holds up none."""
    monkeypatch.setattr(module, "AT_ONCE", 3)
    jobs = [rig.job(is_cold=number % 2 == 1) for number in range(20)]
    for job in jobs:
        rig.fates.bounce(job, "dns", Reply(550, "5.1.2", "no such domain"))
    assert rig.fates.ending == 20
    assert all(job.state == ENDING and job.content is None for job in jobs)
    rig.store.forget(jobs[11].seq)
    rig.loop.settle()

    done = 0
    while rig.sent:
        assert len(rig.sent) <= 3
        if done % 5 == 4:
            rig.sent.popleft().failed()
        else:
            rig.take()
        done += 1
        rig.loop.settle()

    assert done == 19
    assert all(job.state == ENDED for job in jobs)
    assert rig.fates.ending == 0
    assert len(rig.planned) == 3
    assert rig.fates.bounced == rig.fates.dsn == 16


def test_an_error_of_ours(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one notification: that job is set aside, the others go on."""
    first, second = rig.job(), rig.job(is_cold=True)
    real = module.dsn.compose

    def compose(*arguments: Any) -> tuple[Envelope, bytes]:
        if not rig.aside:
            raise ValueError("made up")
        return real(*arguments)

    monkeypatch.setattr(module.dsn, "compose", compose)
    for job in (first, second):
        rig.fates.bounce(job, "dns", Reply(550, "5.1.2", "no such domain"))
    rig.loop.settle()

    assert [str(error) for error in rig.aside] == ["made up"]
    assert (first.state, second.state) == (ENDED, ENDING)
    assert rig.store.is_living(first.seq)
    rig.take()
    assert rig.fates.ending == 0


def test_a_job_that_is_ending_is_left_alone(rig: Rig) -> None:
    """Whatever else happens to it: no second notification, no other fate."""
    job = rig.job()
    rig.settle(job, UNKNOWN)

    rig.fates.expire(job)
    rig.fates.bounce(job, "dns", Reply(550, "", "x"))
    rig.fates.defer_local(job, Reply(451, "", "x"), RETRY)
    assert len(rig.sent) == 1
    rig.take()

    assert rig.told() == [("received", "a@shop.test"), ("bounced", "r0@x")]
    assert rig.planned == []
