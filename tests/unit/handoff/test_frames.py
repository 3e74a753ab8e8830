"""Frames: what was sent is what is read, however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.handoff import frames
from mta.handoff.frames import Frame, FrameError, FrameReader

EVERY_KIND: list[Frame] = [
    frames.Hello(3, [(1, "id-1")], ["id-2"], 12.5),
    frames.Settled(),
    frames.Offer(1, b"meta", True),
    frames.Taken(1),
    frames.Refused(1, "No space left on device"),
    frames.Unknown(1),
    frames.Release(1),
    frames.Forget(1),
    frames.Forgotten(1),
    frames.Move(1, "id", b"meta", 2, 1 << 40, [(0.0, b""), (12.5, b"note")]),
    frames.Arrived(1),
    frames.Declined(1, "Input/output error"),
    frames.Gone(1),
    frames.Ask(1, 2, 3, "id", ["a@x"]),
    frames.Living(1, True),
    frames.Told("x.example", [0, 1], 300.0, 2),
    frames.Claim(1, 2, "site:mx.example", "mx.example"),
    frames.Yielded(1, {"meter": {"rate": [1.0, 2.0]}}),
    frames.Borrow([("tenant shop", 10)], [(1, "tenant shop", 3, False)]),
    frames.Lend([(1, "tenant shop", 10, 12.5)], [("tenant bank", "its quota is used up", 1_700_000_000.0)]),
]
WITH_BODY = frames.Offer(7, b"meta", False)


def long_body(frame: Frame, body: bytes, piece_bytes: int) -> list[bytes]:
    """A body in pieces, each with what goes before it."""
    pieces = [body[at : at + piece_bytes] for at in range(0, len(body), piece_bytes)]
    return [
        *(frames.encode_piece(len(p)) + p for p in pieces[:-1]),
        frames.encode_last(frame, len(pieces[-1])) + pieces[-1],
    ]


def test_every_kind_is_listed() -> None:
    """No frame is forgotten here, and every tag belongs to one of them."""
    assert {type(frame) for frame in EVERY_KIND} == set(frames.Frame.__args__)


@pytest.mark.parametrize("frame", EVERY_KIND, ids=lambda frame: type(frame).__name__)
def test_a_frame_comes_back(frame: Frame) -> None:
    """Every kind survives the wire, with and without a body."""
    stream = frames.encode(frame) + frames.encode(frame, 4) + b"body"

    assert FrameReader().receive(stream) == [(frame, b""), (frame, b"body")]


def test_split_at_every_byte() -> None:
    """Wherever two reads meet, nothing is lost, doubled or early."""
    stream = frames.encode(WITH_BODY, 5) + b"hello" + frames.encode(frames.Taken(1))
    stream += b"".join(long_body(WITH_BODY, b"0123456789", 4)) + frames.encode(frames.Settled())
    whole = FrameReader().receive(stream)
    assert len(whole) == 4

    for at in range(len(stream) + 1):
        reader = FrameReader()
        assert reader.receive(stream[:at]) + reader.receive(stream[at:]) == whole


def test_byte_by_byte() -> None:
    """A stream that drips gives the same frames, each with its last byte."""
    reader = FrameReader()
    first, second = frames.encode(WITH_BODY, 2) + b"ab", frames.encode(frames.Release(2))

    found = [(at, reader.receive(bytes([byte]))) for at, byte in enumerate(first + second)]

    assert [at for at, some in found if some] == [len(first) - 1, len(first + second) - 1]


def test_small_frames_pass_between_pieces() -> None:
    """A long body is put together again around whole frames, which come first."""
    one, two, three = long_body(WITH_BODY, b"0123456789", 4)
    small = frames.encode(frames.Offer(8, b"m", False), 1) + b"x"

    found = FrameReader().receive(one + small + two + small + three)

    assert found == [(frames.Offer(8, b"m", False), b"x")] * 2 + [(WITH_BODY, b"0123456789")]


@given(
    st.lists(st.tuples(st.sampled_from(EVERY_KIND), st.binary(max_size=40), st.booleans()), max_size=8),
    st.lists(st.integers(1, 30), max_size=60),
)
def test_any_stream_in_any_cuts(sent: list[tuple[Frame, bytes, bool]], cuts: list[int]) -> None:
    """Any frames, in any pieces, read in any portions."""
    stream = b""
    for frame, body, is_long in sent:
        if is_long and len(body) > 7:
            stream += b"".join(long_body(frame, body, 7))
        else:
            stream += frames.encode(frame, len(body)) + body
    reader, found = FrameReader(), []

    for cut in cuts:
        found += reader.receive(stream[:cut])
        stream = stream[cut:]
    found += reader.receive(stream)

    assert found == [(frame, body) for frame, body, _ in sent]


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frames.encode(frames.Taken(1), frames.PIECE_BYTES + 1),
        b"\0\0\0\1\0\0\0\0\xc1",
        b"\0\0\0\3\0\0\0\0\x92\x63\x01",
    ],
    ids=["something else", "body too long", "no msgpack", "unknown kind"],
)
def test_what_is_no_frame_is_said(stream: bytes) -> None:
    """Lengths over the limits and heads that are no frame end the link instead of filling memory."""
    with pytest.raises(FrameError):
        FrameReader().receive(stream)
