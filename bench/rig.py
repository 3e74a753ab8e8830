"""The rig: a server, a sink and a toy DNS as processes of their own, with a configuration made for the occasion.

    with Rig(folder) as rig:
        port = rig.start_sink([Profile(name="swift")])
        rig.start_dns({"swift.test": {"MX": ["10 mx.swift.test"]}, "mx.swift.test": {"A": ["127.0.0.2"]}})
        rig.start_server(policies={"default": '[retry]\\nschedule = ["3s"]\\n'}, workers=2)
        ...

Each writes to a log in the folder, and is ended with the rig, however it ends: by its own process id, first
politely. Nothing but loopback is ever spoken to.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from bench.keys import KeyFile
from bench.processes import cpu_s
from bench.sink import Arrivals, Settings
from bench.temper import Profile
from mta.testing.ports import free_port
from mta.testing.unruled import without_rules

ROOT = Path(__file__).resolve().parent.parent
ADMIN_SOCKET = "admin.sock"
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 35.0  # the server may take 30 s for what is under way
CONTROL_TIMEOUT_S = 20.0  # the sink may be busy taking mail


class RigError(Exception):
    """Something that was started does not run; the text ends with the tail of its log."""


class SinkCounts(msgspec.Struct):
    """What is read of a provider's counts."""

    address: str
    port: int
    connections_max: int
    connections_over: int
    mails_over: int
    messages: int
    recipients: int
    duplicates: int
    replies: dict[str, int]
    connections_total: int = 0
    connections_max_by_address: int = 0
    addresses: int = 0
    mails: int = 0
    signed: int = 0


class Rig:
    """Processes that live as long as the `with` block. `folder` is there and may be written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.smtp_port = 0
        self.sink_port = 0
        self.dns_port = 0
        self._control_port = 0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Rig":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Starts a process whose output goes to NAME.log, in a session of its own, so that Ctrl-C is for us alone.

        `env`: variables beside those of this process.
        """
        with self.log_of(name).open("ab") as log, _uninterrupted():
            self._processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def pid(self, name: str) -> int:
        """The process id of what was started under this name."""
        return self._processes[name].pid

    def start_sink(self, profiles: Sequence[Profile]) -> int:
        """Starts the sink and returns the port that its providers share."""
        config, report = self.folder / "sink.json", self.sink_report
        config.write_bytes(msgspec.json.encode(Settings(list(profiles))))
        self._control_port = free_port()
        files = ["--config", str(config), "--report", str(report)]
        control = ["--control", f"127.0.0.1:{self._control_port}"]
        self.start("sink", [sys.executable, "-m", "bench.sink", *files, *control])
        self.wait("sink", lambda: is_listening("127.0.0.1", self._control_port))
        self.sink_port = next(iter(self.sink_counts().values())).port
        return self.sink_port

    def start_dns(self, zone: Mapping[str, Mapping[str, object]]) -> None:
        """Starts the toy DNS with this zone (see mta.testing.toy_dns)."""
        path = self.folder / "zone.json"
        path.write_bytes(msgspec.json.encode(zone))
        self.dns_port = free_port()
        listen = f"127.0.0.1:{self.dns_port}"
        self.start("dns", [sys.executable, "-m", "mta.testing.toy_dns", "--listen", listen, "--zone", str(path)])
        self.wait("dns", lambda: is_listening("127.0.0.1", self.dns_port))

    def start_server(
        self,
        policies: Mapping[str, str],
        *,
        workers: int = 2,
        durability: str = "fsync",
        key: KeyFile | None = None,
        smtp_port: int = 0,
        more: str = "",
        delivery: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Writes mta.toml and the policies, checks them as an admin would, and starts the server.

        `key`: mail from its domain is signed; `smtp_port` 0 chooses a free one; `more`: further lines of mta.toml;
        `delivery`: further lines of its `[delivery]`; `env`: variables beside this process's own. Raises RigError where
        `mta check` refuses, or the server does not listen. Rules are off but for those that `policies` name: what is
        measured is the engine, and sinks refuse in real providers' words.
        """
        self.smtp_port = smtp_port or free_port()
        (self.folder / "policies").mkdir(exist_ok=True)
        for name, text in without_rules(policies).items():
            (self.folder / "policies" / f"{name}.toml").write_text(text, "utf-8")
        config = self.folder / "mta.toml"
        if key is not None:
            more += f'\n[[dkim]]\ndomain = "{key.domain}"\nselector = "{key.selector}"\nkey = "{key.path}"\n'
        config.write_text(self._config(workers, durability, delivery, more), "utf-8")
        checked = subprocess.run([mta(), "check", "--config", config], capture_output=True, text=True, check=False)
        if checked.returncode:
            raise RigError(f"mta check refuses {config}:\n{checked.stdout}{checked.stderr}")
        self.start("server", [mta(), "serve", "--config", str(config)], env=env)
        self.wait("server", lambda: is_listening("127.0.0.1", self.smtp_port, greeting=b"220"))

    def _config(self, workers: int, durability: str, delivery: str, more: str) -> str:
        return f"""\
hostname = "mta.test"
workers = {workers}

[[listener]]
address = "127.0.0.1:{self.smtp_port}"

[queue]
directory = "queue"
durability = "{durability}"
disk_free_min = "50MB"

[delivery]
port = {self.sink_port}
prohibited_networks = []    # the providers of this rig are on loopback
{delivery}

[dns]
nameservers = ["127.0.0.1:{self.dns_port}"]

[policies]
directory = "policies"

[log]
events = "events.jsonl"

[admin]
address = "unix:{ADMIN_SOCKET}"
{more}"""

    @property
    def events(self) -> Path:
        """The server's event log."""
        return self.folder / "events.jsonl"

    @property
    def sink_report(self) -> Path:
        return self.folder / "sink-counts.json"

    def sink_counts(self) -> dict[str, SinkCounts]:
        """What the sink counted, by provider: of this moment, or its last word where it was stopped."""
        answer = self._ask_sink({}) if "sink" in self._processes else self.sink_report.read_bytes()
        return msgspec.json.decode(answer, type=dict[str, SinkCounts])

    def set_sink(self, name: str, **temper: object) -> None:
        """Changes fields of a provider's profile, such as `down`. Raises RigError where the sink refuses."""
        self._ask_sink({"set": {name: temper}})

    def arrivals(self) -> Arrivals:
        """Every message that the sink took, by id, and when, on this machine's monotonic clock."""
        path = self.folder / "arrivals.msgpack"
        self._ask_sink({"arrivals": str(path)})
        return msgspec.msgpack.decode(path.read_bytes(), type=Arrivals)

    def samples(self) -> list[bytes]:
        """The contents that the sink has kept (`Profile.sample_every`)."""
        path = self.folder / "samples.msgpack"
        self._ask_sink({"samples": str(path)})
        return msgspec.msgpack.decode(path.read_bytes(), type=list[bytes])

    def _ask_sink(self, change: Mapping[str, object]) -> bytes:
        with socket.create_connection(("127.0.0.1", self._control_port), CONTROL_TIMEOUT_S) as control:
            control.sendall(msgspec.json.encode(change) + b"\n")
            answer = control.makefile("rb").readline()
        if answer.startswith(b'{"error":'):
            raise RigError(f"the sink refuses {dict(change)}: {answer.decode('utf-8', 'replace')}")
        return answer

    def log_of(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def tail(self, name: str, lines: int = 25) -> str:
        """The last lines that a process wrote."""
        path = self.log_of(name)
        text = path.read_text("utf-8", "replace") if path.exists() else ""
        last = text.splitlines()[-lines:]
        return "\n".join(f"    {line}" for line in last) or "    (it wrote nothing)"

    def check(self) -> None:
        """Raises RigError where a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise RigError(f"{name} ended with status {process.returncode}; it wrote last:\n{self.tail(name)}")

    def cpu_s(self, name: str) -> float:
        """CPU seconds that a process and all below it have used so far."""
        return cpu_s(self._processes[name].pid)

    @staticmethod
    def cpu_of(pids: Sequence[int]) -> float:
        """CPU seconds that these processes and all below them have used so far."""
        return cpu_s(*pids)

    def stop(self, name: str = "") -> int:
        """Ends one process, or all, and returns the (last) exit status. SIGKILL where SIGTERM does not help."""
        status = 0
        for each in [name] if name else list(reversed(self._processes)):
            process = self._processes.pop(each, None)
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # the session that we made for it
                status = process.wait()
        return status

    def wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        """Returns when it is ready. Raises RigError where the process ends before, or takes too long."""
        end_s = time.monotonic() + READY_TIMEOUT_S
        while not is_ready():
            self.check()
            if time.monotonic() > end_s:
                raise RigError(f"{name} is not ready after {READY_TIMEOUT_S:.0f} s; it wrote last:\n{self.tail(name)}")
            time.sleep(0.05)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM come after the block: in the middle of starting a process they would leave it to nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    met: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: met.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler or signal.SIG_DFL)
    for number in met[:1]:
        signal.raise_signal(number)


def mta() -> str:
    """The command beside the Python that runs this."""
    return str(Path(sys.executable).parent / "mta")


def is_listening(host: str, port: int, greeting: bytes = b"") -> bool:
    """Whether a connection is taken, and begins with the greeting."""
    try:
        with socket.create_connection((host, port), 1.0) as connection:
            return connection.recv(len(greeting)) == greeting if greeting else True
    except OSError:
        return False
