"""Premises: what a server must have before it starts its workers. The ports, the queue's directory, the event log.

What cannot be had is told at once, with the line of the configuration that asks for it.
"""

import asyncio
import socket
from pathlib import Path

from mta import remedies
from mta.config import Config
from mta_policies.tree import BUILT_IN
from mta_queue.disk import DiskFile, LogLockedError, OsDisk

LOCK_NAME = "server.lock"
PORT_WAIT_S = 2.0  # workers whose supervisor was killed end, and let go of the port, well within this
PORT_POLL_S = 0.1


class StartError(Exception):
    """The server cannot start; the text says why."""


class PortError(StartError):
    """A listener's address cannot be bound."""


class QueueError(StartError):
    """The queue directory cannot be used, or another server uses it."""


class LogError(StartError):
    """The event log cannot be written."""


class AdminError(StartError):
    """The admin address cannot be bound, or what admins suspended cannot be read."""


def try_log(config: Config) -> None:
    """Open the event log as the workers will; raises LogError: fates that nobody can read are better told at once."""
    if config.log.events == "-":
        return
    try:
        path = Path(config.log.events)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        where = config.origin("log", "events")
        said = remedies.sentence(error, str(config.log.events))
        raise LogError(f"{where}: cannot write the event log {said}") from error


def lock(directory: Path) -> DiskFile:
    """Take the queue directory for this server alone, as long as the returned file is open; raises QueueError."""
    disk = OsDisk()
    try:
        disk.make_directory(directory)
        return disk.lock(directory / LOCK_NAME)
    except LogLockedError:
        raise QueueError(f"the queue {directory} is in use by another server") from None
    except OSError as error:
        said = remedies.sentence(error)
        raise QueueError(f"the queue {directory} cannot be used, and nothing was changed: {said}") from error


async def bind_soon(config: Config) -> list[socket.socket]:
    """As `bind`; waits a moment for the workers of a server that was killed."""
    for _ in range(int(PORT_WAIT_S / PORT_POLL_S)):
        try:
            return bind(config)
        except PortError:
            await asyncio.sleep(PORT_POLL_S)
    return bind(config)


def bind(config: Config) -> list[socket.socket]:
    """One socket for every listener and worker; raises PortError, which names the address and its line."""
    sockets = []
    for number, listener in enumerate(config.listeners):
        family = socket.AF_INET6 if ":" in listener.address.host else socket.AF_INET
        address = (listener.address.host, listener.address.port)
        where = config.origin("listener", number, "address")
        try:
            # Without SO_REUSEPORT first: another server's port must not be shared by mistake.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                _prepare(probe, family)
                probe.bind(address)
                bound = probe.getsockname()[:2]
            for _ in range(config.worker_count):
                shared = socket.socket(family, socket.SOCK_STREAM)
                sockets.append(shared)
                _prepare(shared, family)
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                shared.bind(bound)
        except OSError as error:
            for each in sockets:
                each.close()
            why = f"cannot listen on {listener.address}: {error.strerror}"
            raise PortError(why if where == BUILT_IN else f"{where}: {why}") from error
    return sockets


def _prepare(bound: socket.socket, family: int) -> None:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
