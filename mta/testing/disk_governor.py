"""A governor of a running server's disk: every change that the server asks of it asks the test first.

    async with DiskGovernor(tmp_path) as disk:
        server = RunningServer(tmp_path, env=disk.environment, ...)
        disk.hold("sync")                     # from now on no sync returns
        await disk.until_held("sync")         # one is under way
        disk.let_go()                         # all that were held go on, and none is held any more
        disk.refuse(errno.EROFS, *CHANGES)    # a disk that became read-only
        disk.take()                           # and is as it was
        disk.pass_time(600)                   # ten minutes, as the server's deadlines see it

So a disk takes as long as a test wants, and fails when and how it wants, on any machine. The server knows nothing of
it: as with `failpoints`, its processes read a `sitecustomize` that the test wrote. Reads, and everything but the
queue's files, are as always.
"""

import asyncio
import functools
import mmap
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from mta.tasks import Tasks

ADDRESS = "MTA_DISK_GOVERNOR"
CLOCK = "MTA_CLOCK_AHEAD"
FOLDER = "governor"
CHANGES = ("append", "sync", "create", "unlink", "rename", "sync_directory", "lock")
"""Calls of the queue's disk that ask."""
WRITES = ("append", "create", "unlink", "rename", "lock")
"""What a read-only file system refuses."""
WITHIN_S = 60.0

_START = """from mta.testing.disk_governor import govern

govern()
"""
_AHEAD = struct.Struct("d")


class Call(NamedTuple):
    """One thing that was asked of the disk."""

    operation: str
    path: str


class DiskGovernor:
    """The test's side; runs in its loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._server: asyncio.Server | None = None
        self._serving = Tasks()
        self._changed = asyncio.Event()
        self._held: set[str] = set()
        self._waiting: list[tuple[Call, asyncio.Future[None]]] = []
        self._refused: dict[str, int] = {}
        self._where: Callable[[str], bool] = lambda path: True
        self._ahead = b""
        self.asked: Counter[str] = Counter()
        """How often each operation was asked for."""
        self.on_call: Callable[[Call], None] = lambda call: None
        """Hears of every call before it is decided on."""

    async def __aenter__(self) -> Self:
        self._folder.mkdir()
        (self._folder / "sitecustomize.py").write_text(_START)
        (self._folder / "clock").write_bytes(_AHEAD.pack(0.0))
        self._server = await asyncio.start_server(self._called, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self.let_go()
        self.take()
        self._server.close()
        self._serving.cancel()
        await self._serving.ended()

    @property
    def environment(self) -> dict[str, str]:
        """For `RunningServer`."""
        assert self._server is not None, "not started"
        host, port = self._server.sockets[0].getsockname()[:2]
        found = [str(self._folder), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        return {
            "PYTHONPATH": os.pathsep.join(found),
            ADDRESS: f"{host}:{port}",
            CLOCK: str(self._folder / "clock"),
        }

    # What a test does.

    def hold(self, *operations: str) -> None:
        """From now on these wait."""
        self._held.update(operations)

    def let_go(self) -> None:
        """What waits goes on, and nothing waits any more."""
        self._held.clear()
        waiting, self._waiting = self._waiting, []
        for _, turn in waiting:
            if not turn.done():
                turn.set_result(None)

    def let_one_go(self) -> None:
        """The one that has waited longest goes on."""
        _, turn = self._waiting.pop(0)
        turn.set_result(None)

    def held(self, operation: str) -> int:
        """How many of these wait now."""
        return sum(call.operation == operation for call, _ in self._waiting)

    async def until_held(self, operation: str) -> None:
        """At least one waits."""
        await self.until(lambda: self.held(operation) > 0, f"{operation} is held")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that a call to the disk brings about; raises TimeoutError."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self._changed.clear()
                try:
                    await self._changed.wait()
                except asyncio.CancelledError as cancelled:
                    cancelled.add_note(f"waited for: {what}")
                    raise

    def refuse(self, error: int, *operations: str, where: Callable[[str], bool] = lambda path: True) -> None:
        """From now on these fail with this errno, for paths for which `where` is true."""
        self._refused = dict.fromkeys(operations, error)
        self._where = where

    def take(self) -> None:
        """Nothing is refused any more."""
        self._refused.clear()

    def pass_time(self, seconds: float) -> None:
        """The server's monotonic clock, which its deadlines go by, is ahead by so much more."""
        path = self._folder / "clock"
        (ahead,) = _AHEAD.unpack(path.read_bytes())
        with path.open("r+b") as file:
            file.write(_AHEAD.pack(ahead + seconds))

    # What asks.

    def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                operation, _, path = line.decode().rstrip("\n").partition(" ")
                error = await self._judge(Call(operation, path))
                writer.write(b"%d\n" % error)
        except ConnectionError:
            pass  # the process was killed
        finally:
            writer.close()

    async def _judge(self, call: Call) -> int:
        self.asked[call.operation] += 1
        self.on_call(call)
        if call.operation in self._held:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((call, turn))
            self._changed.set()
            await turn
        self._changed.set()
        return self._refused.get(call.operation, 0) if self._where(call.path) else 0


# In the server's processes.


def govern(environ: Mapping[str, str] = os.environ) -> None:
    """Has this process ask, where its environment names a governor; a helper that has no disk asks nothing."""
    if ADDRESS not in environ:
        return
    from mta.clock import SystemClock  # here, so that nothing of the server is loaded where nobody asks
    from mta_queue.disk import OsDisk

    host, _, port = environ[ADDRESS].rpartition(":")
    asking = _Asking(host, int(port))
    for name in CHANGES:
        setattr(OsDisk, name, _asking_first(asking, name, getattr(OsDisk, name)))
    with Path(environ[CLOCK]).open("rb") as file:
        ahead = mmap.mmap(file.fileno(), _AHEAD.size, access=mmap.ACCESS_READ)
    SystemClock.monotonic_s = staticmethod(lambda: time.monotonic() + _AHEAD.unpack_from(ahead)[0])


class _Asking:
    """A connection to the governor for each thread."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._of_thread = threading.local()

    def about(self, operation: str, path: str) -> int:
        """The errno with which it is to fail; 0: it is not."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = socket.create_connection(self._address).makefile("rwb")
        connection.write(f"{operation} {path}\n".encode())
        connection.flush()
        return int(connection.readline() or b"0")  # the test has ended: nothing matters any more


def _asking_first(asking: _Asking, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(disk: object, about: Any, *rest: Any) -> Any:
        path = str(getattr(about, "path", about))
        if error := asking.about(name, path):
            raise OSError(error, os.strerror(error), path)
        return original(disk, about, *rest)

    return wrapped
