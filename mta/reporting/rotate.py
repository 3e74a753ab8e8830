"""Rotation: the event log is renamed when it has grown, old ones are shifted, compressed and in the end removed.

`events.jsonl` becomes `events.jsonl.1`, that one `.2` and so on. The supervisor does it, for all workers; they
notice by themselves (see `log_file`). The rename happens under the file's lock, so that nothing is appended
to a renamed file and it can be compressed at once. Blocking: call it in a thread.
"""

import gzip
import os
import re
import shutil
from pathlib import Path

from mta.reporting.log_file import locked

COPY_BYTES = 1024 * 1024
_COMPRESSED = ".gz"
_UNFINISHED = ".gz.tmp"
_GZIP_LEVEL = 6


class Rotator:
    """Keeps `keep` old files of the event log at `path` beside the one that is written.

    `size_bytes_max`: from this size on the file is rotated; `compress`: old files are gzipped.
    """

    def __init__(self, path: Path, *, size_bytes_max: int, keep: int, compress: bool) -> None:
        self._path = path
        self._size_bytes_max = size_bytes_max
        self._keep = keep
        self._compress = compress

    def is_due(self) -> bool:
        """The file has reached its size; a missing one is not due."""
        try:
            return self._path.stat().st_size >= self._size_bytes_max
        except FileNotFoundError:
            return False

    def tick(self) -> bool:
        """Rotates if it is due; call it every few seconds. True: it was. Raises OSError where the disk refuses."""
        if not self.is_due():
            return False
        self.rotate()
        return True

    def rotate(self) -> None:
        """Rotates now, whatever the size, and compresses what is not yet compressed."""
        self._shift()
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with locked(descriptor):
                if self._keep:
                    os.rename(self._path, self._old(1))
                else:
                    os.unlink(self._path)
        finally:
            os.close(descriptor)
        if self._compress:
            self._compress_old()

    def _old(self, number: int, suffix: str = "") -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{suffix}")

    def _shift(self) -> None:
        """Gives every old file the next number, the oldest first, so that none is overwritten."""
        for number, suffix, file in sorted(self._old_files(), reverse=True):
            if number >= self._keep:
                file.unlink()
            else:
                file.rename(self._old(number + 1, suffix))

    def _old_files(self) -> list[tuple[int, str, Path]]:
        """Number, suffix and path of every old file; what an interrupted compression left is tidied on the way."""
        pattern = re.compile(re.escape(self._path.name) + r"\.([1-9][0-9]{0,5})(|\.gz|\.gz\.tmp)")
        found = []
        for file in self._path.parent.iterdir():
            match = pattern.fullmatch(file.name)
            if match is None:
                continue
            number, suffix = int(match[1]), match[2]
            if suffix == _UNFINISHED:
                file.unlink()
            elif suffix == "" and self._old(number, _COMPRESSED).exists():
                file.unlink()  # the compressed one got its name when it was complete
            else:
                found.append((number, suffix, file))
        return found

    def _compress_old(self) -> None:
        for number, suffix, file in self._old_files():
            if suffix == "":
                unfinished = self._old(number, _UNFINISHED)
                with file.open("rb") as plain, gzip.open(unfinished, "wb", compresslevel=_GZIP_LEVEL) as packed:
                    shutil.copyfileobj(plain, packed, COPY_BYTES)
                unfinished.replace(self._old(number, _COMPRESSED))
                file.unlink()
