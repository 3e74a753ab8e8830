"""Spills: mail that is ready and far from its turn, as numbers alone.

A lane keeps a few hundred jobs a share. What is behind them ends as a job and waits as the number of its item: 12 bytes
and a few bits. The queue is the truth: when jobs run short the next items are read back, and those of their recipients
that live, are due and are in nobody's hand become jobs again. So a number too many does no harm, and whoever takes mail
away another way (an admin, a move) need not look for it here.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mta.delivery.job import WAITING, Job, is_cold
from mta_queue.fair_lane import FairLane, Share
from mta_queue.seqs import SeqSet
from mta_queue.spilled import CHUNK_MAX

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher
    from mta.delivery.pool import Pool

JOBS_KEPT = 256  # of a share: what goes out while the next slice is read back
JOBS_KEPT_SCARCE = 4  # where there are very many shares
JOBS_MAX = 20_000  # jobs of a worker, at about a kilobyte each, from which on a share keeps only a few
RETURNED_AT_ONCE = 256  # numbers of a pool that one visit to the disk brings back
LOOKED_AT_ONCE = 1_000  # shares or chunks of 1,024 numbers that a sweep looks through for what is over
WEEDED_AT_ONCE = 1_024  # numbers of which the store is asked in one sweep: a millisecond, a million in four minutes
ROUND_S = 10.0  # between two rounds over all that is spilled: its expiry is kept to the minute


class Spill:
    """What is spilled of one lane: of a pool, or (`pool` is None) of a domain that is being looked up."""

    def __init__(self, engine: "Dispatcher", lane: FairLane[Job], pool: "Pool | None") -> None:
        self._engine = engine
        self.lane = lane
        self._pool = pool
        self.seqs = SeqSet()
        """The items that wait here as numbers."""
        self.is_returning = False
        """Some are being read back."""

    def overflow(self, job: Job) -> None:
        """A job left memory: it, and others of its share that are too many, wait as numbers from now on."""
        lane = self.lane
        share = lane.share_of(job.priority, job)
        if share is None:
            return
        cold = lane.overflow(share, self._engine.spills.jobs_kept, is_cold)
        if not cold:
            return
        for each in cold:
            if each.state == WAITING:
                lane.spill(share, each.seq, each.expires_s)
                self.seqs.add(each.seq)
                self._engine.ended(each)
        lane.settle(share)
        self._engine.spills.watch(self)

    def refill(self) -> None:
        """Shares run short of jobs: bring back what is next of them."""
        pool, lane = self._pool, self.lane
        if pool is None or pool.is_closed or self.is_returning or self._engine.is_stopping:
            return
        kept = self._engine.spills.jobs_kept
        taken: list[tuple[Share[Job], list[int]]] = []
        count = 0
        while lane.short and count < RETURNED_AT_ONCE:
            share = next(iter(lane.short))
            del lane.short[share]
            wanted = kept - len(share.entries)
            if 2 * wanted < kept and share.entries:
                continue  # it is short again before they run out
            seqs = lane.take_spilled(share, max(1, min(wanted, RETURNED_AT_ONCE - count)))
            if seqs:
                taken.append((share, seqs))
                count += len(seqs)
        if taken:
            self.is_returning = True
            wanted_seqs = self.seqs.discard_all(seq for _, seqs in taken for seq in seqs)
            self._engine.agenda.bring_back(wanted_seqs, pool, lambda jobs: self._returned(pool, taken, jobs))

    def _returned(self, pool: "Pool", taken: list[tuple[Share[Job], list[int]]], jobs: dict[int, list[Job]]) -> None:
        self.is_returning = False
        if pool.is_closed:
            for made in jobs.values():
                for job in made:
                    self._engine.route(job)
            return
        for share, seqs in taken:
            self.lane.returned(share, len(seqs), _of_share(share, seqs, jobs))
        for made in jobs.values():  # of another share: the item was named here twice
            for job in made:
                self.lane.push(job.priority, job)
        pool.pump()

    def take_all(self) -> None:
        """All of it goes another way: it is looked at anew, in slices, and what came later behind it."""
        late = {job for share in self.lane.shares() for job in share.later or ()}
        if late:
            self.lane.remove(late.__contains__)
        self.seqs.clear()
        for seqs in self.lane.take_all_spilled():
            self._engine.agenda.name(seqs)
        for job in sorted(late, key=lambda job: job.seq):
            if job.state == WAITING:
                self._engine.again(job)
        self._engine.agenda.go_on()

    def expire(self, share: Share[Job], now_s: float) -> bool:
        """What is over of a share is read back, and given up. -> whether there may be more."""
        over = self.lane.expired(share, now_s)
        if over:
            self._engine.take_up(self.seqs.discard_all(over))
        return bool(over)


def _of_share(share: Share[Job], seqs: Iterable[int], jobs: dict[int, list[Job]]) -> list[Job]:
    """The jobs of these items that belong to a share; they are taken out of `jobs`."""
    found: list[Job] = []
    for seq in seqs:
        made = jobs.pop(seq, None)
        if made is None:
            continue
        rest = []
        for job in made:
            fits = job.priority == share.priority and job.tenant == share.tenant and job.campaign == share.campaign
            (found if fits else rest).append(job)
        if rest:
            jobs[seq] = rest
    return found


class Spills:
    """All spills of a worker."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._known: dict[Spill, None] = {}
        self._round: list[tuple[Spill, Share[Job]]] = []
        self._round_s = 0.0
        self._weeding: list[tuple[Spill, Share[Job], int]] = []

    def watch(self, spill: Spill) -> None:
        """Something is spilled here: look after its expiry."""
        self._known[spill] = None

    @property
    def count(self) -> int:
        """How many items wait as numbers; one that is named by two pools counts twice."""
        return sum(spill.lane.spilled for spill in self._known)

    @property
    def jobs_kept(self) -> int:
        """How many jobs a share keeps at present."""
        return JOBS_KEPT if self._engine.jobs < JOBS_MAX else JOBS_KEPT_SCARCE

    def pool_of(self, seq: int, domain: str) -> "Pool | None":
        """Where an item waits as a number that has a recipient of this domain; None: it does not."""
        site = self._engine.domains.place(domain)
        if site is not None:
            for pool in site.pools.values():
                if seq in pool.spill.seqs:
                    return pool
        return None

    def has(self, seq: int, domain: str) -> bool:
        """Whether an item with a recipient of this domain is looked at when its number's turn comes."""
        return bool(self._known) and (
            self.pool_of(seq, domain) is not None or self._engine.domains.is_spilled(seq, domain)
        )

    def sweep(self, wall_s: float, now_s: float) -> None:
        """Find what is over, and what has gone another way; called a few times a second."""
        self._weed(wall_s)
        if not self._round:
            if not self._known or now_s < self._round_s:
                return
            self._round_s = now_s + ROUND_S
            self._known = {spill: None for spill in self._known if spill.lane.spilled or spill.is_returning}
            self._round = [(spill, share) for spill in self._known for share in spill.lane.shares()]
        looked = 0
        while self._round and looked < LOOKED_AT_ONCE:
            spill, share = self._round[-1]
            looked += 1 + (share.spilled.chunks if share.spilled is not None else 0)
            if not spill.expire(share, wall_s):
                self._round.pop()

    def _weed(self, wall_s: float) -> None:
        """Numbers of what was cancelled or held go by themselves when their turn comes; behind a site that is down
        that may be never, so a chunk at a time is looked through."""
        dues = self._engine.store.dues

        def is_due(seq: int) -> bool:
            return any(due_s <= wall_s for _, due_s in dues(seq))

        if not self._weeding and self._known:
            self._weeding = [
                (spill, share, chunk)
                for spill in self._known
                for share in spill.lane.shares()
                for chunk in range(share.spilled.chunks if share.spilled is not None else 0)
            ]
        looked = 0
        while self._weeding and looked < WEEDED_AT_ONCE:
            spill, share, chunk = self._weeding.pop()
            looked += 1 if share.spilled is None else min(len(share.spilled), CHUNK_MAX)
            removed = spill.lane.weed(share, chunk, is_due)
            if removed:  # what is not due because the clock was set back goes to its time
                spill.seqs.discard_all(removed)
                self._engine.take_up(removed)
