"""Lending: one worker keeps a key's account, all others get theirs over their links."""

from typing import cast

from mta.handoff.lending import Lending
from mta.model.clock import Clock
from mta.testing.machine import Machine
from mta_policies.cross_limit import CrossLimit
from mta_policies.leases import LEASE_S, Lease, Shut
from mta_policies.reservations import Ask, Report
from mta_policies.schema import Quota
from mta_policies.units import Rate

RATE = CrossLimit("tenant", "*", (Rate(10, 1),))


class Side:
    """One worker's lending, and what it was told."""

    def __init__(self, machine: Machine, number: int, *limits: CrossLimit, is_fresh: bool = True) -> None:
        self.leases: list[Lease] = []
        self.told: list[Shut] = []
        self.new_lenders: list[int] = []
        self.saves = 0
        self.lending = Lending(machine.worker(number).mesh, cast(Clock, machine), 3, is_fresh=is_fresh)
        self.lending.start(self, limits)

    def granted(self, lease: Lease) -> None:
        self.leases.append(lease)

    def shut(self, shut: Shut) -> None:
        self.told.append(shut)

    def lender_is_new(self, worker: int) -> None:
        self.new_lenders.append(worker)

    def has_to_save(self) -> None:
        self.saves += 1

    def ask(self, key: str, count: int) -> None:
        self.lending.tell([Ask(key, count)], [])

    @property
    def counts(self) -> list[int]:
        return [lease.count for lease in self.leases]


def machine_of_three(*limits: CrossLimit) -> tuple[Machine, list[Side]]:
    machine = Machine(3)
    for number in range(3):
        machine.start(number)
    sides = [Side(machine, number, *limits) for number in range(3)]
    machine.run()
    return machine, sides


def key_of(side: Side, lender: int) -> str:
    """Of an account that this worker keeps."""
    return next(key for i in range(100) if side.lending.lender(key := f"tenant t{i}") == lender)


def test_what_is_lent_to_one_is_not_there_for_another() -> None:
    """The keeper itself has it at once, others over their links; what comes back may be lent again."""
    machine, (one, two, three) = machine_of_three(RATE)
    key = key_of(one, 0)

    one.ask(key, 4)
    assert one.counts == [4]
    two.ask(key, 100)
    machine.run()
    assert two.counts == [6]
    three.ask(key, 100)
    machine.run()
    assert three.counts == []
    two.lending.tell([], [Report(two.leases[0].id, key, 1, is_done=True)])
    machine.run()

    assert three.counts == [5]


def test_each_key_has_one_keeper() -> None:
    """Whom all workers ask, and every worker keeps some."""
    _, sides = machine_of_three(RATE)

    keepers = [{side.lending.lender(f"tenant t{i}") for side in sides} for i in range(50)]

    assert all(len(found) == 1 for found in keepers)
    assert set.union(*keepers) == {0, 1, 2}


def test_a_dead_worker_has_used_what_it_did_not_report() -> None:
    """Its tokens are not lent again at once, as if they had not gone, nor kept for it."""
    machine, (one, two, _) = machine_of_three(RATE)
    key = key_of(one, 0)
    machine_ends = machine.now_s
    two_lending = Side(machine, 2, RATE)
    two_lending.ask(key, 7)
    machine.run()
    assert two_lending.counts == [7]

    machine.crash(2)
    machine.run()
    two.ask(key, 100)
    machine.run()
    assert sum(two.counts) <= 3 + 10 * (machine.now_s - machine_ends) + 1
    machine.pass_time(0.5)
    machine.run()

    assert sum(two.counts) <= 3 + 10 * (machine.now_s - machine_ends) + 1
    assert two.counts


def test_a_new_keeper_lends_nothing_before_the_leases_of_the_old_one_have_ended() -> None:
    """And whoever waits is told that it is new, to ask again."""
    machine, (one, two, _) = machine_of_three(RATE)
    key = key_of(one, 0)
    two.ask(key, 2)
    machine.run()
    machine.crash(0)
    machine.run()
    two.new_lenders.clear()

    machine.start(0)
    again = Side(machine, 0, RATE, is_fresh=False)
    begins_s = machine.now_s + LEASE_S
    machine.run()
    assert two.new_lenders == [0]
    two.ask(key, 2)
    again.ask(key, 2)
    machine.run()
    assert two.counts == [2]
    while machine.now_s < begins_s + 0.5:
        machine.pass_time(0.05)
        machine.run()

    assert two.counts[1:]
    assert again.counts
    assert two.leases[1].id > two.leases[0].id
    assert two.leases[1].until_s > begins_s


def test_a_quota_waits_until_it_is_written_down_and_says_when_it_is_used_up() -> None:
    """What was saved is all that a crash may have used."""
    machine, (one, two, _) = machine_of_three(CrossLimit("tenant", "*", (), Quota(2, "day")))
    key = key_of(one, 0)

    two.ask(key, 2)
    machine.run()
    assert two.counts == []
    assert one.saves
    for _ in range(2):
        one.lending.saved(one.lending.to_save(machine.now_s))
        machine.run()
        two.ask(key, 2)
        machine.run()
    one.lending.saved(one.lending.to_save(machine.now_s))
    machine.run()
    for lease in list(two.leases):
        two.lending.tell([Ask(key, 2)], [Report(lease.id, key, 1, is_done=True)])
        machine.run()

    assert two.counts == [1, 1]
    assert [(shut.key, shut.why) for shut in two.told] == [(key, "quota")]
    assert two.told[0].until_s % 86400 == 0
    assert list(one.lending.dump(machine.now_s)) == [key]


def test_a_worker_takes_up_only_what_it_keeps() -> None:
    """Of what was saved by all."""
    machine, (one, two, _) = machine_of_three(CrossLimit("tenant", "*", (), Quota(100, "day")))
    states = {key_of(one, 0): {"0": 5}, key_of(one, 1): {"0": 7}}

    for side in (one, two):
        side.lending.load(states)

    assert one.lending.dump(machine.now_s) == {key_of(one, 0): {"0": 5}}
    assert two.lending.dump(machine.now_s) == {key_of(one, 1): {"0": 7}}


def test_another_limit_holds_at_once() -> None:
    """None: nothing is lent any more of what was asked."""
    machine, (one, two, _) = machine_of_three(RATE)
    key = key_of(one, 0)

    one.lending.change([CrossLimit("tenant", "*", (Rate(1, 3600),))])
    two.ask(key, 10)
    machine.run()

    assert two.counts == []
    assert [shut.why for shut in two.told] == ["rate"]
