"""The catalog: what lives in the queue now, and which segment may go. Pure.

It is what reading all records from the first to the last leaves over; `recovery` does that after a start and the
store keeps it up to date from then on. It holds no mail and no meta, only where they lie.
"""

from collections.abc import Iterable

from mta_queue.record import Origin


class Segment:
    """What must be known of a segment file to say whether it may be deleted."""

    __slots__ = ("damaged", "is_open", "living", "marker", "number", "refs", "tell_number")

    def __init__(self, number: int, marker: int) -> None:
        self.number = number
        self.marker = marker
        """What its records begin with."""
        self.is_open = True
        """Records may still be appended to it."""
        self.living = 0
        """Items that lie in it and have a living part."""
        self.tell_number = 0
        """The highest number of a record that has to be told and lies in it or is about one of its items."""
        self.refs: set[int] = set()
        """Segments whose items the fates in this one are about."""
        self.damaged = False
        """Something in it could not be read: its file is set aside, not deleted."""


class Postponement:
    """A part that waits for a time of its own."""

    __slots__ = ("due_s", "note")

    def __init__(self, due_s: float, note: bytes) -> None:
        self.due_s = due_s
        self.note = note


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

    def living_parts(self) -> Iterable[int]:
        """The parts without a final fate, lowest first."""
        mask = self.living
        if mask == 1:
            return (0,)
        return [part for part in range(mask.bit_length()) if mask >> part & 1]

    def due_of(self, part: int) -> float:
        """When a living part may be tried."""
        if self.postponed is not None and (found := self.postponed.get(part)) is not None:
            return found.due_s
        return self.due_s


class Catalog:
    """All living items and all segments that exist."""

    def __init__(self) -> None:
        self.items: dict[int, Entry] = {}
        self.segments: dict[int, Segment] = {}
        self.parts_living = 0
        self.told = 0
        """Every record with a number up to this one has been told."""
        self.anchor = 0
        """The newest segment that is known to be on stable storage. Its header says where numbers and telling go on
        when all older ones are deleted, so those that are not older stay."""
        self._emptied: set[int] = set()

    def begin_segment(self, number: int, marker: int) -> Segment:
        """A segment that now exists and takes records until `close_segment`."""
        segment = self.segments[number] = Segment(number, marker)
        return segment

    def close_segment(self, number: int) -> None:
        """Nothing is appended to it any more: from now on it may be deleted when it is empty."""
        segment = self.segments[number]
        segment.is_open = False
        if not segment.living:
            self._emptied.add(number)

    def add(self, seq: int, entry: Entry) -> None:
        """An item that was appended, durable or not."""
        self.items[seq] = entry
        self.parts_living += entry.living.bit_count()

    def place(self, seq: int, entry: Entry, segment: Segment, offset: int) -> None:
        """The item is on disk."""
        entry.segment = segment
        entry.offset = offset
        segment.living += 1
        if seq > segment.tell_number and entry.origin is None:  # what arrives was told where it came from
            segment.tell_number = seq

    def drop(self, seq: int) -> None:
        """The item was never written; one that is not there is no error."""
        entry = self.items.pop(seq, None)
        if entry is not None:
            self.parts_living -= entry.living.bit_count()

    def to_tell(self, entry: Entry, number: int) -> None:
        """A fate of this item that must be told was recorded under `number`: until then its meta is needed."""
        segment = entry.segment
        if segment is not None and number > segment.tell_number:
            segment.tell_number = number

    def end_parts(self, seq: int, entry: Entry, parts: Iterable[int]) -> None:
        """These parts live no longer; with the last one the item is gone."""
        mask = entry.living
        for part in parts:
            mask &= ~(1 << part)
            if entry.postponed is not None:
                entry.postponed.pop(part, None)
        self.parts_living -= entry.living.bit_count() - mask.bit_count()
        entry.living = mask
        if not mask:
            self._end(seq, entry)

    def end(self, seq: int, entry: Entry) -> None:
        """The whole item lives no longer."""
        self.parts_living -= entry.living.bit_count()
        entry.living = 0
        self._end(seq, entry)

    def _end(self, seq: int, entry: Entry) -> None:
        del self.items[seq]
        segment = entry.segment
        if segment is not None:
            segment.living -= 1
            if not segment.living and not segment.is_open:
                self._emptied.add(segment.number)

    def postpone(self, entry: Entry, parts: Iterable[int], due_s: float, note: bytes) -> None:
        """These parts wait until `due_s`; dead ones stay dead."""
        found = Postponement(due_s, note)
        if entry.postponed is None:
            entry.postponed = {}
        for part in parts:
            if entry.living >> part & 1:
                entry.postponed[part] = found

    def removable(self) -> list[int]:
        """Segments whose files may go now, oldest first.

        A segment may go when none of its items lives, all that the event log must hear about it has been told, a newer
        segment is there for good, and every segment is gone whose items its own fates ended (else they would rise
        again). The last makes this worth asking again after each removal. That the fates of its own items may not be
        on stable storage yet does no harm: without the file there is nothing to rise.
        """
        segments, told = self.segments, self.told
        found = []
        for number in sorted(self._emptied):
            segment = segments[number]
            if (
                number < self.anchor
                and segment.tell_number <= told
                and all(ref == number or ref not in segments for ref in segment.refs)
            ):
                found.append(number)
        return found

    def remove(self, number: int) -> None:
        """The segment's file is gone, and durably so."""
        del self.segments[number]
        self._emptied.discard(number)
