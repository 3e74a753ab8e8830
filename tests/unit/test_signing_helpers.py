"""The helpers that the supervisor runs: real processes, found, restarted and ended."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.signing.signature import Prepared
from mta.signing.signer import Signer
from mta.signing_helpers import SILENT_LOOKS_MAX, SigningHelpers, socket_path
from mta.testing.connection_rig import until
from mta.testing.signing_rig import ed25519_key, rsa_key

WITHIN_S = 60.0
HEARTBEAT_S = 0.02
DIGEST = bytes(range(32))


class Watched:
    """Helpers, what they say, and a signer that asks them for every signature."""

    def __init__(self, directory: Path, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.said: list[str] = []
        self.has_said = asyncio.Event()
        self.helpers = SigningHelpers(count, directory, self._say, loop, HEARTBEAT_S)
        self.signer = Signer(loop, [socket_path(directory, number) for number in range(count)], alone_max=0)

    def _say(self, line: str) -> None:
        self.said.append(line)
        self.has_said.set()

    async def sign(self, count: int = 1) -> None:
        """So many signatures, by two keys each, all of them right."""
        keys = (rsa_key(), ed25519_key())
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[list[bytes] | None]] = []
        for _ in range(count):
            future = loop.create_future()
            waiting.append(future)
            self.signer.sign([Prepared(key, b"", DIGEST) for key in keys], future.set_result)
        for signatures in await asyncio.wait_for(asyncio.gather(*waiting), WITHIN_S):
            assert signatures is not None
            assert all(key.confirms(each, DIGEST) for key, each in zip(keys, signatures, strict=True))

    async def sign_until_all_are_up(self) -> None:
        """Until each helper has greeted: one that is still starting has its own way with signals."""
        async with asyncio.timeout(WITHIN_S):
            while self.signer.helpers < len(self.helpers.pids):
                await self.sign()


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path / "queue" / "links", 2)
    yield watched
    await watched.signer.close()
    await watched.helpers.stop()


async def test_signs(watched: Watched):
    """Helpers that were just started sign what is asked, with any key; the folder is made where there is none."""
    watched.helpers.start()

    await watched.sign(100)

    assert len(watched.helpers.pids) == 2
    assert watched.said == []


async def test_start_again_changes_nothing(watched: Watched):
    """What runs is not started twice."""
    watched.helpers.start()
    pids = watched.helpers.pids

    watched.helpers.start()

    assert watched.helpers.pids == pids


async def test_killed_ones_come_back(watched: Watched):
    """A helper that dies is replaced at once, and the admin is told; what it had is signed all the same."""
    watched.helpers.start()
    await watched.sign(10)
    before = watched.helpers.pids
    asked = asyncio.ensure_future(watched.sign(300))
    await asyncio.sleep(0)

    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await asked

    await asyncio.wait_for(watched.has_said.wait(), WITHIN_S)
    assert "ended with signal 9, restarting it" in watched.said[0]
    assert not set(watched.helpers.pids) & set(before)


async def test_one_that_hangs_is_replaced(watched: Watched):
    """A helper that is silent whenever it is looked at is killed and restarted; one that lives is left alone."""
    watched.helpers.start()
    await watched.sign_until_all_are_up()
    before = watched.helpers.pids

    os.kill(before[0], signal.SIGSTOP)
    looks = 0
    while not watched.said:
        watched.helpers.look()
        looks += 1
        await until(lambda: not watched.helpers.silent_looks[1])
    await until(lambda: len(watched.said) == 2)

    assert looks >= SILENT_LOOKS_MAX
    assert watched.said == [
        "signing helper 0 does not say that it lives, killing it",
        "signing helper 0 ended with signal 9, restarting it",
    ]
    await until(lambda: len(watched.helpers.pids) == 2)
    await watched.sign_until_all_are_up()
    after = watched.helpers.pids
    assert after[0] != before[0]
    assert after[1] == before[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_are_for_the_supervisor(watched: Watched, number: int):
    """Ctrl-C, a service manager's SIGTERM and SIGHUP to all processes end no helper: workers still need it."""
    watched.helpers.start()
    await watched.sign_until_all_are_up()

    for pid in watched.helpers.pids:
        os.kill(pid, number)
    await watched.sign(20)

    assert watched.said == []


async def test_stop(watched: Watched, tmp_path: Path):
    """After the end no process and no socket is left, and it can begin anew."""
    watched.helpers.start()
    await watched.sign()
    pids = watched.helpers.pids

    await watched.helpers.stop()

    assert watched.helpers.pids == []
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list((tmp_path / "queue" / "links").iterdir()) == []
    watched.helpers.start()
    await watched.sign()


async def test_stop_without_start(watched: Watched):
    """Where nothing was started nothing is to be ended."""
    await watched.helpers.stop()

    assert watched.helpers.pids == []


async def test_a_folder_with_a_long_name(tmp_path: Path):
    """A path that does not fit into a socket's address is no problem."""
    watched = Watched(tmp_path / ("x" * 120) / "links", 1)
    watched.helpers.start()

    await watched.sign()

    await watched.signer.close()
    await watched.helpers.stop()


async def test_no_descriptor_left(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """A helper that cannot be started for want of a descriptor is started as soon as there is one."""
    plain = socket.socketpair

    def fails() -> None:
        monkeypatch.setattr(socket, "socketpair", plain)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socketpair", fails)
    watched.helpers.start()

    await watched.sign(10)
    await asyncio.wait_for(watched.has_said.wait(), WITHIN_S)
    assert watched.said[0] == "signing helper 0 cannot be started: Too many open files"
