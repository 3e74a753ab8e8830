"""One record <-> bytes: the only place that knows where which byte lies. Pure.

A segment file is a file header followed by records without gaps. A record is a fixed header, a payload and, for
items only, the content. One checksum covers header and payload, another the content, so that whoever wants to know
what is in the queue need not read the mail itself. queue/FORMAT.md says the same in prose, byte by byte.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple
from zlib import crc32

MAGIC = b"mtaqueue"
VERSION = 2
VERSIONS_READ = frozenset({1, 2})  # 1 had no indexes and no copies; what it had lies where it did

ITEM, FINISHED, POSTPONED, MOVED, ARRIVED, FORGOTTEN, TOLD, SEALED, RESCHEDULED, INDEX = range(1, 11)
KIND_NAMES = {
    ITEM: "item",
    FINISHED: "finished",
    POSTPONED: "postponed",
    MOVED: "moved",
    ARRIVED: "arrived",
    FORGOTTEN: "forgotten",
    TOLD: "told",
    SEALED: "sealed",
    RESCHEDULED: "rescheduled",
    INDEX: "index",
}
TOLD_KINDS = frozenset({ITEM, FINISHED, POSTPONED})
"""What the event log has to hear of."""
FATE_KINDS = frozenset({FINISHED, POSTPONED, MOVED, ARRIVED, FORGOTTEN, RESCHEDULED})
"""Records about an item that lies elsewhere: lost too early, they would let a dead item rise again."""

FLAG_ARRIVING = 1
FLAG_COPY = 2

ID_BYTES_MAX = 255  # its length is one byte of the header
PAYLOAD_BYTES_MAX = 64 << 20  # far over 100,000 recipients of 320 bytes; a length beyond it is damage, not a record
CONTENT_BYTES_MAX = (1 << 32) - 1  # its length is four bytes of the header
PARTS_MAX = 1_000_000  # what one item may be divided into; bounds the bit mask that a part costs in memory

_PREFIX = Struct("<II")
_BODY = Struct("<QQdBBHIIII")
_HEADER = Struct("<IIQQdBBHIIII")
_KNOWN = Struct("<II8xQ8xBBHI")  # of the header what is needed where the lengths are known
_ORIGIN = Struct("<IQ")
_PART = Struct("<I")
_STATE = Struct("<dII")
_PLACE = Struct("<Q")
_FILE = Struct("<8sHHIIQQQ")

PREFIX_BYTES = _PREFIX.size
HEADER_BYTES = _HEADER.size
FILE_HEADER_BYTES = _FILE.size + 4
SEAL_BYTES = HEADER_BYTES + _PLACE.size

_pack_prefix, _pack_body, _pack_part = _PREFIX.pack, _BODY.pack, _PART.pack
_unpack_header = _HEADER.unpack_from
_unpack_known = _KNOWN.unpack_from
_new_tuple = tuple.__new__


class Origin(NamedTuple):
    """Where an arriving item came from: the log's number and the item's seq there."""

    log: int
    seq: int


class CopiedState(NamedTuple):
    """Several living parts of a copied item that have their time and their note in common."""

    due_s: float
    parts: Sequence[int]
    note: bytes


class FileHeader(NamedTuple):
    """The first bytes of a segment."""

    version: int
    marker: int
    """The four bytes, drawn at random when the log was opened, that every record of this file begins with."""
    log: int
    segment: int
    first_number: int
    """No item of this segment or of a later one has a lower seq."""
    told: int
    """The position up to which everything had been told when the segment was begun."""


class Record(NamedTuple):
    """A record without its content."""

    kind: int
    number: int
    """Ever increasing over all records of a log; an item's is its seq."""
    seq: int
    """The item that the record is about; for TOLD the position; for SEALED the segment's number."""
    due_s: float
    id_bytes: int
    flags: int
    parts: int
    """ITEM: how many there are; of a copy how many live. Fates: how many are listed in the payload."""
    payload: bytes
    content_bytes: int
    content_crc: int

    @property
    def total_bytes(self) -> int:
        """The record's size on disk, content included."""
        return HEADER_BYTES + len(self.payload) + self.content_bytes

    @property
    def is_arriving(self) -> bool:
        return bool(self.flags & FLAG_ARRIVING)

    @property
    def is_copy(self) -> bool:
        return bool(self.flags & FLAG_COPY)

    def item_id(self) -> str:
        """ITEM: its id."""
        return id_in(self.payload, self.id_bytes)

    def origin(self) -> Origin | None:
        """ITEM: where it came from, None for one that was accepted here."""
        return Origin(*_ORIGIN.unpack_from(self.payload, self.id_bytes)) if self.is_arriving else None

    def meta(self) -> bytes:
        """ITEM: the opaque bytes that were handed in."""
        return meta_in(self.payload, self.id_bytes, self.flags)

    def copied_states(self) -> list[CopiedState]:
        """ITEM that is a copy: its living parts as they were when the copy was made."""
        return copied_states_in(self.payload, self.id_bytes)

    def listed_parts(self) -> tuple[int, ...]:
        """Fates: the parts that they are about."""
        return parts_of(self.payload, self.parts)

    def note(self) -> bytes:
        """Fates: the opaque bytes behind the parts."""
        return note_in(self.payload, self.parts)


Body = tuple[int, int, int, int, int, int, bytes]
"""As much of a record as is needed where its place is known: the number of what it is wanted for, then `seq`, `kind`,
`id_bytes`, `flags`, `parts` and `payload` as in `Record`."""


class Damage(NamedTuple):
    """Bytes that are no records."""

    offset: int
    length_bytes: int
    followed: bool
    """A whole record follows."""
    item_id: str = ""
    """What seems to have been the id of an item that lay there; "" where nothing looks like one."""


class Found(NamedTuple):
    """A whole record and where it lies."""

    offset: int
    record: Record
    content_good: bool
    """False only where the content was looked at and fails its checksum or is cut short."""


def id_in(payload: bytes, id_bytes: int) -> str:
    """The id in an item's payload."""
    return payload[:id_bytes].decode("utf-8", "replace")


def meta_in(payload: bytes, id_bytes: int, flags: int) -> bytes:
    """The meta in an item's payload."""
    if not flags:
        return payload[id_bytes:]
    if flags & FLAG_COPY:
        states, at = states_at(payload, id_bytes)
        return payload[at + sum(note_bytes for _, _, note_bytes in states) :]
    return payload[id_bytes + _ORIGIN.size * bool(flags & FLAG_ARRIVING) :]


def note_in(payload: bytes, parts: int) -> bytes:
    """The note in the payload of a fate of so many parts."""
    return payload[parts * _PART.size :]


def copied_states_in(payload: bytes, id_bytes: int) -> list[CopiedState]:
    """The living parts in a copy's payload, as they were when the copy was made."""
    found, at = states_at(payload, id_bytes)
    states = []
    for due_s, parts, note_bytes in found:
        states.append(CopiedState(due_s, parts, payload[at : at + note_bytes]))
        at += note_bytes
    return states


def parts_of(payload: bytes, count: int) -> tuple[int, ...]:
    """The `count` part numbers at the start of a fate's payload; raises struct.error where it is too short."""
    if count == 1:
        return _PART.unpack_from(payload)
    return Struct(f"<{count}I").unpack_from(payload)


def states_at(data: bytes, at: int) -> tuple[list[tuple[float, tuple[int, ...], int]], int]:
    """A copy's states where they begin: (due_s, parts, length of the note), and where they end."""
    (count,) = _PART.unpack_from(data, at)
    at += _PART.size
    states = []
    for _ in range(count):
        due_s, note_bytes, parts = _STATE.unpack_from(data, at)
        at += _STATE.size
        states.append((due_s, Struct(f"<{parts}I").unpack_from(data, at), note_bytes))
        at += parts * _PART.size
    return states, at


def encode_item(
    marker: int,
    number: int,
    item_id: str,
    meta: bytes,
    parts: int,
    content_bytes: int,
    content_crc: int,
    due_s: float = 0.0,
    origin: Origin | None = None,
) -> bytes:
    """An ITEM's header and payload; the content follows it on disk. Raises ValueError where a limit is passed."""
    id_bytes = item_id.encode()
    if len(id_bytes) > ID_BYTES_MAX or not 0 < parts <= PARTS_MAX or content_bytes > CONTENT_BYTES_MAX:
        raise ValueError("the item's id, its parts or its content are over the format's limits")
    flags = 0
    payload = id_bytes + meta
    if origin is not None:
        flags = FLAG_ARRIVING
        payload = id_bytes + _ORIGIN.pack(*origin) + meta
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError("the item's meta is over the format's limit")
    body = (
        _pack_body(number, number, due_s, ITEM, len(id_bytes), flags, parts, len(payload), content_bytes, content_crc)
        + payload
    )
    return _pack_prefix(marker, crc32(body)) + body


def encode_copy(
    marker: int,
    number: int,
    seq: int,
    item_id: str,
    meta: bytes,
    content_bytes: int,
    content_crc: int,
    states: Sequence[CopiedState],
) -> bytes:
    """The header and payload of an ITEM that lies elsewhere under `seq`, with its living parts as they are; the
    content follows it on disk. Raises ValueError where a limit is passed."""
    id_bytes = item_id.encode()
    listed = [_PART.pack(len(states))]
    parts = 0
    for due_s, living, note in states:
        listed.append(_STATE.pack(due_s, len(note), len(living)))
        listed.append(Struct(f"<{len(living)}I").pack(*living))
        parts += len(living)
    payload = b"".join((id_bytes, *listed, *(state.note for state in states), meta))
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError("the item's meta and notes are over the format's limit")
    due_s = states[0].due_s
    body = (
        _pack_body(number, seq, due_s, ITEM, len(id_bytes), FLAG_COPY, parts, len(payload), content_bytes, content_crc)
        + payload
    )
    return _pack_prefix(marker, crc32(body)) + body


def encode_fate(
    marker: int, number: int, kind: int, seq: int, parts: Sequence[int] = (), note: bytes = b"", due_s: float = 0.0
) -> bytes:
    """Any record that is not an item; raises ValueError where the note is over the format's limit."""
    count = len(parts)
    listed = _pack_part(parts[0]) if count == 1 else Struct(f"<{count}I").pack(*parts)
    payload = listed + note
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError("the note is over the format's limit")
    body = _pack_body(number, seq, due_s, kind, 0, 0, count, len(payload), 0, 0) + payload
    return _pack_prefix(marker, crc32(body)) + body


def encode_seal(marker: int, number: int, segment: int, index_offset: int = 0) -> bytes:
    """The record that ends a segment whose every byte before it is complete, and tells where its INDEX is; 0: it has
    none."""
    return encode_fate(marker, number, SEALED, segment, (), _PLACE.pack(index_offset) if index_offset else b"")


def decode_seal(data: bytes, marker: int) -> int | None:
    """Where the INDEX of a segment is that ends with these bytes; 0: it has none, None: it does not end with a seal."""
    seal = decode(data, 0, marker)
    if seal is not None and seal.kind == SEALED and len(seal.payload) == _PLACE.size:
        return _PLACE.unpack(seal.payload)[0]
    seal = decode(data[-HEADER_BYTES:], 0, marker)  # of version 1
    return 0 if seal is not None and seal.kind == SEALED and not seal.payload else None


def claimed_bytes(data: bytes, offset: int, marker: int) -> int:
    """How long the record at `offset` claims to be, header and payload; 0 where no record of this file begins there.

    Not yet checked: a damaged header may claim anything up to the limits.
    """
    fields = _unpack_header(data, offset)
    if fields[0] != marker or fields[9] > PAYLOAD_BYTES_MAX or fields[5] not in KIND_NAMES:
        return 0
    return HEADER_BYTES + fields[9]


def decode(data: bytes, offset: int, marker: int) -> Record | None:
    """The record at `offset`; None where it is not one, is cut short or fails its checksum."""
    body = offset + HEADER_BYTES
    if len(data) < body:
        return None
    found, crc, number, seq, due_s, kind, id_bytes, flags, parts, payload_bytes, content_bytes, content_crc = (
        _unpack_header(data, offset)
    )
    end = body + payload_bytes
    if found != marker or end > len(data) or crc32(data[offset + 8 : end]) != crc or kind not in KIND_NAMES:
        return None
    payload = data[body:end]
    return _new_tuple(
        Record, (kind, number, seq, due_s, id_bytes, flags, parts, payload, content_bytes, content_crc)
    )  # Record(...) with names would take twice as long


def bodies(data: bytes, begin: int, marker: int, wanted: Iterable[tuple[int, int, int, int]]) -> Iterator[Body]:
    """Those of the wanted records that are whole: (segment, offset, length of header and payload, number of what it is
    wanted for), in a segment of which `data` was read from `begin` on."""
    for _, offset, length, wanted_for in wanted:
        at = offset - begin
        end = at + length
        if end > len(data):
            continue
        found, crc, seq, kind, id_bytes, flags, parts = _unpack_known(data, at)
        if found == marker and crc32(data[at + 8 : end]) == crc:
            yield wanted_for, seq, kind, id_bytes, flags, parts, data[at + HEADER_BYTES : end]


def encode_file_header(header: FileHeader) -> bytes:
    """The first FILE_HEADER_BYTES of a segment."""
    version, marker, log, segment, first_number, told = header
    data = _FILE.pack(MAGIC, version, 0, marker, log, segment, first_number, told)
    return data + _PART.pack(crc32(data))


def decode_file_header(data: bytes) -> FileHeader | None:
    """What a segment begins with; None where that is cut short, damaged or not one of ours."""
    if len(data) < FILE_HEADER_BYTES or data[: len(MAGIC)] != MAGIC:
        return None
    if crc32(data[: _FILE.size]) != _PART.unpack_from(data, _FILE.size)[0]:
        return None
    _, version, _, marker, log, segment, first_number, told = _FILE.unpack_from(data)
    return FileHeader(version, marker, log, segment, first_number, told)


def guessed_id(data: bytes, marker: int) -> str:
    """The id of the item whose damaged record `data` seems to begin with; "" where it does not look like one."""
    if len(data) < HEADER_BYTES:
        return ""
    fields = _unpack_header(data, 0)
    id_bytes = data[HEADER_BYTES : HEADER_BYTES + fields[6]]
    if fields[0] != marker or fields[5] != ITEM or not id_bytes.isascii():
        return ""
    text = id_bytes.decode("ascii")
    return text if text.isprintable() else ""


def guessed_marker(data: bytes) -> int | None:
    """The marker of a file whose header is damaged: what its first record begins with, if that record is whole."""
    if len(data) < FILE_HEADER_BYTES + HEADER_BYTES:
        return None
    marker = _PART.unpack_from(data, FILE_HEADER_BYTES)[0]
    return marker if decode(data, FILE_HEADER_BYTES, marker) is not None else None
