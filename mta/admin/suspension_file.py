"""The suspensions that hold, on disk: they outlive a restart."""

from pathlib import Path

from mta.admin import kept_file
from mta.reporting.questions import Suspension

NAME = "suspensions.json"
"""In the queue's directory."""


def load(path: Path) -> list[Suspension]:
    """What was saved last; nothing where there is no file. Raises KeptFileError."""
    return kept_file.load(path, list[Suspension], [], "suspend nothing")
