"""QueueModel: what a store was asked and has promised, and whether what a crash left keeps the promise.

It believes only what the store's face said: a callback that came, a call that was made. Every fate is known by its
record's number; `certain` is the number up to which the promise (queue/README.md) says that fates are on stable
storage. Between what is certain and what was merely asked for, a crash may leave either.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from mta_queue.recovery import FILES
from mta_queue.store import Loaded, Origin, Recovered, Store, Untold

LOST_FOR_CERTAIN = tuple(row.label for row in FILES.rows if "listed" in row.when and row.report)
UNKNOWN = 1 << 60  # the number of a fate whose record is not appended yet


class BrokenPromiseError(AssertionError):
    """What was found after a crash is not what was promised."""


def expect(condition: object, text: str) -> None:
    """Raises BrokenPromiseError with the text where the condition does not hold."""
    if not condition:
        raise BrokenPromiseError(text)


class Snapshot(NamedTuple):
    """All that an opened store tells of what it found."""

    waiting: dict[int, tuple[tuple[int, float], ...]]
    arriving: dict[int, tuple[str, Origin]]
    loaded: dict[int, Loaded]
    contents: dict[int, bytes | None]
    untold: list[Untold]

    def living(self) -> dict[int, Any]:
        """What lives, without what was told or not: the same before and after a reopening that changes nothing."""
        return {seq: (self.loaded[seq], self.contents[seq], seq in self.waiting) for seq in self.loaded}


def snapshot(store: Store, recovered: Recovered) -> Snapshot:
    """What is found in a store that was just opened; raises BrokenPromiseError where it contradicts itself."""
    waiting: dict[int, tuple[tuple[int, float], ...]] = {}
    for seq, *_, parts in recovered.waiting:
        expect(seq not in waiting, f"{seq} waits twice")
        waiting[seq] = tuple(parts)
    arriving = {}
    for seq, item_id, origin in recovered.arriving:
        expect(seq not in waiting and seq not in arriving, f"{seq} arrives twice or waits as well")
        arriving[seq] = item_id, origin
    loaded, contents = {}, {}
    for seq in (*waiting, *arriving):
        found = store.load(seq)
        if found is None:
            raise BrokenPromiseError(f"{seq} lives and its meta cannot be read")
        loaded[seq] = found
        contents[seq] = store.content_now(seq)
        expect(tuple(part for part, _, _ in found.parts) == store.living_parts(seq), f"{seq} has two sets of parts")
        expect(
            seq in arriving or waiting[seq] == tuple((part, due_s) for part, due_s, _ in found.parts),
            f"{seq} waits for {waiting.get(seq)} and is loaded with {found.parts}",
        )
    expect(sorted(store.seqs()) == sorted(loaded), f"{list(store.seqs())} live and {sorted(loaded)} were recovered")
    expect(len({one.item_id for one in loaded.values()}) == len(loaded), "an id is there twice")
    counted = (len(loaded), sum(len(one.parts) for one in loaded.values()))
    expect((store.items, store.parts_living) == counted, f"{store.items} items, {store.parts_living} parts: {counted}")
    sealed = [line for line in recovered.set_aside if line.endswith("damaged") and "never acknowledged" not in line]
    expect(not sealed, f"a crash damages nothing, and yet: {sealed}")
    lost = [line for line in recovered.set_aside if line.endswith(LOST_FOR_CERTAIN)]
    expect(not lost, f"a crash takes no file, and yet: {lost}")
    return Snapshot(waiting, arriving, loaded, contents, recovered.untold)


class ModelPart:
    """What was asked for one part: its states in order, each with the number of the record that says so."""

    def __init__(self, due_s: float) -> None:
        self.states: list[tuple[int, float, bytes | None]] = [(0, due_s, b"")]
        """The third is the note, None where the one before stays."""
        self.ended: int | None = None

    def allowed(self, certain: int) -> set[tuple[float, bytes]]:
        """(due_s, note) that may be found: what the last certain state says, and any one asked for after it, for of
        several records that are not certain each may be lost alone."""
        found: set[tuple[float, bytes]] = set()
        for number, due_s, note in self.states:
            new = {(due_s, kept) for _, kept in found} if note is None else {(due_s, note)}
            found = new if number <= certain else found | new
        return found


class ModelItem:
    """What was handed in, and what is known of its fate."""

    def __init__(self, item_id: str, meta: bytes, content: bytes, parts: int, due_s: float, origin: Origin | None):
        self.item_id, self.meta, self.content, self.origin = item_id, meta, content, origin
        self.parts = [ModelPart(due_s) for _ in range(parts)]
        self.acknowledged = False
        self.failed = False
        self.excused = False
        """It failed on a disk that then refused the record of this as well, and has not worked since."""
        self.arrived: int | None = None
        self.forgotten: int | None = None

    def living(self) -> list[int]:
        """Parts for which no end was asked."""
        return [number for number, part in enumerate(self.parts) if part.ended is None]


class Event(NamedTuple):
    """Something that the event log has to hear of."""

    number: int
    kind: str
    seq: int
    parts: tuple[int, ...]
    note: bytes


class QueueModel:
    """What one log must hold."""

    def __init__(self) -> None:
        self.items: dict[int, ModelItem] = {}
        self.events: list[Event] = []
        self.certain = 0
        self.told = 0

    # What was asked and answered.

    def durable(self, number: int) -> None:
        """The store said that all up to this number is on stable storage; so its disk works again."""
        self.certain = max(self.certain, number)
        for item in self.items.values():
            item.excused = False

    def postponed(self, number: int, seq: int, parts: Iterable[int], due_s: float, note: bytes | None) -> None:
        """A postponement was asked for; without a note the last one stays, and there is nothing to tell."""
        for part in parts:
            self.items[seq].parts[part].states.append((number, due_s, note))

    def ended(self, number: int, seq: int, parts: Iterable[int]) -> None:
        """A final fate was asked for."""
        for part in parts:
            self.items[seq].parts[part].ended = number

    # What was found.

    def check(self, found: Snapshot) -> None:
        """Raises BrokenPromiseError where something is lost, has risen, or is not what it was."""
        expect(found.loaded.keys() <= self.items.keys(), f"unheard of: {found.loaded.keys() - self.items.keys()}")
        for seq, item in self.items.items():
            loaded = found.loaded.get(seq)
            parts = {part for part, _, _ in loaded.parts} if loaded is not None else set()
            if item.acknowledged and item.forgotten is None:
                expect(parts.issuperset(item.living()), f"lost: parts {set(item.living()) - parts} of {seq}")
            may = {n for n, part in enumerate(item.parts) if part.ended is None or part.ended > self.certain}
            expect(parts <= may, f"risen: parts {parts - may} of {seq} were ended for certain")
            expect(not parts or item.forgotten is None or item.forgotten > self.certain, f"{seq} was forgotten")
            expect(not parts or not item.failed or item.excused, f"{seq} had failed and was found")
            if loaded is not None:
                self._check_living(seq, item, loaded, found)
        self._check_untold(found.untold)

    def _check_living(self, seq: int, item: ModelItem, loaded: Loaded, found: Snapshot) -> None:
        expect((loaded.item_id, loaded.meta) == (item.item_id, item.meta), f"{seq} has another id or meta")
        expect(found.contents[seq] == item.content, f"{seq} has another content or none")
        for part, due_s, note in loaded.parts:
            allowed = item.parts[part].allowed(self.certain)
            expect((due_s, note) in allowed, f"part {part} of {seq} is due at {due_s} ({note!r}), not {allowed}")
        if seq in found.waiting:
            expect(item.origin is None or item.arrived is not None, f"{seq} waits and was not released")
        else:
            expect(found.arriving[seq] == (item.item_id, item.origin), f"{seq} arrives from {found.arriving[seq]}")
            expect(item.arrived is None or item.arrived > self.certain, f"{seq} was released for certain and arrives")

    def _check_untold(self, untold: list[Untold]) -> None:
        numbers = {(kind, seq, parts, note): number for number, kind, seq, parts, note in self.events}
        found = []
        for one in untold:
            number = numbers.get((one.kind, one.seq, one.parts, one.note))
            if number is None:
                raise BrokenPromiseError(f"untold and never asked for: {one}")
            expect(one.meta == self.items[one.seq].meta, f"told with another meta: {one}")
            found.append(number)
        expect(found == sorted(set(found)), f"not told in order, each once: {found}")
        there = set(found)
        for number, kind, seq, parts, _ in self.events:
            item = self.items[seq]
            if kind == "item" and item.failed and not item.excused:
                expect(number not in there, f"{seq} had failed and is told of")
            elif number > self.told and not (kind == "item" and (item.forgotten is not None or item.failed)):
                sure = item.acknowledged if kind == "item" else number <= self.certain
                expect(not sure or number in there, f"never told: {kind} of {seq} {parts}")

    # Another life.

    def go_on_with(self, found: Snapshot) -> None:
        """The log was opened again and this was found: what was uncertain is now certain."""
        numbers = {(kind, seq, parts, note): number for number, kind, seq, parts, note in self.events}
        told_again = {numbers[one.kind, one.seq, one.parts, one.note] for one in found.untold}
        self.events = [event for event in self.events if event.number in told_again]
        for seq, item in self.items.items():
            item.acknowledged, item.failed, item.excused = True, False, False
            loaded = found.loaded.get(seq)
            states = {part: (due_s, note) for part, due_s, note in loaded.parts} if loaded is not None else {}
            item.forgotten = None if states else 0
            item.arrived = None if seq in found.arriving else 0
            for number, part in enumerate(item.parts):
                part.ended = None if number in states else 0
                if number in states:
                    part.states = [(0, *states[number])]
