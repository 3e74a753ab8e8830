"""Signing helpers: the processes that sign for all workers, one a core.

The supervisor starts them where keys are configured and keeps them running. They carry no mail and no state: one that
dies is restarted at once, one that hangs is killed first, and the workers give its work to the others or wait for it.
Each tells on its line to this process that it lives, and ends by itself when that line closes, so that none survives
its supervisor.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

RESTART_DELAYS_S = (
    0.0,
    0.0,
    0.5,
    1.0,
    2.0,
    5.0,
)  # as for workers: one that dies again and again comes ever more slowly
CALM_S = 60.0  # after so long without a death the next restart is immediate again
END_WAIT_S = 3.0  # a helper whose line has closed ends after the batch that it is at
HEARTBEAT_S = 5.0  # so often a helper says that it lives
LOOK_S = 10.0  # so often it is looked at who was silent since
SILENT_LOOKS_MAX = 3
"""So often in a row a helper may be found silent. Counted, not timed: where the whole server stood still, all of them
were silent, and none of them hangs."""
READ_BYTES = 4096


def socket_path(directory: Path, number: int) -> Path:
    """Where a helper listens for the workers."""
    return directory / f"signer-{number}.sock"


class _Helper:
    """One helper process, and its successors."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.line: socket.socket | None = None
        self.keeper: asyncio.Task[None] | None = None
        self.deaths = 0
        self.died_s = 0.0
        self.silent_looks = 0


class SigningHelpers:
    """Starts helpers, keeps them running and ends them."""

    def __init__(
        self,
        count: int,
        directory: Path,
        say: Callable[[str], None],
        loop: asyncio.AbstractEventLoop,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """So many, with their sockets in this folder (`socket_path`); `say` is given a line for the admin.

        Each says every `heartbeat_s` that it lives, well within LOOK_S.
        """
        self._directory = directory
        self._say = say
        self._loop = loop
        self._helpers = [_Helper(number) for number in range(count)]
        self._heartbeat_s = heartbeat_s
        self._next_look: asyncio.TimerHandle | None = None
        self._is_stopping = False

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [helper.process.pid for helper in self._helpers if helper.process is not None]

    @property
    def silent_looks(self) -> list[int]:
        """How often in a row each has been found silent."""
        return [helper.silent_looks for helper in self._helpers]

    def start(self) -> None:
        """Start what does not run; nothing where all do. Raises OSError where the folder cannot be made."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._is_stopping = False
        for helper in self._helpers:
            if helper.keeper is None:
                helper.keeper = self._loop.create_task(self._keep(helper))
                # At once: workers that come up next find them.
                self._spawn(helper)
        if self._next_look is None:
            self._next_look = self._loop.call_later(LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._next_look = self._loop.call_later(LOOK_S, self._look_again)
        self.look()

    def look(self) -> None:
        """Kill those that are silent for the third time in a row: they hang, and are replaced as if they had died."""
        for helper in self._helpers:
            if helper.process is None:
                continue
            helper.silent_looks += 1
            if helper.silent_looks == SILENT_LOOKS_MAX:
                self._say(f"signing helper {helper.number} does not say that it lives, killing it")
                helper.process.kill()

    def _spawn(self, helper: _Helper) -> None:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._say(f"signing helper {helper.number} cannot be started: {error.strerror}")
            return
        command = [sys.executable, "-P", "-m", "mta.signing.helper"]
        command += ["--listen", str(socket_path(self._directory, helper.number)), "--control", str(theirs.fileno())]
        command += ["--heartbeat", str(self._heartbeat_s)]
        try:
            helper.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError as error:
            ours.close()
            self._say(f"signing helper {helper.number} cannot be started: {error.strerror}")
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        helper.line = ours
        helper.silent_looks = 0

    async def _keep(self, helper: _Helper) -> None:
        """Wait for a helper's death and start its successor, until we are stopping."""
        while True:
            how = "could not be started"
            if helper.process is not None and helper.line is not None:
                await self._ended(helper, helper.line)
                status = await self._loop.run_in_executor(None, helper.process.wait)
                how = f"ended with signal {-status}" if status < 0 else f"ended with status {status}"
            self._let_go(helper)
            if self._is_stopping:
                return
            now_s = self._loop.time()
            helper.deaths = helper.deaths + 1 if now_s - helper.died_s < CALM_S else 1
            helper.died_s = now_s
            delay_s = RESTART_DELAYS_S[min(helper.deaths, len(RESTART_DELAYS_S)) - 1]
            after = f" in {delay_s:g} s" if delay_s else ""
            self._say(f"signing helper {helper.number} {how}, restarting it{after}")
            await asyncio.sleep(delay_s)
            self._spawn(helper)

    async def _ended(self, helper: _Helper, line: socket.socket) -> None:
        """Hear on a helper's line that it lives, until it has closed."""
        ended = self._loop.create_future()

        def hear() -> None:
            try:
                heard = bool(line.recv(READ_BYTES))
            except BlockingIOError:
                return
            except OSError:
                heard = False
            if heard:
                helper.silent_looks = 0
            elif not ended.done():
                ended.set_result(None)

        self._loop.add_reader(line, hear)
        try:
            await ended
        finally:
            self._loop.remove_reader(line)

    def _let_go(self, helper: _Helper) -> None:
        if helper.line is not None:
            helper.line.close()
        helper.line = helper.process = None

    async def stop(self) -> None:
        """End them all and wait until they have; what they were signing is signed again when somebody asks."""
        self._is_stopping = True
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        keepers = [helper.keeper for helper in self._helpers if helper.keeper is not None]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        running = [(helper, helper.process) for helper in self._helpers if helper.process is not None]
        for helper, _ in running:
            if helper.line is not None:
                helper.line.close()
                helper.line = None
        for helper, process in running:
            try:
                await self._loop.run_in_executor(None, process.wait, END_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                await self._loop.run_in_executor(None, process.wait)
            socket_path(self._directory, helper.number).unlink(missing_ok=True)
        for helper in self._helpers:
            self._let_go(helper)
            helper.keeper = None
