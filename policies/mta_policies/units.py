"""Units are words: "5m", "50MB", "100/min", "20%", "*:58-*:04". Reads them and writes them, nothing else.

Every reader raises ValueError with a text that says what would have been right; whoever knows the file and
line puts them in front.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

_SECONDS_OF = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES_OF = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}
_PER_S_OF = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
}
_RATE_WORD = {1: "s", 60: "min", 3600: "h", 86400: "d"}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION_PART = re.compile(rf"{_NUMBER}\s*(ms|s|m|h|d|w)", re.ASCII)
_DURATION = re.compile(rf"(?:{_NUMBER}\s*(?:ms|s|m|h|d|w)\s*)+", re.ASCII)
_SIZE = re.compile(rf"{_NUMBER}\s*([A-Za-z]+)", re.ASCII)
_RATE = re.compile(r"(\d+)\s*/\s*([a-z]+)", re.ASCII)
_PERCENT = re.compile(rf"{_NUMBER}\s*%", re.ASCII)
_MINUTES = re.compile(r"\*:([0-5]\d)-\*:([0-5]\d)", re.ASCII)

NO_RATE = "none"
"""How "no limit" is written for a rate; for counts it is 0."""

DURATION_S_MAX = 3650 * 86400.0  # ten years: whoever writes more has mistaken the unit, and sums stay exact
SIZE_BYTES_MAX = 2**62  # fits a signed 64-bit number, so that no file offset overflows


class Rate(msgspec.Struct, frozen=True):
    """So many in so many seconds: "600/min" is Rate(600, 60)."""

    count: int
    per_s: int

    @property
    def per_second(self) -> float:
        return self.count / self.per_s

    def __str__(self) -> str:
        return f"{self.count}/{_RATE_WORD[self.per_s]}"


class MinuteWindow(NamedTuple):
    """Minutes of every hour, both ends included; `first` may be the later one: 58 to 4 goes over the full hour."""

    first: int
    last: int

    def minutes(self) -> list[int]:
        return [(self.first + i) % 60 for i in range((self.last - self.first) % 60 + 1)]

    def __str__(self) -> str:
        return f"*:{self.first:02}-*:{self.last:02}"


def duration_s(text: str) -> float:
    """Seconds in "30s", "5m", "1h", "3d", "500ms", "1w", "1h30m"; ValueError for anything else."""
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError(f'not a duration: "{text}"; write "30s", "5m", "1h" or "3d"')
    total = sum(float(number) * _SECONDS_OF[unit] for number, unit in _DURATION_PART.findall(text))
    if total > DURATION_S_MAX:
        raise ValueError(f'too long a duration: "{text}"; ten years is the most')
    return total


def render_duration(seconds: float) -> str:
    """The shortest way to write it that reads back the same: 300.0 is "5m", 60.0 is "60s"."""
    for unit in ("d", "h", "m"):
        size = _SECONDS_OF[unit]
        if seconds >= size and seconds % size == 0 and not (unit == "m" and seconds == size):
            return f"{int(seconds / size)}{unit}"
    if seconds == int(seconds):
        return f"{int(seconds)}s"
    return f"{seconds:f}".rstrip("0") + "s"


def size_bytes(text: str) -> int:
    """Bytes in "50MB" (powers of 1000) or "64KiB" (powers of 1024); ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    factor = _BYTES_OF.get(found[2].lower()) if found else None
    if not found or factor is None:
        raise ValueError(f'not a size: "{text}"; write "512KB", "50MB", "1GB" or "64KiB"')
    size = round(float(found[1]) * factor) if "." in found[1] else int(found[1]) * factor
    if size > SIZE_BYTES_MAX:
        raise ValueError(f'too large a size: "{text}"')
    return size


def render_size(size: int) -> str:
    """The shortest way to write it that reads back the same: 50000000 is "50MB", 65536 is "64KiB"."""
    if size == 0:
        return "0B"
    for name in ("TB", "GB", "MB", "KB", "TiB", "GiB", "MiB", "KiB"):
        if size % _BYTES_OF[name.lower()] == 0:
            return f"{size // _BYTES_OF[name.lower()]}{name}"
    return f"{size}B"


def rate(text: str) -> Rate:
    """One rate: "100/s", "600/min", "10000/h" or "50000/d"; ValueError for anything else."""
    found = _RATE.fullmatch(text.strip().lower())
    per_s = _PER_S_OF.get(found[2]) if found else None
    if not found or per_s is None:
        raise ValueError(f'not a rate: "{text}"; write "100/s", "600/min", "10000/h" or "50000/d", or "none"')
    if int(found[1]) == 0:
        raise ValueError(f'a rate of 0 would never let anything through: "{text}"; for no limit write "none"')
    return Rate(int(found[1]), per_s)


def rates(value: str | Sequence[str]) -> tuple[Rate, ...]:
    """Several rates that hold at once: a text or a list of them; "none" and an empty list are no limit, ()."""
    if isinstance(value, str):
        return () if value.strip().lower() == NO_RATE else (rate(value),)
    return tuple(rate(text) for text in value)


def render_rates(limits: Iterable[Rate]) -> str | list[str]:
    """The opposite of `rates`."""
    texts = [str(one) for one in limits]
    return NO_RATE if not texts else texts[0] if len(texts) == 1 else texts


def rates_text(limits: Iterable[Rate]) -> str:
    """Several rates as one says them: "20/s and 40000/h"."""
    return " and ".join(map(str, limits)) or NO_RATE


def share(text: str) -> float:
    """The part of one in "20%": 0.2; ValueError for anything else and over 100 %."""
    found = _PERCENT.fullmatch(text.strip())
    if not found or float(found[1]) > 100:
        raise ValueError(f'not a share: "{text}"; write "0%" to "100%"')
    return float(found[1]) / 100


def render_share(value: float) -> str:
    """The opposite of `share`."""
    return f"{value * 100:.10g}%"


def minute_window(text: str) -> MinuteWindow:
    """Minutes of every hour in "*:58-*:04"; ValueError for anything else."""
    found = _MINUTES.fullmatch(text.strip())
    if not found:
        raise ValueError(f'not minutes of the hour: "{text}"; write "*:58-*:04"')
    return MinuteWindow(int(found[1]), int(found[2]))
