"""The mark of a clean stop: left while the log is still the worker's, and only where the disk took everything."""

import errno
import fcntl
from pathlib import Path

from bench.ledger import Village
from mta import stop_mark
from mta.testing.disk_governor import Call, DiskGovernor
from mta.testing.ports import free_port
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns


def is_locked(path: Path) -> bool:
    """Whether another process has this lock."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def test_the_mark_is_left_under_the_lock(tmp_path: Path) -> None:
    """Nobody else can have opened the log, and crashed, before it is there."""
    log = tmp_path / "queue" / "0"
    seen: list[bool] = []

    def look(call: Call) -> None:
        if call.operation == "create" and Path(call.path).name == stop_mark.NAME:
            seen.append(is_locked(log / "LOCK"))

    async with (
        DiskGovernor(tmp_path) as disk,
        RunningServer(tmp_path, port=free_port(), workers=1, env=disk.environment) as server,
    ):
        disk.on_call = look
        status = await server.stop()

    assert (status, seen) == (0, [True])
    assert (log / stop_mark.NAME).exists()
    assert not is_locked(log / "LOCK")


async def test_no_mark_on_a_disk_that_refuses(tmp_path: Path) -> None:
    """What could not be synced at the end may be found as it was before: the next start follows a crash."""
    village = Village(1)
    async with (
        ToyDns(village.zone) as dns,
        DiskGovernor(tmp_path) as disk,
        RunningServer(tmp_path, dns=dns.address, port=free_port(), workers=1, env=disk.environment) as server,
    ):
        await server.send("a@shop.test", ["b@d0.test"])
        disk.refuse(errno.EIO, "sync")
        await server.until_told(lambda events: any(event["event"] == "deferred" for event in events))
        status = await server.stop()
        disk.take()

    assert status == 0
    assert not (tmp_path / "queue" / "0" / stop_mark.NAME).exists()
