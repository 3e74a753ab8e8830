"""EngineRig: a whole machine in one thread: real workers with everything in them, on memory disk, network and time.

The workers are `mta.worker.Worker` as the server runs it; clock, chance, disk, nameservers and the place of the event
log are given to it from here. Clients hand mail in through the real sessions. What happens is told to a Ledger.

    with EngineRig(seed, directory, ledger_of, policies={"default": ""}) as rig:
        rig.start_all()
        rig.run(60.0)
"""

import asyncio
import errno
import json
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import msgspec

from mta import stop_mark
from mta import worker as worker_module
from mta.admin import kept_file, suspension_file
from mta.config import Config
from mta.config import load as load_config
from mta.delivery import connection as connection_module
from mta.delivery.tls import TlsContexts
from mta.reporting.event_log import EventLog
from mta.reporting.questions import Answer, Question, Suspend, Suspension
from mta.submission.session import Session
from mta.testing.ledger import Ledger
from mta.testing.memory_disk import MemoryDisk
from mta.testing.memory_network import SOCKETS, MemoryNetwork
from mta.testing.memory_tls import trusted_file
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.simulated_dns import SimulatedDns
from mta.testing.simulated_helpers import SimulatedHelper, SimulatedSigner
from mta.testing.simulated_loop import SimulatedLoop, SimulatedTime, SpinningError
from mta.testing.simulated_supervisor import SimulatedSupervisor, save
from mta.testing.simulated_worker import SharedLog, SimulatedWorker
from mta_policies import layers
from mta_policies.adapting import RULE
from mta_queue import segment

CLIENT_S = 0.0004  # between clients and doors
CLIENT_ADDRESS = "127.0.0.1"

_CONFIG = """
hostname = "me.test"
workers = {workers}
[[listener]]
address = "127.0.0.1:2525"
[queue]
directory = "queue"
message_size_max = "64KB"
memory_max = "{memory}"
[delivery]
prohibited_networks = []
[log]
events = "events.jsonl"
[policies]
disabled = {disabled}
{tables}
"""
_DISABLED = json.dumps([name for name in layers.shipped_names() if name != layers.DEFAULT])


class EngineRig:
    """The machine: workers that come and go, and what they share."""

    def __init__(
        self,
        seed: int,
        directory: Path,
        ledger_of: Callable[[SimulatedClock], Ledger],
        *,
        workers: int = 2,
        memory: str = "1MB",
        tables: str = "",
        policies: dict[str, str],
    ) -> None:
        """`tables`: more of the configuration; `policies`: name -> text, "default" among them, and those of tenants as
        "tenants/TENANT/NAME"."""
        self.random = Random(seed)
        self.time = SimulatedTime(seed)
        self.clock = SimulatedClock(self.time)
        self.ledger = ledger_of(self.clock)
        self.network = MemoryNetwork(self.time)
        self.outside = self.network.outside
        self.dns = SimulatedDns(self.random)
        self.disk = MemoryDisk(seed)
        self.directory = directory
        self.epoch = 1
        self.workers: list[SimulatedWorker | None] = [None] * workers
        self.helpers: list[SimulatedHelper | None] = [None] * workers
        """They sign, one a worker."""
        self.supervisor: SimulatedSupervisor | None = None
        """None: it is gone with all workers."""
        self.suspensions: list[Suspension] = []
        self.built: Callable[[SimulatedWorker], None] = lambda worker: None
        """Called with every worker before it starts: where a test puts a fault."""
        self.synced_s: dict[str, float] = {}
        """Log -> when it was last synced."""
        self._tables, self._memory = tables, memory
        self.config = self._configured(workers, policies)
        self._patch = mock.patch.multiple(
            worker_module,
            SystemClock=lambda: self.clock,
            Random=lambda: Random(self.random.getrandbits(32)),
            OsDisk=lambda: self.disk,
            EventLog=partial(EventLog, writer=SharedLog(self.ledger)),
            say=self.ledger.happened,
            Signer=SimulatedSigner,
            TlsContexts=partial(TlsContexts, trusted=trusted_file()),
        )
        self._sockets = mock.patch.object(connection_module, "socket", SOCKETS)
        self._kept_files = mock.patch.object(kept_file, "save", save)
        self.is_stopping = False
        """All are asked to stop in order: until they are back nothing worse happens to them."""
        self._full_until_s = 0.0
        self._watch_disk()

    def __enter__(self) -> "EngineRig":
        for patch in (self._patch, self._sockets, self._kept_files):
            patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        for patch in (self._patch, self._sockets, self._kept_files):
            patch.stop()
        for worker in self.living():
            self.network.kill(worker.simulated_loop)
        self._end_supervisor()

    def _configured(self, workers: int, policies: dict[str, str]) -> Config:
        folder = self.directory / f"policies-{self.epoch}"
        folder.mkdir()
        for name, text in policies.items():
            path = folder / f"{name}.toml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for number in range(workers):
            (self.directory / "queue" / str(number)).mkdir(parents=True, exist_ok=True)
        path = self.directory / "mta.toml"
        path.write_text(_CONFIG.format(workers=workers, memory=self._memory, disabled=_DISABLED, tables=self._tables))
        return msgspec.structs.replace(load_config(path), policy_set=layers.load(folder, shipped=folder))

    def fail_disk(self, for_s: float) -> None:
        """It is full: nothing can be written for a while."""
        self.ledger.happened(f"the disk is full for {for_s:g} s")
        self._full_until_s = self.time.now_s + for_s
        self.at(for_s, lambda: self.ledger.happened("the disk has room"))

    def _watch_disk(self) -> None:
        def called(operation: str, path: Path) -> None:
            if operation in ("append", "create", "sync") and self.time.now_s < self._full_until_s:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            if operation == "sync" and path.suffix == segment.SUFFIX:  # the list of segments says nothing of fates
                self.synced_s[path.parent.name] = self.time.now_s

        self.disk.on_call = called

    # time

    def run(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """So much time passes, or until it is over: -> whether it is."""
        try:
            is_over_now = self.time.run(self.time.now_s + seconds, is_over)
        except SpinningError as error:
            self.ledger.violated(str(error))
            raise AssertionError(self.ledger.story()) from error
        for problem in self.time.problems:
            self.ledger.violated(problem)
        self.time.problems.clear()
        return is_over_now

    def at(self, seconds: float, what: Callable[[], object]) -> None:
        """Something from outside happens in so many seconds."""
        self.outside.exactly_at(self.time.now_s + seconds, what)

    def do(self, loop: SimulatedLoop, work: Coroutine[Any, Any, Any], then: Callable[[Any], object]) -> None:
        """A task in a loop; nothing follows where its process dies."""

        def done(task: asyncio.Task[Any]) -> None:
            if loop.is_dead or task.cancelled():
                return
            error = task.exception()
            if error is not None:
                loop.call_exception_handler({"message": "a task failed", "exception": error})
            else:
                then(task.result())

        loop.create_task(work).add_done_callback(done)

    # workers

    def living(self) -> list[SimulatedWorker]:
        """Those that are, whatever they are about."""
        return [worker for worker in self.workers if worker is not None]

    @property
    def are_all_up(self) -> bool:
        """Every worker lets clients in."""
        return all(worker is not None and worker.is_up for worker in self.workers)

    def start_all(self) -> None:
        """All that are not there."""
        for number, worker in enumerate(self.workers):
            if worker is None:
                self.start(number)
        for number, helper in enumerate(self.helpers):
            if helper is None:
                self.start_helper(number)

    def start(self, number: int) -> None:
        """A new life of a worker."""
        if number >= len(self.workers) or self.workers[number] is not None:
            return
        if self.supervisor is None:
            self.supervisor = SimulatedSupervisor(
                self.time, self.clock, self.directory / "queue", lambda: self.workers, self.ledger.happened
            )
        loop = SimulatedLoop(self.time, f"worker {number}")
        loop.attach(self.network)
        worker = self.workers[number] = SimulatedWorker(self, number, loop)
        self.supervisor.attach(worker)
        self.ledger.restrained.begins(loop)
        self.built(worker)
        self.do(loop, worker.begin(), lambda _: self.ledger.happened(f"worker {number} is up: {worker.is_up}"))

    def hears(self, worker: SimulatedWorker) -> None:
        """It is about to send, and hears what holds from now on."""
        assert self.supervisor is not None, "workers end with it"
        self.supervisor.hears(worker)
        self.ledger.restrained.hears(worker.simulated_loop)

    def start_helper(self, number: int) -> None:
        """A new life of a signing helper, in place of one that hangs."""
        self.kill_helper(number)
        path = self.directory / "queue" / "links" / f"signer-{number}.sock"
        self.helpers[number] = SimulatedHelper(self.network, path)

    def kill_helper(self, number: int) -> None:
        """SIGKILL."""
        helper, self.helpers[number] = self.helpers[number], None
        if helper is not None:
            helper.kill()

    def start_again(self, worker: SimulatedWorker) -> None:
        """A worker could not start."""
        if worker.number < len(self.workers) and self.workers[worker.number] is worker:
            self.kill(worker.number)
            self.start(worker.number)

    def kill(self, number: int) -> None:
        """SIGKILL; what it had written stays."""
        worker = self.workers[number]
        if worker is not None:
            self.ledger.happened(f"worker {number} is killed")
            self._gone(worker, self.time.now_s)
            self.disk.kill()
            self._watch_disk()

    def lose_power(self) -> None:
        """All workers are gone, and what was not synced."""
        self.ledger.happened("the power fails")
        for worker in self.living():
            self._gone(worker, self.time.now_s)
        for crash in self.ledger.crashes:
            if self.workers[crash.worker : crash.worker + 1] == [None]:  # one that was dead already loses as much
                crash.lost_since_s = min(crash.lost_since_s, self._synced_s(crash.worker))
        for number in range(len(self.helpers)):
            self.kill_helper(number)
        self._end_supervisor()
        self.ledger.restrained.power_lost()
        self.disk.lose_power()
        self._watch_disk()

    def _synced_s(self, number: int) -> float:
        """What a worker decided until then is on stable storage."""
        return self.synced_s.get(str(number), 0.0) - 0.1

    def _gone(self, worker: SimulatedWorker, lost_since_s: float) -> None:
        self.workers[worker.number] = None
        self.network.kill(worker.simulated_loop)
        if self.supervisor is not None:
            self.supervisor.gone(worker)
        self.ledger.crashed(worker.number, worker.simulated_loop, lost_since_s)

    def _end_supervisor(self) -> None:
        supervisor, self.supervisor = self.supervisor, None
        if supervisor is not None:
            self.network.kill(supervisor.loop)

    def restart_with(self, workers: int, then: Callable[[], object] = lambda: None) -> None:
        """All stop in order, and so many start."""
        self.ledger.happened(f"the server stops, to come back with {workers} workers")
        self.is_stopping = True
        workers_before = self.living()
        left = list(workers_before)
        config = self._configured(workers, self._policies_now())
        self.helpers = [self.helpers[number] if number < len(self.helpers) else None for number in range(workers)]

        def stopped(worker: SimulatedWorker) -> None:
            if self.workers[worker.number] is worker:
                self.workers[worker.number] = None
            if stop_mark.NAME not in self.disk.names(worker.store.directory):
                self.ledger.happened(f"worker {worker.number} stops, and the disk does not take its last words")
                self.ledger.crashed(worker.number, worker.simulated_loop, self._synced_s(worker.number))
            self.network.kill(worker.simulated_loop)
            left.remove(worker)
            if not left:
                assert self.supervisor is not None, "it stops after its workers"
                self.do(self.supervisor.loop, self.supervisor.stop(), lambda _: self.at(0.0, all_stopped))

        def all_stopped() -> None:
            self._end_supervisor()
            self.config = config
            self.workers = [None] * workers
            self.is_stopping = False
            self.start_all()
            then()

        def closed(worker: SimulatedWorker) -> None:
            closing.remove(worker)
            if not closing:
                for each in workers_before:
                    self.do(
                        each.simulated_loop, each.stop(), lambda _, each=each: self.at(0.01, partial(stopped, each))
                    )

        closing = list(workers_before)
        for worker in workers_before:
            worker.is_up = False
            self.do(worker.simulated_loop, worker.close_doors(), lambda _, worker=worker: closed(worker))

    def _policies_now(self) -> dict[str, str]:
        folder = self.directory / f"policies-{self.epoch}"
        texts = {str(path.relative_to(folder).with_suffix("")): path.read_text() for path in folder.rglob("*.toml")}
        self.epoch += 1
        return texts

    def reload(self, policies: dict[str, str], tables: str) -> None:
        """As SIGHUP does; the workers read it one after another."""
        self.ledger.happened("reload")
        self.epoch += 1
        self._tables = tables
        self.config = self._configured(len(self.workers), policies)
        for worker in self.living():
            read_s = self.time.now_s + self.random.uniform(0.0, 0.05)
            worker.reload_s = max(worker.reload_s, read_s)  # no order overtakes another: one line has them all
            worker.simulated_loop.exactly_at(worker.reload_s, worker.reload, self.config, self.epoch)

    # admins

    def ask(self, question: Question, then: Callable[[list[Answer]], object] = lambda answers: None) -> None:
        """Every worker is asked; `then` gets all answers, and is never called where one died over it."""
        answers: list[Answer] = []
        asked = self.living()

        def answered(answer: Answer) -> None:
            answers.append(answer)
            if len(answers) == len(asked):
                then(answers)

        for worker in asked:
            self.do(worker.simulated_loop, worker.clerk.answer(question), answered)

    def suspend(self, suspensions: Iterable[Suspension], then: Callable[[], object] = lambda: None) -> None:
        """These hold from now on, and no others."""
        self.suspensions = list(suspensions)
        path = self.directory / "queue" / suspension_file.NAME
        path.write_bytes(msgspec.json.encode(self.suspensions))
        self.ask(Suspend(self.suspensions), lambda answers: then())

    # clients

    def connect(self, door: int, client: asyncio.Protocol) -> bool:
        """A client comes to a worker's door; False where it is closed."""
        worker = self.workers[door] if door < len(self.workers) else None
        if worker is None or not worker.is_up:
            return False
        here, there = self.network.pair(self.outside, worker.simulated_loop, CLIENT_S)
        visitor = worker.listener.visitor(CLIENT_ADDRESS)
        worker.doors.count(visitor.network)
        worker.simulated_loop.call_soon(lambda: there.attach(Session(worker.listener, visitor)))
        self.outside.call_soon(lambda: here.attach(client))
        return True

    # the end

    def left_behind(self) -> list[str]:
        """What should be nothing when all is done, in words."""
        found = []
        for worker in self.living():
            counts = {
                "items": worker.store.items,
                "jobs": worker.dispatcher.jobs,
                "resident bytes": worker.dispatcher.memory.resident_bytes,
                "held for others": worker.owner.held,
                "moving": worker.mover.moving,
                "notices": worker.notices.pending,
                "firings": sum(each.rule != RULE for each in worker.dispatcher.restraints.firings.all()),
                "parked": worker.dispatcher.parking.parts,
                "waiting bytes at the door": worker.door.waiting_bytes,
                "being written": worker.acceptor.being_written,
                "waiting for signatures": worker.signer.waiting,
                "errors": worker.dispatcher.errors,
            }
            found += [f"worker {worker.number} has {count} {name}" for name, count in counts.items() if count]
        kept = self.supervisor.rules.firings() if self.supervisor is not None else []
        if rules := [each.rule for each in kept if each.rule != RULE]:  # an adapted rate holds for a day
            found.append(f"in force is still: {', '.join(rules)}")
        return found
