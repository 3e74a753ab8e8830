"""What tests of the configuration are handed: functions that write mta.toml and say what became of it."""

from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mta.config import Config

Load = Callable[..., Config]
"""Writes mta.toml (and, by name, further files) and loads it."""
Problems = Callable[..., list[str]]
"""Writes them and tells what is wrong, with the folder taken off."""


def private_key() -> str:
    """A fresh Ed25519 key, as a key file holds it."""
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return ed25519.Ed25519PrivateKey.generate().private_bytes(*form).decode()
