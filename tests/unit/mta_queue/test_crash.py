"""Random workloads against a model: the disk fails, the process is killed, the power is lost, at any call.

Every run is a seed: a failure names it, and `pytest "tests/unit/mta_queue/test_crash.py::TEST[SEED]"` plays it again.
"""

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from mta.testing.memory_disk import MemoryDisk, PowerLost
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import compaction, compactor, copying, opening
from mta_queue.store import Origin, Recovered, Store

DIRECTORY = Path("/queue/3")
LATER = 1 << 60  # the number of a fate whose record is not appended yet


class Part:
    """What was asked for one part: its states in order, each with the number of the record that says so."""

    def __init__(self, due_s: float) -> None:
        self.states: list[tuple[int, float, bytes]] = [(0, due_s, b"")]
        self.ended: int | None = None

    def allowed(self, settled: int) -> list[tuple[float, bytes]]:
        """(due_s, note) that may be found: the last one that is certain, and those asked for after it."""
        certain = max((at for at, state in enumerate(self.states) if state[0] <= settled), default=0)
        return [(due_s, note) for _, due_s, note in self.states[certain:]]


class Item:
    """What was handed in, and what is known of its fate."""

    def __init__(self, item_id: str, meta: bytes, content: bytes, parts: int, due_s: float, origin: Origin | None):
        self.item_id, self.meta, self.content, self.origin = item_id, meta, content, origin
        self.parts = [Part(due_s) for _ in range(parts)]
        self.acknowledged = self.failed = self.gone = False
        self.arrived: int | None = None
        self.forgotten: int | None = None


class Run:
    """One log over several lives of its process."""

    def __init__(self, seed: int, durability: str = "fsync", faults: float = 0.0) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.disk = MemoryDisk(seed)
        self.durability = durability
        self.faults = faults
        self.items: dict[int, Item] = {}
        self.events: list[tuple[int, str, int, tuple[int, ...], bytes]] = []
        self.told = 0
        self.ids = 0
        self.seen: Counter[str] = Counter()
        self.begin()

    def begin(self) -> Recovered:
        self.loop = SteppedLoop()
        self.store = Store(
            DIRECTORY,
            disk=self.disk,
            durability=cast(Any, self.durability),
            segment_bytes_max=3000,
            jobs=self.loop.jobs,
            # Of what is not recent the index is read: in every second run of all that has one.
            recent_bytes=opening.RECENT_BYTES if self.seed % 2 else 0,
        )
        recovered = self.store.open()
        self.store.start(cast(Any, self.loop))
        return recovered

    # One life.

    def live(self, steps: int) -> None:
        """Random calls until the steps or the calls to the disk are used up."""
        calls_left = self.random.choice((self.random.randint(1, 60), self.random.randint(1, 1000), 1 << 30))
        only = self.random.choice(("", "", "unlink"))
        if only:
            calls_left = self.random.randint(1, 5)

        def on_call(operation: str, path: Path) -> None:
            nonlocal calls_left
            calls_left -= not only or operation == only
            if calls_left < 0:
                self.seen[f"end in {operation}"] += 1
                raise PowerLost
            if operation not in ("unlink", "rename") and self.random.random() < self.faults:
                self.seen[f"fault in {operation}"] += 1
                raise OSError(5, "made up")

        self.disk.on_call = on_call
        try:
            for _ in range(steps):
                self.step()
        except PowerLost:
            pass

    def step(self) -> None:
        choice = self.random.random()
        if choice < 0.25:
            self.append()
        elif choice < 0.45:
            self.loop.turn()
        elif choice < 0.65:
            self.loop.run_job()
        elif choice < 0.70:
            position = self.store.mark_position()
            self.store.told(position)
            self.told = max(self.told, position)
        elif choice < 0.72:
            self.loop.wait(0.6)
        elif choice < 0.74:
            self.forget_anything()
        else:
            self.fate()

    def append(self) -> None:
        self.ids += 1
        parts = self.random.choice((1, 1, 1, 2, 5))
        origin = Origin(9, self.ids) if self.random.random() < 0.15 else None
        content = self.random.randbytes(self.random.choice((0, 10, 700, 1500)))
        item = Item(f"id-{self.ids}", b"meta-%d" % self.ids, content, parts, float(self.random.randint(0, 9)), origin)

        def durable(seq: int) -> None:
            assert self.items[seq] is item
            assert not item.failed
            item.acknowledged = True

        def failed(error: OSError) -> None:
            assert not item.acknowledged
            item.failed = True

        seq = self.store.append(
            item.item_id, item.meta, parts, content, durable, failed, origin, item.parts[0].states[0][1]
        )
        assert seq not in self.items
        assert seq > max(self.items, default=0)
        self.items[seq] = item
        if origin is None:
            self.events.append((seq, "item", seq, tuple(range(parts)), b""))

    def fate(self) -> None:
        able = [seq for seq, item in self.items.items() if item.acknowledged and self.store.is_living(seq)]
        if not able:
            return
        seq = self.random.choice(able)
        item = self.items[seq]
        living = [number for number, part in enumerate(item.parts) if part.ended is None]
        assert self.store.living_parts(seq) == tuple(living)
        chosen = tuple(sorted(self.random.sample(living, self.random.randint(1, len(living)))))
        number = self.store.mark_position() + 1
        note = b"note-%d" % number
        choice = self.random.random()
        if choice < 0.5:
            self.store.finish(seq, chosen, note)
            self.events.append((number, "finished", seq, chosen, note))
            self.end(item, chosen, number)
        elif choice < 0.8:
            due_s = float(self.random.randint(10, 99))
            self.store.postpone(seq, chosen, due_s, note)
            self.events.append((number, "postponed", seq, chosen, note))
            for part in chosen:
                item.parts[part].states.append((number, due_s, note))
        elif choice < 0.9:
            self.store.move_out(seq, chosen, lambda: self.end(item, chosen, 0))
            self.end(item, chosen, number)
        elif item.origin is not None and item.arrived is None:
            self.store.arrive(seq)
            item.arrived = number

    def forget_anything(self) -> None:
        able = [seq for seq in self.items if self.store.is_living(seq)]
        if able:
            seq = self.random.choice(able)
            item = self.items[seq]

            def gone() -> None:
                item.gone = True

            if item.forgotten is None:
                item.forgotten = self.store.mark_position() + 1 if item.acknowledged else LATER
                self.store.forget(seq, gone)

    def end(self, item: Item, parts: tuple[int, ...], number: int) -> None:
        for part in parts:
            item.parts[part].ended = number

    # What is found after it.

    def crash(self) -> None:
        """Kills the process or the machine, opens the log again and compares."""
        settled = self.store._journal.settled
        was_failing = bool(self.store._journal._committer.carry)
        self.seen["segments removed"] += self.store.segments_removed
        self.seen["failures"] += self.store.failures
        self.seen["bytes copied"] += self.store.copied_bytes
        if self.durability == "os" or self.random.random() < 0.4:
            self.disk.kill()
        else:
            self.disk.lose_power()
        recovered = self.begin()
        self.compare(recovered, settled, was_failing)

    def compare(self, recovered: Recovered, settled: int, was_failing: bool) -> None:
        store = self.store
        waiting = dict(recovered.waiting)
        arriving = {seq: origin for seq, _, origin in recovered.arriving}
        assert not waiting.keys() & arriving.keys()
        assert (waiting.keys() | arriving.keys()) <= self.items.keys()
        for seq, item in self.items.items():
            found = set(store.living_parts(seq))
            asked = {number for number, part in enumerate(item.parts) if part.ended is None}
            certain = {number for number, part in enumerate(item.parts) if part.ended is None or part.ended > settled}
            if item.acknowledged and item.forgotten is None:
                assert found >= asked, f"lost: parts {asked - found} of {seq}"
            assert found <= certain, f"risen: parts {found - certain} of {seq}"
            if item.gone or (item.forgotten is not None and item.forgotten <= settled):
                assert not found, f"{seq} was forgotten"
            if item.failed and not was_failing:
                assert not found, f"{seq} had failed and came back"
            if found:
                self.compare_living(seq, item, waiting, arriving, settled)
        self.compare_untold(recovered, settled)
        self.go_on_with(recovered)

    def compare_living(self, seq: int, item: Item, waiting: dict[int, Any], arriving: dict[int, Origin], settled: int):
        self.seen["living found"] += 1
        loaded = self.store.load(seq)
        assert loaded is not None
        assert (loaded.seq, loaded.item_id, loaded.meta) == (seq, item.item_id, item.meta)
        for part, due_s, note in loaded.parts:
            assert (due_s, note) in item.parts[part].allowed(settled)
        contents: list[bytes | None] = []
        self.store.content_soon(seq, contents.append)
        self.loop.settle()
        assert contents == [item.content]
        if seq in waiting:
            assert waiting[seq] == tuple((part, due_s) for part, due_s, _ in loaded.parts)
            assert item.origin is None or item.arrived is not None
        else:
            assert arriving[seq] == item.origin
            assert item.arrived is None or item.arrived > settled

    def compare_untold(self, recovered: Recovered, settled: int) -> None:
        numbers = {(kind, seq, parts, note): number for number, kind, seq, parts, note in self.events}
        found = [numbers[one.kind, one.seq, one.parts, one.note] for one in recovered.untold]
        assert found == sorted(set(found)), "told again in order, each once"
        for one in recovered.untold:
            assert one.meta == self.items[one.seq].meta
        for number, kind, seq, parts, _ in self.events:
            item = self.items[seq]
            if number <= self.told or (kind == "item" and (item.forgotten is not None or item.failed)):
                continue
            if item.acknowledged if kind == "item" else number <= settled:
                assert number in found, f"never told: {kind} of {seq} {parts}"
        self.events = [event for event in self.events if event[0] in found]
        self.seen["untold found"] += len(found)

    def go_on_with(self, recovered: Recovered) -> None:
        """What was uncertain is now certain."""
        arriving = {seq for seq, _, _ in recovered.arriving}
        for seq, item in list(self.items.items()):
            living = self.store.living_parts(seq)
            if not living:
                for part in item.parts:
                    part.ended = 0
                item.acknowledged, item.gone, item.forgotten = False, True, 0
                continue
            loaded = self.store.load(seq)
            assert loaded is not None
            item.acknowledged, item.failed, item.gone, item.forgotten = True, False, False, None
            item.arrived = None if seq in arriving else 0
            for number, part in enumerate(item.parts):
                part.ended = None if number in living else 0
            for number, due_s, note in loaded.parts:
                item.parts[number].states = [(0, due_s, note)]


@pytest.mark.parametrize("seed", range(40))
def test_crash_at_any_call(seed: int) -> None:
    """After a kill or a power loss at any call nothing accepted is lost and nothing ended for certain comes back."""
    run = Run(seed)

    for _ in range(6):
        run.live(steps=400)
        run.crash()


@pytest.mark.parametrize("seed", [*range(100, 140), 1012, 1016, 1064])  # the last: a failed sync, a kill, a power loss
def test_crash_with_a_failing_disk(seed: int) -> None:
    """The same holds on a disk whose writes, syncs and new files fail now and then."""
    run = Run(seed, faults=0.1)

    for _ in range(6):
        run.live(steps=400)
        run.crash()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be copied is, all the time."""
    for name, value in {"EARLY": 0, "PRESSING": 0, "PRESSING_COST_MAX": 1, "GAIN_MIN": 0, "YOUNG_SEGMENTS": 1}.items():
        monkeypatch.setattr(compaction, name, value)
    monkeypatch.setattr(copying, "PRESSING_COST_MAX", 2)
    monkeypatch.setattr(copying, "SLICE_ITEMS", 2)
    monkeypatch.setattr(compactor, "LOOK_S", 0.5)
    monkeypatch.setattr(compactor, "STUCK_S", 0)
    monkeypatch.setattr(compaction, "FAILED_WAIT_S", 0)
    monkeypatch.setattr(compaction, "IDLE_BYTES_S", 1 << 40)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("seed", range(400, 430))
def test_crash_while_copying(seed: int) -> None:
    """The same holds while everything is copied again and again, on a disk that fails now and then or never."""
    run = Run(seed, faults=0.05 if seed % 2 else 0.0)

    for _ in range(6):
        run.live(steps=400)
        run.crash()


@pytest.mark.usefixtures("eager")
def test_the_runs_copy() -> None:
    """Rounds are made and ended by crashes at every step of theirs."""
    ended: Counter[str] = Counter()
    copied = 0
    for seed in range(430, 445):
        run = Run(seed)
        for _ in range(4):
            run.live(steps=400)
            ended.update(path.suffix for path in run.disk.paths())
            run.crash()
        copied += run.seen["bytes copied"]

    assert copied > 20_000
    assert ended[".copying"] > 0, "crashes that left a copy half done"


@pytest.mark.parametrize("seed", range(200, 220))
def test_kill_with_durability_os(seed: int) -> None:
    """Without syncs the same holds for a killed process; a power loss is another matter."""
    run = Run(seed, durability="os", faults=0.03)

    for _ in range(6):
        run.live(steps=400)
        run.crash()


def test_the_runs_reach_what_they_are_for() -> None:
    """The random runs do delete segments, meet faults in every call and end in every call."""
    seen: Counter[str] = Counter()
    for seed in range(300, 330):
        run = Run(seed, faults=0.05 if seed % 2 else 0.0)
        for _ in range(4):
            run.live(steps=400)
            run.crash()
        seen.update(run.seen)

    assert {key for key in seen if key.startswith("end in")} == {
        f"end in {call}" for call in ("append", "create", "sync", "sync_directory", "unlink", "rename")
    }
    assert {key for key in seen if key.startswith("fault in")} == {
        f"fault in {call}" for call in ("append", "create", "sync", "sync_directory")
    }
    assert min(seen["segments removed"], seen["living found"], seen["untold found"], seen["failures"]) > 100
