"""Cooling: what was just appended is an object, and becomes a row when it has lived for a few seconds."""

import asyncio
from collections.abc import Callable

from mta_queue.catalog import Catalog

COOL_S = 2.0  # between two looks; an item is left alone for once to twice as long
COOLED_AT_ONCE = 1_000  # of them in one turn of the loop


class Cooling:
    """Looks after the hot items of one catalog. `position` tells the number that the next record will have, `sync` has
    all that was written brought to stable storage: notes are held in memory until it was."""

    def __init__(self, catalog: Catalog, position: Callable[[], int], sync: Callable[[], None]) -> None:
        self._catalog = catalog
        self._position = position
        self._sync = sync
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._before = 0
        """Items with lower numbers have lived for long enough."""
        self._synced = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on `plan` may be called."""
        self._loop = loop
        self.plan()

    def stop(self) -> None:
        """No look is planned any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def plan(self) -> None:
        """There may be something hot."""
        if self._timer is None and self._loop is not None and self._catalog.hot:
            self._timer = self._loop.call_later(COOL_S, self._look)

    def _look(self) -> None:
        self._cool(len(self._catalog.hot))

    def _cool(self, left: int) -> None:
        loop = self._loop
        if loop is None:
            return
        if self._catalog.cool(self._before, min(left, COOLED_AT_ONCE)) and left > COOLED_AT_ONCE:
            loop.call_soon(self._cool, left - COOLED_AT_ONCE)
            return
        self._timer = None
        position = self._position()
        if position != self._before:
            self._before = position
            self.plan()
        elif self._catalog.hot and position != self._synced:
            self._synced = position  # the log is idle: nothing else would sync its last notes for a long time
            self._sync()
