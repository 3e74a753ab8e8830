"""Cancelling: recipients that an admin takes out of the queue, silently or with a notification to their sender.

With one it is the way that a bounce goes: the notification is safe before the fate is recorded, and goes out after it.
Where it cannot be written the recipients stay as they are.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mta.delivery.job import Job
from mta.delivery.notices import GivenUp
from mta.delivery.standing import ItemStand, Stand
from mta.model.envelope import Envelope

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

AT_ONCE = 256  # messages whose senders are being told; more would wait in memory
ENDED_POLL_S = 0.01
EXPORTED = "exported"
"""Category of the fate of what went away in an export."""


class Cancelling:
    """One act's share."""

    def __init__(self, engine: "Dispatcher", by: str, *, notify: bool = False, is_exported: bool = False) -> None:
        self._engine = engine
        self._by = by
        self._notify = notify
        self._is_exported = is_exported
        self._open = 0
        self._messages = 0
        self._told = 0
        self.failed = 0
        """Recipients that stay, because their sender could not be told."""
        self.is_used = False
        """Somebody is being told, or was."""

    def tells(self, envelope: Envelope) -> bool:
        """Whether the sender is to hear of it: never the null sender, and none of a tenant that wants no
        notifications."""
        return self._notify and self._engine.fates.tells(envelope)

    def cancel(self, item: ItemStand, stands: Sequence[Stand]) -> int:
        """Never, and only the event log hears of it; -> how many. The jobs are the caller's business."""
        engine = self._engine
        for attempts, parts in _by_attempts(stands).items():
            reason = f"Exported by {self._by}" if self._is_exported else f"Cancelled by {self._by}"
            category = EXPORTED if self._is_exported else ""
            engine.fates.cancel_parts(item.seq, parts, item.envelope, reason, attempts, category)
        engine.held -= sum(stand.state == "held" for stand in stands)
        return len(stands)

    def begin(self, item: ItemStand, stands: Sequence[Stand]) -> None:
        """The same with a notification; they have no job any more. Until it is done they are in hand."""
        engine, envelope = self._engine, item.envelope
        self.is_used = True
        parts = [stand.part for stand in stands]
        attempts = max(stand.attempts for stand in stands)
        job = Job(item.seq, parts, envelope.recipients[parts[0]].domain, envelope, None, "", attempts)
        engine.jobs += 1
        engine.registry.add(job)
        self._open += 1
        held = sum(stand.state == "held" for stand in stands)
        reason = f"Cancelled by {self._by}"
        given_up = [
            GivenUp(alike, engine.fates.cancelled_fate(reason, tried)) for tried, alike in _by_attempts(stands).items()
        ]
        engine.fates.cancel_job(job, given_up, partial(self._ended, len(parts), held))

    def _ended(self, count: int, held: int, is_done: bool) -> None:
        self._open -= 1
        if is_done:
            self._messages += 1
            self._told += count
            self._engine.held -= held
        else:
            self.failed += count

    async def room(self) -> None:
        """Wait while too many are in the making."""
        while self._open >= AT_ONCE and not self._engine.is_stopping:  # noqa: ASYNC110 - each takes milliseconds
            await asyncio.sleep(ENDED_POLL_S)

    async def ended(self) -> tuple[int, int]:
        """When all that was begun is done or failed: of how many messages how many recipients are cancelled."""
        while self._open and not self._engine.is_stopping:  # noqa: ASYNC110 - each takes milliseconds, or five seconds
            await asyncio.sleep(ENDED_POLL_S)
        return self._messages, self._told


def _by_attempts(stands: Sequence[Stand]) -> dict[int, list[int]]:
    alike: dict[int, list[int]] = {}
    for stand in stands:
        alike.setdefault(stand.attempts, []).append(stand.part)
    return alike
