"""Stages: the lane of mail that is signed before its turn; it counts and shows what is in any of them."""

from random import Random

import pytest

from mta.delivery.job import Job, Signature
from mta.delivery.stages import Stages, is_signed
from mta.model.envelope import Envelope, Recipient


def job(seq: int = 1, priority: int = 5, signed: bool = False) -> Job:
    envelope = Envelope("id", "a@x", [Recipient("b@x", "x")], 0.0, 1, priority=priority)
    return Job(seq, (0,), "x", envelope, b"content", "", signature=Signature(b"fields") if signed else None)


def test_signed():
    """A job is signed when its fields are there, also where there was nothing to sign."""
    assert not is_signed(job())
    assert is_signed(job(signed=True))
    plain, begun = job(), job()
    plain.signature, begun.signature = Signature(b""), Signature()
    assert is_signed(plain)
    assert not is_signed(begun)


def test_counts_all_stages():
    """What is being signed or ready is in the lane."""
    stages = Stages()
    waiting, signing, ready = job(1), job(2), job(3, signed=True)
    stages.push(5, waiting)
    stages.begin(signing, 0.0)
    stages.ready.push(5, ready)

    assert len(stages) == 3
    assert (len(stages) - stages.ahead, stages.ahead) == (1, 2)
    assert set(stages) == {waiting, signing, ready}
    assert stages


def test_ready_goes_first():
    """What is ready goes before what waits, whatever their priorities: the urgent is not signed yet."""
    stages = Stages()
    urgent, ready = job(1, 9), job(2, 1, signed=True)
    stages.push(9, urgent)
    stages.ready.push(1, ready)

    assert stages.peek() is ready
    assert stages.pop() is ready
    assert stages.peek() is urgent
    assert stages.pop() is urgent
    assert stages.peek() is None
    assert not stages
    with pytest.raises(IndexError):
        stages.pop()


def test_priorities():
    """The highest of all stages, and of those that wait."""
    stages = Stages()
    assert (stages.head_priority(), stages.unsigned_priority()) == (-1, -1)

    stages.push(2, job(1, 2))
    seven, other_seven = job(2, 7), job(3, 7)
    stages.begin(seven, 0.0)
    stages.begin(other_seven, 0.0)
    stages.ready.push(4, job(4, 4, signed=True))

    assert (stages.head_priority(), stages.unsigned_priority()) == (7, 2)
    stages.leave(seven)
    assert stages.head_priority() == 7
    stages.leave(other_seven)
    assert stages.head_priority() == 4
    stages.ready.pop()
    assert stages.head_priority() == 2


def test_front():
    """Who had his turn is first again: among the ready ones if he is signed."""
    stages = Stages()
    stages.ready.push(5, job(1, signed=True))
    stages.push(5, job(2))
    signed, unsigned = job(3, signed=True), job(4)

    stages.push_front(5, signed)
    stages.push_front(5, unsigned)

    assert stages.ready.peek() is signed
    assert stages.peek_unsigned() is unsigned


def test_leaves_once():
    """A job that was taken away is not there when its signature comes."""
    stages = Stages()
    one = job()
    stages.begin(one, 0.0)

    assert stages.leave(one)
    assert not stages.leave(one)


def test_drain():
    """Everything comes out once: ready, being signed, waiting; and nothing is left."""
    stages = Stages()
    waiting, signing, ready = job(1), job(2), job(3, signed=True)
    stages.push(5, waiting)
    stages.begin(signing, 0.0)
    stages.ready.push(5, ready)

    assert stages.remove(lambda each: True) == [ready, signing, waiting]
    assert len(stages) == 0
    assert stages.head_priority() == -1


@pytest.mark.parametrize("seed", range(20))
def test_any_order(seed: int):
    """Whatever is done, nothing is lost or doubled and the counts agree."""
    random = Random(seed)
    stages = Stages()
    inside: set[Job] = set()
    for number in range(400):
        act = random.randrange(6)
        one = job(number, random.randrange(10), signed=random.random() < 0.3)
        if act == 0:
            stages.push(one.priority, one)
            inside.add(one)
        elif act == 1:
            stages.push_front(one.priority, one)
            inside.add(one)
        elif act == 2 and stages.has_unsigned:
            stages.begin(stages.pop_unsigned(), 0.0)
        elif act == 3 and stages.signing:
            signed = random.choice(list(stages.signing))
            assert stages.leave(signed)
            stages.ready.push(signed.priority, signed)
        elif act == 4 and (stages.ready or stages.has_unsigned):
            head = stages.peek()
            assert stages.pop() is head
            assert head is not None
            inside.remove(head)
        assert len(stages) == len(inside)
        assert set(stages) == inside
        assert stages.head_priority() == max((each.priority for each in inside), default=-1)
        ahead = [*stages.ready, *stages.signing]
        assert [stages.ahead_of(priority) for priority in range(10)] == [
            sum(each.priority >= priority for each in ahead) for priority in range(10)
        ]
        assert stages.signing_filled == sum({1 << each.priority for each in stages.signing})
