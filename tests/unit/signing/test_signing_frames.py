"""What workers and signing helpers say to each other, byte for byte and cut anywhere."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.signing import signing_frames as frames
from mta.signing.signing_frames import DONE, GREETING, KEY, REFUSED, SIGN, SIGNED, UNKNOWN, FrameError, FrameReader

ID = bytes(range(16))
DIGEST = bytes(range(32))


def test_greeting():
    """A helper says that it reads, and how many signatures it makes at once."""
    [(kind, payload)] = FrameReader().receive(frames.greeting(8))

    assert kind == GREETING
    assert frames.read_greeting(payload) == 8


def test_key():
    """A key is its id and its PEM."""
    [(kind, payload)] = FrameReader().receive(frames.key(ID, b"-----BEGIN"))

    assert kind == KEY
    assert frames.read_key(payload) == (ID, b"-----BEGIN")


def test_batch():
    """Digests keep their order, each with the id of its key."""
    other = bytes(reversed(ID))
    [(kind, payload)] = FrameReader().receive(frames.sign(7, [ID, DIGEST, other, DIGEST]))

    assert kind == SIGN
    assert frames.read_sign(payload) == (struct.pack("<I", 7), [(ID, DIGEST), (other, DIGEST)])


def test_answers():
    """Every digest has its own status, signature or text."""
    told = [(DONE, b"s" * 256), (UNKNOWN, b""), (REFUSED, b"no RSA key"), (DONE, b"e" * 64)]

    [(kind, payload)] = FrameReader().receive(frames.signed(struct.pack("<I", 9), 1_250, told))

    assert kind == SIGNED
    assert frames.read_signed(payload) == (9, 1_250, told)


@given(
    st.lists(st.tuples(st.sampled_from([DONE, UNKNOWN, REFUSED]), st.binary(max_size=600)), min_size=1, max_size=20),
    st.integers(1, 700),
)
def test_cuts(told: list[tuple[int, bytes]], piece: int):
    """Frames come out the same however the bytes arrive."""
    stream = frames.greeting(1) + frames.signed(struct.pack("<I", 1), 3, told) + frames.key(ID, b"pem")
    reader = FrameReader()
    found = [frame for at in range(0, len(stream), piece) for frame in reader.receive(stream[at : at + piece])]

    assert [kind for kind, _ in found] == [GREETING, SIGNED, KEY]
    assert frames.read_signed(found[1][1]) == (1, 3, told)


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("<IB", 0, 0),
        struct.pack("<IB", 0, 5),
        struct.pack("<IB", frames.PAYLOAD_BYTES_MAX + 1, SIGN),
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_not_frames(stream: bytes):
    """Something else that talks on the socket is noticed at once, and fills no memory."""
    with pytest.raises(FrameError):
        FrameReader().receive(stream)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\1\1"])
def test_bad_greeting(payload: bytes):
    """Who makes no signature at once, or does not say, is no helper."""
    with pytest.raises(FrameError):
        frames.read_greeting(payload)


@pytest.mark.parametrize("payload", [b"", ID])
def test_bad_key(payload: bytes):
    """A key without PEM is no key."""
    with pytest.raises(FrameError):
        frames.read_key(payload)


@pytest.mark.parametrize("payload", [b"", b"1234", b"1234" + ID, b"1234" + ID + DIGEST + b"x"])
def test_bad_batch(payload: bytes):
    """A batch holds whole entries, at least one."""
    with pytest.raises(FrameError):
        frames.read_sign(payload)


@pytest.mark.parametrize("payload", [b"", b"1234567", b"12345678\x00", b"12345678\x00\x05\x00abcd"])
def test_bad_answers(payload: bytes):
    """An answer that is cut off is noticed."""
    with pytest.raises(FrameError):
        frames.read_signed(payload)
