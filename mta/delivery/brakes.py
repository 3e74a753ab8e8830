"""Brakes: what firings do to the mail of one destination on this worker.

A brake is one restraint (`mta_policies.restraint`) with the gates at which pools wait for it. Those whose scope is all
mail of a source for a site hold for whole pools: beside the policy's own limits, as further shared ones.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mta.delivery.channel import Channel
from mta.delivery.destination import Destination, lower
from mta.delivery.gate import SharedLimit
from mta.delivery.job import Job
from mta.delivery.parking import Lot
from mta.delivery.pool import Pool
from mta.delivery.stages import is_signed
from mta.delivery.throttles import Throttle
from mta.handoff.claims import LimitState
from mta.model.envelope import Envelope
from mta.reporting.events import NO_WAY
from mta_policies.answers import Subject, scope_key
from mta_policies.firing import Change, Firing
from mta_policies.restraint import EFFECTIVE, JOB_SCOPES, Restraint, keys_of_pool
from mta_policies.schema import Limits

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

Identity = tuple[str, str, str, str]
"""`Firing.identity`."""

HANDED = "firing"
"""How the meters of firings begin in the state that goes to another worker."""

PASSED_S = 60.0  # how often an owner without a place gives mail away
PASSED_ON = 100  # messages of a pool at a time: all of it gets on, and a firing that is soon over moves no long queue
KNOWN_MAX = 1_000  # kinds of messages of which it is remembered what holds them
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

    __slots__ = ("_engine", "_stopping", "brakes", "stops")

    def __init__(self, engine: "Dispatcher", brakes: list[Brake]) -> None:
        self._engine = engine
        self.brakes = brakes
        self._stopping = [brake for brake in brakes if brake.firing.action != "slow"]
        """Those that may stop it altogether."""
        self.stops = bool(self._stopping)
        """Whether `wait_s` is to be asked."""

    def wait_s(self) -> float:
        """Seconds in which the pool begins nothing; 0.0: it may."""
        if not self._stopping:
            return 0.0
        wall_s = self._engine.clock.wall_s()
        return max(brake.restraint.wait_s(wall_s) for brake in self._stopping)

    def longest(self) -> Firing | None:
        """The firing that keeps the pool still longest; None where none does."""
        wall_s = self._engine.clock.wall_s()
        still = [brake for brake in self._stopping if brake.restraint.wait_s(wall_s) > 0]
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

    def opened(self, channel: Channel) -> None:
        """A connection was begun."""
        self._engine.restraints.stepped(brake.restraint.opened(channel.begun_wall_s) for brake in self._stopping)


class Brakes:
    """All of one destination."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._engine = destination.engine
        self._brakes: dict[Identity, Brake] = {}
        self._of_pools: dict[str, dict[Identity, Brake]] = {}
        self._of_jobs: dict[str, dict[Identity, Brake]] = {}
        self._job_scopes: Sequence[str] = ()
        """Of what is in it, so that no key of another scope is made for a message."""
        self._known: dict[tuple[str | bool | None, ...], list[Brake]] = {}
        """What holds messages that have all that scopes are about in common."""
        self._to_set: list[Pool] = []
        self._passed_s = destination.engine.loop.time()
        self.listens = False
        """What is delivered is to be told."""

    def __bool__(self) -> bool:
        return bool(self._brakes)

    def __iter__(self) -> Iterator[Brake]:
        return iter(self._brakes.values())

    @property
    def are_of_messages(self) -> bool:
        """Whether any holds single messages, so that each is to be asked for."""
        return bool(self._of_jobs)

    def _listen(self) -> None:
        of_jobs = (brake for brakes in self._of_jobs.values() for brake in brakes.values())
        scopes = {brake.firing.scope for brake in of_jobs}
        self._job_scopes = [scope for scope in JOB_SCOPES if scope in scopes]
        self._known.clear()
        self.listens = any(brake.restraint.listens for brake in self._brakes.values())

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
        before = meter.is_unlimited, meter.has_rate, restraint.tightened(Limits())
        restraint.change(firing, now_s, wall_s)
        if (meter.is_unlimited, meter.has_rate, restraint.tightened(Limits())) != before:
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
        if self._engine.follows_s:
            restraint.meter.restore({}, self._engine.follows_s)
        table = self._of_pools if restraint.is_of_pools else self._of_jobs
        table.setdefault(firing.key, {})[identity] = brake
        self._listen()
        if restraint.is_of_pools:
            self._set(brake)
            self._lower(brake, wall_s)

    def _end(self, identity: Identity, brake: Brake) -> None:
        del self._brakes[identity]
        table = self._of_pools if brake.restraint.is_of_pools else self._of_jobs
        known = table[brake.firing.key]
        del known[identity]
        if not known:
            del table[brake.firing.key]
        self._listen()
        if brake.restraint.is_of_pools:
            self._set(brake)
            self._pump(brake)
        else:
            self._engine.parking.free(brake.throttle.lot)
        brake.limit.close()

    # single messages

    def kept(self, pool: Pool, job: Job) -> Iterable[tuple[Lot, Sequence[int]]]:
        """See `mta.delivery.parking.Kept`."""
        of_whole = self._of_whole(pool, job)
        if "recipient" in self._job_scopes and job.envelope is not None:
            return self._kept_each(of_whole, job, job.envelope)
        if len(of_whole) == 1:
            throttle = of_whole[0].throttle
            return () if throttle.lets(job) else ((throttle.lot, list(job.parts)),)
        return _kept_whole(of_whole, job)

    def _kept_each(self, of_whole: list[Brake], job: Job, envelope: Envelope) -> Iterator[tuple[Lot, Sequence[int]]]:
        """The same, where single recipients may be held."""
        yield from _kept_whole(of_whole, job)
        provider = self._destination.provider
        for part in list(job.parts):
            recipient = Subject(provider=provider, recipient=envelope.recipients[part].address)
            for brake in list(self._of_jobs.get(scope_key("recipient", recipient), {}).values()):
                if part in job.parts and not brake.throttle.lets(job):
                    yield brake.throttle.lot, [part]

    def _of_whole(self, pool: Pool, job: Job) -> list[Brake]:
        """What holds all recipients of a message, beside what holds for its pool; as far as it is known yet: not who
        signs it, and not who sent it where it is not in memory."""
        envelope, signature = job.envelope, job.signature
        signed = signature.domains if signature is not None else ""
        is_unsigned = pool.lane.signs and not is_signed(job)
        sender = None
        if envelope is not None:
            sender = envelope.sender_domain if "spf-domain" in self._job_scopes else ""
        whose = (pool.source.name, pool.site.name, job.tenant, job.campaign, signed, is_unsigned, sender)
        found = self._known.get(whose)
        if found is None:
            subject = self._destination.judging.subject(pool, job, job.parts[0], NO_WAY, envelope)
            unknown = ["recipient"]
            if is_unsigned:
                unknown.append("path")
            if envelope is None:
                unknown.append("spf-domain")
            found = self._brakes_of(subject, unknown)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[whose] = found
        return found

    def _brakes_of(self, subject: Subject, unknown: Container[str] = ()) -> list[Brake]:
        """Those that hold for single messages of a subject; `unknown`: scopes that are not looked at."""
        keys = [scope_key(scope, subject) for scope in self._job_scopes if scope not in unknown]
        return [brake for key in keys for brake in self._of_jobs.get(key, {}).values()]

    def release(self) -> None:
        """Let go of parked messages that may go now."""
        for brakes in list(self._of_jobs.values()):
            for brake in list(brakes.values()):
                brake.throttle.release()

    def pass_on(self, now_s: float) -> None:
        """Where a firing leaves fewer connections than there are owners, those without one give of their mail to the
        others, a little at a time: else it would wait for the end of the firing."""
        share = self._destination.share
        if share.of == 1 or now_s - self._passed_s < PASSED_S:
            return
        self._passed_s = now_s
        domains, owners = self._engine.domains, self._engine.placement.owners(self._destination.placed)
        for brake in self._brakes.values():
            places = brake.limit.meter.limits.connections
            if brake.restraint.is_of_pools and 0 < places <= share.index:
                for pool in self._pools_of(brake):
                    first = set(islice(pool.lane, PASSED_ON))
                    domains.move_all(pool.take_jobs(first.__contains__), owners[:places])

    def close(self) -> None:
        """The destination is used no more here: what is parked goes its way anew, and may be parked elsewhere."""
        for brake in self._brakes.values():
            self._engine.parking.free(brake.throttle.lot)
            brake.limit.close()

    # another worker goes on

    def state(self, now_s: float) -> LimitState:
        """What was used of the limits that firings set."""
        return {_handed(identity): brake.limit.meter.state(now_s) for identity, brake in self._brakes.items()}

    def restore(self, states: LimitState, now_s: float) -> None:
        """What another worker used of them; of those that it did not know of the burst counts as used up."""
        for identity, brake in self._brakes.items():
            brake.limit.meter.restore(states.get(_handed(identity), {}), now_s)

    def reload(self) -> None:
        """Another policy, or another share of it; the sites are told afterwards."""
        now_s, wall_s, destination = self._engine.loop.time(), self._engine.clock.wall_s(), self._destination
        self._known.clear()
        for brake in self._brakes.values():
            brake.restraint.reload(destination.policy, destination.share, now_s, wall_s)

    def _probes_of(self, pool: Pool, job: Job | None) -> list[Brake]:
        """Those that a message is for, which may be over before anybody has looked whether it was begun."""
        found = list(pool.braked.brakes) if pool.braked is not None else []
        if job is not None and self._of_jobs:
            subject = self._destination.judging.subject(pool, job, job.parts[0], NO_WAY, job.envelope)
            found += self._brakes_of(subject)
        probes = [brake for brake in found if brake.restraint.listens]
        for brake in probes:
            brake.throttle.settle(self._engine.loop.time())
        return probes

    def refused(self, pool: Pool, job: Job | None, rule: str) -> Iterator[Change]:
        """A rule matched what a pool was told: the probes that it began are back at their silence."""
        wall_s = self._engine.clock.wall_s()
        for brake in self._probes_of(pool, job):
            if brake.firing.rule == rule and (change := brake.restraint.refused(wall_s)) is not None:
                yield change

    def delivered(self, pool: Pool, job: Job, channel: Channel) -> Iterator[Change]:
        """A message was taken on this connection."""
        wall_s = self._engine.clock.wall_s()
        for brake in self._probes_of(pool, job):
            # A message's own scope shares connections: what counts there is its transaction, which has just begun.
            began_s = channel.begun_wall_s if brake.restraint.is_of_pools else wall_s
            if (change := brake.restraint.delivered(wall_s, began_s)) is not None:
                yield change

    # whom they hold

    def of_pool(self, pool: Pool) -> Braked | None:
        """What holds for a pool; None: nothing."""
        if not self._of_pools:
            return None
        found = [brake for key in keys_of(pool) for brake in self._of_pools.get(key, {}).values()]
        return Braked(self._engine, found) if found else None

    def of_message(self, pool: Pool, subject: Subject) -> list[Brake]:
        """What holds for a single message, beside what holds for its pool."""
        return self._brakes_of(subject, ("path",) if pool.lane.signs and not subject.dkim_domain else ())

    def _pools_of(self, brake: Brake) -> list[Pool]:
        key = brake.firing.key
        pools = (pool for site in self._destination.sites.values() for pool in site.pools.values())
        return [pool for pool in pools if key in keys_of(pool)]

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


def _kept_whole(brakes: list[Brake], job: Job) -> Iterator[tuple[Lot, Sequence[int]]]:
    """What is kept of a message by what holds all of it."""
    for brake in brakes:
        if job.parts and not brake.throttle.lets(job):
            yield brake.throttle.lot, list(job.parts)


def keys_of(pool: Pool) -> dict[str, None]:
    """Every scope key that all mail of a pool has."""
    source, site, provider = pool.source, pool.site.name, pool.site.destination.provider
    addresses = sorted({source.ipv4, source.ipv6, pool.address} - {""}) or [""]
    subjects = [Subject(source.name, address, site, provider) for address in addresses]
    return {key: None for subject in subjects for key in keys_of_pool(subject)}


def _handed(identity: Identity) -> str:
    """The name of a firing's meter, as every worker makes it."""
    return "\0".join((HANDED, *identity))
