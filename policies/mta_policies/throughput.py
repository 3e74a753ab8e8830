"""Throughput: how fast something really went in the last minute, from a number that only grows. Pure: now_s is seconds
of any clock that does not jump.
"""

import math
from collections import deque
from typing import Final

WINDOW_S: Final = 60.0
MARK_S: Final = 10.0  # between two marks: what is asked for is of the last minute to a sixth of it
SHOWN_S: Final = 15.0  # in a shorter time nobody has shown a pace


class Throughput:
    """Of one pool."""

    __slots__ = ("_marks", "next_s")

    def __init__(self) -> None:
        self.next_s = -math.inf
        """When `mark` is due."""
        self._marks: deque[tuple[float, int]] = deque()
        """When, and how many messages were begun by then; the oldest first."""

    def mark(self, begun: int, now_s: float) -> None:
        """So many messages were begun by now."""
        marks = self._marks
        if marks and now_s - marks[-1][0] > WINDOW_S:
            marks.clear()  # nobody told, so nothing was sent: what was before says nothing of now
        marks.append((now_s, begun))
        while now_s - marks[0][0] > WINDOW_S:
            marks.popleft()
        self.next_s = now_s + MARK_S

    def per_s(self, begun: int, now_s: float) -> float:
        """Messages a second, where so many were begun by now; 0.0 where that is not known yet."""
        if not self._marks:
            return 0.0
        first_s, before = self._marks[0]
        over_s = now_s - first_s
        return (begun - before) / over_s if SHOWN_S <= over_s <= WINDOW_S + MARK_S else 0.0
