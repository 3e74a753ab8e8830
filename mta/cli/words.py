"""Words: how commands write numbers, times and tables for people.

On a terminal a table fits the window, so long texts are cut there; in a pipe everything is whole. What strangers wrote
(a peer's reply, an address) never reaches the terminal's controls.
"""

import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

GAP = "  "
WRAPPED_INDENT = 2
COLUMN_CHARS_MIN = 12  # a column that may be cut keeps at least this much
TERMINAL_COLUMNS_DEFAULT = 80
_UNITS = ((86400.0, "d", 47.5 * 3600.0), (3600.0, "h", 119.5 * 60.0), (60.0, "min", 59.5), (1.0, "s", 0.0))
"""Seconds, name, and from how many seconds on: two of a unit, or what would be rounded to as much in the next."""


class Column(NamedTuple):
    """One column of a table."""

    heading: str
    right: bool = False
    """Numbers and times stand to the right."""
    cut: bool = False
    """May be shortened so that the table fits a terminal, the widest such column first."""
    optional: bool = False
    """Left out where no row has anything in it."""
    spare: bool = False
    """Left out where the terminal is too narrow for all; the last such column first."""


def count(number: int) -> str:
    """`1,204`"""
    return f"{number:,}"


def several(number: int, noun: str) -> str:
    """`1 recipient`, `1,204 recipients`"""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """A length of time, rounded to its largest unit: `4 s`, `12 min`, `3 h`, `2 d`."""
    for size, unit, least in _UNITS:
        if seconds >= least or unit == "s":
            return f"{max(0, round(seconds / size))} {unit}"
    raise AssertionError("the last unit takes everything")


def ago(then_s: float, now_s: float) -> str:
    """`2 h ago`; "" for 0, `just now` within a second and for what a clock that was set puts into the future."""
    if not then_s:
        return ""
    return "just now" if now_s - then_s < 1 else f"{span(now_s - then_s)} ago"


def until(then_s: float, now_s: float) -> str:
    """`in 4 min`; "" for 0, `now` for what is past."""
    if not then_s:
        return ""
    return "now" if then_s <= now_s else f"in {span(then_s - now_s)}"


def moment(then_s: float) -> str:
    """Local date and time with the offset: `2026-11-22 05:43:12 +01:00`; the number itself where there is no such."""
    try:
        return datetime.fromtimestamp(then_s).astimezone().isoformat(" ", "seconds").replace("+", " +")
    except (ValueError, OverflowError, OSError):
        return f"{then_s:g}"


def size(number: int) -> str:
    """`512 bytes`, `4.1 KB`, `12 MB`"""
    if number < 1_000:
        return several(number, "byte")
    value, unit = (number / 1_000_000, "MB") if number >= 1_000_000 else (number / 1_000, "KB")
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"


def now_s() -> float:
    """Unix seconds."""
    return time.time()


def printable(text: str) -> str:
    """The text on one line, without anything that moves a cursor."""
    if text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char in "\r\n\t" else char.encode("unicode_escape", "surrogatepass").decode("ascii")


def width(text: str) -> int:
    """Columns it takes on a terminal: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shortened(text: str, columns: int) -> str:
    """The text in at most so many columns, with an ellipsis where something is missing."""
    if width(text) <= columns:
        return text
    kept, used = [], 1
    for char in text:
        used += _width(char)
        if used > columns:
            break
        kept.append(char)
    return "".join(kept) + "…"


def wrapped(line: str, columns: int | None) -> list[str]:
    """The line in as many as it needs to fit the terminal, broken at blanks; those that follow stand further in."""
    if columns is None or width(line) <= columns:
        return [line]
    indent = " " * (len(line) - len(line.lstrip(" ")) + WRAPPED_INDENT)
    return textwrap.wrap(line, max(columns, 2 * len(indent)), subsequent_indent=indent, break_on_hyphens=False)


def terminal_columns() -> int | None:
    """How wide standard output is, None where it is no terminal."""
    if not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size((TERMINAL_COLUMNS_DEFAULT, 24)).columns


class Progress:
    """One line on standard error that is written over and over; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._is_shown = False

    def show(self, text: str) -> None:
        """How far it is."""
        if sys.stderr.isatty():
            columns = shutil.get_terminal_size((TERMINAL_COLUMNS_DEFAULT, 24)).columns
            print(f"\r\x1b[K{shortened(printable(text), columns - 1)}", end="", file=sys.stderr, flush=True)
            self._is_shown = True

    def clear(self) -> None:
        """Take it away, before anything else is printed."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._is_shown = False


class Table:
    """A table that is written in parts, so that a list of millions needs no memory.

    `fit`: the columns that it may take, None: as many as it needs. `is_whole`: there is one part only, so that optional
    columns without anything in them can be left out.
    """

    def __init__(self, columns: Sequence[Column], fit: int | None = None, *, is_whole: bool = True) -> None:
        self._columns = list(columns)
        self._kept = list(range(len(columns)))
        self._widths = [width(column.heading) for column in columns]
        self._fit = fit
        self._is_whole = is_whole
        self._has_begun = False

    def lines(self, rows: Iterable[Sequence[str]]) -> list[str]:
        """The next lines, the headings before the first. Columns grow where later rows need it."""
        cells = [[printable(cell) for cell in row] for row in rows]
        if not self._has_begun:
            self._leave_out(cells)
        cells = [[row[number] for number in self._kept] for row in cells]
        for number, most in enumerate(self._widths):
            self._widths[number] = max([most, *(width(row[number]) for row in cells)])
        widths = list(self._widths)
        if self._fit is not None:
            _fit(widths, self._columns, self._fit)
        headings = [] if self._has_begun else [[column.heading for column in self._columns]]
        self._has_begun = True
        return [_line(row, self._columns, widths) for row in (*headings, *cells)]

    def _leave_out(self, cells: Sequence[Sequence[str]]) -> None:
        """Columns without anything in them, and those that the terminal is too narrow for."""
        if self._is_whole:
            self._kept = [
                number
                for number, column in enumerate(self._columns)
                if not column.optional or any(row[number] for row in cells)
            ]
        spare = [number for number in self._kept if self._columns[number].spare]
        while spare and self._fit is not None and self._least(cells) > self._fit:
            self._kept.remove(spare.pop())
        self._columns = [self._columns[number] for number in self._kept]
        self._widths = [self._widths[number] for number in self._kept]

    def _least(self, cells: Sequence[Sequence[str]]) -> int:
        """The columns of the terminal that the kept ones take at least."""
        widths = (
            _least_width(self._columns[number], max([self._widths[number], *(width(row[number]) for row in cells)]))
            for number in self._kept
        )
        return sum(widths) + len(GAP) * (len(self._kept) - 1)


def _least_width(column: Column, widest: int) -> int:
    return min(widest, max(COLUMN_CHARS_MIN, width(column.heading))) if column.cut else widest


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], fit: int | None = None) -> list[str]:
    """The lines of a whole table; see `Table`."""
    return Table(columns, fit).lines(rows)


def _fit(widths: list[int], columns: Sequence[Column], fit: int) -> None:
    """Narrow the widest of the columns that may be cut, again and again, until the line fits or nothing is left."""
    cuttable = [number for number, column in enumerate(columns) if column.cut]
    while cuttable and sum(widths) + len(GAP) * (len(widths) - 1) > fit:
        widest = max(cuttable, key=lambda number: (widths[number], -number))
        if widths[widest] <= _least_width(columns[widest], widths[widest]):
            return
        widths[widest] -= 1


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    placed = []
    for cell, column, space in zip(cells, columns, widths, strict=True):
        text = shortened(cell, space)
        blanks = " " * (space - width(text))
        placed.append(blanks + text if column.right else text + blanks)
    return GAP.join(placed).rstrip()


def pairs(values: Iterable[tuple[str, str]]) -> list[str]:
    """Names and values under each other; a value that is "" is left out."""
    shown = [(name, printable(value)) for name, value in values if value]
    widest = max((len(name) for name, _ in shown), default=0)
    return [f"{name:{widest}}{GAP}{value}" for name, value in shown]
