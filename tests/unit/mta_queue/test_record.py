"""Records and file headers, to bytes and back."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_queue import record
from mta_queue.record import FileHeader, Origin

MARKER = 0x11223344
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)


def item(content: bytes = b"content", origin: Origin | None = None, due_s: float = 0.0) -> bytes:
    return record.encode_item(MARKER, 7, "the-id", b"meta", 3, len(content), crc32(content), due_s, origin)


@given(
    marker=U32,
    number=U64,
    item_id=st.text(max_size=60).filter(lambda text: len(text.encode("utf-8", "replace")) < 256),
    meta=st.binary(max_size=200),
    parts=st.integers(1, record.PARTS_MAX),
    content=st.binary(max_size=50),
    due_s=st.floats(allow_nan=False),
    origin=st.none() | st.builds(Origin, U32, U64),
)
def test_item_round_trip(
    marker: int,
    number: int,
    item_id: str,
    meta: bytes,
    parts: int,
    content: bytes,
    due_s: float,
    origin: Origin | None,
) -> None:
    """All that an item was encoded from comes out of its bytes."""
    data = record.encode_item(marker, number, item_id, meta, parts, len(content), crc32(content), due_s, origin)

    found = record.decode(data, 0, marker)

    assert found is not None
    assert (found.kind, found.number, found.seq) == (record.ITEM, number, number)
    assert (found.item_id(), found.meta(), found.origin(), found.parts) == (item_id, meta, origin, parts)
    assert (found.due_s, found.content_bytes, found.content_crc) == (due_s, len(content), crc32(content))
    assert found.total_bytes == len(data) + len(content)
    assert record.claimed_bytes(data, 0, marker) == len(data)


@given(
    kind=st.sampled_from(sorted(record.KIND_NAMES.keys() - {record.ITEM})),
    number=U64,
    seq=U64,
    parts=st.lists(st.integers(0, record.PARTS_MAX), max_size=8),
    note=st.binary(max_size=100),
    due_s=st.floats(allow_nan=False),
)
def test_fate_round_trip(kind: int, number: int, seq: int, parts: list[int], note: bytes, due_s: float) -> None:
    """All that a fate was encoded from comes out of its bytes, however many parts it lists."""
    data = record.encode_fate(MARKER, number, kind, seq, parts, note, due_s)

    found = record.decode(data, 0, MARKER)

    assert found is not None
    assert (found.kind, found.number, found.seq, found.due_s) == (kind, number, seq, due_s)
    assert (found.listed_parts(), found.note()) == (tuple(parts), note)


def test_decode_in_the_middle() -> None:
    """A record is found at its offset and needs nothing behind it."""
    data = b"before" + item() + b"behind"

    found = record.decode(data, 6, MARKER)

    assert found is not None
    assert found.item_id() == "the-id"


def test_every_bit_counts() -> None:
    """A record with any one bit changed is none."""
    data = item()

    for at in range(len(data) * 8):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8

        assert record.decode(bytes(changed), 0, MARKER) is None


def test_cut_short_at_every_byte() -> None:
    """A record that lacks its end is none, wherever it was cut."""
    data = item()

    assert [end for end in range(len(data)) if record.decode(data[:end], 0, MARKER) is not None] == []


def test_another_run_is_foreign() -> None:
    """A whole record with the marker of another run is no record here: mail cannot smuggle one in."""
    data = item()

    assert record.decode(data, 0, MARKER + 1) is None
    assert record.claimed_bytes(data, 0, MARKER + 1) == 0


def test_absurd_lengths_claim_nothing() -> None:
    """A damaged length is not believed far enough to allocate it."""
    data = bytearray(item())
    data[record.HEADER_BYTES - 12 : record.HEADER_BYTES - 8] = b"\xff\xff\xff\x7f"

    assert record.claimed_bytes(bytes(data), 0, MARKER) == 0


@pytest.mark.parametrize(
    ("item_id", "parts", "content_bytes"),
    [
        ("x" * (record.ID_BYTES_MAX + 1), 1, 0),
        ("ä" * (record.ID_BYTES_MAX // 2 + 1), 1, 0),
        ("id", 0, 0),
        ("id", record.PARTS_MAX + 1, 0),
        ("id", 1, record.CONTENT_BYTES_MAX + 1),
    ],
)
def test_item_over_its_limits(item_id: str, parts: int, content_bytes: int) -> None:
    """What the format cannot hold is refused before anything is written."""
    with pytest.raises(ValueError, match="limits"):
        record.encode_item(MARKER, 1, item_id, b"", parts, content_bytes, 0)


def test_payload_over_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A meta or a note that a reader would take for damage is refused."""
    monkeypatch.setattr(record, "PAYLOAD_BYTES_MAX", 20)

    with pytest.raises(ValueError, match="meta"):
        record.encode_item(MARKER, 1, "id", b"m" * 19, 1, 0, 0)
    with pytest.raises(ValueError, match="note"):
        record.encode_fate(MARKER, 1, record.FINISHED, 1, (0,), b"n" * 17)


@given(st.builds(FileHeader, st.integers(0, 65535), U32, U32, U64, U64, U64))
def test_file_header_round_trip(header: FileHeader) -> None:
    """A file header comes out as it went in, whatever follows it."""
    data = record.encode_file_header(header)

    assert len(data) == record.FILE_HEADER_BYTES
    assert record.decode_file_header(data + b"more") == header


def test_file_header_damaged() -> None:
    """A header with any bit changed or its end missing is none."""
    data = record.encode_file_header(FileHeader(1, MARKER, 2, 3, 4, 5))

    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x10

        assert record.decode_file_header(bytes(changed)) is None
        assert record.decode_file_header(data[:at]) is None


def test_guessed_marker() -> None:
    """Where the header is lost a whole first record tells the marker, and a damaged one nothing."""
    lost = bytes(record.FILE_HEADER_BYTES)

    assert record.guessed_marker(lost + item()) == MARKER
    assert record.guessed_marker(lost + item()[:-1]) is None
    assert record.guessed_marker(lost + b"\1" * 200) is None
    assert record.guessed_marker(lost) is None


def test_seal() -> None:
    """A seal has the size that readers look for at the end, and names its segment and the place of its index."""
    data = record.encode_seal(MARKER, 9, 4, 777)

    found = record.decode(data, 0, MARKER)

    assert len(data) == record.SEAL_BYTES
    assert found is not None
    assert (found.kind, found.number, found.seq) == (record.SEALED, 9, 4)
    assert record.decode_seal(data, MARKER) == 777
    assert record.decode_seal(data[:-1] + b"x", MARKER) is None
    assert record.decode_seal(b"12345678" + record.encode_seal(MARKER, 9, 4), MARKER) == 0


@given(st.data())
def test_bodies_of_records_whose_places_are_known(data: st.DataObject) -> None:
    """They are what `decode` finds there; what is damaged or cut short is left out."""
    made = [
        item(b""),
        record.encode_fate(MARKER, 9, record.POSTPONED, 7, (0, 2), b"the note", 5.0),
        item(b"", Origin(1, 2)),
    ]
    kinds = data.draw(st.lists(st.sampled_from(made), min_size=1, max_size=8))
    stream, places = bytearray(b"dead"), list[tuple[int, int, int, int]]()
    for number, one in enumerate(kinds):
        places.append((1, 1000 + len(stream), len(one), number))
        stream += one
    flipped = data.draw(st.integers(0, len(stream) - 1))
    stream[flipped] ^= data.draw(st.sampled_from([0, 1, 128]))
    cut = bytes(stream[: data.draw(st.integers(len(stream) - 60, len(stream)))])

    found = list(record.bodies(cut, 1000, MARKER, places))

    decoded = [(number, record.decode(cut, offset - 1000, MARKER)) for _, offset, _, number in places]
    assert found == [
        (number, one.seq, one.kind, one.id_bytes, one.flags, one.parts, one.payload)
        for number, one in decoded
        if one is not None
    ]
