"""Frames between a worker and a signing helper, over a Unix socket. Pure: bytes and values.

Every frame is `size` (u32: bytes of the payload), `kind` (u8) and the payload; numbers are little-endian.

    GREETING  helper  lanes (u8): how many signatures it makes at once; it reads: before that nobody gives it work
    KEY       worker  key id (16), the private key as PEM
    SIGN      worker  ref (u32), then for each digest: key id (16), digest (32)
    SIGNED    helper  ref (u32), CPU time of signing (u32, microseconds), then for each of them in its order:
                      status (u8), size (u16), signature or text

Packed by hand, for these are counted by the signature: msgpack objects would cost as much again as the socket.
"""

from collections.abc import Iterable, Sequence
from struct import Struct

GREETING, KEY, SIGN, SIGNED = range(1, 5)
"""Kinds of frames."""
DONE, UNKNOWN, REFUSED = range(3)
"""What became of a digest: signed; the helper does not know the key (any more), tell it again; the key cannot be used,
and a text says why."""

KEY_ID_BYTES = 16
DIGEST_BYTES = 32
ENTRY_BYTES = KEY_ID_BYTES + DIGEST_BYTES
PAYLOAD_BYTES_MAX = 1 << 20  # a PEM file of a key has a few kilobytes, a batch less than ten
TEXT_BYTES_MAX = 500  # of what is wrong with a key
HEAD_BYTES = 5

_HEAD = Struct("<IB")
_REF_AND_TIME = Struct("<II")
_TIME = Struct("<I")
_RESULT = Struct("<BH")
_RESULT_BYTES = _RESULT.size
_SIGN_HEAD = Struct("<IBI")

Answer = tuple[int, bytes]
"""Status, and the signature or the text."""


class FrameError(Exception):
    """These bytes are no frames: whoever sent them is not what it should be."""


def greeting(lanes: int) -> bytes:
    """What a helper says first."""
    return _HEAD.pack(1, GREETING) + bytes((lanes,))


def key(key_id: bytes, pem: bytes) -> bytes:
    """Tell a helper a key, before its first use on a connection."""
    return b"".join((_HEAD.pack(KEY_ID_BYTES + len(pem), KEY), key_id, pem))


def sign(ref: int, entries: Sequence[bytes]) -> bytes:
    """A batch: key id and digest in turn, as one flat sequence."""
    return _SIGN_HEAD.pack(4 + len(entries) // 2 * ENTRY_BYTES, SIGN, ref) + b"".join(entries)


def signed(ref: bytes, cpu_us: int, answers: Iterable[Answer]) -> bytes:
    """A batch's answers; `ref` as it came."""
    parts = [ref, _TIME.pack(cpu_us)]
    for status, told in answers:
        parts.append(_RESULT.pack(status, len(told)))
        parts.append(told)
    payload = b"".join(parts)
    return _HEAD.pack(len(payload), SIGNED) + payload


def read_greeting(payload: bytes) -> int:
    """-> lanes."""
    if len(payload) != 1 or not payload[0]:
        raise FrameError("a greeting without lanes")
    return payload[0]


def read_key(payload: bytes) -> tuple[bytes, bytes]:
    """-> key id, PEM."""
    if len(payload) <= KEY_ID_BYTES:
        raise FrameError("a key without its PEM")
    return payload[:KEY_ID_BYTES], payload[KEY_ID_BYTES:]


def read_sign(payload: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """-> ref, (key id, digest) of each."""
    if len(payload) < 4 + ENTRY_BYTES or (len(payload) - 4) % ENTRY_BYTES:
        raise FrameError(f"a batch of {len(payload)} bytes")
    return payload[:4], [
        (payload[at : at + KEY_ID_BYTES], payload[at + KEY_ID_BYTES : at + ENTRY_BYTES])
        for at in range(4, len(payload), ENTRY_BYTES)
    ]


def read_signed(payload: bytes) -> tuple[int, int, list[Answer]]:
    """-> ref, microseconds, what became of each digest."""
    answers: list[Answer] = []
    at, end = _REF_AND_TIME.size, len(payload)
    unpack = _RESULT.unpack_from
    if end < at:
        raise FrameError("an answer without ref and time")
    while at < end:
        if at + _RESULT_BYTES > end:
            raise FrameError("an answer that is cut off")
        status, size = unpack(payload, at)
        at += _RESULT_BYTES + size
        if at > end:
            raise FrameError("an answer that is cut off")
        answers.append((status, payload[at - size : at]))
    ref, cpu_us = _REF_AND_TIME.unpack_from(payload)
    return ref, cpu_us, answers


class FrameReader:
    """Bytes in any pieces -> whole frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[tuple[int, bytes]]:
        """Kind and payload of each frame that is complete now; raises FrameError."""
        if self._rest:
            data = self._rest + data
        frames: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= HEAD_BYTES:
            size, kind = _HEAD.unpack_from(data, at)
            if size > PAYLOAD_BYTES_MAX or not GREETING <= kind <= SIGNED:
                raise FrameError(f"a frame of kind {kind} with {size} bytes")
            if end - at < HEAD_BYTES + size:
                break
            at += HEAD_BYTES + size
            frames.append((kind, data[at - size : at]))
        self._rest = data[at:]
        return frames
