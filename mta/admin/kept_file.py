"""A kept file: what holds now and must outlive a restart, as JSON in the queue's directory. Written whole, never in
part.

The admin face writes it whenever something begins or ends; a worker reads it before its first message leaves.
"""

import contextlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class KeptFileError(Exception):
    """The file is there and is not one of ours; the text says which and why."""


def load(path: Path, kind: type[T], missing: T, removed: str) -> T:
    """What was saved last; `missing` where there is no file. `removed`: what one does who removes it. Raises
    KeptFileError.

    A file that cannot be understood is no empty one: mail that was stopped would go out.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return missing
    except (OSError, msgspec.MsgspecError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise KeptFileError(f"{path} cannot be read: {why}; correct it, or remove it to {removed}") from error


def save(path: Path, value: object) -> None:
    """Durable when this returns; blocks. Raises OSError, with what was saved before left as it was."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
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
