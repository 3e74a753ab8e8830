"""Ways: which pool mail goes through and which tally counts it, as the policies have it."""

from collections.abc import Callable
from typing import NamedTuple

from mta_policies.answers import Subject
from mta_policies.engine import Judge
from mta_policies.firings import Firings
from mta_policies.local_time import Zones
from mta_policies.policy import Policy
from mta_policies.rehearsal.agenda import Agenda
from mta_policies.rehearsal.pools import Destination, Pool, Site
from mta_policies.rehearsal.tally import Tally
from mta_policies.rehearsal.traffic import Mail, Stream


class Placed(NamedTuple):
    """Where mail goes."""

    key: str
    """Of its destination: what shares limits."""
    policy: Policy
    provider: str
    """As rules know it."""


class Way(NamedTuple):
    """Of one stream."""

    pool: Pool
    tally: Tally
    subject: Subject
    """Who is meant by rules, but for the recipient."""


class Map(NamedTuple):
    """What decides about ways."""

    place: Callable[[Stream], Placed]
    label: Callable[[Stream], str]
    """Which tally counts the mail."""
    delivery_s: Callable[[Stream], float]
    """How long a transaction takes there."""


class Ways:
    """All that were taken."""

    def __init__(self, given: Map, agenda: Agenda, firings: Firings, zones: Zones, bin_s: float) -> None:
        self.tallies: dict[str, Tally] = {}
        """By label."""
        self.pools: list[Pool] = []
        self._map = given
        self._agenda = agenda
        self._firings = firings
        self._zones = zones
        self._bin_s = bin_s
        self._destinations: dict[str, Destination] = {}
        self._known: dict[int, Way] = {}
        self._names = 0

    def of(self, stream: Stream) -> Way:
        """The way of this mail."""
        way = self._known.get(stream.number)
        if way is None:
            way = self._known[stream.number] = self._make(stream)
        return way

    def tally(self, mail: Mail) -> Tally:
        """Who counts it."""
        return self.of(mail.stream).tally

    def subject(self, mail: Mail) -> Subject:
        """About whose mail something is said."""
        return self.of(mail.stream).subject._replace(recipient=mail.recipient)

    def _make(self, stream: Stream) -> Way:
        now_s, source = self._agenda.now_s, stream.subject.source
        label = self._map.label(stream)
        tally = self.tallies.get(label)
        if tally is None:
            tally = self.tallies[label] = Tally(self._bin_s)
        destination = self._destination(self._map.place(stream))
        name = stream.site or stream.domain
        site = destination.sites.get(name)
        if site is None:
            site = destination.sites[name] = Site(name)
        pool = site.pools.get(source)
        if pool is None:
            delivery_s = self._map.delivery_s(stream)
            pool = site.pools[source] = Pool(destination, site, stream, tally, self._zones, delivery_s, now_s)
            self.pools.append(pool)
        return Way(pool, tally, stream.subject._replace(site=name, provider=destination.provider))

    def _destination(self, placed: Placed) -> Destination:
        destination = self._destinations.get(placed.key)
        if destination is None:
            judge = Judge(placed.policy, self._firings, self._new_id)
            destination = Destination(placed.policy, placed.provider, judge, self._zones, self._agenda.now_s)
            self._destinations[placed.key] = destination
        return destination

    def _new_id(self) -> str:
        self._names += 1
        return f"f{self._names}"
