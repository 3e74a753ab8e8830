"""TLS on the way out: a layer of bytes between a connection and its dialogue.

uvloop's start_tls knows no session resumption, so TLS is done here with ssl.MemoryBIO: what came from the wire
goes into `TlsLayer.feed`, what is to go there comes out of `outgoing`. Sessions are kept per peer and mode, so
that the second connection to a host saves the certificates and a signature on either side (RFC 8446 2.2,
RFC 5077).

Two kinds of trust: `verify` wants a certificate that is good for the MX host; the other modes take any, because a
certificate that nobody checks still keeps the listener on the wire out (RFC 7435 3).
"""

import ssl
from pathlib import Path

from mta.smtp.client import TlsMode

SESSIONS_MAX = 4096  # peers whose sessions are kept, about 4 KB each; the one least lately used goes first
_READ_BYTES = 64 * 1024


class TlsError(Exception):
    """The handshake failed or what came is not TLS; its text is fit for an event."""


class TlsContexts:
    """What all connections of a worker share: one context per mode, and the sessions of peers met before."""

    def __init__(self, *, trusted: Path | None = None) -> None:
        """`trusted`: a PEM file of CA certificates for `verify` instead of the system's; OSError or ssl.SSLError
        where it cannot be read."""
        self._contexts: dict[TlsMode, ssl.SSLContext] = {
            "opportunistic": _unverified_context(ssl.TLSVersion.MINIMUM_SUPPORTED),
            "required": _unverified_context(ssl.TLSVersion.TLSv1_2),
            "verify": _verifying_context(trusted),
        }
        self._sessions: dict[tuple[str, int, TlsMode], ssl.SSLSession] = {}

    def context(self, mode: TlsMode) -> ssl.SSLContext:
        """The context of a mode; there is none for "none"."""
        return self._contexts[mode]

    def session(self, host: str, port: int, mode: TlsMode) -> ssl.SSLSession | None:
        """The session to resume with this peer, if it was met before."""
        key = (host, port, mode)
        session = self._sessions.pop(key, None)
        if session is not None:
            self._sessions[key] = session  # now the last to be dropped
        return session

    def keep(self, host: str, port: int, mode: TlsMode, session: ssl.SSLSession) -> None:
        """Remembers a session for the next connection to this peer."""
        key = (host, port, mode)
        self._sessions.pop(key, None)
        self._sessions[key] = session
        if len(self._sessions) > SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]

    def forget(self, host: str, port: int, mode: TlsMode) -> None:
        """The next handshake with this peer is a full one."""
        self._sessions.pop((host, port, mode), None)


class TlsLayer:
    """One connection's TLS. Call `feed` with what came, write `outgoing` after every call of any method."""

    __slots__ = (
        "_contexts", "_host", "_incoming", "_kept", "_mode", "_object", "_outgoing", "_port",
        "is_closed", "is_established",
    )  # fmt: skip

    def __init__(self, contexts: TlsContexts, host: str, port: int, mode: TlsMode) -> None:
        """Begins the handshake: `outgoing` has its first bytes. Raises TlsError for a host that cannot be named."""
        self._contexts = contexts
        self._host = host.rstrip(".").lower()
        self._port = port
        self._mode: TlsMode = mode
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._kept = False
        self.is_established = False
        self.is_closed = False
        """The peer has said close_notify: nothing more will come."""
        session = contexts.session(self._host, port, mode)
        try:
            self._object = contexts.context(mode).wrap_bio(
                self._incoming, self._outgoing, server_hostname=self._host, session=session
            )
        except (ValueError, ssl.SSLError) as error:  # UnicodeError is a ValueError
            raise TlsError(f"no TLS with a host of this name: {error}") from error
        self._shake_hands()

    def feed(self, data: bytes) -> bytes:
        """Takes what came from the wire; returns what it says, b"" during the handshake. Raises TlsError, after which
        `outgoing` still has the alert to be sent."""
        self._incoming.write(data)
        if not self.is_established and not self._shake_hands():
            return b""
        plain = self._read()
        if plain and not self._kept:
            self._keep_session()  # with TLS 1.3 the tickets come behind the handshake
        return plain

    def encrypt(self, plain: bytes | memoryview) -> bytes:
        """What to write in place of `plain`; only once established."""
        written = self._object.write(plain)
        while written < len(plain):  # OpenSSL may stop behind a record
            written += self._object.write(memoryview(plain)[written:])
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """What is to be written now: handshake messages, key updates, alerts; b"" for nothing."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> None:
        """Says close_notify if there is anybody to hear it; nothing may be encrypted any more."""
        if not self.is_established:
            return
        if not self._kept:
            self._keep_session()
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the peer's own close_notify is not waited for

    @property
    def version(self) -> str:
        """`TLSv1.3`, "" before the handshake is done."""
        return (self._object.version() or "") if self.is_established else ""

    @property
    def cipher(self) -> str:
        """`TLS_AES_256_GCM_SHA384`, "" before the handshake is done."""
        cipher = self._object.cipher() if self.is_established else None
        return cipher[0] if cipher else ""

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier connection's session was taken up again."""
        return bool(self._object.session_reused)

    def _shake_hands(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            raise TlsError(f"certificate not accepted: {error.verify_message}") from error
        except ssl.SSLError as error:
            self._contexts.forget(self._host, self._port, self._mode)  # should it be the session that is disliked
            raise TlsError(f"TLS handshake failed: {_reason(error)}") from error
        self.is_established = True
        return True

    def _read(self) -> bytes:
        pieces = []
        try:
            while self._incoming.pending or self._object.pending():
                piece = self._object.read(_READ_BYTES)
                if not piece:
                    self.is_closed = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_closed = True
        except ssl.SSLError as error:
            raise TlsError(f"TLS failed: {_reason(error)}") from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _keep_session(self) -> None:
        session = self._object.session
        if session is not None and (session.has_ticket or self._object.version() != "TLSv1.3"):
            self._contexts.keep(self._host, self._port, self._mode, session)
            self._kept = True


def _unverified_context(version_min: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = version_min
    context.set_ciphers("DEFAULT")  # Python's own list leaves out what old peers have, who would then be met in clear
    return context


def _verifying_context(trusted: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=trusted)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
