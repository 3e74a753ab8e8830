"""What found files mean: the tables, and the queue rebuilt from records."""

from collections.abc import Iterator

import pytest

from mta_queue import record, recovery
from mta_queue.rebuilding import Rebuilding
from mta_queue.record import Damage, FileHeader, Found, Origin, Record
from mta_queue.recovered import Recovered
from mta_queue.recovery import BYTES
from mta_queue.retention import Segment

MARKER = 7


class Pages:
    """A segment as a reader would give it."""

    def __init__(self, *met: bytes | Damage, number: int = 1, told: int = 0, is_sealed: bool = True, torn: int = -1):
        self.header: FileHeader | None = FileHeader(record.VERSION, MARKER, 0, number, 1, told)
        self.marker: int | None = MARKER
        self.is_sealed = is_sealed
        self.met: list[Found | Damage] = []
        for at, one in enumerate(met):
            if isinstance(one, Damage):
                self.met.append(one)
                continue
            found = record.decode(one, 0, MARKER)
            assert found is not None
            self.met.append(Found(1000 * number + at, found, at != torn))

    def records(self, *, verify_content: bool) -> Iterator[Found | Damage]:
        yield from self.met


def item(seq: int, parts: int = 1, due_s: float = 0.0, origin: Origin | None = None) -> bytes:
    return record.encode_item(MARKER, seq, f"id-{seq}", b"meta-%d" % seq, parts, 9, 0, due_s, origin)


def fate(number: int, kind: int, seq: int, *parts: int, note: bytes = b"", due_s: float = 0.0) -> bytes:
    return record.encode_fate(MARKER, number, kind, seq, parts, note, due_s)


def rebuilt(*pages: Pages) -> tuple[Rebuilding, Recovered]:
    """The queue that segments 1, 2, ... amount to."""
    rebuilding = Rebuilding()
    found: dict[tuple[int, int], Record] = {}
    for number, one in enumerate(pages, 1):
        rebuilding.take(number, f"segment {number}", one, verify_content=True, keep_ids=True)
        found |= {(number, met.offset): met.record for met in one.met if isinstance(met, Found)}

    def read_payload(segment: Segment, offset: int) -> Record | None:
        return found.get((segment.number, offset))

    return rebuilding, rebuilding.recovered(read_payload)


def test_only_torn_ends_are_passed_over_silently() -> None:
    """A crash may tear the end of a segment that has no seal; everything else is reported."""
    silent = {case for case in BYTES.cases() if not BYTES.decide(*case).report}

    assert silent == {("record", False, False), ("content", False, False)}


@pytest.mark.parametrize(
    ("version", "marker", "is_blank", "expected"),
    [
        (record.VERSION, 1, False, "good"),
        (record.VERSION + 1, 1, False, "newer"),
        (None, 1, False, "damaged"),
        (None, 1, True, "damaged"),
        (None, None, True, "blank"),
        (None, None, False, "unreadable"),
    ],
)
def test_beginnings(version: int | None, marker: int | None, is_blank: bool, expected: str) -> None:
    """How a file begins follows from its header, its first record and its emptiness."""
    header = FileHeader(version, 1, 0, 1, 1, 0) if version is not None else None

    assert recovery.beginning(header, marker, is_blank=is_blank) == expected


def test_waiting() -> None:
    """An item waits with the parts that have no final fate, each with its own due time."""
    _, recovered = rebuilt(
        Pages(
            item(1, parts=3, due_s=5.0),
            fate(2, record.FINISHED, 1, 1),
            fate(3, record.POSTPONED, 1, 2, due_s=70.0),
            fate(4, record.POSTPONED, 1, 2, due_s=60.0),
            item(5),
        )
    )

    assert list(recovered.waiting) == [(1, ((0, 5.0), (2, 60.0))), (5, ((0, 0.0),))]
    assert recovered.recent == [(1, "id-1"), (5, "id-5")]


@pytest.mark.parametrize("kind", [record.FINISHED, record.MOVED, record.FORGOTTEN])
def test_ended(kind: int) -> None:
    """Finished, moved and forgotten items do not wait."""
    _, recovered = rebuilt(Pages(item(1)), Pages(fate(2, kind, 1, 0), number=2))

    assert list(recovered.waiting) == []


def test_arriving() -> None:
    """An item from another log waits for its origin's word until it was released."""
    _, recovered = rebuilt(
        Pages(item(1, origin=Origin(4, 9)), item(2, origin=Origin(4, 10)), fate(3, record.ARRIVED, 2))
    )

    assert recovered.arriving == [(1, "id-1", Origin(4, 9))]
    assert [seq for seq, _ in recovered.waiting] == [2]


def test_untold_in_order() -> None:
    """What was not told comes in the order in which it happened, with its item's meta, also where that is dead."""
    _, recovered = rebuilt(
        Pages(item(1, parts=2), fate(2, record.TOLD, 1), fate(3, record.POSTPONED, 1, 1, note=b"p", due_s=8.0)),
        Pages(item(4), fate(5, record.FINISHED, 1, 0, 1, note=b"f"), fate(6, record.MOVED, 4, 0), number=2),
    )

    assert [(one.kind, one.seq, one.parts, one.meta, one.note, one.due_s) for one in recovered.untold] == [
        ("postponed", 1, (1,), b"meta-1", b"p", 8.0),
        ("item", 4, (0,), b"meta-4", b"", 0.0),
        ("finished", 1, (0, 1), b"meta-1", b"f", 0.0),
    ]


def test_told_in_a_header() -> None:
    """A segment's header tells up to where all was told when it was begun."""
    _, recovered = rebuilt(Pages(item(1), item(2)), Pages(number=2, told=1))

    assert [one.seq for one in recovered.untold] == [2]


def test_forgotten_and_arriving_items_are_not_told() -> None:
    """Nobody hears of what was never accepted, nor twice of what came from another log."""
    _, recovered = rebuilt(Pages(item(1), item(2, origin=Origin(4, 9)), fate(3, record.FORGOTTEN, 1)))

    assert recovered.untold == []


def test_a_fate_written_twice_counts_once() -> None:
    """After a failed sync fates are written again in the next segment: the second copies change and tell nothing."""
    again = fate(2, record.POSTPONED, 1, 0, note=b"p", due_s=3.0)
    end = fate(3, record.FINISHED, 1, 0, note=b"f")

    rebuilding, recovered = rebuilt(Pages(item(1), again, end), Pages(again, end, number=2))

    assert [(one.seq, one.kind) for one in recovered.untold] == [(1, "item"), (1, "postponed"), (1, "finished")]
    assert rebuilding.catalog.parts_living == 0
    assert rebuilding.catalog.segments[2].refs == {1}


def test_refs() -> None:
    """A segment is bound to those whose items its fates are about, and to no other."""
    rebuilding, _ = rebuilt(
        Pages(item(1)),
        Pages(item(2), number=2),
        Pages(item(3), fate(4, record.POSTPONED, 1, 0), fate(5, record.FINISHED, 99, 0), number=3),
    )

    assert [rebuilding.catalog.segments[number].refs for number in (1, 2, 3)] == [set(), set(), {1}]


def test_empty_for_a_moment() -> None:
    """A segment that had no living item somewhere in its middle is not taken for empty."""
    rebuilding, _ = rebuilt(Pages(item(1), fate(2, record.FINISHED, 1, 0), item(3), told=9))
    rebuilding.catalog.anchor = 5

    assert rebuilding.catalog.removable() == []


def test_numbers_go_on() -> None:
    """No number comes twice: neither one of a record, nor one that a header or a TOLD speaks of."""
    first, _ = rebuilt(Pages(item(41), fate(42, record.FINISHED, 41, 0)))
    second, _ = rebuilt(Pages(number=1, told=70))
    third, _ = rebuilt(Pages(fate(3, record.TOLD, 50)))

    assert (first.next_number, second.next_number, third.next_number) == (43, 71, 51)


def test_torn_item_leaves_its_number() -> None:
    """An item whose content did not arrive is not there, but its number is used up."""
    rebuilding, recovered = rebuilt(Pages(item(1), item(2), is_sealed=False, torn=1))

    assert [seq for seq, _ in recovered.waiting] == [1]
    assert rebuilding.next_number == 3
    assert recovered.set_aside == []


def test_torn_item_in_the_middle_is_reported() -> None:
    """A bad content with whole records behind it may have been accepted mail: the admin is told, the file kept."""
    rebuilding, recovered = rebuilt(Pages(item(1), item(2), is_sealed=False, torn=0))

    assert recovered.set_aside == ["segment 1: item id-1 at 1000: torn content, never acknowledged or damaged"]
    assert rebuilding.catalog.segments[1].damaged


@pytest.mark.parametrize(
    ("is_sealed", "followed", "lines"), [(True, True, 1), (True, False, 1), (False, True, 1), (False, False, 0)]
)
def test_damage(is_sealed: bool, followed: bool, lines: int) -> None:
    """Damage is reported by the table, and the records around it count."""
    rest = (item(2),) if followed else ()

    rebuilding, recovered = rebuilt(Pages(item(1), Damage(50, 9, followed), *rest, is_sealed=is_sealed))

    assert len(recovered.set_aside) == lines
    assert rebuilding.catalog.segments[1].damaged == bool(lines)
    assert [seq for seq, _ in recovered.waiting] == [1, 2][: 1 + followed]


def test_untold_item_that_cannot_be_read() -> None:
    """A fate whose item is not readable is reported instead of told."""
    rebuilding = Rebuilding()
    rebuilding.take(1, "one", Pages(item(1), fate(2, record.FINISHED, 1, 0)), verify_content=True)

    recovered = rebuilding.recovered(lambda segment, offset: None)

    assert recovered.untold == []
    assert len(recovered.set_aside) == 2


FIRST = fate(2, record.RESCHEDULED, 1, 0, due_s=5.0)
SECOND = fate(3, record.POSTPONED, 1, 0, note=b"said", due_s=9.0)
HOLE = Damage(500, 60, True)


@pytest.mark.parametrize(
    ("written", "again", "due_s"),
    [
        ((FIRST, SECOND), (FIRST, SECOND), 9.0),
        ((FIRST, SECOND), (FIRST,), 9.0),
        ((FIRST, SECOND), (FIRST, HOLE, SECOND), 9.0),
        ((FIRST, SECOND), (FIRST, HOLE), 9.0),
        ((FIRST,), (FIRST, SECOND), 9.0),
        ((FIRST,), (FIRST, HOLE), 5.0),
        ((), (FIRST, SECOND), 9.0),
        ((), (FIRST,), 5.0),
    ],
)
def test_what_was_written_again(written: tuple[bytes, ...], again: tuple[bytes | Damage, ...], due_s: float) -> None:
    """After a failed sync fates are written a second time: whatever of both is torn, no older one comes last."""
    pages = Pages(item(1), *written, is_sealed=False), Pages(*again, number=2, is_sealed=False)

    rebuilding, _ = rebuilt(*pages)

    assert rebuilding.catalog.dues(1) == [(0, due_s)]
