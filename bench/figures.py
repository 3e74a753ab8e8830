"""The figures of a run: made from what generator, sink and the processes of the engine showed, and checked.

Everything is counted by the message's own id, and every time is of the one monotonic clock that all processes of a
machine share: a latency is the sink's "taken" minus the generator's MAIL. Pure: no process is asked here.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

from bench.load import Result
from bench.processes import Memory
from bench.rig import SinkCounts
from bench.sink import Arrivals
from bench.table import percentile

MIDDLE = (0.1, 0.9)
"""The part of the arrivals that the steady rate is of: without the beginning, and without what was deferred last."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What was run."""

    scenario: str
    engine: str
    signed: bool
    messages: int
    size: int
    sessions: int
    workers: int
    durability: str
    owners: int = 0
    """Workers that share a destination, where that was asked for; 0: as the scenario says."""
    rate_asked_per_s: float = 0.0
    """0: as fast as the engine accepts."""


class ProviderFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider of the sink counted, the warm-up included."""

    messages: int
    connections: int
    connections_at_once: int
    deferred: int
    """4xx said, to whatever."""


class Figures(Shape, frozen=True, kw_only=True):
    """One round."""

    accepted_per_s: float
    """250 said, a second, from the first MAIL to the last 250."""
    delivered_per_s: float
    """From the first MAIL until the sink has taken the last one."""
    steady_per_s: float
    """Of the middle 80 % of what arrived."""
    latency_p50_ms: float
    """From MAIL (of an open load: from when it was due) until the sink has taken it."""
    latency_p90_ms: float
    latency_p99_ms: float
    latency_max_ms: float
    accept_p50_ms: float
    """From MAIL (or when it was due) until 250."""
    accept_p90_ms: float
    accept_p99_ms: float
    accept_max_ms: float
    cpu_us: float
    """User and kernel time a message, all processes of the engine together."""
    cpu_us_by_process: dict[str, float] = {}
    """The same, process by process."""
    signature_us: float = 0.0
    """Of that the signing alone, as the engine counts it; 0: it does not, or nothing is signed."""
    memory_mb: float
    """The most that all processes of the engine held together, shared pages counted once (PSS)."""
    memory_rss_mb: float
    """The same with shared pages counted in each process."""
    waiting_at_most: int
    """Accepted and not yet delivered."""
    deferred: int
    connections: int
    messages_a_connection: float
    missing: int
    """Accepted, and not there: must be 0."""
    duplicates: int
    """There more than once: must be 0."""
    strangers: int
    """There, and never accepted: must be 0."""
    refused: int
    """Not accepted: must be 0."""
    unsigned: int
    """There without a DKIM-Signature, where all should have one: must be 0."""
    verified: int = 0
    """Signatures of the sample that dkimpy found good."""
    generator_late_p99_ms: float = 0.0
    """Of an open load: how late the generator itself said MAIL; part of the latencies."""
    providers: dict[str, ProviderFigures] = {}

    def complaints(self) -> list[str]:
        """What must not be, in words; nothing where all is well."""
        wrong = {
            "were not accepted": self.refused,
            "were accepted and did not arrive": self.missing,
            "arrived more than once": self.duplicates,
            "arrived and had not been accepted": self.strangers,
            "arrived without a signature": self.unsigned,
        }
        return [f"{count:,} of {self.messages:,} messages {what}" for what, count in wrong.items() if count]


class Seen(NamedTuple):
    """What a run showed."""

    result: Result
    """Of the measured load."""
    warm_ids: frozenset[str]
    arrivals: Arrivals
    counts: Mapping[str, SinkCounts]
    cpu_s: float
    """That the engine used, from the first measured message to the last."""
    memory: Memory
    verified: int = 0
    cpu_s_by_process: Mapping[str, float] = {}
    signature_cpu_s: float = 0.0
    """Of `cpu_s` what was for the signing alone."""


def figures(shape: Shape, seen: Seen) -> Figures:
    """Everything that is told about a round."""
    result, starts_s = seen.result, seen.result.starts_s
    accepted = {each: number_of(each) for each in result.accepted}
    arrived_s: dict[str, float] = {}
    times = Counter(seen.arrivals.ids)
    for each, at_s in zip(seen.arrivals.ids, seen.arrivals.times_s, strict=True):
        if each in accepted:
            arrived_s.setdefault(each, at_s)
    latencies_ms = sorted((at_s - starts_s[accepted[each]]) * 1000 for each, at_s in arrived_s.items())
    accepts_ms = sorted(each * 1000 for each in result.latencies_s)
    accepted_s = [
        starts_s[accepted[each]] + took_s for each, took_s in zip(result.accepted, result.latencies_s, strict=True)
    ]
    known = accepted.keys() | seen.warm_ids | set(result.uncertain)
    ends_s = sorted(arrived_s.values())
    begun_s = min((starts_s[number] for number in accepted.values()), default=0.0)
    connections = sum(each.connections_total for each in seen.counts.values())
    return Figures(
        **msgspec.structs.asdict(shape),
        accepted_per_s=round(rate(len(accepted), begun_s, max(accepted_s, default=0.0)), 1),
        delivered_per_s=round(rate(len(ends_s), begun_s, ends_s[-1] if ends_s else 0.0), 1),
        steady_per_s=round(steady_rate(ends_s), 1),
        latency_p50_ms=round(percentile(latencies_ms, 50), 2),
        latency_p90_ms=round(percentile(latencies_ms, 90), 2),
        latency_p99_ms=round(percentile(latencies_ms, 99), 2),
        latency_max_ms=round(percentile(latencies_ms, 100), 2),
        accept_p50_ms=round(percentile(accepts_ms, 50), 2),
        accept_p90_ms=round(percentile(accepts_ms, 90), 2),
        accept_p99_ms=round(percentile(accepts_ms, 99), 2),
        accept_max_ms=round(percentile(accepts_ms, 100), 2),
        cpu_us=round(seen.cpu_s / max(1, len(ends_s)) * 1e6, 1),
        cpu_us_by_process={
            name: round(used_s / max(1, len(ends_s)) * 1e6, 1) for name, used_s in seen.cpu_s_by_process.items()
        },
        signature_us=round(seen.signature_cpu_s / max(1, len(ends_s)) * 1e6, 1),
        memory_mb=round(seen.memory.pss / 1e6, 1),
        memory_rss_mb=round(seen.memory.rss / 1e6, 1),
        waiting_at_most=most_waiting(accepted_s, ends_s),
        deferred=sum(deferrals(each) for each in seen.counts.values()),
        connections=connections,
        messages_a_connection=round(len(seen.arrivals.ids) / max(1, connections), 2),
        missing=len(accepted) - len(arrived_s),
        duplicates=sum(1 for each, count in times.items() if count > 1 and each in known),
        strangers=sum(1 for each in times if each not in known),
        refused=shape.messages - len(accepted),
        unsigned=unsigned(seen.counts.values()) if shape.signed else 0,
        verified=seen.verified,
        generator_late_p99_ms=round(percentile(result.late_s, 99) * 1000, 2),
        providers={name: _provider(each) for name, each in seen.counts.items()},
    )


def number_of(message_id: str) -> int:
    """The message's number in its plan, the last part of its id."""
    return int(message_id.rpartition("-")[2])


def rate(count: int, from_s: float, to_s: float) -> float:
    """A second; 0.0 where no time passed."""
    return count / (to_s - from_s) if to_s > from_s else 0.0


def steady_rate(times_s: Sequence[float]) -> float:
    """Of the middle of ascending times."""
    first, last = (int(len(times_s) * share) for share in MIDDLE)
    return rate(last - first, times_s[first], times_s[last]) if last > first else 0.0


def most_waiting(in_s: Sequence[float], out_s: Sequence[float]) -> int:
    """The most that had come in and not gone out, at any moment; `out_s` ascending."""
    ordered = sorted(in_s)
    return max(
        (number - bisect_right(out_s, at_s) for number, at_s in enumerate(ordered, start=1)),
        default=0,
    )


def deferrals(counts: SinkCounts) -> int:
    """4xx that a provider said, to whatever command."""
    return sum(count for what, count in counts.replies.items() if what.partition(" ")[2][:1] == "4")


def unsigned(counts: Iterable[SinkCounts]) -> int:
    """Messages that arrived without a signature."""
    return sum(each.messages - each.signed for each in counts)


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of every figure over several rounds, and the most of what must be 0."""
    values: dict[str, object] = {}
    for name in Figures.__struct_fields__:
        each = [getattr(one, name) for one in rounds]
        if isinstance(each[0], bool) or not isinstance(each[0], int | float):
            values[name] = each[0]
        elif name in ("missing", "duplicates", "strangers", "refused", "unsigned"):
            values[name] = max(each)
        else:
            middle = median(each)
            values[name] = round(middle) if isinstance(each[0], int) else round(middle, 2)
    return msgspec.convert(values, Figures)


def _provider(counts: SinkCounts) -> ProviderFigures:
    return ProviderFigures(
        messages=counts.messages,
        connections=counts.connections_total,
        connections_at_once=counts.connections_max,
        deferred=deferrals(counts),
    )
