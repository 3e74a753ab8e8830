"""Access: who may ask the admin face. Pure.

With a token, whoever knows it. Without one (loopback and Unix sockets only) everybody on this machine, but no page of a
browser on it: what changes something must be JSON, which a page of another site may not send unasked, and a name that
somebody else's DNS leads to loopback is no name of ours.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from mta.admin.address import Address, TcpAddress

OPEN_PATHS = frozenset({"/health"})
"""A load balancer asks it without a token, and hears no more than whether all is well."""
_READS = frozenset({"GET", "HEAD"})


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: int
    error: str


class Access:
    """The rules of one face."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token.encode()

    def knows_token(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the token; True where there is none."""
        if not self._token:
            return True
        kind, _, token = headers.get("Authorization", "").partition(" ")
        # The time of the comparison must not tell how much of a guess was right.
        is_right = hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), self._token)
        return is_right and kind.lower() == "bearer"

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why this request is refused, None where it is not."""
        if not self._token and not self._is_our_name(headers.get("Host", "")):
            return Refusal(403, "the Host of the request is not this server's address")
        if not self.knows_token(headers) and path not in OPEN_PATHS:
            return Refusal(401, "the token is missing or wrong: Authorization: Bearer TOKEN")
        if method not in _READS and _media_type(headers) != "application/json":
            return Refusal(415, "Content-Type must be application/json")
        return None

    def _is_our_name(self, host: str) -> bool:
        if not isinstance(self._address, TcpAddress):
            return True
        name = _without_port(host)
        if name.lower() == "localhost":
            return True
        try:
            at = ipaddress.ip_address(name)
        except ValueError:
            return False
        return at.is_loopback or str(at) == self._address.host


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()
