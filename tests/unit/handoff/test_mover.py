"""Moves: due times and notes travel, credit holds, and logs without a worker are emptied."""

import pytest

from mta.handoff import lanes
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Reply
from mta.reporting.events import Fate, encode_note
from mta.testing.machine import DIRECTORY, Machine
from mta_queue.store import Origin, Store

TRIED = encode_note(Fate("deferred", 1.0, Reply(451, "4.0.0", "tried once"), "rcpt", 1))


def linked(workers: int = 2) -> Machine:
    """Every domain is looked up by worker 0; dN.example belongs to worker N."""
    machine = Machine(workers)
    machine.owners = {f"d{number}.example": number for number in range(workers)}
    machine.owner_at_door = lambda domain: 0
    for number in range(workers):
        machine.start(number)
    machine.run()
    return machine


def refuse(operation: str, path: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("crash", [False, True], ids=["moved", "moved and crashed"])
def test_notes_and_due_times_travel(crash: bool) -> None:
    """What was tried before keeps its note and its time, also when the target dies before it is let go."""
    machine = linked()
    machine.submit(0, ["a@d1.example", "b@d1.example"])
    worker = machine.worker(0)
    while not worker.jobs:
        worker.loop.turn()
        worker.loop.run_job()
    seq, _, envelope = worker.jobs[0]
    worker.jobs.clear()
    worker.store.postpone(seq, [1], 5000.0, TRIED)
    states = [worker.state_of(seq, part) for part in (0, 1)]

    worker.mover.move(seq, (0, 1), envelope, states, 1)
    target = machine.worker(1)
    while not target.store.items:
        for pipe in machine.pipes[:]:
            machine.carry(pipe)
        worker.loop.settle()
    target.loop.settle()
    if crash:
        machine.crash(1)
        machine.run()
        machine.start(1)
        target = machine.worker(1)
    target.deliver = lambda: False
    machine.run()

    (item,) = {seq for seq, _, _ in target.jobs}
    assert [target.state_of(item, part) for part in (0, 1)] == states == [(0.0, b""), (5000.0, TRIED)]
    assert worker.store.items == 0


def test_a_move_that_is_declined_is_tried_again() -> None:
    """A full disk at the target delays a move; nothing is lost and nobody asks without a pause."""
    machine = linked()
    machine.submit(0, ["a@d1.example"])
    machine.disks[1].on_call = refuse

    machine.run()
    assert machine.worker(0).store.items == 1
    assert machine.worker(0).mover.moving == 0
    machine.recover()

    machine.check()
    assert machine.delivered == {("000000", "a@d1.example"): 1}


def test_moves_have_a_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not answer is sent so much and no more; another one is not held up by that."""
    monkeypatch.setattr(lanes, "OPEN_BYTES_MAX", 500)
    machine = linked(3)
    for pipe in machine.pipes:
        pipe.is_clogged = pipe.reader is not None and pipe.reader._mesh is machine.worker(1).mesh
    for _ in range(30):
        machine.submit(0, ["a@d1.example"])
    machine.submit(0, ["a@d2.example"])

    machine.run()

    assert machine.delivered == {("000030", "a@d2.example"): 1}
    assert 500 < sum(len(chunk) for pipe in machine.worker(0).outgoing for chunk in pipe.chunks) < 3000
    for pipe in machine.pipes:
        pipe.is_clogged = False
    machine.recover()
    machine.check()


def test_an_unreadable_content_is_not_moved() -> None:
    """It stays where it is, is counted, and does not hold up the others."""
    machine = linked()
    worker = machine.worker(0)
    machine.submit(0, ["a@d1.example"])
    machine.submit(0, ["b@d1.example"])
    while len(worker.jobs) < 2:
        worker.loop.turn()
        worker.loop.run_job()
    path = next(path for path in machine.disks[0].paths() if b"000000\r\n" in machine.disks[0].contents(path))
    at = machine.disks[0].contents(path).index(b"000000\r\n")
    machine.disks[0].change(path, at, b"rotten")

    machine.run()

    assert machine.delivered == {("000001", "b@d1.example"): 1}
    assert worker.mover.unreadable == 1
    assert worker.store.items == 1
    assert worker.mover.moving == 0


def log_without_worker(machine: Machine, origin: Origin | None = None) -> None:
    """Log 3 on the disk of worker 1, with a waiting message for both workers, and perhaps one that is arriving."""
    machine.start(1)
    worker = machine.worker(1)
    store = Store(DIRECTORY / "3", disk=worker.disk, jobs=worker.loop.jobs)
    store.open()
    store.start(worker.mesh.loop)
    for at, where in enumerate([None] if origin is None else [None, origin]):
        message_id = f"{at:06}"
        recipients = [Recipient(f"a@d{number}.example", f"d{number}.example") for number in (0, 1)]
        machine.clients[message_id] = (0, [each.address for each in recipients], [b"250"])
        machine.sizes[message_id] = 10
        machine.log.add(f"received {message_id}")
        meta = envelopes.encode(Envelope(message_id, "", recipients, 0.0, 80))
        store.append(message_id, meta, 2, machine.content_of(message_id), lambda seq: None, lambda error: None, where)
    worker.loop.settle()
    machine.crash(1)


@pytest.mark.parametrize("steps", [1 << 30, *range(0, 60, 3)])
def test_a_log_without_a_worker_is_drained(steps: int) -> None:
    """Its mail goes to its owners, the one that drains included, once each, wherever a crash comes between."""
    machine = Machine(2)
    machine.owners = {"d0.example": 0, "d1.example": 1}
    log_without_worker(machine)
    machine.start(0)
    machine.start(1, [3])

    machine.run(steps)
    if steps < 1 << 30:
        machine.crash(1, power_lost=True)
        machine.start(1, [3])
    machine.recover()

    machine.check()
    assert machine.worker(1).emptied == [3]
    assert sum(machine.delivered.values()) - sum(machine.excused.values()) <= 2


@pytest.mark.parametrize("origin", [Origin(0, 77), Origin(3, 77), Origin(5, 77)])
def test_what_was_arriving_in_such_a_log(origin: Origin) -> None:
    """An item that its origin does not have any more is the log's own, wherever that origin is served."""
    machine = Machine(2)
    machine.owners = {"d0.example": 0, "d1.example": 1}
    log_without_worker(machine, origin)
    machine.start(0)
    machine.start(1, [3])

    machine.recover()

    machine.check()
    assert sum(machine.delivered.values()) == 4
    assert machine.worker(1).emptied == [3]
