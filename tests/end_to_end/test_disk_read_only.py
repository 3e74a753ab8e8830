"""A disk that cannot be written: the start is refused in a line that says what, where and what to do, and nothing is
changed; a running server goes on by itself when the disk can be written again."""

import errno
from pathlib import Path

import pytest

from bench.ledger import Village
from bench.sink import Sink
from mta.testing.disk_governor import WRITES, DiskGovernor
from mta.testing.ports import free_port
from mta.testing.running_server import RunningServer, ServerEndedError
from mta.testing.toy_dns import ToyDns

REMEDY = "mount it writable"


def files(folder: Path) -> dict[str, bytes]:
    """Everything that lies in the queue's directory."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def refused(server: RunningServer) -> tuple[str, list[str]]:
    """A start that is to fail: how it ended, and what the server said."""
    before = len(server.log)
    with pytest.raises(ServerEndedError) as ended:
        await server.start()
    return str(ended.value).partition(" before ")[0], server.log[before:].splitlines()


async def test_a_queue_that_is_read_only(tmp_path: Path) -> None:
    """The server ends with 1 and one line; what waits lies there as it did, and goes out when the disk is mended."""
    village = Village(1)
    queue = tmp_path / "queue"
    async with ToyDns(village.zone) as dns, Sink(village.profiles(down=True)) as sink, DiskGovernor(tmp_path) as disk:
        server = RunningServer(
            tmp_path, dns=dns.address, port=sink.port, policies=village.policies(), env=disk.environment
        )
        async with server:
            await server.send("a@shop.test", ["b@d0.test"])
            await server.stop()
            before = files(queue)

            disk.refuse(errno.EROFS, *WRITES)
            status, said = await refused(server)
            after = files(queue)
            disk.take()
            await sink.profiles["d0.test"].set_down(False)
            await server.start()
            await sink.until(lambda: sink.messages == 1)
            await server.stop()

    assert status == "status 1"
    (line,) = said
    assert line.startswith(f"the queue {queue} cannot be used, and nothing was changed: {queue}/server.lock: Read-only")
    assert REMEDY in line
    assert after == before


@pytest.mark.parametrize(("refused_calls", "named"), [(WRITES, "0/LOCK"), (("append",), "0/0000000000000002.seg")])
async def test_a_log_that_is_read_only(tmp_path: Path, refused_calls: tuple[str, ...], named: str) -> None:
    """A worker that cannot write its log names the file, and what to do; the server ends with 1."""
    async with DiskGovernor(tmp_path) as disk:
        server = RunningServer(tmp_path, port=free_port(), workers=2, env=disk.environment)
        async with server:
            await server.stop()

            disk.refuse(errno.EROFS, *refused_calls, where=lambda path: "/queue/0/" in path and "SEGMENTS" not in path)
            status, said = await refused(server)

    assert status == "status 1"
    (line,) = [line for line in said if line.startswith("worker 0: ")]
    assert line.startswith(f"worker 0: {tmp_path}/queue/{named}: Read-only file system; ")
    assert REMEDY in line
    assert said[-1] == "the workers did not come up"
    assert "Traceback" not in server.log


async def test_a_worker_that_dies_while_the_disk_is_read_only(tmp_path: Path) -> None:
    """It is started again and again, says each time why it does not come up, and does when the disk is mended."""
    village = Village(1)
    async with (
        ToyDns(village.zone) as dns,
        DiskGovernor(tmp_path) as disk,
        RunningServer(tmp_path, dns=dns.address, port=free_port(), workers=1, env=disk.environment) as server,
    ):
        disk.refuse(errno.EROFS, *WRITES)
        server.kill_worker(0)
        await server.until(lambda: server.log.count("LOCK: Read-only file system; ") >= 2, "it was tried twice")
        disk.take()
        await server.send("a@shop.test", ["b@d0.test"])
        status = await server.stop()

    assert status == 0
