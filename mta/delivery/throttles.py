"""Throttles: what a firing does to single messages: those of a tenant, a campaign, a recipient, a domain.

What may not go now is parked when its turn comes, in the firing's lot, and comes back as its rate and the transactions
under way allow. A message passes when it is asked for and counts when it was really sent; whoever asks again meanwhile
passes again.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mta.delivery.job import ENDED, ENDING, SENDING, WAITING, Job
from mta.delivery.parking import SWEEP_S, Lot
from mta_policies.restraint import Restraint

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

PASSED_S = 1.0  # so long a message that passed keeps its place, where its pool cannot send it
UNDER_WAY_MAX = 1_000  # messages that count as being sent, the latest; their ends are looked at when somebody asks


class Throttle:
    """Of one firing at one destination."""

    def __init__(self, engine: "Dispatcher", restraint: Restraint) -> None:
        self._engine = engine
        self._restraint = restraint
        self.lot = Lot(restraint.firing)
        self._passed: dict[Job, tuple[float, Sequence[int]]] = {}
        """When, and with which recipients: of one that is sent in parts the rest waits on."""
        self._under_way: deque[int] = deque(maxlen=UNDER_WAY_MAX)
        """Seqs: what has ended must not stay in memory."""
        self._may_stop = restraint.firing.action != "slow"
        """It may let nothing go for a while; a slow never does, and has no steps."""

    def lets(self, job: Job) -> bool:
        """Whether a message may go now."""
        restraint, now_s = self._restraint, self._engine.loop.time()
        if self._may_stop and (
            restraint.firing.action == "suspend" or restraint.wait_s(self._engine.clock.wall_s()) > 0
        ):
            return False
        passed, meter = self._passed, restraint.meter
        if passed or meter.connections_max < math.inf:
            self.settle(now_s)
            if job in passed:
                return True
        if meter.has_rate and (passed or meter.transaction_wait_s(now_s) > 0):
            return False
        if meter.connections_max < math.inf and self._room(now_s) <= 0:
            return False
        passed[job] = now_s, job.parts
        return True

    def wait_s(self) -> float:
        """Seconds until one message more may go; 0.0: now; inf: when another one has ended."""
        restraint, now_s = self._restraint, self._engine.loop.time()
        wait_s = restraint.wait_s(self._engine.clock.wall_s())
        if wait_s > 0:
            return wait_s
        self.settle(now_s)
        return 0.0 if self._room(now_s) > 0 else restraint.meter.transaction_wait_s(now_s) or math.inf

    def settle(self, now_s: float) -> None:
        """What passed and was sent counts; what passed long ago and was not has to ask again."""
        meter = self._restraint.meter
        for job, (passed_s, parts) in list(self._passed.items()):
            if job.state in (SENDING, ENDING) or self._is_sending(job.seq) or self._has_sent(job, parts):
                del self._passed[job]
                meter.transaction(passed_s)
                if self._may_stop:
                    self._engine.restraints.stepped([self._restraint.opened(self._engine.clock.wall_s())])
                self._under_way.append(job.seq)
            elif job.state != WAITING or now_s - passed_s > PASSED_S:
                del self._passed[job]
        if meter.connections_max < math.inf:  # else nobody asks how many there are
            self._under_way = deque(filter(self._is_sending, self._under_way), UNDER_WAY_MAX)

    def _is_sending(self, seq: int) -> bool:
        """It, or a part that was split off it."""
        return any(each.state == SENDING for each in self._engine.registry.jobs(seq))

    def _has_sent(self, job: Job, parts: Sequence[int]) -> bool:
        """Whether some of these were sent and it is over: they neither wait nor did somebody else park them."""
        if job.state != ENDED and len(job.parts) == len(parts):
            return False
        waiting = set(self._engine.parking.parked(job.seq))
        waiting.update(part for each in self._engine.registry.jobs(job.seq) for part in each.parts)
        return not waiting.issuperset(parts)

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
        self.settle(now_s)
        room = self._room(now_s)
        if room > 0:
            rates = restraint.meter.limits.rate
            ahead = max((math.ceil(rate.per_second * SWEEP_S) for rate in rates), default=1)
            self._engine.parking.free_some(self.lot, max(1, min(room if not rates else ahead, UNDER_WAY_MAX)))
