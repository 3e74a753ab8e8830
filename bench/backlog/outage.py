"""`outage`: the destination is down while all of the backlog is accepted, and comes back.

What is looked at: memory while it piles up and bodies have to leave it, and how the backlog flows when the destination
takes mail again: at once, at its own rate, oldest first.
"""

import time
from pathlib import Path

import msgspec

from bench.backlog.town import IDLE_S, SLOW, SLOW_DOMAIN, BacklogError, Town
from bench.processes import MemoryWatch
from bench.table import percentile
from bench.temper import Profile

WARM = 2_000
FIRST = 1_000  # messages that show how soon it begins


class OutageFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    part: str = "outage"
    messages: int
    size: int
    workers: int
    accepted_per_s: float
    accept_p50_ms: float
    accept_p99_ms: float
    accept_max_ms: float
    empty_mb: float
    most_mb: float
    """The most that all processes held together while it was accepted (shared pages once)."""
    waiting_mb: float
    """With all of it waiting, a moment later."""
    bytes_a_message: float
    idle_percent: float
    """CPU at rest, of one core, with the destination down."""
    first_s: float
    """From the moment at which the destination takes mail again until it has the first messages."""
    drained_per_s: float
    """From the first of them to the last."""
    drained_cpu_us: float
    drain_most_mb: float
    order: float
    """How well the order was kept: 1 is oldest first, 0 is none (Spearman's rank correlation)."""


async def outage(folder: Path, messages: int, workers: int = 2, idle_s: float = IDLE_S) -> OutageFigures:
    """A run; raises BacklogError where a message is lost or doubled."""
    with Town(folder, slow=Profile(name=SLOW, times=False), workers=workers, idle_s=idle_s) as town:
        await town.send(town.plan(SLOW_DOMAIN, WARM, "warm"))
        await town.until(SLOW, WARM)
        await town.until_waiting(0)
        empty_mb = town.memory_mb()
        town.rig.set_sink(SLOW, down=True)
        with MemoryWatch(lambda: [town.pid]) as watch:
            result = await town.send(town.plan(SLOW_DOMAIN, messages, "load"))
            await town.until_waiting(messages)
        waiting_mb, idle = town.memory_mb(), town.idle_percent()

        town.rig.set_sink(SLOW, down=False)
        back_s, before_s = time.monotonic(), town.cpu_s()
        town.command("retry", "--site", "*")  # the next probe may be two minutes away: that is the policy's
        with MemoryWatch(lambda: [town.pid]) as draining:
            await town.until(SLOW, WARM + messages)
        used_us = (town.cpu_s() - before_s) / messages * 1e6
        await town.until_waiting(0)
        if town.rig.sink_counts()[SLOW].duplicates:
            raise BacklogError(f"{town.rig.sink_counts()[SLOW].duplicates:,} messages arrived twice")
        arrived_s = town.arrived_s(result.accepted)
        ends_s = sorted(arrived_s.values())
        return OutageFigures(
            messages=messages,
            size=town.plan(SLOW_DOMAIN, 1, "size").sizes[0],
            workers=workers,
            accepted_per_s=round(result.rate_per_s, 1),
            accept_p50_ms=round(percentile(result.latencies_s, 50) * 1000, 2),
            accept_p99_ms=round(percentile(result.latencies_s, 99) * 1000, 2),
            accept_max_ms=round(max(result.latencies_s) * 1000, 2),
            empty_mb=round(empty_mb, 1),
            most_mb=round(watch.most.pss / 1e6, 1),
            waiting_mb=round(waiting_mb, 1),
            bytes_a_message=round((waiting_mb - empty_mb) * 1e6 / messages, 1),
            idle_percent=round(idle, 2),
            first_s=round(ends_s[min(FIRST, messages) - 1] - back_s, 2),
            drained_per_s=round(messages / max(ends_s[-1] - ends_s[0], 1e-9), 1),
            drained_cpu_us=round(used_us, 1),
            drain_most_mb=round(draining.most.pss / 1e6, 1),
            order=round(rank_correlation([arrived_s[each] for each in result.accepted]), 3),
        )


def rank_correlation(values: list[float]) -> float:
    """Of values with their own order: 1.0 where they ascend, -1.0 where they descend; 1.0 of less than two."""
    count = len(values)
    if count < 2:
        return 1.0
    squares = 0
    for rank, at in enumerate(sorted(range(count), key=values.__getitem__)):
        squares += (rank - at) ** 2
    return 1 - 6 * squares / (count * (count * count - 1))
