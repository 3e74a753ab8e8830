"""Workers die at every step, and come back: what was accepted is delivered once, what was refused is not.

A run is a seed: a failure names it, and `pytest tests/unit/handoff/test_crashes.py -k "[SEED]"` plays it again.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from mta.testing.machine import Machine
from mta.testing.memory_disk import PowerLost

DOMAINS = [f"d{number}.example" for number in range(6)]
SENDER_DOMAINS = ["s0.example", "s1.example"]
ABSENCES_S = (1.0, 5.0, 61.0, 1.0)  # notifications are given up, and what they tell about is tried again


class Run:
    """A random life of a machine."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.machine = machine = Machine(random.choice((1, 2, 2, 3, 3, 4)), seed)
        self.faults = random.choice((0.0, 0.0, 0.02))
        self.crashing = random.choice((0.002, 0.01, 0.03))
        self.count = len(machine.workers)
        self.losing_power = 0
        for domain in [*DOMAINS, *SENDER_DOMAINS]:
            machine.owners[domain] = random.randrange(self.count)
        machine.owner_at_door = self.owner_at_door
        machine.refuses = lambda address: random.random() < 0.8
        for number in range(self.count):
            self.start(number)

    def owner_at_door(self, domain: str) -> int:
        """Mostly the true one; else the one that would look it up."""
        if self.random.random() < 0.7:
            return self.machine.owners[domain]
        return sum(domain.encode()) % self.count

    def start(self, number: int) -> None:
        self.machine.start(number)

        def on_call(operation: str, path: Path) -> None:
            if operation not in ("unlink", "rename") and self.random.random() < self.faults:
                raise OSError(5, "made up")
            if self.random.random() < self.crashing / 10:
                self.losing_power = number
                raise PowerLost

        self.machine.disks[number].on_call = on_call

    def step(self) -> None:
        machine, random = self.machine, self.random
        choice = random.random()
        living = machine.living()
        dead = [number for number, worker in enumerate(machine.workers) if worker is None]
        if choice < 0.06 and living:
            names = ("u0", "u1", "bounce0", "bounce1")
            addresses = {f"{random.choice(names)}@{random.choice(DOMAINS)}" for _ in range(random.choice((1, 1, 2, 4)))}
            sender = f"s@{random.choice(SENDER_DOMAINS)}"
            machine.submit(random.choice(living).number, sorted(addresses), sender=sender)
        elif choice < 0.06 + self.crashing and living:
            machine.crash(random.choice(living).number, random.random() < 0.5, random.random() < 0.5)
        elif choice < 0.12 and dead:
            self.start(random.choice(dead))
        elif choice < 0.13:
            machine.owners[random.choice([*DOMAINS, *SENDER_DOMAINS])] = random.randrange(self.count)
        elif choice < 0.15:
            machine.pass_time(random.choice((0.5, 0.5, 1.1, 3.0, 6.0)))
        elif choice < 0.55 and machine.pipes:
            machine.carry(random.choice(machine.pipes), random.choice((1, 7, 50, 1 << 20, 1 << 20)))
        elif living:
            machine.tick()
            actions = [action for action in machine.actions() if getattr(action, "__name__", "") != "<lambda>"]
            random.choice(actions)()

    def live(self, steps: int) -> None:
        for _ in range(steps):
            try:
                self.step()
            except PowerLost:
                self.machine.crash(self.losing_power, power_lost=True)


@pytest.mark.parametrize("seed", [*range(150), 3353])  # the last: a failed sync, a kill, a power loss
def test_crashes_at_random(seed: int) -> None:
    """Whatever dies whenever, and whatever the disk refuses: the promise holds, and nothing is left behind."""
    run = Run(seed)

    run.live(1200)
    run.machine.recover()

    run.machine.check()


def two_owners(machine: Machine) -> None:
    """A message for two other workers, and one for this and another."""
    machine.submit(0, ["a@d1.example", "b@d2.example"])
    machine.submit(0, ["c@d0.example", "d@d1.example"])


def one_owner(machine: Machine) -> None:
    """A message that another worker owns alone."""
    machine.submit(0, ["a@d1.example"])


def a_move(machine: Machine) -> None:
    """A message that goes to the worker that would look its domain up, and from there to its owner."""
    machine.owner_at_door = lambda domain: 1
    machine.submit(0, ["a@d2.example", "b@d0.example"])


def told_here(machine: Machine) -> None:
    """Two of one transaction are refused, with different replies; the sender's mail is the same worker's."""
    machine.submit(0, ["bounce@d0.example", "bounce2@d0.example"], sender="s@d0.example")


def told_there(machine: Machine) -> None:
    """One of two is refused; the sender's mail is another worker's."""
    machine.submit(0, ["bounce@d0.example", "a@d0.example"], sender="s@d1.example")


def told_by_two(machine: Machine) -> None:
    """Two workers tell one sender, whose mail goes first to the worker that would look its domain up."""
    machine.owner_at_door = lambda domain: 0 if domain == "d2.example" else machine.owners[domain]
    machine.submit(1, ["bounce@d0.example", "bounce@d1.example"], sender="s@d2.example")


@pytest.mark.parametrize("power_lost", [False, True], ids=["killed", "power"])
@pytest.mark.parametrize("scenario", [one_owner, two_owners, a_move, told_here, told_there, told_by_two])
def test_crash_at_every_step(scenario: Callable[[Machine], None], power_lost: bool) -> None:
    """Each worker dies after each step of a hand-off, and comes back at once or late."""

    def begin() -> Machine:
        machine = Machine(3)
        machine.owners = {f"d{number}.example": number for number in range(3)}
        for number in range(3):
            machine.start(number)
        machine.run()
        scenario(machine)
        return machine

    for steps in range(begin().run() + 1):
        for number in range(3):
            for late in (False, True):
                machine = begin()
                machine.run(steps)
                machine.crash(number, power_lost)
                if late:
                    machine.run()
                    machine.pass_time(3.0)
                    machine.run()
                machine.recover()
                machine.check()
                if scenario is one_owner and number == 1:
                    assert machine.answers("000000") == [b"250"], steps


@pytest.mark.parametrize("power_lost", [False, True], ids=["killed", "power"])
@pytest.mark.parametrize("scenario", [told_there, told_by_two])
def test_long_absence_after_every_step(scenario: Callable[[Machine], None], power_lost: bool) -> None:
    """A worker dies after each step and stays away until the others have given up what they would tell it, and have
    tried again: what was refused is taken now. Nobody is told that it was not."""

    def begin() -> Machine:
        machine = Machine(3)
        machine.owners = {f"d{number}.example": number for number in range(3)}
        for number in range(3):
            machine.start(number)
        machine.run()
        scenario(machine)
        return machine

    for steps in range(begin().run() + 1):
        for number in range(3):
            for lose_sent in (False, True):
                machine = begin()
                machine.run(steps)
                machine.crash(number, power_lost, lose_sent)
                machine.refuses = lambda address: False
                for seconds in ABSENCES_S:
                    machine.run()
                    machine.pass_time(seconds)
                machine.recover()
                machine.check()


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, 2)])
@pytest.mark.parametrize("scenario", [two_owners, a_move, told_by_two])
def test_two_crashes(scenario: Callable[[Machine], None], pair: tuple[int, int]) -> None:
    """Two workers die, the second so many steps after the first has come back; then their destinations change."""
    for first in range(0, 60, 2):
        for between in range(0, 50, 5):
            machine = Machine(3, seed=first * 100 + between)
            machine.owners = {f"d{number}.example": number for number in range(3)}
            for number in range(3):
                machine.start(number)
            machine.run()
            scenario(machine)
            machine.run(first)
            machine.crash(pair[0], power_lost=True)
            machine.start(pair[0])
            machine.run(between)
            machine.crash(pair[1], power_lost=True)
            machine.owners = {domain: (owner + 1) % 3 for domain, owner in machine.owners.items()}
            machine.recover()
            machine.check()
