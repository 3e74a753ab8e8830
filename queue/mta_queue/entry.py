"""An entry: a living item as an object. Pure.

What was just appended and what has several parts in different states is kept so; what waits is packed into a row.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mta_queue.packed import MASK_BITS, NUMBER_MAX, Row
from mta_queue.record import Origin
from mta_queue.retention import Segment


class Note:
    """What a postponement said: in memory until its record is safe, from then on as the place of that record."""

    __slots__ = ("data", "offset", "payload_bytes", "segment", "seq")

    def __init__(self, seq: int, data: bytes | None, segment: int = 0, offset: int = 0, payload_bytes: int = 0) -> None:
        self.seq = seq
        self.data = data
        """None when it is to be read from disk."""
        self.segment = segment
        """0 until it is there for good."""
        self.offset = offset
        """Of the record: a postponement of the item or a copy of it."""
        self.payload_bytes = payload_bytes

    def is_same(self, other: "Note | None") -> bool:
        """Both speak of one record."""
        if other is None:
            return False
        return self is other or (self.segment == other.segment != 0 and self.offset == other.offset)


class Postponement(NamedTuple):
    """A part that waits for a time of its own."""

    due_s: float
    note: Note | None

    def is_same(self, other: "Postponement") -> bool:
        """They wait for the same time with the same note."""
        note = self.note
        return self.due_s == other.due_s and (
            note is other.note if note is None or other.note is None else note.is_same(other.note)
        )


class State(NamedTuple):
    """What several parts of an item have in common."""

    due_s: float
    note: Note | None
    parts: Sequence[int]


class Entry:
    """A living item: where it lies and which of its parts wait."""

    __slots__ = (
        "content_bytes",
        "content_crc",
        "due_s",
        "living",
        "offset",
        "origin",
        "payload_bytes",
        "postponed",
        "segment",
    )

    def __init__(
        self, parts: int, payload_bytes: int, content_bytes: int, content_crc: int, due_s: float, origin: Origin | None
    ) -> None:
        self.segment: Segment | None = None
        """None until it is durable."""
        self.offset = 0
        self.payload_bytes = payload_bytes
        self.content_bytes = content_bytes
        self.content_crc = content_crc
        self.due_s = due_s
        """When its parts are due that were never postponed."""
        self.living = (1 << parts) - 1
        """Bit n: part n has no final fate yet."""
        self.postponed: dict[int, Postponement] | None = None
        self.origin = origin
        """Set as long as the item is arriving."""

    def living_parts(self) -> Sequence[int]:
        """The parts without a final fate, lowest first."""
        return parts_in(self.living)

    def due_of(self, part: int) -> float:
        """When a living part may be tried."""
        if self.postponed is not None and (found := self.postponed.get(part)) is not None:
            return found.due_s
        return self.due_s

    def note_of(self, part: int) -> Note | None:
        """What the last postponement of a living part said."""
        found = self.postponed.get(part) if self.postponed is not None else None
        return found.note if found is not None else None

    def postpone(self, parts: Iterable[int], due_s: float, note: Note | None, *, keeps_notes: bool = False) -> None:
        """These parts wait until `due_s`; dead ones stay dead. `keeps_notes`: each keeps the note that it has."""
        postponed = self.postponed
        if postponed is None:
            postponed = self.postponed = {}
        found = Postponement(due_s, note)
        for part in parts:
            if self.living >> part & 1:
                postponed[part] = Postponement(due_s, self.note_of(part)) if keeps_notes else found

    def states(self) -> list[State]:
        """The living parts, those together that have time and note in common."""
        postponed = self.postponed
        if postponed is None:
            return [State(self.due_s, None, self.living_parts())]
        alike: dict[tuple[float, int], tuple[Note | None, list[int]]] = {}
        for part in self.living_parts():
            note = self.note_of(part)
            alike.setdefault((self.due_of(part), id(note)), (note, []))[1].append(part)
        return [State(due_s, note, parts) for (due_s, _), (note, parts) in alike.items()]

    def common_state(self) -> State | None:
        """The state of all living parts, where it is one and a row can hold it."""
        mask = self.living
        if self.origin is not None or self.segment is None or mask >> MASK_BITS:
            return None
        postponed = self.postponed
        if not postponed:
            return State(self.due_s, None, ())
        parts = iter(postponed.values())
        first = next(parts)
        note = first.note
        if note is not None and (note.data is not None or note.offset > NUMBER_MAX):
            return None
        if len(postponed) != mask.bit_count() or not all(first.is_same(one) for one in parts):
            return None
        return State(first.due_s, note, ())


def parts_in(mask: int) -> Sequence[int]:
    """The numbers of the bits that are set, lowest first."""
    if mask == 1:
        return (0,)
    return [part for part in range(mask.bit_length()) if mask >> part & 1]


def mask_of(parts: Iterable[int]) -> int:
    """The number whose bits those are."""
    mask = 0
    for part in parts:
        mask |= 1 << part
    return mask


def unpacked(seq: int, row: Row, segment: Segment) -> Entry:
    """The entry that a row stands for: a copy, of which the row knows nothing."""
    offset, _, payload_bytes, content_bytes, content_crc, due_s, mask, note_segment, note_offset, note_bytes = row
    entry = Entry(1, payload_bytes, content_bytes, content_crc, due_s, None)
    entry.segment = segment
    entry.offset = offset
    entry.living = mask
    if note_segment:
        found = Postponement(due_s, Note(seq, None, note_segment, note_offset, note_bytes))
        entry.postponed = dict.fromkeys(entry.living_parts(), found)
    return entry
