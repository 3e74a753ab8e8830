"""Claims: the new owner begins when no other worker has anything open."""

from collections.abc import Callable

from mta.handoff.claims import Claims, LimitState
from mta.testing.machine import Machine

STATE: LimitState = {"meter": {"rate": [0.5]}}


class Yielding:
    """One worker's claims, and the questions it was asked."""

    def __init__(self, machine: Machine, number: int, epoch: int = 2) -> None:
        self.asked: list[tuple[str, str, Callable[[LimitState], None]]] = []
        self.claims = Claims(machine.worker(number).mesh, epoch, lambda *asked: self.asked.append(asked))
        self.granted: list[list[LimitState]] = []

    def claim(self) -> None:
        self.claims.claim("site:mx", "mx", self.granted.append)


def machine_of_three() -> tuple[Machine, list[Yielding]]:
    machine = Machine(3)
    for number in range(3):
        machine.start(number)
    machine.run()
    return machine, [Yielding(machine, number) for number in range(3)]


def test_granted_when_all_have_yielded() -> None:
    """All others and the claimer itself are asked; the states of all come along."""
    machine, (one, two, three) = machine_of_three()

    one.claim()
    machine.run()
    for other in (one, two):
        other.asked[0][2](STATE)
    machine.run()
    assert one.granted == []
    three.asked[0][2]({})
    machine.run()

    assert one.granted == [[STATE, STATE]]
    assert [asked[:2] for asked in three.asked] == [("site:mx", "mx")]


def test_a_dead_worker_has_no_connections() -> None:
    """Who dies while he is asked, or is dead already, holds nothing up."""
    machine, (one, two, _) = machine_of_three()
    machine.crash(2)
    machine.run()

    one.claim()
    machine.run()
    one.asked[0][2]({})
    assert one.granted == []
    machine.crash(1)
    machine.run()

    assert one.granted == [[]]
    assert len(two.asked) == 1


def test_a_claim_from_a_later_epoch_waits() -> None:
    """A worker that has not reloaded yet answers when it has; one that died meanwhile is not answered."""
    machine, (one, two, three) = machine_of_three()
    one.claims.reloaded(3)
    three.claims.reloaded(3)

    one.claim()
    three.claim()
    machine.run()
    assert two.asked == []
    machine.crash(2)
    machine.run()
    two.claims.reloaded(3)

    assert len(two.asked) == 1


def test_an_answer_does_not_reach_the_claimers_next_life() -> None:
    """A claimer that was restarted counts its claims anew: only its own are answered."""
    machine, (one, two, _) = machine_of_three()
    one.claim()
    machine.run()
    machine.crash(0)
    machine.run()
    machine.start(0)
    machine.run()
    again = Yielding(machine, 0)
    again.claim()
    machine.run()

    two.asked[0][2](STATE)
    for number in (1, 2):
        machine.worker(number).loop.settle()
    machine.run()

    assert again.granted == []
    assert len(two.asked) == 2
