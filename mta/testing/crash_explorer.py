"""CrashExplorer: a random workload on a store, and after every step of its disk all manner of crashes.

A workload lives several lives on one RecordingDisk. When the disk has done a step, several disks are built as a crash
at this very moment could leave them; on each a store is opened and compared with the QueueModel, then again whenever
the workload's store has promised something more. Now and then what was opened has to work, too. A crash ends a life,
and the next one begins on what it left, so that crashes while a log is being opened are among them.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, cast

from mta.testing.eager_copying import copying_all_the_time
from mta.testing.memory_disk import MemoryDisk
from mta.testing.queue_model import (
    UNKNOWN,
    BrokenPromiseError,
    Event,
    ModelItem,
    QueueModel,
    Snapshot,
    expect,
    snapshot,
)
from mta.testing.recording_disk import CRASHES, KILL, NOTHING, Crash, RecordingDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue.store import Origin, Store

DIRECTORY = Path("/queue/3")
LIVES = 3
STEPS = 80  # of a life: with its disk's steps that each brings, some hundred crashes a seed
CHANCES = 2  # crashes tried after a step beside the two ends: a mere kill, and nothing unsynced kept
USED_AGAIN = 0.15  # how often what was found has to work as well
PATHS = ("append", "finish", "postpone", "move out", "arrive", "forget", "tell")

MakeStore = Callable[..., Store]


class CrashExplorer:
    """One seed: what happens, and every crash that is tried."""

    def __init__(
        self,
        seed: int,
        *,
        disk: RecordingDisk | None = None,
        make_store: MakeStore = Store,
        faults: float | None = None,
        durability: str | None = None,
    ) -> None:
        """`disk` and `make_store` are for those who test the explorer; `faults`: how often a call to the disk fails.
        What is None the seed decides."""
        self.random = Random(seed)
        self.choices = Random(seed + 1)
        """For the crashes, so that a change of their number leaves the workload as it is."""
        self.disk = disk if disk is not None else RecordingDisk(seed)
        self.model = QueueModel()
        self.cases = 0
        """Disks that were opened."""
        self.checks = 0
        self.copied_bytes = 0
        self.removed = 0
        """Segments that the workload's stores deleted."""
        self._make_store = make_store
        self._durability = durability or self.random.choice(("fsync", "fsync", "fsync", "fsync", "os"))
        self._faults = self.random.choice((0.0, 0.0, 0.1, 0.4)) if faults is None else faults
        self._segment_bytes_max = self.random.choice((1200, 2500, 5000))
        self._recent_bytes = self.random.choice((0, 3000, 1 << 20))  # the older segments are read by their indexes
        self._copies = self.random.random() < 0.5
        self._weights = [self.random.choice((0.3, 1, 1, 3)) for _ in PATHS]
        self._ids = 0
        self._here: list[tuple[Crash, Snapshot]] = []
        self._examined: dict[int, Snapshot] = {}

    # The workload.

    def run(self) -> None:
        """All lives; raises BrokenPromiseError with what led to it."""
        with copying_all_the_time() if self._copies else ExitStack():
            for life in range(LIVES):
                if life:
                    self._crash()
                self._begin()
                for _ in range(STEPS):
                    self._step()
                self.removed += self._store.segments_removed
                self.copied_bytes += self._store.copied_bytes

    def _begin(self) -> None:
        self.disk.on_step = self._explore
        self._loop = SteppedLoop()
        self._store = self._open(self.disk, self._loop)
        recovered = self._store.open()
        found = snapshot(self._store, recovered)
        self._check(KILL, found)
        self.model.go_on_with(found)
        self._store.start(cast(Any, self._loop))
        self.disk.on_call = self._may_fail

    def _open(self, disk: MemoryDisk, loop: SteppedLoop) -> Store:
        return self._make_store(
            DIRECTORY,
            disk=disk,
            durability=self._durability,
            segment_bytes_max=self._segment_bytes_max,
            jobs=loop.jobs,
            recent_bytes=self._recent_bytes,
        )

    def _may_fail(self, operation: str, path: Path) -> None:
        if self.random.random() < self._faults:
            raise OSError(5, "made up")

    def _crash(self) -> None:
        """The end of a life: of the process or of the machine."""
        self.disk.on_step = lambda: None
        crash = self.random.choice(self._crashes())
        if crash.killed:
            self.disk.kill()
        else:
            self.disk.lose_power(crash.loss(self.choices))
        self._here.clear()
        self._explore()

    def _step(self) -> None:
        chance = self.random.random()
        if chance < 0.25:
            self._loop.turn()
        elif chance < 0.5:
            self._loop.run_job()
        elif chance < 0.62:
            self._loop.wait(self.random.choice((0.006, 0.6, 1.1)))
        else:
            (path,) = self.random.choices(PATHS, self._weights)
            if path == "append":
                self._append()
            elif path == "tell":
                self._tell()
            elif path == "forget":
                self._forget()
            else:
                self._fate(path)

    def _append(self) -> None:
        self._ids += 1
        random, model = self.random, self.model
        parts = random.choice((1, 1, 1, 2, 5))
        origin = Origin(9, self._ids) if random.random() < 0.2 else None
        content = random.randbytes(random.choice((0, 10, 100, 700, 1500)))
        due_s = float(random.randint(0, 9))
        item = ModelItem(f"id-{self._ids}", b"meta-%d" % self._ids, content, parts, due_s, origin)

        def durable(seq: int) -> None:
            expect(model.items[seq] is item and not item.failed and not item.acknowledged, f"{seq} is durable twice")
            item.acknowledged = True
            self._promised(seq)

        def failed(error: OSError) -> None:
            expect(not item.acknowledged and not item.failed, "one append has two answers")
            item.failed = True
            item.excused = self._store.is_failing
            self._check_here()

        seq = self._store.append(item.item_id, item.meta, parts, content, durable, failed, origin, due_s)
        expect(seq > max(model.items, default=0), f"{seq} is given a second time")
        model.items[seq] = item
        if origin is None:
            model.events.append(Event(seq, "item", seq, tuple(range(parts)), b""))

    def _fate(self, path: str) -> None:
        store, random, model = self._store, self.random, self.model
        able = [seq for seq, item in model.items.items() if item.acknowledged and store.is_living(seq)]
        if not able:
            return
        seq = random.choice(able)
        item = model.items[seq]
        living = item.living()
        expect(store.living_parts(seq) == tuple(living), f"{seq} lives with {store.living_parts(seq)}, not {living}")
        chosen = tuple(sorted(random.sample(living, random.randint(1, len(living)))))
        number = store.mark_position() + 1
        note = b"note-%d" % number
        promised = random.choice((None, lambda: self._promised(number)))
        if path == "finish":
            store.finish(seq, chosen, note, promised)
            model.events.append(Event(number, "finished", seq, chosen, note))
            model.ended(number, seq, chosen)
        elif path == "postpone":
            due_s = float(random.randint(10, 99))
            said = note if random.random() < 0.7 else None
            store.postpone(seq, chosen, due_s, said)
            model.postponed(number, seq, chosen, due_s, said)
            if said is not None:
                model.events.append(Event(number, "postponed", seq, chosen, said))
        elif path == "move out":
            store.move_out(seq, chosen, lambda: self._promised(number))
            model.ended(number, seq, chosen)
        elif item.origin is not None and item.arrived is None:
            store.arrive(seq)
            item.arrived = number

    def _forget(self) -> None:
        able = [seq for seq, item in self.model.items.items() if self._store.is_living(seq) and item.forgotten is None]
        if not able:
            return
        seq = self.random.choice(able)
        item = self.model.items[seq]
        number = self._store.mark_position() + 1 if item.acknowledged else UNKNOWN

        def gone() -> None:
            item.forgotten = 0
            self._promised(0)

        item.forgotten = number
        self._store.forget(seq, gone)

    def _tell(self) -> None:
        position = self._store.mark_position()
        self.model.told = max(self.model.told, position)
        self._store.told(position)

    def _promised(self, number: int) -> None:
        self.model.durable(number)
        self._check_here()

    # The crashes.

    def _crashes(self) -> list[Crash]:
        if self._durability == "os":
            return [KILL]
        return [KILL, NOTHING, *self.choices.sample(CRASHES[2:], CHANCES)]

    def _explore(self) -> None:
        """Every crash that is tried at this step of the disk."""
        self._check_here()
        self._here.clear()
        for crash in self._crashes():
            disk = self.disk.after(crash, self.choices)
            key = disk.fingerprint()
            found = self._examined.get(key)
            if found is None:
                found = self._examined[key] = self._examine(crash, disk)
            self._here.append((crash, found))
        self._check_here()

    def _check_here(self) -> None:
        """The disks of this step again, now that more is promised."""
        for crash, found in self._here:
            self._check(crash, found)

    def _check(self, crash: Crash, found: Snapshot) -> None:
        self.checks += 1
        try:
            self.model.check(found)
        except BrokenPromiseError as error:
            raise self._explained(crash, error) from None

    def _examine(self, crash: Crash, disk: MemoryDisk) -> Snapshot:
        """What a store finds on this disk."""
        self.cases += 1
        try:
            loop = SteppedLoop()
            store = self._open(disk, loop)
            found = snapshot(store, store.open())
            if self.choices.random() < USED_AGAIN:
                self._use(store, disk, loop, found)
        except BrokenPromiseError as error:
            raise self._explained(crash, error) from None
        return found

    def _use(self, store: Store, disk: MemoryDisk, loop: SteppedLoop, found: Snapshot) -> None:
        """What was found is found again, also after the next power loss, and a store that was opened works."""
        again = disk.fork()
        if self._durability == "fsync":
            again.lose_power(NOTHING.loss(self.choices))
        other = self._open(again, SteppedLoop())
        second = snapshot(other, other.open())
        expect(second.living() == found.living(), "a second opening finds something else")
        expect(second.untold == found.untold, "a second opening has something else to tell")

        store.start(cast(Any, loop))
        ended = next(iter(found.waiting), None)
        acknowledged: list[int] = []
        new = store.append("new", b"meta", 2, b"content", acknowledged.append, _refused)
        if ended is not None:
            store.finish(ended, store.living_parts(ended), b"end", lambda: acknowledged.append(ended))
        store.told(store.mark_position())
        loop.settle()
        expect(acknowledged == [new] if ended is None else set(acknowledged) == {new, ended}, "the store does not work")
        disk.kill()
        third = self._open(disk, SteppedLoop())
        living = snapshot(third, third.open()).living()
        expect(new in living and living.pop(new)[0].item_id == "new", "what was appended after a crash is not found")
        kept = {seq: what for seq, what in found.living().items() if seq != ended}
        expect(living == kept, "what was found after a crash is another thing after the next one")

    def _explained(self, crash: Crash, error: BrokenPromiseError) -> BrokenPromiseError:
        steps = "\n  ".join(map(str, self.disk.record))
        return BrokenPromiseError(f"{error}\nafter: {crash.name}, at step {self.disk.steps} of the disk:\n  {steps}")


def _refused(error: OSError) -> None:
    raise BrokenPromiseError(f"the opened store refuses an item: {error}")
