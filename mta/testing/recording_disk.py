"""RecordingDisk: a disk that notes what it was told to do and stops after every step for somebody to look at it.

At each stop a power loss could leave many different disks. A `Crash` is one choice among them: which names, which
writes, and where a write is torn. `after` builds that disk and leaves the recording one as it is.
"""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from mta.testing.memory_disk import SECTOR_BYTES, Loss, MemoryDisk, MemoryFile, put
from mta_queue.disk import DiskFile

STEPS_KEPT = 40  # of the record, for whoever reads of a failure


class Step(NamedTuple):
    """One change that was asked of the disk."""

    operation: str
    name: str
    detail: str
    """Where and how much, or the other name."""
    failed: bool

    def __str__(self) -> str:
        return " ".join(filter(None, (self.operation, self.name, self.detail, "FAILED" if self.failed else "")))


class Crash(NamedTuple):
    """How the machine or the process ends."""

    name: str
    killed: bool
    """Only the process is gone: the system still has all that was written."""
    names: float = 0.0
    """How likely a change of a directory that was not synced happened."""
    whole: float = 0.0
    """How likely a write that was not synced is there as a whole."""
    torn: bool = False
    """The others are there in part; else not at all."""

    def loss(self, random: Random) -> Loss:
        """What a disk is to keep of what was not synced."""
        return _ChosenLoss(random, self)


KILL = Crash("kill", killed=True)
NOTHING = Crash("power loss, nothing unsynced is kept", killed=False)
CRASHES = (
    KILL,
    NOTHING,
    Crash("power loss, names are kept and writes are not", False, names=1.0),
    Crash("power loss, writes are kept and names are not", False, whole=1.0),
    Crash("power loss, names are kept and writes torn", False, names=1.0, torn=True),
    Crash("power loss, names are kept, writes by chance and torn", False, names=1.0, whole=0.5, torn=True),
    Crash("power loss, names and writes by chance and torn", False, names=0.5, whole=0.4, torn=True),
    Crash("power loss, names by chance, writes are kept", False, names=0.5, whole=1.0),
)


class _ChosenLoss(Loss):
    """What a crash leaves of what was not synced. A torn write is cut anywhere, lacks sectors or has noise."""

    def __init__(self, random: Random, crash: Crash) -> None:
        super().__init__(random)
        self._crash = crash

    def keeps_name(self) -> bool:
        return self.random.random() < self._crash.names

    def write(self, stable: bytearray, offset: int, data: bytes) -> None:
        if self.random.random() < self._crash.whole:
            put(stable, offset, data)
        elif self._crash.torn:
            self._tear(stable, offset, data)

    def _tear(self, stable: bytearray, offset: int, data: bytes) -> None:
        how = self.random.choice(("nothing", "length", "sectors", "beginning", "beginning", "end", "noise"))
        cut = self.random.randint(0, len(data))
        if how == "length":
            put(stable, offset + len(data), b"")
        elif how == "sectors":
            self.write_sectors(stable, offset, data)
        elif how == "beginning":
            put(stable, offset, data[:cut])
        elif how == "end":
            put(stable, offset + cut, data[cut:])
        elif how == "noise":
            cut = max(cut, len(stable) - offset)  # what was synced is no noise where it was written a second time
            put(stable, offset, data)
            put(stable, offset + cut, self.random.randbytes(max(0, min(SECTOR_BYTES, len(data) - cut))))


class RecordingDisk(MemoryDisk):
    """A MemoryDisk with a record of what was done to it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.steps = 0
        self.record: deque[Step] = deque(maxlen=STEPS_KEPT)
        self.on_step: Callable[[], None] = lambda: None
        """Called after each step, also one that failed."""

    def after(self, crash: Crash, random: Random) -> MemoryDisk:
        """The disk that is found after this crash."""
        disk = self.fork()
        if not crash.killed:
            disk.lose_power(crash.loss(random))
        return disk

    def create(self, path: Path) -> MemoryFile:
        with _Noted(self, "create", path):
            return super().create(path)

    def append(self, file: DiskFile, offset: int, buffers: Sequence[bytes]) -> None:
        with _Noted(self, "write", _path(file), f"{sum(map(len, buffers))} bytes at {offset}"):
            super().append(file, offset, buffers)

    def sync(self, file: DiskFile) -> None:
        with _Noted(self, "sync", _path(file)):
            super().sync(file)

    def sync_directory(self, path: Path) -> None:
        with _Noted(self, "sync directory", path):
            super().sync_directory(path)

    def unlink(self, path: Path) -> None:
        with _Noted(self, "unlink", path):
            super().unlink(path)

    def rename(self, path: Path, target: Path) -> None:
        with _Noted(self, "rename", path, f"to {target}"):
            super().rename(path, target)


class _Noted:
    """Around a step: into the record, then whoever looks on."""

    def __init__(self, disk: RecordingDisk, operation: str, path: Path, detail: str = "") -> None:
        self._disk = disk
        self._step = Step(operation, path.name, detail, False)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        disk = self._disk
        disk.steps += 1
        disk.record.append(self._step._replace(failed=kind is not None))
        disk.on_step()


def _path(file: DiskFile) -> Path:
    assert isinstance(file, MemoryFile)
    return file.path
