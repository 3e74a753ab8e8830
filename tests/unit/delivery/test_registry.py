"""The registry: what is in hand, by item."""

from hypothesis import given
from hypothesis import strategies as st

from mta.delivery.job import Job
from mta.delivery.registry import HELD_S, Registry, is_held
from mta.model.envelope import Envelope, Recipient


def job(seq: int, *parts: int) -> Job:
    recipients = [Recipient(f"r{part}@a.test", "a.test") for part in range(10)]
    return Job(seq, parts, "a.test", Envelope("m", "", recipients, 0.0, 0), None, "")


def test_jobs_of_an_item_are_found_until_they_end():
    """One, several, and none again."""
    registry = Registry()
    first, second = job(7, 0), job(7, 1, 2)

    assert registry.jobs(7) == ()
    registry.add(first)
    assert list(registry.jobs(7)) == [first]
    registry.add(second)
    assert list(registry.jobs(7)) == [first, second]
    assert registry.in_hand(7) == {0, 1, 2}
    registry.remove(first)
    assert registry.in_hand(7) == {1, 2}
    registry.remove(second)
    assert registry.jobs(7) == ()
    assert len(registry) == 0


def test_a_job_that_is_not_known_may_be_removed():
    """Whoever ends a job twice does no harm, nor to another job of the same item."""
    registry = Registry()
    known = job(7, 0)
    registry.add(known)

    registry.remove(job(7, 1))
    registry.remove(job(8, 0))
    registry.add(known)

    assert list(registry.jobs(7)) == [known]


def test_what_leaves_is_in_hand_until_it_has_left():
    """In any order, and as often as somebody says so."""
    registry = Registry()
    registry.leave(7, (0, 1))
    registry.leave(7, (4,))

    assert registry.in_hand(7) == {0, 1, 4}
    registry.left(7, (0, 1))
    assert list(registry.leaving(7)) == [4]
    registry.left(7, (4,))
    registry.left(7, (4,))
    assert registry.in_hand(7) == set()


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 5)), max_size=60))
def test_it_knows_what_a_plain_list_knows(steps: list[tuple[int, bool, int]]):
    """Whatever comes and goes."""
    registry = Registry()
    jobs: list[Job] = []
    for seq, comes, which in steps:
        if comes or not jobs:
            jobs.append(job(seq, which))
            registry.add(jobs[-1])
        else:
            registry.remove(jobs.pop(which % len(jobs)))

    for seq in range(4):
        assert set(registry.jobs(seq)) == {each for each in jobs if each.seq == seq}
    assert len(registry) == len({each.seq for each in jobs})


def test_no_time_of_a_schedule_is_held():
    """Not even one that means "never"."""
    assert not is_held(0.0)
    assert not is_held(32_503_680_000.0)
    assert is_held(HELD_S)
    assert is_held(HELD_S + 1_700_000_000.0)
