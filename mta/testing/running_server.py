"""A running server for tests: `mta serve` as a process of its own, with a configuration made for the test.

    async with RunningServer(tmp_path, dns=dns.address, port=sink.port) as server:
        await server.send("a@shop.test", ["b@swift.test"])
        events = await server.until_told(lambda events: any(each["event"] == "delivered" for each in events))

Everything listens on loopback and on free ports; what is started is ended with the block, by its own process id.
"""

import asyncio
import json
import os
import re
import signal
import smtplib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from mta.testing.ports import free_port
from mta.testing.unruled import rules_off
from mta_policies import layers

READY_S = 60.0  # a loaded machine starts two workers slowly; a server that never gets ready says why at once
STOP_S = 40.0
POLL_S = 0.02  # how often a file or a process is looked at
LOOK_SHARE = 4.0  # and at most a fifth of the time goes into looking: the server has work to do meanwhile

Event = dict[str, Any]


class ServerEndedError(Exception):
    """The server is not running; the text is what it said."""


class RunningServer:
    """The process, its files, and what a test asks of it.

    `port`: where MX hosts are spoken to (a sink's); `dns`: a toy DNS; `policies`: name -> text of a policy file, laid
    over the shipped ones; `more`: further lines of mta.toml; `queue`: further lines of `[queue]`.

    `shipped`: all shipped policies hold, as they are. Else there is only `default`, without its rules: peers of a test
    may refuse in any words, and to read policies of providers that none of them is takes most of a start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        dns: str = "",
        workers: int = 2,
        policies: Mapping[str, str] | None = None,
        shipped: bool = False,
        queue: str = "",
        delivery: str = "",
        more: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.smtp_port = free_port()
        self.config = folder / "mta.toml"
        self.events_path = folder / "events.jsonl"
        self.log_path = folder / "server.log"
        self.workers = workers
        self._port = port
        self._dns = dns
        self._queue = queue
        self._delivery = delivery
        self._more = more
        self._shipped = shipped
        self.env = dict(env or {})
        """Beside this process's own variables, at the next start."""
        self._process: asyncio.subprocess.Process | None = None
        self._events: list[Event] = []
        self._read_bytes = 0
        """Of the event log."""
        (folder / "policies").mkdir(exist_ok=True)
        for name, text in {layers.DEFAULT: "", **(policies or {})}.items():
            self.write_policy(name, text)
        self.write_config()

    def write_policy(self, name: str, text: str) -> None:
        """Put a policy file into the admin's folder; `reload` makes it take effect."""
        if name == layers.DEFAULT and not self._shipped:
            text = f"{text}\n{rules_off()}"
        (self.folder / "policies" / f"{name}.toml").write_text(text)

    def write_config(self) -> None:
        """Write mta.toml anew, from the attributes."""
        servers = f'["{self._dns}"]' if self._dns else "[]"
        disabled = [] if self._shipped else [name for name in layers.shipped_names() if name != layers.DEFAULT]
        self.config.write_text(
            f"""hostname = "mail.server.test"
workers = {self.workers}

[queue]
directory = "queue"
disk_free_min = "1MB"
{self._queue}

[delivery]
port = {self._port}
prohibited_networks = []
{self._delivery}

[dns]
nameservers = {servers}

[policies]
directory = "policies"
disabled = {json.dumps(disabled)}

[log]
events = "events.jsonl"

[admin]
address = "unix:admin.sock"

[[listener]]
address = "127.0.0.1:{self.smtp_port}"

{self._more}
"""
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            self.kill()
            await self._process.wait()

    @property
    def has_begun(self) -> bool:
        """There is a process."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server said on standard error, of all its starts."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    async def start(self) -> None:
        """Start it and wait until it lets clients in; raises ServerEndedError."""
        before = len(self.log)
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mta.cli", "serve", "--config", str(self.config)),
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
            )
        await self.until(lambda: "running, queue in" in self.log[before:], "it let clients in", READY_S)

    async def ended(self) -> int:
        """Wait until the supervisor is gone; -> its exit status, negative for a signal."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    async def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Wait for something outside this process; raises TimeoutError or ServerEndedError with the server's words."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while True:
            looked_s = loop.time()
            if condition():
                return
            took_s = loop.time() - looked_s
            if self._process is not None and self._process.returncode is not None:
                raise ServerEndedError(f"status {self._process.returncode} before {what}: {self.log[-3000:]}")
            if loop.time() > end_s:
                raise TimeoutError(f"not within {timeout_s} s: {what}; the server said: {self.log[-2000:]}")
            await asyncio.sleep(max(POLL_S, LOOK_SHARE * took_s))

    async def stop(self) -> int:
        """SIGTERM; -> its exit status."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), STOP_S)

    def worker_pids(self) -> dict[int, int]:
        """Worker number -> process id, of those that run now; none where the supervisor is gone."""
        return {
            int(command[command.index(b"--worker") + 1]): pid
            for pid, command in self._children()
            if b"--worker" in command
        }

    def _children(self) -> Iterator[tuple[int, list[bytes]]]:
        """Process id and command line of all that the supervisor started and that runs."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return
        for child in children:
            try:
                yield int(child), Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue

    def helper_pids(self) -> list[int]:
        """Process ids of the signing helpers that run now."""
        return [pid for pid, command in self._children() if b"mta.signing.helper" in command]

    def worker_of(self, client_port: int) -> int:
        """Which worker holds the connection from this port of ours; raises ServerEndedError where none does."""
        ports = (f":{self.smtp_port:04X}", f":{client_port:04X}")
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, *_, inode = line.split()[:10]
            if (local[-5:], remote[-5:]) != ports:
                continue
            for worker, pid in self.worker_pids().items():
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    if os.readlink(descriptor) == f"socket:[{inode}]":
                        return worker
        raise ServerEndedError(f"nobody has the connection from port {client_port}")

    def kill(self) -> None:
        """SIGKILL to the supervisor and all its workers, at once."""
        for pid in [self.pid, *self.worker_pids().values()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    async def kill_and_wait(self) -> None:
        """As `kill`; returns when the supervisor is gone."""
        assert self._process is not None, "not started"
        self.kill()
        await self._process.wait()

    def kill_worker(self, number: int) -> int:
        """SIGKILL to one worker; -> its process id."""
        pid = self.worker_pids()[number]
        os.kill(pid, signal.SIGKILL)
        return pid

    async def reload(self) -> None:
        """SIGHUP; returns when the server said what it made of it."""
        assert self._process is not None, "not started"
        before = len(re.findall("reloaded", self.log))
        self._process.send_signal(signal.SIGHUP)
        await self.until(lambda: len(re.findall("reloaded", self.log)) > before, "it answered SIGHUP")

    async def send(
        self, sender: str, recipients: Sequence[str], content: bytes = b"Subject: test\r\n\r\nHello.\r\n"
    ) -> str:
        """Hand in one message with Python's smtplib; -> its id. Raises smtplib's exceptions."""

        def hand_in() -> str:
            with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=60) as client:
                client.ehlo("application.test")
                client.mail(sender, [])
                for recipient in recipients:
                    code, text = client.rcpt(recipient, [])
                    if code != 250:
                        raise smtplib.SMTPRecipientsRefused({recipient: (code, text)})
                code, text = client.data(content)
                if code != 250:
                    raise smtplib.SMTPDataError(code, text)
                return text.decode().rsplit(" ", 1)[1]

        return await asyncio.to_thread(hand_in)

    def events(self) -> list[Event]:
        """All whole lines of the event log so far."""
        try:
            with self.events_path.open("rb") as file:
                file.seek(self._read_bytes)
                whole, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        if whole:
            self._read_bytes += len(whole) + 1
            self._events += map(msgspec.json.decode, whole.split(b"\n"))
        return list(self._events)

    async def until_told(
        self, condition: Callable[[list[Event]], bool], what: str = "the events", timeout_s: float = 60.0
    ) -> list[Event]:
        """Wait until the event log says something; -> all events."""
        await self.until(lambda: condition(self.events()), what, timeout_s)
        return self.events()
