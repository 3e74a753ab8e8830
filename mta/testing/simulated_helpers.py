"""Signing in a simulation: helper processes that speak the real frames and make real signatures, and die and hang."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from mta.signing import signing_frames as frames
from mta.signing.signer import Signer
from mta.signing.signing_bench import Bench, Keys
from mta.signing.signing_frames import KEY, SIGN, FrameReader
from mta.testing.memory_network import MemoryNetwork
from mta.testing.simulated_loop import SimulatedLoop

KEYS_MAX = 4  # so few that some are forgotten
SIGNATURE_S = 0.0005
CPU_US = 500


class SimulatedSigner(Signer):
    """Prefers the helpers in an order that does not come from the process's id."""

    def __init__(self, loop: asyncio.AbstractEventLoop, paths: Sequence[Path]) -> None:
        super().__init__(loop, paths)
        self._paths = list(paths)


class SimulatedHelper:
    """One life of a signing helper."""

    def __init__(self, network: MemoryNetwork, path: Path) -> None:
        self.loop = SimulatedLoop(network.time, path.stem)
        self.loop.attach(network)
        self.is_hanging = False
        """It reads and does not answer."""
        self._network = network
        self._keys = Keys(KEYS_MAX)
        self._bench = Bench(self._keys, None)
        self._free_s = 0.0
        network.listen(self.loop, str(path), lambda: _Guest(self))

    def kill(self) -> None:
        """SIGKILL."""
        self._network.kill(self.loop)

    def heard(self, guest: "_Guest", kind: int, payload: bytes) -> None:
        """A worker says something."""
        if kind == KEY:
            self._keys.learn(*frames.read_key(payload))
            return
        assert kind == SIGN, kind
        ref, entries = frames.read_sign(payload)
        self._free_s = max(self._free_s, self.loop.time()) + SIGNATURE_S * len(entries)

        def answer() -> None:
            guest.transport.write(frames.signed(ref, CPU_US * len(entries), self._bench.sign(entries)))

        if not self.is_hanging:
            self.loop.exactly_at(self._free_s, answer)


class _Guest(asyncio.Protocol):
    """One worker's connection."""

    transport: asyncio.Transport

    def __init__(self, helper: SimulatedHelper) -> None:
        self._helper = helper
        self._reader = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(frames.greeting(1))

    def data_received(self, data: bytes) -> None:
        for kind, payload in self._reader.receive(data):
            self._helper.heard(self, kind, payload)
