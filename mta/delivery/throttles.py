"""Throttles: what a firing does to single messages: those of a tenant, a campaign, a recipient, a domain.

What may not go now is parked when its turn comes, in the firing's lot, and comes back as its rate and the transactions
under way allow. A message passes when it is asked for and counts when it was really sent; whoever asks again meanwhile
passes again.
"""

import math
from typing import TYPE_CHECKING

from mta.delivery.job import ENDED, ENDING, SENDING, WAITING, Job
from mta.delivery.parking import SWEEP_S, Lot
from mta_policies.restraint import Restraint

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

PASSED_S = 1.0  # so long a message that passed keeps its place, where its pool cannot send it
UNDER_WAY_MAX = 1_000  # messages that count as being sent; their ends are looked at when somebody asks


class Throttle:
    """Of one firing at one destination."""

    def __init__(self, engine: "Dispatcher", restraint: Restraint) -> None:
        self._engine = engine
        self._restraint = restraint
        self.lot = Lot(restraint.firing)
        self._passed: dict[Job, float] = {}
        self._under_way: list[Job] = []

    def lets(self, job: Job) -> bool:
        """Whether a message may go now."""
        restraint, now_s = self._restraint, self._engine.loop.time()
        if restraint.firing.action == "suspend" or restraint.wait_s(self._engine.clock.wall_s()) > 0:
            return False
        self._settle(now_s)
        if job in self._passed:
            return True
        if self._room(now_s) <= 0:
            return False
        self._passed[job] = now_s
        return True

    def wait_s(self) -> float:
        """Seconds until one message more may go; 0.0: now; inf: when another one has ended."""
        restraint, now_s = self._restraint, self._engine.loop.time()
        wait_s = restraint.wait_s(self._engine.clock.wall_s())
        if wait_s > 0:
            return wait_s
        self._settle(now_s)
        return 0.0 if self._room(now_s) > 0 else restraint.meter.transaction_wait_s(now_s) or math.inf

    def _settle(self, now_s: float) -> None:
        """What passed and was sent counts; what passed long ago and was not has to ask again."""
        for job, passed_s in list(self._passed.items()):
            if self._was_sent(job):
                del self._passed[job]
                self._restraint.meter.transaction(passed_s)
                self._engine.restraints.stepped([self._restraint.opened(self._engine.clock.wall_s())])
                if len(self._under_way) < UNDER_WAY_MAX:
                    self._under_way.append(job)
            elif job.state != WAITING or now_s - passed_s > PASSED_S:
                del self._passed[job]
        self._under_way = [job for job in self._under_way if self._is_sending(job)]

    def _was_sent(self, job: Job) -> bool:
        return job.state in (SENDING, ENDING, ENDED) or self._is_sending(job)

    def _is_sending(self, job: Job) -> bool:
        """It, or a part that was split off it."""
        return any(each.state == SENDING for each in self._engine.registry.jobs(job.seq))

    def _room(self, now_s: float) -> int:
        """How many more may begin now."""
        meter = self._restraint.meter
        most = meter.connections_max - len(self._under_way) - len(self._passed)
        if meter.has_rate:
            most = min(most, 1 - len(self._passed) if meter.transaction_wait_s(now_s) <= 0 else 0)
        return int(most) if most < math.inf else UNDER_WAY_MAX

    def release(self) -> None:
        """Let go of as many as may begin before the next time."""
        restraint, now_s = self._restraint, self._engine.loop.time()
        if not self.lot.parked or restraint.firing.action == "suspend":
            return
        if restraint.wait_s(self._engine.clock.wall_s()) > 0:
            return
        self._settle(now_s)
        room = self._room(now_s)
        if room > 0:
            rates = restraint.meter.limits.rate
            ahead = max((math.ceil(rate.per_second * SWEEP_S) for rate in rates), default=1)
            self._engine.parking.free_some(self.lot, max(1, min(room if not rates else ahead, UNDER_WAY_MAX)))
