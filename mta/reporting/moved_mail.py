"""Moved mail: what waits goes out of one server's queue and into another's.

It is held and exported in pages, imported there with all that is known of it, and only then removed here. The content
of what is large goes in pieces.
"""

import msgspec

from mta.model.selection import Selection


class MovedRecipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recipient that is exported or imported."""

    address: str
    domain: str
    due_s: float = 0.0
    """When it may be tried: Unix seconds."""
    held: bool = False
    """An admin holds it; an export alone does not count."""
    attempts: int = 0
    """How often the other side answered about it."""
    last: str = ""
    """What was said the last time."""
    part: int = 0
    """Its number in the item that it was exported from."""
    note: bytes = b""
    """What the queue keeps of the last attempt (msgpack of `mta.reporting.events.Fate`)."""


class MovedItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item that is exported or imported, with the recipients that wait."""

    id: str
    sender: str
    recipients: list[MovedRecipient]
    received_s: float
    envelope: bytes
    """All of the envelope (msgpack of `mta.model.envelope.Envelope`), with these recipients."""
    size: int
    """Bytes of content."""
    content: bytes = b""
    """The first so many of them; an import takes the rest from what was uploaded under this id."""
    seq: int = 0
    worker: int = 0


class ExportedItem(msgspec.Struct, frozen=True, array_like=True):
    """What an export has of one item: enough to know it again."""

    seq: int
    id: str
    parts: list[int]


class Export(msgspec.Struct, frozen=True, tag="export"):
    """Hold what matches and hand it out, one page after the other."""

    selection: Selection
    after: int = 0
    """Only items behind this one: `next` of the answer before."""
    budget_bytes: int = 1 << 20
    """Of content and all: a page has no more, but for one large item."""


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """A piece of the content of a large item that an export named."""

    seq: int
    offset: int
    length: int


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Cancel silently what was exported and is held still."""

    items: list[ExportedItem]
    by: str = "admin"


class Upload(msgspec.Struct, frozen=True, tag="upload"):
    """A piece of the content of a large item that is to be imported; the one at 0 begins it anew."""

    id: str
    offset: int
    data: bytes


class Import(msgspec.Struct, frozen=True, tag="import"):
    """Items for this queue: answered when all are on stable storage."""

    items: list[MovedItem]


class Known(msgspec.Struct, frozen=True, tag="known"):
    """Which of these recipients wait here, or were imported a while ago?"""

    recipients: list[tuple[str, str]]
    """Message id and address."""


class Exported(msgspec.Struct):
    """Answer to `Export`."""

    items: list[MovedItem]
    next: int = 0
    """Go on `after` this item; 0: all was looked at."""
    left: dict[str, int] = {}
    looked_at: int = 0
    of: int = 0


class PieceOf(msgspec.Struct):
    """Answer to `Piece`."""

    data: bytes


class Imported(msgspec.Struct):
    """Answer to `Import` and `Upload`."""

    messages: int
    recipients: int


class KnownAre(msgspec.Struct):
    """Answer to `Known`."""

    numbers: list[int]
    """Of the question's recipients, counted from 0."""
