"""Brakes: what firings do to the mail of one destination on this worker.

A brake is one restraint (`mta_policies.restraint`) with the gates at which pools wait for it. Those whose scope is all
mail of a source for a site hold for whole pools: beside the policy's own limits, as further shared ones.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mta.delivery.destination import Destination, lower
from mta.delivery.gate import SharedLimit
from mta.delivery.job import Job
from mta.delivery.parking import Lot
from mta.delivery.pool import Pool
from mta.delivery.stages import is_signed
from mta.delivery.throttles import Throttle
from mta.reporting.events import NO_WAY
from mta_policies.answers import Subject, scope_key
from mta_policies.firing import Change, Firing
from mta_policies.restraint import EFFECTIVE, Restraint, keys_of_job, keys_of_pool
from mta_policies.schema import Limits

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

Identity = tuple[str, str, str, str]
"""`Firing.identity`."""

SET_AT_ONCE = 2_000  # pools that a firing takes hold of before the loop turns: some ten milliseconds


class Brake:
    """One restraint, and who waits for it."""

    __slots__ = ("limit", "restraint", "throttle")

    def __init__(self, engine: "Dispatcher", restraint: Restraint) -> None:
        self.restraint = restraint
        self.limit = SharedLimit(engine.loop, restraint.meter)
        self.throttle = Throttle(engine, restraint)
        """Of single messages."""

    @property
    def firing(self) -> Firing:
        return self.restraint.firing


class Braked:
    """What holds for one pool."""

    __slots__ = ("_engine", "brakes")

    def __init__(self, engine: "Dispatcher", brakes: list[Brake]) -> None:
        self._engine = engine
        self.brakes = brakes

    def wait_s(self) -> float:
        """Seconds in which the pool begins nothing; 0.0: it may."""
        wall_s = self._engine.clock.wall_s()
        return max(brake.restraint.wait_s(wall_s) for brake in self.brakes)

    def longest(self) -> Firing | None:
        """The firing that keeps the pool still longest; None where none does."""
        wall_s = self._engine.clock.wall_s()
        still = [brake for brake in self.brakes if brake.restraint.wait_s(wall_s) > 0]
        return max(still, key=lambda brake: brake.restraint.wait_s(wall_s)).firing if still else None

    @property
    def limits(self) -> list[SharedLimit]:
        """Limits that hold beside the policy's own."""
        return [brake.limit for brake in self.brakes]

    def tightened(self, limits: Limits) -> Limits:
        """The pool's own limits, as they are for now."""
        for brake in self.brakes:
            limits = brake.restraint.tightened(limits)
        return limits

    def opened(self) -> None:
        """A connection was begun."""
        wall_s = self._engine.clock.wall_s()
        self._engine.restraints.stepped(brake.restraint.opened(wall_s) for brake in self.brakes)


class Brakes:
    """All of one destination."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._engine = destination.engine
        self._brakes: dict[Identity, Brake] = {}
        self._of_pools: dict[str, dict[Identity, Brake]] = {}
        self._of_jobs: dict[str, dict[Identity, Brake]] = {}
        self._to_set: list[Pool] = []

    def __bool__(self) -> bool:
        return bool(self._brakes)

    def __iter__(self) -> Iterator[Brake]:
        return iter(self._brakes.values())

    @property
    def listens(self) -> bool:
        """Whether what is delivered is to be told."""
        return any(brake.restraint.listens for brake in self._brakes.values())

    def follow(self, identity: Identity, firing: Firing | None) -> None:
        """A firing began, became another, or (None) is over."""
        brake = self._brakes.get(identity)
        if firing is None or firing.action not in EFFECTIVE:
            if brake is not None:
                self._end(identity, brake)
            return
        now_s, wall_s = self._engine.loop.time(), self._engine.clock.wall_s()
        if brake is None:
            self._begin(identity, firing, now_s, wall_s)
            return
        restraint, meter = brake.restraint, brake.restraint.meter
        was_unlimited, limits = meter.is_unlimited, restraint.tightened(Limits())
        restraint.change(firing, now_s, wall_s)
        if meter.is_unlimited is not was_unlimited or restraint.tightened(Limits()) != limits:
            self._set(brake)
        self._lower(brake, wall_s)
        brake.limit.turns.wake()
        brake.limit.connections.wake()
        self._pump(brake)

    def _begin(self, identity: Identity, firing: Firing, now_s: float, wall_s: float) -> None:
        destination = self._destination
        source = firing.key.partition(" > ")[0].partition(" ")[2] if firing.scope == "source" else ""
        restraints = self._engine.restraints
        restraint = Restraint(firing, restraints.firings, destination.policy, source, destination.share, now_s, wall_s)
        brake = self._brakes[identity] = Brake(self._engine, restraint)
        if restraint.is_of_pools:
            self._of_pools.setdefault(firing.key, {})[identity] = brake
            self._set(brake)
            self._lower(brake, wall_s)
        else:
            self._of_jobs.setdefault(firing.key, {})[identity] = brake

    def _end(self, identity: Identity, brake: Brake) -> None:
        del self._brakes[identity]
        table = self._of_pools if brake.restraint.is_of_pools else self._of_jobs
        known = table[brake.firing.key]
        del known[identity]
        if not known:
            del table[brake.firing.key]
        if brake.restraint.is_of_pools:
            self._set(brake)
            self._pump(brake)
        else:
            self._engine.parking.free(brake.throttle.lot)
        brake.limit.close()

    # single messages

    def kept(self, pool: Pool, job: Job) -> Iterator[tuple[Lot, Sequence[int]]]:
        """See `mta.delivery.parking.Kept`."""
        if not self._of_jobs:
            return
        envelope = job.envelope
        judging = self._destination.judging
        whole = judging.subject(pool, job, job.parts[0], NO_WAY, envelope)._replace(recipient="")
        if envelope is None:
            whole = whole._replace(spf_domain="")
        keys = keys_of_job(whole)
        if pool.lane.signs and not is_signed(job):
            keys = [key for key in keys if not key.startswith("path ")]
        for brake in self._brakes_of(keys):
            if job.parts and not brake.throttle.lets(job):
                yield brake.throttle.lot, list(job.parts)
        if envelope is not None:
            for part in list(job.parts):
                recipient = whole._replace(recipient=envelope.recipients[part].address)
                for brake in self._brakes_of([scope_key("recipient", recipient)]):
                    if part in job.parts and not brake.throttle.lets(job):
                        yield brake.throttle.lot, [part]

    def _brakes_of(self, keys: Sequence[str]) -> list[Brake]:
        return [brake for key in keys for brake in self._of_jobs.get(key, {}).values()]

    def release(self) -> None:
        """Let go of parked messages that may go now."""
        for brakes in list(self._of_jobs.values()):
            for brake in list(brakes.values()):
                brake.throttle.release()

    def reload(self) -> None:
        """Another policy, or another share of it; the sites are told afterwards."""
        now_s, wall_s, destination = self._engine.loop.time(), self._engine.clock.wall_s(), self._destination
        for brake in self._brakes.values():
            brake.restraint.reload(destination.policy, destination.share, now_s, wall_s)

    def _probes_of(self, pool: Pool, job: Job | None) -> list[Brake]:
        found = list(pool.braked.brakes) if pool.braked is not None else []
        if job is not None and self._of_jobs:
            subject = self._destination.judging.subject(pool, job, job.parts[0], NO_WAY, job.envelope)
            found += self._brakes_of(keys_of_job(subject))
        return [brake for brake in found if brake.restraint.listens]

    def refused(self, pool: Pool, job: Job | None, rule: str) -> Iterator[Change]:
        """A rule matched what a pool was told: the probes that it began are back at their silence."""
        wall_s = self._engine.clock.wall_s()
        for brake in self._probes_of(pool, job):
            if brake.firing.rule == rule and (change := brake.restraint.refused(wall_s)) is not None:
                yield change

    def delivered(self, pool: Pool, job: Job, begun_s: float) -> Iterator[Change]:
        """A message was taken on a connection that was begun then (monotonic seconds)."""
        wall_s = self._engine.clock.wall_s()
        begun_wall_s = wall_s - (self._engine.loop.time() - begun_s)
        for brake in self._probes_of(pool, job):
            # A message's own scope shares connections: what counts there is its transaction, which has just begun.
            began_s = begun_wall_s if brake.restraint.is_of_pools else wall_s
            if (change := brake.restraint.delivered(wall_s, began_s)) is not None:
                yield change

    # whom they hold

    def of_pool(self, pool: Pool) -> Braked | None:
        """What holds for a pool; None: nothing."""
        if not self._of_pools:
            return None
        found = [brake for key in self._keys_of(pool) for brake in self._of_pools.get(key, {}).values()]
        return Braked(self._engine, found) if found else None

    def _keys_of(self, pool: Pool) -> dict[str, None]:
        source, site, provider = pool.source, pool.site.name, self._destination.provider
        addresses = {source.ipv4, source.ipv6, pool.address} - {""} or {""}
        subjects = [Subject(source.name, address, site, provider) for address in addresses]
        return {key: None for subject in subjects for key in keys_of_pool(subject)}

    def _pools_of(self, brake: Brake) -> list[Pool]:
        key = brake.firing.key
        pools = (pool for site in self._destination.sites.values() for pool in site.pools.values())
        return [pool for pool in pools if key in self._keys_of(pool)]

    def _set(self, brake: Brake) -> None:
        """The pools that it is for take notice: those that do something at once, the others in slices."""
        pools = sorted(self._pools_of(brake), key=lambda pool: not pool.channels)
        for pool in pools[:SET_AT_ONCE]:
            pool.brake(self.of_pool(pool))
        if len(pools) > SET_AT_ONCE:
            if not self._to_set:
                self._engine.loop.call_soon(self._set_some)
            self._to_set += pools[SET_AT_ONCE:]

    def _set_some(self) -> None:
        some, self._to_set = self._to_set[:SET_AT_ONCE], self._to_set[SET_AT_ONCE:]
        for pool in some:
            if not pool.is_closed:
                pool.brake(self.of_pool(pool))
        if self._to_set:
            self._engine.loop.call_soon(self._set_some)

    def _lower(self, brake: Brake, wall_s: float) -> None:
        """Connections beyond what it allows leave: idle ones at once, the others after their transaction."""
        channels = [channel for pool in self._pools_of(brake) for channel in pool.channels]
        if brake.firing.action == "probe" and brake.restraint.wait_s(wall_s) > 0:
            for channel in channels:
                channel.leave()
        else:
            lower(brake.limit.meter, channels)

    def _pump(self, brake: Brake) -> None:
        """Pools that it is for may perhaps go on."""
        self._engine.restraints.pump({pool.site: None for pool in self._pools_of(brake)})
