"""A group: what one write and one sync carry to the disk.

Filled by the loop, committed by the thread, and read by the loop again: never both at once.
"""

from collections.abc import Callable

from mta_queue.entry import Entry
from mta_queue.fates import Fates
from mta_queue.segment import SegmentWriter

Append = tuple[int, Entry, bytes, bytes, Callable[[int], None], Callable[[OSError], None]]
"""seq, entry, header and payload, content, on_durable, on_failed"""


class Group:
    """What one write and one sync carry to the disk, and what became of it."""

    __slots__ = (
        "appends",
        "carried",
        "error",
        "fates",
        "first_number",
        "is_doubted",
        "kept_bytes",
        "landed",
        "last_number",
        "length_bytes",
        "offset",
        "opened",
        "refs",
        "reserved",
        "reserves",
        "settled",
        "sync",
        "tell_number",
        "told",
        "waiters",
    )

    def __init__(self, appends: list[Append], length_bytes: int) -> None:
        self.appends = appends
        self.length_bytes = length_bytes
        """Of the appends, with their contents."""
        self.fates = Fates()
        self.refs: set[int] = set()
        self.waiters: list[Callable[[], None]] = []
        self.sync = False
        """Asked for; after the commit: done."""
        self.first_number = self.last_number = self.tell_number = self.told = 0
        self.opened: list[SegmentWriter] = []
        self.landed: SegmentWriter | None = None
        """Where its fates are, and its appends where there was no error."""
        self.offset = 0
        """Where its first append is."""
        self.carried = False
        """Fates of earlier groups or segments went with it."""
        self.settled: list[Fates] = []
        """Fates, of earlier groups too, that are where they are for good now (durability "os": written)."""
        self.is_doubted = False
        """The segment being written may have lost its name: it is abandoned first."""
        self.reserves = False
        """Its segment ends with it, and the number behind it is left to somebody else."""
        self.reserved = 0
        """That number; 0 where the disk refused."""
        self.kept_bytes = 0
        """Fates that wait in memory after it, because the disk did not take them."""
        self.error: OSError | None = None
