"""The spool of the baseline: one file a message, a line of JSON with the envelope, and behind it the content.

A message is safe when its file is synced, and gone when the file is. Nothing is shared between messages: no log, no
index, no group commit.
"""

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


class Item:
    """One accepted message."""

    __slots__ = ("attempts", "content", "path", "recipients", "sender")

    def __init__(self, path: Path, sender: str, recipients: list[str], content: bytes | None) -> None:
        self.path = path
        self.sender = sender
        self.recipients = recipients
        """Those without a fate."""
        self.content = content
        """None: it is in the file alone."""
        self.attempts = 0


class Spool:
    """A folder of messages, which is made where it is missing."""

    def __init__(self, folder: Path, is_synced: bool) -> None:
        self._folder = folder
        self._is_synced = is_synced
        self._numbers = itertools.count(1)
        self._prefix = f"{time.time_ns():x}"
        folder.mkdir(parents=True, exist_ok=True)

    def new_path(self) -> Path:
        """A name that no other message has."""
        return self._folder / f"{self._prefix}-{next(self._numbers)}.mail"

    def add(self, path: Path, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """Write a message's file; returns when it is on stable storage. Raises OSError, and leaves nothing then.

        ext4, XFS and Btrfs write the name of a new file along with its fsync: the folder is not synced on its own.
        """
        try:
            self._write(path, sender, recipients, content)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def replace(self, path: Path, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """Write it anew, with fewer recipients; after a power loss it may be the old one. Raises OSError."""
        part = path.with_suffix(".part")
        self._write(part, sender, recipients, content)
        part.replace(path)

    def _write(self, path: Path, sender: str, recipients: Sequence[str], content: bytes) -> None:
        envelope = {"sender": sender, "recipients": list(recipients), "bytes": len(content)}
        with path.open("wb") as file:
            file.write(b"%b\n%b" % (json.dumps(envelope).encode(), content))
            if self._is_synced:
                file.flush()
                os.fsync(file.fileno())

    @staticmethod
    def read(path: Path) -> tuple[str, list[str], bytes]:
        """Sender, recipients, content. Raises OSError, ValueError where the file is not complete."""
        head, _, content = path.read_bytes().partition(b"\n")
        envelope = json.loads(head)
        if len(content) != envelope["bytes"]:
            raise ValueError(f"{path} is not complete")
        return envelope["sender"], envelope["recipients"], content

    def left(self) -> Iterator[Item]:
        """What an earlier process has not finished; a file that is not complete goes: nobody was told 250 for it."""
        for path in sorted(self._folder.glob("*.mail")):
            try:
                sender, recipients, _ = self.read(path)
            except ValueError:
                path.unlink()
                continue
            yield Item(path, sender, recipients, None)
