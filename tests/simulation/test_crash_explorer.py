"""Every step of a random workload's disk, and the crashes that may come then. The explorer itself is tested, too: a
store or a disk that breaks the promise on purpose is found out."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from mta.testing.crash_explorer import CrashExplorer
from mta.testing.queue_model import BrokenPromiseError
from mta.testing.recording_disk import RecordingDisk
from mta_queue.catalog import Catalog
from mta_queue.committer import Committer
from mta_queue.disk import DiskFile
from mta_queue.inventory import NAME
from mta_queue.removal import Removal


def test_crashes(seed: int) -> None:
    """Whatever a crash leaves, nothing accepted is lost, nothing ended for certain comes back, and all is told."""
    CrashExplorer(seed).run()


class NoNames(RecordingDisk):
    """Says that a directory's names are on stable storage and does nothing for it."""

    def sync_directory(self, path: Path) -> None:
        self.record.clear()


class NoSyncs(RecordingDisk):
    """Says that a file's bytes are on stable storage and does nothing for it."""

    def sync(self, file: DiskFile) -> None:
        self.record.clear()


def broken(seeds: int, **choices: Any) -> Counter[str]:
    """What was found out in so many seeds, by the first words of it."""
    found: Counter[str] = Counter()
    for seed in range(seeds):
        disk = choices.get("disk")
        try:
            CrashExplorer(seed, **(choices | {"disk": disk(seed)} if disk else choices)).run()
        except BrokenPromiseError as error:
            found[str(error).split(maxsplit=1)[0]] += 1
    return found


@pytest.mark.parametrize("disk", [NoNames, NoSyncs])
def test_a_disk_that_lies_is_found_out(disk: Callable[[int], RecordingDisk]) -> None:
    """Names or bytes that are acknowledged before they are on stable storage are found lost."""
    assert broken(10, disk=disk, durability="fsync")["lost:"] >= 5


def test_a_store_that_forgets_refs_is_found_out() -> None:
    """A segment deleted while its fates are still needed lets the dead rise or what was said of the living be lost."""
    removable = Catalog.removable

    def too_early(catalog: Catalog) -> list[int]:
        for segment in catalog.segments.values():
            segment.refs.clear()
        return removable(catalog)

    with patch.object(Catalog, "removable", too_early):
        found = broken(25)

    assert sum(found.values()) >= 3


def test_a_journal_that_forgets_what_failed_is_found_out() -> None:
    """Where no `forgotten` is written for the items of a failed group, what was refused is found again."""
    rescue = Committer._rescue

    def careless(committer: Committer, group: Any) -> None:
        appends, group.appends = group.appends, []
        rescue(committer, group)
        group.appends = appends

    with patch.object(Committer, "_rescue", careless):
        found = broken(25, faults=0.1)

    assert sum(found.values()) >= 3


class NoNewLists(RecordingDisk):
    """Says that the list of segments has its name on stable storage and does nothing for it."""

    is_new = False

    def rename(self, path: Path, target: Path) -> None:
        super().rename(path, target)
        self.is_new = target.name == NAME

    def sync_directory(self, path: Path) -> None:
        if not self.is_new:
            super().sync_directory(path)
        self.is_new = False


def test_a_list_that_lies_is_found_out() -> None:
    """A segment deleted while a list that a crash may leave still has it seems to be lost."""
    with patch.object(Removal, "_list"):
        never = broken(10)
    late = broken(10, disk=NoNewLists, durability="fsync")

    assert never["a"] >= 5
    assert late["a"] >= 2


def test_the_explorer_gets_around() -> None:
    """The seeds reach what they are for: deleted segments, failures, and many different disks."""
    explorers = [CrashExplorer(seed) for seed in range(20)]
    for explorer in explorers:
        explorer.run()

    assert sum(explorer.cases for explorer in explorers) > 1000
    assert sum(explorer.removed for explorer in explorers) > 20
    assert sum(explorer.copied_bytes for explorer in explorers) > 1000
    steps = {step.operation for explorer in explorers for step in explorer.disk.record}
    assert steps == {"create", "write", "sync", "sync directory", "unlink", "rename"}
    assert any(step.failed for explorer in explorers for step in explorer.disk.record)
