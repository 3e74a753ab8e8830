"""The mark of a clean stop: a file that a worker leaves in its log's directory when nothing of it is under way.

A start that does not find it follows a crash: what is due then was perhaps on its way when the last life ended, and
its next attempt is told as `after_crash`. The mark is gone, on stable storage, before anything is sent, and it is left
before the log's lock is let go of: nobody else can have begun a life in between.
"""

from pathlib import Path

from mta_queue.disk import Disk

NAME = "STOPPED"


def leave(disk: Disk, log: Path) -> None:
    """The worker of this log (its directory) has ended all that it began. Raises OSError."""
    if NAME in disk.names(log):
        return
    disk.create(log / NAME).close()
    disk.sync_directory(log)


def take(disk: Disk, log: Path) -> bool:
    """Whether the last life ended cleanly; the mark is gone then. Raises OSError."""
    if NAME not in disk.names(log):
        return False
    disk.unlink(log / NAME)
    disk.sync_directory(log)
    return True
