"""Needles: words of which a text must contain at least one, or a pattern cannot be found in it.

A regular expression that ignores case costs a microsecond or more a text, `needle in text` thirty nanoseconds; most
replies have no word of most patterns. What is read here of a pattern is what it needs at least: where it says more
than this file understands, nothing is known, and the pattern is always tried. So the answer is the pattern's own.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

EXACT_MAX = 12  # strings that a part of a pattern may stand for, to be told one by one
LENGTH_MIN = 3  # of a needle: shorter ones are in every text
COMMON = ("user", "mail", "address", "recipient", "account", "message", "sender", "domain", "your", "from")
"""Words that most replies have: they rule out little."""

ODD_LETTERS = frozenset("İıſ")
"""What Unicode's rules for case take for an ASCII letter, though `str.lower` does not make it one. (The Kelvin sign is
made one.)"""

_WIDTHLESS = frozenset("bBAZ")  # after a backslash: where, not what
_ANY = frozenset("dDsSwW")  # after a backslash: one of many characters
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}


def needles(patterns: Sequence[str]) -> tuple[str, ...]:
    """Of a text in lower case, of which one must be in it for any of these to be found; (): always look for them."""
    needed: set[str] = set()
    for pattern in patterns:
        found = _of(pattern)
        if not found:
            return ()
        needed.update(needle.strip() if len(needle.strip()) > LENGTH_MIN + 1 else needle for needle in found)
    return tuple(sorted(_shortest(needed)))


def is_plain(text: str) -> bool:
    """Whether the needles of patterns that ignore case hold for this text in lower case."""
    return text.isascii() or ODD_LETTERS.isdisjoint(text)


@lru_cache(maxsize=2048)
def _of(pattern: str) -> frozenset[str]:
    """Policies share default's rules, so each pattern is read once for all of them."""
    try:
        part = _Reader(pattern).whole()
    except _UnknownError:
        return frozenset()
    needed = _better(part.needs, part.exact)
    return needed if needed and min(map(len, needed)) >= LENGTH_MIN else frozenset()


class _UnknownError(Exception):
    """The pattern has something of which is not known here what it needs."""


class _Part(NamedTuple):
    """What a part of a pattern matches."""

    exact: frozenset[str]
    """All that it matches, in lower case; empty: too much to be told."""
    needs: frozenset[str]
    """One of these is in whatever it matches; empty: nothing is known."""


_EMPTY = _Part(frozenset({""}), frozenset())
_ANYTHING = _Part(frozenset(), frozenset())


class _Reader:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def whole(self) -> _Part:
        part = self._choice()
        if self._at < len(self._pattern):
            raise _UnknownError
        return part

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise _UnknownError
        self._at += 1
        return char

    def _choice(self) -> _Part:
        """Sequences with `|` between them."""
        parts = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._sequence())
        if len(parts) == 1:
            return parts[0]
        exact: frozenset[str] = frozenset()
        if all(part.exact for part in parts):
            exact = frozenset().union(*(part.exact for part in parts))
        all_needs = [_better(part.needs, part.exact) for part in parts]
        needs = _shortest(set().union(*all_needs)) if all(all_needs) else frozenset()
        return _Part(exact if len(exact) <= EXACT_MAX else frozenset(), needs)

    def _sequence(self) -> _Part:
        """What follows one another. `run`: all that may stand before this point without a gap."""
        needs: frozenset[str] = frozenset()
        run, has_gap = _EMPTY.exact, False
        while self._peek() not in ("", "|", ")"):
            part = self._repeated()
            longer = frozenset(before + after for before in run for after in part.exact)
            if part.exact and len(longer) <= EXACT_MAX:
                if len(longer) > len(run):
                    needs = _better(needs, run)
                run = longer
            else:
                needs = _better(_better(needs, run), part.needs)
                run, has_gap = part.exact or _EMPTY.exact, True
        return _Part(frozenset(), _better(needs, run)) if has_gap else _Part(run, needs)

    def _repeated(self) -> _Part:
        part = self._one()
        least, is_once = self._times()
        if is_once:
            return part
        if least:
            return _Part(frozenset(), _better(part.needs, part.exact))
        return _ANYTHING if least is None else _Part(part.exact | {""} if part.exact else part.exact, frozenset())

    def _times(self) -> tuple[int | None, bool]:
        """How often at least (None: any number of times, 0: once or not at all), and whether it is just once."""
        char = self._peek()
        if char == "{":
            end = self._pattern.find("}", self._at)
            least, comma, most = self._pattern[self._at + 1 : end].partition(",")
            if end < 0 or not (least.isdecimal() or (comma and not least)) or not (most.isdecimal() or not most):
                raise _UnknownError  # a brace that stands for itself, perhaps
            self._at = end + 1
            times = int(least or 0) or None
        elif char and char in "?*+":
            self._at += 1
            times = {"?": 0, "*": None, "+": 1}[char]
        else:
            return 1, True
        if self._peek() in ("?", "+"):  # lazy, possessive
            self._at += 1
        if self._peek() in ("?", "*", "+"):
            raise _UnknownError
        return times, False

    def _one(self) -> _Part:
        char = self._next()
        match char:
            case "(":
                return self._group()
            case "[":
                return self._set()
            case "\\":
                return self._escape()
            case ".":
                return _ANYTHING
            case "^" | "$":
                return _EMPTY
            case "?" | "*" | "+" | "{":
                raise _UnknownError
            case _:
                return _literal(char)

    def _group(self) -> _Part:
        is_about_place = False
        if self._peek() == "?":
            self._at += 1
            char = self._next()
            if char == "P":
                if self._next() != "<":
                    raise _UnknownError
                self._at = self._pattern.index(">", self._at) + 1
            elif char == "<":
                if self._next() not in "=!":
                    raise _UnknownError
                is_about_place = True
            elif char in "=!":
                is_about_place = True
            elif char != ":":
                raise _UnknownError  # flags, a condition, a comment
        part = self._choice()
        if self._next() != ")":
            raise _UnknownError
        return _EMPTY if is_about_place else part

    def _set(self) -> _Part:
        """`[...]`: told where it has few characters."""
        chars: list[str] = []
        is_known = self._peek() != "^"
        self._at += not is_known
        while True:
            char = self._next()
            if char == "]" and chars:
                break
            if char == "\\":
                (char, *more) = self._escape().exact or ("",)
                is_known = is_known and bool(char) and not more
            elif char == "[" or (char == "-" and chars and self._peek() != "]"):
                is_known = False
            chars.append(char)
        if not is_known or len(chars) > EXACT_MAX or not all(map(str.isascii, chars)):
            return _ANYTHING
        return _Part(frozenset(char.lower() for char in chars), frozenset())

    def _escape(self) -> _Part:
        char = self._next()
        if char in _WIDTHLESS:
            return _EMPTY
        if char in _ANY:
            return _ANYTHING
        if char in _CONTROLS:
            return _literal(_CONTROLS[char])
        if char.isalnum():
            raise _UnknownError  # what a group matched, a number of a character
        return _literal(char)


def _literal(char: str) -> _Part:
    return _Part(frozenset({char.lower()}), frozenset()) if char.isascii() else _ANYTHING


def _better(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Which of two tells more for less."""
    return max(one, other, key=_worth)


def _worth(needed: frozenset[str]) -> tuple[bool, bool, int, int]:
    if not needed:
        return False, False, 0, 0
    shortest = min(map(len, needed))
    is_telling = shortest > LENGTH_MIN and not any(needle.strip() in COMMON for needle in needed)
    return shortest >= LENGTH_MIN, is_telling, -len(needed), shortest


def _shortest(needed: Iterable[str]) -> frozenset[str]:
    """Without those that contain another one."""
    kept: list[str] = []
    for needle in sorted(needed, key=len):
        if not any(known in needle for known in kept):
            kept.append(needle)
    return frozenset(kept)
