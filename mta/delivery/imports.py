"""Imports: mail that waited on another server goes on here: with its id, its times, its attempts and what was said.

An item is written into this worker's own log, whoever owns its destination: when it is due it moves there like any mail
that waits. What is imported twice is recognised by message id and recipient, while it waits and for some minutes after.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from mta.delivery.acts import Acts
from mta.delivery.registry import HELD_S
from mta.delivery.walk import Walk
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope
from mta.reporting.moved_mail import Imported, Known, KnownAre, MovedItem, MovedRecipient, Upload

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

KNOWN_KEPT_S = 600.0  # after the last question; an import asks several times a second
SHELVES = 1_024  # what is known is spread over so many sets, so that none of them takes long to grow
UPLOADS_BYTES_MAX = 256 << 20
ID_CHARS_MAX = 64


class ImportRefusedError(Exception):
    """What is brought cannot be taken."""


class Bringer(Protocol):
    """Who writes into this worker's log: `mta.handoff.owner.Owner`."""

    def bring(
        self,
        envelope: Envelope,
        content: bytes,
        due_s: float,
        on_durable: Callable[[int], None],
        on_failed: Callable[[OSError], None],
    ) -> None:
        """Write it down, then call one of the two."""
        ...


class Imports:
    """This worker's side. `may_take`: whether new mail may be written now."""

    def __init__(
        self,
        engine: "Dispatcher",
        acts: Acts,
        is_kept_back: Callable[[int], bool],
        bringer: Bringer,
        may_take: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._acts = acts
        self._walk = Walk(engine, is_kept_back)
        self._bringer = bringer
        self._may_take = may_take
        self._known: list[set[int]] = []
        self._looking = asyncio.Lock()
        self._forgetter: asyncio.TimerHandle | None = None
        self._uploads: dict[str, bytearray] = {}

    # what is here already

    async def known(self, question: Known) -> KnownAre:
        """The numbers of those that wait here, or did a while ago."""
        async with self._looking:
            if not self._known:
                await self._look()
        self._keep()
        return KnownAre([number for number, pair in enumerate(question.recipients) if self._knows(*pair)])

    async def _look(self) -> None:
        known: list[set[int]] = [set() for _ in range(SHELVES)]
        stint = self._walk.stint()
        async for items in self._walk.items(stint):
            for loaded in items:
                recipients = envelopes.decode(loaded.meta).recipients
                for state in loaded.parts:
                    number = hash((loaded.item_id, recipients[state.part].address))
                    known[number % SHELVES].add(number)
                if stint.is_due:
                    await stint.turn()
        self._known = known

    def _knows(self, message_id: str, address: str) -> bool:
        number = hash((message_id, address))
        return bool(self._known) and number in self._known[number % SHELVES]

    def _keep(self) -> None:
        """For some time yet."""
        if self._forgetter is not None:
            self._forgetter.cancel()
        self._forgetter = self._engine.loop.call_later(KNOWN_KEPT_S, self._forget)

    def _forget(self) -> None:
        self._known = []
        self._uploads.clear()
        self._forgetter = None

    # what comes

    def upload(self, question: Upload) -> Imported:
        """Keep a piece of a large content until its item comes; raises ImportRefusedError."""
        if question.offset == 0:
            self._uploads[question.id] = bytearray()
        content = self._uploads.get(question.id)
        if content is None or len(content) != question.offset:
            self._uploads.pop(question.id, None)
            raise ImportRefusedError("a piece of a large message is missing: begin it anew")
        if sum(map(len, self._uploads.values())) + len(question.data) > UPLOADS_BYTES_MAX:
            self._uploads.pop(question.id, None)
            raise ImportRefusedError("too much is being imported at the same time")
        content += question.data
        self._keep()
        return Imported(0, 0)

    async def take(self, items: list[MovedItem]) -> Imported:
        """Write these items down but for recipients that are known; returns when all of it is on stable storage.

        Raises ImportRefusedError, NotWrittenError; what was written by then is known to the next `Known`.
        """
        if not self._may_take():
            raise ImportRefusedError(
                "no new mail is taken now: the disk is nearly full, or the event log cannot be written"
            )
        async with self._looking:
            if not self._known:
                await self._look()
        self._keep()
        prepared = [self._prepared(item) for item in items]
        imported = Imported(0, 0)
        writing = []
        for item, envelope, content in prepared:
            recipients = [each for each in item.recipients if not self._knows(item.id, each.address)]
            if not recipients:
                continue
            wanted = {each.address for each in recipients}
            envelope.recipients = [each for each in envelope.recipients if each.address in wanted]
            writing.append(self._write(envelope, content, recipients))
            imported.messages += 1
            imported.recipients += len(recipients)
            for each in recipients:
                number = hash((item.id, each.address))
                self._known[number % SHELVES].add(number)
        failures = [error for error in await asyncio.gather(*writing) if error is not None]
        for item in items:
            self._uploads.pop(item.id, None)
        if failures:
            raise ImportRefusedError(f"the disk does not take it: {failures[0].strerror or failures[0]}")
        if imported.messages:
            await self._acts.written()
        return imported

    def _prepared(self, item: MovedItem) -> tuple[MovedItem, Envelope, bytes]:
        content = item.content
        if len(content) < item.size:
            content = bytes(self._uploads.get(item.id, b""))
        if len(content) != item.size:
            raise ImportRefusedError(f"{item.id[:ID_CHARS_MAX]}: its content has {len(content)} bytes, not {item.size}")
        try:
            envelope = envelopes.decode(item.envelope)
        except msgspec.DecodeError as error:
            raise ImportRefusedError(f"{item.id[:ID_CHARS_MAX]}: its envelope is not understood: {error}") from None
        addresses = [each.address for each in item.recipients]
        if envelope.id != item.id or [each.address for each in envelope.recipients] != addresses or not addresses:
            raise ImportRefusedError(f"{item.id[:ID_CHARS_MAX]}: its recipients are not those of its envelope")
        if not 0 < len(item.id) <= ID_CHARS_MAX or len(set(addresses)) != len(addresses):
            raise ImportRefusedError(f"{item.id[:ID_CHARS_MAX]}: no id of a message, or a recipient twice")
        return item, envelope, content

    async def _write(self, envelope: Envelope, content: bytes, recipients: list[MovedRecipient]) -> OSError | None:
        loop = self._engine.loop
        written: asyncio.Future[OSError | None] = loop.create_future()
        dues = [HELD_S + max(0.0, each.due_s) if each.held else each.due_s for each in recipients]
        # Between this record and the next a crash may leave it as it is now: nothing that was held may go then.
        first_due_s = max(dues) if any(each.held for each in recipients) else min(dues)

        def durable(seq: int) -> None:
            alike: dict[tuple[float, bytes], list[int]] = {}
            for part, (each, due_s) in enumerate(zip(recipients, dues, strict=True)):
                if each.note or due_s != first_due_s:
                    alike.setdefault((due_s, each.note), []).append(part)
            for (due_s, note), parts in alike.items():
                self._engine.store.postpone(seq, parts, due_s, note)
            self._engine.found(seq, list(enumerate(dues)))
            _resolve(written, None)

        self._bringer.bring(envelope, content, first_due_s, durable, partial(_resolve, written))
        return await written


def _resolve(future: "asyncio.Future[OSError | None]", error: OSError | None) -> None:
    if not future.done():
        future.set_result(error)
