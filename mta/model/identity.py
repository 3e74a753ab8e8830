"""Message ids: unique over machines and restarts, sorting by time, short enough to read aloud."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_TIME_DIGITS, _PROCESS_DIGITS, _COUNT_DIGITS = 9, 5, 6


def _base32(number: int, digits: int) -> str:
    out = []
    for _ in range(digits):
        out.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(out))


class IdMaker:
    """Makes ids of 20 characters: 45 bits of milliseconds, 25 of the process, 30 of a count.

    `process_number` must differ between processes that run at the same time: the caller draws it at random.
    """

    def __init__(self, process_number: int) -> None:
        self._process = _base32(process_number, _PROCESS_DIGITS)
        self._count = 0
        self._millisecond = -1
        self._prefix = ""

    def make(self, wall_s: float) -> str:
        """The next id; ids of one process differ even where the clock stands still or goes back."""
        millisecond = int(wall_s * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._prefix = _base32(millisecond, _TIME_DIGITS) + self._process
        self._count += 1
        return self._prefix + _base32(self._count, _COUNT_DIGITS)
