"""What a crash left open between two workers is decided before either of them goes on."""

from mta.handoff.arrivals import PartState
from mta.testing.machine import Machine, Worker


def exchange(machine: Machine, *frozen: Worker) -> None:
    """Everything goes its way but the disks of some workers."""
    for _ in range(40):
        machine.connect()
        machine.tick()
        for worker in machine.living():
            worker.loop.turn()
            if worker not in frozen:
                worker.loop.run_job()
        for pipe in machine.pipes[:]:
            machine.carry(pipe)


def moving(workers: int = 3) -> Machine:
    """Worker 0 has sent a message to worker 1, who has written it down; nobody has read his answer."""
    machine = Machine(workers)
    machine.owners = {"d.example": 1}
    machine.owner_at_door = lambda domain: 0
    for number in range(workers):
        machine.start(number)
    machine.run()
    machine.submit(0, ["a@d.example"])
    origin, target = machine.worker(0), machine.worker(1)
    while not origin.jobs:
        origin.loop.turn()
        origin.loop.run_job()
        machine.tick()
    exchange(machine)
    for pipe in machine.pipes:
        pipe.is_clogged = pipe.reader is not None and pipe.reader._mesh is origin.mesh
    seq, part, envelope = origin.jobs.popleft()
    origin.mover.move(seq, (part,), envelope, [PartState(0.0, b"")], 1)
    exchange(machine)
    assert target.mover.arrivals.arriving == 1
    return machine


def unclog(machine: Machine) -> None:
    for pipe in machine.pipes:
        pipe.is_clogged = False


def test_a_move_waits_until_the_last_one_is_forgotten() -> None:
    """The target died before it was heard: it forgets what it wrote, durably, and only then is it sent again."""
    machine = moving()
    machine.crash(1, lose_sent=True)
    unclog(machine)
    machine.start(1)
    target, lane = machine.worker(1), machine.worker(0).mover.lanes._lanes[1]

    exchange(machine, target)
    machine.submit(0, ["b@d.example"])
    while not machine.worker(0).deliver():
        exchange(machine, target)
    exchange(machine, target)
    assert (len(lane.waiting), len(lane.sent)) == (2, 0)
    assert machine.worker(0).mesh.links[1].is_up
    machine.recover()

    machine.check()
    assert machine.delivered == {("000000", "a@d.example"): 1, ("000001", "b@d.example"): 1}


def test_an_origin_answers_with_what_is_durable() -> None:
    """Asked about a move that it is recording, it waits: a power loss may still make the message its own again."""
    machine = moving()
    origin = machine.worker(0)
    unclog(machine)
    exchange(machine, origin)  # it has heard that the message arrived, and is writing that down
    machine.crash(1)
    exchange(machine, origin)
    machine.start(1)

    exchange(machine, origin)
    assert machine.worker(1).mover.arrivals.arriving == 1
    assert not machine.worker(1).jobs
    machine.crash(0, power_lost=True)
    machine.recover()

    machine.check()
    assert machine.delivered == {("000000", "a@d.example"): 1}


def test_nothing_moves_elsewhere_before_all_have_asked() -> None:
    """Both ends died and the destination is a third worker's now: the origin waits for the one that may have it."""
    machine = moving()
    machine.crash(1)
    machine.crash(0)
    machine.owners["d.example"] = 2
    machine.start(0)
    machine.worker(0).begin()  # as after the time that a worker waits for the others

    machine.run()
    assert machine.delivered == {}
    assert machine.worker(0).mover.moving == 1
    machine.recover()

    machine.check()
    assert machine.delivered == {("000000", "a@d.example"): 1}


def test_a_live_target_asks_a_new_origin() -> None:
    """The origin died before it heard that the message arrived: it still has it, and the target forgets its copy."""
    machine = moving()
    machine.crash(0)
    exchange(machine)
    machine.start(0)

    machine.recover()

    machine.check()
    assert machine.delivered == {("000000", "a@d.example"): 1}
    assert machine.worker(1).mover.arrivals.arriving == 0


def test_delivered_before_the_door_heard_of_it() -> None:
    """An owner delivered a message, its answer was lost with it: the door hears that it was taken, nobody gets two."""
    machine = Machine(2)
    machine.owners = {"d.example": 1}
    for number in range(2):
        machine.start(number)
    machine.run()
    for pipe in machine.pipes:
        pipe.is_clogged = pipe.reader is not None and pipe.reader._mesh is machine.worker(0).mesh
    machine.submit(0, ["a@d.example"])
    machine.run()
    assert machine.delivered == {("000000", "a@d.example"): 1}
    machine.worker(1).store.move_out(0, (), lambda: None)  # a group that is synced: with it goes the delivery's record
    machine.run()

    machine.crash(1, lose_sent=True)
    unclog(machine)
    machine.recover()

    assert machine.answers("000000") == [b"250"]
    assert machine.delivered == {("000000", "a@d.example"): 1}
    assert not machine.excused
