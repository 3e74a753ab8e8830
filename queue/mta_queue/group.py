"""A group: what one write and one sync carry to the disk.

Filled by the loop, committed by the thread, and read by the loop again: never both at once.
"""

from collections.abc import Callable

from mta_queue.catalog import Entry
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
        "landed",
        "last_number",
        "length_bytes",
        "offset",
        "opened",
        "refs",
        "sync",
        "tell_number",
        "told",
        "waiters",
    )

    def __init__(self, appends: list[Append], length_bytes: int) -> None:
        self.appends = appends
        self.length_bytes = length_bytes
        """Of the appends, with their contents."""
        self.fates = b""
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
        self.error: OSError | None = None
