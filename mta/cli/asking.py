"""Asking: how a command reaches the admin face of a running server, and what it says when it cannot.

The address and the token come from the configuration; `--admin` and `--token-file` ask another server. Standard
library only: a command should start quickly.
"""

import argparse
import getpass
import http.client
import json
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from mta.admin.address import Address, TcpAddress, UnixAddress, read_address, short_path
from mta.admin.pages import BY_CHARS_MAX, ErrorPage
from mta.cli import EXIT_UNAVAILABLE, EXIT_WRONG, words
from mta.config import DEFAULT_FILE, ConfigError, load_settings

COMMAND_QUEUE = "mta queue"
CONNECT_S = 5.0
ANSWER_S = 630.0
"""A walk over ten million messages takes a worker some minutes; the server itself gives up after ten."""
FOREIGN_CHARS_MAX = 60  # of what another program says
ANSWER_BYTES_MAX = 256 * 1024 * 1024  # a summary of a hundred thousand sites has some 40 MB

T = TypeVar("T")


class NoServerError(Exception):
    """Nobody answers there."""


class RefusedError(Exception):
    """The server answered with an error; the text is its own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CONNECT_S)
        self._path = path

    def connect(self) -> None:
        """Open the socket instead of a TCP connection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        try:
            with short_path(self._path) as where:
                self.sock.connect(where)
        except OSError:
            self.sock.close()
            raise


class Asking:
    """One server. Each question is a connection of its own."""

    def __init__(self, address: Address, token: str = "") -> None:
        self.address = address
        self._token = token

    def get(self, path: str, kind: type[T], query: Mapping[str, object] | None = None) -> T:
        """Read a page; raises NoServerError, RefusedError."""
        return self._ask("GET", path, kind, query)

    def post(self, path: str, kind: type[T], body: object) -> T:
        """Change something; raises as `get`."""
        return self._ask("POST", path, kind, None, msgspec.json.encode(body))

    def delete(self, path: str, kind: type[T], query: Mapping[str, object] | None = None) -> T:
        """End something; raises as `get`."""
        return self._ask("DELETE", path, kind, query, b"")

    def _ask(
        self, method: str, path: str, kind: type[T], query: Mapping[str, object] | None, body: bytes | None = None
    ) -> T:
        headers: dict[str, str | bytes] = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}".encode()
        status, answer = self._exchange(method, path + ("?" + urlencode(query) if query else ""), body, headers)
        if status == http.client.UNAUTHORIZED:
            raise RefusedError(status, self._about_token())
        try:
            if status >= 400:
                raise RefusedError(status, msgspec.json.decode(answer, type=ErrorPage).error)
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            what = f"HTTP status {status}" if status >= 400 else str(error)
            raise RefusedError(status, f"its answer is not understood ({what}); is it mta's admin address?") from None

    def _about_token(self) -> str:
        if self._token:
            return (
                f"the server at {self.address} does not take this token; it has the one that [admin] had at its start"
            )
        return f"the server at {self.address} wants a token: --token-file FILE, or --config with its configuration"

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str | bytes]
    ) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            try:
                connection.connect()
            except OSError as error:
                raise NoServerError(f"no server answers at {self.address}: {_why(error)}") from error
            connection.sock.settimeout(ANSWER_S)
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            if (response.length or 0) > ANSWER_BYTES_MAX:
                raise http.client.HTTPException(f"an answer of {response.length:,} bytes")
            return response.status, response.read()
        except TimeoutError as error:
            raise NoServerError(f"the server at {self.address} did not answer within {ANSWER_S:.0f} s") from error
        except http.client.BadStatusLine as error:
            if isinstance(error, http.client.RemoteDisconnected):
                raise NoServerError(f"the server at {self.address} broke off: {_why(error)}") from error
            said = words.shortened(str(error).strip(), FOREIGN_CHARS_MAX)
            raise NoServerError(
                f'at {self.address} another program answers: "{said}"; is it mta\'s admin address?'
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoServerError(f"the server at {self.address} broke off: {_why(error)}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if isinstance(self.address, UnixAddress):
            return _UnixConnection(self.address.path)
        at: TcpAddress = self.address.reachable
        return http.client.HTTPConnection(at.host, at.port, timeout=CONNECT_S)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def options() -> argparse.ArgumentParser:
    """What every command that asks a running server takes: a parent parser."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("the server to ask")
    group.add_argument("--config", metavar="FILE", default=DEFAULT_FILE, help="its configuration; default: %(default)s")
    group.add_argument(
        "--admin", metavar="ADDRESS", help='its [admin] address instead, "127.0.0.1:8025" or "unix:PATH"'
    )
    group.add_argument("--token-file", metavar="FILE", type=Path, help="file with its token, beside --admin")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def asking(args: argparse.Namespace) -> Asking:
    """The server that the arguments name; raises ConfigError as `mta.config.load_settings`, ValueError, OSError."""
    if args.admin is None:
        try:
            admin = load_settings(args.config).admin
        except ConfigError:
            print(
                "no server is asked, for the configuration cannot be used; --admin ADDRESS asks one without it",
                file=sys.stderr,
            )
            raise
        address, token, source = admin.address, str(admin.token), str(args.config)
    else:
        address, token, source = args.admin, "", ""
    if args.token_file is not None:
        token, source = _token_in(args.token_file), str(args.token_file)
    if not token.isprintable():  # http.client would show it
        raise ValueError(f"{source}: what stands there is no token: one line of text is expected")
    return Asking(read_address(address), token)


def _token_in(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{file}: what stands there is no token: it is no text") from None
    if not token:
        raise ValueError(f"{file}: there is no token in it")
    return token


def failed(command: str, error: Exception) -> int:
    """Say why the server could not be asked; -> the exit status."""
    if isinstance(error, OSError) and error.filename:
        error = OSError(f"{error.filename}: {error.strerror}")
    print(f"{command}: {words.printable(str(error))}", file=sys.stderr)
    return EXIT_UNAVAILABLE if isinstance(error, NoServerError) else EXIT_WRONG


FAILURES = (NoServerError, RefusedError, ValueError, OSError)
"""What asking may raise, for `failed`."""


def run_asked(
    action: Callable[[argparse.Namespace, Asking], int],
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace], None] = lambda args: None,
    command: str = COMMAND_QUEUE,
) -> int:
    """Runs an action of a command against the server that the arguments name; `check` leaves for wrong usage."""
    check(args)
    try:
        return action(args, asking(args))
    except BrokenPipeError:
        raise
    except FAILURES as error:
        return failed(command, error)


def warn(command: str, problems: Sequence[str], behind: str = ": what it has is missing here") -> bool:
    """Say what went wrong beside an answer; -> whether something did. `behind`: what that means."""
    for problem in problems:
        print(f"{command}: {words.printable(problem)}{behind}", file=sys.stderr)
    return bool(problems)


def print_json(page: object) -> None:
    """A page as the server gave it."""
    print(json.dumps(msgspec.to_builtins(page), ensure_ascii=False, indent=2))


def who() -> str:
    """Who types, for the event log."""
    try:
        return getpass.getuser()[:BY_CHARS_MAX]
    except (KeyError, OSError):
        return "admin"


def quoted(part: str) -> str:
    """One part of a path."""
    return quote(part, safe="")


def query_of(selection: Any) -> dict[str, object]:
    """A selection as the query of a page."""
    return {key: "true" if value is True else value for key, value in msgspec.to_builtins(selection).items()}
