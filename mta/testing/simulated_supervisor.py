"""SimulatedSupervisor: what workers of a simulation have beside them, with the real parts that keep and tell.

What workers' rules set off goes to `mta.admin.rules_in_force`, what they count to `mta.admin.counters`. Words travel as
on the line between the processes: what a worker said before it was killed comes, and its questions have no answer.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mta.admin import counters_file, rules_file
from mta.admin.counters import Counters
from mta.admin.rules_in_force import RulesInForce
from mta.model.clock import Clock
from mta.reporting.counting import Answered, Told
from mta.reporting.questions import Answer, Question, Rules
from mta.testing.simulated_loop import SimulatedLoop, SimulatedTime
from mta_policies.firing import Change

if TYPE_CHECKING:
    from mta.testing.simulated_worker import SimulatedWorker

LINE_S = 0.0003  # between supervisor and worker


def save(path: Path, value: object) -> None:
    """In place of `kept_file.save`: no power failure of a simulation takes what the real disk has."""
    path.write_bytes(msgspec.json.encode(value))


class SimulatedSupervisor:
    """One life of it; the `Asker` of its own parts."""

    def __init__(
        self,
        time: SimulatedTime,
        clock: Clock,
        queue: Path,
        workers: Callable[[], "Sequence[SimulatedWorker | None]"],
        complain: Callable[[str], None],
    ) -> None:
        """`queue`: the folder of the kept files; `workers`: those that there are now, by number."""
        self.loop = SimulatedLoop(time, "the supervisor")
        self.rules = RulesInForce(queue / rules_file.NAME, self, clock)
        self._counters = Counters(queue / counters_file.NAME, clock, self._counted, complain)
        self._workers = workers
        self._numbers: set[int] = set()
        """Of workers that ever began."""
        self._waiting: dict[SimulatedWorker, list[asyncio.Future[bytes | None]]] = {}
        """Of workers that may be asked: what they have not answered."""
        self.loop.call_soon(self.rules.start)
        self.loop.call_soon(self._counters.start)

    async def stop(self) -> None:
        """What the files lack is written."""
        await self._counters.stop()
        await self.rules.stop()

    def begins(self, number: int) -> bool:
        """A worker does; -> whether it follows one that this supervisor had."""
        is_again = number in self._numbers
        self._numbers.add(number)
        return is_again

    # what workers say

    def attach(self, worker: "SimulatedWorker") -> None:
        """A process begins."""
        number, dispatcher = worker.number, worker.dispatcher

        def changed(changes: list[Change]) -> None:
            self._hear(self.rules.reported, number, _carried(changes, list[Change]))

        def counting(told: Told) -> None:
            self._hear(self._counters.told, number, _carried(told, Told))

        dispatcher.restraints.report = changed
        dispatcher.keeping.tell = counting

    def hears(self, worker: "SimulatedWorker") -> None:
        """It has read what was kept, and begins to send: from now on it is told what holds."""

        def known() -> None:
            if not worker.simulated_loop.is_dead:
                self._waiting[worker] = []
                self.rules.worker_up(worker.number)

        self._hear(known)

    def gone(self, worker: "SimulatedWorker") -> None:
        """Its process is, and its end of the line."""

        def known() -> None:
            for answer in self._waiting.pop(worker, ()):
                if not answer.done():
                    answer.set_result(None)

        self._hear(known)

    def _hear(self, what: Callable[..., object], *about: object) -> None:
        self.loop.exactly_at(self.loop.time() + LINE_S, what, *about)

    # what they are told

    def _counted(self, number: int, answered: Answered) -> None:
        worker = self._worker(number)
        if worker is not None:
            loop, keeping = worker.simulated_loop, worker.dispatcher.keeping
            loop.exactly_at(loop.time() + LINE_S, keeping.answered, _carried(answered, Answered))

    def _worker(self, number: int) -> "SimulatedWorker | None":
        workers = self._workers()
        return workers[number] if number < len(workers) else None

    @property
    def workers(self) -> int:
        """See `Asker`."""
        return len(self._workers())

    async def ask(self, question: Question, *, worker: int | None = None) -> list[bytes | None]:
        """See `Asker`."""
        numbers = range(self.workers) if worker is None else [worker]
        return list(await asyncio.gather(*(self._ask(number, question) for number in numbers)))

    async def _ask(self, number: int, question: Question) -> bytes | None:
        assert isinstance(question, Rules), "nothing else is asked here"
        worker = self._worker(number)
        if worker is None or worker not in self._waiting:
            return None
        heard: asyncio.Future[bytes | None] = self.loop.create_future()
        self._waiting[worker].append(heard)
        loop = worker.simulated_loop

        def asked(question: Rules) -> None:
            loop.create_task(worker.clerk.answer(question)).add_done_callback(answered)

        def answered(task: asyncio.Task[Answer]) -> None:
            if not task.cancelled() and not loop.is_dead:
                self._hear(known, msgspec.json.encode(task.result()))

        def known(answer: bytes) -> None:
            if not heard.done():
                heard.set_result(answer)
                self._waiting[worker].remove(heard)

        loop.exactly_at(loop.time() + LINE_S, asked, _carried(question, Rules))
        return await heard


def _carried(value: object, kind: Any) -> Any:
    """As it comes out of the line."""
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)
