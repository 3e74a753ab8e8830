"""Tasks: work that goes on by itself, of one owner."""

import asyncio
from collections.abc import Coroutine


class Tasks:
    """Those that run: a task that nobody holds may be collected while it does."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[object]] = set()

    def start(self, work: Coroutine[object, object, object]) -> None:
        """It begins when the loop turns; nobody hears what comes of it, but the loop's exception handler."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def cancel(self) -> None:
        """None goes on."""
        for task in list(self._running):
            task.cancel()

    async def ended(self) -> None:
        """Returns when those that run now have ended, however."""
        await asyncio.gather(*self._running, return_exceptions=True)
