"""A destination: a provider, a route or a site, with the limits that hold over all of it on this worker."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from mta.delivery.calendars import calendar
from mta.delivery.channel import Channel
from mta.delivery.connection import SourceAddress
from mta.delivery.gate import SharedLimit
from mta.delivery.judging import Judging
from mta.handoff.claims import LimitState
from mta.handoff.placement import Destination as Placed
from mta_policies.layers import DEFAULT
from mta_policies.limits import Meter, Share
from mta_policies.policy import Policy
from mta_policies.schema import Limits
from mta_policies.warmup import PREFIX as WARMUP

if TYPE_CHECKING:
    from mta.delivery.brakes import Brakes
    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.sites import Site


class Destination:
    """The unit of ownership: this worker's share of it."""

    def __init__(self, engine: "Dispatcher", placed: Placed, share: Share, is_claimed: bool) -> None:
        self.engine = engine
        self.placed = placed
        self.key = placed.key
        self.policy = placed.policy
        self.share = share
        self.sites: dict[str, Site] = {}
        self.account = _account(placed)
        """What its quotas are kept under, over restarts and reloads."""
        self.provider_limit = SharedLimit(engine.loop, self.meter(self.policy.provider_limits))
        self._keep("provider_limits", self.provider_limit, self.policy.provider_limits)
        self._source_limits: dict[str, SharedLimit] = {}
        self.tally = engine.tally(self.policy.name)
        """What its policy's mail did, counted in plain numbers by whoever does it."""
        self._takes_over = is_claimed
        """Its limits go on where another worker's stopped; afterwards they are its own."""
        self.provider = provider_of(self.policy, self.key)
        """As rules know it."""
        self.judging = Judging(self)
        self.brakes: Brakes | None = None
        """What firings do here; None: nothing."""
        self.listens = False
        """What is delivered is to be told to `judging`, too: the one thing that is looked at where it is not."""
        engine.restraints.of_new(self)
        self.listen()

    def listen(self) -> None:
        """Rules or firings may want to hear of what is delivered, or no more."""
        self.listens = self.judging.listens or (self.brakes is not None and self.brakes.listens)

    def meter(self, limits: Limits) -> Meter:
        """Keeps a level of limits here. Behind a process that died in the middle it begins with all used up that may
        go at once: perhaps it went a moment ago."""
        engine = self.engine
        meter = Meter(limits, self.share, engine.loop.time())
        if engine.follows_s:
            meter.restore({}, engine.follows_s)
        return meter

    def take_over(self) -> None:
        """What others used of the limits is ours with the next claim."""
        self._takes_over = True

    def source_limit(self, source: SourceAddress) -> SharedLimit:
        """The limit of one source over all sites of this destination."""
        limit = self._source_limits.get(source.name)
        if limit is None:
            _, limits, _ = self.policy.for_source(source.name)
            limit = self._source_limits[source.name] = SharedLimit(self.engine.loop, self.meter(limits))
            self._keep(f"source_limits {source.name}", limit, limits)
        return limit

    def _keep(self, name: str, limit: SharedLimit, limits: Limits) -> None:
        """Hours and quota of a level, as they are now."""
        key = f"{self.account} {name}"
        limit.keep(calendar(self.engine, limit.calendar, key, limits, self.share, limit.turns.wake))

    def reload(self, placed: Placed, share: Share) -> None:
        """Policy, sources or this worker's share changed: take the new values, keep what was used of the old ones.

        The mail that waits is not looked at before the sites are pumped.
        """
        now_s = self.engine.loop.time()
        self.placed, self.policy, self.share = placed, placed.policy, share
        self.tally = self.engine.tally(self.policy.name)
        self.judging.change(self.policy, share)
        if self.brakes is not None:
            self.brakes.reload()
        self.listen()
        self.account = _account(placed)
        self.provider_limit.meter.change(self.policy.provider_limits, share, now_s)
        self._keep("provider_limits", self.provider_limit, self.policy.provider_limits)
        for name, limit in self._source_limits.items():
            _, limits, _ = self.policy.for_source(name)
            limit.meter.change(limits, share, now_s)
            self._keep(f"source_limits {name}", limit, limits)
        for site in self.sites.values():
            site.reload()
        self.lower_connections()

    def state(self, site: "Site | None" = None) -> LimitState:
        """What was used of the limits (also of a site that is leaving), for a worker that takes them over. Quotas are
        not among it: what may be used of them is drawn from an account that all have in common."""
        now_s = self.engine.loop.time()
        meters = {"provider": self.provider_limit.meter}
        for name, limit in self._source_limits.items():
            meters[f"source {name}"] = limit.meter
        for each in [*self.sites.values(), *([site] if site is not None else [])]:
            meters |= _meters_of(each)
        states = {name: meter.state(now_s) for name, meter in meters.items()} | self.engine.warming.state(self)
        return states if self.brakes is None else states | self.brakes.state(now_s)

    def restore(self, states: list[LimitState], site: "Site") -> None:
        """A claim was granted: go on where other workers stopped, so that no change of owner is a fresh burst."""
        now_s = self.engine.loop.time()
        sources = self.engine.sources.by_name
        takes_over, self._takes_over = self._takes_over, False
        for state in states:
            if takes_over and self.brakes is not None:
                self.brakes.restore(state, now_s)
            for name, values in state.items():
                kind, _, rest = name.partition(" ")
                if kind == "site":
                    site_name, _, source = rest.partition(" ")
                    if site_name == site.name and source in sources:
                        site.pool(source).meter.restore(values, now_s)
                elif kind == "tenant":
                    site_name, source, tenant = rest.split(" ", 2)
                    if site_name == site.name and source in sources:
                        tenants = site.pool(source).allowance.tenants
                        limit = tenants.of(tenant) if tenants is not None else None
                        if limit is not None:
                            limit.meter.restore(values, now_s)
                elif takes_over and kind == "provider":
                    self.provider_limit.meter.restore(values, now_s)
                elif kind == WARMUP:
                    self.engine.warming.restore(self, rest, values)
                elif takes_over and kind == "source" and rest in sources:
                    self.source_limit(sources[rest]).meter.restore(values, now_s)

    def lower_connections(self) -> int:
        """Where limits now allow fewer connections let some go, idle ones first, the others after their transaction.

        -> how many are still too many.
        """
        pools = [pool for site in self.sites.values() for pool in site.pools.values()]
        too_many = sum(lower(pool.meter, pool.channels) for pool in pools)
        for name, limit in self._source_limits.items():
            if _over(limit.meter):
                channels = [channel for pool in pools if pool.source.name == name for channel in pool.channels]
                too_many += lower(limit.meter, channels)
        if _over(self.provider_limit.meter):
            channels = [channel for pool in pools for channel in pool.channels]
            too_many += lower(self.provider_limit.meter, channels)
        return too_many

    def is_rested(self, site: "Site", now_s: float) -> bool:
        """Whether nothing that was used of the limits of a site, or over all of it, need be remembered."""
        is_last = len(self.sites) == 1  # what holds over all of them goes with the last
        shared = (self.provider_limit, *self._source_limits.values()) if is_last else ()
        meters = [*(limit.meter for limit in shared), *_meters_of(site).values()]
        return not any(used for meter in meters for each in meter.state(now_s).values() for used in each)

    def close(self) -> None:
        """No more waking."""
        self.engine.warming.leave(self)
        self.provider_limit.close()
        for limit in self._source_limits.values():
            limit.close()


def _meters_of(site: "Site") -> dict[str, Meter]:
    """What pools, and tenants in them, used at a site, by the names that a hand-over calls them."""
    meters: dict[str, Meter] = {}
    for name, pool in site.pools.items():
        meters[f"site {site.name} {name}"] = pool.meter
        for tenant, meter in pool.allowance.tenants.meters() if pool.allowance.tenants is not None else ():
            meters[f"tenant {site.name} {name} {tenant}"] = meter
    return meters


def _account(placed: Placed) -> str:
    """A destination's name that stays when routes come before it."""
    route = placed.route
    if route is None:
        return placed.key
    return f"route:{','.join(f'{host}:{port}' for host, port in route.hosts)}:{placed.policy.name}"


def provider_of(policy: Policy, key: str) -> str:
    """The name of a provider as scope keys have it: its policy's, or the destination's own where none is its own."""
    return policy.name if policy.name != DEFAULT else key.removeprefix("site:")


def _over(meter: Meter) -> int:
    """How many connections are open beyond the limit."""
    return int(max(0, meter.connections_open - meter.connections_max))


def lower(meter: Meter, channels: Collection[Channel]) -> int:
    """Where a limit now allows fewer than these connections let some go; -> how many are still too many."""
    over = _over(meter)
    if over:
        staying = sorted(
            (channel for channel in channels if not channel.is_leaving), key=lambda channel: channel.job is not None
        )
        for channel in staying[: max(0, over - (len(channels) - len(staying)))]:
            channel.leave()
    return over
