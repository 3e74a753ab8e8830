"""Removal: segment files that nobody needs any more are deleted, or put into quarantine where something was damaged.

First they are taken off the inventory, which is kept here for that reason: a list must be on stable storage before a
file goes, and says more as soon as there are more.
"""

from pathlib import Path

from mta_queue import segment
from mta_queue.catalog import Catalog
from mta_queue.disk import Disk
from mta_queue.inventory import Inventory
from mta_queue.quarantine import Quarantine
from mta_queue.reader import Reader

Stable = tuple[list[tuple[int, int]], int]
"""(number, marker) of the segments that must be there, and up to which number nothing else is."""


class Removal:
    """Of one log; the disk is waited for in the reader's threads."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        catalog: Catalog,
        reader: Reader,
        quarantine: Quarantine,
        inventory: Inventory,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._catalog = catalog
        self._reader = reader
        self._quarantine = quarantine
        self._inventory = inventory
        self._under_way = self._stopped = False
        self._seen = (0, 0)
        """What the catalog said when it was last looked at for the inventory."""
        self._listed: Stable | None = None
        """None: no list is there, or not this life's."""
        self._going: set[int] = set()
        """Whose removal was begun: their files may be gone, whatever was said of it, and are not listed again."""
        self.removed = 0
        """Segments that are gone."""

    def stop(self) -> None:
        """Nothing is begun any more."""
        self._stopped = True

    def list_all(self) -> None:
        """For the end of a log's life: blocks."""
        try:
            self._inventory.write(*self._stable())
        except OSError:
            pass  # what was listed before is there as well

    def sweep(self) -> None:
        """Has what may go removed; what becomes free by that follows. What fails is tried with the next call."""
        catalog = self._catalog
        if self._under_way or self._stopped:
            return
        numbers = catalog.removable()
        now = catalog.changes, catalog.anchor
        if not numbers and now == self._seen:
            return
        self._seen = now
        self._going.update(numbers)
        stable = self._stable()
        if not numbers and stable == self._listed:
            return
        self._under_way = True
        quarantine = self._quarantine
        kept = {number: quarantine.reasons_of(number) for number in numbers if catalog.segments[number].damaged}

        is_listed = True

        def remove() -> None:
            nonlocal is_listed
            try:
                is_listed = self._list(stable, is_safe=not numbers)
                for number in numbers:
                    if number in kept:
                        quarantine.take(number, kept[number])
                    else:
                        self._disk.unlink(self._directory / segment.file_name(number))
                if numbers:
                    self._disk.sync_directory(self._directory)
                done = True
            except OSError:
                done = False
            self._reader.hand_over(lambda: finish(done))

        def finish(done: bool) -> None:
            self._under_way = False
            if done:
                self._listed = stable if is_listed else None
                for number in numbers:
                    catalog.remove(number)
                    self._going.discard(number)
                    self._reader.drop_file(number)
                    quarantine.forget(number)
                self.removed += len(numbers)
                self.sweep()

        self._reader.submit(remove)

    def _stable(self) -> Stable:
        return [each for each in self._catalog.stable() if each[0] not in self._going], self._catalog.anchor

    def _list(self, stable: Stable, *, is_safe: bool) -> bool:
        """`is_safe`: the last list may hold as well. Else, where the disk takes no other, none may be left: False."""
        try:
            self._inventory.write(*stable)
        except OSError:
            if is_safe:
                raise
            self._inventory.drop()
            return False
        return True
