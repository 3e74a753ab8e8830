"""Frames: what workers say to each other. Pure: bytes in, frames out.

A frame is two lengths (head, body: unsigned 32 bits, big-endian), a msgpack head and a raw body. Only the content
of a message travels as a body, so that it is never copied through an encoder. A long body crosses in pieces: frames
without a head, then the frame itself, whose body length has the top bit set and which carries the last piece. One
long body at a time is under way in each direction; whole frames may pass between its pieces.
"""

import struct

import msgspec

_LENGTHS = struct.Struct("!II")
LENGTHS_BYTES = _LENGTHS.size
HEAD_BYTES_MAX = 64 * 1024 * 1024  # an envelope of 100,000 recipients fits; more is a broken peer
PIECE_BYTES = 256 * 1024  # longer bodies cross in pieces, so that small mail passes between them
_JOINS = 1 << 31  # this body ends what the pieces before it began


class Hello(msgspec.Struct, tag=0, array_like=True, frozen=True):
    """The first frame on a link: who speaks, and what the last link left open."""

    worker: int
    pending: list[tuple[int, str]]
    """(ref, message id) offered before the link broke and not answered yet: taken or unknown?"""
    abandoned: list[str]
    """Message ids whose clients were told to come again: forget them."""
    born_s: float
    """When the speaker's process began, in the machine's monotonic seconds: what an older one said may come late."""


class Settled(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """What the last link left open is decided here, on stable storage: what your `Hello` abandoned is forgotten, and
    nothing is left that arrived from you and is neither yours again nor mine."""


class Offer(msgspec.Struct, tag=2, array_like=True, frozen=True):
    """From a door: a message for the other's destinations; the body is its content."""

    ref: int
    meta: bytes
    hold: bool
    """Do not deliver before `Release`: other owners have not taken it yet."""


class Taken(msgspec.Struct, tag=3, array_like=True, frozen=True):
    """What was offered is on stable storage here."""

    ref: int


class Refused(msgspec.Struct, tag=4, array_like=True, frozen=True):
    """What was offered could not be written down; nothing of it is left."""

    ref: int
    text: str


class Unknown(msgspec.Struct, tag=5, array_like=True, frozen=True):
    """Answer to a pending ref in `Hello`: never written down here, offer it again."""

    ref: int


class Release(msgspec.Struct, tag=6, array_like=True, frozen=True):
    """A held message may be delivered: all its owners have it."""

    ref: int


class Forget(msgspec.Struct, tag=7, array_like=True, frozen=True):
    """A held message is not to be delivered: another owner could not take its share."""

    ref: int


class Forgotten(msgspec.Struct, tag=8, array_like=True, frozen=True):
    """Answer to `Forget`: that is on stable storage."""

    ref: int


class Move(msgspec.Struct, tag=9, array_like=True, frozen=True):
    """Waiting parts of a message whose destination belongs to the other now, or a notification about a message here;
    the body is its content."""

    ref: int
    id: str
    meta: bytes
    log: int
    """Where the item lies, or the one that it tells of; with `seq`."""
    seq: int
    states: list[tuple[float, bytes]]
    """Due time and last note of every part."""


class Arrived(msgspec.Struct, tag=10, array_like=True, frozen=True):
    """What was moved is on stable storage here; it waits for `Gone`."""

    ref: int


class Declined(msgspec.Struct, tag=11, array_like=True, frozen=True):
    """What was moved could not be written down; nothing of it is left."""

    ref: int
    text: str


class Gone(msgspec.Struct, tag=12, array_like=True, frozen=True):
    """The origin has recorded a move: it is the other's from now on."""

    ref: int


class Ask(msgspec.Struct, tag=13, array_like=True, frozen=True):
    """Found after a crash: do these recipients of item `seq` in log `log` still wait there?"""

    ref: int
    log: int
    seq: int
    id: str
    recipients: list[str]


class Living(msgspec.Struct, tag=14, array_like=True, frozen=True):
    """Answer to `Ask`: they are still the origin's (True), or the asker's."""

    ref: int
    living: bool


class Told(msgspec.Struct, tag=15, array_like=True, frozen=True):
    """A domain was resolved: whose it is, and for how long."""

    domain: str
    owners: list[int]
    for_s: float
    epoch: int


class Claim(msgspec.Struct, tag=16, array_like=True, frozen=True):
    """From this epoch on a destination (and one site of it) is the asker's: close what you have of it."""

    ref: int
    epoch: int
    key: str
    site: str


class Yielded(msgspec.Struct, tag=17, array_like=True, frozen=True):
    """Answer to `Claim`: no connection beyond our own share is left here; the state of its limits."""

    ref: int
    state: dict[str, dict[str, list[float]]]


class Borrow(msgspec.Struct, tag=18, array_like=True, frozen=True):
    """To the owner of limits across destinations: what is wanted, and what was used of what was lent."""

    asks: list[tuple[str, int]]
    """Key, how many tokens."""
    reports: list[tuple[int, str, int, bool]]
    """Lease, key, how many were used since the last report, whether what is left comes back."""


class Lend(msgspec.Struct, tag=19, array_like=True, frozen=True):
    """From the owner: what is lent, and of which keys nothing is for a while."""

    leases: list[tuple[int, str, int, float]]
    """Number, key, how many tokens, until when they may be used (the machine's monotonic seconds)."""
    shut: list[tuple[str, str, float]]
    """Key, why, until when (Unix seconds)."""


Frame = (
    Hello
    | Settled
    | Offer
    | Taken
    | Refused
    | Unknown
    | Release
    | Forget
    | Forgotten
    | Move
    | Arrived
    | Declined
    | Gone
    | Ask
    | Living
    | Told
    | Claim
    | Yielded
    | Borrow
    | Lend
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


class FrameError(Exception):
    """The bytes are no frame of ours: the link is of no use any more."""


def encode(frame: Frame, body_bytes: int = 0) -> bytes:
    """The bytes of a frame up to its body, which the caller writes behind them; at most `PIECE_BYTES` of it."""
    head = _encode(frame)
    return _LENGTHS.pack(len(head), body_bytes) + head


def encode_last(frame: Frame, body_bytes: int) -> bytes:
    """Like `encode`, for a frame whose body began with pieces: this is the length of the last one."""
    head = _encode(frame)
    return _LENGTHS.pack(len(head), body_bytes | _JOINS) + head


def encode_piece(body_bytes: int) -> bytes:
    """What goes before a piece of a long body."""
    return _LENGTHS.pack(0, body_bytes)


class FrameReader:
    """Cuts a stream into (frame, body); keeps what is not whole yet."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = LENGTHS_BYTES
        self._pieces: list[bytes] = []

    def receive(self, data: bytes) -> list[tuple[Frame, bytes]]:
        """All frames that are whole now; raises FrameError."""
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        data = b"".join(self._chunks) if len(self._chunks) > 1 else data
        self._chunks.clear()
        found, at, end = [], 0, len(data)
        self._need = LENGTHS_BYTES
        while end - at >= LENGTHS_BYTES:
            head_bytes, body_bytes = _LENGTHS.unpack_from(data, at)
            joins = body_bytes & _JOINS
            body_bytes ^= joins
            if head_bytes > HEAD_BYTES_MAX or body_bytes > PIECE_BYTES:
                raise FrameError(f"a frame of {head_bytes} + {body_bytes} bytes")
            body_at = at + LENGTHS_BYTES + head_bytes
            whole_at = body_at + body_bytes
            if end < whole_at:
                self._need = whole_at - at
                break
            body = data[body_at:whole_at]
            if not head_bytes:
                self._pieces.append(body)
                at = whole_at
                continue
            if joins:
                self._pieces.append(body)
                body = b"".join(self._pieces)
                self._pieces.clear()
            try:
                found.append((_decode(data[at + LENGTHS_BYTES : body_at]), body))
            except msgspec.DecodeError as error:
                raise FrameError(str(error)) from error
            at = whole_at
        self._have = end - at
        if self._have:
            self._chunks.append(data[at:])
        return found
