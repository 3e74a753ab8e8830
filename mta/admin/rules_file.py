"""The firings and mutes of rules, on disk: they outlive a restart."""

from pathlib import Path

from mta.admin import kept_file
from mta_policies.firings import Snapshot

NAME = "rules.json"
"""In the queue's directory."""


def load(path: Path) -> Snapshot:
    """What was saved last; nothing where there is no file. Raises KeptFileError."""
    return kept_file.load(path, Snapshot, Snapshot(), "begin with no rule in force")
