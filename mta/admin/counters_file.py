"""The counters, on disk: what was used of quotas and plans outlives a restart."""

from pathlib import Path

from mta.admin import kept_file
from mta.reporting.counting import Snapshot

NAME = "counters.json"
"""In the queue's directory."""


def load(path: Path) -> Snapshot:
    """What was saved last; nothing where there is no file. Raises KeptFileError."""
    return kept_file.load(path, Snapshot, Snapshot(), "begin with nothing used of any quota")
