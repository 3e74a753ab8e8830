"""Open doors: SMTP sessions of which a test knows the worker that let them in.

All workers listen on one port, and the kernel chooses one of them for every connection; which one it was is read
from the worker's open files.

    with OpenDoors(server) as doors:
        doors.open(5)                       # five sessions at every worker's door
        doors.sessions[1][0].sendmail(...)

It blocks: a test that has something running in its event loop calls it by `asyncio.to_thread`.
"""

import os
import smtplib
from pathlib import Path
from types import TracebackType
from typing import Self

from mta.testing.running_server import RunningServer

SESSIONS_TRIED_MAX = 200  # that they all come in by one door of two has a chance of 2 to the power of -199


class OpenDoors:
    """smtplib sessions by the number of the worker whose door they came in by; closed with the block."""

    def __init__(self, server: RunningServer) -> None:
        self.sessions: dict[int, list[smtplib.SMTP]] = {}
        self._server = server

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in [session for sessions in self.sessions.values() for session in sessions]:
            session.close()

    def open(self, per_door: int) -> None:
        """Connect until every worker has that many sessions; those too many are kept too."""
        pids = self._server.worker_pids()
        self.sessions = {worker: [] for worker in pids}
        for _ in range(SESSIONS_TRIED_MAX):
            if all(len(sessions) >= per_door for sessions in self.sessions.values()):
                return
            session = smtplib.SMTP("127.0.0.1", self._server.smtp_port, timeout=60)
            session.ehlo("application.test")
            assert session.sock is not None
            inode = _inode(session.sock.getsockname()[1], self._server.smtp_port)
            self.sessions[next(worker for worker, pid in pids.items() if inode in _sockets(pid))].append(session)
        raise AssertionError(f"one door only: { ({worker: len(each) for worker, each in self.sessions.items()}) }")


def _inode(client_port: int, server_port: int) -> str:
    """Of the server's end of a connection between two ports of loopback."""
    ends = f"0100007F:{server_port:04X} 0100007F:{client_port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        if ends in line:
            return line.split()[9]
    raise AssertionError("the server's end of the connection is not known to the system")


def _sockets(pid: int) -> set[str]:
    """Inodes of all sockets that a process has open."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found
