"""queue/FORMAT.md says what the code does: its example is decoded, its tables are compared."""

import re
from pathlib import Path
from zlib import crc32

from mta.testing.memory_disk import MemoryDisk
from mta_queue import record, store
from mta_queue.record import FileHeader, Found
from mta_queue.segment import SegmentReader, file_name

TEXT = (Path(__file__).parents[3] / "queue" / "FORMAT.md").read_text()
MARKER = 0xA1B2C3D4
CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


def dumped() -> bytes:
    """The bytes of the example."""
    (block,) = re.findall(r"```hexdump\n(.*?)```", TEXT, re.DOTALL)
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
    item, postponed, sealed = reader.records(verify_content=True)

    assert reader.header == FileHeader(record.VERSION, MARKER, 3, 17, 41, 40)
    assert (reader.is_sealed, reader.is_whole) == (True, True)
    assert isinstance(item, Found)
    assert (item.record.kind, item.record.number, item.record.parts) == (record.ITEM, 41, 2)
    assert (item.record.item_id(), item.record.meta(), item.content_good) == ("01hq", b"META", True)
    assert isinstance(postponed, Found)
    assert (postponed.record.kind, postponed.record.number, postponed.record.seq) == (record.POSTPONED, 42, 41)
    assert (postponed.record.listed_parts(), postponed.record.note()) == ((1,), b"NOTE")
    assert postponed.record.due_s == 1_767_225_600.0
    assert isinstance(sealed, Found)
    assert (sealed.record.kind, sealed.record.seq) == (record.SEALED, 17)


def test_example_encodes() -> None:
    """The code writes the example byte for byte: the format has not changed without its version."""
    data = (
        record.encode_file_header(FileHeader(1, MARKER, 3, 17, 41, 40))
        + record.encode_item(MARKER, 41, "01hq", b"META", 2, len(CONTENT), crc32(CONTENT))
        + CONTENT
        + record.encode_fate(MARKER, 42, record.POSTPONED, 41, (1,), b"NOTE", 1_767_225_600.0)
        + record.encode_seal(MARKER, 43, 17)
    )

    assert data == dumped()


def test_tables_of_places() -> None:
    """The fields of both headers lie one behind the other and fill them."""
    for title, size in (("File header", record.FILE_HEADER_BYTES), ("Record", record.HEADER_BYTES)):
        at = 0
        for place, length, _ in (row for row in rows(title) if len(row) == 3):
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
