"""One round of copying: what has to be kept of the segments that are to go, and what is known once it is kept.

Two things are kept: items that live, as they are now, and fates of items elsewhere. Of an item that is copied no
fate is: its copy says how it is. Pure but for what the `Copies` do; the loop's side of a round.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from mta_queue import record
from mta_queue.catalog import Catalog
from mta_queue.compaction import PRESSING_COST_MAX
from mta_queue.copies import Copies, FateCopy, FoundFate, ItemCopy
from mta_queue.entry import Note, Segment, State
from mta_queue.record import HEADER_BYTES

SLICE_BYTES = 256 << 10  # written and synced at once
SLICE_ITEMS = 256  # looked at in one turn of the loop
TAKEN_AT_ONCE = 500  # copies that take their item's place in one turn


class Round:
    """From the choice of segments to their end."""

    def __init__(
        self, catalog: Catalog, victims: Sequence[Segment], copies: Copies, draw_number: Callable[[], int]
    ) -> None:
        """`draw_number`: the number of a new record."""
        self.copies = copies
        self.number = copies.number
        self.victims = list(victims)
        self.numbers = {victim.number for victim in victims}
        self.homes = _homes_of(victims, catalog)
        """Segments that stay and that fates in the victims may be about."""
        self.needed_bytes = dict.fromkeys(self.numbers, 0)
        """Of each victim: fates that others need."""
        self._catalog = catalog
        self._draw_number = draw_number
        self._to_scan = deque(self.victims)
        self._scanning: Iterator[list[FoundFate]] | None = None
        self._found: deque[FoundFate] = deque()
        self._unsettled: list[FoundFate] = []
        """Of items whose last note is not on stable storage yet: what is to be kept of them shows when it is."""
        self._noteless: set[tuple[int, int]] = set()
        """Items and parts of which a postponement without a note was kept."""
        self._held: set[int] = set()
        """Segments that the fates are about which were kept."""
        self._to_copy = deque(self.victims)
        self._from_seq = 0
        self._seqs: deque[int] = deque()
        self._items: deque[ItemCopy] = deque()
        self._notes: deque[FateCopy] = deque()

    # What is to be written.

    @property
    def is_scanning(self) -> bool:
        """Fates are looked for; when they are all found, items are copied."""
        return bool(self._to_scan or self._scanning or self._found or self._unsettled)

    @property
    def has_found(self) -> bool:
        """Fates were found that are to be decided on."""
        return bool(self._found)

    @property
    def is_waiting(self) -> bool:
        """It goes on when what was appended so far is on stable storage: then `settle`."""
        return bool(self._unsettled and not (self._to_scan or self._scanning or self._found))

    def settle(self) -> None:
        """It is: what waited for it is looked at again."""
        self._found.extend(self._unsettled)
        self._unsettled.clear()

    def scan(self) -> None:
        """In a thread: looks at the next records. Raises OSError, LostItemError."""
        if self._scanning is None:
            self._scanning = self.copies.fates(self._to_scan.popleft().number, self.homes)
        found = next(self._scanning, None)
        if found is None:
            self._scanning = None
        else:
            self._found.extend(found)

    def next_fates(self) -> list[FateCopy]:
        """Of those that were found the next that are still needed; to be written at once."""
        needed = []
        for _ in range(min(SLICE_ITEMS, len(self._found))):
            fate = self._found.popleft()
            for copy in self._needed(fate):
                needed.append(copy)
                self._held.update((fate.home,) if fate.home else [each.number for each in self.homes])
                self.needed_bytes[fate.segment] += HEADER_BYTES + fate.payload_bytes
        return needed

    def too_costly(self) -> int:
        """The victim of which most is needed, where so much is that the round is not worth the while; else 0."""
        costs = {each.number: self.needed_bytes[each.number] + each.living_bytes for each in self.victims}
        files = {each.number: each.file_bytes for each in self.victims}
        if sum(costs.values()) <= PRESSING_COST_MAX * sum(files.values()):
            return 0
        return max(costs, key=lambda number: costs[number] / max(1, files[number]))

    def _needed(self, fate: FoundFate) -> list[FateCopy]:
        number, seq, kind, parts = fate.number, fate.seq, fate.kind, fate.parts
        marker = self.copies.marker
        entry = self._catalog.get(seq)
        if entry is not None and entry.segment is not None and entry.segment.number in self.numbers:
            return []  # its copy says it
        if kind not in (record.POSTPONED, record.RESCHEDULED):
            return [FateCopy(fate, record.encode_fate(marker, number, kind, seq, parts))]
        if entry is None:
            return []  # what ended it is kept
        states = entry.states()
        if kind == record.POSTPONED and fate.payload_bytes == 4 * len(parts):
            return self._without_note(fate, states)
        if any(state.note is not None and state.note.data is not None for state in states):
            self._unsettled.append(fate)
            return []
        if kind == record.RESCHEDULED:
            return self._rescheduling(fate, states)
        return [
            FateCopy(fate._replace(parts=tuple(shared)), b"", note, due_s)
            for due_s, note, shared in states
            if note is not None and note.segment == fate.segment and note.offset == fate.offset
        ]

    def _without_note(self, fate: FoundFate, states: Sequence[State]) -> list[FateCopy]:
        """Kept for the parts that have no note now: with it older ones would be theirs, or an older time."""
        marker, number, seq = self.copies.marker, fate.number, fate.seq
        copies = []
        for due_s, note, shared in states:
            kept = [part for part in shared if part in fate.parts and (seq, part) not in self._noteless]
            if note is None and kept:
                self._noteless.update([(seq, part) for part in kept])  # one says all that the others would
                data = record.encode_fate(marker, number, record.POSTPONED, seq, kept, b"", due_s)
                copies.append(FateCopy(fate, data))
        return copies

    def _rescheduling(self, fate: FoundFate, states: Sequence[State]) -> list[FateCopy]:
        """Kept where no later one overtook it, which is known by when the parts are due now."""
        marker, due_s = self.copies.marker, fate.due_s
        parts = [part for state in states if state.due_s == due_s for part in state.parts if part in fate.parts]
        if not parts:
            return []
        return [FateCopy(fate, record.encode_fate(marker, fate.number, fate.kind, fate.seq, parts, b"", due_s))]

    def next_items(self) -> list[ItemCopy]:
        """The next that live in the victims; none: all have been given."""
        items: list[ItemCopy] = []
        length = looked_at = 0
        while length < SLICE_BYTES and looked_at < SLICE_ITEMS:
            if not self._seqs:
                if not self._to_copy:
                    break
                seqs, after = self._catalog.lying_in(self._to_copy[0], self._from_seq, SLICE_ITEMS)
                self._seqs.extend(seqs)
                self._from_seq = after or 0
                looked_at += SLICE_ITEMS // 4
                if after is None:
                    self._to_copy.popleft()
                continue
            looked_at += 1
            item = self._copy_of(self._seqs.popleft())
            if item is not None:
                items.append(item)
                length += item.length_bytes
        return items

    @property
    def is_complete(self) -> bool:
        """Everything was given out."""
        return not (self.is_scanning or self._to_copy or self._seqs)

    def _copy_of(self, seq: int) -> ItemCopy | None:
        entry = self._catalog.get(seq)
        if entry is None or (home := entry.segment) is None or home.number not in self.numbers or entry.origin:
            return None
        return ItemCopy(
            seq,
            self._draw_number(),
            home,
            entry.offset,
            entry.payload_bytes,
            entry.content_bytes,
            entry.content_crc,
            entry.states(),
        )

    def written(self, fates: Sequence[FateCopy], items: Sequence[ItemCopy]) -> None:
        """These are in the file."""
        self._notes.extend([fate for fate in fates if fate.note is not None])
        self._items.extend(items)

    # From its beginning.

    def hold(self) -> None:
        """The victims stay until it is certain that the new segment is there, or that it is not: with a victim what
        ended its items could go, and a copy that was made before would rise."""
        for victim in self.victims:
            victim.refs.add(self.number)

    # When it is on stable storage under its name.

    def take_place(self, home: Segment) -> bool:
        """The next copies are their items from now on; False: all are."""
        catalog = self._catalog
        for _ in range(min(TAKEN_AT_ONCE, len(self._items))):
            item = self._items.popleft()
            states = [State(due_s, self._settled_note(note), parts) for due_s, note, parts in item.states]
            if not catalog.relocate(item.seq, home, item.new_offset, item.payload_bytes, states):
                home.note_copy(item.seq)  # it ended meanwhile; what ended it must stay as long as the copy is there
        if not self._items:
            for _ in range(min(TAKEN_AT_ONCE, len(self._notes))):
                fate = self._notes.popleft()
                assert fate.note is not None
                catalog.move_note(fate.fate.seq, fate.note, self.number, fate.new_offset, fate.payload_bytes)
        return bool(self._items or self._notes)

    def _settled_note(self, note: Note | None) -> Note | None:
        """A note that lies behind the new segment stays where it is: what it overtook lies there as well."""
        return note if note is not None and note.data is None and 0 < note.segment < self.number else None

    def let_go(self, home: Segment) -> set[int]:
        """Nothing in the victims is needed any more, but by each other. Returns the segments that what is said of a
        victim's items is about as well from now on."""
        catalog = self._catalog
        also = {self.number}
        home.refs |= self.numbers | self._held
        for victim in self.victims:
            if victim.copies is not None:
                # Of what was copied from there an older record may still lie elsewhere, and rise.
                behind = victim.refs & catalog.segments.keys()
                also |= behind
                for each in catalog.segments.values():
                    if victim.number in each.refs:
                        each.refs |= behind - {each.number}
        for number, each in catalog.segments.items():
            if number > self.number and not each.refs.isdisjoint(self.numbers):
                each.refs.add(self.number)
        for victim in self.victims:
            victim.refs &= self.numbers
        return also


def _homes_of(victims: Sequence[Segment], catalog: Catalog) -> list[Segment]:
    """What stays and is spoken of in the victims, or in what they speak of: there, too, the dead may lie."""
    segments = catalog.segments
    there = set(segments)
    numbers = {victim.number for victim in victims}
    seen = set(numbers)
    waiting = set(numbers)
    while waiting:
        new = (segments[waiting.pop()].refs & there) - seen
        seen |= new
        waiting |= new
    return [segments[number] for number in sorted(seen - numbers)]
