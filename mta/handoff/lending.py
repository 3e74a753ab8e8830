"""Lending: limits across destinations between workers. Every key (a tenant, a campaign, a sender domain, a source) has
one worker that keeps its account (`mta_policies.leases`) and lends to all, itself included; what is said to another
worker is said once a turn of the loop.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol
from zoneinfo import ZoneInfo

from mta.handoff import frames
from mta.handoff.frames import Frame, Hello
from mta.handoff.link import Link, Mesh
from mta.handoff.placement import lender
from mta.model.clock import Clock
from mta_policies.cross_limit import CrossLimit
from mta_policies.leases import Lease, Ledger, Shut
from mta_policies.quota import State as QuotaState
from mta_policies.reservations import Ask, Report

TIMER_S_MIN = 0.001  # timers are no finer


class Borrower(Protocol):
    """Who uses what is lent to this worker."""

    def granted(self, lease: Lease) -> None:
        """So many may go."""
        ...

    def shut(self, shut: Shut) -> None:
        """Nothing is lent for a while."""
        ...

    def lender_is_new(self, worker: int) -> None:
        """This worker was restarted: it does not know what was asked."""
        ...

    def has_to_save(self) -> None:
        """Somebody waits until a quota's state is on disk."""
        ...


class Lending:
    """One worker's accounts, and its way to those of the others."""

    def __init__(self, mesh: Mesh, clock: Clock, workers: int, *, is_fresh: bool) -> None:
        """`is_fresh`: the whole server starts, so that no lease of a former owner can be in use."""
        self._mesh = mesh
        self._clock = clock
        self._loop = mesh.loop
        self._workers = workers
        self._is_fresh = is_fresh
        self._ledger: Ledger
        self._borrower: Borrower
        self._me = self._holder(mesh.me)
        self._serves = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        mesh.handlers[frames.Borrow] = self._on_borrow
        mesh.handlers[frames.Lend] = self._on_lend
        mesh.on_up.append(self._on_up)
        mesh.on_down.append(self._on_down)

    def start(self, borrower: Borrower, limits: Sequence[CrossLimit]) -> None:
        """These limits hold; before the first message goes."""
        self._borrower = borrower
        now_s = self._clock.monotonic_s()
        # The clock of all processes goes on, so that no lease has the number of one of an owner that died.
        self._ledger = Ledger(limits, ZoneInfo, now_s, is_fresh=self._is_fresh, first_id=int(now_s * 1e9))

    def change(self, limits: Sequence[CrossLimit]) -> None:
        """Other limits from now on."""
        self._ledger.change(limits, self._clock.monotonic_s(), self._clock.wall_s())
        self._serve_soon()

    @staticmethod
    def _holder(worker: int) -> str:
        return str(worker)

    def lender(self, key: str) -> int:
        """The worker that owns a key."""
        return lender(key, self._workers)

    def is_own(self, key: str) -> bool:
        """Whether this worker owns a key."""
        return self.lender(key) == self._mesh.me

    # this worker asks and reports

    def tell(self, asks: Sequence[Ask], reports: Sequence[Report]) -> None:
        """To the owners of the keys. What this worker owns is lent before this returns, as far as there is some."""
        others: dict[int, frames.Borrow] = {}
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        is_own = False
        for lease, key, spent, is_done in reports:
            owner = self.lender(key)
            if owner == self._mesh.me:
                is_own = True
                self._ledger.report(self._me, lease, key, spent, now_s, wall_s, is_done=is_done)
            else:
                self._to(others, owner).reports.append((lease, key, spent, is_done))
        for key, wanted in asks:
            owner = self.lender(key)
            if owner == self._mesh.me:
                is_own = True
                self._ledger.ask(self._me, key, wanted, now_s, wall_s)
            else:
                self._to(others, owner).asks.append((key, wanted))
        for owner, borrow in others.items():
            self._mesh.links[owner].send(borrow)
        if is_own:
            self._serve()

    @staticmethod
    def _to(others: dict[int, frames.Borrow], owner: int) -> frames.Borrow:
        borrow = others.get(owner)
        if borrow is None:
            borrow = others[owner] = frames.Borrow([], [])
        return borrow

    def _on_lend(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Lend)
        for number, key, count, until_s in frame.leases:
            self._borrower.granted(Lease(number, key, count, until_s))
        for key, why, until_s in frame.shut:
            assert why in ("rate", "quota", "window")
            self._borrower.shut(Shut(key, why, until_s))

    def _on_up(self, link: Link, hello: Hello) -> None:
        self._borrower.lender_is_new(link.worker)

    # this worker lends

    def _on_borrow(self, link: Link, frame: Frame, body: bytes) -> None:
        assert isinstance(frame, frames.Borrow)
        ledger, holder = self._ledger, self._holder(link.worker)
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        for lease, key, spent, is_done in frame.reports:
            ledger.report(holder, lease, key, spent, now_s, wall_s, is_done=is_done)
        for key, wanted in frame.asks:
            ledger.ask(holder, key, wanted, now_s, wall_s)
        self._serve_soon()

    def _on_down(self, link: Link) -> None:
        """A worker died: what it held and did not report counts as used."""
        self._ledger.died(self._holder(link.worker), self._clock.monotonic_s(), self._clock.wall_s())
        self._serve_soon()

    def _serve_soon(self) -> None:
        if not self._serves:
            self._serves = True
            self._loop.call_soon(self._on_serve)

    def _on_serve(self) -> None:
        self._serves = False
        self._serve()

    def _serve(self) -> None:
        """Lend what is free to those who wait."""
        ledger, now_s, wall_s = self._ledger, self._clock.monotonic_s(), self._clock.wall_s()
        others: dict[int, frames.Lend] = {}
        own: list[Lease] = []
        for holder, lease in ledger.serve(now_s, wall_s):
            if holder == self._me:
                own.append(lease)
            else:
                lend = others.setdefault(int(holder), frames.Lend([], []))
                lend.leases.append((lease.id, lease.key, lease.count, lease.until_s))
        for holder, shut in ledger.shut():
            if holder == self._me:
                self._borrower.shut(shut)
            else:
                lend = others.setdefault(int(holder), frames.Lend([], []))
                lend.shut.append((shut.key, shut.why, shut.until_s))
        for worker, lend in others.items():
            self._mesh.links[worker].send(lend)
        for lease in own:
            self._borrower.granted(lease)
        if ledger.waits_for_saving:
            self._borrower.has_to_save()
        self._arrange(ledger.next_s(now_s), now_s)

    def _arrange(self, next_s: float, now_s: float) -> None:
        """Look again then."""
        if self._timer is not None:
            if self._timer_s <= next_s:
                return
            self._timer.cancel()
            self._timer = None
        if next_s < float("inf"):
            self._timer_s = next_s
            self._timer = self._loop.call_later(max(TIMER_S_MIN, next_s - now_s), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._serve()

    def close(self) -> None:
        """No more lending."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # kept over restarts (`mta.delivery.keeping.Kept`)

    def to_save(self, wall_s: float) -> Mapping[str, QuotaState]:
        """What has to be on disk before more is lent."""
        return self._ledger.to_save(wall_s)

    def saved(self, states: Mapping[str, QuotaState]) -> None:
        """It is."""
        self._ledger.saved(states)
        self._serve_soon()

    def dump(self, wall_s: float) -> Mapping[str, QuotaState]:
        """All that was used."""
        return self._ledger.state(wall_s)

    def load(self, states: Mapping[str, QuotaState]) -> None:
        """What was kept, of all workers' keys."""
        self._ledger.load({key: state for key, state in states.items() if self.lender(key) == self._mesh.me})
