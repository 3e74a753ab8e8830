"""Acts: what an admin does to mail that waits: retry, hold, release, cancel.

What they change is on stable storage before the admin hears of it: what is held stays held, and what is cancelled
cancelled, whatever happens. A held recipient is one whose due time is beyond all times (`registry.HELD_S`). Recipients
in a transaction are left alone, and whatever is left alone is counted with the reason. Doing a thing twice is doing it
once. An act over a long queue is done bit by bit: each answer says where the next question goes on, so nobody waits
long for one, and an admin who goes away ends it between two.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mta.delivery.cancelling import Cancelling
from mta.delivery.job import Job
from mta.delivery.registry import HELD_S
from mta.delivery.sites import Site
from mta.delivery.standing import ItemStand, Stand, Standings, parts_of
from mta.delivery.walk import Stint, Walk
from mta.model.envelope import Envelope
from mta.model.selection import Criteria
from mta.reporting.moved_mail import Remove
from mta.reporting.questions import Act, Acted

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

ACT_S = 8.0  # of work between two answers
KNOCKS_AT_ONCE = 250  # sites and domains that are tried anew before there is a pause
KNOCKS_PAUSE_S = 0.05
PENDING_BYTES_MAX = 32 * 1024 * 1024  # records that the disk does not have yet; beyond it an act waits for the disk
PENDING_POLL_S = 0.05
WRITTEN_WAIT_S = 10.0  # how long an act waits for the disk at its end, before it says that it was only half done

SENDING = "being sent"
LEAVING = "on the way to another worker"
HELD_ALREADY = "held already"
NOT_HELD = "not held"
HELD = "held"
SUSPENDED = "suspended"
TOO_EARLY = "delayed by the sender"
UNTOLD = "kept, because the notification to the sender could not be written"
GONE = "not held any more"


class NotWrittenError(Exception):
    """The disk does not take what was done."""


class _Places:
    """Where a retry knocks when everything is looked through."""

    def __init__(self) -> None:
        self.sites: dict[Site, None] = {}
        self.domains: dict[str, None] = {}


class Tally:
    """What an act did, and what it did not."""

    def __init__(self) -> None:
        self.recipients = 0
        self.messages = 0
        self.sending = 0
        self.left: dict[str, int] = {}

    def leave(self, why: str, count: int) -> None:
        """So many recipients match and are left alone."""
        if count:
            self.left[why] = self.left.get(why, 0) + count

    def touch(self, count: int) -> None:
        """So many recipients of a message were touched."""
        self.recipients += count
        self.messages += count > 0

    def touchable(self, stands: Sequence[Stand]) -> list[Stand]:
        """Those that may be touched; the others are counted."""
        found: list[Stand] = []
        for stand in stands:
            if stand.is_touchable:
                found.append(stand)
            else:
                self.sending += 1
                self.leave(SENDING if stand.state == "sending" else LEAVING, 1)
        return found


class Acts:
    """Walks over the queue and touches what is meant."""

    def __init__(self, engine: "Dispatcher", is_kept_back: Callable[[int], bool]) -> None:
        self._engine = engine
        self._standings = Standings(engine)
        self._walk = Walk(engine, is_kept_back)

    async def act(self, act: Act) -> Acted:
        """Do it to what matches, for some seconds. Raises NotWrittenError, StoppingError."""
        engine = self._engine
        seqs = engine.store.seqs()
        of = len(seqs)
        until = act.until or (seqs[-1] if of else 0)  # what comes while it is done is not meant
        first = bisect_right(seqs, act.after)
        seqs = seqs[first : bisect_right(seqs, until)]
        tally, places, stint = Tally(), _Places(), self._walk.stint()
        end_s = engine.clock.monotonic_s() + ACT_S
        criteria = Criteria(act.selection)
        cancelling = Cancelling(engine, act.by, notify=act.notify)
        next_seq = 0
        if criteria.is_everything and act.verb in ("hold", "release"):
            next_seq = await self._all(act, seqs, tally, stint, end_s)
        else:
            async for some, items in self._walk.meant(stint, criteria, seqs):
                for loaded in items:
                    # From here to the end of the item nothing else happens: what was looked at is what is touched.
                    item = self._standings.item(loaded, criteria)
                    if item is not None:
                        stands = tally.touchable(item.stands)
                        if stands:
                            self._touch(act, item, stands, places, tally, cancelling)
                    if stint.is_due:
                        await self._turn(stint)
                        await cancelling.room()
                if engine.clock.monotonic_s() > end_s and some and some[-1] < seqs[-1]:
                    next_seq = some[-1]
                    break
        await self._knock(places, stint)
        if cancelling.is_used:
            messages, told = await cancelling.ended()
            tally.recipients += told
            tally.messages += messages
            tally.leave(UNTOLD, cancelling.failed)
        if tally.recipients:
            await self.written()
        looked_at = first + (bisect_right(seqs, next_seq) if next_seq else len(seqs))
        return Acted(
            tally.recipients, tally.messages, tally.sending, tally.left, next_seq, until, looked_at, max(of, looked_at)
        )

    async def _all(self, act: Act, seqs: Sequence[int], tally: Tally, stint: Stint, end_s: float) -> int:
        """Hold or release everything: nothing need be read back; -> where to go on."""
        async for some in self._walk.seqs(stint, seqs):
            for seq in some:
                stands = tally.touchable(self._standings.unread(seq))
                if act.verb == "hold":
                    self._hold(seq, stands, None, tally)
                else:
                    self._release(seq, stands, tally)
                if stint.is_due:
                    await self._turn(stint)
            if self._engine.clock.monotonic_s() > end_s and some and some[-1] < seqs[-1]:
                return some[-1]
        return 0

    async def remove(self, question: Remove) -> Acted:
        """Cancel silently what an export has; what is not held any more may be on its way, and stays."""
        tally, stint = Tally(), self._walk.stint()
        wanted = {item.seq: item for item in question.items}
        cancelling = Cancelling(self._engine, question.by, is_exported=True)
        async for items in self._walk.items(stint, sorted(wanted)):
            for loaded in items:
                exported = wanted[loaded.seq]
                item = self._standings.item(loaded) if loaded.item_id == exported.id else None
                if item is None:
                    continue
                stands = [stand for stand in item.stands if stand.part in exported.parts]
                held = [stand for stand in stands if stand.state == "held" and not stand.is_leaving]
                tally.leave(GONE, len(stands) - len(held))
                if held:
                    tally.touch(cancelling.cancel(item, held))
                    self._take_away(item.seq, held, item.envelope)
                if stint.is_due:
                    await self._turn(stint)
        if tally.recipients:
            await self.written()
        return Acted(tally.recipients, tally.messages, tally.sending, tally.left)

    async def written(self) -> None:
        """All that was done is on stable storage; raises NotWrittenError where the disk does not take it."""
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

    async def _turn(self, stint: Stint) -> None:
        """Let mail go on, and the disk come after."""
        await stint.turn()
        store = self._engine.store
        while store.pending_bytes > PENDING_BYTES_MAX and not self._engine.is_stopping:  # noqa: ASYNC110 - rare
            await asyncio.sleep(PENDING_POLL_S)

    def _touch(
        self,
        act: Act,
        item: ItemStand,
        stands: Sequence[Stand],
        places: _Places,
        tally: Tally,
        cancelling: Cancelling,
    ) -> None:
        match act.verb:
            case "retry":
                self._retry(item, stands, places, tally)
            case "hold":
                self._hold(item.seq, stands, item.envelope, tally)
            case "release":
                self._release(item.seq, stands, tally)
            case "cancel":
                if cancelling.tells(item.envelope):
                    self._take_away(item.seq, stands, item.envelope)
                    cancelling.begin(item, stands)
                else:
                    tally.touch(cancelling.cancel(item, stands))
                    self._take_away(item.seq, stands, item.envelope)

    # the verbs

    def _retry(self, item: ItemStand, stands: Sequence[Stand], places: _Places, tally: Tally) -> None:
        """Now. What is held or suspended stays so; mail that its sender delayed is not tried before its time."""
        engine, wall_s = self._engine, self._engine.clock.wall_s()
        early: list[Stand] = []
        ready: list[Stand] = []
        for stand in stands:
            match stand.state:
                case "ready":
                    ready.append(stand)
                case "scheduled" if stand.note:
                    early.append(stand)
                case "scheduled":
                    tally.leave(TOO_EARLY, 1)
                case "held":
                    tally.leave(HELD, 1)
                case _:
                    tally.leave(SUSPENDED, 1)
        if early:
            engine.store.postpone(item.seq, parts_of(early), wall_s, None)
        # Also what an error of ours put off; what waits as a number keeps its place, and is not read for this.
        if early or any(stand.job is None and not stand.is_spilled for stand in ready):
            engine.take_up([item.seq])
        for stand in [*early, *ready]:
            domain = stand.job.domain if stand.job is not None else item.envelope.recipients[stand.part].domain
            site = engine.domains.place(domain)
            if site is not None:
                places.sites[site] = None
            else:
                places.domains[domain] = None
        tally.touch(len(early) + len(ready))

    async def _knock(self, places: _Places, stint: Stint) -> None:
        """Each knock is connections or a question to the DNS: not all of them in one moment, nor in one turn."""
        knocks: list[Callable[[], None]] = [site.knock for site in places.sites]
        knocks += [partial(self._engine.domains.knock, domain) for domain in places.domains]
        for count, knock in enumerate(knocks, 1):
            knock()
            if stint.is_due:
                await stint.turn()
            if count % KNOCKS_AT_ONCE == 0:
                await asyncio.sleep(KNOCKS_PAUSE_S)

    def _hold(self, seq: int, stands: Sequence[Stand], envelope: Envelope | None, tally: Tally) -> None:
        """Not before an admin releases it: it lies on the disk, without a job. What an export holds is from now on the
        admin's own."""
        free = [stand for stand in stands if stand.state != "held" or stand.is_exported]
        tally.leave(HELD_ALREADY, len(stands) - len(free))
        if not free:
            return
        self.postpone(seq, free, lambda stand: HELD_S + max(0.0, stand.due_s))
        self._engine.held += sum(stand.state != "held" for stand in free)
        self._take_away(seq, free, envelope)
        tally.touch(len(free))

    def _release(self, seq: int, stands: Sequence[Stand], tally: Tally) -> None:
        """It waits as it did before; what is due goes, or is given up where its time is over."""
        engine = self._engine
        held = [stand for stand in stands if stand.state == "held"]
        tally.leave(NOT_HELD, len(stands) - len(held))
        if not held:
            return
        self.postpone(seq, held, lambda stand: stand.due_s)
        engine.held -= len(held)
        for due_s in {stand.due_s for stand in held}:
            engine.plan(due_s, seq)
        engine.take_up(())
        tally.touch(len(held))

    # how

    def postpone(self, seq: int, stands: Sequence[Stand], due_s: Callable[[Stand], float]) -> None:
        """Write down when they are due from now on; what their last attempt said stays as it is."""
        alike: dict[float, list[int]] = {}
        for stand in stands:
            alike.setdefault(due_s(stand), []).append(stand.part)
        for at_s, parts in alike.items():
            self._engine.store.postpone(seq, parts, at_s, None)

    def hold_exported(self, seq: int, stands: Sequence[Stand], envelope: Envelope, held_s: float) -> None:
        """Hold, for an export, what is not held yet."""
        free = [stand for stand in stands if stand.state != "held"]
        if free:
            self.postpone(seq, free, lambda stand: held_s + max(0.0, stand.due_s))
            self._engine.held += len(free)
            self._take_away(seq, free, envelope)

    def _take_away(self, seq: int, stands: Sequence[Stand], envelope: Envelope | None) -> None:
        """They have no job any more, and nothing that waits for the end of a suspension. Without the envelope whole
        items are meant: no job is left with a part of its recipients."""
        engine = self._engine
        jobs: dict[Job, list[int]] = {}
        for stand in stands:
            if stand.job is not None:
                jobs.setdefault(stand.job, []).append(stand.part)
        for job, parts in jobs.items():
            engine.shrink(job, parts, envelope)
        if engine.parking.parts:
            engine.parking.forget(seq, parts_of(stands))
