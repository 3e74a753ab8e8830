"""Starting and dying: what cannot start says why in a line, and nothing of a dead server is in the next one's way."""

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.testing.running_server import READY_S, RunningServer, ServerEndedError, free_port
from mta.testing.toy_dns import ToyDns

ZONE = {"swift.test": {"MX": ["10 mx.swift.test."]}, "mx.swift.test": {"A": ["127.0.0.2"]}}


async def serve_in_vain(config: Path) -> tuple[int, str]:
    """Status and words of a server that cannot start."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mta.cli", "serve", "--config", str(config), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), READY_S)
    assert process.returncode is not None
    return process.returncode, said.decode()


def is_running(pid: int) -> bool:
    """A process that has ended but that nobody has buried yet does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def test_a_second_server_on_the_same_queue_is_refused(tmp_path: Path) -> None:
    """It says in one line whose the queue is and ends with 1; the first one does not notice, whatever their workers."""
    async with RunningServer(tmp_path, port=free_port(), workers=1) as server:
        second = tmp_path / "second.toml"
        second.write_text(
            server.config.read_text().replace("workers = 1", "workers = 3").replace(str(server.smtp_port), "0")
        )
        before = server.log

        status, said = await serve_in_vain(second)

        assert status == 1
        assert said == f"the queue {tmp_path / 'queue'} is in use by another server\n"
        assert server.log == before
        assert await server.stop() == 0


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The line says which address, and where it is written; the status is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "mta.toml"
        config.write_text(f'hostname = "mail.test"\n[[listener]]\naddress = "127.0.0.1:{port}"\n')

        status, said = await serve_in_vain(config)

    assert status == 1
    assert said.endswith(f"mta.toml:3: cannot listen on 127.0.0.1:{port}: Address already in use\n")
    assert "Traceback" not in said


async def test_a_locked_log_is_named(tmp_path: Path) -> None:
    """A worker that cannot have its log says so in one line, and the server ends with 1."""
    server = RunningServer(tmp_path, port=free_port(), workers=2)
    with locked(tmp_path / "queue" / "1" / "LOCK"), pytest.raises(ServerEndedError) as ended:
        await server.start()

    assert str(ended.value).startswith("status 1 ")
    assert f"worker 1: {tmp_path / 'queue' / '1' / 'LOCK'} is in use by another process\n" in server.log
    assert "Traceback" not in server.log


async def test_sigterm_during_the_start_ends_it(tmp_path: Path) -> None:
    """A server that is told to stop while its workers are not up yet stops at once, with 0."""
    server = RunningServer(tmp_path, port=free_port(), workers=2)
    with locked(tmp_path / "queue" / "1" / "LOCK"):
        starting = asyncio.create_task(server.start())
        while not server.has_begun or len(server.worker_pids()) < 2:  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.01)
        os.kill(server.pid, signal.SIGTERM)
        with pytest.raises(ServerEndedError) as ended:
            await starting

    assert str(ended.value).startswith("status 0 ")
    assert server.log.endswith("stopped before it was ready\n")


async def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    """When the supervisor alone is killed its workers end too, and a new server takes their place and their mail."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", down=True)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        await server.send("a@shop.test", ["b@swift.test"])
        workers = list(server.worker_pids().values())
        assert (tmp_path / "queue" / "links" / "0.sock").exists()

        os.kill(server.pid, signal.SIGKILL)
        await server.kill_and_wait()
        await server.start()  # over the dead one's sockets
        await sink.profiles["swift"].set_down(False)
        await sink.until(lambda: sink.messages == 1)

        await server.until(lambda: not any(map(is_running, workers)), "the old workers ended")
        assert await server.stop() == 0


async def test_a_worker_that_dies_again_and_again_is_restarted(tmp_path: Path) -> None:
    """Every death is told with its signal, and the server goes on."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        for death in range(3):
            pid = server.kill_worker(1)
            await server.until(lambda pid=pid: server.worker_pids().get(1, pid) != pid, "a successor runs")
            await server.until(lambda d=death: server.log.count("worker 1 ended with signal 9") == d + 1, "it was told")
        await server.send("a@shop.test", ["b@swift.test"])
        await sink.until(lambda: sink.messages == 1)

        assert "worker 1 ended with signal 9, restarting it in 0.5 s\n" in server.log
        assert await server.stop() == 0


async def test_a_worker_is_restarted_with_what_the_supervisor_accepted(tmp_path: Path) -> None:
    """Whatever stands in mta.toml by now: a killed worker comes back with the settings that the others have."""
    server = RunningServer(tmp_path, port=1, workers=2)
    async with server:
        server.config.write_text("workers = 1\nhalf a li")
        killed = server.kill_worker(1)
        await server.until(
            lambda: server.worker_pids().get(1, killed) != killed and server.log.count("restarting") == 1,
            "worker 1 is back",
        )
        await server.until(lambda: "LOCK" not in server.log and _greets(server), "it lets clients in")
        status = await server.stop()

    assert status == 0
    assert server.log.count("ended with") == 1


def _greets(server: RunningServer) -> bool:
    """Both workers greet: enough connections meet either."""
    for _ in range(16):
        with socket.create_connection(("127.0.0.1", server.smtp_port), 30) as client:
            if not client.recv(100).startswith(b"220 "):
                return False
    return True
