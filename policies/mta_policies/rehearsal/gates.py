"""Gates: pools that wait for a shared limit go on one after another, and idle connections make room for them."""

from collections.abc import Callable

from mta_policies.rehearsal.agenda import Agenda
from mta_policies.rehearsal.pools import Connection, Gate, Level, Pool
from mta_policies.rehearsal.traffic import NEVER_S


class Gates:
    """What is done at all of them."""

    def __init__(
        self, agenda: Agenda, pump: Callable[[Pool, Gate | None], None], leave: Callable[[Connection], None]
    ) -> None:
        """`pump`: a pool may pass a gate, once; `leave`: an idle connection is to close."""
        self._agenda = agenda
        self._pump = pump
        self._leave = leave

    def stops(self, gate: Gate, pool: Pool, granted: Gate | None) -> bool:
        """Whether a pool has to wait here; if so it is queued, and pumped when it is its turn."""
        wait_s = gate.ask(self._agenda.now_s)
        if wait_s <= 0 and (granted is gate or not gate.waiting):
            return False
        gate.waiting.setdefault(pool)
        self._arrange(gate, wait_s)
        return True

    def _arrange(self, gate: Gate, wait_s: float) -> None:
        """Somebody waits: have him woken."""
        if wait_s == NEVER_S:
            self._make_room(gate.level, len(gate.waiting))
            return
        self._agenda.wake(gate, wait_s, self.wake)

    def _make_room(self, level: Level, places: int) -> None:
        for connection in list(level.idle)[:places]:
            connection.pool.idle.remove(connection)
            self._leave(connection)

    def wake(self, gate: Gate) -> None:
        """There may be room: those who wait pass as long as there is; one that comes back waits for the next time."""
        for _ in range(len(gate.waiting)):
            wait_s = gate.ask(self._agenda.now_s)
            if wait_s > 0:
                self._arrange(gate, wait_s)
                return
            pool = next(iter(gate.waiting))
            del gate.waiting[pool]
            self._pump(pool, gate)

    def open(self, gate: Gate) -> None:
        """The limit is no more: all who wait go on."""
        waiting = list(gate.waiting)
        gate.waiting.clear()
        for pool in waiting:
            self._pump(pool, None)
