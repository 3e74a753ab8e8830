"""Figures for people: percentiles, plain tables, numbers that can be read at a glance."""

import math
import unicodedata
from collections.abc import Iterable, Sequence


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that so many percent of them do not exceed (nearest rank); 0.0 of nothing."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def duration_text(seconds: float) -> str:
    """`0.8 ms`, `45 ms`, `3.2 s`, `4 min 10 s`."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def count_text(count: int) -> str:
    """`12,345`"""
    return f"{count:,}"


def width(text: str) -> int:
    """Columns it takes on a terminal; East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def render(headings: Sequence[str], rows: Iterable[Sequence[object]], indent: int = 2) -> str:
    """A table in plain text: the first column is left-aligned, the others right-aligned."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = [max(map(width, column)) for column in zip(headings, *cells, strict=True)]
    rule = ["-" * column for column in columns]
    lines = [" " * indent + "  ".join(_aligned(row, columns)).rstrip() for row in [list(headings), rule, *cells]]
    return "\n".join(lines)


def _aligned(row: Sequence[str], columns: Sequence[int]) -> list[str]:
    first, *others = zip(row, columns, strict=True)
    return [_padded(*first, right=False), *(_padded(*other, right=True) for other in others)]


def _padded(text: str, columns: int, *, right: bool) -> str:
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks
