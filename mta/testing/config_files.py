"""What tests of the configuration are handed: functions that write mta.toml and say what became of it."""

from collections.abc import Callable

from mta.config import Config

Load = Callable[..., Config]
"""Writes mta.toml (and, by name, further files) and loads it."""
Problems = Callable[..., list[str]]
"""Writes them and tells what is wrong, with the folder taken off."""
