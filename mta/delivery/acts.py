"""Acts: what an admin does to mail that waits: retry, hold, release, cancel.

What they change is on stable storage before the admin hears of it: what is held stays held, and what is cancelled
cancelled, whatever happens. A held recipient is one whose due time is beyond all times (`registry.HELD_S`). Recipients
in a transaction are left alone. Doing a thing twice is doing it once.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from mta.delivery.job import Job
from mta.delivery.registry import HELD_S
from mta.delivery.sites import Site
from mta.delivery.standing import ItemStand, Stand, Standings
from mta.delivery.walk import Walk
from mta.model.selection import Selection, matches
from mta.reporting.events import encode_note
from mta.reporting.questions import Act, Acted

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

RECIPIENTS_AT_ONCE = 250  # touched in one turn of the loop: each is a record in the queue, and perhaps a line
KNOCKS_AT_ONCE = 250  # sites and domains that are tried anew before there is a pause
KNOCKS_PAUSE_S = 0.05
PENDING_BYTES_MAX = 32 * 1024 * 1024  # records that the disk does not have yet; beyond it an act waits for the disk
PENDING_POLL_S = 0.05
WRITTEN_WAIT_S = 10.0  # how long an act waits for the disk at its end, before it says that it was only half done


class NotWrittenError(Exception):
    """The disk does not take what was done."""


class _Places:
    """Where a retry knocks when everything is looked through."""

    def __init__(self) -> None:
        self.sites: dict[Site, None] = {}
        self.domains: dict[str, None] = {}


class Acts:
    """Walks over the queue and touches what is meant."""

    def __init__(self, engine: "Dispatcher", is_kept_back: Callable[[int], bool]) -> None:
        self._engine = engine
        self._standings = Standings(engine)
        self._walk = Walk(engine, is_kept_back)

    async def act(self, act: Act) -> Acted:
        """Do it to all that matches. -> how many recipients of how many messages. Raises NotWrittenError."""
        acted = Acted(0, 0)
        places = _Places()
        since_turn = 0
        async for items in self._walk.items():
            for loaded in items:
                if act.selection.id and loaded.item_id != act.selection.id:
                    continue
                item = self._standings.item(loaded)
                if item is None:
                    continue
                meant = self._meant(act.selection, item)
                # From here to the end of the item nothing else happens: what was looked at is what is touched.
                touched = self._touch(act, item, [stand for stand in meant if stand.is_touchable], places)
                acted.touched += touched
                acted.messages += touched > 0
                acted.sending += sum(not stand.is_touchable for stand in meant)
                since_turn += len(item.stands)
                if since_turn >= RECIPIENTS_AT_ONCE:
                    since_turn = 0
                    await self._turn()
        await self._knock(places)
        if acted.touched:
            await self._written()
        return acted

    async def _written(self) -> None:
        """All that was done is on stable storage."""
        engine = self._engine
        written: asyncio.Future[None] = engine.loop.create_future()

        def durable() -> None:
            if not written.done():
                written.set_result(None)

        engine.store.move_out(0, (), durable)  # of no parts: called when all before it is there
        try:
            await asyncio.wait_for(written, WRITTEN_WAIT_S)
        except TimeoutError:
            raise NotWrittenError("it was done, but the disk does not take it: a crash would undo it") from None

    def _meant(self, selection: Selection, item: ItemStand) -> list[Stand]:
        wall_s = self._engine.clock.wall_s()
        return [stand for stand in item.stands if matches(selection, item.facts(stand, wall_s))]

    async def _turn(self) -> None:
        """Let mail go on, and the disk come after."""
        await asyncio.sleep(0)
        store = self._engine.store
        while store.pending_bytes > PENDING_BYTES_MAX and not self._engine.is_stopping:  # noqa: ASYNC110 - rare
            await asyncio.sleep(PENDING_POLL_S)

    def _touch(self, act: Act, item: ItemStand, stands: Sequence[Stand], places: _Places) -> int:
        if not stands:
            return 0
        match act.verb:
            case "retry":
                return self._retry(item, stands, places)
            case "hold":
                return self._hold(item, stands)
            case "release":
                return self._release(item, stands)
            case "cancel":
                return self._cancel(item, stands, act.by)

    # the four verbs; -> how many recipients

    def _retry(self, item: ItemStand, stands: Sequence[Stand], places: _Places) -> int:
        """Now. What is held or suspended stays so; mail that its sender delayed is not tried before its time."""
        engine, wall_s = self._engine, self._engine.clock.wall_s()
        early = [stand for stand in stands if stand.state == "scheduled" and stand.fate is not None]
        self._postpone(item.seq, early, lambda stand: wall_s)
        ready = [stand for stand in stands if stand.state == "ready"]
        resting = [stand.part for stand in [*early, *ready] if stand.job is None]  # also what an error of ours put off
        if resting:
            engine.take_up([(item.seq, resting)])
        for stand in [*early, *ready]:
            domain = stand.job.domain if stand.job is not None else item.envelope.recipients[stand.part].domain
            site = engine.domains.place(domain)
            if site is not None:
                places.sites[site] = None
            else:
                places.domains[domain] = None
        return len(early) + len(ready)

    async def _knock(self, places: _Places) -> None:
        """Each knock is a connection or a question to the DNS: not all of them in one moment."""
        knocks: list[Callable[[], None]] = [site.knock for site in places.sites]
        knocks += [partial(self._engine.domains.knock, domain) for domain in places.domains]
        for count, knock in enumerate(knocks, 1):
            knock()
            if count % KNOCKS_AT_ONCE == 0:
                await asyncio.sleep(KNOCKS_PAUSE_S)

    def _hold(self, item: ItemStand, stands: Sequence[Stand]) -> int:
        """Not before an admin releases it: it lies on the disk, without a job."""
        stands = [stand for stand in stands if stand.state != "held"]
        self._postpone(item.seq, stands, lambda stand: HELD_S + max(0.0, stand.due_s))
        self._engine.held += len(stands)
        self._take_away(item, stands)
        return len(stands)

    def _release(self, item: ItemStand, stands: Sequence[Stand]) -> int:
        """It waits as it did before; what is due goes, or is given up where its time is over."""
        engine, seq = self._engine, item.seq
        stands = [stand for stand in stands if stand.state == "held"]
        self._postpone(seq, stands, lambda stand: stand.due_s)
        engine.held -= len(stands)
        dues: dict[float, list[int]] = {}
        for stand in stands:
            dues.setdefault(stand.due_s, []).append(stand.part)
        for due_s, parts in dues.items():
            engine.plan(due_s, seq, parts)
        engine.take_up(())
        return len(stands)

    def _cancel(self, item: ItemStand, stands: Sequence[Stand], by: str) -> int:
        """Never. Nobody is told but the event log: the admin knows."""
        engine = self._engine
        alike: dict[int, list[int]] = {}
        for stand in stands:
            attempts = stand.job.attempts if stand.job is not None else stand.fate.attempt if stand.fate else 0
            alike.setdefault(attempts, []).append(stand.part)
        for attempts, parts in alike.items():
            engine.fates.cancel_parts(item.seq, parts, item.envelope, f"Cancelled by {by}", attempts)
        engine.held -= sum(stand.state == "held" for stand in stands)
        self._take_away(item, stands)
        return len(stands)

    # how

    def _postpone(self, seq: int, stands: Sequence[Stand], due_s: Callable[[Stand], float]) -> None:
        """Write down when they are due from now on, with what their last attempt said."""
        alike: dict[tuple[float, int], list[Stand]] = {}
        for stand in stands:
            alike.setdefault((due_s(stand), id(stand.fate)), []).append(stand)
        for (at_s, _), same in alike.items():
            fate = same[0].fate
            note = b"" if fate is None else encode_note(msgspec.structs.replace(fate, is_repeated=True))
            self._engine.store.postpone(seq, [stand.part for stand in same], at_s, note)

    def _take_away(self, item: ItemStand, stands: Sequence[Stand]) -> None:
        """They have no job any more, and nothing that waits for the end of a suspension."""
        engine = self._engine
        jobs: dict[Job, list[int]] = {}
        for stand in stands:
            if stand.job is not None:
                jobs.setdefault(stand.job, []).append(stand.part)
        for job, parts in jobs.items():
            engine.shrink(job, parts, item.envelope)
        if engine.suspensions.parked_parts:
            engine.suspensions.forget(item.seq, [stand.part for stand in stands])
