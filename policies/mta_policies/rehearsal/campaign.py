"""A campaign: mail that nobody has written yet, so many messages to one provider, on a clock of its own.

Its messages are alike, so what waits is a number and not a million objects (`lane`); each transaction is still one, by
the same limits, rules, recoveries and retries as in a replay. Nobody knows what the provider will say: a model says it.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from mta_policies.answers import Subject
from mta_policies.local_time import Zones
from mta_policies.provider_model import Steady
from mta_policies.rehearsal.drain import Drain, Progress, Scene, silent
from mta_policies.rehearsal.modelled import Modelled
from mta_policies.rehearsal.recorded import Books, Recorded
from mta_policies.rehearsal.replay import Assumed
from mta_policies.rehearsal.tally import Tally
from mta_policies.rehearsal.traffic import Crowd, Stream, Traffic
from mta_policies.rehearsal.ways import Map, Placed

NOTHING: Final = Books({}, {}, {})
"""Of a campaign there is no record."""


class Campaign(NamedTuple):
    """What is to go out."""

    messages: int
    domain: str
    """The recipients'."""
    weights: Mapping[str, int]
    """Of the sources that it is spread over."""
    at_s: float
    """When the first message is handed in, Unix seconds."""
    per_s: float = 0.0
    """So many messages a second are handed in, evenly; 0: all at once."""
    recipients: int = 1
    """Of each message."""
    size: int = 0
    tenant: str = ""

    def traffic(self) -> Traffic:
        """A crowd for each source."""
        shares = _shares(self.messages, self.weights)
        span_s = self.messages / self.per_s if self.per_s else 0.0
        streams = [
            Stream(number, self.domain, self.domain, "", Subject(source=source, site=self.domain, tenant=self.tenant))
            for number, source in enumerate(shares)
        ]
        crowds, number = [], 0
        for stream, count in zip(streams, shares.values(), strict=True):
            every_s = span_s / count
            crowds.append(Crowd(stream, count, self.at_s, every_s, self.recipients, self.size, number))
            number += count
        return Traffic((), streams, self.at_s, self.at_s + span_s, crowds)


def _shares(messages: int, weights: Mapping[str, int]) -> dict[str, int]:
    """How many go from each source: by weights, those that have none of them left out."""
    shares, taken, weight_taken, whole = {}, 0, 0, sum(weights.values())
    for source, weight in weights.items():
        weight_taken += weight
        upto = messages * weight_taken // whole
        if upto > taken:
            shares[source] = upto - taken
        taken = upto
    return shares


def simulate(
    campaign: Campaign, placed: Placed, assumed: Assumed, zones: Zones, bin_s: float, progress: Progress = silent
) -> Tally:
    """A campaign by one policy. `assumed.model`: who answers; None: a provider that takes all."""
    scene = Scene(
        map=Map(lambda stream: placed, lambda stream: placed.provider, lambda stream: assumed.delivery_s),
        provider=Modelled(assumed.model or Steady, lambda stream: placed.provider, Recorded(NOTHING)),
        zones=zones,
        connect_s=assumed.connect_s,
        bin_s=bin_s,
        idle_s=assumed.idle_s,
        until_s=assumed.until_s,
        progress=progress,
    )
    return Drain(scene, campaign.traffic()).run()[placed.provider]
