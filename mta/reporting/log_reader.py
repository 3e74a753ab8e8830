"""Reading an event log: whole files, put aside and compressed ones too, the oldest lines first. Blocking.

`events.jsonl` stands for itself and for what was rotated away from it (`rotate.py`): `events.jsonl.2.gz`,
`events.jsonl.1` and so on. A line that is no event, such as the half one that a crash of the machine left, is counted
and passed over.
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path

import msgspec

from mta_policies.rehearsal.recorder import Line

CHUNK_BYTES = 4 * 1024 * 1024
LINE_BYTES_MAX = 16 * 1024 * 1024  # a message with a hundred thousand recipients; a longer line is no event of ours
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

    def __iter__(self) -> Iterator[Line]:
        """Raises OSError where a file cannot be read."""
        for file in self._files:
            for lines in self._of_file(file):
                yield from lines

    def _of_file(self, file: Path) -> Iterator[Sequence[Line]]:
        with _opened(file) as stream:
            rest = b""
            while chunk := self._read(stream):
                end = chunk.rfind(b"\n") + 1
                if end:
                    yield self._decoded(rest + chunk[:end])
                    rest = chunk[end:]
                elif len(rest) < LINE_BYTES_MAX:
                    rest += chunk
            if rest:
                yield self._decoded(rest)

    def _read(self, stream: gzip.GzipFile | BufferedReader) -> bytes:
        try:
            return stream.read1(CHUNK_BYTES)  # not read: it would keep what came before the damage
        except (EOFError, zlib.error, gzip.BadGzipFile):  # of a compressed file: what comes behind it is lost
            self.bad += 1
            return b""

    def _decoded(self, data: bytes) -> Sequence[Line]:
        try:
            return _lines(data)
        except msgspec.DecodeError:
            return list(self._one_by_one(data))

    def _one_by_one(self, data: bytes) -> Iterator[Line]:
        for text in data.splitlines():
            if text.strip():
                try:
                    yield _line(text)
                except msgspec.DecodeError:
                    self.bad += 1


def _opened(file: Path) -> gzip.GzipFile | BufferedReader:
    """The file, unpacked where it is packed, whatever its name says."""
    with file.open("rb") as stream:
        is_packed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(file) if is_packed else file.open("rb")
