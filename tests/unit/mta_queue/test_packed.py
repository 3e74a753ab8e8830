"""Packed items against a dict, and the catalog that packs against one that keeps everything."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_queue import packed
from mta_queue.catalog import Catalog
from mta_queue.entry import Entry, Note, State
from mta_queue.packed import CHUNK_ROWS, ROW_BYTES, Packed, Row
from mta_queue.record import Origin


def row(seq: int, due_s: float = 0.0) -> Row:
    return Row(seq % 1000, seq % 7, 10, 20, seq, due_s, 1 << seq % 5, seq % 3, seq % 11, 5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 80))), st.integers(2, 9))
def test_rows_are_kept_like_in_a_dict(steps: list[tuple[bool, int]], chunk_rows: int) -> None:
    """Whatever is put in and taken out in whatever order, each item has its last row and all come in order."""
    rows, model = Packed(), dict[int, Row]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "CHUNK_ROWS", chunk_rows)
        patch.setattr(packed, "_CROWDED", chunk_rows * 3 // 4)
        patch.setattr(packed, "_SPARSE", max(1, chunk_rows // 4))
        for at, (puts, seq) in enumerate(steps):
            if puts:
                model[seq] = row(seq, float(at))
                rows.put(seq, *model[seq])
            elif model.pop(seq, None) is not None:
                rows.remove(seq)

            assert len(rows) == len(model)
        assert [seq for seqs in rows.slices() for seq in seqs] == sorted(model)
        assert {seq: rows.get(seq) for seq in range(82)} == {seq: model.get(seq) for seq in range(82)}
        for wanted in (range(82), range(81, -1, -1), sorted(model), [*model, *range(9)]):
            found = [model.get(seq) for seq in wanted]
            assert rows.rows(list(wanted)) == found
            assert rows.stands(list(wanted)) == [
                None if one is None else (one.due_s, one.mask, one.note_segment, one.note_offset) for one in found
            ]
        assert all(0 < len(seqs) <= chunk_rows for seqs in rows.slices())


def test_chunks_stay_filled() -> None:
    """However many items go, what is left lies close together."""
    rows, random = Packed(), Random(1)
    seqs = list(range(20 * CHUNK_ROWS))
    for seq in seqs:
        rows.put(seq, *row(seq))
    random.shuffle(seqs)

    for seq in seqs[CHUNK_ROWS:]:
        rows.remove(seq)

    assert len(rows) == CHUNK_ROWS
    assert len(rows.slices()) <= 4
    assert ROW_BYTES + 8 == 56


class Model:
    """What a catalog should say: item -> part -> (due, note)."""

    def __init__(self) -> None:
        self.items: dict[int, dict[int, tuple[float, bytes]]] = {}
        self.homes: dict[int, int] = {}


Disk = dict[tuple[int, int], bytes | dict[int, bytes]]
"""Where notes came to rest: of a postponement one, of a copy one for each part."""


def notes_of(catalog: Catalog, seq: int, disk: Disk) -> dict[int, tuple[float, bytes]]:
    entry = catalog.get(seq)
    assert entry is not None
    found = {}
    for part in entry.living_parts():
        note = entry.note_of(part)
        text = b"" if note is None else note.data if note.data is not None else disk[note.segment, note.offset]
        found[part] = (entry.due_of(part), text if isinstance(text, bytes) else text[part])
    return found


@pytest.mark.parametrize("seed", range(30))
def test_the_catalog_like_a_model(seed: int) -> None:
    """Through appends, fates, notes that come to rest, cooling and copies an item's parts, times, notes and place are
    what was asked for last, and every count is right."""
    random = Random(seed)
    catalog, model = Catalog(), Model()
    disk: Disk = {}
    unsettled: list[Note] = []
    copying: list[tuple[int, list[State], int, dict[int, bytes]]] = []
    segment = catalog.begin_segment(1, 0)
    seq = number = 0

    def living() -> int:
        return random.choice(list(model.items))

    def append() -> None:
        nonlocal seq
        seq += random.randint(1, 3)
        parts = random.choice((1, 1, 1, 2, 3, 70))
        entry = Entry(parts, 10, 20, seq, 5.0, None)
        catalog.add(seq, entry)
        catalog.place(seq, entry, segment, seq)
        model.items[seq] = dict.fromkeys(range(parts), (5.0, b""))
        model.homes[seq] = segment.number

    def chosen(one: int) -> list[int]:
        parts = list(model.items[one])
        return parts if random.random() < 0.6 else random.sample(parts, random.randint(1, len(parts)))

    def finish() -> None:
        one = living()
        entry, parts = catalog.get(one), chosen(one)
        assert entry is not None
        catalog.end_parts(one, entry, parts)
        for part in parts:
            del model.items[one][part]
        if not model.items[one]:
            del model.items[one], model.homes[one]

    def postpone() -> None:
        nonlocal number
        number += 1
        one = living()
        entry, parts, text = catalog.get(one), chosen(one), b"%d" % number
        assert entry is not None
        if random.random() < 0.3:
            catalog.reschedule(one, entry, parts, float(number))
            for part in parts:
                model.items[one][part] = (float(number), model.items[one][part][1])
            return
        note = Note(one, text) if random.random() < 0.9 else None
        catalog.postpone(one, entry, parts, float(number), note)
        if note is not None:
            unsettled.append(note)
        for part in parts:
            model.items[one][part] = (float(number), text if note is not None else b"")

    def settle() -> None:
        for note in unsettled[: random.randint(0, len(unsettled))]:
            assert note.data is not None
            number = int(note.data)
            disk[segment.number, number] = note.data
            note.segment, note.offset = segment.number, number
            catalog.note_placed(note)
            unsettled.remove(note)

    def cool() -> None:
        catalog.cool(seq - random.randint(0, 20), 10)

    def begin() -> None:
        nonlocal segment
        catalog.close_segment(segment.number)
        segment = catalog.begin_segment(segment.number + 1, 0)

    def copy() -> None:
        one = living()
        entry = catalog.get(one)
        assert entry is not None
        texts = {part: text for part, (_, text) in notes_of(catalog, one, disk).items()}
        copying.append((one, entry.states(), 1_000_000 + 100 * number + len(copying), texts))

    def relocate() -> None:
        begin()
        home = segment
        begin()
        for one, states, offset, texts in copying:
            disk[home.number, offset] = texts
            assert catalog.relocate(one, home, offset, 50, states) == (one in model.items)
            if one in model.items:
                model.homes[one] = home.number
        copying.clear()

    def move_note() -> None:
        one = living()
        entry = catalog.get(one)
        assert entry is not None
        note = entry.note_of(entry.living_parts()[0])
        if note is not None and note.data is None:
            text = disk[note.segment, note.offset]
            if isinstance(text, bytes):
                disk[99, note.offset] = text
                catalog.move_note(one, note, 99, note.offset, 1)

    steps: list[Callable[[], None]] = [
        move_note,
        append,
        append,
        append,
        finish,
        postpone,
        postpone,
        settle,
        cool,
        begin,
        copy,
    ]
    for _ in range(400):
        if not model.items:
            append()
        random.choice([*steps, relocate])()

        assert len(catalog) == len(model.items)
        assert catalog.parts_living == sum(map(len, model.items.values()))
    settle()
    assert list(catalog.seqs()) == sorted(model.items)
    for one, parts in model.items.items():
        assert notes_of(catalog, one, disk) == parts
        assert catalog.dues(one) == [(part, due_s) for part, (due_s, _) in sorted(parts.items())]
        entry = catalog.get(one)
        assert entry is not None
        assert entry.segment is catalog.segments[model.homes[one]]
    for home in catalog.segments.values():
        here = sorted(one for one, at in model.homes.items() if at == home.number)
        assert home.living == len(here)
        found, first = [], 0
        while first is not None:
            some, first = catalog.lying_in(home, first, 5)
            found += some
        assert found == here


def test_what_waits_for_its_note_is_not_packed() -> None:
    """A note stays in memory until its record is safe; an arriving item is not packed at all."""
    catalog = Catalog()
    segment = catalog.begin_segment(1, 0)
    one, other = Entry(1, 10, 20, 0, 0.0, None), Entry(1, 10, 20, 0, 0.0, Origin(1, 2))
    for seq, entry in ((5, one), (6, other)):
        catalog.add(seq, entry)
        catalog.place(seq, entry, segment, 48)
    note = Note(5, b"note")

    catalog.postpone(5, one, (0,), 9.0, note)
    catalog.cool(100, 10)
    assert list(catalog.hot) == [5, 6]
    note.segment, note.offset = 1, 400
    catalog.note_placed(note)

    assert list(catalog.hot) == [6]
    found = catalog.get(5)
    assert found is not None
    placed = found.note_of(0)
    assert placed is not None
    assert (placed.data, placed.segment, placed.offset) == (None, 1, 400)
