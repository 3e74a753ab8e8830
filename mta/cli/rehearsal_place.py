"""Where recorded mail goes by the policies of a configuration, without asking any DNS."""

from collections.abc import Callable

from mta.config import Config
from mta.handoff.placement import Destination, Placement, Route
from mta.resolve.sites import hosts_of
from mta_policies.layers import DEFAULT, PolicySet
from mta_policies.rehearsal.traffic import Stream
from mta_policies.rehearsal.ways import Placed


def place_by(policies: PolicySet, loaded: Config | None) -> Callable[[Stream], Placed]:
    """A route, else the policy that names the domain, else the one that matches the recorded MX hosts; where these
    cannot be told from the site's name, the one that held when it was recorded."""
    routes = [Route(route.domains, route.hosts, route.policy) for route in loaded.routes] if loaded is not None else []
    placement = Placement(policies, routes, workers=1, me=0)
    known: dict[tuple[str, str, str], Placed] = {}

    def place(stream: Stream) -> Placed:
        key = (stream.domain, stream.site, stream.policy)
        placed = known.get(key)
        if placed is None:
            placed = known[key] = _placed(_destination(placement, stream))
        return placed

    return place


def _destination(placement: Placement, stream: Stream) -> Destination:
    decided = placement.decided(stream.domain)
    if decided is not None:
        return decided
    hosts = hosts_of(stream.site)
    if hosts:
        return placement.by_mx(hosts, stream.site)
    policy = placement.policies.policies.get(stream.policy, placement.policies.default)
    site = stream.site or stream.domain
    return Destination(f"site:{site}" if policy.name == DEFAULT else f"policy:{policy.name}", policy)


def _placed(destination: Destination) -> Placed:
    policy = destination.policy
    provider = policy.name if policy.name != DEFAULT else destination.key.removeprefix("site:")
    return Placed(destination.key, policy, provider)
