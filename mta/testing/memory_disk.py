"""MemoryDisk: a disk that loses power when a test wants it to.

It keeps apart what the running system sees and what is on stable storage. `lose_power` asks a `Loss` for every write
that was not synced what of it is there, and for every change of a directory that was not synced whether it happened;
`kill` only ends the process: everything written stays, locks are freed.
"""

import errno
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from mta_queue.disk import DiskFile, LogLockedError

SECTOR_BYTES = 512  # what a disk writes as a whole


class PowerLost(BaseException):
    """Raised by a test's `on_call` to end everything at this call."""


class Loss:
    """What a power loss leaves of what was not synced: by chance, each name and each write or each of its sectors."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def keeps_name(self) -> bool:
        """Whether this change of a directory happened."""
        return self.random.random() < 0.5

    def write(self, stable: bytearray, offset: int, data: bytes) -> None:
        """All of a write, nothing, or each of its sectors by chance; the length may have grown without the data."""
        fate = self.random.choice(("all", "nothing", "length", "sectors", "sectors"))
        if fate == "all":
            put(stable, offset, data)
        elif fate == "length":
            put(stable, offset + len(data), b"")
        elif fate == "sectors":
            self.write_sectors(stable, offset, data)

    def write_sectors(self, stable: bytearray, offset: int, data: bytes) -> None:
        """Each sector that the write touches by chance."""
        start = 0
        while start < len(data):
            end = min(len(data), start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES)
            if self.random.random() < 0.5:
                put(stable, offset + start, data[start:end])
            start = end


class _Node:
    """A file's contents, whatever it is called."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.stable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = []
        self.adrift: list[tuple[int, bytes]] = []
        """Writes that a failed sync gave up: seen while the system runs, synced never."""

    def write(self, offset: int, data: bytes) -> None:
        put(self.seen, offset, data)
        self.unsynced.append((offset, data))

    def copy(self) -> "_Node":
        other = _Node()
        other.seen, other.stable = self.seen[:], self.stable[:]
        other.unsynced, other.adrift = self.unsynced[:], self.adrift[:]
        return other


class MemoryFile:
    """An open file of a MemoryDisk."""

    def __init__(self, disk: "MemoryDisk", path: Path, node: _Node) -> None:
        self.path = path
        self.node = node
        self._disk = disk

    def close(self) -> None:
        if self._disk.locks.get(self.path) is self:
            del self._disk.locks[self.path]


class MemoryDisk:
    """A Disk (mta_queue.disk) in memory."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.calls: Counter[str] = Counter()
        self.on_call: Callable[[str, Path], None] = lambda operation, path: None
        """Called before append, sync, sync_directory, create, unlink and rename; what it raises is what happens."""
        self.is_cached = True
        """Whether `read_cached` has the bytes."""
        self.free = 1 << 40
        self.locks: dict[Path, MemoryFile] = {}
        self._directories: set[Path] = set()
        self._seen: dict[Path, _Node] = {}
        self._stable: dict[Path, _Node] = {}
        self._unsynced: list[tuple[str, Path, Path, _Node | None]] = []

    # What a test does to it.

    def kill(self) -> None:
        """The process is gone, the system goes on."""
        self.locks.clear()
        self.on_call = lambda operation, path: None

    def lose_power(self, loss: Loss | None = None) -> None:
        """The system starts again from what is on stable storage, and of the rest from what `loss` left."""
        loss = loss or Loss(self.random)
        self.kill()
        for operation, path, target, node in self._unsynced:
            if loss.keeps_name():
                _apply(self._stable, operation, path, target, node)
        self._unsynced.clear()
        for node in dict.fromkeys(self._stable.values()):  # in an order that a seed repeats
            for offset, data in [*node.adrift, *node.unsynced]:
                loss.write(node.stable, offset, data)
            node.adrift.clear()
            node.unsynced.clear()
            node.seen = bytearray(node.stable)
        self._seen = dict(self._stable)

    def fork(self) -> "MemoryDisk":
        """Another disk as this one is now, whose process is gone."""
        other = MemoryDisk()
        other.random.setstate(self.random.getstate())
        other._directories = set(self._directories)
        named = [*self._seen.values(), *self._stable.values(), *(change[3] for change in self._unsynced)]
        nodes = {node: node.copy() for node in dict.fromkeys(named) if node is not None}
        other._seen = {path: nodes[node] for path, node in self._seen.items()}
        other._stable = {path: nodes[node] for path, node in self._stable.items()}
        other._unsynced = [
            (operation, path, target, nodes[node] if node is not None else None)
            for operation, path, target, node in self._unsynced
        ]
        return other

    def fingerprint(self) -> int:
        """Two disks of which all is the same, seen and stable, have the same one."""
        stable = {node: at for at, node in enumerate(self._stable.values())}
        parts: list[object] = []
        for path, node in sorted(self._seen.items()):
            parts += (path.name, bytes(node.seen), stable.get(node, -1))
        for path, node in sorted(self._stable.items()):
            parts += (path.name, bytes(node.stable), len(node.unsynced), len(node.adrift))
        return hash((*parts, len(self._unsynced)))

    @property
    def has_adrift(self) -> bool:
        """Something is seen that no sync will ever bring to stable storage, because one failed."""
        return any(node.adrift for node in self._seen.values())

    def contents(self, path: Path) -> bytes:
        """What the running system sees in a file."""
        return bytes(self._seen[path].seen)

    def change(self, path: Path, offset: int, data: bytes) -> None:
        """Bit rot: the bytes are others from now on, and stay so."""
        for image in (self._seen[path].seen, self._seen[path].stable):
            image[offset : offset + len(data)] = data

    def truncate(self, path: Path, length_bytes: int) -> None:
        """The file is shorter from now on, and stays so."""
        for image in (self._seen[path].seen, self._seen[path].stable):
            del image[length_bytes:]

    def paths(self) -> list[Path]:
        """All files, sorted, locks left out."""
        return sorted(path for path in self._seen if path.name != "LOCK")

    # What the queue asks of it.

    def make_directory(self, path: Path) -> None:
        self._directories.update((path, *path.parents))

    def names(self, directory: Path) -> list[str]:
        if directory not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(directory))
        inside = [path for path in (*self._seen, *self._directories) if path.parent == directory and path != directory]
        return sorted({path.name for path in inside})

    def create(self, path: Path) -> MemoryFile:
        self._called("create", path)
        if path in self._seen:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        node = _Node()
        self._do("create", path, path, node)
        return MemoryFile(self, path, node)

    def open(self, path: Path, *, writable: bool = False) -> MemoryFile:
        self.calls["open"] += 1
        node = self._seen.get(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return MemoryFile(self, path, node)

    def append(self, file: DiskFile, offset: int, buffers: Sequence[bytes]) -> None:
        memory_file = _file(file)
        data = b"".join(buffers)
        try:
            self._called("append", memory_file.path)
        except BaseException:
            memory_file.node.write(offset, data[: self.random.randint(0, len(data))])
            raise
        memory_file.node.write(offset, data)

    def sync(self, file: DiskFile) -> None:
        memory_file = _file(file)
        node = memory_file.node
        try:
            self._called("sync", memory_file.path)
        except OSError:
            node.adrift += node.unsynced
            node.unsynced.clear()
            raise
        for offset, data in node.unsynced:
            put(node.stable, offset, data)
        node.unsynced.clear()

    def sync_directory(self, path: Path) -> None:
        self._called("sync_directory", path)
        for operation, entry, target, node in self._unsynced:
            if entry.parent == path:
                _apply(self._stable, operation, entry, target, node)
        self._unsynced = [change for change in self._unsynced if change[1].parent != path]

    def read(self, file: DiskFile, offset: int, length_bytes: int) -> bytes:
        self.calls["read"] += 1
        self.calls["bytes read"] += length_bytes
        return bytes(_file(file).node.seen[offset : offset + length_bytes])

    def read_cached(self, file: DiskFile, offset: int, length_bytes: int) -> bytes | None:
        data = self.read(file, offset, length_bytes) if self.is_cached else b""
        return data if self.is_cached and len(data) == length_bytes else None

    def size_bytes(self, file: DiskFile) -> int:
        return len(_file(file).node.seen)

    def unlink(self, path: Path) -> None:
        self._called("unlink", path)
        if path in self._seen:
            self._do("unlink", path, path, None)

    def rename(self, path: Path, target: Path) -> None:
        self._called("rename", path)
        self._do("rename", path, target, None)

    def lock(self, path: Path) -> MemoryFile:
        if path in self.locks:
            raise LogLockedError(path)
        node = self._seen.setdefault(path, _Node())
        self._stable.setdefault(path, node)
        file = self.locks[path] = MemoryFile(self, path, node)
        return file

    def free_bytes(self, path: Path) -> int:
        return self.free

    def draw_marker(self) -> int:
        return self.random.getrandbits(32)

    def _called(self, operation: str, path: Path) -> None:
        self.calls[operation] += 1
        self.on_call(operation, path)

    def _do(self, operation: str, path: Path, target: Path, node: _Node | None) -> None:
        _apply(self._seen, operation, path, target, node)
        self._unsynced.append((operation, path, target, node))


def _apply(entries: dict[Path, _Node], operation: str, path: Path, target: Path, node: _Node | None) -> None:
    """One change of a directory; one whose predecessor was lost changes nothing."""
    if operation == "create":
        assert node is not None
        entries[path] = node
    elif operation == "unlink":
        entries.pop(path, None)
    elif path in entries:
        entries[target] = entries.pop(path)


def put(image: bytearray, offset: int, data: bytes) -> None:
    """Writes into a file's bytes, which grow with zeros where they are too short."""
    if len(image) < offset + len(data):
        image.extend(bytes(offset + len(data) - len(image)))
    image[offset : offset + len(data)] = data


def _file(file: DiskFile) -> MemoryFile:
    assert isinstance(file, MemoryFile)
    return file
