"""The tables of recovery: every combination has exactly one row, and every row an example on a real store."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import inspection, inventory, record, recovery, segment
from mta_queue.inventory import listing_of
from mta_queue.quarantine import Quarantine, held
from mta_queue.record import FILE_HEADER_BYTES, CopiedState, FileHeader
from mta_queue.recovered import Untold
from mta_queue.recovery import Row
from mta_queue.store import LogFormatError, Store

LOG = Path("/queue/3")
NAME = segment.file_name(1)


def path_of(number: int) -> Path:
    return LOG / segment.file_name(number)


class Log:
    """A log that is filled by a store or by hand, spoiled, and opened again."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.disk.make_directory(LOG)
        self.seqs: list[int] = []
        self.reports: list[str] = []
        self.living: list[int] = []
        self.dues: list[tuple[int, float]] = []
        """Of the first that lives."""
        self.untold: list[Untold] = []

    def fill(self, *contents: bytes, sealed: bool = True) -> "Log":
        """A life of a store with these items; `sealed`: it ends as it should, else with a kill."""

        async def live() -> None:
            store = Store(LOG, disk=self.disk)
            store.open()
            store.start(asyncio.get_running_loop())
            for content in contents:
                durable: asyncio.Future[int] = asyncio.get_running_loop().create_future()
                name = f"id-{len(self.seqs)}"
                store.append(name, b"meta", 1, content, durable.set_result, durable.set_exception)
                self.seqs.append(await durable)
            store.told(store.mark_position())
            before = {path: self.disk.size_bytes(self.disk.open(path)) for path in self.disk.paths()}
            await store.close()
            for path in before if not sealed else ():
                self.disk.truncate(path, before[path])

        asyncio.run(live())
        return self

    def write(self, number: int, *records: bytes, marker: int = 7, sealed: bool = True) -> "Log":
        """A segment by hand; each record must be whole."""
        header = record.encode_file_header(FileHeader(record.VERSION, marker, 3, number, 1, 0))
        data = header + b"".join(records)
        if sealed:
            data += record.encode_seal(marker, 0, number, 0)
        return self.file(segment.file_name(number), data)

    def file(self, name: str, data: bytes) -> "Log":
        file = self.disk.create(LOG / name)
        self.disk.append(file, 0, (data,))
        self.disk.sync(file)
        self.disk.sync_directory(LOG)
        return self

    def listed(self, *numbers: int, end: int = 99) -> "Log":
        """These segments must be there, and no others up to `end`."""
        return self.file(inventory.NAME, inventory.encode(listing_of(7, 3, 100, [(each, 7) for each in numbers], end)))

    def spoil(self, number: int, found: bytes, with_bytes: bytes) -> "Log":
        """Bytes of a segment become others."""
        at = self.disk.contents(path_of(number)).index(found)
        self.disk.change(path_of(number), at, with_bytes)
        return self

    def cut(self, number: int, length: int) -> "Log":
        """A segment loses its last bytes."""
        self.disk.truncate(path_of(number), self.disk.size_bytes(self.disk.open(path_of(number))) - length)
        return self

    def open(self, recent_bytes: int = 1 << 20) -> None:
        """What a store finds."""
        store = Store(LOG, disk=self.disk, jobs=SteppedLoop().jobs, recent_bytes=recent_bytes)
        recovered = store.open()
        self.reports, self.untold = recovered.set_aside, recovered.untold
        self.living = [*store.seqs()]
        self.dues = store.dues(self.living[0]) if self.living else []


def item(seq: int, content: bytes = b"content", meta: bytes = b"meta") -> bytes:
    head = record.encode_item(7, seq, f"id-{seq}", meta, 1, len(content), record.crc32(content))
    return head + content


def copy(number: int, seq: int, content: bytes = b"content") -> bytes:
    state = CopiedState(5.0, (0,), b"")
    head = record.encode_copy(7, number, seq, f"id-{seq}", b"meta", len(content), record.crc32(content), [state])
    return head + content


def fate(number: int, kind: int, seq: int) -> bytes:
    return record.encode_fate(7, number, kind, seq, (0,), b"", 9.0)


# The examples: what is done to a log, and what must come of it. Each is named as its row.


def not_of_the_queue(log: Log) -> None:
    log.fill(b"one").file("notes.txt", b"by somebody").open()

    assert (log.living, log.reports) == (log.seqs, [])
    assert log.disk.contents(LOG / "notes.txt") == b"by somebody"


def of_the_log_itself(log: Log) -> None:
    log.fill(b"one").write(9)
    Quarantine(LOG, log.disk).take(9, ["bad"])
    log.open()

    assert (log.living, log.reports) == (log.seqs, [])
    assert len(held(log.disk, LOG)) == 1


def set_aside_earlier(log: Log) -> None:
    log.fill(b"one").file(segment.file_name(9) + segment.ASIDE_SUFFIX, b"bad").open()

    assert (log.living, log.reports) == (log.seqs, [])
    assert path_of(10) in log.disk.paths(), "a number that was used is not given again"


def a_segment(log: Log) -> None:
    log.fill(b"one", b"two").open()

    assert (log.living, log.reports) == (log.seqs, [])


def a_segment_under_anothers_name(log: Log) -> None:
    log.fill(b"one")
    log.disk.rename(path_of(1), path_of(5))
    log.open()

    assert log.living == log.seqs
    assert log.reports == [f"{segment.file_name(5)}: a segment under another's name"]


def of_a_newer_format(log: Log) -> None:
    log.fill(b"one").file(
        segment.file_name(5), record.encode_file_header(FileHeader(record.VERSION + 1, 7, 3, 5, 1, 0))
    )
    with pytest.raises(LogFormatError, match="newer"):
        log.open()


def its_header_is_damaged(log: Log) -> None:
    log.fill(b"one").spoil(1, record.MAGIC, b"MTAQUEUE").open()

    assert log.living == log.seqs
    assert log.reports == [f"{NAME}: its header is damaged"]


def torn_header_never_acknowledged_or_damaged(log: Log) -> None:
    log.fill(b"one", sealed=False).spoil(1, record.MAGIC, b"MTAQUEUE").open()

    assert log.living == log.seqs
    assert log.reports == [f"{NAME}: torn header, never acknowledged or damaged"]


def never_begun(log: Log) -> None:
    log.fill(b"one").file(segment.file_name(5), bytes(3000)).open()

    assert (log.living, log.reports) == (log.seqs, [])
    assert path_of(5) not in log.disk.paths()


def empty_and_it_was_not(log: Log) -> None:
    log.write(1, item(1)).file(segment.file_name(2), b"").listed(1, 2).open()

    assert (log.living, log.reports) == ([1], [f"{segment.file_name(2)}: empty, and it was not"])
    assert [one.name for one in held(log.disk, LOG)] == [f"quarantine/{segment.file_name(2)}"]


def no_segment_or_damaged_from_its_start(log: Log) -> None:
    log.fill(b"one").file(segment.file_name(5), b"by somebody" * 300).open()

    assert log.living == log.seqs
    assert log.reports == [f"{segment.file_name(5)}: no segment or damaged from its start"]
    ((name, reasons),) = held(log.disk, LOG)
    assert name == f"quarantine/{segment.file_name(5)}"
    assert reasons[0].endswith("no segment or damaged from its start")


def removed_or_never_begun(log: Log) -> None:
    log.write(2, item(1)).write(5, item(2)).listed(2, 5).open()

    assert (log.living, log.reports) == ([1, 2], [])


def missing_and_lost_with_all_that_waited_in_it(log: Log) -> None:
    log.write(1, item(1)).write(5, item(5)).listed(1, 3, 5)
    said = f"{segment.file_name(3)}: missing, and lost with all that waited in it"
    assert inspection.verify(log.disk, LOG).problems == [said]

    log.open()

    assert (log.living, log.reports) == ([1, 5], [said])
    assert said.encode() in log.disk.contents(LOG / "quarantine" / "README")


def torn_end_never_acknowledged(log: Log) -> None:
    log.fill(b"one", sealed=False).cut(1, len(b"one") + 5).open()

    assert (log.living, log.reports) == ([], [])


def torn_content_at_the_end_never_acknowledged(log: Log) -> None:
    log.fill(b"one", sealed=False).cut(1, 2).open()

    assert (log.living, log.reports) == ([], [])


def hole_never_acknowledged_or_damaged(log: Log) -> None:
    log.fill(b"one", b"two", sealed=False).spoil(1, b"id-0", b"\0\0\0\0").open()

    assert log.living == log.seqs[1:]
    assert "hole, never acknowledged or damaged" in log.reports[0]


def torn_content_never_acknowledged_or_damaged(log: Log) -> None:
    log.fill(b"one", b"two", sealed=False).spoil(1, b"one", b"\0\0\0").open()

    assert log.living == log.seqs[1:]
    assert log.reports == [f"{NAME}: item id-0 at {FILE_HEADER_BYTES}: torn content, never acknowledged or damaged"]


def damaged(log: Log) -> None:
    log.write(1, item(1), item(2), item(3)).spoil(1, b"id-2meta", b"id-2META").open()

    assert log.living == [1, 3]
    assert log.reports == [
        f"{NAME}: {len(item(2))} bytes at {FILE_HEADER_BYTES + len(item(1))}: damaged, perhaps item id-2"
    ]


def content_damaged(log: Log) -> None:
    log.write(1, item(1, b"one"), item(2, b"two")).spoil(1, b"one", b"ONE")

    assert inspection.verify(log.disk, LOG).problems == [f"{NAME}: item id-1 at {FILE_HEADER_BYTES}: content damaged"]


def read_in_place_of_the_records(log: Log) -> None:
    log.fill(b"one", b"two").fill()
    log.spoil(1, b"id-0meta", b"id-0META").open(recent_bytes=0)  # so a reading of the records would miss it

    assert (log.living, log.reports) == (log.seqs, [])


def its_index_is_damaged(log: Log) -> None:
    log.fill(b"one", b"two").fill()
    size = log.disk.size_bytes(log.disk.open(path_of(1)))
    log.disk.change(path_of(1), size - record.SEAL_BYTES - 9, b"\x55")
    log.open(recent_bytes=0)

    assert (log.living, log.reports) == (log.seqs, [f"{NAME}: its index is damaged"])


def no_index(log: Log) -> None:
    log.write(1, item(1)).fill().open(recent_bytes=0)

    assert (log.living[0], log.reports) == (1, [])


def cut_short_before_its_seal(log: Log) -> None:
    log.fill(b"one").cut(1, record.SEAL_BYTES).open()

    assert (log.living, log.reports) == (log.seqs, [])


def a_new_item(log: Log) -> None:
    same_id = record.encode_item(7, 2, "id-1", b"meta", 1, 0, 0)  # ids are the caller's
    log.write(1, item(1), same_id).open()

    assert (log.living, log.reports) == ([1, 2], [])


def an_item_for_the_second_time(log: Log) -> None:
    log.write(1, item(1), item(2), fate(3, record.FINISHED, 2))
    log.file(segment.file_name(2), log.disk.contents(path_of(1))).open()

    assert log.living == [1]
    assert [report.partition(": ")[2] for report in log.reports] == [
        "a segment under another's name",
        f"item 1 at {FILE_HEADER_BYTES}: an item for the second time",
        f"item 2 at {FILE_HEADER_BYTES + len(item(1))}: an item for the second time",
    ]


def an_item_that_was_copied(log: Log) -> None:
    log.write(1, item(1, b"old")).write(2, copy(2, 1, b"old")).open()

    assert (log.living, log.reports) == ([1], [])
    assert log.dues == [(0, 5.0)]


def a_copy_without_its_original(log: Log) -> None:
    log.write(2, copy(2, 1)).open()

    assert (log.living, log.reports) == ([1], [])


def a_copy_of_what_has_ended(log: Log) -> None:
    log.write(1, item(1), fate(3, record.FINISHED, 1)).write(2, copy(2, 1)).open()

    assert (log.living, log.reports) == ([1], [])


def a_fate(log: Log) -> None:
    log.write(1, item(1), item(2), fate(3, record.FINISHED, 1), fate(4, record.POSTPONED, 2)).open()

    assert (log.living, log.dues, log.reports) == ([2], [(0, 9.0)], [])


def a_fate_written_again_with_some_that_are_torn(log: Log) -> None:
    first = record.encode_fate(7, 2, record.RESCHEDULED, 1, (0,), b"", 5.0)
    log.write(1, item(1), first, fate(3, record.POSTPONED, 1), sealed=False).write(2, first, sealed=False)
    for _ in range(2):  # a segment that was cut short so is not taken for whole the next time
        log.open()
        log.disk.kill()

        assert (log.living, log.dues) == ([1], [(0, 9.0)])


def a_fate_of_what_has_ended(log: Log) -> None:
    log.write(1, item(1), fate(3, record.MOVED, 1)).write(2, fate(2, record.POSTPONED, 1)).open()

    assert (log.living, log.reports) == ([], [])
    assert [(one.kind, one.seq, one.meta) for one in log.untold] == [("item", 1, b"meta"), ("postponed", 1, b"meta")]


def a_fate_without_its_item(log: Log) -> None:
    told = record.encode_fate(7, 8, record.TOLD, 8)
    log.write(2, fate(8, record.FINISHED, 1), item(9), told).open()

    assert (log.living, log.reports) == ([9], [])
    assert [one.seq for one in log.untold] == [9]


def told_a_seal_or_an_index(log: Log) -> None:
    log.write(1, item(1), fate(2, record.TOLD, 1)).open()

    assert (log.living, log.untold) == ([1], [])


def all_segments_are_there(log: Log) -> None:
    log.write(1, item(1)).write(2, fate(2, record.POSTPONED, 1)).open()

    assert (log.living, log.reports) == ([1], [])


def segments_were_deleted_when_all_in_them_had_ended(log: Log) -> None:
    told = record.encode_fate(7, 2, record.TOLD, 2)
    log.write(2, fate(2, record.POSTPONED, 1)).write(4, told, item(4)).open()

    assert (log.living, log.reports) == ([4], [])


def a_segment_is_missing_or_the_power_failed_as_it_was_deleted(log: Log) -> None:
    log.write(2, fate(2, record.POSTPONED, 1)).write(4, item(4)).open()

    assert log.living == [4]
    assert log.reports == [
        "1 items (1 to 1) are in no file: a segment is missing, or the power failed as it was deleted"
    ]


def told_before_their_segment_was_deleted(log: Log) -> None:
    log.write(2, fate(2, record.POSTPONED, 1)).write(4, item(4)).listed(2, 4).open()

    assert (log.living, log.reports) == ([4], [])


def a_segment_is_missing_and_reported(log: Log) -> None:
    log.write(2, item(2)).listed(1, 2).open()

    assert (log.living, len(log.reports)) == ([2], 1)


def they_were_in_a_segment_that_is_missing(log: Log) -> None:
    log.write(2, fate(2, record.POSTPONED, 1)).listed(1, 2).open()

    assert log.living == []
    assert log.reports[1:] == ["1 items (1 to 1) are in no file: they were in a segment that is missing"]


def they_waited_and_their_segment_is_damaged(log: Log) -> None:
    told = record.encode_fate(7, 4, record.TOLD, 4)
    log.write(1, item(1), item(2), item(3)).write(2, fate(4, record.POSTPONED, 2), told)
    log.spoil(1, b"id-2", b"ID-2").open()

    assert log.living == [1, 3]
    assert log.reports[1:] == ["1 items (2 to 2) are in no file: they waited, and their segment is damaged"]


@pytest.mark.parametrize("name", recovery.TABLES)
def test_every_combination_has_exactly_one_row(name: str) -> None:
    """Nothing that can be met is without an answer, and nothing has two."""
    table = recovery.TABLES[name]

    assert {case: len(table.holding(case)) for case in table.cases()} == dict.fromkeys(table.cases(), 1)
    assert {row.label for row in table.rows} == {table.decide(*case).label for case in table.cases()}


ROWS = [(name, row) for name, table in recovery.TABLES.items() for row in table.rows]


@pytest.mark.parametrize(("name", "row"), [pytest.param(name, row, id=row.label) for name, row in ROWS])
def test_every_row_has_an_example(name: str, row: Row) -> None:
    """Each row on a real store: what is found, what is reported, and where the file is in the end."""
    example: Callable[[Log], None] = globals()[re.sub(r"\W+", "_", row.label.replace("'", ""))]

    example(Log())
