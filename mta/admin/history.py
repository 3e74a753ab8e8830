"""History: what the event log says of one message, looked up in the file and in those that were put aside before it.

Blocking: call it in a thread. It reads whole files, the newest first, but none that was finished before the message
came, and no longer than a given time; what it did not get to is told.
"""

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

SEARCH_S = 10.0
"""As long as somebody who asked may be kept waiting: some gigabytes, or less than one that is compressed."""
BLOCK_BYTES = 1024 * 1024  # a search in it holds the interpreter for a fraction of a millisecond
LINE_BYTES_MAX = 16 * 1024 * 1024  # what has no line end for longer is no event log
EVENTS_MAX = 10_000  # a thousand recipients, ten attempts each
FILES_MAX = 1_000
GAPS_MAX = 3  # numbers that are missing in a row while files are being shifted
SLACK_S = 60.0  # lines are written some time after what they tell, and clocks are set
File = io.BufferedReader | gzip.GzipFile

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # of `mta.model.identity`
_ID_CHARS_MAX = 64
_ID_SECOND_DIGITS, _ID_PAIR_DIGITS = 7, 2


class History(NamedTuple):
    """What was found."""

    events: list[dict[str, Any]]
    """By time."""
    is_complete: bool
    """All that the log still has was looked through."""


def is_id(text: str) -> bool:
    """Whether it can be a message's id at all."""
    return 0 < len(text) <= _ID_CHARS_MAX and all(char in _ALPHABET or char == "-" for char in text)


def began_s(message_id: str) -> float:
    """When a message of this id was accepted (Unix seconds), as the id itself says; 0.0 where it says nothing."""
    digits = message_id[: _ID_SECOND_DIGITS + _ID_PAIR_DIGITS]
    if len(digits) < _ID_SECOND_DIGITS + _ID_PAIR_DIGITS or any(digit not in _ALPHABET for digit in digits):
        return 0.0
    number = 0
    for digit in digits:
        number = number << 5 | _ALPHABET.index(digit)
    return number / 1000


def search(
    events_path: Path, message_id: str, *, monotonic_s: Callable[[], float], within_s: float = SEARCH_S
) -> History:
    """All events of a message; raises OSError where a file that is there cannot be read."""
    assert is_id(message_id), "it is looked for as bytes"
    needle = b'"id":"%s"' % message_id.encode()
    end_s = monotonic_s() + within_s
    found: list[bytes] = []
    with contextlib.ExitStack() as opened:
        for file in _open_all(events_path, began_s(message_id) - SLACK_S, opened):
            for piece in _pieces(file):
                found += _lines_with(needle, piece)
                if monotonic_s() > end_s or len(found) >= EVENTS_MAX:
                    return History(_events(found[:EVENTS_MAX], message_id), False)
    return History(_events(found, message_id), True)


def _open_all(path: Path, since_s: float, opened: contextlib.ExitStack) -> list[File]:
    """The log and its older files, the newest first. All are opened before any is read: they are being shifted."""
    files: list[File] = []
    seen: set[tuple[int, int]] = set()
    gaps = number = 0
    while number < FILES_MAX and gaps <= GAPS_MAX:
        plain = path if number == 0 else path.with_name(f"{path.name}.{number}")
        gaps += 1
        for name in (plain, plain.with_name(f"{plain.name}.gz")):
            try:
                file = opened.enter_context(name.open("rb"))
            except FileNotFoundError:
                continue
            gaps = 0
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) not in seen and status.st_mtime >= since_s:
                seen.add((status.st_dev, status.st_ino))
                files.append(gzip.GzipFile(fileobj=file) if name.suffix == ".gz" else file)
            break  # the compressed one beside a plain one is not finished, or the plain one about to go
        number += 1
    return files


def _pieces(file: File) -> Iterator[bytes]:
    """The file in pieces of whole lines; what follows damage in a compressed one is lost, not the rest."""
    rest = b""
    while True:
        try:
            block = file.read1(BLOCK_BYTES)  # not read: it would keep what came before the damage
        except (EOFError, zlib.error, gzip.BadGzipFile):
            block = b""
        if not block:
            break
        block = rest + block
        end = block.rfind(b"\n") + 1
        rest = block[end:] if len(block) - end <= LINE_BYTES_MAX else b""
        yield block[:end]


def _lines_with(needle: bytes, piece: bytes) -> Iterator[bytes]:
    at = piece.find(needle)
    while at >= 0:
        end = piece.find(b"\n", at)
        yield piece[piece.rfind(b"\n", 0, at) + 1 : end]
        at = piece.find(needle, end)


def _events(lines: list[bytes], message_id: str) -> list[dict[str, Any]]:
    """The lines as objects, by time; what only looks like an event of this message is left out."""
    events: list[dict[str, Any]] = []
    for line in lines:
        try:
            event = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(event, dict) and event.get("id") == message_id and isinstance(event.get("time"), int | float):
            events.append(event)
    return sorted(events, key=lambda event: event["time"])
