"""The search for a host: a pool has mail and no address to connect to."""

import asyncio
from typing import TYPE_CHECKING

from mta.model.outcome import Reply
from mta.resolve.errors import ResolveError

if TYPE_CHECKING:
    from mta.delivery.pool import Pool


class Search:
    """One at a time; the pool goes on, or fails, when it is over."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._engine = pool.site.destination.engine
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Addresses are being looked for."""
        return self._task is not None

    def begin(self, prefer_host: str = "") -> None:
        """Look for an address, of this host at least where one is named."""
        if self._task is None:
            self._task = self._engine.loop.create_task(self._run(prefer_host))

    def cancel(self) -> None:
        """Nobody wants it any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, prefer_host: str) -> None:
        pool = self._pool
        try:
            found = await pool.targets.find(pool.source, prefer_host)
        except ResolveError as error:
            self._task = None
            if error.permanent and not pool.is_closed:
                self._engine.fates.bounce_waiting(pool, "dns", error.reply)
            else:
                pool.opener.failed("dns", error.reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, the mail that waits must be looked at again
            self._task = None
            self._engine.report(error)
            pool.opener.failed("local", Reply(451, "4.3.0", "internal error while looking for a host"))
        else:
            self._task = None
            if found:
                pool.pump()
            else:
                pool.opener.failed(*pool.opener.failure)
