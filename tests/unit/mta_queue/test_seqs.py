"""Numbers in bulk: queue, set, and what is spilled, against plain lists and sets."""

import sys
from array import array

from hypothesis import given
from hypothesis import strategies as st

from mta_queue.seqs import Seqs, SeqSet
from mta_queue.spilled import Spilled


@given(
    st.lists(st.integers(0, 2**40) | st.lists(st.integers(0, 9), max_size=9) | st.just(-1), max_size=60),
    st.integers(1, 9),
)
def test_a_queue(steps: list[int | list[int]], most: int):
    """First in, first out, whatever comes one by one and whatever in one piece."""
    seqs, expected = Seqs(), list[int]()
    for step in steps:
        if isinstance(step, list):
            seqs.extend(array("Q", step))
            expected += step
        elif step >= 0:
            seqs.append(step)
            expected.append(step)
        else:
            assert seqs.take(most) == expected[:most]
            del expected[:most]
        assert len(seqs) == len(expected)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=100))
def test_a_set(steps: list[tuple[bool, int]]):
    """Whatever is added and discarded; an empty one holds nothing."""
    seqs, expected = SeqSet(), set[int]()
    for adds, seq in steps:
        if adds:
            seqs.add(seq)
            expected.add(seq)
        else:
            assert seqs.discard(seq) is (seq in expected)
            expected.discard(seq)
        assert bool(seqs) is bool(expected)
    assert [seq for seq in range(3001) if seq in seqs] == sorted(expected)
    assert seqs.discard_all(range(3001)) == sorted(expected)


@given(
    st.lists(
        st.tuples(st.just("add"), st.integers(0, 5))
        | st.tuples(st.sampled_from(("take", "expire")), st.integers(1, 6)),
        max_size=80,
    )
)
def test_spilled(steps: list[tuple[str, int]]):
    """In order, but for what is over: that is found wherever it is, never early and at most a minute late."""
    spilled, expected = Spilled(), list[tuple[int, float]]()
    for seq, (step, value) in enumerate(steps):
        if step == "add":
            spilled.append(seq, value * 60.0 + 1)
            expected.append((seq, value * 60.0 + 1))
        elif step == "take":
            assert spilled.take(value) == [each for each, _ in expected[:value]]
            del expected[:value]
        else:
            over = spilled.expired(value * 60.0)
            assert over == [each for each, expires_s in expected if expires_s <= value * 60.0]
            expected = [(each, expires_s) for each, expires_s in expected if expires_s > value * 60.0]
        assert len(spilled) == len(expected)
        assert [spilled.place(each) for each, _ in expected] == list(range(len(expected)))


def test_what_a_million_costs():
    """At most 16 bytes for each that waits as a number, its place in the set included."""
    spilled, seqs = Spilled(), SeqSet()
    count = 100_000
    for number in range(count):
        seq = 3 * number  # fates and items share the numbers
        spilled.append(seq, 1e9)
        seqs.add(seq)

    chunks = sum(sys.getsizeof(chunk.seqs) + sys.getsizeof(chunk.minutes) + 200 for chunk in spilled._chunks)
    pages = sum(sys.getsizeof(page) + 100 for page in seqs._pages.values())
    assert chunks + pages < 16 * count


def test_weeding():
    """What is not wanted is taken out of one chunk; the others are as they were, in their order."""
    spilled = Spilled()
    for seq in range(2500):
        spilled.append(seq, 60.0 * seq)
    spilled.take(10)

    assert spilled.weed(0, lambda seq: seq % 2 == 0) == list(range(11, 1024, 2))
    assert spilled.weed(7, lambda seq: False) == []
    assert spilled.expired(60.0 * 12) == [10]
    assert spilled.take(10_000) == [*range(12, 1024, 2), *range(1024, 2500)]
