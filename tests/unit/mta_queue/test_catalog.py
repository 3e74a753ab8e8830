"""What lives, and which segment may go."""

import pytest

from mta_queue.catalog import Catalog
from mta_queue.entry import Entry, Note
from mta_queue.record import Origin


def entry(parts: int = 1, due_s: float = 0.0, origin: Origin | None = None) -> Entry:
    return Entry(parts, 10, 20, 0, due_s, origin)


def catalog_with(*items_by_segment: list[int]) -> Catalog:
    """A catalog whose segments 1, 2, ... hold items with these seqs; closed, all told, and a newer one open."""
    catalog = Catalog()
    for number, seqs in enumerate(items_by_segment, 1):
        segment = catalog.begin_segment(number, 0)
        for seq in seqs:
            one = entry()
            catalog.add(seq, one)
            catalog.place(seq, one, segment, 48)
        catalog.close_segment(number)
    catalog.begin_segment(len(items_by_segment) + 1, 0)
    catalog.anchor = len(items_by_segment) + 1
    catalog.told = 1_000
    return catalog


def end(catalog: Catalog, seq: int) -> None:
    one = catalog.get(seq)
    assert one is not None
    catalog.end(seq, one)


def test_parts_end_one_by_one() -> None:
    """An item lives until its last part has its fate."""
    catalog = catalog_with([])
    one = entry(parts=3)
    catalog.add(5, one)
    catalog.place(5, one, catalog.segments[2], 48)

    catalog.end_parts(5, one, (0, 2))

    assert list(one.living_parts()) == [1]
    assert (catalog.parts_living, 5 in catalog, catalog.segments[2].living) == (1, True, 1)
    catalog.end_parts(5, one, (1,))
    assert (catalog.parts_living, 5 in catalog, catalog.segments[2].living) == (0, False, 0)


def test_ending_a_dead_part_changes_nothing() -> None:
    """A part has one final fate."""
    catalog = catalog_with([])
    one = entry(parts=2)
    catalog.add(5, one)

    catalog.end_parts(5, one, (0,))
    catalog.end_parts(5, one, (0,))

    assert catalog.parts_living == 1
    assert list(one.living_parts()) == [1]


def test_postponed_parts_have_their_own_times() -> None:
    """A postponed part is due when it was told to be, the others as at first; dead ones are not brought back."""
    catalog = catalog_with([])
    one = entry(parts=3, due_s=7.0)
    catalog.add(5, one)
    catalog.end_parts(5, one, (2,))

    catalog.postpone(5, one, (1, 2), 99.0, Note(5, b"note"))

    assert [(part, one.due_of(part)) for part in one.living_parts()] == [(0, 7.0), (1, 99.0)]
    assert one.postponed is not None
    assert one.postponed.keys() == {1}


def test_drop_is_idempotent() -> None:
    """An item that was never written leaves no trace."""
    catalog = catalog_with([])
    catalog.add(5, entry(parts=4))

    catalog.drop(5)
    catalog.drop(5)

    assert (len(catalog), list(catalog.seqs()), catalog.parts_living) == (0, [], 0)


def test_segment_with_a_living_item_stays() -> None:
    """A segment goes with its last item and not before."""
    catalog = catalog_with([1, 2])

    end(catalog, 1)
    assert catalog.removable() == []
    end(catalog, 2)
    assert catalog.removable() == [1]


def test_untold_segment_stays() -> None:
    """A segment stays until the event log has heard of its items and of their fates."""
    catalog = catalog_with([1])
    one = catalog.get(1)
    assert one is not None
    catalog.told = 0
    catalog.to_tell(one, 30)
    catalog.end(1, one)

    removable = []
    for told in (0, 1, 29, 30):
        catalog.told = told
        removable.append(catalog.removable())

    assert removable == [[], [], [], [1]]


def test_segment_with_fates_of_a_living_segment_stays() -> None:
    """A segment that ended items of another one outlives it, or they would rise again."""
    catalog = catalog_with([1], [2], [3])
    catalog.segments[2].refs = {1, 2}
    catalog.segments[3].refs = {2}
    for seq in (2, 3):
        end(catalog, seq)

    assert catalog.removable() == []
    end(catalog, 1)
    assert catalog.removable() == [1]
    catalog.remove(1)
    assert catalog.removable() == [2]
    catalog.remove(2)
    assert catalog.removable() == [3]


def test_newest_durable_segment_stays() -> None:
    """The newest segment known to be on stable storage stays: its header says where numbers go on."""
    catalog = catalog_with([], [])
    catalog.anchor = 2

    assert catalog.removable() == [1]


def test_open_segment_stays() -> None:
    """A segment that is being written may be empty for a moment and still gets items."""
    catalog = catalog_with([])
    catalog.anchor = 9
    segment = catalog.segments[2]
    one = entry()
    catalog.add(5, one)
    catalog.place(5, one, segment, 48)

    catalog.end(5, one)

    assert 2 not in catalog.removable()
    catalog.close_segment(2)
    assert 2 in catalog.removable()


def test_arriving_items_are_told_elsewhere() -> None:
    """An item from another log does not hold its segment for the event log's sake."""
    catalog = catalog_with([])
    one = entry(origin=Origin(4, 77))
    catalog.add(5000, one)

    catalog.place(5000, one, catalog.segments[2], 48)

    assert catalog.segments[2].tell_number == 0


@pytest.mark.parametrize("parts", [1, 2, 63, 64, 65, 1000])
def test_living_parts_of_many(parts: int) -> None:
    """All parts live at first, however many."""
    assert list(entry(parts).living_parts()) == list(range(parts))
