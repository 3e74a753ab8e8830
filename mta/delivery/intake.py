"""Intake: from a message to the jobs that carry its recipients, when it was just accepted and when it comes back from
the disk."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mta.delivery.job import Job, Signature
from mta.delivery.registry import is_held
from mta.model.envelope import Envelope
from mta.reporting.events import Fate, decode_note
from mta_queue.store import Loaded

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.pool import Pool
    from mta.delivery.sites import Site


class Intake:
    """Makes jobs and sends them on their way."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine

    def take(self, seq: int, envelope: Envelope, content: bytes) -> None:
        """A message of this worker's destinations, on stable storage, that may go now."""
        engine = self._engine
        recipients = envelope.recipients
        source = engine.sources.choose(envelope.pool, None).name
        now_s = engine.loop.time()
        if len(recipients) == 1:
            job = Job(seq, (0,), recipients[0].domain, envelope, content, source)
            self._begin(job, now_s, len(content))
            return
        shares: dict[str, list[int]] = {}
        for part, recipient in enumerate(recipients):
            shares.setdefault(recipient.domain, []).append(part)
        self._begin_shares(seq, shares, envelope, content, source, 0, "", None, now_s)

    def _begin_shares(
        self,
        seq: int,
        shares: dict[str, list[int]],
        envelope: Envelope,
        content: bytes | None,
        source: str,
        attempts: int,
        prefer_host: str,
        signature: Signature | None,
        now_s: float,
        pool: "Pool | None" = None,
    ) -> list[Job]:
        """One job a domain, or one a site where its policy lets a transaction mix domains; they share a signature.

        -> those that belong to `pool`; the others are on their way.
        """
        engine = self._engine
        jobs: list[Job] = []
        merged: dict[Site, list[int]] = {}
        for domain, parts in shares.items():
            site = engine.domains.site(domain, now_s) if pool is None else engine.domains.place(domain)
            mixes = site is not None and site.pool(source).limits.mix_domains
            if site is not None and mixes:
                together = merged.get(site)
                if together is not None:
                    together += parts
                    continue
                merged[site] = parts
            jobs.append(Job(seq, parts, domain, envelope, content, source, attempts, prefer_host, signature))
        if len(jobs) > 1 and signature is None and not engine.signatures.is_off:
            signature = Signature()
            for job in jobs:
                job.signature = signature
        charge_bytes, rest = divmod(len(content or b""), len(jobs))
        returned: list[Job] = []
        for job in jobs:
            job.is_mixed = len(job.parts) > 1 and any(
                envelope.recipients[part].domain != job.domain for part in job.parts
            )
            self._begin(job, now_s, charge_bytes + rest, pool, returned)
            rest = 0
        return returned

    def _begin(
        self,
        job: Job,
        now_s: float,
        charge_bytes: int,
        pool: "Pool | None" = None,
        returned: list[Job] | None = None,
    ) -> None:
        engine = self._engine
        engine.jobs += 1
        engine.registry.add(job)
        engine.memory.add(job, now_s, charge_bytes)
        if pool is not None and returned is not None:
            is_its = engine.domains.place(job.domain) is pool.site and pool.site.pool(job.source) is pool
            if is_its and not pool.is_closed:
                if pool.admits(job):
                    returned.append(job)
                return
        site = engine.domains.site(job.domain, now_s)
        if site is not None:
            site.push(job)
        else:
            engine.domains.wait(job.domain, job)

    def loaded(
        self, item: Loaded, parts: Sequence[int], now_s: float, *, is_handed: bool = False, pool: "Pool | None" = None
    ) -> list[Job]:
        """Make jobs of these parts of an item that was read back, but for those that are in hand, held, parked, not due
        or spilled.

        What was asked before the disk was may be old: what the queue says is what holds, and it says so at this
        moment. -> the jobs that belong to `pool`, which had spilled the item; the others are on their way.
        """
        engine = self._engine
        envelope = engine.envelope_of(item)
        seq = item.seq
        wanted = set(parts) - engine.registry.in_hand(seq)
        if engine.parking.parts:
            wanted.difference_update(engine.parking.kept_back(seq, wanted))
        wall_s = engine.clock.wall_s()
        signature: Signature | None = None
        groups: dict[tuple[int, str, str], dict[str, list[int]]] = {}
        spilled: dict[str, bool] = {}
        fresh = ""
        for state in item.parts:
            part = state.part
            if part not in wanted:
                continue
            if state.due_s > wall_s:
                if not is_held(state.due_s):
                    engine.agenda.add(state.due_s, seq)
                continue
            domain = envelope.recipients[part].domain
            is_spilled = spilled.get(domain)
            if is_spilled is None:
                is_spilled = spilled[domain] = engine.spills.has(seq, domain)
            if is_spilled:
                continue  # it has its turn there
            fate = past(state.note)
            attempts, source, prefer = (0, None, "") if fate is None else _way_of(fate)
            if fate is not None and fate.signature and signature is None:
                signature = Signature(fate.signature, fate.dkim)
            if source is None or source not in engine.sources.by_name:
                if not fresh:
                    fresh = pool.source.name if pool is not None else engine.sources.choose(envelope.pool, None).name
                source = fresh
            if is_handed:
                engine.domains.handed(domain, now_s)
            groups.setdefault((attempts, source, prefer), {}).setdefault(domain, []).append(part)
        if not groups:
            return []
        kept = engine.parking.signature(seq)
        signature = self._shared_signature(seq) or signature or kept
        if signature is None and len(item.parts) > 1 and not engine.signatures.is_off:
            signature = _noted_signature(item) or (Signature() if len(groups) > 1 else None)
        jobs: list[Job] = []
        for (attempts, source, prefer), shares in groups.items():
            jobs += self._begin_shares(seq, shares, envelope, None, source, attempts, prefer, signature, now_s, pool)
        return jobs

    def _shared_signature(self, seq: int) -> Signature | None:
        """What other jobs of the message have: it is signed once."""
        for job in self._engine.registry.jobs(seq):
            if job.signature is not None:
                return job.signature
        return None


def past(note: bytes) -> Fate | None:
    """What a postponed part's note says of the last attempt; None where there was none."""
    if not note:
        return None
    try:
        return decode_note(note)
    except msgspec.DecodeError:
        return None  # of a version that is gone: it begins anew


def _noted_signature(item: Loaded) -> Signature | None:
    """What the notes of all parts of an item know, also of those that are not due: it is signed once."""
    for state in item.parts:
        fate = past(state.note)
        if fate is not None and fate.signature:
            return Signature(fate.signature, fate.dkim)
    return None


def _way_of(fate: Fate) -> tuple[int, str | None, str]:
    """Attempts so far, the source (a fate that no connection led to knows none), the host that perhaps has the
    message."""
    return fate.attempt, fate.way.source, fate.way.host if fate.uncertain else ""
