"""A sieve: what a selection cannot mean is left out of a walk where it is read.

It is asked in the reading thread, of what its envelope says and never changes, and of the sites of domains as far as
the loop has told it. What falls through is looked at in the loop as if there were no sieve.
"""

from typing import TYPE_CHECKING

import msgspec

from mta.model import envelope as envelopes
from mta.model.envelope import Glance
from mta.model.selection import Criteria

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher


class Sieve:
    """One walk's. `wants` is the reading thread's, all else the loop's."""

    def __init__(self, engine: "Dispatcher", criteria: Criteria) -> None:
        self._engine = engine
        self._criteria = criteria
        self._is_of_places = criteria.has_places and not criteria.needs_source
        self._is_meant: dict[str, bool] = {}
        """Of domains whose site is known: whether mail goes there is meant."""
        self._asked: dict[str, None] = {}
        """Domains that the thread met and knows nothing of."""

    def wants(self, seq: int, meta: bytes) -> bool:
        """Whether a recipient of this item may be meant."""
        try:
            return self.may_be(envelopes.glance(meta))
        except msgspec.DecodeError:
            return True  # it is the loop's to say so

    def may_be(self, seen: Glance) -> bool:
        """The same, of an envelope that was glanced at."""
        criteria = self._criteria
        if not criteria.may_be(seen.id):
            return False
        age_s = self._engine.clock.wall_s() - seen.received_s
        if not criteria.has_message(seen.tenant, seen.campaign, seen.sender, age_s):
            return False
        for each in seen.recipients:
            domain = each.domain
            if criteria.has_recipient(domain, each.address) and (not self._is_of_places or self._may_go(domain)):
                return True
        return False

    def _may_go(self, domain: str) -> bool:
        """Whether mail for this domain may go where it is meant to go."""
        is_meant = self._is_meant.get(domain)
        if is_meant is None:
            self._asked[domain] = None
            return True
        return is_meant

    def tell(self) -> None:
        """What the thread asked for since the last time: called between two slices."""
        while self._asked:
            domain, _ = self._asked.popitem()
            site = self._engine.domains.place(domain)
            if site is not None:
                self._is_meant[domain] = self._criteria.has_place(site.name, site.destination.policy.name, "")
