"""A replay: recorded mail goes out again, by the policies that there are and by others, and both are compared.

Mail comes when it came, and the providers answer as they did, or as a model of them. Both runs have the same chances,
so what differs is the policies' doing.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from mta_policies.answers import MESSAGE_STAGES
from mta_policies.capacity import CONNECT_S, DELIVERY_S
from mta_policies.local_time import Zones
from mta_policies.provider_model import NewModel
from mta_policies.rehearsal.drain import IDLE_S, Drain, Progress, Scene, silent
from mta_policies.rehearsal.modelled import Modelled
from mta_policies.rehearsal.recorded import Books, Recorded, way_of
from mta_policies.rehearsal.tally import RuleCount, Tally
from mta_policies.rehearsal.traffic import NEVER_S, Stream, Traffic
from mta_policies.rehearsal.ways import Map, Placed

DELIVERY_S_MIN: Final = 0.01
BINS: Final = 480  # over the time of a record: as fine as a picture shows
BINS_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

Place = Callable[[Stream], Placed]


class Record(NamedTuple):
    """What an event log says."""

    traffic: Traffic
    books: Books
    rules: dict[tuple[str, str], RuleCount]
    """By policy and rule."""


class Assumed(NamedTuple):
    """What a record does not say."""

    delivery_s: float = DELIVERY_S
    """The time of a transaction; less where the record shows more messages than that would let through."""
    connect_s: float = CONNECT_S
    idle_s: float = IDLE_S
    until_s: float = NEVER_S
    """The rehearsal ends then."""
    model: NewModel | None = None
    """Who answers instead of the record, as far as the sender and the provider are concerned."""


def bin_of(span_s: float) -> float:
    """How long the bins of series are, for a time of this length."""
    return next((bin_s for bin_s in BINS_S if span_s / bin_s <= BINS), BINS_S[-1])


def recorded(record: Record, place: Place, bin_s: float) -> dict[str, Tally]:
    """What became of the mail in the record, by provider."""
    tallies: dict[str, Tally] = {}
    labels: dict[int, str] = {}
    ways: dict[tuple[str, str], str] = {}

    def tally_of(stream: Stream) -> Tally:
        label = labels.get(stream.number)
        if label is None:
            label = labels[stream.number] = place(stream).policy.name
            ways.setdefault(way_of(stream), label)
        tally = tallies.get(label)
        if tally is None:
            tally = tallies[label] = Tally(bin_s)
        return tally

    for mail in record.traffic.mails:
        tally = tally_of(mail.stream)
        tally.arrive(mail.due_s)
        is_bounced = mail.ended == "bounced"
        for said in mail.said[:-1] if is_bounced else mail.said:
            tally.defer(said.at_s)
            tally.classed(said.category)
        if mail.ended == "delivered":
            tally.deliver(mail.ended_s, mail.ended_s - mail.due_s)
        elif is_bounced:
            tally.bounce(mail.ended_s, is_attempt=mail.said[-1].answer.stage in MESSAGE_STAGES)
            tally.classed(mail.said[-1].category)
        elif mail.ended == "expired":
            tally.expire(mail.ended_s)
        elif mail.ended == "cancelled":
            tally.cancel(mail.ended_s)
    for way, book in record.books.connections.items():
        if way in ways:
            tallies[ways[way]].failures += len(book.failures())
    for (policy, rule), count in record.rules.items():
        if policy in tallies:
            tallies[policy].rules[rule] = count
    return tallies


def delivery_times(books: Books, place: Place, assumed_s: float) -> Callable[[Stream], float]:
    """How long a transaction takes: as assumed, or as little as it must have taken in the best minute of the record,
    with all the connections that the policies (`place`) allowed."""
    known: dict[tuple[str, str], float] = {}

    def delivery_s(stream: Stream) -> float:
        way = way_of(stream)
        time_s = known.get(way)
        if time_s is None:
            peak, connections = books.peaks.get(way, 0.0), place(stream).policy.connections_max(way[1])
            time_s = min(assumed_s, connections / peak) if peak and connections else assumed_s
            time_s = known[way] = max(DELIVERY_S_MIN, time_s)
        return time_s

    return delivery_s


def replay(
    record: Record,
    place: Place,
    label: Place,
    delivery_s: Callable[[Stream], float],
    assumed: Assumed,
    zones: Zones,
    bin_s: float,
    progress: Progress = silent,
) -> dict[str, Tally]:
    """The mail of a record by the policies of `place`, counted by the providers of `label`: so that mail that another
    policy takes is counted under one name in both runs."""
    provider = Recorded(record.books)
    scene = Scene(
        map=Map(place, lambda stream: label(stream).policy.name, delivery_s),
        provider=provider
        if assumed.model is None
        else Modelled(assumed.model, lambda stream: label(stream).provider, provider),
        zones=zones,
        connect_s=assumed.connect_s,
        bin_s=bin_s,
        idle_s=assumed.idle_s,
        until_s=assumed.until_s,
        progress=progress,
    )
    return Drain(scene, record.traffic).run()
