"""Retention: which segments exist, what lives in them, and which files may go. Pure."""

from array import array
from bisect import bisect_left, insort

from mta_queue.record import HEADER_BYTES


class Segment:
    """What must be known of a segment file to say whether it may be deleted, and whether copying what lives in it is
    worth the while."""

    __slots__ = (
        "copies",
        "damaged",
        "file_bytes",
        "first_seq",
        "is_open",
        "is_refused",
        "last_seq",
        "living",
        "living_bytes",
        "marker",
        "number",
        "refs",
        "tell_number",
    )

    def __init__(self, number: int, marker: int) -> None:
        self.number = number
        self.marker = marker
        """What its records begin with."""
        self.is_open = True
        """Records may still be appended to it."""
        self.is_refused = False
        """The disk failed as it was begun, and as it was to be removed: nothing in it counts, nor may ever have been on
        stable storage."""
        self.living = 0
        """Items that lie in it and have a living part."""
        self.living_bytes = 0
        """Their records, contents included."""
        self.file_bytes = 0
        """The file's length."""
        self.first_seq = self.last_seq = 0
        """Its items have a seq between these, those of failed groups too, copies apart; 0: it never had any."""
        self.copies: array[int] | None = None
        """Items that were copied into it, by seq."""
        self.tell_number = 0
        """The highest number of a record that has to be told and lies in it or is about one of its items."""
        self.refs: set[int] = set()
        """Segments whose items the fates in this one are about, and those that its copies were copied from."""
        self.damaged = False
        """Something in it could not be read: its file is set aside, not deleted."""

    def holds(self, seq: int) -> bool:
        """Whether a record of the item, dead or alive, may lie in it."""
        if self.first_seq <= seq <= self.last_seq:
            return True
        copies = self.copies
        if copies is None or not copies[0] <= seq <= copies[-1]:
            return False
        return copies[bisect_left(copies, seq)] == seq

    def widen(self, first: int, last: int) -> None:
        """Items with these numbers were to be written to it and may be there, though nobody was told so."""
        self.first_seq = min(self.first_seq or first, first)
        self.last_seq = max(self.last_seq, last)

    def note_copy(self, seq: int) -> None:
        """The item was copied into it."""
        if self.copies is None:
            self.copies = array("Q")
        if not self.copies or seq > self.copies[-1]:
            self.copies.append(seq)
        elif not self.holds(seq):
            insort(self.copies, seq)


class Retention:
    """All segments that exist."""

    def __init__(self) -> None:
        self.segments: dict[int, Segment] = {}
        self.living_bytes = 0
        """The records of all living items that are on disk, contents included."""
        self.told = 0
        """Every record with a number up to this one has been told."""
        self.anchor = 0
        """The newest segment that is known to be on stable storage. Its header says where numbers and telling go on
        when all older ones are deleted, so those that are not older stay."""
        self.changes = 0
        """Goes up when a segment begins, ends or goes."""
        self._emptied: set[int] = set()

    def begin_segment(self, number: int, marker: int, *, is_refused: bool = False) -> Segment:
        """A segment that now exists and takes records until `close_segment`."""
        segment = self.segments[number] = Segment(number, marker)
        segment.is_refused = is_refused
        self.changes += 1
        return segment

    def close_segment(self, number: int) -> None:
        """Nothing is appended to it any more: from now on it may be deleted when it is empty."""
        segment = self.segments[number]
        segment.is_open = False
        self.changes += 1
        if not segment.living:
            self._emptied.add(number)

    def settle(self, segment: Segment, length_bytes: int) -> None:
        """An item with so many bytes of payload and content lies in the segment from now on."""
        length_bytes += HEADER_BYTES
        segment.living += 1
        segment.living_bytes += length_bytes
        self.living_bytes += length_bytes

    def leave(self, segment: Segment, length_bytes: int) -> None:
        """One that lay in it ended or lies elsewhere."""
        length_bytes += HEADER_BYTES
        segment.living -= 1
        segment.living_bytes -= length_bytes
        self.living_bytes -= length_bytes
        if not segment.living and not segment.is_open:
            self._emptied.add(segment.number)

    def removable(self) -> list[int]:
        """Segments whose files may go now, oldest first.

        A segment may go when none of its items lives, all that the event log must hear about it has been told, a newer
        segment is there for good, and every segment is gone whose items its own fates ended, or from which its copies
        were made (else they would rise again). The last makes this worth asking again after each removal. That the
        fates of its own items may not be on stable storage yet does no harm: without the file there is nothing to rise.
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

    def stable(self) -> list[tuple[int, int]]:
        """(number, marker) of segments that are on stable storage under their names, ascending: up to `anchor` all but
        those that are being made of copies, which nothing depends on yet, and those that the disk refused."""
        anchor = self.anchor
        found = [
            one for one in self.segments.values() if not one.is_refused and (not one.is_open or one.number == anchor)
        ]
        return sorted((one.number, one.marker) for one in found if one.number <= anchor)

    def remove(self, number: int) -> None:
        """The segment's file is gone, and durably so."""
        del self.segments[number]
        self.changes += 1
        self._emptied.discard(number)
