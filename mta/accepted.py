"""The accepted configuration: what the supervisor read and checked, as its workers get it.

A worker never reads mta.toml itself: a file that is being edited while a worker is restarted must neither keep that
worker down nor give it other settings than its neighbours have. Each configuration is appended to an unnamed file
that the workers inherit; an order names the place of the one that holds.
"""

import os
import pickle
import tempfile
from typing import NamedTuple

from mta.config import Config


class Place(NamedTuple):
    """Where in the file a configuration lies: bytes."""

    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.offset}:{self.length}"


def place_of(text: str) -> Place:
    """The opposite of `str(place)`; raises ValueError."""
    offset, length = text.split(":")
    return Place(int(offset), int(length))


class AcceptedFile:
    """The supervisor's side."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="mta-", buffering=0)  # noqa: SIM115 - open as long as the server
        self._end = 0

    @property
    def descriptor(self) -> int:
        """For the workers to inherit."""
        return self._file.fileno()

    def put(self, config: Config) -> Place:
        """Append a configuration; raises OSError where the disk is full."""
        data = pickle.dumps(config)
        written = 0
        while written < len(data):
            written += os.pwrite(self.descriptor, data[written:], self._end + written)
        place = Place(self._end, len(data))
        self._end += len(data)
        return place

    def close(self) -> None:
        """Workers that have it go on."""
        self._file.close()


def read(descriptor: int, place: Place) -> Config:
    """The worker's side: the configuration that an order names."""
    config = pickle.loads(os.pread(descriptor, place.length, place.offset))
    assert isinstance(config, Config), "the file holds configurations alone"
    return config
