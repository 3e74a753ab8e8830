"""A drain: mail goes through pools, limits, rules and retries, one transaction after another, on a clock of its own.

What takes time is stated: the opening of a connection, and a transaction on it. All else is asked of the same engine
that the server runs: meters, hours and quotas say when something may begin, the judge what an answer means, firings
what is held back, retry when it comes again. The same scene and traffic give the same tallies.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from mta_policies.firings import Firings
from mta_policies.local_time import Zones
from mta_policies.rehearsal.agenda import Agenda
from mta_policies.rehearsal.fates import Fates
from mta_policies.rehearsal.force import Force
from mta_policies.rehearsal.gates import Gates
from mta_policies.rehearsal.holds import Holds
from mta_policies.rehearsal.lane import Job
from mta_policies.rehearsal.pools import Pool
from mta_policies.rehearsal.recorded import Provider
from mta_policies.rehearsal.sending import Sending
from mta_policies.rehearsal.tally import Tally
from mta_policies.rehearsal.traffic import NEVER_S, Crowd, Mail, Traffic
from mta_policies.rehearsal.ways import Map, Ways

IDLE_S: Final = 60.0
"""So long the server keeps a connection without mail by default."""

STEPS_BETWEEN_TELLING: Final = 1 << 16


Progress = Callable[[float, int], None]
"""Told now and then the time, and of how many recipients all is over."""


def silent(now_s: float, ended: int) -> None:
    """Nobody wants to know."""
    del now_s, ended


class Scene(NamedTuple):
    """All that a drain needs beside its traffic."""

    map: Map
    provider: Provider
    """Who answers; of this drain alone."""
    zones: Zones
    connect_s: float
    """How long it takes until a connection can carry its first message."""
    bin_s: float
    """Of the tallies' series."""
    idle_s: float = IDLE_S
    until_s: float = NEVER_S
    """What has not come to its end then is left waiting."""
    progress: Progress = silent


class Drain:
    """One run."""

    def __init__(self, scene: Scene, traffic: Traffic) -> None:
        self.steps = 0
        """Things that were done: what the run costs."""
        self._scene = scene
        self._traffic = traffic
        self._agenda = Agenda(traffic.start_s)
        firings = Firings()
        self._ways = Ways(scene.map, self._agenda, firings, scene.zones, scene.bin_s)
        self._sending = sending = Sending(self._agenda, scene.provider, scene.connect_s, scene.idle_s)
        self._holds = sending.holds = Holds(self._agenda, firings, scene.zones, sending.pump)
        sending.gates = Gates(self._agenda, sending.pump, sending.leave)
        self._force = sending.force = Force(self._agenda, firings, self._holds, sending.gates, sending.leave)
        self._fates = sending.fates = Fates(self._agenda, self._ways, self._force, scene.provider, sending.pump)

    def run(self) -> dict[str, Tally]:
        """All of the traffic. -> the tallies by label."""
        agenda, mails, until_s = self._agenda, self._traffic.mails, self._scene.until_s
        for crowd in self._traffic.crowds:
            agenda.at_first(crowd.at_s, self._gather, (crowd, 0))
        at, count = 0, len(mails)
        while True:
            due_s = mails[at].due_s if at < count else NEVER_S
            next_s = agenda.next_s
            if due_s <= next_s:
                if due_s > until_s or due_s == NEVER_S:
                    break
                if due_s > agenda.now_s:
                    agenda.now_s = due_s
                at = self._arrive(at)
            elif next_s <= until_s:
                agenda.turn()
            else:
                break
            self.steps += 1
            if not self.steps % STEPS_BETWEEN_TELLING:
                ended = sum(tally.arrived - tally.waiting for tally in self._ways.tallies.values())
                self._scene.progress(agenda.now_s, ended)
        self._close()
        return self._ways.tallies

    def _arrive(self, at: int) -> int:
        """The next mail is due, with the other recipients of its message. -> the place of the one behind it."""
        mails, first = self._traffic.mails, self._traffic.mails[at]
        end = at + 1
        if end == len(mails) or mails[end].message != first.message or mails[end].due_s != first.due_s:
            self._arrive_alone(first)
            return end
        while end < len(mails) and mails[end].message == first.message and mails[end].due_s == first.due_s:
            end += 1
        groups: dict[tuple[Pool, str, int], list[Mail]] = {}
        for mail in mails[at:end]:
            pool, tally, _ = way = self._ways.of(mail.stream)
            tally.arrive(mail.due_s)
            if not self._fates.ends_early(mail, way):
                domain = "" if pool.limits.mix_domains else mail.stream.domain
                groups.setdefault((pool, domain, mail.attempts), []).append(mail)
        for (pool, _, attempts), group in groups.items():
            most = pool.recipients_max(group[0].stream.subject.tenant) or len(group)
            pool.lane.extend(Job(group[i : i + most], attempts) for i in range(0, len(group), most))
        for pool in {pool: None for pool, _, _ in groups}:
            if not pool.cause:
                self._sending.pump(pool)
        return end

    def _arrive_alone(self, mail: Mail) -> None:
        """The only recipient of its message: as most are."""
        pool, tally, _ = way = self._ways.of(mail.stream)
        tally.arrive(mail.due_s)
        if not self._fates.ends_early(mail, way):
            pool.lane.append(Job([mail], mail.attempts))
            if not pool.cause:
                self._sending.pump(pool)

    def _gather(self, due: tuple[Crowd, int]) -> None:
        """A crowd is due: all of it, or its next message."""
        crowd, number = due
        now_s = self._agenda.now_s
        pool, tally, _ = self._ways.of(crowd.stream)
        count = 1 if crowd.every_s else crowd.messages
        tally.arrive(now_s, count * crowd.recipients)
        tenant = crowd.stream.subject.tenant
        if pool.is_too_large(crowd.size, tenant):
            self._fates.refuse(pool, tally, now_s, count * crowd.recipients)
        else:
            pool.lane.gather(crowd, number, count, pool.recipients_max(tenant) or crowd.recipients)
            if not pool.cause:
                self._sending.pump(pool)
        if number + count < crowd.messages:
            next_s = crowd.at_s + (number + count) * crowd.every_s
            self._agenda.at_first(next_s, self._gather, (crowd, number + count))

    def _close(self) -> None:
        """Nothing more happens, or the time is over."""
        until_s, end_s = self._scene.until_s, max(self._agenda.now_s, self._traffic.end_s)
        left = self._holds.all_parked()
        for pool in self._ways.pools:
            left += [(job, pool) for job in pool.lane.drained()]
            left += [(connection.job, pool) for connection in pool.connections if connection.job is not None]
            pool.block("", self._agenda.now_s)
        self._fates.close(left, until_s)
        self._force.close(end_s)
