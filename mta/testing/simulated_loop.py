"""SimulatedTime and SimulatedLoop: several processes' event loops in one thread, on a time that a seed decides.

Time passes only when no loop has anything to do, and then at once to the next timer. What threads would do is done in
the loop, a little later. A process that is killed has a loop that never runs again. While nothing at all happens
anywhere, timers of a second or less come late, as on a machine that was asleep: hours of waiting cost next to nothing.
"""

import asyncio
import contextvars
import heapq
import traceback
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, TypeVar, cast

T = TypeVar("T")

STEPS_PER_SECOND_MAX = 30_000  # callbacks of all loops in one second of the simulation: whoever needs more is spinning
ASLEEP_AFTER_S = 0.3  # without a byte, a job or a word from outside
SHORT_S = 1.0  # timers up to this are those of sweeps
NAPS = ((300.0, 60.0), (60.0, 15.0), (10.0, 5.0), (1.5, 1.0), (ASLEEP_AFTER_S, 0.25))
"""Asleep for so long: sweeps so seldom."""
NAP_S_MAX = 60.0
LOOK_S = 1.0  # how often `run` asks whether it is over
JOB_S = (0.0002, 0.02)  # what a disk takes for one job

Entry = tuple[float, int, "SimulatedLoop", asyncio.TimerHandle]


class SpinningError(AssertionError):
    """Something goes on and on without time passing."""


class SimulatedTime:
    """The one time of all loops, and whose turn it is."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 1000.0
        self.steps = 0
        self.problems: list[str] = []
        """What the loops' exception handlers were told."""
        self._count = 0
        self._heap: list[Entry] = []
        self._ready: deque[SimulatedLoop] = deque()
        self._napping: list[tuple[SimulatedLoop, asyncio.TimerHandle, float]] = []
        self._stirred_s = self.now_s
        self._second_s = self.now_s
        self._second_steps = 0

    def stir(self) -> None:
        """Something happened: sweeps come in time again."""
        self._stirred_s = self.now_s
        if self._napping:
            napping, self._napping = self._napping, []
            for loop, handle, delay_s in napping:
                if not handle.cancelled() and handle.when() > self.now_s + delay_s:
                    handle._when = self.now_s + delay_s  # type: ignore[attr-defined]
                    self._push(loop, handle)

    def nap_s(self, delay_s: float) -> float:
        """How long a timer of so many seconds takes just now."""
        asleep_s = self.now_s - self._stirred_s
        if delay_s > SHORT_S or asleep_s < ASLEEP_AFTER_S:
            return delay_s
        return max(delay_s, next(nap_s for since_s, nap_s in NAPS if asleep_s >= since_s))

    def add(self, loop: "SimulatedLoop", handle: asyncio.TimerHandle, nap_of_s: float = 0.0) -> None:
        """A timer; `nap_of_s`: it was to take only so long."""
        self._push(loop, handle)
        if nap_of_s:
            self._napping.append((loop, handle, nap_of_s))

    def _push(self, loop: "SimulatedLoop", handle: asyncio.TimerHandle) -> None:
        self._count += 1
        heapq.heappush(self._heap, (handle.when(), self._count, loop, handle))

    def wants_turn(self, loop: "SimulatedLoop") -> None:
        """A loop has callbacks that are ready."""
        self._ready.append(loop)

    def run(self, until_s: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """All that happens until then, or until it is over: -> whether it is. Raises SpinningError."""
        before = events._get_running_loop()
        ready, timers, look_s = self._ready, self._heap, 0.0
        try:
            while True:
                while ready:
                    loop = ready.popleft()
                    events._set_running_loop(loop)
                    self._took(loop.turn())
                if self.now_s >= look_s:
                    look_s = self.now_s + LOOK_S
                    if is_over():
                        return True
                if not timers or timers[0][0] > until_s:
                    self.now_s = max(self.now_s, until_s)
                    return is_over()
                when_s, _, loop, handle = heapq.heappop(timers)
                if not handle.cancelled() and not loop.is_dead and handle.when() == when_s:
                    if when_s > self.now_s:
                        self.now_s = when_s
                    loop.push(handle)
        finally:
            events._set_running_loop(before)

    def _took(self, steps: int) -> None:
        self.steps += steps
        if self.now_s - self._second_s >= 1.0:
            self._second_s = self.now_s
            self._second_steps = 0
        self._second_steps += steps
        if self._second_steps > STEPS_PER_SECOND_MAX:
            raise SpinningError(f"{self._second_steps} steps of the loops within a second")


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The loop of one process; also its Clock's monotonic half."""

    def __init__(self, time: SimulatedTime, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.world = time
        self._ready: deque[asyncio.Handle] = deque()
        self._wants_turn = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._connect: Callable[..., Coroutine[Any, Any, Any]] | None = None

    def __repr__(self) -> str:
        return f"<loop of {self.name}>"

    def time(self) -> float:
        return self.world.now_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.is_dead

    def is_closed(self) -> bool:
        return self.is_dead

    # callbacks

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.is_dead:
            self.push(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def push(self, handle: asyncio.Handle) -> None:
        """Its turn has come."""
        self._ready.append(handle)
        if not self._wants_turn:
            self._wants_turn = True
            self.world.wants_turn(self)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        nap_s = self.world.nap_s(delay)
        handle = asyncio.TimerHandle(self.time() + nap_s, callback, args, self, context)
        self.world.add(self, handle, delay if nap_s > delay else 0.0)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_later(max(0.0, when - self.time()), callback, *args, context=context)

    def exactly_at(self, when_s: float, callback: Callable[..., object], *args: Any) -> None:
        """A timer that never naps: of the network, of disks, of what comes from outside."""
        self.world.add(self, asyncio.TimerHandle(when_s, callback, args, self))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def turn(self) -> int:
        """Runs what is ready now; -> how much that was."""
        self._wants_turn = False
        handles, self._ready = self._ready, deque()
        for handle in handles:
            if self.is_dead:
                break
            if not handle.cancelled():
                handle._run()
        return len(handles)

    # futures, tasks, threads

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[T]:
        task = asyncio.Task(cast(Coroutine[Any, Any, T], coro), loop=self, name=name)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        LoopThreads(self, 1).submit(run)
        return future

    def jobs(self, count: int, name: str) -> "LoopThreads":
        """In place of threads: `Store(jobs=loop.jobs)`."""
        return LoopThreads(self, count)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead:
            error = context.get("exception")
            text = "".join(traceback.format_exception(error)) if error is not None else context["message"]
            self.world.problems.append(f"{self.name}: {text}")

    default_exception_handler = call_exception_handler

    def kill(self) -> None:
        """The process is gone: nothing of it ever runs again."""
        self.is_dead = True
        self._ready.clear()
        for task in list(self._tasks):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            if coroutine is not None:
                try:
                    coroutine.close()
                except (RuntimeError, ValueError):
                    pass  # it says something on its way out, to nobody
        self._tasks.clear()

    # the network, given by whoever has one

    def attach(self, network: Any) -> None:
        """Connections go over this network."""
        self._network = network

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self._network.connect(self, sock, address)

    async def create_connection(self, protocol_factory: Callable[[], Any], *args: Any, sock: Any, **more: Any) -> Any:  # type: ignore[override]
        return self._network.established(self, sock, protocol_factory)

    async def create_unix_server(self, protocol_factory: Callable[[], Any], path: Any, **more: Any) -> Any:  # type: ignore[override]
        return self._network.listen(self, str(path), protocol_factory)

    async def create_unix_connection(self, protocol_factory: Callable[[], Any], path: Any, **more: Any) -> Any:  # type: ignore[override]
        return self._network.dial(self, str(path), protocol_factory)


class LoopThreads:
    """Some threads: their jobs are done in the loop, one after another a thread, each after a while."""

    def __init__(self, loop: SimulatedLoop, count: int) -> None:
        self._loop = loop
        self._free_s = [0.0] * count

    def submit(self, job: Callable[[], None]) -> None:
        """As soon as a thread is free."""
        loop = self._loop
        loop.world.stir()
        thread = self._free_s.index(min(self._free_s))
        done_s = max(self._free_s[thread], loop.time()) + loop.world.random.uniform(*JOB_S)
        self._free_s[thread] = done_s
        loop.exactly_at(done_s, job)

    def stop(self) -> None:
        """What was submitted is still done."""
