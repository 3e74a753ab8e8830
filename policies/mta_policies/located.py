"""TOML that knows where it stands: every key with its line, so that whoever complains can point at it.

The standard library's reader decides what the text means; the scanner beside it only runs over text that is
known to be right, and notes on which line each key, table and list element begins.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Keys = tuple[str | int, ...]
"""The way to a value: ("rule", 0, "then", 1, "action")."""


class Place(NamedTuple):
    """A line of a file; line 0 is the file as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Problem(NamedTuple):
    """Something wrong, or worth knowing, at a line of a file."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{Place(self.file, self.line)}: {self.message}"


class SyntaxProblem(ValueError):  # noqa: N818 - it is the exception that carries a Problem
    """The text is not TOML; `problem` says where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Document(NamedTuple):
    """What a file says and where it says it."""

    file: str
    data: dict[str, object]
    lines: dict[Keys, int]


_ERROR_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_ERROR_AT_END = " (at end of document)"


def parse(text: str, file: str) -> Document:
    """Reads TOML; raises SyntaxProblem with the line where it is none."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line = str(error), max(1, len(text.splitlines()))
        if found := _ERROR_AT_LINE.search(message):
            message, line = f"{message[: found.start()]}, column {found[2]}", int(found[1])
        raise SyntaxProblem(Problem(file, line, f"not TOML: {message.removesuffix(_ERROR_AT_END)}")) from None
    return Document(file, data, _Scanner(text).scan())


_PART_CHARS_MIN = 3  # of a name, to be taken for a part of a longer one


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to put behind "unknown name": the known one that is meant, or all where there are few."""
    names = sorted(known)
    if hint := meant(name, names):
        return hint
    if not names:
        return "; there is none"
    if len(names) <= 12:
        return f"; known: {', '.join(names)}"
    return ""


def meant(name: str, names: Sequence[str]) -> str:
    """A hint where one of these is meant: what looks most like it, or the only one that it is part of; else ""."""
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    longer = [one for one in names if len(name) >= _PART_CHARS_MIN and name.lower() in one]
    return f"; did you mean {[*close, *longer][0]}?" if close or len(longer) == 1 else ""


_BLANKS = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL_STRING = re.compile(r"'[^'\n]*'")
_LONG_BASIC_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})', re.DOTALL)
_LONG_LITERAL_STRING = re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL)
_PLAIN_VALUE = re.compile(r"[^,\]}#\n]+")
_STRINGS = (_LONG_BASIC_STRING, _LONG_LITERAL_STRING, _BASIC_STRING, _LITERAL_STRING)


class _Scanner:
    """One run over right TOML; `line` is counted as `at` moves."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[Keys, int] = {(): 1}
        self.array_sizes: dict[Keys, int] = {}

    def scan(self) -> dict[Keys, int]:
        table: Keys = ()
        self.move(_BLANKS)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.assignment(table)
            self.move(_BLANKS)
        return self.lines

    def move(self, pattern: re.Pattern[str]) -> str:
        """Passes what the pattern takes."""
        found = pattern.match(self.text, self.at)
        if not found:
            raise AssertionError(f"line {self.line}: the scanner and tomllib disagree")  # tested by property
        self.at = found.end()
        self.line += found[0].count("\n")
        return found[0]

    def skip(self, mark: str) -> None:
        self.at += len(mark)
        self.move(_BLANKS)

    def note(self, path: Keys, line: int) -> None:
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], line)

    def header(self) -> Keys:
        line, is_array = self.line, self.text.startswith("[[", self.at)
        self.skip("[[" if is_array else "[")
        keys = self.keys()
        self.at += 2 if is_array else 1
        path: Keys = ()
        for i, key in enumerate(keys):
            path += (key,)
            if is_array and i == len(keys) - 1:
                size = self.array_sizes.get(path, 0)
                self.array_sizes[path] = size + 1
                self.note((*path, size), line)
                return (*path, size)
            if path in self.array_sizes:
                path += (self.array_sizes[path] - 1,)
        self.note(path, line)
        return path

    def keys(self) -> list[str]:
        """A key, dotted or not, with the blanks behind it."""
        keys = []
        while True:
            first = self.text[self.at]
            if first == '"':
                raw = self.move(_BASIC_STRING)
                keys.append(next(iter(tomllib.loads(f"{raw} = 0"))))
            elif first == "'":
                keys.append(self.move(_LITERAL_STRING)[1:-1])
            else:
                keys.append(self.move(_BARE_KEY))
            self.move(_BLANKS)
            if self.text[self.at] != ".":
                return keys
            self.skip(".")

    def assignment(self, table: Keys) -> None:
        line = self.line
        path = (*table, *self.keys())
        self.note(path, line)
        self.skip("=")
        self.value(path)

    def value(self, path: Keys) -> None:
        first = self.text[self.at]
        if first == "[":
            self.array(path)
        elif first == "{":
            self.inline_table(path)
        elif first in "\"'":
            for pattern in _STRINGS:
                if pattern.match(self.text, self.at):
                    self.move(pattern)
                    return
        else:
            self.move(_PLAIN_VALUE)

    def array(self, path: Keys) -> None:
        self.skip("[")
        index = 0
        while self.text[self.at] != "]":
            self.note((*path, index), self.line)
            self.value((*path, index))
            index += 1
            self.move(_BLANKS)
            if self.text[self.at] == ",":
                self.skip(",")
        self.at += 1

    def inline_table(self, path: Keys) -> None:
        self.skip("{")
        while self.text[self.at] != "}":
            self.assignment(path)
            self.move(_BLANKS)
            if self.text[self.at] == ",":
                self.skip(",")
        self.at += 1
