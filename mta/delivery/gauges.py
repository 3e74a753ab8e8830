"""Gauges: the numbers of a worker's delivery, put together when somebody asks.

What happens is counted where it happens, in plain integers; what is now is looked up here, in slices where there are
many sites, so that mail does not wait for it.
"""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from mta.delivery.sites import Site
from mta.reporting.worker_counts import PolicyCounts, WorkerCounts

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

SITES_AT_ONCE = 2_000  # looked at in one turn of the loop: a few milliseconds


async def counts(engine: "Dispatcher") -> WorkerCounts:
    """Counters and gauges of delivery and queue; the others, and the worker's number, are for the caller to fill in."""
    policies = {name: _counters(tally) for name, tally in engine.tallies.items()}
    suspended = engine.parking.parts - engine.parking.short_parts
    for looked_at, site in enumerate([*engine.domains.sites.values(), *engine.handover.leaving], 1):
        name = site.destination.policy.name
        counts = policies.get(name)
        if counts is None:
            counts = policies[name] = PolicyCounts()
        suspended += _add_site(engine, site, counts)
        if looked_at % SITES_AT_ONCE == 0:
            await asyncio.sleep(0)
    fates, store = engine.fates, engine.store
    return WorkerCounts(
        worker=0,
        started_s=0.0,
        delivered=fates.delivered,
        deferred=fates.deferred,
        bounced=fates.bounced,
        expired=fates.expired,
        cancelled=fates.cancelled,
        uncertain=fates.uncertain,
        after_crash=fates.after_crash,
        dsn=fates.dsn,
        messages=store.items,
        recipients=store.parts_living,
        ready=engine.jobs + engine.spills.count + engine.parking.short_parts,
        held=engine.held,
        suspended=suspended,
        resident_bytes=engine.memory.resident_bytes,
        connections=engine.connections,
        queue_bytes=store.file_bytes,
        queue_copied_bytes=store.copied_bytes,
        segments_removed=store.segments_removed,
        commits=store.commits,
        syncs=store.syncs,
        queue_failures=store.failures,
        quarantined=store.quarantined,
        errors=engine.errors,
        policies=policies,
    )


def _counters(tally: PolicyCounts) -> PolicyCounts:
    """A copy, so that gauges are not added to what goes on counting."""
    return msgspec.structs.replace(tally)


def _add_site(engine: "Dispatcher", site: Site, counts: PolicyCounts) -> int:
    """-> jobs that wait for the end of a suspension of their whole pool."""
    suspensions = engine.suspensions
    suspended = 0
    counts.sites += 1
    counts.connections += site.connections
    is_down = bool(site.backoff.failures)
    for pool in site.pools.values():
        waiting = pool.waiting
        counts.ready += waiting
        is_down = is_down or bool(pool.backoff.failures)
        if waiting and (
            (suspensions.active and suspensions.pool_until_s(pool))
            or (pool.braked is not None and pool.braked.wait_s() > 0)
        ):
            suspended += waiting
    counts.sites_down += is_down
    return suspended
