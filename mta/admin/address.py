"""Where the admin face is: `127.0.0.1:8025`, `[::1]:8025` or `unix:/run/mta/admin.sock`.

The server listens there, the commands connect there; both read it here.
"""

import contextlib
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

UNIX_PREFIX = "unix:"
PORT_MAX = 65535
SOCKET_PATH_BYTES_MAX = 100  # sockaddr_un holds 108


class TcpAddress(NamedTuple):
    """An IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def reachable(self) -> "TcpAddress":
        """Where a client on this machine connects: an address that means "all" is asked on loopback."""
        at = ipaddress.ip_address(self.host)
        if not at.is_unspecified:
            return self
        return TcpAddress("127.0.0.1" if at.version == 4 else "::1", self.port)


class UnixAddress(NamedTuple):
    """A Unix socket's file."""

    path: Path

    def __str__(self) -> str:
        return f"{UNIX_PREFIX}{self.path}"


Address = TcpAddress | UnixAddress


def read_address(text: str) -> Address:
    """The address that is written so; ValueError with a sentence for anything else."""
    if text.startswith(UNIX_PREFIX):
        path = text.removeprefix(UNIX_PREFIX)
        if not path:
            raise ValueError(f'a path is missing behind "{UNIX_PREFIX}"')
        return UnixAddress(Path(path))
    wrong = f'not an address: "{text}"; write "127.0.0.1:8025", "[::1]:8025" or "unix:PATH"'
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(wrong)
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > PORT_MAX:
        raise ValueError(wrong)
    try:
        return TcpAddress(str(ipaddress.ip_address(host)), int(port))
    except ValueError:
        raise ValueError(wrong) from None


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """The socket's path, or while the block lasts a shorter way to it where it is too long for the system."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
