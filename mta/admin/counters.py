"""Counters: what workers used of quotas and plans, in one file beside the queue, so that no restart begins them afresh.

A worker goes on only as far as it has been told that the file says so: killing it, or all of us, never passes a quota.
The file is written by a thread, and then left alone for a while; all that came meanwhile goes with the next time.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from mta.admin import counters_file, kept_file
from mta.model.clock import Clock
from mta.reporting.counting import Answered, Snapshot, State, Told
from mta_policies.allotments import Accounts

PAUSE_S = 0.05  # between two times: a small quota goes one by one
PAUSE_SHARE = 4.0  # or so many times as long as one took: a slow disk has other things to do
AGAIN_S = 2.0  # after the disk refused: nobody goes on meanwhile
KEPT_S = 62 * 86400.0  # a state that nobody saved for so long is dropped: longer than any period, a month's
FORGET_S = 3600.0  # how often that is looked for


class Counters:
    """All of the server. `answer` tells a worker, by its number; `complain` says that the disk refuses."""

    def __init__(
        self, path: Path, clock: Clock, answer: Callable[[int, Answered], None], complain: Callable[[str], None]
    ) -> None:
        self._path = path
        self._clock = clock
        self._answer = answer
        self._complain = complain
        self._accounts = Accounts()
        self._states: dict[str, dict[str, State]] = {}
        self._waiting: list[tuple[int, Answered]] = []
        """Answers that go out when the file says what they say."""
        self._is_changed = self._is_failing = False
        self._saving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._forgotten_s = 0.0

    def start(self) -> None:
        """Take up what the file holds; raises KeptFileError where it cannot be read."""
        kept = counters_file.load(self._path)
        self._accounts.load(kept.drawn)
        self._states = kept.states

    async def stop(self) -> None:
        """What the file lacks is written."""
        if self._saving is not None:
            await self._saving
        if self._timer is not None:
            self._timer.cancel()
        if self._is_changed:
            await self._save()

    def told(self, worker: int, told: Told) -> None:
        """A worker has something to save; the answer comes when that is on disk."""
        now_s = self._clock.wall_s()
        for prefix, states in told.states.items():
            known = self._states.setdefault(prefix, {})
            known.update({key: State(now_s, state) for key, state in states.items()})
        got = [self._accounts.draw(draw) for draw in told.draws]
        answered = Answered(told.number, got)
        if not told.states and not any(got):
            self._answer(worker, answered)  # quotas that are used up: the file would say the same
            return
        self._is_changed = True
        self._waiting.append((worker, answered))
        self._look()

    def _look(self) -> None:
        """Write at once, or when the last time is long enough ago."""
        if self._is_changed and self._saving is None and self._timer is None:
            self._saving = asyncio.get_running_loop().create_task(self._save())

    async def _save(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_changed = False
        waiting, self._waiting = self._waiting, []
        begun_s, pause_s = loop.time(), PAUSE_S
        try:
            await loop.run_in_executor(None, kept_file.save, self._path, self._snapshot())
        except OSError as error:
            if not self._is_failing:
                self._complain(f"{self._path} cannot be written, mail that quotas count waits: {error.strerror}")
            self._is_changed, self._waiting, pause_s = True, waiting + self._waiting, AGAIN_S
            self._is_failing = True
        else:
            self._is_failing = False
            for worker, answered in waiting:
                self._answer(worker, answered)
        self._saving = None
        self._timer = loop.call_later(max(pause_s, PAUSE_SHARE * (loop.time() - begun_s)), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._look()

    def _snapshot(self) -> Snapshot:
        """What holds now; it may be written down while all goes on."""
        now_s = self._clock.wall_s()
        if abs(now_s - self._forgotten_s) > FORGET_S:
            self._forgotten_s = now_s
            self._accounts.forget(now_s)
            for prefix, states in self._states.items():
                kept = {key: state for key, state in states.items() if state.saved_s + KEPT_S > now_s}
                self._states[prefix] = kept
        return Snapshot({prefix: dict(states) for prefix, states in self._states.items()}, self._accounts.dump())
