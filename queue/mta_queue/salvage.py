"""Salvage: reading a file of which the disk cannot give some blocks.

What cannot be read is filled, so that the checksums say which records are lost; all others are found as if nothing had
happened. A disk that gives next to nothing is another matter: there the error is the answer.
"""

import errno
from collections.abc import Iterator

from mta_queue.disk import DiskFile, Source

BLOCK_BYTES = 4096  # what a disk loses together
BLOCKS_LOST_MAX = 256  # of one file; each may take the system seconds of trying
FILLING = 0xFF  # zeros would look like a file that was never begun


class Salvage:
    """A `Source` that goes on where the other one fails with EIO. One for each file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lost: set[int] = set()

    @property
    def blocks_lost(self) -> int:
        return len(self._lost)

    def size_bytes(self, file: DiskFile) -> int:
        return self._source.size_bytes(file)

    def read(self, file: DiskFile, offset: int, length_bytes: int) -> bytes:
        """Raises OSError where the error is another one, or too much is lost."""
        if not self._lost:
            try:
                return self._source.read(file, offset, length_bytes)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
        blocks = self._blocks(file, offset, length_bytes)
        return b"".join([data if data is not None else bytes((FILLING,)) * length for _, length, data in blocks])

    def pieces(self, file: DiskFile, offset: int, length_bytes: int) -> list[tuple[int, bytes]]:
        """What can be read of that stretch: (offset, bytes). Raises OSError as `read`."""
        before = len(self._lost)
        data = self.read(file, offset, length_bytes)
        if not self._lost and not before:
            return [(offset, data)]
        blocks = self._blocks(file, offset, length_bytes)
        return [(at, block) for at, _, block in blocks if block is not None]

    def _blocks(self, file: DiskFile, offset: int, length_bytes: int) -> Iterator[tuple[int, int, bytes | None]]:
        """(offset, length, bytes), None in place of the bytes where they cannot be read."""
        end = min(offset + length_bytes, self._source.size_bytes(file))
        while offset < end:
            block = offset // BLOCK_BYTES
            until = min(end, (block + 1) * BLOCK_BYTES)
            yield offset, until - offset, self._block(file, block, offset, until - offset)
            offset = until

    def _block(self, file: DiskFile, block: int, offset: int, length_bytes: int) -> bytes | None:
        if block in self._lost:
            return None
        try:
            return self._source.read(file, offset, length_bytes)
        except OSError as error:
            self._lost.add(block)  # not asked for again: every time it may take seconds
            if error.errno != errno.EIO or len(self._lost) > BLOCKS_LOST_MAX:
                raise
            return None
