"""A dead queue: the files of a server that does not run, read for an export."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from mta.delivery.registry import due_before, is_exported, is_held
from mta.model import envelope as envelopes
from mta.model.selection import Criteria, Selection
from mta.reporting.events import decode_note
from mta.reporting.moved_mail import MovedItem, MovedRecipient
from mta_queue import inspection
from mta_queue.disk import OsDisk
from mta_queue.store import Loaded, Origin, Recovered, Store

REPLY_CHARS_MAX = 300


class DeadQueue:
    """All logs in a directory, locked: no server can begin meanwhile."""

    def __init__(self, directory: Path) -> None:
        """Blocks. Raises LogLockedError where a server runs on it, LogFormatError, OSError; ValueError where there is
        no queue."""
        disk = OsDisk()
        self._logs: dict[int, tuple[Store, Recovered]] = {}
        self.problems: list[str] = []
        """What could not be read: a line each."""
        for path in inspection.logs_in(disk, directory):
            store = Store(path, disk=disk)
            self._logs[store.log] = (store, store.open())
        if not self._logs:
            raise ValueError(f"{directory} holds no queue")
        for store, recovered in self._logs.values():
            self.problems += [f"{store.directory}: {what}" for what in recovered.set_aside]

    async def each(self, selection: Selection, now_s: float, take: Callable[[MovedItem], None]) -> None:
        """Call `take` with every item that matches; where it goes is not known here, so no site and no source is."""
        loop = asyncio.get_running_loop()
        criteria = Criteria(selection)
        for store, _ in self._logs.values():
            store.start(loop)
        try:
            for store, recovered in self._logs.values():
                for seq, _parts in recovered.waiting:
                    await self._one(store, seq, criteria, now_s, take)
                for seq, _, origin in recovered.arriving:
                    if not self._is_still_at(origin, store.load(seq)):
                        await self._one(store, seq, criteria, now_s, take)
        finally:
            for store, _ in self._logs.values():
                await store.close()

    def _is_still_at(self, origin: Origin, item: Loaded | None) -> bool:
        """Whether what was on its way when the server died waits where it came from: then it lies there."""
        if item is None or origin.log not in self._logs:
            return False
        envelope = envelopes.decode(item.meta)
        asked_id = envelope.cause_id if envelope.cause_recipients else envelope.id
        asked = envelope.cause_recipients or [each.address for each in envelope.recipients]
        there = self._logs[origin.log][0].load(origin.seq)
        if there is None or there.item_id != asked_id:
            return False
        addresses = envelopes.decode(there.meta).recipients
        return any(addresses[state.part].address in asked for state in there.parts)

    async def _one(
        self, store: Store, seq: int, criteria: Criteria, now_s: float, take: Callable[[MovedItem], None]
    ) -> None:
        loaded = store.load(seq)
        if loaded is None:
            self.problems.append(f"{store.directory}: item {seq} cannot be read")
            return
        if not criteria.may_be(loaded.item_id):
            return
        envelope = envelopes.decode(loaded.meta)
        age_s = now_s - envelope.received_s
        if not criteria.has_message(envelope.tenant, envelope.campaign, envelope.sender, age_s):
            return
        wanted: list[MovedRecipient] = []
        for part, due_s, note in loaded.parts:
            recipient = envelope.recipients[part]
            if criteria.has_recipient(recipient.domain, recipient.address):
                wanted.append(_recipient(part, due_s, note, recipient.address, recipient.domain))
        if not wanted:
            return
        content = await _content(store, seq)
        if content is None:
            self.problems.append(f"{store.directory}: {loaded.item_id}: its content cannot be read")
            return
        envelope.recipients = [envelope.recipients[each.part] for each in wanted]
        envelope.told_recipients = envelope.cause_recipients = None
        meta = envelopes.encode(envelope)
        take(MovedItem(envelope.id, envelope.sender, wanted, envelope.received_s, meta, len(content), content))


def _recipient(part: int, due_s: float, note: bytes, address: str, domain: str) -> MovedRecipient:
    attempts, last = 0, ""
    try:
        if note:
            fate = decode_note(note)
            attempts, last = fate.attempt, str(fate.reply)[:REPLY_CHARS_MAX]
    except msgspec.DecodeError:
        note = b""  # of a version that is gone
    held = is_held(due_s) and not is_exported(due_s)
    return MovedRecipient(address, domain, due_before(due_s), held, attempts, last, part, note)


async def _content(store: Store, seq: int) -> bytes | None:
    read: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    store.content_soon(seq, read.set_result)
    return await read
