"""How things of the world are written in mta.toml: addresses with ports, networks, paths, secrets, senders."""

import ipaddress
import os
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

from mta_policies.located import Place
from mta_policies.reader import Form, form, shown, text_form

PORT_MAX = 65535
SMTP_PORT = 25
SECRET_BYTES_MAX = 100_000  # a token or a password; a whole file by mistake is told instead of taken


class Endpoint(NamedTuple):
    """An address or host and a port: "127.0.0.1:2525", "[::1]:587", "smarthost.example:25"."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SecretText(str):
    """A secret that does not show where a configuration is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


def _split(text: str) -> tuple[str, str]:
    """Host and port as texts; the port is "" where none is given."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f'not an address: {shown(text)}; write "[::1]:587"')
        return host, rest[1:]
    if text.count(":") > 1:
        raise ValueError(f'an IPv6 address goes in brackets: "[{text}]", with a port "[{text}]:25"')
    host, _, port = text.partition(":")
    return host, port


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > PORT_MAX:
        raise ValueError(f"not a port: {shown(text)}; a number from 1 to {PORT_MAX}")
    return int(text)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_host_name(text: str) -> bool:
    labels = text.rstrip(".").split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )


def _listen_address(text: str) -> Endpoint:
    host, port = _split(text.strip())
    if not _is_address(host):
        raise ValueError(f'not an IP address: {shown(host)}; write "127.0.0.1:2525", "0.0.0.0:25" or "[::1]:587"')
    if not port:
        raise ValueError(f'the port is missing: write "{text}:25"')
    return Endpoint(str(ipaddress.ip_address(host)), _port(port))


def _route_host(text: str) -> Endpoint:
    host, port = _split(text.strip())
    if not _is_address(host) and not _is_host_name(host):
        raise ValueError(f'not a host: {shown(text)}; write "10.0.0.5:25", "[2001:db8::5]:25" or "smarthost.example"')
    if port and _port(port) == 0:
        raise ValueError("port 0 cannot be connected to")
    return Endpoint(host.lower(), _port(port) if port else 0)


def _write_route_host(endpoint: Endpoint) -> str:
    if endpoint.port:
        return str(endpoint)
    return f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host


def _name_server(text: str) -> Endpoint:
    host, port = _split(text.strip())
    if not _is_address(host):
        raise ValueError(f'not an IP address: {shown(host)}; write "127.0.0.1:5353" or "192.0.2.53"')
    return Endpoint(host, _port(port) if port else 53)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f'not a network: {shown(text)}; write "10.0.0.0/8", "::1/128" or one address') from None
    raise ValueError(f"{shown(text)} has bits behind its mask; did you mean {meant}?")


def _ipv4(text: str) -> str:
    return _one_address(text, ipaddress.IPv4Address, '"192.0.2.10"')


def _ipv6(text: str) -> str:
    return _one_address(text, ipaddress.IPv6Address, '"2001:db8::10"')


def _one_address(text: str, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address], example: str) -> str:
    if not text:
        return ""
    try:
        return str(kind(text.strip()))
    except ValueError:
        raise ValueError(f"not an address: {shown(text)}; write {example}") from None


def _host_name(text: str) -> str:
    if text and not _is_host_name(text):
        raise ValueError(f'not a host name: {shown(text)}; write "mail.example.com" (A-labels where it is not ASCII)')
    return text.rstrip(".").lower()


def _name(text: str) -> str:
    if not text or not all(c.isalnum() or c in "-_." for c in text) or not text.isascii():
        raise ValueError(f"not a name: {shown(text)}; letters, digits, hyphen, dot and underscore")
    return text


def _sender_pattern(text: str) -> str:
    local, at, domain = text.strip().rpartition("@")
    under = domain.removeprefix("*.")
    if not at or not local or not _is_host_name(under) or ("*" in local and local != "*"):
        raise ValueError(
            f'not a sender: {shown(text)}; write "*@shop.example", "*@*.shop.example" or "news@shop.example"'
        )
    return f"{local}@{domain.lower()}"


def _route_domain(text: str) -> str:
    clean = text.strip().rstrip(".").lower()
    if clean != "*" and not _is_host_name(clean.removeprefix("*.")):
        raise ValueError(f'not a domain: {shown(text)}; write "example.net", "*.corp.example" or "*" for everything')
    return clean


def _read_date(value: object, place: Place) -> date | None:
    """As a text, or as TOML's own date."""
    del place
    if value in ("", None):
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str):
            return date.fromisoformat(value.strip())
    except ValueError:
        pass
    raise ValueError(f'not a date: {shown(value)}; write "2026-12-01"')


def _read_path(value: object, place: Place) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError(f"expected a path, got {shown(value)}")
    return _beside(str(value), place)


def _read_optional_path(value: object, place: Place) -> Path | None:
    return None if value in ("", None) else _read_path(value, place)


def _beside(path: str, place: Place) -> Path:
    """Relative paths are relative to the file that names them."""
    return Path(place.file).absolute().parent / path


def _read_events(value: object, place: Place) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f'expected a path, or "-" for standard output, got {shown(value)}')
    return value if value == "-" else str(_beside(value, place))


def _read_admin_address(value: object, place: Place) -> str:
    if not isinstance(value, str):
        raise ValueError(f'expected an address such as "127.0.0.1:8025" or "unix:var/admin.sock", got {shown(value)}')
    if value.startswith("unix:"):
        return f"unix:{_beside(value.removeprefix('unix:'), place)}"
    return str(_listen_address(value))


def _read_secret(value: object, place: Place) -> str:
    if isinstance(value, str):
        return SecretText(value)
    if isinstance(value, dict) and len(value) == 1:
        ((kind, where),) = value.items()
        if kind == "env" and isinstance(where, str):
            if where not in os.environ:
                raise ValueError(f"environment variable {where} is not set")
            return SecretText(os.environ[where])
        if kind == "file" and isinstance(where, str):
            return _secret_file(_beside(where, place))
    raise ValueError('expected a text, { env = "NAME" } or { file = "path" }')


def _secret_file(path: Path) -> str:
    try:
        if path.stat().st_size > SECRET_BYTES_MAX:
            raise ValueError(f"{path} is larger than {SECRET_BYTES_MAX} bytes: not a secret")
        return SecretText(path.read_text(encoding="utf-8").rstrip("\r\n"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


ListenAddress = Annotated[Endpoint, form(text_form('an address such as "127.0.0.1:2525"', _listen_address, str))]
RouteHost = Annotated[Endpoint, form(text_form('a host such as "10.0.0.5:25"', _route_host, _write_route_host))]
NameServer = Annotated[Endpoint, form(text_form('an address such as "127.0.0.1:5353"', _name_server, str))]
Network = Annotated[str, form(text_form('a network such as "10.0.0.0/8"', _network, str))]
Ipv4 = Annotated[str, form(text_form("an IPv4 address", _ipv4, str))]
Ipv6 = Annotated[str, form(text_form("an IPv6 address", _ipv6, str))]
HostName = Annotated[str, form(text_form("a host name", _host_name, str))]
Name = Annotated[str, form(text_form("a name", _name, str))]
SenderPattern = Annotated[str, form(text_form('a sender such as "*@shop.example"', _sender_pattern, str))]
RouteDomain = Annotated[str, form(text_form('a domain such as "*.corp.example"', _route_domain, str))]
OptionalDate = Annotated[date | None, form(Form("a date", _read_date, lambda day: "" if day is None else str(day)))]
FilePath = Annotated[Path, form(Form("a path", _read_path, str, at_default=True))]
OptionalPath = Annotated[
    Path | None, form(Form("a path", _read_optional_path, lambda path: "" if path is None else str(path)))
]
EventsPath = Annotated[str, form(Form("a path", _read_events, str, at_default=True))]
AdminAddress = Annotated[str, form(Form("an address", _read_admin_address, str, at_default=True))]
Secret = Annotated[str, form(Form("a secret", _read_secret, lambda secret: secret))]
