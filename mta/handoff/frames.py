"""Frames: what workers say to each other. Pure: bytes in, frames out.

A frame is two lengths (head, body: unsigned 32 bits, big-endian), a msgpack head and a raw body. Only the content
of a message travels as a body, so that it is never copied through an encoder.
"""

import struct

import msgspec

_LENGTHS = struct.Struct("!II")
LENGTHS_BYTES = _LENGTHS.size
HEAD_BYTES_MAX = 64 * 1024 * 1024  # an envelope of 100,000 recipients fits; more is a broken peer
PIECE_BYTES = 256 * 1024  # longer bodies cross in pieces, so that small mail passes between them


class Hello(msgspec.Struct, tag=0, array_like=True, frozen=True):
    """The first frame on a link: who speaks, and what the last link left open."""

    worker: int
    pending: list[tuple[int, str]]
    """(ref, message id) offered before the link broke and not answered yet: taken or unknown?"""
    abandoned: list[str]
    """Message ids whose clients were told to come again: forget them."""


class Offer(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """A message for the other's destinations; the body is its content (or its last piece)."""

    ref: int
    id: str
    meta: bytes
    parts: int
    hold: bool
    """Do not deliver before `Release`: other owners have not taken it yet."""
    due_s: float = 0.0


class Move(msgspec.Struct, tag=2, array_like=True, frozen=True):
    """Waiting parts of a message whose destination belongs to the other now."""

    ref: int
    id: str
    meta: bytes
    parts: int
    log: int
    seq: int
    states: list[tuple[float, bytes]]
    """Due time and last note of every part."""


class Piece(msgspec.Struct, tag=3, array_like=True, frozen=True):
    """The body is a piece of the content of the `Offer` or `Move` that will carry the same ref."""

    ref: int


class Taken(msgspec.Struct, tag=4, array_like=True, frozen=True):
    """What was offered is on stable storage here."""

    ref: int


class Refused(msgspec.Struct, tag=5, array_like=True, frozen=True):
    """What was offered could not be written down; nothing of it is left."""

    ref: int
    text: str


class Unknown(msgspec.Struct, tag=6, array_like=True, frozen=True):
    """Answer to a pending ref in `Hello`: never written down here, offer it again."""

    ref: int


class Release(msgspec.Struct, tag=7, array_like=True, frozen=True):
    """A held or moved message may be delivered."""

    ref: int


class Forget(msgspec.Struct, tag=8, array_like=True, frozen=True):
    """A held message is not to be delivered: another owner could not take its share."""

    ref: int


class Forgotten(msgspec.Struct, tag=9, array_like=True, frozen=True):
    """Answer to `Forget`: that is on stable storage."""

    ref: int


class Told(msgspec.Struct, tag=10, array_like=True, frozen=True):
    """A domain was resolved: whose it is, and for how long."""

    domain: str
    owners: list[int]
    for_s: float
    epoch: int


class Ask(msgspec.Struct, tag=11, array_like=True, frozen=True):
    """Found after a crash: did these recipients of item `seq` in log `log` leave it?"""

    ref: int
    log: int
    seq: int
    id: str
    recipients: list[str]


class Living(msgspec.Struct, tag=12, array_like=True, frozen=True):
    """Answer to `Ask`: they are still the origin's (True), or the asker's."""

    ref: int
    living: bool


class Claim(msgspec.Struct, tag=13, array_like=True, frozen=True):
    """From this epoch on a destination (and one site of it) is the asker's: close what you have of it."""

    ref: int
    epoch: int
    key: str
    site: str


class Yielded(msgspec.Struct, tag=14, array_like=True, frozen=True):
    """Answer to `Claim`: no connection beyond our own share is left here; the state of its limits."""

    ref: int
    state: dict[str, dict[str, list[float]]]


Frame = (
    Hello
    | Offer
    | Move
    | Piece
    | Taken
    | Refused
    | Unknown
    | Release
    | Forget
    | Forgotten
    | Told
    | Ask
    | Living
    | Claim
    | Yielded
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


class FrameError(Exception):
    """The bytes are no frame of ours: the link is of no use any more."""


def encode(frame: Frame, body_bytes: int = 0) -> bytes:
    """The bytes of a frame up to its body, which the caller writes behind them."""
    head = _encode(frame)
    return _LENGTHS.pack(len(head), body_bytes) + head


class FrameReader:
    """Cuts a stream into (frame, body); keeps what is not whole yet."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = LENGTHS_BYTES

    def receive(self, data: bytes) -> list[tuple[Frame, bytes]]:
        """All frames that are whole now; raises FrameError."""
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        data = b"".join(self._chunks) if len(self._chunks) > 1 else data
        self._chunks.clear()
        frames, at, end = [], 0, len(data)
        self._need = LENGTHS_BYTES
        while end - at >= LENGTHS_BYTES:
            head_bytes, body_bytes = _LENGTHS.unpack_from(data, at)
            if head_bytes > HEAD_BYTES_MAX or body_bytes > 2 * PIECE_BYTES:
                raise FrameError(f"a frame of {head_bytes} + {body_bytes} bytes")
            whole = LENGTHS_BYTES + head_bytes + body_bytes
            if end - at < whole:
                self._need = whole
                break
            head_end = at + LENGTHS_BYTES + head_bytes
            try:
                frame = _decode(data[at + LENGTHS_BYTES : head_end])
            except msgspec.DecodeError as error:
                raise FrameError(str(error)) from error
            frames.append((frame, data[head_end : at + whole]))
            at += whole
        self._have = end - at
        if self._have:
            self._chunks.append(data[at:])
        return frames
