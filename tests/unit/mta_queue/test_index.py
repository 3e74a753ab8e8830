"""The index: what it says is what the segment's records say."""

from pathlib import Path
from random import Random
from typing import Any, cast
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import index, record
from mta_queue.index import IndexWriter
from mta_queue.record import CopiedState, FileHeader, Origin
from mta_queue.segment import SegmentReader, SegmentWriter, file_name
from mta_queue.store import Recovered, Store

DIRECTORY = Path("/queue/3")
MARKER = 0x5EED5EED

parts = st.lists(st.integers(0, 999), max_size=4, unique=True)
states = st.lists(
    st.builds(
        CopiedState, st.floats(0, 9), st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple), st.binary()
    )
)
numbers = st.integers(1, 1 << 60)


def item(number: int, meta: bytes, content: bytes, arrives: bool) -> bytes:
    origin = Origin(1, number) if arrives else None
    return record.encode_item(MARKER, number, "", meta, 1, len(content), crc32(content), 5.0, origin) + content


def fate(number: int, kind: int, listed: list[int], note: bytes) -> bytes:
    return record.encode_fate(MARKER, number, kind, 7, listed, note, 9.0)


def copy(number: int, meta: bytes, living: list[CopiedState]) -> bytes:
    return record.encode_copy(MARKER, number, 3, "id", meta, 0, 0, living)


records = st.lists(
    st.one_of(
        st.builds(item, numbers, st.binary(max_size=9), st.binary(max_size=9), st.booleans()),
        st.builds(fate, numbers, st.sampled_from(sorted(record.FATE_KINDS)), parts, st.binary(max_size=9)),
        st.builds(fate, numbers, st.just(record.FINISHED), st.just([1]), st.binary(max_size=9)),
        st.builds(copy, numbers, st.binary(max_size=9), states.filter(bool)),
    )
)


@given(st.lists(records))
def test_it_repeats_the_records(groups: list[list[bytes]]) -> None:
    """Gathered group by group or from records that were read: a row for each, its place, its parts and its states."""
    disk = MemoryDisk()
    writer = SegmentWriter(disk, DIRECTORY, FileHeader(record.VERSION, MARKER, 3, 1, 1, 0))
    for group in groups:
        writer.append(group, sum(map(len, group)))
        writer.index.add(group)
    writer.append((), 0)
    writer.seal(MARKER, 9, synced=True)
    reader = SegmentReader(disk, disk.open(DIRECTORY / file_name(1)))
    found = [one for one in reader.records(verify_content=False) if isinstance(one, record.Found)][:-2]

    listed = reader.index()

    assert listed is not None
    rows = [index.Row._make(row) for row in listed.rows()]
    assert len(listed) == len(rows) == len(found) == sum(map(len, groups))
    offset = record.FILE_HEADER_BYTES
    again = IndexWriter()
    for row, one in zip(rows, found, strict=True):
        assert one.offset == offset
        offset += record.HEADER_BYTES + row.payload_bytes + row.content_bytes
        assert row[:7] == (
            one.record.number,
            one.record.seq,
            one.record.due_s,
            one.record.kind,
            one.record.id_bytes,
            one.record.flags,
            one.record.parts,
        )
        if one.record.is_copy:
            expected = [(state.due_s, state.parts, len(state.note)) for state in one.record.copied_states()]
            assert listed.states(row.extra) == expected
        elif row.kind != record.ITEM:
            assert listed.parts(row.parts, row.extra) == one.record.listed_parts()
        again.add_found(one.record)
    assert again.encode(MARKER, 1) == writer.index.encode(MARKER, 1)


def test_items_are_gathered_at_once() -> None:
    """The quick way for a group's new items gives the rows that the other way gives, also for the shortest of them."""
    for meta in (b"", b"m" * 9):
        heads = [record.encode_item(MARKER, number, "", meta, 2, 0, 0) for number in range(1, 4)]
        quick, other = IndexWriter(), IndexWriter()

        quick.add_items(heads)
        other.add(heads)

        assert quick.encode(MARKER, 1) == other.encode(MARKER, 1)
        assert len(quick) == 3


def sealed(*data: bytes) -> MemoryDisk:
    disk = MemoryDisk()
    disk.make_directory(DIRECTORY)
    writer = SegmentWriter(disk, DIRECTORY, FileHeader(record.VERSION, MARKER, 3, 1, 1, 0))
    writer.append(data, sum(map(len, data)))
    writer.index.add(data)
    writer.seal(MARKER, 99, synced=True)
    return disk


def test_an_index_that_does_not_fit_is_not_used() -> None:
    """One that leaves out a record, or is of another segment, says nothing."""
    one, other = item(1, b"m", b"content", False), item(2, b"m", b"content", False)
    writer = IndexWriter()
    writer.add([one])
    at = record.FILE_HEADER_BYTES + len(one)
    found = record.decode(writer.encode(MARKER, 1), 0, MARKER)

    assert index.decode(found, 1, at) is not None
    assert index.decode(found, 1, at + len(other)) is None
    assert index.decode(found, 2, at) is None
    assert index.decode(None, 1, at) is None


def test_an_index_that_is_too_large_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment without an index is sealed all the same, and read record by record."""
    monkeypatch.setattr(index, "BYTES_MAX", 10)
    disk = sealed(item(1, b"m", b"content", False))
    reader = SegmentReader(disk, disk.open(DIRECTORY / file_name(1)))

    assert reader.is_sealed
    assert reader.index() is None


def opened(disk: MemoryDisk, *, by_index: bool) -> tuple[Store, Recovered]:
    store = Store(DIRECTORY, disk=disk.fork(), jobs=SteppedLoop().jobs, recent_bytes=0 if by_index else 1 << 40)
    return store, store.open()


def test_a_damaged_index_is_missed_by_nobody() -> None:
    """The segment is read record by record: everything is there, and the admin is told of the index alone."""
    disk = sealed(*[item(number, b"m", b"content", False) for number in (1, 2, 3)])
    newer = SegmentWriter(disk, DIRECTORY, FileHeader(record.VERSION, MARKER, 3, 2, 4, 0))
    newer.append((), 0)
    newer.seal(MARKER, 99, synced=True)
    path = DIRECTORY / file_name(1)
    disk.change(path, len(disk.contents(path)) - record.SEAL_BYTES - 60, b"\xff\xff")

    _, recovered = opened(disk, by_index=True)

    assert [seq for seq, _ in recovered.waiting] == [1, 2, 3]
    assert recovered.set_aside == [f"{file_name(1)}: its index is damaged"]


def test_a_start_reads_little() -> None:
    """Of sealed segments neither contents nor metas are read."""
    disk = sealed(*[item(number, b"m" * 300, b"c" * 5000, False) for number in range(1, 500)])
    newer = SegmentWriter(disk, DIRECTORY, FileHeader(record.VERSION, MARKER, 3, 2, 600, 599))
    newer.append((), 0)
    newer.seal(MARKER, 99, synced=True)
    disk.kill()
    disk.calls.clear()
    total = sum(len(disk.contents(path)) for path in disk.paths())

    recovered = Store(DIRECTORY, disk=disk, jobs=SteppedLoop().jobs, recent_bytes=0).open()

    assert len(list(recovered.waiting)) == 499
    assert recovered.recent == []
    assert disk.calls["bytes read"] < total / 50


@pytest.mark.parametrize("seed", range(15))
def test_a_start_by_indexes_finds_what_reading_everything_finds(seed: int) -> None:
    """Items, times, notes, what is untold, what holds which segment: the same both ways."""
    random, loop, disk = Random(seed), SteppedLoop(), MemoryDisk(seed)
    store = Store(DIRECTORY, disk=disk, jobs=loop.jobs, segment_bytes_max=2500)
    store.open()
    store.start(cast(Any, loop))
    seqs: list[int] = []
    for at in range(150):
        origin = Origin(5, at) if random.random() < 0.1 else None
        count = random.choice((1, 1, 3))
        store.append(f"id-{at}", b"meta", count, b"c" * 50, seqs.append, _fail, origin)
        loop.settle()
        for seq in random.sample(seqs, min(3, len(seqs))):
            chosen = random.sample(range(count), random.randint(1, count))
            act = random.random()
            if act < 0.4:
                store.postpone(seq, chosen, float(at), b"note-%d" % at if random.random() < 0.8 else None)
            elif act < 0.7:
                store.finish(seq, chosen, b"done")
            elif act < 0.8:
                store.arrive(seq)
            elif act < 0.85:
                store.forget(seq)
        if random.random() < 0.1:
            store.told(store.mark_position())
        loop.settle()
    disk.kill()

    (one, found), (other, expected) = opened(disk, by_index=True), opened(disk, by_index=False)

    assert len(found.recent) < len(expected.recent)
    assert list(found.waiting) == list(expected.waiting)
    assert found.arriving == expected.arriving
    assert found.untold == expected.untold
    assert [one.load(seq) for seq in one.seqs()] == [other.load(seq) for seq in other.seqs()]
    assert one._journal.next_number in range(other._journal.next_number - 1, other._journal.next_number + 1)  # the seal
    catalogs = one._catalog, other._catalog
    facts = [
        {
            home.number: (home.living, home.living_bytes, home.refs, home.tell_number, home.first_seq, home.last_seq)
            for home in catalog.segments.values()
        }
        for catalog in catalogs
    ]
    assert facts[0] == facts[1]
    assert catalogs[0].removable() == catalogs[1].removable()


def _fail(error: OSError) -> None:
    raise AssertionError(error)
