"""Suspensions: what an admin wants to stay here for a while. Kept in a file, told to every worker, ended in time.

The file is the truth: it is written and synced before anybody is told, and read at the start by the face and by every
worker before it sends anything, so that a suspension outlives the server and each of its workers.
"""

import asyncio
import secrets
from pathlib import Path

from mta.admin import kept_file, suspension_file
from mta.admin.asker import Asker, tell_all
from mta.model.clock import Clock
from mta.model.selection import Selection
from mta.reporting.questions import Suspend, Suspension
from mta.tasks import Tasks

SUSPENSIONS_MAX = 1_000  # each is laid beside each message that is about to go
WAKE_S_MAX = 30.0  # the wall clock may be set while a timer runs


class TooManyError(Exception):
    """`SUSPENSIONS_MAX` hold already."""


class Suspensions:
    """Those that hold now. `path`: the file."""

    def __init__(self, path: Path, asker: Asker, clock: Clock) -> None:
        self._path = path
        self._asker = asker
        self._clock = clock
        self._now: list[Suspension] = []
        self._changing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = Tasks()
        self._is_running = False

    def start(self) -> None:
        """Take up what the file holds; raises KeptFileError where it cannot be read."""
        self._now = suspension_file.load(self._path)
        self._is_running = True
        self._wake_in_time()

    async def stop(self) -> None:
        """Nothing is ended or told from now on."""
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()
        self._tasks.cancel()
        await self._tasks.ended()

    def current(self) -> list[Suspension]:
        """Those whose time is not over, the one that ends first at the front."""
        now_s = self._clock.wall_s()
        return sorted((each for each in self._now if each.until_s > now_s), key=lambda each: (each.until_s, each.id))

    async def add(self, selection: Selection, for_s: float, reason: str, by: str) -> tuple[Suspension, list[str]]:
        """Suspend; -> the suspension, and a sentence about each worker that was not reached.

        Raises OSError where it cannot be written down, TooManyError where there are enough.
        """
        async with self._changing:
            if len(self._now) >= SUSPENSIONS_MAX:
                raise TooManyError(f"{SUSPENSIONS_MAX} suspensions hold already: resume some")
            now_s = self._clock.wall_s()
            added = Suspension(self._new_id(), selection, now_s, now_s + for_s, reason, by)
            return added, await self._change([*self._now, added])

    async def resume(self, suspension_id: str, by: str) -> tuple[Suspension, list[str]] | None:
        """End one; -> as `add`, None where there is none of that id. Raises OSError where it cannot be written."""
        async with self._changing:
            found = next((each for each in self.current() if each.id == suspension_id), None)
            if found is None:
                return None
            return found, await self._change([each for each in self._now if each is not found], by)

    def worker_up(self, number: int) -> None:
        """A worker that has just started gets what holds."""
        if self._is_running:
            self._tasks.start(self._tell_again(number))

    async def _tell_again(self, number: int) -> None:
        await self._asker.ask(Suspend(list(self._now), tells=number == 0), worker=number)

    async def _change(self, suspensions: list[Suspension], ended_by: str = "") -> list[str]:
        await asyncio.get_running_loop().run_in_executor(None, kept_file.save, self._path, suspensions)
        self._now = suspensions
        self._wake_in_time()
        return await tell_all(
            self._asker, Suspend(suspensions, tells=True, ended_by=ended_by), Suspend(suspensions, ended_by=ended_by)
        )

    def _wake_in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_running and self._now:
            wait_s = min(each.until_s for each in self._now) - self._clock.wall_s()
            self._timer = asyncio.get_running_loop().call_later(min(max(wait_s, 0.0), WAKE_S_MAX), self._wake)

    def _wake(self) -> None:
        self._tasks.start(self._end_some())

    async def _end_some(self) -> None:
        """Those whose time is over end; where that cannot be written down it is tried again in a while."""
        async with self._changing:
            holding = self.current()
            try:
                if len(holding) < len(self._now):
                    await self._change(holding)
            except OSError:
                self._timer = asyncio.get_running_loop().call_later(WAKE_S_MAX, self._wake)
            else:
                self._wake_in_time()

    def _new_id(self) -> str:
        """Short enough to type; none that holds now."""
        taken = {each.id for each in self._now}
        while True:
            suspension_id = f"s{secrets.token_hex(3)}"
            if suspension_id not in taken:
                return suspension_id
