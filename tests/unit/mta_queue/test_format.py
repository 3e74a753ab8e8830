"""queue/FORMAT.md says what the code does: its example is decoded, its tables are compared."""

import re
from pathlib import Path
from zlib import crc32

from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import inventory, record, store
from mta_queue.index import IndexWriter, Row
from mta_queue.record import CopiedState, FileHeader, Found
from mta_queue.segment import SegmentReader, file_name

TEXT = (Path(__file__).parents[3] / "queue" / "FORMAT.md").read_text()
MARKER = 0xA1B2C3D4
STATES = [CopiedState(1_767_225_600.0, (0,), b"NO"), CopiedState(0.0, (3,), b"")]
CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


def dumped(name: str = "hexdump") -> bytes:
    """The bytes of an example."""
    (block,) = re.findall(rf"```{name}\n(.*?)```", TEXT, re.DOTALL)
    data = b""
    for line in block.splitlines():
        found = re.match(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)", line)
        assert found is not None, line
        assert int(found[1], 16) == len(data), line
        data += bytes.fromhex(found[2])
    return data


def rows(title: str) -> list[list[str]]:
    """The cells of the tables in a chapter, without their heads."""
    chapter = TEXT.partition(f"## {title}")[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in chapter.splitlines()
        if re.match(r"\| \d", line)
    ]


def test_example_decodes() -> None:
    """A reader finds in the example what the text says is in it."""
    disk = MemoryDisk()
    path = Path("/log") / file_name(17)
    disk.append(disk.create(path), 0, (dumped(),))

    reader = SegmentReader(disk, disk.open(path))
    item, postponed, finished, copy, listed, sealed = reader.records(verify_content=True)
    index = reader.index()

    assert reader.header == FileHeader(record.VERSION, MARKER, 3, 17, 41, 40)
    assert (reader.is_sealed, reader.is_whole) == (True, True)
    assert isinstance(item, Found)
    assert (item.record.kind, item.record.number, item.record.parts) == (record.ITEM, 41, 2)
    assert (item.record.item_id(), item.record.meta(), item.content_good) == ("01hq", b"META", True)
    assert isinstance(postponed, Found)
    assert (postponed.record.kind, postponed.record.number, postponed.record.seq) == (record.POSTPONED, 42, 41)
    assert (postponed.record.listed_parts(), postponed.record.note()) == ((1,), b"NOTE")
    assert postponed.record.due_s == 1_767_225_600.0
    assert isinstance(finished, Found)
    assert (finished.record.kind, finished.record.listed_parts()) == (record.FINISHED, (0, 2))
    assert isinstance(copy, Found)
    assert (copy.record.is_copy, copy.record.seq, copy.record.item_id(), copy.record.meta()) == (
        True,
        12,
        "00zz",
        b"MET",
    )
    assert copy.record.copied_states() == STATES
    assert isinstance(listed, Found)
    assert index is not None
    rows = [Row._make(row) for row in index.rows()]
    assert [(row.kind, row.number, row.seq) for row in rows] == [(1, 41, 41), (3, 42, 41), (2, 43, 30), (1, 44, 12)]
    assert [index.parts(row.parts, row.extra) for row in rows[1:3]] == [(1,), (0, 2)]
    assert index.states(rows[3].extra) == [(1_767_225_600.0, (0,), 2), (0.0, (3,), 0)]
    assert isinstance(sealed, Found)
    assert (sealed.record.kind, sealed.record.seq) == (record.SEALED, 17)


def test_example_encodes() -> None:
    """The code writes the example byte for byte: the format has not changed without its version."""
    records = [
        record.encode_item(MARKER, 41, "01hq", b"META", 2, len(CONTENT), crc32(CONTENT)) + CONTENT,
        record.encode_fate(MARKER, 42, record.POSTPONED, 41, (1,), b"NOTE", 1_767_225_600.0),
        record.encode_fate(MARKER, 43, record.FINISHED, 30, (0, 2), b"OK"),
        record.encode_copy(MARKER, 44, 12, "00zz", b"MET", 5, crc32(b"old\r\n"), STATES) + b"old\r\n",
    ]
    writer = IndexWriter()
    writer.add(records)
    data = record.encode_file_header(FileHeader(2, MARKER, 3, 17, 41, 40)) + b"".join(records)
    data += writer.encode(MARKER, 17) + record.encode_seal(MARKER, 45, 17, len(data))

    assert data == dumped()


def test_the_list_of_segments() -> None:
    """The example of the list is what the code writes and reads."""
    older = 0x0BADCAFE
    segments = [(9, older), (11, older), (12, older), (15, MARKER), (17, MARKER)]
    listing = inventory.listing_of(MARKER, 3, 15, segments, 17)

    assert inventory.encode(listing) == dumped("list")
    assert inventory.decode(dumped("list")) == listing


def test_version_1_is_read() -> None:
    """A log of the version before is read as it is, sealed or not; what is added to it is of this version."""
    records = (
        record.encode_item(MARKER, 41, "01hq", b"META", 2, len(CONTENT), crc32(CONTENT)),
        CONTENT,
        record.encode_fate(MARKER, 42, record.POSTPONED, 41, (1,), b"NOTE", 9.0),
        record.encode_fate(MARKER, 43, record.SEALED, 17),
    )
    for count in (3, 4):
        disk, loop = MemoryDisk(), SteppedLoop()
        disk.make_directory(Path("/log/3"))
        header = record.encode_file_header(FileHeader(1, MARKER, 3, 17, 41, 40))
        disk.append(disk.create(Path("/log/3") / file_name(17)), 0, (header, *records[:count]))

        found = [store.Store(Path("/log/3"), disk=disk, jobs=loop.jobs)]
        recovered = [found[0].open()]
        disk.kill()
        found.append(store.Store(Path("/log/3"), disk=disk, jobs=loop.jobs))
        recovered.append(found[1].open())

        for one, log in zip(recovered, found, strict=True):
            assert one.set_aside == []
            assert list(one.waiting) == [(41, ((0, 0.0), (1, 9.0)))]
            loaded = log.load(41)
            assert loaded is not None
            assert (loaded.meta, [part.note for part in loaded.parts]) == (b"META", [b"", b"NOTE"])
        assert disk.contents(Path("/log/3") / file_name(17))[-len(records[3]) :][32] == record.SEALED
        added = record.decode_file_header(disk.contents(Path("/log/3") / file_name(18)))
        assert added is not None
        assert added.version == 2


def test_tables_of_places() -> None:
    """The fields of the headers lie one behind the other and fill them."""
    sizes = {
        "File header": record.FILE_HEADER_BYTES,
        "Record": record.HEADER_BYTES,
        "SEGMENTS": inventory.HEAD_BYTES,
    }
    for title, size in sizes.items():
        at = 0
        for place, length, _ in (row for row in rows(title) if len(row) == 3 and row[1]):
            assert int(place) == at
            at += int(length)
        assert at == size


def test_table_of_kinds() -> None:
    """Every kind of record is in the table, under its number and name."""
    named = {int(row[0]): row[1] for row in rows("Record") if len(row) == 5}

    assert named == record.KIND_NAMES


def test_limits() -> None:
    """The limits that the text names are those of the code."""
    assert (record.ID_BYTES_MAX, record.PAYLOAD_BYTES_MAX) == (255, 64 << 20)
    assert (record.CONTENT_BYTES_MAX, record.PARTS_MAX) == ((4 << 30) - 1, 1_000_000)
    assert store.NUMBERS_SKIPPED == 1 << 20
