"""What a person sees of the demo: bars while it runs, a table and ticks at its end.

On a terminal the bars are drawn over each other, as wide as there is room, in colours unless NO_COLOR is set; into a
file or a pipe goes a line now and then. Where the encoding has no blocks and ticks, ASCII stands in for them.
"""

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from bench.table import count_text

COLUMNS_MIN, COLUMNS_MAX = 60, 120
PLAIN_EVERY_S = 2.0  # progress lines where there is no terminal
NAME_COLUMNS = 9
COUNT_COLUMNS = 17  # ` 20,000 of 20,000`
NOTE_COLUMNS = 17  # `  9,999 deferred`, and the last column stays free
BOLD, DIM, GREEN, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


class Bar(NamedTuple):
    """One line of progress."""

    name: str
    done: int
    of: int
    note: str = ""


class Screen:
    """Where the demo writes."""

    def __init__(self, stream: TextIO | None = None, columns: int = 0) -> None:
        self._stream = stream or sys.stdout
        self.is_terminal = self._stream.isatty()
        there_are = columns or shutil.get_terminal_size((80, 24)).columns
        self.columns = min(max(there_are, COLUMNS_MIN), COLUMNS_MAX)
        self._draws = self.is_terminal and there_are >= COLUMNS_MIN  # lines that break cannot be drawn over
        self._has_colours = self.is_terminal and not os.environ.get("NO_COLOR")
        self._full, self._rest, self.tick, self.cross = self._signs()
        self._lines = 0
        self._next_plain_s = 0.0

    def _signs(self) -> tuple[str, str, str, str]:
        try:
            "█░✓✗".encode(self._stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return "#", "-", "ok", "!!"
        return "█", "░", "✓", "✗"

    def say(self, text: str = "") -> None:
        """A line, or several."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def heading(self, text: str) -> None:
        """A line that stands out, with air around it."""
        self.say(f"\n  {self._coloured(BOLD, text)}\n")

    def paragraph(self, text: str) -> None:
        """A text of some length, as wide as there is room."""
        self.say(textwrap.fill(text, self.columns - 1, initial_indent="  ", subsequent_indent="  "))

    def ticked(self, text: str, is_well: bool = True) -> None:
        """A sentence with a tick, or a cross, before it."""
        sign = self._coloured(GREEN, self.tick) if is_well else self._coloured(RED, self.cross)
        indent = " " * (3 + len(self.tick))
        self.say(f"  {sign} " + textwrap.fill(text, self.columns - len(indent) - 1).replace("\n", f"\n{indent}"))

    def listed(self, hints: Sequence[tuple[str, str]]) -> None:
        """What to look at, and why, in two columns; one below the other where there is no room for two."""
        columns = max(len(what) for what, _ in hints)
        is_wide = 4 + columns + 2 + max(len(why) for _, why in hints) < self.columns
        for what, why in hints:
            self.say(f"    {what:{columns}}  {why}" if is_wide else f"    {why}\n        {what}")

    def progress(self, began_s: float, bars: Sequence[Bar], last: bool = False) -> None:
        """How far it is now; `began_s` is monotonic. Without bars only now and then, and the `last` time."""
        took_s = time.monotonic() - began_s
        if self._draws:
            up = f"\x1b[{self._lines}F" if self._lines else ""
            self._stream.write(up + "".join(f"\x1b[2K{self.bar(each)}\n" for each in bars))
            self._stream.flush()
            self._lines = len(bars)
        elif last or took_s >= self._next_plain_s:
            self._next_plain_s = took_s + PLAIN_EVERY_S
            self.say(f"  {took_s:5.1f} s  " + "  ".join(f"{each.name} {count_text(each.done)}" for each in bars))

    def bar(self, bar: Bar) -> str:
        """`  swift     ██████████░░░░░░░░░░   1,234 of 4,000  asleep`"""
        cells = self.columns - 2 - NAME_COLUMNS - 1 - COUNT_COLUMNS - NOTE_COLUMNS
        full = min(cells, cells * bar.done // bar.of) if bar.of else 0
        rest = self._coloured(DIM, self._rest * (cells - full))
        counts = f"{count_text(bar.done):>6} of {count_text(bar.of):>6}"
        return f"  {bar.name:{NAME_COLUMNS}} {self._full * full}{rest} {counts}  {bar.note}".rstrip()

    def _coloured(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._has_colours and text else text
