"""A visit to the disk: items that are read back together, and taken apart where they are read.

Neighbours are read with one call, and what lies between them too. Items with a row are made whole in the reading
thread, and hold as long as the row stays as it was; those that are objects in the catalog (just appended, or with parts
in different states) are put together in the loop, where nothing changes meanwhile.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from mta_queue import record
from mta_queue.disk import DiskFile
from mta_queue.entry import Entry, Note, parts_in
from mta_queue.packed import Columns
from mta_queue.record import HEADER_BYTES, Body
from mta_queue.retention import Segment

GAP_BYTES_MAX = 16 << 10  # what lies so close to each other is read with one call, and what lies between it too
RUN_BYTES_MAX = 256 << 10  # read with one call, where no single thing is longer

AS_ENTRY = -1
"""In place of a number: what was read is for an item that is an object in the catalog."""

Piece = tuple[int, int, int, int]
"""What is to be read: segment, offset, length, and a number that says what it is wanted for."""

Wants = Callable[[int, bytes], bool]
"""Whether an item (its seq and meta) is wanted: asked in the reading thread, so it must not use what changes in the
loop, nor raise anything. It may be asked of an item more than once."""

_NO_NOTES: Mapping[int, bytes] = MappingProxyType({})
_new_tuple = tuple.__new__


class PartState(NamedTuple):
    """A living part."""

    part: int
    due_s: float
    note: bytes
    """Of its last postponement; empty before the first."""


class Loaded(NamedTuple):
    """An item read back from disk, without its content."""

    seq: int
    item_id: str
    meta: bytes
    parts: list[PartState]


class Visit:
    """What is wanted of some items and what the disk gave of it. The number of a piece is twice the place of its item
    among `seqs`, one more for the note."""

    def __init__(self, seqs: Sequence[int], rows: Sequence[Columns | None], wants: Wants | None) -> None:
        self.seqs = seqs
        self.rows = rows
        """As they were when the visit began."""
        self.items: list[Loaded | None] = [None] * len(seqs)
        """Those with a row, as they were then; None where the disk did not give it, or it is not wanted."""
        self.failed: list[tuple[int, int, str]] = []
        """What could not be read of those: the place of the item, the segment, why."""
        self.unwanted: set[int] = set()
        """Items with a row that nobody wants."""
        self.data: dict[tuple[int, int], bytes] = {}
        """What the disk gave of those with an entry, by segment and offset; fewer bytes or none where it failed."""
        self.unsafe: list[tuple[Note, bytes]] = []
        """Notes that were still in memory when the visit began."""
        self.markers: dict[int, int] = {}
        """Of the segments that may be read."""
        self.files: dict[int, DiskFile] = {}
        """Of those what was open, and what was opened for it."""
        self.opened: dict[int, DiskFile] = {}
        self.wants = wants
        self._entries: list[Piece] = []
        self._bodies: list[Body | None] = [None] * (2 * len(seqs))

    def want_entry(self, entry: Entry, home: Segment) -> None:
        """Also this item, which has no row."""
        want = self._entries.append
        want((home.number, entry.offset, HEADER_BYTES + entry.payload_bytes, AS_ENTRY))
        for found in entry.postponed.values() if entry.postponed is not None else ():
            note = found.note
            if note is not None:
                if note.data is not None:
                    self.unsafe.append((note, note.data))
                else:
                    want((note.segment, note.offset, HEADER_BYTES + note.payload_bytes, AS_ENTRY))

    @property
    def is_empty(self) -> bool:
        """None of the items is on disk."""
        return not self._entries and not any(self.rows)

    def segments(self) -> set[int]:
        """Where something may be read."""
        rows = self.rows
        found = {row[1] for row in rows if row is not None} | {row[7] for row in rows if row is not None}
        found.update(piece[0] for piece in self._entries)
        found.discard(0)
        return found

    # in any thread

    def pieces(self) -> list[Piece]:
        """What is read first: everything, or all but the notes where it is not known yet which items are wanted."""
        found = [
            (row[1], row[0], HEADER_BYTES + row[2], 2 * place) for place, row in enumerate(self.rows) if row is not None
        ]
        found += self._entries
        if self.wants is None:
            found += self._notes()
        return found

    def notes(self) -> list[Piece]:
        """What is read then: the notes of those that are wanted."""
        if self.wants is None:
            return []
        return self._notes() if len(self.unwanted) < len(self.seqs) else []

    def _notes(self) -> list[Piece]:
        unwanted, seqs = self.unwanted, self.seqs
        return [
            (row[7], row[8], HEADER_BYTES + row[9], 2 * place + 1)
            for place, row in enumerate(self.rows)
            if row is not None
            and row[7]
            and (row[8] != row[0] or row[7] != row[1])  # else it is a copy, which holds its note
            and not (unwanted and seqs[place] in unwanted)
        ]

    def take(self, run: Sequence[Piece], begin: int, data: bytes, marker: int) -> None:
        """Of this run, which begins there, the disk gave that."""
        bodies = self._bodies
        if self._entries:
            for home, offset, length, wanted_for in run:
                if wanted_for == AS_ENTRY:
                    self.data[home, offset] = data[offset - begin : offset - begin + length]
            run = [piece for piece in run if piece[3] != AS_ENTRY]
        if self.wants is None:
            for body in record.bodies(data, begin, marker, run):
                bodies[body[0]] = body
            return
        wants, unwanted, seqs = self.wants, self.unwanted, self.seqs
        for body in record.bodies(data, begin, marker, run):
            wanted_for, seq, kind, id_bytes, flags, _, payload = body
            if not wanted_for & 1 and kind == record.ITEM and seq == seqs[wanted_for >> 1]:
                meta = record.meta_in(payload, id_bytes, flags) if flags else payload[id_bytes:]
                if not wants(seq, meta):
                    unwanted.add(seq)
                    continue
            bodies[wanted_for] = body

    def assemble(self) -> None:
        """Make the items with a row whole."""
        bodies, items, unwanted = self._bodies, self.items, self.unwanted
        for place, (seq, row) in enumerate(zip(self.seqs, self.rows, strict=True)):
            if row is None or (unwanted and seq in unwanted):
                continue
            offset, home, _, _, _, due_s, mask, note_home, note_offset, _ = row
            found = bodies[2 * place]
            if found is None or found[1] != seq or found[2] != record.ITEM:
                self.failed.append((place, home, f"item {seq} at {offset} cannot be read"))
                continue
            _, _, _, id_bytes, flags, _, payload = found
            notes: Mapping[int, bytes] = _NO_NOTES
            note = b""
            if note_home:
                is_own = note_home == home and note_offset == offset
                noted = found if is_own else bodies[2 * place + 1]
                if noted is not None and noted[1] == seq and noted[2] == record.POSTPONED:
                    note = record.note_in(noted[6], noted[5])
                elif noted is not None and noted[1] == seq and noted[4] & record.FLAG_COPY:
                    states = record.copied_states_in(noted[6], noted[3])
                    notes = {part: state.note for state in states for part in state.parts}
                else:  # what it was deferred for is lost; that it waits is not
                    self.failed.append((place, note_home, f"a note of item {seq} at {note_offset} cannot be read"))
            if notes:
                parts = [PartState(part, due_s, notes.get(part, b"")) for part in parts_in(mask)]
            elif mask == 1:  # nearly all
                parts = [_new_tuple(PartState, (0, due_s, note))]
            else:
                parts = [PartState(part, due_s, note) for part in parts_in(mask)]
            item_id, meta = record.id_in(payload, id_bytes), record.meta_in(payload, id_bytes, flags)
            items[place] = _new_tuple(Loaded, (seq, item_id, meta, parts))


def runs(pieces: list[Piece]) -> Iterable[tuple[Sequence[Piece], int, int]]:
    """The pieces by place, neighbours together, and where each run begins and ends; `pieces` is sorted."""
    pieces.sort()
    first = number = begin = end = 0
    for at, (home, offset, length, _) in enumerate(pieces):
        if home != number or offset > end + GAP_BYTES_MAX or offset + length > begin + RUN_BYTES_MAX:
            if at > first:
                yield pieces[first:at], begin, end
            first, number, begin, end = at, home, offset, offset
        if offset + length > end:
            end = offset + length
    if first < len(pieces):
        yield pieces[first:], begin, end
