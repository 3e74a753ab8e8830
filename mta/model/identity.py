"""Message ids: unique over machines and restarts, sorting by time, short enough to read aloud."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_COUNT_MAX = 32**6


class IdMaker:
    """Makes ids of 20 characters: 45 bits of milliseconds, 25 of the process, 30 of a count.

    `process_number` must differ between processes that run at the same time: the caller draws it at random.
    """

    def __init__(self, process_number: int) -> None:
        self._process = _base32(process_number, 5)
        self._count = 0
        self._second = -1
        self._prefix = ""
        self._middle = f"{self._process}{_PAIRS[0]}{_PAIRS[0]}"

    def make(self, wall_s: float) -> str:
        """The next id; ids of one process differ even where the clock stands still or goes back."""
        count = self._count = (self._count + 1) % _COUNT_MAX
        millisecond = int(wall_s * 1000)
        second = millisecond >> 10
        if second != self._second:
            self._second = second
            self._prefix = _base32(second, 7)
        low = count & 1023
        if not low:
            self._middle = f"{self._process}{_PAIRS[count >> 20]}{_PAIRS[count >> 10 & 1023]}"
        return f"{self._prefix}{_PAIRS[millisecond & 1023]}{self._middle}{_PAIRS[low]}"


def _base32(number: int, digits: int) -> str:
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(digits)))
