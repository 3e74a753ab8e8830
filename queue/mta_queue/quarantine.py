"""The quarantine: segment files that hold something unreadable and are not needed any more, each with the reason.

They lie in `<log>/quarantine/` under the names they had. `README` beside them says what they are and has a line for
everything that was found wrong with each: when it was put there, which file, why. Nothing reads them again but
`mta queue verify`, which lists them, and an admin, who may delete them.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from mta_queue import segment
from mta_queue.disk import Disk

DIRECTORY_NAME = "quarantine"
INDEX_NAME = "README"
REASONS_MAX = 20  # lines about one file: a failing disk may have damaged all of its records
NAME_BYTES = len(segment.file_name(0))
INDEX_BYTES_MAX = 1 << 20  # what is read back of the index

_OPENING = b"""\
Segment files that could not be read in full, or not at all. The queue does not need them any more: what was whole in
them was delivered or moved. They are kept for you; delete them when you have no use for them. Below: when a file was
put here, or was found to be missing, its name, what was wrong with it and where.

"""


class Held(NamedTuple):
    """A file that was set aside."""

    name: str
    """Seen from the log's directory."""
    reasons: list[str]
    """Each with the time; none where nobody wrote them down."""


class Quarantine:
    """Of one log. `note` is called in the loop's thread, `take` in one that may wait for the disk."""

    def __init__(self, directory: Path, disk: Disk, wall_s: Callable[[], float] = time.time) -> None:
        self._log = directory
        self._directory = directory / DIRECTORY_NAME
        self._disk = disk
        self._wall_s = wall_s
        self._reasons: dict[int, list[str]] = {}

    def note(self, number: int, reason: str) -> None:
        """Remembers what is wrong with a segment until its file is not needed any more."""
        reasons = self._reasons.setdefault(number, [])
        if len(reasons) < REASONS_MAX:
            reasons.append(reason)
        elif len(reasons) == REASONS_MAX:
            reasons.append("and more of the kind")

    def reasons_of(self, number: int) -> list[str]:
        """What was noted of a segment."""
        return list(self._reasons.get(number, ()))

    def forget(self, number: int) -> None:
        """The segment's file was taken."""
        self._reasons.pop(number, None)

    def take(self, number: int, reasons: Sequence[str]) -> None:
        """The segment's file is in the quarantine and its reasons beside it, on stable storage but for the name that
        it had: that is the caller's to sync. One that is not there (any more) is no error. Raises OSError; then the
        file is still where it was."""
        disk, name = self._disk, segment.file_name(number)
        if name not in disk.names(self._log):
            return
        disk.make_directory(self._directory)
        names = disk.names(self._directory)
        try:
            self._write_index(names, name, reasons)
        except OSError:
            pass  # a full disk: that the file is kept matters more than what is written about it
        target, copy = name, 1
        while target in names:  # somebody put it back, and it was damaged still
            copy += 1
            target = f"{name}.{copy}"
        disk.rename(self._log / name, self._directory / target)
        disk.sync_directory(self._directory)

    def tell(self, number: int, reason: str) -> None:
        """A line about a segment of which there is no file. Raises OSError."""
        self._disk.make_directory(self._directory)
        self._write_index(self._disk.names(self._directory), segment.file_name(number), [reason])
        self._disk.sync_directory(self._directory)

    def _write_index(self, names: Sequence[str], name: str, reasons: Sequence[str]) -> None:
        disk, path = self._disk, self._directory / INDEX_NAME
        when = datetime.fromtimestamp(self._wall_s(), UTC).isoformat(timespec="seconds")
        lines = "".join(f"{when} {name}: {reason}\n" for reason in reasons or ["damaged"])
        if INDEX_NAME in names:
            file = disk.open(path, writable=True)
            disk.append(file, disk.size_bytes(file), (lines.encode(),))
        else:
            file = disk.create(path)
            disk.append(file, 0, (_OPENING, lines.encode()))
        disk.sync(file)
        file.close()


def numbers_held(disk: Disk, directory: Path) -> list[int]:
    """The numbers of the segments of this log that were ever set aside and still are. Raises OSError."""
    names = disk.names(directory)
    old = segment.numbers(name.removesuffix(segment.ASIDE_SUFFIX) for name in names)
    inside = _names_inside(disk, directory, names)
    return sorted({*old, *segment.numbers(name[:NAME_BYTES] for name in inside)} - {*segment.numbers(names)})


def held(disk: Disk, directory: Path) -> list[Held]:
    """What was set aside in this log, in the quarantine or, by older versions, as `*.aside`. Raises OSError."""
    names = disk.names(directory)
    found = [Held(name, []) for name in names if name.endswith(segment.ASIDE_SUFFIX)]
    inside = _names_inside(disk, directory, names)
    said = _index(disk, directory / DIRECTORY_NAME / INDEX_NAME) if INDEX_NAME in inside else []
    for name in inside:
        if name != INDEX_NAME:
            reasons = [f"{when} {why}" for when, about, why in said if name.startswith(about)]
            found.append(Held(f"{DIRECTORY_NAME}/{name}", reasons))
    return found


def _names_inside(disk: Disk, directory: Path, names: Sequence[str]) -> list[str]:
    try:
        return disk.names(directory / DIRECTORY_NAME) if DIRECTORY_NAME in names else []
    except OSError:
        return []  # a file of that name, or one that nobody may look into: not ours


def _index(disk: Disk, path: Path) -> list[tuple[str, str, str]]:
    """(when, name, why) of each line; what is none is passed over."""
    try:
        text = disk.read(disk.open(path), 0, INDEX_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        when, _, rest = line.partition(" ")
        name, _, why = rest.partition(": ")
        if why and segment.numbers([name]):
            found.append((when, name, why))
    return found
