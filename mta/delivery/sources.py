"""Sources: the identities that mail goes out under, and which one a message takes.

A pool hands its sources out in proportion to their weights, evenly interleaved, so that the proportion holds over
any few dozen messages and not only in the long run.
"""

from collections.abc import Callable, Mapping, Sequence

from mta.delivery.connection import SourceAddress
from mta.model.envelope import POOL_DEFAULT


class Rotation:
    """Smooth weighted round-robin: 3 to 1 gives a a b a."""

    __slots__ = ("_current", "_sources", "_total", "_weights")

    def __init__(self, weights: Sequence[tuple[SourceAddress, int]]) -> None:
        self._sources = [source for source, _ in weights]
        self._weights = [weight for _, weight in weights]
        self._current = [0] * len(weights)
        self._total = sum(self._weights)

    def next(self) -> SourceAddress:
        """Whose turn it is."""
        if len(self._sources) == 1:
            return self._sources[0]
        current = self._current
        for index, weight in enumerate(self._weights):
            current[index] += weight
        best = max(range(len(current)), key=current.__getitem__)
        current[best] -= self._total
        return self._sources[best]

    def first(self, wanted: Callable[[SourceAddress], bool]) -> SourceAddress | None:
        """Whose turn it is, or another that is wanted where that one is not; None: nobody is."""
        source = self.next()
        if wanted(source):
            return source
        return next((other for other in self._sources if other is not source and wanted(other)), None)


class Sources:
    """All sources and pools of the configuration.

    Without any source mail goes out from the system's own address under the server's name. A message that names no
    pool (or an unknown one) takes the pool "default", or all sources alike where there is no such pool.
    """

    def __init__(
        self, sources: Sequence[SourceAddress], pools: Mapping[str, Mapping[str, int]], system_ehlo: str
    ) -> None:
        system = SourceAddress("", "", "", system_ehlo)
        self.by_name = {source.name: source for source in sources} or {"": system}
        everything = Rotation([(source, 1) for source in self.by_name.values()])
        self._pools = {
            name: Rotation([(self.by_name[source], weight) for source, weight in weights.items() if weight > 0])
            for name, weights in pools.items()
            if any(weights.values())
        }
        self._default = self._pools.get(POOL_DEFAULT, everything)

    def choose(self, pool: str, kept: str | None) -> SourceAddress:
        """The source for a message of a pool; the one it was tried from before, if it still exists."""
        if kept is not None:
            source = self.by_name.get(kept)
            if source is not None:
                return source
        return self._pools.get(pool, self._default).next() if pool else self._default.next()

    def first(self, pool: str, wanted: Callable[[SourceAddress], bool]) -> SourceAddress | None:
        """A source of a pool that is wanted, in turn as far as may be; None: none of them is."""
        return self._pools.get(pool, self._default).first(wanted)


def families(source: SourceAddress) -> tuple[int, ...]:
    """The address families that a source sends from: IPv6 only where it names an address."""
    if source.ipv6:
        return (4, 6) if source.ipv4 else (6,)
    return (4,)
