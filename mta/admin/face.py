"""The admin face: the HTTP server inside a running server, which commands, metrics and health checks ask.

It lives in the supervisor, so it answers when a worker is down, and carries no mail, so that nothing it is asked can
slow mail down by more than the workers' own answers take. Each connection carries one request.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from mta.admin import reloading, rules_file, suspension_file
from mta.admin.access import Access
from mta.admin.address import Address, TcpAddress, UnixAddress, read_address, short_path
from mta.admin.answers import Answers
from mta.admin.asker import Asker
from mta.admin.kept_file import KeptFileError
from mta.admin.replying import AnswerError, error_response
from mta.admin.rules_in_force import RulesInForce
from mta.admin.ruling import Ruling
from mta.admin.suspensions import Suspensions
from mta.clock import SystemClock
from mta.model.clock import Clock
from mta_policies.firings import Change
from mta_policies.layers import PolicySet

__all__ = ["AdminFace", "Asker", "TcpAddress"]

BODY_BYTES_MAX = 64 * 1024  # a selection has some hundred bytes
CONNECTIONS_MAX = 200  # beyond it the system's own queue holds who comes
BACKLOG = 64
SWEEP_S = 30.0
SWEEPS_MAX = 7
"""A connection that is still there after so many sweeps and is not being answered is cut."""
_log = logging.getLogger("mta.admin")
PATH_CHARS_SHOWN = 100  # of one that is none
STOP_S = 1.0  # what is being answered when the server stops has that long


class AdminFace:
    """Listens from `start` to `stop`. `address`: "127.0.0.1:8025" or "unix:PATH"; port 0: the system chooses.

    `events_path`: the event log's file, None where there is none to search. `kept_in`: the folder in which suspensions
    and what rules set off outlive the server. `policies`: those that hold now, to say where a rule is written.
    `reload`: reads the configuration again; None: there is no page for that.
    """

    def __init__(
        self,
        asker: Asker,
        address: str | TcpAddress,
        token: str,
        *,
        events_path: Path | None,
        kept_in: Path,
        version: str,
        hostname: str,
        policies: Callable[[], PolicySet | None] = lambda: None,
        reload: reloading.Reload | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.address: Address = read_address(address) if isinstance(address, str) else address
        """Where it listens; after `start` with the port that was chosen."""
        clock = clock or SystemClock()
        access = Access(self.address, token)
        self._access = access
        self._reload = reload
        self._suspensions = Suspensions(kept_in / suspension_file.NAME, asker, clock)
        self._rules = RulesInForce(kept_in / rules_file.NAME, asker, clock)
        self._answers = Answers(
            asker,
            self._suspensions,
            Ruling(self._rules, policies),
            access,
            clock,
            events_path=events_path,
            version=version,
            hostname=hostname,
        )
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._ages: dict[web.RequestHandler, int] = {}
        self._answering: set[asyncio.BaseTransport | None] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listen; raises OSError where the address is taken, KeptFileError where it is unknown what holds."""
        bound = _bind(self.address)
        try:
            self._suspensions.start()
            self._rules.start()
        except KeptFileError:
            bound.close()
            self._remove_socket()
            raise
        app = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        app.add_routes(self._answers.routes())
        if self._reload is not None:
            app.add_routes(reloading.routes(self._reload))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(self._connection, sock=bound, backlog=BACKLOG)
        if isinstance(self.address, TcpAddress):
            self.address = TcpAddress(*bound.getsockname()[:2])
        self._sweep()

    async def stop(self) -> None:
        """Listen no more; what is being answered is finished, or cut after a moment."""
        await self._suspensions.stop()
        await self._rules.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
            self._remove_socket()
        if self._runner is not None:
            await self._runner.cleanup()

    def _remove_socket(self) -> None:
        if isinstance(self.address, UnixAddress):
            self.address.path.unlink(missing_ok=True)

    def worker_up(self, number: int) -> None:
        """A worker that was (re)started is told what holds, as soon as the loop turns."""
        self._suspensions.worker_up(number)
        self._rules.worker_up(number)

    def rules_changed(self, number: int, changes: Sequence[Change]) -> None:
        """A worker's rules did something."""
        self._rules.reported(number, changes)

    def _connection(self) -> asyncio.Protocol:
        assert self._runner is not None, "listening"
        server = self._runner.server
        assert server is not None, "set up"
        return server() if len(server.connections) < CONNECTIONS_MAX else _Refusing()

    def _sweep(self) -> None:
        """Cut connections that were opened minutes ago: nobody may fill the table by saying nothing."""
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        assert self._runner is not None, "listening"
        server = self._runner.server
        assert server is not None, "set up"
        self._ages = {
            each: 0 if each.transport in self._answering else self._ages.get(each, 0) + 1 for each in server.connections
        }
        for connection, age in self._ages.items():
            if age > SWEEPS_MAX and connection.transport is not None:
                connection.transport.abort()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Who may ask, what an error looks like, and one request a connection."""
        refusal = self._access.refusal(request.method, request.path, request.headers)
        if refusal is not None:
            response = error_response(refusal.status, refusal.error)
            if refusal.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
        else:
            transport = request.transport
            self._answering.add(transport)
            try:
                response = await handler(request)
            except AnswerError as error:
                response = error_response(error.status, str(error))
            except web.HTTPException as error:
                response = _in_json(error, request)
            except Exception as error:  # noqa: BLE001 - a bug costs one answer, not the server
                _log.exception("%s %s", request.method, request.path)
                response = error_response(500, f"an error of the server's own: {type(error).__name__}")
            finally:
                self._answering.discard(transport)
        response.headers["Server"] = "mta"
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.force_close()
        return response


def _in_json(error: web.HTTPException, request: web.Request) -> web.Response:
    """aiohttp's own errors (no such path, wrong method, body too large) as every page tells them."""
    sentences = {
        404: f'there is no page "{request.path[:PATH_CHARS_SHOWN]}"',
        405: f"{request.method} is not for this page, but {error.headers.get('Allow', 'another method')}",
        413: f"the body is larger than {BODY_BYTES_MAX // 1024} KiB",
    }
    response = error_response(error.status, sentences.get(error.status, error.reason))
    if allowed := error.headers.get("Allow"):
        response.headers["Allow"] = allowed
    return response


class _Refusing(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _bind(address: Address) -> socket.socket:
    if isinstance(address, UnixAddress):
        return _bind_unix(address.path)
    bound = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(tuple(address))
    except OSError:
        bound.close()
        raise
    return bound


def _bind_unix(path: Path) -> socket.socket:
    """Bound for this user alone from its first moment on; what a killed server left is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path) as where:
            _remove_stale(path, where)
            os.fchmod(bound.fileno(), 0o600)  # Linux gives the file the socket's own mode
            bound.bind(where)
            os.chmod(where, 0o600)
    except OSError:
        bound.close()
        raise
    return bound


def _remove_stale(path: Path, where: str) -> None:
    """Remove the socket of a server that is gone; raises OSError where something else is in its place."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "a file that is no socket is in its place", str(path))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(ConnectionRefusedError):
        probe.connect(where)
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))
    path.unlink()
