"""SwiftLoop: an event loop whose time passes only when there is nothing left to do, and then at once.

Sockets are real loopback sockets; a timer of a minute takes no time. What a thread would do is done in the loop
(`jobs`), so that a test runs the same way every time.
"""

import asyncio
import inspect
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mta.testing.fake_clock import WALL_START_S

T = TypeVar("T")

GRACE_S = 0.0005  # real time for the kernel to carry bytes over the loopback device before time passes
GRACES = 3  # so often after the last bytes; without any there is nothing to wait for
IDLE_TURNS_MAX = 20_000  # without a timer and without a byte: whoever waits waits in vain


class _SwiftSelector(selectors.DefaultSelector):
    """Says how long to wait to `passes` instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: Callable[[float], None] = lambda seconds: None
        self._idle_turns = 0
        self._graces = GRACES

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0 and (self._graces or timeout is None):
            ready = super().select(GRACE_S)
            self._graces -= self._graces > 0
        if ready:
            self._graces = GRACES
            self._idle_turns = 0
        if ready or timeout == 0:
            return ready
        if timeout is None:
            self._idle_turns += 1
            assert self._idle_turns < IDLE_TURNS_MAX, "nothing will ever happen any more"
        else:
            self.passes(timeout)
        return []


class SwiftLoop(asyncio.SelectorEventLoop):
    """Also a Clock (mta.model.clock) whose two times go with the loop's; `jump_s` sets the wall clock."""

    def __init__(self) -> None:
        selector = _SwiftSelector()
        super().__init__(selector)
        self._now_s = 1000.0
        self.jump_s = 0.0
        selector.passes = self._pass
        self.problems: list[dict[str, Any]] = []
        """What the loop's exception handler was told."""
        self.set_exception_handler(lambda _, context: self.problems.append(context))

    def time(self) -> float:
        return self._now_s

    def _pass(self, seconds: float) -> None:
        self._now_s += seconds + 1e-6  # never a hair before the timer

    def monotonic_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return WALL_START_S + self._now_s + self.jump_s

    def jobs(self, count: int, name: str) -> "LoopJobs":
        """In place of threads: `Store(jobs=loop.jobs)`."""
        return LoopJobs(self)


class LoopJobs:
    """Runs jobs in the loop, one a turn."""

    def __init__(self, loop: SwiftLoop) -> None:
        self._loop = loop

    def submit(self, job: Callable[[], None]) -> None:
        self._loop.call_soon(job)

    def stop(self) -> None:
        """Jobs that were submitted run with the next turn."""


def run_swiftly(main: Callable[[SwiftLoop], Coroutine[Any, Any, T]]) -> T:
    """Runs it in a loop of its own; what went wrong in callbacks is raised at the end."""
    loop = SwiftLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main(loop))
    problems = [context.get("exception") or context["message"] for context in loop.problems]
    assert not problems, problems
    return result


def swiftly(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test whose first argument is a SwiftLoop that it runs in; the others are fixtures."""

    def runs(**fixtures: object) -> None:
        run_swiftly(lambda loop: test(loop, **fixtures))

    own = inspect.signature(test)
    runs.__name__, runs.__doc__, runs.__module__ = test.__name__, test.__doc__, test.__module__
    runs.__dict__.update(test.__dict__)
    runs.__dict__["__signature__"] = own.replace(parameters=list(own.parameters.values())[1:], return_annotation=None)
    return runs
