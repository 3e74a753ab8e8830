"""`space`: a little mail that waits for days among much that goes at once, and what the files then need.

Segments have their usual size, so that every one of them is held by a few messages that wait. What is looked at: how
large the files get beside their bound, how much is copied for that, and what it costs the mail that flows: the same
load goes through a server that never copies, in balanced order.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from bench.backlog.deferred import DEFERRED
from bench.backlog.town import SLOW, SLOW_DOMAIN, SWIFT, SWIFT_DOMAIN, BacklogError, Town
from bench.load import Plan, Result
from bench.mailing import Domain
from bench.table import percentile
from bench.temper import Profile
from mta.testing.failpoints import environment
from mta_queue.compaction import bound_bytes
from mta_queue.store import SEGMENT_BYTES_MAX

MESSAGES = 40_000
SIZE = 32_768
WAITING_SHARE = 0.05
FIRST = 500  # messages that wait alone: what one of them takes on the disk
LOOK_S = 0.2
REST_S = 8.0  # without any change: nothing is copied any more
SESSIONS = 20

Copying = Literal["", "never"]


class SpaceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A run: the worst of its rounds for space, their medians for the rest."""

    part: str = "space"
    messages: int
    size: int
    workers: int
    waiting: int
    """Messages that wait in the end."""
    accepted_mb: float
    living_mb: float
    """What those that wait take on the disk."""
    bound_mb: float
    """Twice that, and six segments a worker."""
    used_mb: float
    """What all files take in the end, when nothing is copied any more."""
    used_most_mb: float
    used_most_share: float
    """Of the bound of that very moment, at the worst one."""
    over_bound_s: float
    """What is over the bound then, in seconds of what mail writes."""
    never_used_mb: float
    """What the files of a server take that never copies."""
    copied_mb: float
    copied_share: float
    """Of what was accepted."""
    copied_meanwhile_mb: float
    """While the second half of the load came in, which the next figures are of."""
    relay_per_s: float
    never_relay_per_s: float
    relay_ratio: float
    relay_cpu_us: float
    never_relay_cpu_us: float
    accept_p50_ms: float
    never_accept_p50_ms: float
    accept_p99_ms: float
    never_accept_p99_ms: float


class _Round(NamedTuple):
    """One server's life."""

    waiting: int
    living_bytes: float
    used_bytes: int
    most_bytes: int
    most_share: float
    over_bytes: float
    copied_bytes: int
    meanwhile_bytes: int
    relay_per_s: float
    relay_cpu_us: float
    accept_p50_s: float
    accept_p99_s: float


async def space(folder: Path, messages: int, workers: int = 1, pairs: int = 2) -> SpaceFigures:
    """`pairs` of servers, one that copies and one that never does. Raises BacklogError where a message is lost."""
    order: list[Copying] = []
    for pair in range(pairs):
        order.extend(("never", "") if pair % 2 else ("", "never"))
    rounds: dict[Copying, list[_Round]] = {"": [], "never": []}
    for number, copying in enumerate(order):
        place = folder / f"{number}"
        place.mkdir()
        rounds[copying].append(await _round(place, messages, workers, copying))
    found, never = rounds[""], rounds["never"]
    last = max(found, key=lambda each: each.used_bytes)
    accepted_bytes = messages * SIZE
    relay, never_relay = _median(found, "relay_per_s"), _median(never, "relay_per_s")
    return SpaceFigures(
        messages=messages,
        size=SIZE,
        workers=workers,
        waiting=last.waiting,
        accepted_mb=round(accepted_bytes / 1e6, 1),
        living_mb=round(last.living_bytes / 1e6, 1),
        bound_mb=round(_bound(last.living_bytes, workers) / 1e6, 1),
        used_mb=round(last.used_bytes / 1e6, 1),
        used_most_mb=round(max(each.most_bytes for each in found) / 1e6, 1),
        used_most_share=round(max(each.most_share for each in found), 3),
        over_bound_s=round(max(each.over_bytes / SIZE / each.relay_per_s for each in found), 2),
        never_used_mb=round(_median(never, "used_bytes") / 1e6, 1),
        copied_mb=round(_median(found, "copied_bytes") / 1e6, 1),
        copied_share=round(_median(found, "copied_bytes") / accepted_bytes, 4),
        copied_meanwhile_mb=round(_median(found, "meanwhile_bytes") / 1e6, 1),
        relay_per_s=round(relay, 1),
        never_relay_per_s=round(never_relay, 1),
        relay_ratio=round(relay / never_relay, 3),
        relay_cpu_us=round(_median(found, "relay_cpu_us"), 1),
        never_relay_cpu_us=round(_median(never, "relay_cpu_us"), 1),
        accept_p50_ms=round(_median(found, "accept_p50_s") * 1000, 2),
        never_accept_p50_ms=round(_median(never, "accept_p50_s") * 1000, 2),
        accept_p99_ms=round(_median(found, "accept_p99_s") * 1000, 2),
        never_accept_p99_ms=round(_median(never, "accept_p99_s") * 1000, 2),
    )


def _median(rounds: Sequence[_Round], name: str) -> float:
    return percentile([getattr(each, name) for each in rounds], 50)


def _bound(living_bytes: float, workers: int) -> float:
    """Of all logs together: each has its own constant."""
    return bound_bytes(int(living_bytes), SEGMENT_BYTES_MAX * workers)


async def _round(folder: Path, messages: int, workers: int, copying: Copying) -> _Round:
    slow = Profile(name=SLOW, deferred_percent=100.0, deferred_times=1 << 30, times=False)
    with Town(folder, slow=slow, workers=workers, env=environment(folder, [], copying=copying)) as town:
        await town.send(_plan(town, FIRST, "first", 1.0))
        await town.until(SLOW, FIRST, DEFERRED)
        one_bytes = town.queue_bytes() / FIRST
        watch = _Watch(town, one_bytes)
        half = messages // 2
        await _load(town, half, "fill", 0)
        before_bytes, before_cpu_s, began_s = town.total("queue_copied_bytes"), town.cpu_s(), time.monotonic()
        result = await _load(town, half, "beside", half)
        took_s = time.monotonic() - began_s
        cpu_us = (town.cpu_s() - before_cpu_s) / half * 1e6
        meanwhile_bytes = town.total("queue_copied_bytes") - before_bytes
        await _at_rest(town)
        waiting = town.waiting()
        await watch.stop()
        return _Round(
            waiting,
            waiting * one_bytes,
            town.queue_bytes(),
            watch.most_bytes,
            watch.most_share,
            watch.over_bytes,
            town.total("queue_copied_bytes"),
            meanwhile_bytes,
            half / took_s,
            cpu_us,
            percentile(result.latencies_s, 50),
            percentile(result.latencies_s, 99),
        )


def _plan(town: Town, messages: int, run_id: str, waiting_share: float) -> Plan:
    plan = town.plan(SWIFT_DOMAIN, messages, run_id, sizes=[SIZE], sessions=SESSIONS)
    domains = [Domain(SWIFT_DOMAIN, 1.0 - waiting_share), Domain(SLOW_DOMAIN, waiting_share)]
    return msgspec.structs.replace(plan, domains=domains)


async def _load(town: Town, messages: int, run_id: str, before: int) -> Result:
    """Hands it in and waits until what goes has gone and what waits has been tried; `before`: messages before it."""
    result = await town.send(_plan(town, messages, run_id, WAITING_SHARE))
    last, moved_s = -1, time.monotonic()
    while (now := town.count(SWIFT) + town.count(SLOW, DEFERRED)) < before + messages + FIRST:
        town.rig.check()
        if now != last:
            last, moved_s = now, time.monotonic()
        elif time.monotonic() - moved_s > REST_S * 5:
            raise BacklogError(f"{now:,} of {before + messages + FIRST:,} were tried, and no more are")
        await asyncio.sleep(LOOK_S)
    return result


async def _at_rest(town: Town) -> None:
    """Until the files have not changed for a while."""
    last, moved_s = (-1, -1), time.monotonic()
    while time.monotonic() - moved_s < REST_S:
        town.rig.check()
        now = town.queue_bytes(), town.total("queue_copied_bytes")
        if now != last:
            last, moved_s = now, time.monotonic()
        await asyncio.sleep(LOOK_S)


class _Watch:
    """Looks at the files beside the load, and at how many messages are in the queue."""

    def __init__(self, town: Town, one_bytes: float) -> None:
        self._town = town
        self._one_bytes = one_bytes
        self.most_bytes = 0
        self.most_share = self.over_bytes = 0.0
        self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        town = self._town
        while True:
            waiting = await asyncio.to_thread(town.waiting)
            used = await asyncio.to_thread(town.queue_bytes)
            if waiting >= 0:
                self.most_bytes = max(self.most_bytes, used)
                bound = _bound(waiting * self._one_bytes, town.workers)
                self.most_share = max(self.most_share, used / bound)
                self.over_bytes = max(self.over_bytes, used - bound)
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
