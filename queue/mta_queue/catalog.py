"""The catalog: what lives in the queue now, and which segment may go. Pure.

It is what reading all records from the first to the last leaves over; `recovery` does that after a start and the
store keeps it up to date from then on. It holds no mail, no meta and no note, only where they lie.

An item is in one of three places: *hot* when it was just appended or touched, *packed* when it waits (see `packed`),
and *mixed* when it waits and its parts are in different states or more than a row can hold.
"""

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import islice

from mta_queue.entry import Entry, Note, Postponement, State, mask_of, parts_in, unpacked
from mta_queue.packed import MASK_BITS, Columns, Packed, Stands
from mta_queue.record import HEADER_BYTES
from mta_queue.retention import Retention, Segment


class Catalog(Retention):
    """All living items and all segments that exist."""

    def __init__(self) -> None:
        super().__init__()
        self.hot: dict[int, Entry] = {}
        self._mixed: dict[int, Entry] = {}
        self._packed = Packed()
        self.parts_living = 0

    # Looking.

    def __len__(self) -> int:
        return len(self.hot) + len(self._mixed) + len(self._packed)

    def __contains__(self, seq: int) -> bool:
        return seq in self.hot or seq in self._packed or seq in self._mixed

    def get(self, seq: int) -> Entry | None:
        """The living item. Of one that is packed this is a copy: only the methods of the catalog change what it
        says, and each of them takes the entry that was got last."""
        entry = self.hot.get(seq)
        if entry is not None:
            return entry
        row = self._packed.get(seq)
        if row is not None:
            return unpacked(seq, row, self.segments[row.segment])
        return self._mixed.get(seq)

    def rows(self, seqs: Sequence[int]) -> "list[Columns | None]":
        """The rows of these items, None for each that is not packed: it does not live, or has an entry."""
        return self._packed.rows(seqs)

    def stands(self, seqs: Sequence[int]) -> "list[Stands | None]":
        """When these items are due, which of their parts live and where their notes lie; None as in `rows`."""
        return self._packed.stands(seqs)

    def dues(self, seq: int) -> list[tuple[int, float]]:
        """(part, due_s) of the living parts, lowest first; none where it does not live, is not on disk or arrives."""
        entry = self.hot.get(seq)
        if entry is None:
            found = self._packed.due(seq)
            if found is not None:
                due_s, mask = found
                return [(0, due_s)] if mask == 1 else [(part, due_s) for part in parts_in(mask)]
            entry = self._mixed.get(seq)
        if entry is None or entry.segment is None or entry.origin is not None:
            return []
        return [(part, entry.due_of(part)) for part in entry.living_parts()]

    def seqs(self) -> "array[int]":
        """All living items, the oldest first."""
        loose = sorted([*self.hot, *self._mixed])
        found = array("Q")
        at = 0
        for seqs in self._packed.slices():
            while at < len(loose) and loose[at] < seqs[0]:
                found.append(loose[at])
                at += 1
            begin = at
            while at < len(loose) and loose[at] < seqs[-1]:
                at += 1
            found.extend(sorted([*seqs, *loose[begin:at]]) if at > begin else seqs)
        found.extend(loose[at:])
        return found

    def entries(self) -> Iterable[tuple[int, Entry]]:
        """What is kept as objects: everything that arrives is among it."""
        yield from self.hot.items()
        yield from self._mixed.items()

    def lying_in(self, segment: Segment, first: int, count: int) -> tuple[list[int], int | None]:
        """Living items with a seq from `first` on that lie in the segment, at least `count` looked at and about 256
        more at most; and from where to go on, None at the end. Begin with 0. Arriving ones are left out."""
        if not segment.living:
            return [], None
        if segment.copies is not None:
            return self._copies_in(segment, first, count)
        found, after = self._packed.lying_in(segment.number, max(first, segment.first_seq), segment.last_seq, count)
        for entries in (self.hot, self._mixed):
            found.extend(
                seq
                for seq, entry in entries.items()
                if first <= seq < after and entry.segment is segment and entry.origin is None
            )
        found.sort()
        return found, after if after <= segment.last_seq else None

    def _copies_in(self, segment: Segment, first: int, count: int) -> tuple[list[int], int | None]:
        copies = segment.copies
        assert copies is not None, "a segment with copies"
        begin = bisect_left(copies, first)
        found = []
        for seq in copies[begin : begin + count]:
            entry = self.get(seq)
            if entry is not None and entry.segment is segment:
                found.append(seq)
        return found, copies[begin + count] if begin + count < len(copies) else None

    # Items come.

    def add(self, seq: int, entry: Entry) -> None:
        """An item that was appended, durable or not."""
        self.hot[seq] = entry
        self.parts_living += entry.living.bit_count()

    def place(self, seq: int, entry: Entry, segment: Segment, offset: int) -> None:
        """The item is on disk."""
        self.place_all(((seq, entry),), segment, offset)

    def place_all(self, items: Sequence[tuple[int, Entry, *tuple[object, ...]]], segment: Segment, offset: int) -> None:
        """These items are on disk one behind the other, the first one at `offset`."""
        begin, told = offset, 0
        for each in items:
            entry = each[1]
            entry.segment = segment
            entry.offset = offset
            offset += HEADER_BYTES + entry.payload_bytes + entry.content_bytes
            if entry.origin is None:  # what arrives was told where it came from
                told = each[0]
        segment.living += len(items)
        segment.living_bytes += offset - begin
        self.living_bytes += offset - begin
        segment.last_seq = items[-1][0]
        if not segment.first_seq:
            segment.first_seq = items[0][0]
        if told > segment.tell_number:
            segment.tell_number = told

    def drop(self, seq: int) -> None:
        """The item was never written; one that is not there is no error."""
        entry = self.hot.pop(seq, None)
        if entry is not None:
            self.parts_living -= entry.living.bit_count()

    # Fates.

    def to_tell(self, entry: Entry, number: int) -> None:
        """A fate of this item that must be told was recorded under `number`: until then its meta is needed."""
        segment = entry.segment
        if segment is not None and number > segment.tell_number:
            segment.tell_number = number

    def end_parts(self, seq: int, entry: Entry, parts: Sequence[int]) -> None:
        """These parts live no longer; with the last one the item is gone."""
        mask = entry.living
        if mask == 1:
            if 0 in parts:
                self.parts_living -= 1
                entry.living = 0
                self._end(seq, entry)
            return
        for part in parts:
            mask &= ~(1 << part)
            if entry.postponed is not None:
                entry.postponed.pop(part, None)
        self.parts_living -= entry.living.bit_count() - mask.bit_count()
        entry.living = mask
        if not mask:
            self._end(seq, entry)
        elif seq not in self.hot:
            self.pack(seq, entry)

    def end(self, seq: int, entry: Entry) -> None:
        """The whole item lives no longer."""
        self.parts_living -= entry.living.bit_count()
        entry.living = 0
        self._end(seq, entry)

    def _end(self, seq: int, entry: Entry) -> None:
        if self.hot.pop(seq, None) is None and self._mixed.pop(seq, None) is None:
            self._packed.remove(seq)
        segment = entry.segment
        if segment is not None:
            self.leave(segment, entry.payload_bytes + entry.content_bytes)

    def postpone(self, seq: int, entry: Entry, parts: Iterable[int], due_s: float, note: Note | None) -> None:
        """These parts wait until `due_s`; dead ones stay dead."""
        entry.postpone(parts, due_s, note)
        if note is not None:
            self._heat(seq, entry)
        elif seq not in self.hot:
            self.pack(seq, entry)

    def reschedule(self, seq: int, entry: Entry, parts: Iterable[int], due_s: float) -> None:
        """These parts wait until `due_s` and keep the notes that they have."""
        entry.postpone(parts, due_s, None, keeps_notes=True)
        if seq not in self.hot:
            self.pack(seq, entry)

    def release(self, seq: int, entry: Entry) -> None:
        """The item is arriving no longer."""
        entry.origin = None

    def note_placed(self, note: Note) -> None:
        """The record with the note is there for good: it is read from there from now on."""
        note.data = None
        entry = self.get(note.seq)
        if entry is None or entry.segment is None:
            return
        if note.segment in self.segments:
            self.segments[note.segment].refs.add(entry.segment.number)
        if note.seq in self.hot:
            self.pack(note.seq, entry)

    # Packing.

    def _heat(self, seq: int, entry: Entry) -> None:
        if seq not in self.hot:
            if self._mixed.pop(seq, None) is None:
                self._packed.remove(seq)
            self.hot[seq] = entry

    def pack(self, seq: int, entry: Entry) -> None:
        """A living item that is on disk needs no object any more; one whose parts differ stays one. An item that
        waits for its note to be safe is left as it is."""
        state = entry.common_state()
        if state is not None:
            try:
                self._pack(seq, entry, state)
            except struct.error:  # a number that is larger than a row can hold
                pass
            else:
                if self.hot.pop(seq, None) is None:
                    self._mixed.pop(seq, None)
                return
        if seq in self.hot:
            if entry.segment is not None and entry.origin is None and not _is_unsettled(entry):
                self._mixed[seq] = self.hot.pop(seq)
        elif seq not in self._mixed:
            self._packed.remove(seq)
            self._mixed[seq] = entry

    def _pack(self, seq: int, entry: Entry, state: State) -> None:
        segment, note = entry.segment, state.note
        assert segment is not None, "an item on disk"
        place = (note.segment, note.offset, note.payload_bytes) if note is not None else (0, 0, 0)
        self._packed.put(
            seq,
            entry.offset,
            segment.number,
            entry.payload_bytes,
            entry.content_bytes,
            entry.content_crc,
            state.due_s,
            entry.living,
            *place,
        )

    def cool(self, before: int, count: int) -> bool:
        """Packs of the `count` items that have been hot for longest those with a seq below `before`; False where no
        other can be packed now. What cannot be yet goes to the end of the row."""
        for seq, entry in list(islice(self.hot.items(), count)):
            if seq >= before:
                return False
            if entry.segment is None:
                return False  # the disk is slow; those behind it are no older
            if entry.origin is not None or _is_unsettled(entry):
                del self.hot[seq]
                self.hot[seq] = entry  # to be looked at again when those that can be packed are
            else:
                self.pack(seq, entry)
        return True

    # Recovery.

    def recover(
        self,
        seq: int,
        segment: Segment,
        offset: int,
        payload_bytes: int,
        content_bytes: int,
        content_crc: int,
        due_s: float,
        parts: int,
    ) -> None:
        """An item that was found on disk and does not arrive."""
        if parts > MASK_BITS:
            entry = self._mixed[seq] = Entry(parts, payload_bytes, content_bytes, content_crc, due_s, None)
            entry.segment, entry.offset = segment, offset
        else:
            mask = (1 << parts) - 1
            self._packed.put(seq, offset, segment.number, payload_bytes, content_bytes, content_crc, due_s, mask)
        self.parts_living += parts
        self.settle(segment, payload_bytes + content_bytes)
        segment.last_seq = seq
        if not segment.first_seq:
            segment.first_seq = seq
        if seq > segment.tell_number:
            segment.tell_number = seq

    def recover_postponed(
        self, seq: int, entry: Entry, parts: Iterable[int], due_s: float, place: tuple[int, int, int] | None
    ) -> None:
        """These parts wait until `due_s`; the note lies in that record (segment, offset, payload), or nowhere."""
        if mask_of(parts) == entry.living and self._packed.postpone(seq, entry.living, due_s, *(place or (0, 0, 0))):
            return
        entry.postpone(parts, due_s, Note(seq, None, *place) if place is not None else None)
        if seq not in self.hot:
            self.pack(seq, entry)

    # Copies.

    def relocate(self, seq: int, segment: Segment, offset: int, payload_bytes: int, states: Iterable[State]) -> bool:
        """A copy of the item is on stable storage in that segment: it lies there from now on, with the notes of
        `states`, which are those that the copy was made of. False where the item died meanwhile."""
        entry = self.get(seq)
        if entry is None:
            return False
        home = entry.segment
        assert home is not None, "what was copied was on disk"
        assert entry.origin is None, "what arrives is not copied"
        copied = {part: state.note for state in states for part in state.parts}
        note = Note(seq, None, segment.number, offset, payload_bytes)
        postponed = entry.postponed or {}
        for part, found in postponed.items():
            if found.note is None:
                continue
            if found.note.is_same(copied.get(part)):
                postponed[part] = Postponement(found.due_s, note)
            elif found.note.segment in self.segments:
                self.segments[found.note.segment].refs.add(segment.number)
        self.leave(home, entry.payload_bytes + entry.content_bytes)
        self._emptied.discard(segment.number)  # it may have been closed before its copies were known to be safe
        entry.segment, entry.offset, entry.payload_bytes = segment, offset, payload_bytes
        self._settle_copy(seq, segment, payload_bytes + entry.content_bytes)
        if segment is not home:
            segment.refs.add(home.number)
        if seq not in self.hot:
            self.pack(seq, entry)
        return True

    def recover_copy(
        self,
        seq: int,
        segment: Segment,
        offset: int,
        payload_bytes: int,
        content_bytes: int,
        content_crc: int,
        states: Iterable[tuple[float, bool, Iterable[int]]],
    ) -> None:
        """A copy was found on disk: it is the item from now on, whatever older records said. `states`: due_s, whether
        it has a note, parts."""
        before = self.get(seq)
        if before is not None:
            assert before.segment is not None, "nothing waits for the disk while a log is read"
            if before.segment is not segment:
                segment.refs.add(before.segment.number)
            self.end(seq, before)
        entry = Entry(1, payload_bytes, content_bytes, content_crc, 0.0, None)
        entry.living = 0
        entry.segment, entry.offset = segment, offset
        note = Note(seq, None, segment.number, offset, payload_bytes)
        for due_s, has_note, parts in states:
            entry.living |= mask_of(parts)
            entry.postpone(parts, due_s, note if has_note else None)
        self.parts_living += entry.living.bit_count()
        self._settle_copy(seq, segment, payload_bytes + content_bytes)
        self.hot[seq] = entry
        self.pack(seq, entry)

    def _settle_copy(self, seq: int, segment: Segment, length_bytes: int) -> None:
        self.settle(segment, length_bytes)
        segment.note_copy(seq)

    def move_note(self, seq: int, old: Note, segment: int, offset: int, payload_bytes: int) -> None:
        """The postponement that says this note now lies there too, and is read there from now on."""
        entry = self.get(seq)
        if entry is None or entry.postponed is None:
            return
        note = Note(seq, None, segment, offset, payload_bytes)
        for part, found in entry.postponed.items():
            if old.is_same(found.note):
                entry.postponed[part] = Postponement(found.due_s, note)
        if seq not in self.hot:
            self.pack(seq, entry)


def _is_unsettled(entry: Entry) -> bool:
    """A note of it is not safe yet."""
    return entry.postponed is not None and any(
        one.note is not None and one.note.data is not None for one in entry.postponed.values()
    )
