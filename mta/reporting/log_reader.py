"""Reading an event log: whole files, put aside and compressed ones too, the oldest lines first. Blocking.

`events.jsonl` stands for itself and for what was rotated away from it (`rotate.py`): `events.jsonl.2.gz`,
`events.jsonl.1` and so on. A line that is no event, such as the half one that a crash of the machine left, is passed
over; the first of them are kept with file and line.
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path

import msgspec

from mta_policies.located import Problem
from mta_policies.rehearsal.recorder import Line

CHUNK_BYTES = 4 * 1024 * 1024
LINE_BYTES_MAX = 16 * 1024 * 1024  # a message with a hundred thousand recipients; a longer line is no event of ours
MISTAKES_KEPT = 5
_GZIP_MAGIC = b"\x1f\x8b"

_lines = msgspec.json.Decoder(Line).decode_lines
_line = msgspec.json.Decoder(Line).decode


def parts_of(path: Path) -> list[Path]:
    """The files of a log, the oldest first: those that were put aside, then the file itself."""
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]{0,5})(?:\.gz)?")
    folder = path.parent
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    old = {int(match[1]): folder / match[0] for match in map(pattern.fullmatch, names) if match}
    return [*(old[number] for number in sorted(old, reverse=True)), *([path] if path.exists() or not old else [])]


class LogReader:
    """The lines of these files, one after another."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self.bad = 0
        """Lines that are no events."""
        self.mistakes: list[Problem] = []
        """What is wrong with the first of them."""

    def __iter__(self) -> Iterator[Line]:
        """Raises OSError where a file cannot be read."""
        for file in self._files:
            for lines in self._of_file(file):
                yield from lines

    def _of_file(self, file: Path) -> Iterator[Sequence[Line]]:
        with _opened(file) as stream:
            rest, before = b"", 0
            while True:
                try:
                    chunk = stream.read1(CHUNK_BYTES)  # not read: it would keep what came before the damage
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    self._mistaken(file, before + 1, f"the compressed file is damaged, what follows is lost: {error}")
                    break
                if not chunk:
                    break
                end = chunk.rfind(b"\n") + 1
                if end:
                    data = rest + chunk[:end]
                    yield self._decoded(data, file, before)
                    before += data.count(b"\n")
                    rest = chunk[end:]
                elif len(rest) < LINE_BYTES_MAX:
                    rest += chunk
            if rest:
                yield self._decoded(rest, file, before)

    def _decoded(self, data: bytes, file: Path, before: int) -> Sequence[Line]:
        """The events in these lines; `before`: so many lines of the file came before them."""
        try:
            return _lines(data)
        except msgspec.DecodeError:
            return list(self._one_by_one(data, file, before))

    def _one_by_one(self, data: bytes, file: Path, before: int) -> Iterator[Line]:
        for number, text in enumerate(data.split(b"\n"), before + 1):
            if text.strip():
                try:
                    yield _line(text)
                except msgspec.DecodeError as error:
                    self._mistaken(file, number, f"no event: {error}")

    def _mistaken(self, file: Path, line: int, message: str) -> None:
        self.bad += 1
        if len(self.mistakes) < MISTAKES_KEPT:
            self.mistakes.append(Problem(str(file), line, message))


def _opened(file: Path) -> gzip.GzipFile | BufferedReader:
    """The file, unpacked where it is packed, whatever its name says."""
    with file.open("rb") as stream:
        is_packed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(file) if is_packed else file.open("rb")
