"""One file: written, sealed, read back, and read where it is damaged."""

from pathlib import Path
from zlib import crc32

import pytest

from mta.testing.memory_disk import MemoryDisk
from mta_queue import record, segment
from mta_queue.fates import Fates
from mta_queue.record import Damage, FileHeader, Found
from mta_queue.segment import SegmentReader, SegmentWriter

DIRECTORY = Path("/log")
PATH = DIRECTORY / segment.file_name(1)
MARKER = 0x5EED5EED
CONTENT = b"c" * 3000


def item(seq: int, content: bytes = CONTENT) -> bytes:
    return record.encode_item(MARKER, seq, f"id-{seq}", b"meta", 1, len(content), crc32(content)) + content


def written(*records: bytes, seal: bool = True) -> MemoryDisk:
    """A disk with one segment that holds these records."""
    disk = MemoryDisk()
    writer = SegmentWriter(disk, DIRECTORY, FileHeader(record.VERSION, MARKER, 3, 1, 5, 2))
    data = b"".join(records)
    writer.append((data,), len(data))
    if seal:
        writer.index.add(records)
        writer.seal(MARKER, 99, synced=True)
    return disk


def reader(disk: MemoryDisk) -> SegmentReader:
    return SegmentReader(disk, disk.open(PATH))


def seqs(disk: MemoryDisk, *, verify_content: bool = False) -> list[int | str]:
    """The items found; "torn" for one with a bad content, "damage" for what is no record."""
    found: list[int | str] = []
    for met in reader(disk).records(verify_content=verify_content):
        if isinstance(met, Damage):
            found.append("damage")
        elif met.record.kind == record.ITEM:
            found.append(met.record.seq if met.content_good else "torn")
    return found


def test_names() -> None:
    """Segments are known by their sixteen digits; other files are left alone."""
    names = [segment.file_name(12), "LOCK", "12.seg", "000000000000000x.seg", segment.file_name(3), "x.aside"]

    assert segment.file_name(12) == "0000000000000012.seg"
    assert segment.numbers(names) == [3, 12]


def test_write_and_read() -> None:
    """Everything comes back in order, with its place and a header that says where numbers go on."""
    first, fate, last = item(5), record.encode_fate(MARKER, 6, record.FINISHED, 5, (0,), b"note"), item(7, b"")
    disk = written(first, fate, last)

    found = reader(disk)
    met = list(found.records(verify_content=True))

    assert found.header == FileHeader(record.VERSION, MARKER, 3, 1, 5, 2)
    assert (found.is_sealed, found.is_whole, found.is_blank) == (True, True, False)
    offsets = [48, 48 + len(first), 48 + len(first + fate), 48 + len(first + fate + last)]
    assert [one.offset for one in met][:-1] == offsets
    assert [one.record.kind for one in met if isinstance(one, Found)] == [
        record.ITEM,
        record.FINISHED,
        record.ITEM,
        record.INDEX,
        record.SEALED,
    ]


def test_contents_are_not_read() -> None:
    """Looking through a segment costs a small part of its bytes, whatever the mail in it weighs."""
    disk = written(*(item(seq, b"c" * 1_000_000) for seq in range(5)))
    disk.calls.clear()

    assert seqs(disk) == [0, 1, 2, 3, 4]
    assert disk.calls["bytes read"] < 200_000


def test_many_small_records_in_few_reads() -> None:
    """Records that lie close together are read many at once."""
    disk = written(*(record.encode_fate(MARKER, n, record.FINISHED, n, (0,), b"note") for n in range(2000)))
    disk.calls.clear()

    assert len(list(reader(disk).records(verify_content=False))) == 2002
    assert disk.calls["read"] < 20


def test_meta_larger_than_a_window() -> None:
    """A meta of any size is read whole."""
    big = record.encode_item(MARKER, 8, "id", b"m" * 200_000, 1, 0, 0)
    disk = written(item(5), big, item(9))

    assert seqs(disk) == [5, 8, 9]
    assert seqs(disk, verify_content=True) == [5, 8, 9]


def test_cut_at_every_byte() -> None:
    """Of a segment without its end the whole records count, wherever it was cut."""
    parts = [item(5, b"abc"), item(6, b"d" * 40), item(7, b"")]
    ends = [48 + sum(map(len, parts[: count + 1])) for count in range(len(parts))]

    for length in range(48, ends[-1] + 1):
        disk = written(*parts, seal=False)
        disk.truncate(PATH, length)

        whole = [seq for seq, end in zip((5, 6, 7), ends, strict=True) if end <= length]

        assert [seq for seq in seqs(disk, verify_content=True) if isinstance(seq, int)] == whole
        assert not reader(disk).is_sealed


def test_damage_in_a_header() -> None:
    """A damaged record is passed over, with its content, to the next whole one."""
    disk = written(item(5), item(6), item(7))
    disk.change(PATH, 48 + len(item(5)) + 20, b"\xff")

    found = reader(disk)
    met = list(found.records(verify_content=False))

    assert met[1] == Damage(48 + len(item(5)), len(item(6)), True, "id-6")
    assert seqs(disk) == [5, "damage", 7]
    assert found.is_sealed
    assert not found.is_whole


def test_damage_in_a_content() -> None:
    """A damaged content is noticed where it is looked at, and only there; the record stays readable."""
    disk = written(item(5), item(6))
    disk.change(PATH, 48 + len(item(5)) - 10, b"\xff")

    assert seqs(disk, verify_content=True) == ["torn", 6]
    assert seqs(disk, verify_content=False) == [5, 6]


def test_damage_far_from_the_next_record() -> None:
    """The next whole record is found however much lies between."""
    disk = written(item(5, b"x" * 3_000_000), item(6))
    disk.change(PATH, 50, b"\xff\xff")

    assert seqs(disk) == ["damage", 6]


def test_content_that_looks_like_records() -> None:
    """Mail that holds a copy of a segment of another run does not come to life when the record before it is damaged."""
    foreign = record.encode_item(MARKER ^ 1, 66, "evil", b"meta", 1, 0, 0)
    disk = written(item(5, foreign * 20), item(6))
    disk.change(PATH, 50, b"\xff\xff")

    assert seqs(disk) == ["damage", 6]


def test_length_beyond_the_end() -> None:
    """A content that ends behind the end of the file does not hide the records that follow its header."""
    long = record.encode_item(MARKER, 5, "id", b"", 1, 1_000_000, 0)
    disk = written(long, item(6), seal=False)

    assert seqs(disk) == ["torn", 6]


def test_header_lost() -> None:
    """A segment whose header is damaged is read by the marker of its first record."""
    disk = written(item(5))
    disk.change(PATH, 3, b"\xff")

    found = reader(disk)

    assert (found.header, found.marker, found.is_blank) == (None, MARKER, False)
    assert seqs(disk) == [5]


@pytest.mark.parametrize("length", [0, 10, 47])
def test_shorter_than_a_header(length: int) -> None:
    """A file without a whole header was never used."""
    disk = written(seal=False)
    disk.truncate(PATH, length)

    found = reader(disk)

    assert found.is_blank
    assert list(found.records(verify_content=True)) == []


def test_noise() -> None:
    """A file in which nothing can be told from noise has no marker and no records, and is not blank."""
    disk = written(item(5))
    disk.change(PATH, 0, b"\xff" * 200)

    found = reader(disk)

    assert (found.marker, found.is_blank) == (None, False)
    assert list(found.records(verify_content=True)) == []


def test_seal_after_sync() -> None:
    """A seal reaches the disk only after all that it vouches for."""
    disk = MemoryDisk()
    writer = SegmentWriter(disk, DIRECTORY, FileHeader(record.VERSION, MARKER, 3, 1, 5, 2))
    writer.append((item(5),), len(item(5)))
    order: list[str] = []
    disk.on_call = lambda operation, path: order.append(operation)

    writer.seal(MARKER, 6, synced=True)

    assert order == ["append", "sync", "append", "sync"]


def test_unsynced_fates_are_kept_until_a_sync() -> None:
    """What a failed sync could lose is at hand to be written again."""
    disk = MemoryDisk()
    writer = SegmentWriter(disk, DIRECTORY, FileHeader(record.VERSION, MARKER, 3, 1, 5, 2))
    first, second = Fates([b"one"]), Fates([b"two", b"three"])
    writer.keep_unsynced(first)
    writer.keep_unsynced(second)

    assert (writer.unsynced, writer.unsynced_bytes, writer.settled) == ([first, second], 11, [])
    writer.sync()
    assert (writer.unsynced, writer.unsynced_bytes, writer.settled) == ([], 0, [first, second])


def test_record_at() -> None:
    """A record is read alone where its place is known, and nothing where there is none."""
    disk = written(item(5), item(6))
    found = reader(disk).record_at(48 + len(item(5)))

    assert found is not None
    assert found.seq == 6
    assert reader(disk).record_at(49) is None
    assert reader(disk).record_at(1 << 40) is None
