"""Fates on their way to the disk: records that are written one behind the other in the order of events."""

from collections.abc import Sequence

from mta_queue.entry import Note


class Fates:
    """Those of one group, and the notes among them, whose places somebody must know."""

    __slots__ = ("length_bytes", "notes", "offset", "records", "segment")

    def __init__(self, records: Sequence[bytes] = ()) -> None:
        self.records = list(records)
        self.length_bytes = sum(map(len, self.records))
        self.notes: list[tuple[Note, int]] = []
        """Notes, and where the record of each begins."""
        self.segment = self.offset = 0
        """Where the first one was written last."""
