"""In force: what firings do to the pools of a rehearsal, and when they end."""

from collections.abc import Callable, Iterable

from mta_policies.firing import Change, Firing
from mta_policies.firings import Firings
from mta_policies.limits import WHOLE
from mta_policies.rehearsal.agenda import Agenda
from mta_policies.rehearsal.gates import Gates
from mta_policies.rehearsal.holds import Holds, cause_of
from mta_policies.rehearsal.pools import Connection, Level, Pool
from mta_policies.rehearsal.tally import Span, Tally
from mta_policies.rehearsal.traffic import NEVER_S
from mta_policies.restraint import EFFECTIVE, Restraint


class Force:
    """All firings of a rehearsal, as pools feel them."""

    def __init__(
        self,
        agenda: Agenda,
        firings: Firings,
        holds: Holds,
        gates: Gates,
        leave: Callable[[Connection], None],
    ) -> None:
        """`leave`: an idle connection is to close."""
        self.firings = firings
        self._agenda = agenda
        self._holds = holds
        self._gates = gates
        self._leave = leave
        self._levels: dict[str, Level] = {}
        self._spans: dict[str, Span] = {}
        self._end_s = NEVER_S

    # what happened

    def made(self, changes: Iterable[Change], tally: Tally) -> None:
        """Rules did this; it is done in `firings` already. `tally`: whose mail set it off."""
        for change in changes:
            firing = change.firing
            if firing is None:
                continue
            if change.what in ("ended", "cancelled"):
                self._over(firing)
                continue
            span = self._spans.get(firing.id)
            if span is None:
                span = self._spans[firing.id] = Span(
                    firing.rule, firing.action, firing.key, firing.since_s, firing.until_s
                )
                tally.fired(span)
            span.until_s = firing.until_s
            level = self._levels.get(firing.id)
            if change.what == "stepped" and level is not None:
                self._follow(level, firing)
                self._agenda.at(self._agenda.now_s, self._gates.wake, level.doors)
                self._agenda.at(self._agenda.now_s, self._gates.wake, level.turns)
        self._holds.follow()
        self._watch_ends()

    def _over(self, firing: Firing) -> None:
        """It is not in force any more: who waited for it goes on."""
        now_s = self._agenda.now_s
        span = self._spans.pop(firing.id, None)
        if span is not None:
            span.until_s = now_s
        level = self._levels.pop(firing.id, None)
        if level is not None:
            self._agenda.at(now_s, self._gates.open, level.doors)
            self._agenda.at(now_s, self._gates.open, level.turns)

    def _watch_ends(self) -> None:
        end_s = self.firings.next_end_s()
        if end_s < self._end_s or (end_s > self._end_s and self._end_s < self._agenda.now_s):
            self._end_s = end_s
            self._agenda.at(end_s, self._expire, None)

    def _expire(self, _: object) -> None:
        """The time of some is over."""
        self._end_s = NEVER_S
        for change in self.firings.expire(self._agenda.now_s):
            if change.firing is not None:
                self._over(change.firing)
        self._holds.follow()
        self._watch_ends()

    def close(self, end_s: float) -> None:
        """Nothing more happens: what is in force is told until then."""
        for span in self._spans.values():
            span.until_s = min(span.until_s, end_s)

    # what pools feel

    def feel(self, pool: Pool) -> None:
        """Firings changed since a pool last looked: take what holds for it now."""
        now_s = self._agenda.now_s
        pool.version = self.firings.version
        levels = []
        for firing in self.firings.for_keys(pool.keys, now_s):
            if firing.action in EFFECTIVE:
                level = self._levels.get(firing.id) or self._begin(firing, pool)
                self._follow(level, firing)
                levels.append(level)
        if not levels and not pool.restraints:
            return
        for level in levels:
            if level not in pool.restraints:
                _count(level, pool.connections)
        for level in pool.restraints:
            if level not in levels:
                _forget(level, pool.connections)
        pool.restraints = levels
        pool.set_limits(now_s)
        self._lower(pool)

    def _begin(self, firing: Firing, pool: Pool) -> Level:
        """A firing that no pool has felt yet."""
        now_s = self._agenda.now_s
        source = pool.source if firing.scope == "source" else ""
        restraint = Restraint(firing, self.firings, pool.destination.policy, source, WHOLE, now_s, now_s)
        level = self._levels[firing.id] = Level(cause_of(firing), restraint.meter, None, restraint)
        return level

    def _follow(self, level: Level, firing: Firing) -> None:
        restraint = level.restraint
        if restraint is not None and restraint.firing is not firing:
            restraint.change(firing, self._agenda.now_s, self._agenda.now_s)

    def _lower(self, pool: Pool) -> None:
        """Idle connections beyond what may be leave; the others do after their transaction."""
        now_s = self._agenda.now_s
        is_silent = any(level.restraint is not None and level.restraint.wait_s(now_s) > 0 for level in pool.restraints)
        meter = pool.meter
        while pool.idle and (
            is_silent or meter.connections_open > meter.connections_max or any(level.over for level in pool.restraints)
        ):
            self._leave(pool.idle.pop())


def _count(level: Level, connections: Iterable[Connection]) -> None:
    """A limit that is new counts the connections that are open."""
    for connection in connections:
        connection.told = [*connection.told, level]
        level.meter.connections_open += 1


def _forget(level: Level, connections: Iterable[Connection]) -> None:
    for connection in connections:
        if level in connection.told:
            connection.told = [told for told in connection.told if told is not level]
            level.meter.connections_open -= 1
            level.idle.pop(connection, None)
