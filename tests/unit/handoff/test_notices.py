"""Notices: a notification is safe at its owner before its cause is over here, or given up where it cannot get there."""

from collections.abc import Callable

import pytest

from mta.handoff.notices import WAIT_S
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Reply
from mta.reporting.events import Fate, encode_note
from mta.testing.machine import DIRECTORY, Machine, Worker
from mta.testing.memory_disk import MemoryDisk
from mta_queue.store import Origin

NOTE = encode_note(Fate("bounced", 1.0, Reply(550, "5.1.1", "unknown"), "rcpt", dsn="n"))


def linked(workers: int = 2) -> Machine:
    """dN.example belongs to worker N, and every door knows."""
    machine = Machine(workers)
    machine.owners = {f"d{number}.example": number for number in range(workers)}
    for number in range(workers):
        machine.start(number)
    machine.run()
    return machine


class Cause:
    """A message of worker 0, in its hands, and what became of the notification about it."""

    def __init__(self, machine: Machine, to: str = "s@d1.example") -> None:
        self.machine = machine
        self.worker = machine.worker(0)
        self.id = machine.submit(0, ["bounce@d0.example"])
        while not self.worker.jobs:
            self.worker.loop.turn()
            self.worker.loop.run_job()
        self.seq, _, self.envelope = self.worker.jobs.popleft()
        self.taken: list[Callable[[], None]] = []
        self.failed = 0
        self.notice = Envelope(
            "n",
            "",
            [Recipient(to, to.partition("@")[2])],
            1.0,
            5,
            cause_id=self.id,
            cause_recipients=["bounce@d0.example"],
        )
        machine.notices["n"] = ["bounce@d0.example"]

    def send(self) -> None:
        def failed() -> None:
            self.failed += 1

        self.worker.notices.send(self.notice, b"hello", Origin(0, self.seq), self.taken.append, failed)

    def finish(self) -> None:
        self.worker.store.finish(self.seq, [0], NOTE, self.taken.pop())

    def arrived(self, owner: int = 1) -> Worker:
        """Everything goes its way until the owner has it."""
        self.machine.run()
        target = self.machine.worker(owner)
        assert target.mover.arrivals.arriving == 1
        assert (len(self.taken), self.failed) == (1, 0)
        return target


@pytest.mark.parametrize("owner", [0, 1])
def test_first_there_then_here_then_out(owner: int) -> None:
    """It waits at its owner until the fate is on stable storage here."""
    machine = linked()
    cause = Cause(machine, f"s@d{owner}.example")

    cause.send()
    target = cause.arrived(owner)
    assert machine.delivered == {}
    machine.pass_time(100.0)
    machine.run()
    assert machine.delivered == {}
    assert cause.worker.notices.pending == 1
    cause.finish()
    assert target.mover.arrivals.arriving == 1
    machine.run()

    assert machine.delivered == {("n", f"s@d{owner}.example"): 1}
    assert cause.worker.notices.pending == cause.worker.mover.moving == cause.worker.mover.lanes.left_open == 0


def test_what_is_not_recorded_is_forgotten() -> None:
    """The worker that made it dies first: whoever has it asks, and the message still waits."""
    machine = linked()
    Cause(machine).send()
    machine.run()

    machine.crash(0)
    machine.start(0)
    machine.worker(0).deliver = lambda: False
    machine.run()

    assert machine.worker(1).store.items == machine.worker(1).mover.arrivals.arriving == 0
    assert machine.delivered == {}
    assert len(machine.worker(0).jobs) == 1


def test_an_origin_answers_with_what_is_durable() -> None:
    """Asked while it records the fate, it waits: a power loss may still make the recipient wait again."""
    machine = linked()
    cause = Cause(machine)
    cause.send()
    cause.arrived()
    cause.finish()
    machine.crash(1)
    machine.start(1)
    while machine.connect() or any(machine.carry(pipe) for pipe in machine.pipes[:]):
        machine.worker(1).loop.turn()
        machine.worker(1).loop.run_job()
        for pipe in machine.pipes[:]:
            machine.carry(pipe)
    assert cause.worker.mover.lanes._leaving
    assert machine.worker(1).mover.arrivals.arriving == 1
    machine.crash(0, power_lost=True)
    machine.start(0)
    machine.worker(0).deliver = lambda: False
    machine.run()

    assert machine.delivered == {}
    assert machine.worker(1).store.items == 0
    assert len(machine.worker(0).jobs) == 1


def test_the_owner_dies_with_it() -> None:
    """What it did not say to have is sent again to its next life; nothing is doubled."""
    machine = linked()
    cause = Cause(machine)
    cause.send()
    while not machine.worker(1).store.items:
        for pipe in machine.pipes[:]:
            machine.carry(pipe)
        cause.worker.loop.settle()
    machine.worker(1).loop.settle()
    machine.crash(1, lose_sent=True)
    machine.run()
    assert cause.taken == []

    machine.start(1)
    cause.arrived()
    cause.finish()
    machine.run()

    assert machine.delivered == {("n", "s@d1.example"): 1}


def test_a_moment_without_the_owner_is_waited_for() -> None:
    """A restart takes less than a second."""
    machine = linked()
    cause = Cause(machine)
    machine.crash(1)
    machine.run()
    cause.send()
    machine.pass_time(WAIT_S - 1.0)
    assert cause.failed == 0

    machine.start(1)
    cause.arrived()


def test_an_owner_that_stays_away_is_not_waited_for() -> None:
    """The notification is given up, and those that follow at once; when it is back, all goes well again."""
    machine = linked()
    cause = Cause(machine)
    machine.crash(1)
    machine.run()
    cause.send()
    for _ in range(int(WAIT_S) + 2):
        machine.pass_time(1.0)
    assert (cause.failed, cause.worker.notices.pending, cause.worker.mover.moving) == (1, 0, 0)
    cause.send()
    assert cause.failed == 1  # never before `send` has returned
    cause.worker.loop.settle()
    assert cause.failed == 2

    machine.start(1)
    machine.run()
    cause.failed = 0
    cause.send()
    cause.arrived()


def test_what_was_sent_is_not_given_up() -> None:
    """The owner may have it already: only it can say so, or die."""
    machine = linked()
    cause = Cause(machine)
    for pipe in machine.pipes:
        pipe.is_clogged = True
    cause.send()
    machine.run()
    for _ in range(int(2 * WAIT_S)):
        machine.pass_time(1.0)
    assert cause.failed == 0

    for pipe in machine.pipes:
        pipe.is_clogged = False
    cause.arrived()


@pytest.mark.parametrize("owner", [0, 1])
def test_an_owner_that_cannot_write(owner: int) -> None:
    """It says so, and nothing of it is left there."""
    machine = linked()
    cause = Cause(machine, f"s@d{owner}.example")
    disk = machine.disks[owner]

    def refuse(operation: str, path: object) -> None:
        raise OSError(28, "No space left on device")

    disk.on_call = refuse
    cause.send()
    machine.run()
    disk.on_call = lambda operation, path: None
    machine.pass_time(2.0)
    machine.run()

    assert (cause.failed, cause.taken) == (1, [])
    assert machine.worker(owner).mover.arrivals.arriving == 0
    assert cause.worker.notices.pending == 0
    assert cause.worker.store.is_living(cause.seq)


def test_a_notification_that_moves_is_mail_like_any_other() -> None:
    """Let go at the worker that was taken for its owner, it goes on from there, and no crash on that way doubles it."""
    steps = 0
    while True:
        machine = linked(3)
        machine.owner_at_door = lambda domain: 1 if domain == "d2.example" else int(domain[1])
        cause = Cause(machine, "s@d2.example")
        cause.send()
        cause.arrived(1)
        cause.finish()
        taken = machine.run(steps)
        machine.crash(1, power_lost=True)
        machine.recover()

        assert machine.delivered[("n", "s@d2.example")] == 1, steps
        assert machine.worker(1).store.items == 0
        if taken < steps:
            break
        steps += 3


def test_left_in_a_log_without_a_worker() -> None:
    """There were three workers once: the log of the third has a notification that nobody let go; its origin decides."""
    machine = linked(3)
    cause = Cause(machine, "s@d2.example")
    cause.send()
    cause.arrived(2)
    cause.finish()
    cause.worker.loop.settle()
    machine.crash(0)
    machine.crash(2)
    machine.crash(1)
    smaller = Machine(2)
    smaller.owners = {"d0.example": 0, "d2.example": 1}
    smaller.notices = machine.notices
    smaller.clients, smaller.sizes = machine.clients, machine.sizes
    disk: MemoryDisk = machine.disks[0]
    # The third log lies on the same disk as the first, as with one queue directory.
    for path in [path for path in machine.disks[2]._seen if path.parent == DIRECTORY / "2"]:
        disk._seen[path] = machine.disks[2]._seen[path]
        disk._stable[path] = machine.disks[2]._stable[path]
    disk._directories.add(DIRECTORY / "2")
    smaller.disks = [disk, machine.disks[1]]
    smaller.start(0, extra_logs=[2])
    smaller.start(1)
    smaller.run()

    assert smaller.worker(0).emptied == [2]
    assert smaller.delivered == {("n", "s@d2.example"): 1}


@pytest.mark.parametrize("is_back_before", [False, True])
def test_given_up_is_given_up_for_good(is_back_before: bool) -> None:
    """The owner wrote it down and died before it could say so, and stayed away until the recipient was tried again:
    what became of that is no answer to its question. It was delivered, and nobody is told that it was not."""
    machine = linked()
    cause = Cause(machine)
    cause.send()
    while not machine.worker(1).store.items:
        for pipe in machine.pipes[:]:
            machine.carry(pipe)
        cause.worker.loop.settle()
    machine.worker(1).loop.settle()
    machine.crash(1, lose_sent=True)
    for _ in range(int(WAIT_S) + 2):
        machine.run()
        machine.pass_time(1.0)
    assert cause.failed == 1
    if is_back_before:
        machine.start(1)
        machine.run()
        machine.crash(1)
        machine.run()

    cause.worker.store.finish(cause.seq, [0], NOTE)
    machine.recover()

    assert machine.delivered == {}
    assert machine.worker(1).store.items == 0
    assert cause.worker.notices.pending == cause.worker.mover.moving == 0
