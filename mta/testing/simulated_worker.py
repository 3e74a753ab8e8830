"""SimulatedWorker: a worker process of an EngineRig: the real one, with the disk, nameservers and log of the rig."""

import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mta.config import Config
from mta.handoff.frames import Move
from mta.resolve.resolver import Resolver
from mta.submission.listener import Listener
from mta.testing.ledger import Ledger
from mta.testing.simulated_loop import SimulatedLoop
from mta.worker import Worker
from mta_queue.store import Store

if TYPE_CHECKING:
    from mta.testing.engine_rig import EngineRig

RESTART_S = 0.5
SEGMENT_BYTES_MAX = 20_000


class SimulatedWorker(Worker):
    """One life of a worker process."""

    listener: Listener
    is_up = False
    """Clients are let in."""
    reload_s = 0.0
    """When it reads the newest configuration that it was told of."""

    def __init__(self, rig: "EngineRig", number: int, loop: SimulatedLoop) -> None:
        self.rig = rig
        assert rig.supervisor is not None, "it starts workers"
        super().__init__(rig.config, number, rig.epoch, loop, is_again=rig.supervisor.begins(number))
        self.simulated_loop = loop
        self.on_hearing = partial(rig.hears, self)
        take = self.mover.arrivals.take

        def takes(worker: int, frame: Move, *rest: Any) -> None:
            rig.ledger.signed.moved(frame)
            take(worker, frame, *rest)

        self.mover.arrivals.take = takes  # type: ignore[method-assign]

    def _store_of(self, directory: Path) -> Store:
        loop = cast(SimulatedLoop, self.loop)
        return Store(directory, disk=self.disk, jobs=loop.jobs, segment_bytes_max=SEGMENT_BYTES_MAX)

    def _resolver(self, config: Config) -> Resolver:
        return Resolver(nameservers=["127.0.0.1:1"], clock=self.clock, prohibited=[], asker=self.rig.dns)

    async def begin(self) -> None:
        """The whole start; where the disk does not allow it the supervisor tries again."""
        try:
            await self.start()
        except OSError as error:
            self.rig.ledger.happened(f"worker {self.number} cannot start: {error}")
            self.rig.at(RESTART_S, partial(self.rig.start_again, self))
            return
        await self.doors.open([])
        self.listener = Listener(self.doors, self._listener_settings()[0], cast(socket.socket, None))
        self.is_up = True


class SharedLog:
    """The event log's file, of all workers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def append(self, lines: Sequence[bytes]) -> int:
        self._ledger.told(lines)
        return len(lines)

    def reopen(self) -> None:
        """It is where it was."""

    def close(self) -> None:
        """It stays."""
