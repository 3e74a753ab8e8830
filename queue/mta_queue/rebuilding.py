"""Rebuilding: the queue, from the records that were found in its files. Pure.

The store reads the files and tells a `Rebuilding` what it met, segment by segment from the oldest; out come the
catalog, what waits, what is arriving, and what the event log may not have heard of yet. What is met means what the
tables in `recovery` say.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from mta_queue import record
from mta_queue.carried import Carried, Fate
from mta_queue.catalog import Catalog
from mta_queue.entry import Entry, mask_of
from mta_queue.index import Index, IndexWriter
from mta_queue.record import FILE_HEADER_BYTES, HEADER_BYTES, Damage, Found, Origin, Record
from mta_queue.recovered import Recovered, Untold, Waiting
from mta_queue.recovery import BYTES, GAPS, RECORDS, Known
from mta_queue.retention import Segment
from mta_queue.segment import file_name


class Readable(Protocol):
    """A segment that somebody can read; the file's reader is one."""

    header: record.FileHeader | None
    marker: int | None
    is_sealed: bool

    def records(self, *, verify_content: bool) -> Iterator[Found | Damage]: ...


LINES_MAX = 20  # about one file: a failing disk may have damaged all of its records
ORPHANS_MAX = 100_000  # items in no file of which the last word is remembered while the log is read
_NOWHERE = 0  # the offset of an item that is to be looked for when it is needed: its entry is gone


class _Telling(NamedTuple):
    kind: Literal["item", "finished", "postponed"]
    seq: int
    parts: tuple[int, ...]
    due_s: float
    home: Segment
    """Where the item lies."""
    offset: int
    segment: Segment
    """Where the fate lies that is to be told."""
    fate_offset: int


_UNREAD = Origin(0, 0)  # stands for the origin of an item of which only the index was read yet

_UNTOLD_KINDS: dict[int, Literal["item", "finished", "postponed"]] = {
    record.ITEM: "item",
    record.FINISHED: "finished",
    record.POSTPONED: "postponed",
}


class Rebuilding:
    """Takes what was found, in order, and keeps the queue that it amounts to."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.next_number = 1
        self.set_aside: list[str] = []
        """What could not be read, for the admin: a line each."""
        self.quarantined = 0
        """How much that was: of one file not all has a line."""
        self.segments_known: Known = "not known"
        """Whether all that must be there are."""
        self.on_aside: Callable[[int, str], None] = lambda number, why: None
        """Hears why the file of a segment is to be kept."""
        self._ids: dict[int, str] = {}
        self._told = 0
        self._tellings: dict[int, _Telling] = {}
        self._forgotten: set[int] = set()
        self._carried = Carried()
        self._segment = Segment(0, 0)
        self._name = ""
        self._sealed = False
        self._keep_ids = False
        self._bad_contents: list[str] = []
        # Where items lie whose entry is gone: seqs ascend from segment to segment, but for copies.
        self._last_seq = 0
        self._homes: list[Segment] = []
        self._copied: list[Segment] = []
        self._orphans: dict[int, int] = {}
        """Items that seem to have been in a damaged segment, and which of their parts wait by the last word on them."""
        self._homeless: dict[int, int] = {}
        """Untold fates of items that lie in no file: number -> item."""
        self._lines: Counter[int] = Counter()

    def take(
        self,
        number: int,
        name: str,
        found: "Readable",
        *,
        verify_content: bool,
        keep_ids: bool = False,
        index: IndexWriter | None = None,
    ) -> int:
        """A whole segment, record by record; returns how many it has. `keep_ids`: its items are among what is recent.
        `index` gets a row for each. Raises OSError where the segment cannot be read."""
        assert found.marker is not None, "a file without a marker is not read"
        count = 0
        self.begin(number, found.marker, name, found.header, is_sealed=found.is_sealed)
        self._keep_ids = keep_ids
        for met in found.records(verify_content=verify_content):
            if isinstance(met, Found):
                count += 1
                self.found(met.offset, met.record, content_good=met.content_good)
                if index is not None:
                    index.add_found(met.record)
            else:
                self.damage(met.offset, met.length_bytes, followed=met.followed, item_id=met.item_id)
        self.end()
        return count

    def take_index(self, number: int, name: str, found: "Readable", index: Index) -> None:
        """A whole segment by what its index says."""
        assert found.marker is not None, "a file without a marker is not read"
        self.begin(number, found.marker, name, found.header, is_sealed=True)
        self._keep_ids = False
        offset, last, highest = FILE_HEADER_BYTES, 0, 0
        for row in index.rows():
            at, seq, due_s, kind, _, flags, parts, payload_bytes, content_bytes, content_crc, extra = row
            if at > last:
                last = at
            if kind == record.ITEM:
                if flags & record.FLAG_COPY:
                    states = [(due_s, bool(note_bytes), living) for due_s, living, note_bytes in index.states(extra)]
                    self._copy(seq, offset, payload_bytes, content_bytes, content_crc, states)
                else:
                    self._item(seq, offset, due_s, flags, parts, payload_bytes, content_bytes, content_crc)
            elif kind == record.TOLD:
                self.tell_up_to(seq)
            elif kind in record.FATE_KINDS:
                if at > highest and kind != record.FORGOTTEN:
                    highest = at
                self._apply(kind, at, seq, due_s, index.parts(parts, extra), offset, payload_bytes)
            offset += HEADER_BYTES + payload_bytes + content_bytes
        self._see(last)
        self._carried.met(highest)
        self.end()

    def untold_count(self) -> int:
        """Records that the event log may not have heard of."""
        return len(self._tellings)

    def begin(self, number: int, marker: int, name: str, header: record.FileHeader | None, *, is_sealed: bool) -> None:
        """The records that follow are of this segment."""
        self._segment = self.catalog.begin_segment(number, marker)
        self._segment.damaged = header is None
        self._name, self._sealed = name, is_sealed
        self._carried.begin(is_sealed=is_sealed)
        if header is not None:
            self.tell_up_to(header.told)
            self._see(header.first_number - 1)

    @property
    def is_torn_again(self) -> bool:
        """In the last segment some fates did not count, because of what was written with them again not all is
        there: it must not be taken for whole."""
        return self._carried.is_torn

    def end(self) -> None:
        """The segment's last record was given."""
        for fate in self._carried.end():
            self._apply(*fate)
        self._judge_contents(followed=False)
        self.catalog.close_segment(self._segment.number)

    def aside(self, number: int, name: str, why: str) -> None:
        """A file or a part of it that will not be read."""
        self.quarantined += 1
        self._lines[number] += 1
        if self._lines[number] <= LINES_MAX:
            self.set_aside.append(f"{name}: {why}")
        elif self._lines[number] == LINES_MAX + 1:
            self.set_aside.append(f"{name}: and more of the kind")
        self.on_aside(number, why)

    def damage(self, offset: int, length_bytes: int, *, followed: bool, item_id: str = "") -> None:
        """Bytes that are no record; `item_id`: what seems to be left of the id of an item that lay there."""
        self._judge_contents(followed=followed)
        self._carried.damage()
        row = BYTES.decide("record", self._sealed, followed)
        if row.report:
            self._segment.damaged = True
            perhaps = f", perhaps item {item_id}" if item_id else ""
            self.aside(self._segment.number, self._name, f"{length_bytes} bytes at {offset}: {row.label}{perhaps}")

    def found(self, offset: int, found: Record, *, content_good: bool) -> None:
        """A whole record; of an item whose content is not good only the number counts."""
        if self._bad_contents:
            self._judge_contents(followed=True)
        if found.number >= self.next_number:
            self.next_number = found.number + 1
        kind = found.kind
        if kind == record.ITEM:
            if content_good:
                self._found_item(offset, found)
            else:
                self._bad_contents.append(f"item {found.item_id()} at {offset}")
        elif kind == record.TOLD:
            self.tell_up_to(found.seq)
        elif kind in record.FATE_KINDS:
            parts, payload_bytes = found.listed_parts(), len(found.payload)
            self._fate((kind, found.number, found.seq, found.due_s, parts, offset, payload_bytes))

    def _judge_contents(self, *, followed: bool) -> None:
        row = BYTES.decide("content", self._sealed, followed)
        for bad in self._bad_contents:
            if row.report:
                self._segment.damaged = True
                self.aside(self._segment.number, self._name, f"{bad}: {row.label}")
        self._bad_contents.clear()

    def _see(self, number: int) -> None:
        if number >= self.next_number:
            self.next_number = number + 1

    def tell_up_to(self, position: int) -> None:
        """The event log has every record with a number up to this one."""
        if position > self._told:
            self._told = self.catalog.told = position
            self._see(position)
            if self._homeless:
                self._homeless = {number: seq for number, seq in self._homeless.items() if number > position}
            if self._tellings:
                self._tellings = {number: t for number, t in self._tellings.items() if number > position}

    def _found_item(self, offset: int, found: Record) -> None:
        seq, payload_bytes = found.seq, len(found.payload)
        if found.is_copy:
            states = [(state.due_s, bool(state.note), state.parts) for state in found.copied_states()]
            self._copy(seq, offset, payload_bytes, found.content_bytes, found.content_crc, states)
        else:
            self._item(
                seq,
                offset,
                found.due_s,
                found.flags,
                found.parts,
                payload_bytes,
                found.content_bytes,
                found.content_crc,
            )
        if self._keep_ids:
            self._ids[seq] = found.item_id()

    def _item(
        self,
        seq: int,
        offset: int,
        due_s: float,
        flags: int,
        parts: int,
        payload_bytes: int,
        content_bytes: int,
        content_crc: int,
    ) -> None:
        segment, catalog = self._segment, self.catalog
        if seq > self._last_seq:
            self._last_seq = seq
        else:
            row = RECORDS.decide("item", self._known(seq), "no")
            if row.action == "skip":
                segment.damaged = True
                self.aside(segment.number, self._name, f"item {seq} at {offset}: {row.label}")
                return
        if not segment.first_seq:
            self._homes.append(segment)
        if flags & record.FLAG_ARRIVING:
            entry = Entry(parts, payload_bytes, content_bytes, content_crc, due_s, _UNREAD)
            catalog.add(seq, entry)
            catalog.place(seq, entry, segment, offset)
            return
        catalog.recover(seq, segment, offset, payload_bytes, content_bytes, content_crc, due_s, parts)
        if seq > self._told:
            every = tuple(range(parts))
            self._tellings[seq] = _Telling("item", seq, every, due_s, segment, offset, segment, 0)

    def _copy(
        self,
        seq: int,
        offset: int,
        payload_bytes: int,
        content_bytes: int,
        content_crc: int,
        states: Sequence[tuple[float, bool, Sequence[int]]],
    ) -> None:
        segment = self._segment
        if segment.copies is None:
            self._copied.append(segment)
        self.catalog.recover_copy(seq, segment, offset, payload_bytes, content_bytes, content_crc, states)

    def _fate(self, fate: Fate) -> None:
        for each in self._carried.admit(fate):
            self._apply(*each)

    def _apply(
        self, kind: int, number: int, seq: int, due_s: float, parts: tuple[int, ...], offset: int, payload_bytes: int
    ) -> None:
        segment, catalog = self._segment, self.catalog
        entry = catalog.get(seq)
        if entry is None:
            self._fate_of_none(kind, number, seq, due_s, parts, offset)
            return
        home = entry.segment
        assert home is not None, "what is found lies somewhere"
        segment.refs.add(home.number)
        if kind in record.TOLD_KINDS:
            catalog.to_tell(entry, number)
            segment.tell_number = max(segment.tell_number, number)
            if number > self._told and number not in self._tellings:
                self._tellings[number] = _Telling(
                    _UNTOLD_KINDS[kind], seq, parts, due_s, home, entry.offset, segment, offset
                )
        if kind in (record.FINISHED, record.MOVED):
            catalog.end_parts(seq, entry, parts)
        elif kind == record.POSTPONED:
            has_note = payload_bytes > 4 * len(parts)
            place = (segment.number, offset, payload_bytes) if has_note else None
            catalog.recover_postponed(seq, entry, parts, due_s, place)
        elif kind == record.RESCHEDULED:
            catalog.reschedule(seq, entry, parts, due_s)
        elif kind == record.ARRIVED:
            catalog.release(seq, entry)
        else:
            catalog.end(seq, entry)
            self._forgotten.add(seq)

    def _fate_of_none(
        self, kind: int, number: int, seq: int, due_s: float, parts: tuple[int, ...], offset: int
    ) -> None:
        """Of an item that has ended, or that lies in no file."""
        segment = self._segment
        homes = list(self._homes_of_dead(seq))
        row = RECORDS.decide("fate", "ended" if homes else "unknown", "no")
        if row.action == "hold":
            segment.refs.update(home.number for home in homes)
            if kind in record.TOLD_KINDS and number > self._told and number not in self._tellings:
                # What was torn was this fate, and what ended the item was not: nobody has heard of it yet.
                home = homes[0]
                home.tell_number = max(home.tell_number, number)
                segment.tell_number = max(segment.tell_number, number)
                self._tellings[number] = _Telling(
                    _UNTOLD_KINDS[kind], seq, parts, due_s, home, _NOWHERE, segment, offset
                )
        if kind == record.FORGOTTEN:
            self._forgotten.add(seq)
        if any(home.damaged for home in homes):
            self._orphan(kind, seq, parts)
        elif not homes and kind in record.TOLD_KINDS and number > self._told and len(self._homeless) < ORPHANS_MAX:
            self._homeless[number] = seq

    def _orphan(self, kind: int, seq: int, parts: tuple[int, ...]) -> None:
        """Remembers the last word about each part of an item that cannot be found."""
        waiting = self._orphans.get(seq, 0)
        if kind in (record.POSTPONED, record.RESCHEDULED):
            if waiting or len(self._orphans) < ORPHANS_MAX:
                self._orphans[seq] = waiting | mask_of(parts)
        elif waiting:
            left = waiting & ~mask_of(parts) if kind in (record.FINISHED, record.MOVED) else waiting
            if left and kind != record.FORGOTTEN:
                self._orphans[seq] = left
            else:
                del self._orphans[seq]

    def gaps(self) -> list[str]:
        """What to say of items that are spoken of and should be there."""
        found = []
        for lost, seqs in (("untold", {*self._homeless.values()}), ("damaged", self._orphans.keys())):
            row = GAPS.decide(self.segments_known, lost if seqs else "no")
            if row.report:
                found.append(f"{len(seqs)} items ({min(seqs)} to {max(seqs)}) are in no file: {row.label}")
        return found

    def _known(self, seq: int) -> str:
        """What is known of an item whose record is met out of turn."""
        if seq in self.catalog:
            return "living"
        homes = [home for home in self._homes if home is not self._segment and home.first_seq <= seq <= home.last_seq]
        return "ended" if homes else "unknown"

    def _homes_of_dead(self, seq: int) -> Iterator[Segment]:
        at = bisect_left(self._homes, seq, key=_last_seq)
        if at < len(self._homes) and self._homes[at].holds(seq):
            yield self._homes[at]
        for segment in self._copied:
            if segment.holds(seq):
                yield segment

    def recovered(
        self,
        read_record: Callable[[Segment, int], Record | None],
        find_item: Callable[[Segment, int], Record | None] = lambda home, seq: None,
    ) -> Recovered:
        """The result, once. `read_record` reads a record again: (segment, offset) -> record or None; `find_item` looks
        for an item's: (segment, seq)."""
        catalog = self.catalog
        arriving = []
        for seq, entry in sorted(catalog.entries()):
            if entry.origin is not None:
                assert entry.segment is not None, "what is found lies somewhere"
                found = read_record(entry.segment, entry.offset)
                origin = found.origin() if found is not None else None
                if found is None or origin is None:
                    self._segment_aside(entry.segment, f"item {seq} is not readable: it was arriving from another log")
                    catalog.end(seq, entry)
                else:
                    entry.origin = origin
                    arriving.append((seq, found.item_id(), origin))
        recent = [(seq, item_id) for seq, item_id in self._ids.items() if seq in catalog]
        waiting = Waiting(catalog, self.next_number, frozenset(seq for seq, _, _ in arriving))
        untold = self._untold(read_record, find_item)
        self.set_aside += self.gaps()
        self._ids.clear()
        self._tellings.clear()
        return Recovered(waiting, recent, arriving, untold, self.set_aside)

    def _untold(
        self,
        read_record: Callable[[Segment, int], Record | None],
        find_item: Callable[[Segment, int], Record | None],
    ) -> list[Untold]:
        untold = []
        for _, telling in sorted(self._tellings.items()):
            if telling.seq in self._forgotten and telling.kind == "item":
                continue
            home, at = telling.home, telling.offset
            found = read_record(home, at) if at != _NOWHERE else find_item(home, telling.seq)
            fate = read_record(telling.segment, telling.fate_offset) if telling.kind != "item" else found
            if found is None or fate is None:
                self._segment_aside(telling.home, f"item {telling.seq} is not readable: a fate is untold")
                continue
            note = fate.note() if telling.kind != "item" else b""
            untold.append(Untold(telling.kind, telling.seq, telling.parts, found.meta(), note, telling.due_s))
        return untold

    def _segment_aside(self, home: Segment, why: str) -> None:
        home.damaged = True
        self.aside(home.number, file_name(home.number), why)


def _last_seq(segment: Segment) -> int:
    return segment.last_seq
