"""Recovery: what found files mean, as tables, and the queue rebuilt from their records. Pure.

The store reads the files and tells a `Rebuilding` what it met, segment by segment from the oldest; out come the
catalog, what waits, what is arriving, and what the event log may not have heard of yet.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

from mta_queue import record
from mta_queue.catalog import Catalog, Entry, Segment
from mta_queue.record import Damage, Found, Origin, Record


class FileDecision(NamedTuple):
    """What to do with a segment file, by how it begins."""

    label: str
    read: bool
    """Its records count."""
    remove: bool
    """The file may be deleted at once."""
    refuse: bool
    """The log must not be opened at all."""
    report: bool
    """The admin is told."""


Beginning = Literal["good", "blank", "newer", "damaged", "unreadable"]

FILE_DECISIONS: dict[Beginning, FileDecision] = {
    "good": FileDecision("a segment", read=True, remove=False, refuse=False, report=False),
    # Cut short before its header was synced: nothing in it was ever acknowledged.
    "blank": FileDecision("never begun", read=False, remove=True, refuse=False, report=False),
    # Written by a later version of this program: reading half of it would be losing the other half.
    "newer": FileDecision("of a newer format", read=False, remove=False, refuse=True, report=True),
    # The header is gone but the first record shows the marker, and that is all that is needed.
    "damaged": FileDecision("its header is damaged", read=True, remove=False, refuse=False, report=True),
    "unreadable": FileDecision("no segment or damaged from its start", False, False, False, True),
}


class DamageDecision(NamedTuple):
    """What bytes mean that are no record, or a content that fails its checksum."""

    label: str
    report: bool
    """The admin is told, and the file is set aside instead of deleted when it is no longer needed."""


What = Literal["record", "content"]

DAMAGE_DECISIONS: dict[tuple[bool, What, bool], DamageDecision] = {
    # (sealed, what, followed by a whole record). In every case the rest of the segment counts, for what has its
    # checksums right was written by us: an item then was at worst never acknowledged, and a fate did happen.
    (False, "record", False): DamageDecision("torn end, never acknowledged", report=False),
    (False, "content", False): DamageDecision("torn content at the end, never acknowledged", report=False),
    # A power loss leaves such holes where it hit a group half written, but so does a failing disk.
    (False, "record", True): DamageDecision("hole, never acknowledged or damaged", report=True),
    (False, "content", True): DamageDecision("torn content, never acknowledged or damaged", report=True),
    (True, "record", False): DamageDecision("damaged", report=True),
    (True, "record", True): DamageDecision("damaged", report=True),
    (True, "content", False): DamageDecision("content damaged", report=True),
    (True, "content", True): DamageDecision("content damaged", report=True),
}


def beginning(header: record.FileHeader | None, marker: int | None, *, is_blank: bool) -> Beginning:
    """How a file begins, for FILE_DECISIONS."""
    if header is not None:
        return "good" if header.version == record.VERSION else "newer"
    if marker is not None:
        return "damaged"
    return "blank" if is_blank else "unreadable"


class Untold(NamedTuple):
    """A record that the event log may not have heard of."""

    kind: Literal["item", "finished", "postponed"]
    seq: int
    parts: tuple[int, ...]
    """The parts that it is about; of an item all."""
    meta: bytes
    """The item's."""
    note: bytes
    due_s: float = 0.0


class Recovered(NamedTuple):
    """What was in the log when it was opened."""

    waiting: list[tuple[int, str, tuple[tuple[int, float], ...]]]
    """(seq, id, ((part, due_s), ...)) in order of seq, living parts only."""
    arriving: list[tuple[int, str, Origin]]
    """Items on disk that were not released yet: their origin's log decides."""
    untold: list[Untold]
    """In the order in which it happened."""
    set_aside: list[str]
    """What could not be read, for the admin: a line each."""


class Readable(Protocol):
    """A segment that somebody can read; the file's reader is one."""

    header: record.FileHeader | None
    marker: int | None
    is_sealed: bool

    def records(self, *, verify_content: bool) -> Iterator[Found | Damage]: ...


class _Telling(NamedTuple):
    kind: Literal["item", "finished", "postponed"]
    seq: int
    parts: tuple[int, ...]
    note: bytes
    due_s: float
    segment: Segment
    offset: int
    payload_bytes: int


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
        self._ids: dict[int, str] = {}
        self._told = 0
        self._tellings: dict[int, _Telling] = {}
        self._forgotten: set[int] = set()
        self._segment = Segment(0, 0)
        self._name = ""
        self._sealed = False
        self._bad_contents: list[str] = []
        # Where items lie whose entry is gone: seqs ascend from segment to segment.
        self._first_seqs: list[int] = []
        self._last_seqs: list[int] = []
        self._seq_segments: list[int] = []

    def take(self, number: int, name: str, found: "Readable", *, verify_content: bool) -> int:
        """A whole segment; returns how many records it has. Raises OSError where it cannot be read."""
        assert found.marker is not None, "a file without a marker is not read"
        count = 0
        self.begin(number, found.marker, name, found.header, is_sealed=found.is_sealed)
        for met in found.records(verify_content=verify_content):
            if isinstance(met, Found):
                count += 1
                self.found(met.offset, met.record, content_good=met.content_good)
            else:
                self.damage(met.offset, met.length_bytes, followed=met.followed)
        self.end()
        return count

    def untold_count(self) -> int:
        """Records that the event log may not have heard of."""
        return len(self._tellings)

    def begin(self, number: int, marker: int, name: str, header: record.FileHeader | None, *, is_sealed: bool) -> None:
        """The records that follow are of this segment."""
        self._segment = self.catalog.begin_segment(number, marker)
        self._segment.damaged = header is None
        self._name, self._sealed = name, is_sealed
        if header is not None:
            self._tell_up_to(header.told)
            self._see(header.first_number - 1)

    def end(self) -> None:
        """The segment's last record was given."""
        self._judge_contents(followed=False)
        self.catalog.close_segment(self._segment.number)

    def aside(self, name: str, why: str) -> None:
        """A file or a part of it that will not be read."""
        self.set_aside.append(f"{name}: {why}")

    def damage(self, offset: int, length_bytes: int, *, followed: bool) -> None:
        """Bytes that are no record."""
        self._judge_contents(followed=followed)
        decision = DAMAGE_DECISIONS[self._sealed, "record", followed]
        if decision.report:
            self._segment.damaged = True
            self.aside(self._name, f"{length_bytes} bytes at {offset}: {decision.label}")

    def found(self, offset: int, found: Record, *, content_good: bool) -> None:
        """A whole record; of an item whose content is not good only the number counts."""
        if self._bad_contents:
            self._judge_contents(followed=True)
        if found.number >= self.next_number:
            self.next_number = found.number + 1
        kind = found.kind
        if kind == record.ITEM:
            if content_good:
                self._item(offset, found)
            else:
                self._bad_contents.append(f"item {found.item_id()} at {offset}")
        elif kind == record.TOLD:
            self._tell_up_to(found.seq)
        elif kind in record.FATE_KINDS:
            self._fate(found)

    def _judge_contents(self, *, followed: bool) -> None:
        decision = DAMAGE_DECISIONS[self._sealed, "content", followed]
        for bad in self._bad_contents:
            if decision.report:
                self._segment.damaged = True
                self.aside(self._name, f"{bad}: {decision.label}")
        self._bad_contents.clear()

    def _see(self, number: int) -> None:
        if number >= self.next_number:
            self.next_number = number + 1

    def _tell_up_to(self, position: int) -> None:
        if position > self._told:
            self._told = self.catalog.told = position
            self._see(position)
            if self._tellings:
                self._tellings = {number: t for number, t in self._tellings.items() if number > position}

    def _item(self, offset: int, found: Record) -> None:
        seq, segment = found.seq, self._segment
        origin = found.origin() if found.flags else None
        entry = Entry(found.parts, len(found.payload), found.content_bytes, found.content_crc, found.due_s, origin)
        self.catalog.add(seq, entry)
        self.catalog.place(seq, entry, segment, offset)
        self._ids[seq] = found.item_id()
        if self._seq_segments and self._seq_segments[-1] == segment.number:
            self._last_seqs[-1] = seq
        else:
            self._first_seqs.append(seq)
            self._last_seqs.append(seq)
            self._seq_segments.append(segment.number)
        if seq > self._told and origin is None:
            parts = tuple(range(found.parts))
            self._tellings[seq] = _Telling("item", seq, parts, b"", found.due_s, segment, offset, len(found.payload))

    def _fate(self, found: Record) -> None:
        kind, number, seq = found.kind, found.number, found.seq
        entry = self.catalog.items.get(seq)
        if entry is None:
            # It may be the second copy of a fate, of which the first can still be lost: it holds its segment too.
            home = self._home_of_dead(seq)
            if home:
                self._segment.refs.add(home)
            if kind == record.FORGOTTEN:
                self._forgotten.add(seq)
            return
        home_segment = entry.segment
        assert home_segment is not None
        self._segment.refs.add(home_segment.number)
        told_kind = kind in record.TOLD_KINDS
        if told_kind:
            self.catalog.to_tell(entry, number)
            self._segment.tell_number = max(self._segment.tell_number, number)
        parts = found.listed_parts()
        if told_kind and number > self._told and number not in self._tellings:
            self._tellings[number] = _Telling(
                _UNTOLD_KINDS[kind],
                seq,
                parts,
                found.note(),
                found.due_s,
                home_segment,
                entry.offset,
                entry.payload_bytes,
            )
        if kind in (record.FINISHED, record.MOVED):
            self.catalog.end_parts(seq, entry, parts)
        elif kind == record.POSTPONED:
            self.catalog.postpone(entry, parts, found.due_s, found.note())
        elif kind == record.ARRIVED:
            entry.origin = None
        else:
            self.catalog.end(seq, entry)
            self._forgotten.add(seq)
        if not entry.living:
            self._ids.pop(seq, None)

    def _home_of_dead(self, seq: int) -> int:
        at = bisect_left(self._last_seqs, seq)
        return self._seq_segments[at] if at < len(self._last_seqs) and self._first_seqs[at] <= seq else 0

    def recovered(self, read_payload: Callable[[Segment, int], Record | None]) -> Recovered:
        """The result, once. `read_payload` reads an item's record again: (segment, offset) -> record or None."""
        waiting, arriving = [], []
        for seq, entry in self.catalog.items.items():
            item_id = self._ids[seq]
            if entry.origin is not None:
                arriving.append((seq, item_id, entry.origin))
            elif entry.living == 1 and entry.postponed is None:
                waiting.append((seq, item_id, ((0, entry.due_s),)))
            else:
                waiting.append((seq, item_id, tuple((part, entry.due_of(part)) for part in entry.living_parts())))
        untold = []
        for _, telling in sorted(self._tellings.items()):
            if telling.seq in self._forgotten and telling.kind == "item":
                continue
            found = read_payload(telling.segment, telling.offset)
            if found is None:
                self.aside(f"segment {telling.segment.number}", f"item {telling.seq} is not readable: a fate is untold")
                continue
            untold.append(Untold(telling.kind, telling.seq, telling.parts, found.meta(), telling.note, telling.due_s))
        self._ids.clear()
        self._tellings.clear()
        return Recovered(waiting, arriving, untold, self.set_aside)
