"""SteppedLoop: an event loop and its threads, turned by hand, so that a test decides what happens before what."""

from collections import deque
from collections.abc import Callable
from typing import Any


class SteppedTimer:
    """What `call_later` returns."""

    def __init__(self, when_s: float, call: Callable[[], None]) -> None:
        self.when_s = when_s
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class SteppedLoop:
    """The few methods of an asyncio loop that the queue uses, and jobs in place of threads."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ready: deque[Callable[[], None]] = deque()
        self.waiting_jobs: deque[Callable[[], None]] = deque()
        self.timers: list[SteppedTimer] = []
        self.reported: list[dict[str, Any]] = []
        """Contexts of `call_exception_handler`."""
        self.is_strict = True
        """A failed callback fails the test at once; else it is only reported."""

    # What a loop offers.

    def call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        self.ready.append(lambda: callback(*arguments))

    call_soon_threadsafe = call_soon

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> SteppedTimer:
        timer = SteppedTimer(self.now_s + delay_s, callback)
        self.timers.append(timer)
        return timer

    def time(self) -> float:
        return self.now_s

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.reported.append(context)
        if self.is_strict:
            raise context["exception"]

    # What stands for threads: `Store(jobs=loop.jobs)`.

    def jobs(self, count: int, name: str) -> "SteppedLoop":
        return self

    def submit(self, job: Callable[[], None]) -> None:
        self.waiting_jobs.append(job)

    def stop(self) -> None:
        while self.waiting_jobs:
            self.run_job()

    # What the test does.

    def turn(self) -> bool:
        """Runs the callbacks that are ready now; False where there were none."""
        callbacks, self.ready = self.ready, deque()
        for callback in callbacks:
            callback()
        return bool(callbacks)

    def run_job(self) -> bool:
        """Runs the oldest job in its thread's place; False where none waits."""
        if not self.waiting_jobs:
            return False
        self.waiting_jobs.popleft()()
        return True

    def settle(self) -> None:
        """Turns and runs jobs until nothing is left to do but wait."""
        while self.turn() or self.run_job():
            pass

    def wait(self, seconds: float) -> None:
        """Time passes: timers that are due fire, and all that follows from them happens."""
        self.now_s += seconds
        due = [timer for timer in self.timers if timer.when_s <= self.now_s]
        self.timers = [timer for timer in self.timers if timer.when_s > self.now_s]
        for timer in due:
            if not timer.is_cancelled:
                timer.call()
        self.settle()
