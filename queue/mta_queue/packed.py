"""Packed items: what waits, as numbers without objects: 56 bytes an item, in order of its seq. Pure.

Rows lie in chunks of at most `CHUNK_ROWS`, so that no change ever moves more than a few kilobytes: a dict of a million
entries is copied as a whole when it grows, in the middle of a turn of the loop.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

CHUNK_ROWS = 256  # 12 KiB that an insertion moves at most
_CROWDED = CHUNK_ROWS * 3 // 4  # what two chunks may hold together to be made one
_SPARSE = CHUNK_ROWS // 4  # below it a chunk looks for a neighbour

MASK_BITS = 64
NUMBER_MAX = (1 << 32) - 1

_ROW = Struct("<IIIIIdQIII")
_STANDS = Struct("<20xdQII4x")
_STATE = Struct("<dQIII")
_HOME = Struct("<I")
_DUE = Struct("<dQ")
ROW_BYTES = _ROW.size
_STATE_AT = ROW_BYTES - _STATE.size
_HOME_AT = 4

_pack, _unpack = _ROW.pack, _ROW.unpack_from


class Row(NamedTuple):
    """One item: where it lies, and the one state that all its living parts are in."""

    offset: int
    segment: int
    payload_bytes: int
    content_bytes: int
    content_crc: int
    due_s: float
    mask: int
    """Bit n: part n lives."""
    note_segment: int
    """Where the record with the note lies; 0: there is none."""
    note_offset: int
    note_payload_bytes: int


Columns = tuple[int, int, int, int, int, float, int, int, int, int]
"""A row as its numbers alone."""

Stands = tuple[float, int, int, int]
"""Of a row `due_s`, `mask`, `note_segment` and `note_offset`."""


class _Chunk:
    __slots__ = ("rows", "seqs")

    def __init__(self, seqs: "array[int]", rows: bytearray) -> None:
        self.seqs = seqs
        self.rows = rows


class Packed:
    """Rows by seq."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._firsts: list[int] = []
        self._last = -1
        """No row has a higher seq."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, seq: int) -> bool:
        return self._find(seq) is not None

    def _find(self, seq: int) -> tuple[_Chunk, int] | None:
        if seq > self._last:
            return None
        place = bisect_right(self._firsts, seq) - 1
        if place < 0:
            return None
        chunk = self._chunks[place]
        seqs = chunk.seqs
        at = bisect_left(seqs, seq)
        return (chunk, at) if at < len(seqs) and seqs[at] == seq else None

    def get(self, seq: int) -> Row | None:
        """The item's row."""
        found = self._find(seq)
        return Row._make(_unpack(found[0].rows, found[1] * ROW_BYTES)) if found is not None else None

    def rows(self, seqs: Sequence[int]) -> "list[Columns | None]":
        """What `get` says of each, without the names: neighbours are looked up and read together."""
        return self._read(seqs, _ROW)

    def stands(self, seqs: Sequence[int]) -> "list[Stands | None]":
        """The same, of what changes while an item waits."""
        return self._read(seqs, _STANDS)

    def _read(self, seqs: Sequence[int], columns: Struct) -> list[Any]:
        wanted = seqs if isinstance(seqs, array) else array("Q", seqs)
        found: list[Any] = []
        at, count = 0, len(wanted)
        while at < count:
            place = self._find(wanted[at])
            if place is None:
                found.append(None)
                at += 1
                continue
            (chunk, begin), near = place, wanted[at : at + CHUNK_ROWS]
            alike = chunk.seqs[begin : begin + len(near)]
            length = len(alike)
            if alike != near:
                pairs = enumerate(zip(alike, near, strict=False))
                length = next((at for at, (one, other) in pairs if one != other), length)
            found += columns.iter_unpack(chunk.rows[begin * ROW_BYTES : (begin + length) * ROW_BYTES])
            at += length
        return found

    def due(self, seq: int) -> tuple[float, int] | None:
        """(due_s, mask of the living parts)."""
        found = self._find(seq)
        if found is None:
            return None
        due_s, mask = _DUE.unpack_from(found[0].rows, found[1] * ROW_BYTES + _STATE_AT)
        return due_s, mask

    def put(
        self,
        seq: int,
        offset: int,
        segment: int,
        payload_bytes: int,
        content_bytes: int,
        content_crc: int,
        due_s: float,
        mask: int,
        note_segment: int = 0,
        note_offset: int = 0,
        note_payload_bytes: int = 0,
    ) -> None:
        """A new row, or another one for the same item; raises struct.error where a number does not fit."""
        row = _pack(
            offset,
            segment,
            payload_bytes,
            content_bytes,
            content_crc,
            due_s,
            mask,
            note_segment,
            note_offset,
            note_payload_bytes,
        )
        if seq > self._last:
            if not self._chunks or len(self._chunks[-1].seqs) >= CHUNK_ROWS:
                self._chunks.append(_Chunk(array("Q"), bytearray()))
                self._firsts.append(seq)
            chunk = self._chunks[-1]
            chunk.seqs.append(seq)
            chunk.rows += row
            self._last = seq
            self._count += 1
        else:
            self._insert(seq, row)

    def _insert(self, seq: int, row: bytes) -> None:
        place = max(0, bisect_right(self._firsts, seq) - 1)
        chunk = self._chunks[place]
        at = bisect_left(chunk.seqs, seq)
        if at < len(chunk.seqs) and chunk.seqs[at] == seq:
            chunk.rows[at * ROW_BYTES : (at + 1) * ROW_BYTES] = row
            return
        if len(chunk.seqs) >= CHUNK_ROWS:
            self._split(place)
            self._insert(seq, row)
            return
        chunk.seqs.insert(at, seq)
        chunk.rows[at * ROW_BYTES : at * ROW_BYTES] = row
        self._firsts[place] = chunk.seqs[0]
        self._count += 1

    def _split(self, place: int) -> None:
        chunk, half = self._chunks[place], CHUNK_ROWS // 2
        behind = _Chunk(chunk.seqs[half:], chunk.rows[half * ROW_BYTES :])
        self._chunks[place] = _Chunk(chunk.seqs[:half], chunk.rows[: half * ROW_BYTES])
        self._chunks.insert(place + 1, behind)
        self._firsts.insert(place + 1, behind.seqs[0])

    def postpone(
        self, seq: int, mask: int, due_s: float, note_segment: int, note_offset: int, note_payload_bytes: int
    ) -> bool:
        """All living parts, which must be those of `mask`, wait until `due_s`; False where there is no such row."""
        found = self._find(seq)
        if found is None:
            return False
        rows, at = found[0].rows, found[1] * ROW_BYTES + _STATE_AT
        if _DUE.unpack_from(rows, at)[1] != mask or note_segment > NUMBER_MAX or note_offset > NUMBER_MAX:
            return False
        _STATE.pack_into(rows, at, due_s, mask, note_segment, note_offset, note_payload_bytes)
        return True

    def remove(self, seq: int) -> None:
        """The item has no row any more; it must have one."""
        place = bisect_right(self._firsts, seq) - 1
        chunk = self._chunks[place]
        at = bisect_left(chunk.seqs, seq)
        assert chunk.seqs[at] == seq, "an item that has a row"
        del chunk.seqs[at]
        del chunk.rows[at * ROW_BYTES : (at + 1) * ROW_BYTES]
        self._count -= 1
        if len(chunk.seqs) < _SPARSE:
            self._join(place)
        elif not at:
            self._firsts[place] = chunk.seqs[0]

    def _join(self, place: int) -> None:
        """A chunk with few rows goes into its neighbour, an empty one goes."""
        chunk = self._chunks[place]
        for before in (place - 1, place):
            if 0 <= before < len(self._chunks) - 1:
                first, second = self._chunks[before], self._chunks[before + 1]
                if len(first.seqs) + len(second.seqs) <= _CROWDED:
                    self._chunks[before] = _Chunk(first.seqs + second.seqs, first.rows + second.rows)
                    del self._chunks[before + 1], self._firsts[before + 1]
                    place = before
                    chunk = self._chunks[before]
                    break
        if chunk.seqs:
            self._firsts[place] = chunk.seqs[0]
        else:
            del self._chunks[place], self._firsts[place]
            if not self._chunks:
                self._last = -1

    def slices(self) -> "list[array[int]]":
        """The seqs of all rows in order, chunk by chunk; not to be changed, and not to be kept over a change."""
        return [chunk.seqs for chunk in self._chunks]

    def lying_in(self, segment: int, first: int, last: int, count: int) -> tuple[list[int], int]:
        """Items from `first` to `last` that lie in the segment, from at least `count` rows, and where to go on: behind
        `last` when all were looked at."""
        found: list[int] = []
        looked = 0
        for place in range(max(0, bisect_right(self._firsts, first) - 1), len(self._chunks)):
            seqs, rows = self._chunks[place].seqs, self._chunks[place].rows
            begin, end = bisect_left(seqs, first), bisect_right(seqs, last)
            found += [
                seqs[at] for at in range(begin, end) if _HOME.unpack_from(rows, at * ROW_BYTES + _HOME_AT)[0] == segment
            ]
            looked += end - begin
            if end < len(seqs):
                break
            if looked >= count:
                return found, seqs[-1] + 1
        return found, last + 1
