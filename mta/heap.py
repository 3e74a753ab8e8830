"""The heap: what many bodies leave behind in memory goes back to the system.

glibc keeps freed memory for whoever asks next, and gives back only what lies at the end of its heap. Where a
destination is slow or down, bodies of a second and more are in memory at once and then leave it: that is tens of
megabytes a worker that nobody will ask for again, with something small that lives on between them. They are handed back
with the next look. Mail that flows has next to nothing in memory at any moment and is never looked at.
"""

import ctypes
from collections.abc import Callable

FREED_BYTES_MIN = 4 * 1024 * 1024  # less is not worth the page faults of whoever needs it again: 2 us for 4 KB
LEFT_MAX = 0.25  # of the most there was: where more is left, others come and want what was freed
PAUSE_S = 2.0  # bodies that come and go all the time would be paid for twice; to hand 100 MB back takes 10 ms


def _malloc_trim() -> Callable[[int], object]:
    """malloc_trim(3) where the C library has it."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return lambda pad: None


class Heap:
    """Of one process."""

    def __init__(self, trim: Callable[[int], object] | None = None) -> None:
        """`trim`: for tests, in place of malloc_trim."""
        self._trim = trim or _malloc_trim()
        self._most_bytes = 0
        self._next_s = 0.0

    def look(self, resident_bytes: int, now_s: float) -> None:
        """So many bytes of bodies are in memory now (`now_s`: monotonic); called about twice a second."""
        most_bytes = self._most_bytes = max(self._most_bytes, resident_bytes)
        has_gone = resident_bytes <= most_bytes * LEFT_MAX and most_bytes - resident_bytes >= FREED_BYTES_MIN
        if has_gone and now_s >= self._next_s:
            self._most_bytes = resident_bytes
            self._next_s = now_s + PAUSE_S
            self._trim(0)
