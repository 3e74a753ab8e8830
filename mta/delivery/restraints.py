"""Restraints: the firings that this worker knows of, whoever made them, and who hears of them.

A rule fires here and has its effect here at once; the supervisor is told, keeps it and tells the other workers, and
what fired there comes to us in the same way. Where nothing is in force nothing is asked anywhere.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mta.delivery.brakes import Brakes, Identity
from mta.delivery.job import Job
from mta.delivery.parking import Lot
from mta.delivery.pool import Pool
from mta.delivery.sites import PumpRound, Site
from mta_policies.firing import Change, Firing, Snapshot
from mta_policies.firings import Firings
from mta_policies.restraint import provider_of_key

if TYPE_CHECKING:
    from mta.delivery.destination import Destination
    from mta.delivery.dispatcher import Dispatcher

ID_BITS = 32  # of a firing's name, so short that one can type it


class Restraints:
    """Of one worker."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self.firings = Firings()
        self.report: Callable[[list[Change]], None] = lambda changes: None
        """Tells the supervisor what happened here. Set by the worker."""
        self._by_provider: dict[str, dict[Identity, Firing]] = {}
        self._outbox: list[Change] = []
        self._hits: dict[str, Change] = {}
        self._round = PumpRound(engine.loop)
        self._braked: dict[Destination, None] = {}
        """Destinations where something holds."""
        self._keeping: dict[Destination, None] = {}
        """Those of them where single messages are held back."""

    def new_id(self) -> str:
        """A name for a firing."""
        while True:
            name = f"f{self._engine.random.getrandbits(ID_BITS):08x}"
            if name not in self.firings:
                return name

    @property
    def active(self) -> bool:
        """Whether anything is in force."""
        return bool(self._by_provider)

    # what happens

    def made(self, changes: Iterable[Change]) -> None:
        """Rules did this here: it is done in `firings` already."""
        for change in changes:
            if change.is_event:
                self._engine.events.rule(change)
                self._send(change)
            elif change.firing is not None:
                self._hits[change.firing.id] = change
            self._follow(change)

    def stepped(self, changes: Iterable[Change | None]) -> None:
        """The same, where there may be nothing."""
        self.made([change for change in changes if change is not None])

    def told(self, changes: Sequence[Change], snapshot: Snapshot | None, *, tells: bool) -> None:
        """This was done elsewhere, or by an admin; a snapshot is all that there is. `tells`: it is for us to log."""
        now_s = self._engine.clock.wall_s()
        if snapshot is not None:
            self.load(snapshot)
        for change in changes:
            if tells and change.is_event:
                self._engine.events.rule(change)
            self.firings.apply(change, now_s)
            self._follow(change)
            if change.what == "cancelled" and change.firing is not None:
                for destination in self._destinations(change.firing):
                    destination.judging.forget(change.firing.rule, change.firing.key)

    def load(self, snapshot: Snapshot) -> None:
        """What was in force at some time, beside what is known."""
        self.firings.load(snapshot, self._engine.clock.wall_s())
        self._follow_all()

    def sweep(self) -> None:
        """Look at the clock, and tell what can wait."""
        if self._hits:
            for change in self._hits.values():
                self._send(change)
            self._hits.clear()
        if not self._by_provider and not self.firings.mutes():
            return
        monotonic_s = self._engine.loop.time()
        for destination in list(self._braked):
            if destination.brakes is not None:
                destination.brakes.release()
                destination.brakes.pass_on(monotonic_s)
        now_s = self._engine.clock.wall_s()
        if self.firings.next_end_s() <= now_s:
            for change in self.firings.expire(now_s):  # the supervisor has it in its log
                self._follow(change)

    def _send(self, change: Change) -> None:
        if not self._outbox:
            self._engine.loop.call_soon(self._report)
        self._outbox.append(change)

    def _report(self) -> None:
        changes, self._outbox = self._outbox, []
        self.report(changes)

    # what is in force

    def _follow(self, change: Change) -> None:
        """Let destinations feel a change."""
        if change.mute is not None:
            self._follow_all()
        elif change.firing is not None:
            self._follow_one(change.firing.identity)

    def _follow_all(self) -> None:
        known = {identity for firings in self._by_provider.values() for identity in firings}
        known.update(firing.identity for firing in self.firings.all())
        for identity in known:
            self._follow_one(identity)

    def _follow_one(self, identity: Identity) -> None:
        firing = self.firings.find(*identity)
        if firing is not None and not firing.is_in_force(self._engine.clock.wall_s()):
            firing = None
        provider = provider_of_key(identity[3])
        known = self._by_provider.setdefault(provider, {})
        if known.get(identity) is not firing:
            if firing is None:
                del known[identity]
            else:
                known[identity] = firing
            for destination in self._engine.domains.of_provider(provider):
                self._set(destination, identity, firing)
        if not known:
            del self._by_provider[provider]

    def _set(self, destination: "Destination", identity: Identity, firing: Firing | None) -> None:
        brakes = destination.brakes
        if brakes is None:
            if firing is None:
                return
            brakes = destination.brakes = Brakes(destination)
        brakes.follow(identity, firing)
        if brakes:
            self._braked[destination] = None
        else:
            destination.brakes = None
            self._braked.pop(destination, None)
        if brakes.are_of_messages:
            self._keeping[destination] = None
        else:
            self._keeping.pop(destination, None)
        self._ask()
        destination.listen()

    def _ask(self) -> None:
        """Be asked about every message only where a single one may have to wait."""
        self._engine.parking.asks(self, self._kept if self._keeping else None)

    def _kept(self, pool: Pool, job: Job) -> Iterable[tuple[Lot, Sequence[int]]]:
        """See `mta.delivery.parking.Kept`."""
        brakes = pool.site.destination.brakes
        return brakes.kept(pool, job) if brakes is not None else ()

    def _destinations(self, firing: Firing) -> "list[Destination]":
        return self._engine.domains.of_provider(provider_of_key(firing.key))

    def of_new(self, destination: "Destination") -> None:
        """A destination came into use: what is in force holds there, too."""
        for identity, firing in self._by_provider.get(destination.provider, {}).items():
            self._set(destination, identity, firing)

    def of_gone(self, destination: "Destination") -> None:
        """A destination is used no more."""
        if destination.brakes is not None:
            self._braked.pop(destination, None)
            self._keeping.pop(destination, None)
            self._ask()
            destination.brakes.close()

    def pump(self, sites: Iterable[Site]) -> None:
        """Something became possible there, perhaps; not before the loop turns."""
        self._round.add(sites)
