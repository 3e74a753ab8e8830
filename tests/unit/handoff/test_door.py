"""The door and its owners: who is told what, and when."""

import pytest

from mta.handoff import door
from mta.handoff.door import CRASHES_MAX, OWNER_WAIT_S, REFUSED_CRASHES, REFUSED_RESTARTING, REFUSED_STORAGE
from mta.testing.machine import Machine


def linked(workers: int = 3) -> Machine:
    """Domain dN.example belongs to worker N."""
    machine = Machine(workers)
    machine.owners = {f"d{number}.example": number for number in range(workers)}
    for number in range(workers):
        machine.start(number)
    machine.run()
    return machine


def fail_disk(machine: Machine, number: int) -> None:
    def on_call(operation: str, path: object) -> None:
        raise OSError(28, "No space left on device")

    machine.disks[number].on_call = on_call


@pytest.mark.parametrize(
    "recipients",
    [["a@d0.example"], ["a@d1.example"], ["a@d1.example", "b@d1.example"], ["a@d0.example", "b@d1.example"]],
    ids=["own", "another's", "two of another's", "own and another's"],
)
def test_accepted_when_all_owners_have_it(recipients: list[str]) -> None:
    """250 once every owner has it on stable storage; all of it is delivered, told once, and nothing stays."""
    machine = linked()

    machine.submit(0, recipients)
    assert machine.answers("000000") == []
    machine.recover()

    machine.check()
    assert machine.answers("000000") == [b"250"]
    assert sum(machine.delivered.values()) == len(recipients)


@pytest.mark.parametrize("full", [0, 1, 2])
def test_one_owner_cannot_write(full: int) -> None:
    """Where one of three disks refuses, the client gets a 4xx and no recipient the message, also after restarts."""
    machine = linked()
    fail_disk(machine, full)

    machine.submit(0, ["a@d0.example", "b@d1.example", "c@d2.example"])
    machine.run()
    assert machine.answers("000000") == [REFUSED_STORAGE]
    for number in range(3):
        machine.crash(number, power_lost=True)
    machine.recover()

    machine.check()
    assert not machine.delivered


def test_own_disk_refuses() -> None:
    """A message for this worker alone is refused as well, with words for the client."""
    machine = linked()
    fail_disk(machine, 0)

    machine.submit(0, ["a@d0.example"])
    machine.run()

    assert machine.answers("000000") == [REFUSED_STORAGE]


def test_clients_wait_for_a_restart() -> None:
    """A message for a worker that is being restarted is accepted when that is back."""
    machine = linked()
    machine.crash(1)
    machine.run()

    machine.submit(0, ["a@d1.example"])
    machine.submit(0, ["a@d1.example", "b@d2.example"])
    machine.pass_time(OWNER_WAIT_S - 0.1)
    machine.run()
    assert machine.answers("000000") == machine.answers("000001") == []
    machine.recover()

    assert machine.answers("000000") == machine.answers("000001") == [b"250"]
    machine.check()


def test_clients_do_not_wait_for_ever() -> None:
    """After OWNER_WAIT_S they get a 451; what comes in for other workers is not held up."""
    machine = linked()
    machine.submit(0, ["a@d1.example"])
    machine.crash(1, power_lost=True)
    machine.run()
    machine.submit(0, ["a@d1.example"])
    machine.submit(0, ["a@d1.example", "b@d0.example"])
    machine.submit(0, ["a@d2.example"])
    machine.run()

    machine.pass_time(OWNER_WAIT_S)
    machine.run()

    assert [machine.answers(f"00000{number}") for number in range(4)] == [[REFUSED_RESTARTING]] * 3 + [[b"250"]]
    machine.recover()
    machine.check()


def test_what_was_taken_and_refused_is_forgotten_by_name() -> None:
    """An owner wrote its share down and died: its client is told to come again when that is forgotten there."""
    machine = linked()
    machine.submit(0, ["a@d1.example", "b@d2.example"])
    for pipe in machine.pipes:
        pipe.is_clogged = pipe.reader is not None and pipe.reader._mesh is machine.worker(2).mesh
    machine.run()
    assert machine.worker(1).owner.held == 1
    for pipe in machine.pipes:
        pipe.is_clogged = False
    machine.crash(1)
    machine.run()
    assert machine.answers("000000") == []
    machine.start(1)

    assert [item_id for _, item_id in machine.worker(1).recovered.recent] == ["000000"]
    machine.recover()
    machine.check()
    assert machine.answers("000000") == [REFUSED_RESTARTING]
    assert not machine.delivered


@pytest.mark.parametrize("is_back", [False, True], ids=["for ever", "too late"])
def test_who_waits_for_an_owner_to_forget_is_told_in_time(is_back: bool) -> None:
    """After OWNER_WAIT_S, whether the share is forgotten by then or not."""
    machine = linked()
    machine.submit(0, ["a@d1.example", "b@d2.example"])
    for pipe in machine.pipes:
        pipe.is_clogged = pipe.reader is not None and pipe.reader._mesh is machine.worker(2).mesh
    machine.run()
    machine.crash(1)
    if is_back:
        machine.start(1)
        fail_disk(machine, 1)
    machine.run(1000)
    before = machine.answers("000000")[:]
    machine.pass_time(OWNER_WAIT_S)
    for pipe in machine.pipes:
        pipe.is_clogged = False
    machine.run(1000)

    assert (before, machine.answers("000000")) == ([], [REFUSED_RESTARTING])
    machine.recover()
    machine.check()
    assert not machine.delivered


def test_an_owner_and_then_the_door_die() -> None:
    """What owners have of it goes out: nobody was told that it does not."""
    machine = linked()
    machine.submit(0, ["a@d1.example", "b@d2.example"])
    for pipe in machine.pipes:
        pipe.is_clogged = pipe.reader is not None and pipe.reader._mesh is machine.worker(2).mesh
    machine.run()
    machine.crash(1)
    machine.run()
    machine.crash(0)
    answers = machine.answers("000000")[:]
    for pipe in machine.pipes:
        pipe.is_clogged = False
    machine.recover()

    machine.check()
    assert answers == []
    assert machine.delivered == {("000000", "a@d1.example"): 1, ("000000", "b@d2.example"): 1}


def test_a_message_that_kills_its_owner() -> None:
    """An owner that died with the same message in its hands again is not given it a third time."""
    machine = linked()
    machine.submit(0, ["a@d1.example"])

    for _ in range(CRASHES_MAX):
        for _ in range(20):  # the offer comes, and is not written down
            machine.connect()
            machine.worker(0).loop.settle()
            machine.worker(1).loop.turn()
            for pipe in machine.pipes[:]:
                machine.carry(pipe)
        machine.crash(1, power_lost=True)
        machine.run()
        machine.start(1)
    machine.recover()

    assert machine.answers("000000") == [REFUSED_CRASHES]


def test_a_slow_owner_slows_its_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an owner has not answered is bounded; the rest waits at the door, and other owners do not."""
    monkeypatch.setattr(door, "OFFERED_BYTES_MAX", 1000)
    machine = linked()
    for pipe in machine.pipes:
        pipe.is_clogged = pipe.reader is not None and pipe.reader._mesh is machine.worker(1).mesh

    for _ in range(50):
        machine.submit(0, ["a@d1.example"], 10)
    machine.submit(0, ["a@d2.example"])
    machine.run()

    written = sum(len(chunk) for pipe in machine.worker(0).outgoing for chunk in pipe.chunks)
    assert 1000 < written < 5000
    assert machine.worker(0).door.waiting_bytes == 50 * 80
    assert machine.answers("000050") == [b"250"]
    for pipe in machine.pipes:
        pipe.is_clogged = False
    machine.recover()
    machine.check()
    assert sum(machine.delivered.values()) == 51


def test_long_bodies_let_small_mail_pass() -> None:
    """A message of many pieces arrives whole, and small ones that came later are taken before it."""
    machine = linked(2)
    order: list[str] = []
    taker = machine.worker(1)
    take = taker.take
    taker.take = lambda seq, envelope, content: (order.append(envelope.id), take(seq, envelope, content))[1]

    machine.submit(0, ["a@d1.example"], 200_000)
    machine.worker(0).loop.turn()
    machine.submit(0, ["b@d1.example"])
    machine.recover()

    machine.check()
    assert order == ["000001", "000000"]


def test_a_door_that_dies_releases() -> None:
    """Owners let go what a dead door shared among them: its client may have seen the 250."""
    machine = linked()
    machine.submit(0, ["a@d1.example", "b@d2.example"])
    while not (machine.worker(1).owner.held and machine.worker(2).owner.held):
        machine.worker(0).loop.turn()
        for pipe in machine.pipes[:]:
            machine.carry(pipe)

    machine.crash(0)
    machine.run()

    assert sum(machine.delivered.values()) == 2
    machine.recover()
    machine.check()


def test_old_answers_do_not_reach_a_new_door() -> None:
    """A door counts its offers anew after a restart: what its former life offered is not answered to it."""
    machine = linked(2)
    machine.submit(0, ["a@d1.example"])
    machine.worker(0).loop.settle()
    for pipe in machine.pipes[:]:
        machine.carry(pipe)
    owner = machine.worker(1)
    owner.loop.turn()
    machine.crash(0)
    machine.start(0)
    while not machine.worker(0).mesh.links[1].is_up:
        machine.connect()
        machine.worker(0).loop.turn()
        owner.loop.turn()
        for pipe in machine.pipes[:]:
            machine.carry(pipe)
    machine.submit(0, ["b@d1.example"])
    machine.worker(0).loop.turn()

    owner.loop.settle()
    fail_disk(machine, 1)
    for _ in range(3):
        for pipe in machine.pipes[:]:
            machine.carry(pipe)
        owner.loop.settle()

    assert machine.delivered == {}
    assert machine.answers("000001") == [REFUSED_STORAGE]


def test_a_hello_that_comes_late() -> None:
    """What a dead process said before its successor was heard does not break the new link."""
    machine = linked(2)
    machine.crash(1)
    machine.run()
    machine.start(1)
    machine.connect()
    machine.worker(1).loop.turn()
    late = machine.worker(1).outgoing[-1]
    hello = b"".join(late.chunks)
    machine.crash(1)
    machine.start(1)
    machine.run()
    life = machine.worker(0).mesh.links[1].life

    late.reader = next(pipe.reader for pipe in machine.pipes if pipe.reader and pipe.reader._mesh.me == 0)
    fresh = type(late.reader)(machine.worker(0).mesh, None)
    fresh.connection_made(late.other)  # type: ignore[arg-type]  # a pipe is all the transport that it needs
    fresh.data_received(hello)

    assert machine.worker(0).mesh.links[1].life == life
    assert machine.worker(0).mesh.links[1].is_up
