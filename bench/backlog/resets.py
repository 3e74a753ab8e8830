"""`resets`: password resets to a destination that has the whole backlog of somebody else's newsletter before it.

The destination takes mail at a rate, so that the backlog stays; beside it come urgent messages, one after another, and
a handful of a small tenant's at the newsletter's own priority. Nobody of them may wait for the backlog.
"""

from pathlib import Path

import msgspec

from bench.backlog.town import SLOW, SLOW_DOMAIN, BacklogError, Town
from bench.load import Result
from bench.table import percentile
from bench.temper import Profile

RATE_PER_S = 500
"""What our policy lets go out; the destination itself takes everything at once."""
RESETS_PER_S = 20.0
RESETS = 1_000
SMALL = 10
URGENT = 9
ALONE = 200
SLOW_POLICY = (
    f'[limits]\nconnections = 20\nconnection_rate = "none"\nmessages_per_connection = 0\nrate = "{RATE_PER_S}/s"\n'
)


class ResetsFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    part: str = "resets"
    messages: int
    """Of the newsletter, waiting at the same destination; what is left of it when the last urgent one is there."""
    left: int
    size: int
    workers: int
    rate_per_s: float
    alone_p50_ms: float
    """A delivery with nothing else waiting, from submission until the destination has it."""
    alone_p99_ms: float
    urgent: int
    urgent_p50_ms: float
    urgent_p99_ms: float
    urgent_max_ms: float
    times_alone: float
    """The urgent ones' p99 in deliveries that nothing waits before (p50)."""
    small_max_ms: float
    """A small tenant's ten, of the newsletter's own priority: until the last is there."""


async def resets(folder: Path, messages: int, workers: int = 2) -> ResetsFigures:
    """A run; raises BacklogError where one of the measured messages does not arrive."""
    with Town(folder, slow=Profile(name=SLOW, times=False), slow_policy=SLOW_POLICY, workers=workers) as town:
        alone = await _timed(town, ALONE, "alone", ["X-MTA-Tenant: resets"])
        newsletter = town.plan(SLOW_DOMAIN, messages, "news")
        await town.send(msgspec.structs.replace(newsletter, headers=[*newsletter.headers, "X-MTA-Tenant: news"]))
        urgent = await _timed(town, RESETS, "reset", ["X-MTA-Tenant: resets", f"X-MTA-Priority: {URGENT}"])
        small = await _timed(town, SMALL, "small", ["X-MTA-Tenant: small"])
        left = town.waiting()
        if left < SMALL:
            raise BacklogError("the newsletter was gone before the others came: more messages are needed")
        usual_ms = percentile(alone, 50)
        return ResetsFigures(
            messages=messages,
            left=left,
            size=newsletter.sizes[0],
            workers=workers,
            rate_per_s=RATE_PER_S,
            alone_p50_ms=round(usual_ms, 2),
            alone_p99_ms=round(percentile(alone, 99), 2),
            urgent=len(urgent),
            urgent_p50_ms=round(percentile(urgent, 50), 2),
            urgent_p99_ms=round(percentile(urgent, 99), 2),
            urgent_max_ms=round(max(urgent), 2),
            times_alone=round(percentile(urgent, 99) / usual_ms, 1),
            small_max_ms=round(max(small), 2),
        )


async def _timed(town: Town, messages: int, run_id: str, headers: list[str]) -> list[float]:
    """Mail at an even pace -> milliseconds from when each was due until the destination had it."""
    plan = town.plan(SLOW_DOMAIN, messages, run_id, rate_per_s=RESETS_PER_S)
    result = await town.send(msgspec.structs.replace(plan, headers=[*plan.headers, *headers]))
    arrived_s = await town.until_arrived(result.accepted)
    return [(arrived_s[each] - _due_s(result, each)) * 1000 for each in result.accepted]


def _due_s(result: Result, message_id: str) -> float:
    return result.starts_s[int(message_id.rpartition("-")[2])]
