"""Memory: what is resident is counted exactly, kept under its bound, and comes back when its turn is near."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta.delivery.expiries import Expiries
from mta.delivery.job import ENDED, LOADING, SENDING, SIGNING, WAITING, Job
from mta.delivery.memory import WARM_S, Memory
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.testing.fake_clock import FakeClock
from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue.store import Store


class Rig:
    """A memory over a real queue."""

    def __init__(self, bytes_max: int = 1000) -> None:
        self.loop = SteppedLoop()
        self.clock = FakeClock()
        self.disk = MemoryDisk()
        self.store = Store(Path("/queue/0"), disk=self.disk, jobs=self.loop.jobs)
        self.store.open()
        self.store.start(cast(asyncio.AbstractEventLoop, self.loop))
        self.memory = Memory(self.store, self.clock, bytes_max)

    def job(self, size: int = 100, parts: int = 1) -> Job:
        envelope = Envelope("id", "a@x", [Recipient(f"r{part}@x", "x") for part in range(parts)], 0.0, size)
        content = b"x" * size
        durable: list[int] = []
        self.store.append("id", envelopes.encode(envelope), parts, content, durable.append, lambda error: None)
        self.loop.settle()
        job = Job(durable[0], range(parts), "x", envelope, content, "")
        job.expires_s = self.clock.wall_s() + 1000
        return job

    def add(self, size: int = 100) -> Job:
        job = self.job(size)
        self.memory.add(job, self.clock.monotonic_s(), size)
        return job

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.memory.sweep(self.clock.monotonic_s())

    def load(self, *jobs: Job) -> tuple[Sequence[Job], Sequence[Job]]:
        loaded: list[tuple[Sequence[Job], Sequence[Job]]] = []
        for job in jobs:
            job.state = LOADING
        self.memory.load(jobs, self.clock.monotonic_s(), lambda ready, lost: loaded.append((ready, lost)))
        self.loop.settle()
        [result] = loaded
        for job in result[0]:
            job.state = WAITING
        return result


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_waits_over_a_second_leaves(rig: Rig):
    """With its envelope; what is being sent stays, and is looked at again."""
    waits, sends = rig.add(), rig.add()
    sends.state = SENDING

    rig.pass_time(WARM_S + 0.1)

    assert (waits.content, waits.envelope) == (None, None)
    assert sends.content is not None
    assert rig.memory.resident_bytes == 100
    sends.state = WAITING
    rig.pass_time(WARM_S + 0.1)
    assert rig.memory.resident_bytes == 0


def test_too_much_lets_the_oldest_go(rig: Rig):
    """Only as much as is needed, and nothing that is being sent; that one is not forgotten for it."""
    jobs = [rig.add(300) for _ in range(3)]
    jobs[0].state = SENDING

    rig.add(300)

    assert [job.content is not None for job in jobs] == [True, False, True]
    assert rig.memory.resident_bytes == 900
    jobs[0].state = WAITING
    rig.pass_time(0.1)
    rig.pass_time(WARM_S + 0.1)
    assert rig.memory.resident_bytes == 0


def test_a_new_one_that_is_too_big_goes_itself(rig: Rig):
    """Its expiry is watched from when it is known."""
    job = rig.job(2000)
    job.expires_s = 0.0

    rig.memory.add(job, 0.0, 2000)
    job.expires_s = rig.clock.wall_s() + 5
    rig.memory.watch(job)
    rig.clock.advance(7)

    assert job.content is None
    assert rig.memory.resident_bytes == 0
    assert rig.memory.expired(10) == [job]


def test_loading_brings_back_what_there_is_room_for(rig: Rig):
    """All envelopes, and contents up to the bound, at least one."""
    jobs = [rig.add(400) for _ in range(5)]
    rig.pass_time(WARM_S + 0.1)

    ready, lost = rig.load(*jobs)

    assert list(ready) == jobs
    assert list(lost) == []
    assert [job.content is not None for job in jobs] == [True, True, False, False, False]
    assert all(job.envelope is not None for job in jobs)
    assert rig.memory.resident_bytes == 800
    rig.pass_time(WARM_S + 0.1)
    assert all(job.envelope is None for job in jobs)


def test_what_was_cold_comes_with_one_read(rig: Rig):
    """Envelopes with one visit to the disk, contents with another; an envelope that is still there needs none."""
    jobs = [rig.add(40) for _ in range(20)]
    rig.pass_time(WARM_S + 0.1)
    rig.disk.is_cached = False
    rig.disk.calls.clear()

    ready, _ = rig.load(*jobs)

    assert list(ready) == jobs
    assert [job.content for job in jobs] == [b"x" * 40] * 20
    assert rig.disk.calls["read"] == 2
    for job in jobs:
        rig.memory.drop(job)
    ready, _ = rig.load(*jobs)
    assert list(ready) == jobs
    assert rig.memory.resident_bytes == 800
    assert rig.disk.calls["read"] == 3


def test_new_mail_takes_room_while_contents_are_read(rig: Rig):
    """The bound holds at the moment when they come: what has no room any more comes without content, in its place."""
    jobs, new = [rig.add(200) for _ in range(4)], rig.job(500)
    rig.pass_time(WARM_S + 0.1)
    rig.disk.is_cached = False
    for job in jobs:
        job.state = LOADING
    loaded: list[Sequence[Job]] = []
    rig.memory.load(jobs, rig.clock.monotonic_s(), lambda ready, lost: loaded.append(ready))
    while not rig.disk.calls["read"]:
        rig.loop.run_job()
    rig.loop.turn()

    rig.memory.add(new, rig.clock.monotonic_s(), 500)
    rig.loop.settle()

    assert [list(ready) for ready in loaded] == [jobs]
    assert [job.content is not None for job in jobs] == [True, True, False, False]
    assert rig.memory.resident_bytes == 900


def test_what_cannot_be_read_is_told(rig: Rig):
    """A broken content, a broken envelope, an item that is gone: the others come."""
    jobs = [rig.add(50) for _ in range(4)]
    rig.pass_time(WARM_S + 0.1)
    [path] = [path for path in rig.disk.paths() if path.suffix == ".seg"]
    first = rig.disk.contents(path).find(b"x" * 50)
    rig.disk.change(path, first, b"y")
    rig.store.finish(jobs[1].seq, [0], b"")

    ready, lost = rig.load(*jobs)

    assert list(ready) == jobs[2:]
    assert sorted(job.seq for job in lost) == [job.seq for job in jobs[:2]]
    assert rig.memory.resident_bytes == 100


def test_jobs_of_one_message_share_its_charge(rig: Rig):
    """However they part and end, it is counted once and goes back to nothing."""
    job = rig.job(101, parts=7)
    rig.memory.add(job, 0.0, 101)

    part = job.part([0, 1, 2])
    rig.memory.split(job, part, 0.0)
    job.parts = [3, 4, 5, 6]

    assert rig.memory.resident_bytes == 101
    assert part.charge_bytes + job.charge_bytes == 101
    rig.memory.drop(job)
    assert rig.memory.resident_bytes == part.charge_bytes
    rig.memory.drop(part)
    rig.memory.drop(part)
    assert rig.memory.resident_bytes == 0


def test_cold_jobs_expire_and_ended_ones_do_not(rig: Rig):
    """A few at a time, the oldest first."""
    jobs = [rig.add() for _ in range(4)]
    jobs[3].expires_s -= 500
    rig.pass_time(WARM_S + 0.1)
    jobs[1].state = ENDED
    rig.memory.drop(jobs[1])

    rig.clock.advance(990)
    early = rig.memory.expired(10)
    rig.clock.advance(12)

    assert early == [jobs[3]]
    assert rig.memory.expired(1) == [jobs[0]]
    assert rig.memory.expired(10) == [jobs[2]]
    assert rig.memory.expired(10) == []


def test_ended_jobs_are_not_kept_until_their_expiry():
    """Days of delivered mail would be."""
    rig, expiries = Rig(), Expiries()
    jobs = [rig.job() for _ in range(5)]
    for job in jobs:
        expiries.watch(job)
        expiries.watch(job)
    assert len(expiries) == 5

    for job in jobs[1:]:
        expiries.forget(job)

    assert len(expiries) == 1
    assert expiries.expired(rig.clock.wall_s() + 2000, 10) == jobs[:1]


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "send", "back", "end", "split", "load", "time"]), st.integers(0, 30)), max_size=60
)


@given(STEPS)
@settings(max_examples=150)
def test_the_count_never_drifts(steps: list[tuple[str, int]]):
    """Whatever happens in whatever order: what is counted is what is charged, and in the end nothing is."""
    rig = Rig(bytes_max=500)
    jobs: list[Job] = []

    for step, number in steps:
        job = jobs[number % len(jobs)] if jobs else None
        if step == "add":
            one = rig.job(30 + number * 7, parts=3)
            rig.memory.add(one, rig.clock.monotonic_s(), 30 + number * 7)
            jobs.append(one)
        elif step == "time":
            rig.pass_time(number / 10)
        elif job is None:
            continue
        elif step == "send" and job.content is not None:
            job.state = SENDING
        elif step == "back":
            job.state = WAITING
        elif step == "split" and len(job.parts) > 1:
            part = job.part(job.parts[:1])
            rig.memory.split(job, part, rig.clock.monotonic_s())
            job.parts = job.parts[1:]
            jobs.append(part)
        elif step == "load" and job.content is None:
            rig.load(job)
        elif step == "end":
            job.state = ENDED
            rig.memory.drop(job)
            jobs.remove(job)
        assert rig.memory.resident_bytes == sum(one.charge_bytes for one in jobs)
        waiting = [one for one in jobs if one.state == WAITING and one.content is not None]
        assert all(one.is_watched for one in waiting)
    for job in jobs:
        job.state = WAITING
    rig.pass_time(0)
    rig.pass_time(WARM_S + 0.1)

    assert rig.memory.resident_bytes == 0
    assert all(one.envelope is None for one in jobs)


def test_job_that_signs_may_leave_memory():
    """What is being signed needs its content no more: under pressure, or when that takes long, it is let go."""
    rig = Rig(bytes_max=250)
    first, second = rig.add(100), rig.add(100)
    first.state = second.state = SIGNING

    rig.add(100)
    assert first.content is None
    assert second.content is not None
    rig.pass_time(WARM_S + 0.1)

    assert second.content is None
    assert rig.memory.resident_bytes == 0


def test_job_that_ends_while_it_is_read():
    """Nothing is kept of a job that ended while its content was on its way, and the others come all the same."""
    rig = Rig()
    jobs = [rig.add(100) for _ in range(3)]
    rig.pass_time(WARM_S + 0.1)
    for job in jobs:
        job.state = LOADING
    loaded: list[Sequence[Job]] = []
    rig.memory.load(jobs, rig.clock.monotonic_s(), lambda ready, lost: loaded.append(ready))

    jobs[1].state = ENDED
    rig.memory.drop(jobs[1])
    rig.loop.settle()

    assert [list(ready) for ready in loaded] == [[jobs[0], jobs[2]]]
    assert rig.memory.resident_bytes == 200
    assert jobs[1].content is None
