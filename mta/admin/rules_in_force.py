"""Rules in force: what rules set off at any worker, and what an admin does to it. Kept in a file, told to every worker.

A worker's rule fires, acts at once and reports it; from here the others hear of it, and one that starts hears of all.
What an admin does is written down before anybody is told; where that cannot be it holds all the same, and he is told.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from mta.admin import kept_file, rules_file
from mta.admin.asker import Asker, tell_all
from mta.model.clock import Clock
from mta.reporting.questions import Rules
from mta.tasks import Tasks
from mta_policies.firings import Change, Firing, Firings, Mute

WAKE_S_MAX = 30.0  # the wall clock may be set while a timer runs
HITS_SAVED_S = 2.0  # how long the file may lack that a rule matched again
SAVE_AGAIN_S = 10.0  # after the disk refused


class RulesInForce:
    """All firings and mutes of the server. `path`: the file."""

    def __init__(self, path: Path, asker: Asker, clock: Clock) -> None:
        self._path = path
        self._asker = asker
        self._clock = clock
        self._firings = Firings()
        self._saved_version = 0
        self._saving = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._tasks = Tasks()
        self._is_running = False

    def start(self) -> None:
        """Take up what the file holds; raises KeptFileError where it cannot be read."""
        self._firings.load(rules_file.load(self._path), self._clock.wall_s())
        self._saved_version = self._firings.version
        self._is_running = True
        self._wake_in_time()

    async def stop(self) -> None:
        """Nothing is ended or told from now on; what the file lacks is written."""
        self._is_running = False
        for timer in (self._timer, self._save_timer):
            if timer is not None:
                timer.cancel()
        async with self._saving:  # a thread that writes the file is not stopped by it, and two at once would spoil it
            self._tasks.cancel()
        await self._tasks.ended()
        await self._save()

    def firings(self) -> list[Firing]:
        """All that are not over, muted ones too, the oldest first."""
        now_s = self._clock.wall_s()
        return [firing for firing in self._firings.all() if firing.until_s > now_s]

    def mutes(self) -> list[Mute]:
        """Those whose time is not over."""
        now_s = self._clock.wall_s()
        return [mute for mute in self._firings.mutes() if mute.until_s > now_s]

    def get(self, firing_id: str) -> Firing | None:
        """The firing of this id, None where none of it is in force."""
        firing = self._firings.get(firing_id)
        return firing if firing is not None and firing.until_s > self._clock.wall_s() else None

    # what an admin does: the change, and a sentence about each thing that went wrong; None: there is none of that id

    async def cancel(self, firing_id: str, who: str, why: str) -> tuple[Change, list[str]] | None:
        """End it now; the rule may fire again."""
        return await self._commanded(self._firings.cancel(firing_id, self._clock.wall_s(), who, why))

    async def extend(self, firing_id: str, for_s: float, who: str, why: str) -> tuple[Change, list[str]] | None:
        """Let it end in so many seconds from now instead."""
        now_s = self._clock.wall_s()
        return await self._commanded(self._firings.extend(firing_id, now_s + for_s, now_s, who, why))

    async def mute(self, name: str, for_s: float, who: str, why: str) -> tuple[Change, list[str]]:
        """What a rule ("NAME", "POLICY/NAME") or a firing (its id) does has no effect so long; 0: it has again."""
        now_s = self._clock.wall_s()
        done = await self._commanded(self._firings.mute(name, now_s + for_s, now_s, who, why))
        assert done is not None, "a mute is always made"
        return done

    async def _commanded(self, change: Change | None) -> tuple[Change, list[str]] | None:
        if change is None:
            return None
        problems = await self._save()
        self._wake_in_time()
        return change, problems + await self._tell([change])

    # what workers do

    def reported(self, worker: int, changes: Sequence[Change]) -> None:
        """A worker's rules did something: it has its effect there, and is in the log."""
        if not self._is_running:
            return
        now_s = self._clock.wall_s()
        news = [change for change in changes if self._firings.apply(change, now_s)]
        if not news:
            return
        self._wake_in_time()
        if any(change.is_event for change in news):
            self._tasks.start(self._save())
        elif self._save_timer is None:
            self._save_in(HITS_SAVED_S)
        for number in range(self._asker.workers):
            if number != worker:
                self._tasks.start(self._asker.ask(Rules(list(news)), worker=number))

    def worker_up(self, number: int) -> None:
        """A worker that has just started gets all that there is."""
        if self._is_running:
            self._tasks.start(self._asker.ask(Rules(snapshot=self._firings.dump()), worker=number))

    async def _tell(self, changes: list[Change]) -> list[str]:
        return await tell_all(self._asker, Rules(changes, tells=True), Rules(changes))

    # the file

    async def _save(self) -> list[str]:
        """The file says what is in force now, or has become meanwhile; -> what went wrong."""
        async with self._saving:
            version = self._firings.version
            if version == self._saved_version:
                return []
            snapshot = self._firings.dump()
            try:
                await asyncio.get_running_loop().run_in_executor(None, kept_file.save, self._path, snapshot)
            except OSError as error:
                self._save_in(SAVE_AGAIN_S)
                return [f"it holds, but could not be written down: {error.strerror or error}"]
            self._saved_version = version
        return []

    def _save_in(self, wait_s: float) -> None:
        if not self._is_running:
            return
        if self._save_timer is not None:
            self._save_timer.cancel()
        self._save_timer = asyncio.get_running_loop().call_later(wait_s, self._on_save_timer)

    def _on_save_timer(self) -> None:
        self._save_timer = None
        self._tasks.start(self._save())

    # time

    def _wake_in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_running and (self._firings or self._firings.mutes()):
            wait_s = self._firings.next_end_s() - self._clock.wall_s()
            self._timer = asyncio.get_running_loop().call_later(min(max(wait_s, 0.0), WAKE_S_MAX), self._wake)

    def _wake(self) -> None:
        changes = self._firings.expire(self._clock.wall_s())
        self._wake_in_time()
        if changes:
            self._tasks.start(self._ended(changes))

    async def _ended(self, changes: list[Change]) -> None:
        await self._save()
        await self._tell(changes)
