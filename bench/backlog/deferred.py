"""`deferred`: every message of the backlog was tried once, deferred, and waits for hours.

Measured beside an empty server of the same run: memory, CPU at rest, new mail to another destination; then the
commands of an operator while mail flows, a restart, and everything sent on its way at once.
"""

import asyncio
import time
from pathlib import Path

import msgspec

from bench.backlog.town import IDLE_S, SLOW, SLOW_DOMAIN, SWIFT_DOMAIN, BacklogError, Town
from bench.table import percentile
from bench.temper import Profile

ROUNDS = 3  # of new mail, before and behind; medians count
RELAYED = 20_000  # a round; fewer where the backlog is smaller
CAMPAIGN_EVERY = 10  # the share of the backlog that is held and released: one in so many
PROBES_PER_S = 50.0
PROBES = 25  # a load of them at a time, until the command has ended
DEFERRED = "RCPT 451"


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator types, while new mail comes in."""

    words: str
    took_s: float
    touched: int = 0
    """Recipients, of those that change something."""
    accept_p99_ms: float
    """Of new mail meanwhile: from MAIL (or when it was due) until 250, which is never sooner than a sync."""
    accept_max_ms: float


class DeferredFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    part: str = "deferred"
    messages: int
    size: int
    workers: int
    filled_per_s: float
    """Accepted, tried once and put off, a second."""
    empty_mb: float
    """What all processes of the server hold before the backlog comes, having relayed mail."""
    backlog_mb: float
    bytes_a_message: float
    """Of memory, over the empty server."""
    empty_idle_percent: float
    """CPU at rest, of one core."""
    backlog_idle_percent: float
    empty_relay_per_s: float
    backlog_relay_per_s: float
    relay_ratio: float
    empty_relay_cpu_us: float
    backlog_relay_cpu_us: float
    disk_mb: float
    """Segments with the whole backlog in them."""
    commands: list[Command]
    stop_s: float
    start_s: float
    """Until it takes mail again."""
    start_known_s: float
    """Until all that waits is known and planned."""
    start_cpu_us: float
    """A message, until then."""
    start_read_share: float
    """Of the segments' bytes, what was read until then."""
    restarted_mb: float
    restarted_bytes_a_message: float
    drained_per_s: float
    """Sent on its way with one command: from then until the last one arrived."""
    drained_cpu_us: float


async def deferred(folder: Path, messages: int, workers: int = 2, idle_s: float = IDLE_S) -> DeferredFigures:
    """A run; raises BacklogError where a message is lost or doubled."""
    slow = Profile(name=SLOW, deferred_percent=100.0, deferred_times=1 << 30, times=False)
    with Town(folder, slow=slow, workers=workers, idle_s=idle_s) as town:
        empty_relay = await _relays(town, "empty", messages)
        await town.until_waiting(0)
        empty_mb, empty_idle = town.memory_mb(), town.idle_percent()

        filled_s = await _fill(town, messages)
        backlog_mb, backlog_idle, disk_bytes = town.memory_mb(), town.idle_percent(), town.queue_bytes()
        backlog_relay = await _relays(town, "beside", messages)

        commands = await _commands(town, messages)
        restart = await _restart(town, messages)
        restarted_mb = town.memory_mb()

        drained_s, drained_us = await _drain(town, messages)
        return DeferredFigures(
            messages=messages,
            size=town.plan(SLOW_DOMAIN, 1, "size").sizes[0],
            workers=workers,
            filled_per_s=round(messages / filled_s, 1),
            empty_mb=round(empty_mb, 1),
            backlog_mb=round(backlog_mb, 1),
            bytes_a_message=round((backlog_mb - empty_mb) * 1e6 / messages, 1),
            empty_idle_percent=round(empty_idle, 2),
            backlog_idle_percent=round(backlog_idle, 2),
            empty_relay_per_s=round(empty_relay[0], 1),
            backlog_relay_per_s=round(backlog_relay[0], 1),
            relay_ratio=round(backlog_relay[0] / empty_relay[0], 3),
            empty_relay_cpu_us=round(empty_relay[1], 1),
            backlog_relay_cpu_us=round(backlog_relay[1], 1),
            disk_mb=round(disk_bytes / 1e6, 1),
            commands=commands,
            stop_s=round(restart[0], 2),
            start_s=round(restart[1], 2),
            start_known_s=round(restart[2], 2),
            start_cpu_us=round(restart[3], 2),
            start_read_share=round(restart[4], 4),
            restarted_mb=round(restarted_mb, 1),
            restarted_bytes_a_message=round((restarted_mb - empty_mb) * 1e6 / messages, 1),
            drained_per_s=round(messages / drained_s, 1),
            drained_cpu_us=round(drained_us, 1),
        )


async def _relays(town: Town, name: str, messages: int) -> tuple[float, float]:
    """The median rate, and the median CPU a message."""
    relayed = min(RELAYED, messages)
    await town.relay(max(1, relayed // 10), f"{name}-warm")
    rounds = [await town.relay(relayed, f"{name}{number}") for number in range(ROUNDS)]
    return tuple(percentile([each[at] for each in rounds], 50) for at in (0, 1))  # type: ignore[return-value]


async def _fill(town: Town, messages: int) -> float:
    """Hand the backlog in, and wait until each was deferred once; -> seconds."""
    began_s = time.monotonic()
    campaign = messages // CAMPAIGN_EVERY
    held = town.plan(SLOW_DOMAIN, campaign, "spring")
    await town.send(msgspec.structs.replace(held, headers=[*held.headers, "X-MTA-Campaign: spring"]))
    await town.send(town.plan(SLOW_DOMAIN, messages - campaign, "other"))
    ended_s = await town.until(SLOW, messages, DEFERRED)
    await town.until_waiting(messages)
    return ended_s - began_s


async def _commands(town: Town, messages: int) -> list[Command]:
    done = [await _command(town, "summary"), await _command(town, "list", "--all", "--limit", "100")]
    done.append(await _command(town, "list", "--campaign", "spring", "--limit", "100"))
    done.append(await _command(town, "list", "--recipient", f"user{messages // 20}@*", "--limit", "100"))
    for verb in ("hold", "release"):
        changed = await _command(town, verb, "--campaign", "spring")
        if changed.touched != messages // CAMPAIGN_EVERY:
            raise BacklogError(f"{changed.words} touched {changed.touched:,} recipients")
        done.append(changed)
    return done


async def _command(town: Town, *words: str) -> Command:
    """A command, while mail to the swift destination comes in, one message after another."""
    running = asyncio.ensure_future(asyncio.to_thread(town.command, *words))
    latencies_s: list[float] = []
    name = "-".join(words).replace("*", "")
    while not running.done():
        plan = town.plan(SWIFT_DOMAIN, PROBES, f"{name}{len(latencies_s)}", rate_per_s=PROBES_PER_S, sessions=5)
        latencies_s += (await town.send(plan)).latencies_s
    took_s, page = await running
    touched = page.get("touched", 0)
    return Command(
        words=" ".join(words),
        took_s=round(took_s, 2),
        touched=touched if isinstance(touched, int) else 0,
        accept_p99_ms=round(percentile(latencies_s, 99) * 1000, 1),
        accept_max_ms=round(max(latencies_s) * 1000, 1),
    )


async def _restart(town: Town, messages: int) -> tuple[float, float, float, float, float]:
    """-> seconds to stop, to take mail again, and to know all that waits; CPU us a message; share of the bytes read."""
    began_s = time.monotonic()
    town.stop()
    stopped_s = time.monotonic()
    town.start()
    started_s = time.monotonic()
    await town.until_waiting(messages)
    known_s = time.monotonic()
    cpu_us, share = town.cpu_s() / messages * 1e6, town.read_bytes() / town.queue_bytes()
    return stopped_s - began_s, started_s - stopped_s, known_s - stopped_s, cpu_us, share


async def _drain(town: Town, messages: int) -> tuple[float, float]:
    """Everything is sent on its way -> seconds until the last arrived, CPU us a message."""
    town.rig.set_sink(SLOW, deferred_percent=0.0)
    before_s, began_s = town.cpu_s(), time.monotonic()
    retried = asyncio.ensure_future(asyncio.to_thread(town.command, "retry", "--all"))
    ended_s = await town.until(SLOW, messages)
    await retried
    used_us = (town.cpu_s() - before_s) / messages * 1e6
    await town.until_waiting(0)
    duplicates = town.rig.sink_counts()[SLOW].duplicates
    if duplicates:
        raise BacklogError(f"{duplicates:,} messages arrived twice")
    return ended_s - began_s, used_us
