"""TLS of servers in a simulation: real handshakes and real records, in memory.

The client's side is what the server uses on the way out (`mta.delivery.tls`). Keys and nonces are as random as ever:
nothing in a simulation depends on them.
"""

import atexit
import contextlib
import ssl
from functools import cache
from pathlib import Path

import trustme

_files = contextlib.ExitStack()
atexit.register(_files.close)


@cache
def _authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name)


@cache
def trusted_file() -> Path:
    """The certificate of the authority that clients trust, PEM; there until the process ends."""
    return Path(_files.enter_context(_authority("trusted").cert_pem.tempfile()))


@cache
def server_context(name: str, *, is_trusted: bool = True) -> ssl.SSLContext:
    """For servers of this name, which may begin with `*.`; else with a certificate of somebody whom nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority("trusted" if is_trusted else "a stranger").issue_cert(name).configure_cert(context)
    return context


class ServerTls:
    """One connection's TLS, seen from the server."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_established = False

    def feed(self, data: bytes) -> bytes:
        """What the client says; write `outgoing` afterwards. Raises ssl.SSLError where it does not like our side."""
        self._incoming.write(data)
        if not self.is_established:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                return b""
            self.is_established = True
        plain = b""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while piece := self._object.read(1 << 16):
                plain += piece
        return plain

    def encrypt(self, plain: bytes) -> bytes:
        """What to write in its place."""
        self._object.write(plain)
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """Of the handshake; b"" for nothing."""
        return self._outgoing.read()
