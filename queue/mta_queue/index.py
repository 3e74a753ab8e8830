"""The index of a segment: the headers of its records, without what lies between them. Pure.

It is gathered while the segment is written, from bytes that are at hand, and becomes the record before the seal. A
start reads it in place of the segment: about one percent of the bytes.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from mta_queue import record
from mta_queue.record import FILE_HEADER_BYTES, FLAG_COPY, HEADER_BYTES, ITEM, Record

ROWS_MAX = 1 << 17  # 6 MiB; a segment with more records, each of less than half a kilobyte, ends early
BYTES_MAX = 16 << 20  # what a start reads at once; a segment whose fates list more parts than fit has no index

_ROW = Struct("<QQdBBHIIIII")
_COUNT = Struct("<I")
_EXTRA = Struct("<I")
ROW_BYTES = _ROW.size

_BEGIN, _END = record.PREFIX_BYTES, record.PREFIX_BYTES + ROW_BYTES  # of a record: what a row repeats
_KIND, _ID, _FLAGS, _PARTS, _PAYLOAD = 32, 33, 34, 36, 40  # of a record: the places of these fields


class Row(NamedTuple):
    """A record without its payload and content."""

    number: int
    seq: int
    due_s: float
    kind: int
    id_bytes: int
    flags: int
    parts: int
    payload_bytes: int
    content_bytes: int
    content_crc: int
    extra: int
    """A fate of one part: the part. A fate of several, a copy: where its list begins. Else of no meaning."""


class Index:
    """An index that was read."""

    def __init__(self, rows: bytes, lists: bytes) -> None:
        self._rows = rows
        self._lists = lists

    def __len__(self) -> int:
        return len(self._rows) // ROW_BYTES

    def rows(self) -> Iterator[tuple[int, int, float, int, int, int, int, int, int, int, int]]:
        """The fields of `Row` of each record in the order of the file; the first begins behind the file's header, each
        other one where the one before ends."""
        return _ROW.iter_unpack(self._rows)

    def parts(self, count: int, extra: int) -> tuple[int, ...]:
        """The parts of a fate."""
        if count == 1:
            return (extra,)
        return record.parts_of(self._lists[extra : extra + 4 * count], count) if count else ()

    def states(self, extra: int) -> list[tuple[float, tuple[int, ...], int]]:
        """The states of a copy: (due_s, parts, length of the note)."""
        return record.states_at(self._lists, extra)[0]

    @property
    def told(self) -> int:
        """The position of the last TOLD among the records; 0: there is none."""
        return max([row[1] for row in self.rows() if row[3] == record.TOLD], default=0)

    @property
    def records_end(self) -> int:
        """Where the last record ends that has a row."""
        return FILE_HEADER_BYTES + sum([HEADER_BYTES + row[7] + row[8] for row in self.rows()])


class IndexWriter:
    """Gathers the index of a segment that is being written."""

    __slots__ = ("_lists", "_rows")

    def __init__(self) -> None:
        self._rows = bytearray()
        self._lists = bytearray()

    def __len__(self) -> int:
        return len(self._rows) // ROW_BYTES

    def add_items(self, heads: Sequence[bytes]) -> None:
        """New items one behind the other, no copies among them: the header and payload of each."""
        rows = b"".join([head[_BEGIN:_END] for head in heads])
        if len(rows) == ROW_BYTES * len(heads):
            self._rows += rows
        else:
            self.add(heads)

    def add(self, records: Sequence[bytes]) -> None:
        """Records of any kind one behind the other, with their payloads; contents may be there or not."""
        rows = b"".join([data[_BEGIN:_END] for data in records])
        if not _are_of_one_part(rows, len(records)):
            rows = b"".join([data[_BEGIN:HEADER_BYTES] + self._extra(data) for data in records])
        self._rows += rows

    def _extra(self, data: bytes) -> bytes:
        count = _COUNT.unpack_from(data, _PARTS)[0]
        if data[_KIND] == ITEM and data[_FLAGS] & FLAG_COPY:
            begin = HEADER_BYTES + data[_ID]
            listed = data[begin : record.states_at(data, begin)[1]]
        elif data[_KIND] != ITEM and count > 1:
            listed = data[HEADER_BYTES : HEADER_BYTES + 4 * count]
        else:
            payload_bytes = _COUNT.unpack_from(data, _PAYLOAD)[0]
            return data[HEADER_BYTES : min(_END, HEADER_BYTES + payload_bytes)].ljust(_EXTRA.size, b"\0")
        self._lists += listed
        return _EXTRA.pack(len(self._lists) - len(listed))

    def add_found(self, found: Record) -> None:
        """A record that was read."""
        payload = found.payload
        if found.is_copy:
            extra = len(self._lists)
            self._lists += payload[found.id_bytes : record.states_at(payload, found.id_bytes)[1]]
        elif found.kind != ITEM and found.parts > 1:
            extra = len(self._lists)
            self._lists += payload[: 4 * found.parts]
        else:
            extra = int.from_bytes(payload[:4], "little")
        kind, number, seq, due_s, id_bytes, flags, parts, _, content_bytes, content_crc = found
        self._rows += _ROW.pack(
            number, seq, due_s, kind, id_bytes, flags, parts, len(payload), content_bytes, content_crc, extra
        )

    def encode(self, marker: int, segment: int) -> bytes:
        """The INDEX record; nothing where it would be too large to be of use."""
        if len(self._rows) + len(self._lists) > BYTES_MAX:
            return b""
        listed = b"".join((_COUNT.pack(len(self)), self._rows, self._lists))
        return record.encode_fate(marker, 0, record.INDEX, segment, (), listed)


def _are_of_one_part(rows: bytes, count: int) -> bool:
    """Whether these rows are complete and all of them of fates of one part: as good as always, and quickly seen."""
    if len(rows) != ROW_BYTES * count:
        return False
    kind, parts = _KIND - _BEGIN, _PARTS - _BEGIN
    return (
        rows[parts::ROW_BYTES] == b"\1" * count
        and all(rows[parts + byte :: ROW_BYTES] == bytes(count) for byte in (1, 2, 3))
        and ITEM not in rows[kind::ROW_BYTES]
    )


def rows_in(found: Record) -> int:
    """How many records an INDEX record lists."""
    return _COUNT.unpack_from(found.payload)[0] if len(found.payload) >= _COUNT.size else 0


def decode(found: Record | None, segment: int, offset: int) -> Index | None:
    """The index that this record is, where it is one, of this segment, and accounts for every byte up to `offset`,
    where it lies itself."""
    if found is None or found.kind != record.INDEX or found.seq != segment or len(found.payload) < _COUNT.size:
        return None
    (count,) = _COUNT.unpack_from(found.payload)
    end = _COUNT.size + count * ROW_BYTES
    if end > len(found.payload):
        return None
    index = Index(found.payload[_COUNT.size : end], found.payload[end:])
    return index if index.records_end == offset else None
