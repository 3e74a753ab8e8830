"""The suspensions that hold, on disk: they outlive a restart. Written whole, never in part.

The admin face writes it whenever one is made or ends; a worker reads it before its first message leaves.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mta.reporting.questions import Suspension

NAME = "suspensions.json"
"""In the queue's directory."""


class SuspensionFileError(Exception):
    """The file is there and is not one of ours; the text says which and why."""


def load(path: Path) -> list[Suspension]:
    """What was saved last; nothing where there is no file. Raises SuspensionFileError.

    A file that cannot be understood is no empty one: mail that an admin stopped would go out.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Suspension])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SuspensionFileError(
            f"{path} cannot be read: {why}; correct it, or remove it to suspend nothing"
        ) from error


def save(path: Path, suspensions: Sequence[Suspension]) -> None:
    """Durable when this returns; blocks. Raises OSError, with what was saved before left as it was."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(suspensions)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
