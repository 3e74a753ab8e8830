"""Carried fates: what was written again after a failed sync counts when all of it is there. Pure.

When it is due, and what was said of it, a part has from the last fate about it: so fates count in the order in which
they were given. Those that a failed sync may have lost are written again at the beginning of another segment, in order.
Where that was cut short, what is there of it is older than what may be left of the first writing, and was promised to
nobody.
"""

from mta_queue import record
from mta_queue.recovery import RECORDS

Fate = tuple[int, int, int, float, tuple[int, ...], int, int]
"""kind, number, seq, due_s, parts, offset, length of the payload"""

_OVERTAKING = frozenset({record.POSTPONED, record.RESCHEDULED})  # of the others each says all that it ever will


class Carried:
    """Of a log that is read from its beginning."""

    def __init__(self) -> None:
        self._highest = 0
        """The highest number of a fate so far."""
        self._wanted = 0
        """With it what was carried is there as a whole; 0: nothing is waited for."""
        self._held: list[Fate] = []
        self._has_hole = False
        self.is_torn = False
        """What was carried into this segment is not there as a whole, and did not count."""

    def begin(self, *, is_sealed: bool) -> None:
        """The fates that follow are of another segment. One that was sealed was there as a whole."""
        self._has_hole = self.is_torn = False
        self._wanted = 0 if is_sealed else self._highest

    def admit(self, fate: Fate) -> list[Fate]:
        """The fates that count now: none where this one is held back, with those before it where it is not."""
        kind, number = fate[0], fate[1]
        if number < self._wanted or (self._wanted and kind == record.FORGOTTEN):  # which may have its item's number
            self._held.append(fate)
            return []
        if kind != record.FORGOTTEN:
            self.met(number)
        self._wanted = 0
        return [*self._let_go(is_whole=not self._has_hole), fate] if self._held else [fate]

    def met(self, number: int) -> None:
        """The number of a fate that counts."""
        self._highest = max(self._highest, number)

    def damage(self) -> None:
        """Something is missing between the fates of this segment."""
        self._has_hole = True

    def end(self) -> list[Fate]:
        """The segment's last fate was given: what counts of those that were held back."""
        self.is_torn = any(fate[0] in _OVERTAKING for fate in self._held)
        return self._let_go(is_whole=False)

    def _let_go(self, *, is_whole: bool) -> list[Fate]:
        held, self._held = self._held, []
        row = RECORDS.decide("fate", "living", "whole" if is_whole else "torn")
        return held if row.action == "apply" else [fate for fate in held if fate[0] not in _OVERTAKING]
