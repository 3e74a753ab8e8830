"""The owner: what is appended here belongs to its door until that lets it go."""

from mta.testing.machine import Machine


def test_kept_back_until_all_owners_have_it() -> None:
    """A message of two owners is nobody's business before both have it; afterwards it is delivered."""
    machine = Machine(2)
    machine.owners = {"d0.example": 0, "d1.example": 1}
    for number in range(2):
        machine.start(number)
    machine.run()
    for pipe in machine.pipes:
        pipe.is_clogged = True
    worker = machine.worker(0)
    worker.deliver = lambda: False
    machine.submit(0, ["a@d0.example", "b@d1.example"])
    machine.run()
    [seq] = worker.store.seqs()

    assert worker.owner.is_kept_back(seq)
    assert not worker.jobs
    for pipe in machine.pipes:
        pipe.is_clogged = False
    machine.run()

    assert not worker.owner.is_kept_back(seq)
    assert [job[0] for job in worker.jobs] == [seq]
