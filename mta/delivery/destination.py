"""A destination: a provider, a route or a site, with the limits that hold over all of it on this worker."""

import asyncio
from typing import TYPE_CHECKING

from mta.delivery.connection import SourceAddress
from mta.delivery.gate import Gate
from mta.handoff.claims import LimitState
from mta.handoff.placement import Destination as Placed
from mta_policies.limits import Meter, Share

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.sites import Site


class SharedLimit:
    """A limit over several pools: the meter, and who waits for a transaction or a connection."""

    __slots__ = ("connections", "meter", "turns")

    def __init__(self, loop: asyncio.AbstractEventLoop, meter: Meter) -> None:
        self.meter = meter
        self.turns = Gate(loop, meter.transaction_wait_s)
        self.connections = Gate(loop, meter.connection_wait_s)

    def close(self) -> None:
        """No more waking."""
        self.turns.close()
        self.connections.close()


class Destination:
    """The unit of ownership: this worker's share of it."""

    def __init__(self, engine: "Dispatcher", placed: Placed, share: Share) -> None:
        self.engine = engine
        self.placed = placed
        self.key = placed.key
        self.policy = placed.policy
        self.share = share
        self.sites: dict[str, Site] = {}
        self.provider_limit = SharedLimit(engine.loop, Meter(self.policy.provider_limits, share, engine.loop.time()))
        self._source_limits: dict[str, SharedLimit] = {}

    def source_limit(self, source: SourceAddress) -> SharedLimit:
        """The limit of one source over all sites of this destination."""
        limit = self._source_limits.get(source.name)
        if limit is None:
            _, limits, _ = self.policy.for_source(source.name)
            meter = Meter(limits, self.share, self.engine.loop.time())
            limit = self._source_limits[source.name] = SharedLimit(self.engine.loop, meter)
        return limit

    def reload(self, placed: Placed, share: Share) -> None:
        """The policy or this worker's share changed: take the new values, keep what was used of the old ones."""
        now_s = self.engine.loop.time()
        self.placed, self.policy, self.share = placed, placed.policy, share
        self.provider_limit.meter.change(self.policy.provider_limits, share, now_s)
        for name, limit in self._source_limits.items():
            _, limits, _ = self.policy.for_source(name)
            limit.meter.change(limits, share, now_s)
        for site in self.sites.values():
            site.reload()

    def meters(self) -> dict[str, Meter]:
        """Every meter by a name that other workers use for it too."""
        meters = {"provider": self.provider_limit.meter}
        for name, limit in self._source_limits.items():
            meters[f"source {name}"] = limit.meter
        for site in self.sites.values():
            for name, pool in site.pools.items():
                meters[f"site {site.name} {name}"] = pool.meter
        return meters

    def state(self) -> LimitState:
        """What was used of the limits, for a worker that takes them over."""
        now_s = self.engine.loop.time()
        return {name: meter.state(now_s) for name, meter in self.meters().items()}

    def restore(self, states: list[LimitState], site: "Site") -> None:
        """Go on where other workers stopped, so that no change of owner is a fresh burst."""
        now_s = self.engine.loop.time()
        for state in states:
            for name, values in state.items():
                kind, _, rest = name.partition(" ")
                if kind == "provider":
                    self.provider_limit.meter.restore(values, now_s)
                elif kind == "source" and rest in self.engine.sources.by_name:
                    self.source_limit(self.engine.sources.by_name[rest]).meter.restore(values, now_s)
                elif kind == "site":
                    site_name, _, source = rest.rpartition(" ")
                    if site_name == site.name and source in self.engine.sources.by_name:
                        site.pool(source).meter.restore(values, now_s)

    def lower_connections(self) -> int:
        """Let idle connections go where a smaller share allows fewer; -> how many are still too many."""
        too_many = 0
        for site in self.sites.values():
            for pool in site.pools.values():
                over = _over(pool.meter)
                too_many += over
                for channel in pool.idle[:over]:
                    channel.leave()
        for limit in (self.provider_limit, *self._source_limits.values()):
            over = _over(limit.meter)
            too_many += over
            if over:
                pools = [pool for site in self.sites.values() for pool in site.pools.values()]
                for channel in [channel for pool in pools for channel in pool.idle][:over]:
                    channel.leave()
        return too_many

    def close(self) -> None:
        """No more waking."""
        self.provider_limit.close()
        for limit in self._source_limits.values():
            limit.close()


def _over(meter: Meter) -> int:
    """How many connections are open beyond the limit."""
    return int(max(0, meter.connections_open - meter.connections_max))
