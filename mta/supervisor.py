"""The supervisor: starts the workers, keeps them running, reloads and stops them.

It binds the sockets, so that a port that is taken is told at once and clients who come while a worker is being
restarted wait in the kernel's queue. It carries no mail itself.
"""

import asyncio
import contextlib
import itertools
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from mta import VERSION
from mta.accepted import AcceptedFile
from mta.admin import counters_file
from mta.admin.counters import Counters
from mta.admin.face import AdminFace
from mta.admin.kept_file import KeptFileError
from mta.admin.pages import ReloadPage
from mta.clock import SystemClock
from mta.config import Config, ConfigError, load
from mta.config.forms import Endpoint
from mta.control import Line, Order, Report
from mta.premises import AdminError, bind_soon, lock, try_log
from mta.reporting.counting import Answered
from mta.reporting.questions import Question, Rules, Suspend
from mta.reporting.rotate import Rotator
from mta.reporting.worker_counts import Metrics
from mta.signing_helpers import SigningHelpers
from mta.tasks import Tasks

START_WAIT_S = 120.0  # a log of millions of items takes that long to read at worst
STOP_WAIT_S = 29.0  # a clean stop takes at most 30 s in all
RESTART_DELAYS_S = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0)  # a worker that dies again and again is restarted ever more slowly
CALM_S = 60.0  # after so long without a death the next restart is immediate again
ROTATE_CHECK_S = 5.0
ANSWER_WAIT_S = 5.0  # a worker that counts only its own integers and does not answer by then is stuck
WALK_WAIT_S = 600.0  # millions of messages that wait are read from the disk in slices
RESTART_KEYS = {
    "hostname": "hostname",
    "workers": "workers",
    "listeners": "listener",
    "queue": "queue",
    "dns": "dns",
    "log": "log",
    "admin": "admin",
}
"""Fields of the configuration that a running server keeps, and what mta.toml calls them."""


def _reloaded(running: Config, config: Config) -> tuple[Config, list[str]]:
    """What holds after a reload, and the names of what is written differently but holds only after a restart."""
    kept = {name: getattr(running, name) for name in RESTART_KEYS if getattr(config, name) != getattr(running, name)}
    names = [RESTART_KEYS[name] for name in kept]
    networks = running.delivery.prohibited_networks
    if config.delivery.prohibited_networks != networks:
        kept["delivery"] = msgspec.structs.replace(config.delivery, prohibited_networks=networks)
        names.append("delivery.prohibited_networks")
    return msgspec.structs.replace(config, **kept), names


class _Child:
    """One worker process, and its successors."""

    def __init__(self, number: int, sockets: list[socket.socket]) -> None:
        self.number = number
        self.sockets = sockets
        self.process: subprocess.Popen[bytes] | None = None
        self.line: Line | None = None
        self.state = ""
        self.epoch = 0
        """Of the configuration that it keeps to."""
        self.deaths = 0
        self.died_s = 0.0
        self.tasks = Tasks()
        self.answers: dict[int, asyncio.Future[bytes | None]] = {}
        """Questions that it has not answered, by number."""


class Supervisor:
    """Runs the server in the foreground."""

    def __init__(self, config: Config, config_path: Path, sockets: list[socket.socket]) -> None:
        self._config = config
        self._path = config_path
        self._accepted = AcceptedFile()
        self._place = self._accepted.put(config)
        self._loop = asyncio.get_running_loop()
        self._epoch = 1
        self._is_stopping = False
        self._is_open = False
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        count = config.worker_count
        self._sockets = sockets
        self.addresses = [
            Endpoint(*sockets[number * count].getsockname()[:2]) for number in range(len(config.listeners))
        ]
        self._children = [
            _Child(number, [sockets[listener * count + number] for listener in range(len(config.listeners))])
            for number in range(count)
        ]
        self.workers = count
        self._numbers = itertools.count(1)
        self._signing = SigningHelpers(count, config.queue.directory / "links", say, self._loop)
        self._counters = Counters(config.queue.directory / counters_file.NAME, SystemClock(), self._counted, say)
        self._admin = AdminFace(
            self,
            config.admin.address,
            config.admin.token,
            events_path=None if config.log.events == "-" else Path(config.log.events),
            kept_in=config.queue.directory,
            policies=lambda: self._config.policy_set,
            reload=self.reload,
            version=VERSION,
            hostname=config.hostname,
        )

    async def run(self) -> int:
        """Until SIGTERM or SIGINT; -> the exit status. Raises AdminError."""
        try:
            self._counters.start()
            await self._admin.start()
        except KeptFileError as error:
            raise AdminError(str(error)) from error
        except OSError as error:
            where, address = self._config.origin("admin", "address"), self._config.admin.address
            raise AdminError(f"{where}: cannot listen on {address}: {error.strerror or error}") from error
        try:
            return await self._run()
        finally:
            await self._counters.stop()
            await self._admin.stop()
            await self._signing.stop()

    async def _run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        if signs(self._config):
            self._signing.start()
        for child in self._children:
            self._start(child)
        if not await self._all("linked", START_WAIT_S):
            return await self._give_up()
        self._is_open = True
        for child in self._children:
            self._order(child, Order("open"))
        if not await self._all("open", START_WAIT_S):
            return await self._end() or int(not self._stop.is_set())
        for address in self.addresses:
            say(f"listening on {address}")
        say(f"admin face on {self._config.admin.address}")
        count = len(self._children)
        say(f"{count} worker{'s' if count > 1 else ''} running, queue in {self._config.queue.directory}")
        rotator = self._loop.create_task(self._rotate())
        await self._stop.wait()
        rotator.cancel()
        return await self._end()

    def _on_stop(self) -> None:
        self._stop.set()
        self._changed.set()

    async def _give_up(self) -> int:
        """Not all workers came up. Nobody was let in: they need not be asked to finish anything."""
        self._is_stopping = True
        for child in self._children:
            if child.process is not None:
                child.process.kill()
                await self._loop.run_in_executor(None, child.process.wait)
        self._accepted.close()
        if self._stop.is_set():
            say("stopped before it was ready")
            return 0
        say("the workers did not come up")
        return 1

    def _start(self, child: _Child) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        descriptors = [theirs.fileno(), self._accepted.descriptor, *(bound.fileno() for bound in child.sockets)]
        command = [sys.executable, "-P", "-m", "mta.worker", "--worker", str(child.number)]
        command += ["--accepted", str(self._accepted.descriptor), "--config", str(self._place)]
        command += ["--epoch", str(self._epoch), "--control", str(theirs.fileno())]
        command += ["--again"] if child.deaths else []
        command += ["--sockets", ",".join(str(bound.fileno()) for bound in child.sockets)]
        child.state, child.epoch = "starting", self._epoch
        child.process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)
        theirs.close()
        line = child.line = Line(
            Report,
            lambda report: self._on_report(child, report) if isinstance(report, Report) else None,
            lambda: self._on_end(child, line),
        )
        child.tasks.start(self._attach(line, ours))

    async def _attach(self, line: Line, ours: socket.socket) -> None:
        await self._loop.create_connection(lambda: line, sock=ours)

    def _order(self, child: _Child, order: Order) -> None:
        if child.line is not None:
            child.line.send(order)

    def _on_report(self, child: _Child, report: Report) -> None:
        if report.now == "problem":
            say(f"worker {child.number}: {report.text}")
            return
        if report.now == "answer":
            answer = child.answers.pop(report.number, None)
            if answer is not None and not answer.done():
                answer.set_result(bytes(report.answer))
            return
        if report.now == "changed":
            self._admin.rules_changed(child.number, report.changes)
            return
        if report.now == "counting":
            if report.told is not None:
                self._counters.told(child.number, report.told)
            return
        if report.now == "reloaded":
            child.epoch = report.number
            self._changed.set()
            return
        child.state = report.now
        if report.now == "hearing":
            self._admin.worker_up(child.number)
        if report.now == "linked" and self._is_open and not self._is_stopping:
            self._order(child, Order("open"))
        self._changed.set()

    def _counted(self, worker: int, answered: Answered) -> None:
        """What a worker told is on disk; one that has died meanwhile is not told."""
        self._order(self._children[worker], Order("counted", counted=answered))

    def _on_end(self, child: _Child, line: Line | None) -> None:
        if child.line is not line or child.process is None:
            return
        child.tasks.start(self._bury(child))

    async def _bury(self, child: _Child) -> None:
        """The worker's line has ended: wait for the process, and start its successor."""
        process = child.process
        assert process is not None
        status = await self._loop.run_in_executor(None, process.wait)
        child.process = child.line = None
        for answer in child.answers.values():
            if not answer.done():
                answer.set_result(None)
        was = child.state
        child.state = "stopped" if was == "stopped" else "dead"
        self._changed.set()
        if self._is_stopping:
            return
        now_s = self._loop.time()
        child.deaths = child.deaths + 1 if now_s - child.died_s < CALM_S else 1
        child.died_s = now_s
        delay_s = RESTART_DELAYS_S[min(child.deaths, len(RESTART_DELAYS_S)) - 1]
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if not self._is_open:
            say(f"worker {child.number} ended with {how} before it was ready")
            return
        say(f"worker {child.number} ended with {how}, restarting it" + (f" in {delay_s:g} s" if delay_s else ""))
        await asyncio.sleep(delay_s)
        if not self._is_stopping:
            self._start(child)

    async def ask(self, question: Question, *, worker: int | None = None) -> list[bytes | None]:
        """Every worker's answer as JSON, or that of one; None for a worker that is down or does not answer in time."""
        children = self._children if worker is None else [self._children[worker]]
        return list(await asyncio.gather(*(self._ask(child, question) for child in children)))

    async def _ask(self, child: _Child, question: Question) -> bytes | None:
        if child.line is None or child.process is None or not _hears(child, question):
            return None
        number = next(self._numbers)
        answer = child.answers[number] = self._loop.create_future()
        self._order(child, Order("ask", number=number, question=question))
        wait_s = ANSWER_WAIT_S if isinstance(question, Metrics | Suspend | Rules) else WALK_WAIT_S
        try:
            return await asyncio.wait_for(answer, wait_s)
        except TimeoutError:
            return None
        finally:
            child.answers.pop(number, None)

    async def _all(self, state: str, within_s: float) -> bool:
        """Wait until every worker is in a state; False where that will not be.

        One that dies once clients may be in is restarted, before that the server has failed.
        """

        def is_so() -> bool:
            return all(child.state == state for child in self._children)

        def is_over() -> bool:
            has_failed = not self._is_open and any(child.state == "dead" for child in self._children)
            return is_so() or has_failed or self._stop.is_set()

        await self._until(is_over, self._loop.time() + within_s)
        return is_so()

    async def _until(self, is_over: Callable[[], bool], end_s: float) -> None:
        """Look again whenever a worker changed; returns when it is over, or at that time of the loop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end_s):
                while not is_over():
                    self._changed.clear()
                    await self._changed.wait()

    async def reload(self) -> ReloadPage:
        """As SIGHUP; returns when every worker that runs keeps to it, or has had its time."""
        page = self._reload()
        if page.wrong:
            return page
        epoch = self._epoch
        await self._until(lambda: not self._behind(epoch), self._loop.time() + ANSWER_WAIT_S)
        behind = self._behind(epoch)
        page.workers = len(self._children) - len(behind)
        page.problems += [f"worker {number} has not taken it yet" for number in behind]
        return page

    def _behind(self, epoch: int) -> list[int]:
        """Workers that run and keep to an older configuration; one that is dead comes back with the newest."""
        return [child.number for child in self._children if child.process is not None and child.epoch < epoch]

    def _are_past(self, state: str) -> bool:
        """All workers that run have come so far in the end of the server."""
        return all(child.process is None or child.state in (state, "stopped") for child in self._children)

    def _reload(self) -> ReloadPage:
        """SIGHUP: valid policies and settings take effect, invalid ones change nothing and are told."""
        try:
            config = load(self._path)
        except ConfigError as error:
            say("not reloaded, nothing was changed:")
            for problem in error.problems:
                say(f"  {problem}")
            return ReloadPage(wrong=[str(problem) for problem in error.problems])
        config, restart = _reloaded(self._config, config)
        if restart:
            say(f"changed, but only a restart makes it so: {', '.join(restart)}")
        try:
            self._place = self._accepted.put(config)
        except OSError as error:
            say(f"not reloaded, nothing was changed: {error.strerror}")
            return ReloadPage(wrong=[str(error.strerror or error)])
        self._config = config
        if signs(config):
            self._signing.start()
        self._epoch += 1
        for child in self._children:
            self._order(child, Order("reload", self._epoch, str(self._place)))
        say(f"reloaded, epoch {self._epoch}")
        warnings = [str(warning) for warning in config.warnings]
        for warning in warnings:
            say(f"warning: {warning}")
        return ReloadPage(restart=restart, warnings=warnings)

    async def _rotate(self) -> None:
        log = self._config.log
        if log.events == "-":
            return
        rotator = Rotator(
            Path(log.events), size_bytes_max=log.rotate.size_bytes, keep=log.rotate.keep, compress=log.rotate.compress
        )
        while True:
            await asyncio.sleep(ROTATE_CHECK_S)
            try:
                await self._loop.run_in_executor(None, rotator.tick)
            except OSError as error:
                say(f"the event log was not rotated: {error}")

    async def _end(self) -> int:
        """No new mail, what is under way finishes, at most 30 s."""
        self._is_stopping = True
        end_s = self._loop.time() + STOP_WAIT_S
        for order, state in ((Order("close_doors"), "doors_closed"), (Order("stop"), "stopped")):
            for child in self._children:
                self._order(child, order)
            await self._until(lambda state=state: self._are_past(state), end_s)
        status = 0
        for child in self._children:
            process = child.process
            if process is None:
                continue
            try:
                await self._loop.run_in_executor(None, process.wait, max(0.1, end_s - self._loop.time()))
            except subprocess.TimeoutExpired:
                say(f"worker {child.number} did not stop in time and was killed; its mail is on disk")
                process.kill()
                status = 1
        for bound in self._sockets:
            bound.close()
        self._accepted.close()
        say("stopped")
        return status


def _hears(child: _Child, question: Question) -> bool:
    """Whether a worker is so far that it may be asked; one that starts hears what holds, and nothing else."""
    return child.state in ("linked", "open") or (child.state == "hearing" and isinstance(question, Suspend | Rules))


def signs(config: Config) -> bool:
    """Whether there may be anything to sign."""
    return bool(config.dkim) or config.signing.directory is not None


def say(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the foreground server's own voice


async def serve(config: Config, config_path: Path) -> int:
    """Run the server until it is told to stop; raises StartError."""
    try_log(config)
    locked = lock(config.queue.directory)
    try:
        return await Supervisor(config, config_path, await bind_soon(config)).run()
    finally:
        locked.close()
