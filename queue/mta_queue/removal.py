"""Removal: segment files that nobody needs any more are deleted, or put into quarantine where something was damaged."""

from pathlib import Path

from mta_queue import segment
from mta_queue.catalog import Catalog
from mta_queue.disk import Disk
from mta_queue.quarantine import Quarantine
from mta_queue.reader import Reader


class Removal:
    """Of one log; the disk is waited for in the reader's threads."""

    def __init__(self, directory: Path, disk: Disk, catalog: Catalog, reader: Reader, quarantine: Quarantine) -> None:
        self._directory = directory
        self._disk = disk
        self._catalog = catalog
        self._reader = reader
        self._quarantine = quarantine
        self._under_way = self._stopped = False
        self.removed = 0
        """Segments that are gone."""

    def stop(self) -> None:
        """Nothing is begun any more."""
        self._stopped = True

    def sweep(self) -> None:
        """Has what may go removed; what becomes free by that follows. What fails is tried with the next call."""
        numbers = self._catalog.removable() if not (self._under_way or self._stopped) else []
        if not numbers:
            return
        self._under_way = True
        quarantine = self._quarantine
        kept = {number: quarantine.reasons_of(number) for number in numbers if self._catalog.segments[number].damaged}

        def remove() -> None:
            try:
                for number in numbers:
                    if number in kept:
                        quarantine.take(number, kept[number])
                    else:
                        self._disk.unlink(self._directory / segment.file_name(number))
                self._disk.sync_directory(self._directory)
                done = True
            except OSError:
                done = False
            self._reader.hand_over(lambda: finish(done))

        def finish(done: bool) -> None:
            self._under_way = False
            if done:
                for number in numbers:
                    self._catalog.remove(number)
                    self._reader.drop_file(number)
                    quarantine.forget(number)
                self.removed += len(numbers)
                self.sweep()

        self._reader.submit(remove)
