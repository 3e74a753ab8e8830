"""The store's face: items in, fates, loading back, opening again."""

import gc
from pathlib import Path
from typing import Any, cast

import pytest

from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue import reader, record, segment
from mta_queue.quarantine import held
from mta_queue.record import FILE_HEADER_BYTES, FileHeader
from mta_queue.store import Loaded, LogFormatError, LogLockedError, Origin, PartState, Recovered, Store

DIRECTORY = Path("/queue/4")


class Rig:
    """A store on a memory disk."""

    def __init__(self, disk: MemoryDisk | None = None, **options: Any) -> None:
        self.loop = SteppedLoop()
        self.disk = disk or MemoryDisk()
        options.setdefault("fates_wait_s", 0.0)
        self.store = Store(DIRECTORY, disk=self.disk, jobs=self.loop.jobs, **options)
        self.recovered: Recovered = self.store.open()
        self.store.start(cast(Any, self.loop))
        self.loop.settle()

    def put(self, item_id: str = "id", parts: int = 1, content: bytes = b"content", **more: Any) -> int:
        """Appends an item and waits until it is durable."""
        durable: list[int] = []
        seq = self.store.append(item_id, b"meta of " + item_id.encode(), parts, content, durable.append, _fail, **more)
        self.loop.settle()
        assert durable == [seq]
        return seq

    def content(self, seq: int) -> bytes | None:
        got: list[bytes | None] = []
        self.store.content_soon(seq, got.append)
        self.loop.settle()
        assert len(got) == 1
        return got[0]

    def again(self) -> "Rig":
        """The process was killed and started again."""
        self.loop.settle()
        self.disk.kill()
        return Rig(self.disk)

    def tell_all(self) -> None:
        self.store.told(self.store.mark_position())
        self.loop.settle()


def _fail(error: OSError) -> None:
    raise error


def test_load() -> None:
    """An item comes back with its living parts, their due times and their notes."""
    rig = Rig()
    seq = rig.put("one", parts=4, due_s=50.0)
    rig.store.finish(seq, (1,), b"done")
    rig.store.postpone(seq, (0, 2), 99.0, b"later")

    expected = Loaded(
        seq,
        "one",
        b"meta of one",
        [PartState(0, 99.0, b"later"), PartState(2, 99.0, b"later"), PartState(3, 50.0, b"")],
    )

    assert rig.store.load(seq) == expected
    assert rig.again().store.load(seq) == expected


def test_load_soon() -> None:
    """Many are read in one job, in the order asked for; what died meanwhile is left out."""
    rig = Rig()
    seqs = [rig.put(f"id-{number}") for number in range(5)]
    rig = rig.again()
    got: list[list[Loaded]] = []

    rig.store.load_soon([seqs[3], seqs[1], 777, seqs[2], seqs[0]], got.append)
    rig.store.finish(seqs[1], (0,), b"")
    rig.loop.settle()

    assert [[one.item_id for one in loaded] for loaded in got] == [["id-3", "id-2", "id-0"]]


def test_load_soon_takes_what_is_true_when_it_is_done() -> None:
    """Parts and notes are those of the moment of the callback, not of the call."""
    rig = Rig()
    seq = rig.put(parts=2)
    got: list[list[Loaded]] = []

    rig.store.load_soon([seq], got.append)
    rig.store.finish(seq, (0,), b"")
    rig.loop.settle()

    assert [part.part for part in got[0][0].parts] == [1]


def test_not_durable_yet() -> None:
    """An item that is not durable lives, but is neither loaded nor read."""
    rig = Rig()
    seq = rig.store.append("id", b"", 1, b"content", lambda seq: None, _fail)

    assert rig.store.is_living(seq)
    assert rig.store.load(seq) is None
    assert rig.store.content_now(seq) is None
    assert rig.content(777) is None
    assert rig.store.content_size(seq) == 7


def test_content_now_and_soon() -> None:
    """Content comes at once where it is in memory, else in a thread."""
    rig = Rig()
    seq = rig.put(content=b"the content")
    empty = rig.put(content=b"")

    assert rig.store.content_now(seq) == b"the content"
    assert rig.store.content_now(empty) == b""
    rig.disk.is_cached = False
    assert rig.store.content_now(seq) is None
    assert rig.content(seq) == b"the content"


def test_content_after_a_restart() -> None:
    """Of a segment whose file is not open yet content comes in a thread first, and then at once."""
    rig = Rig()
    seq = rig.put(content=b"the content")
    rig = rig.again()

    assert rig.store.content_now(seq) is None
    assert rig.content(seq) == b"the content"
    assert rig.store.content_now(seq) == b"the content"


def test_damaged_content() -> None:
    """A content that fails its checksum is not handed out; it is counted, and its file kept."""
    rig = Rig(segment_bytes_max=100)
    seq = rig.put(content=b"the content")
    other = rig.put()
    path = DIRECTORY / segment.file_name(1)
    rig.disk.change(path, rig.disk.contents(path).index(b"the content"), b"THE")

    assert rig.store.content_now(seq) is None
    assert rig.content(seq) is None
    assert rig.store.quarantined == 1
    rig.store.finish(seq, (0,), b"")
    rig.tell_all()
    ((name, (reason,)),) = held(rig.disk, DIRECTORY)
    assert name == f"quarantine/{segment.file_name(1)}"
    assert reason.endswith(f"the content of item {seq} at {FILE_HEADER_BYTES} cannot be read")
    assert path not in rig.disk.paths()
    assert rig.content(other) == b"content"


def test_damaged_meta() -> None:
    """An item whose header cannot be read is not loaded, and counted."""
    rig = Rig()
    seq = rig.put()
    rig.disk.change(DIRECTORY / segment.file_name(1), 60, b"\xff\xff\xff")

    assert rig.store.load(seq) is None
    assert rig.store.quarantined == 1


def test_reading_fails() -> None:
    """A segment that cannot be opened makes its items unreadable and nothing worse."""
    rig = Rig()
    seq = rig.put()
    rig = rig.again()
    rig.disk.unlink(DIRECTORY / segment.file_name(1))

    assert rig.content(seq) is None
    assert rig.store.load(seq) is None
    assert rig.store.quarantined == 2


def test_open_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many segments there are, only the last used ones are kept open."""
    monkeypatch.setattr(reader, "FILES_OPEN_MAX", 3)
    rig = Rig(segment_bytes_max=10)
    seqs = [rig.put(f"id-{number}") for number in range(8)]

    assert [rig.store.content_now(seq) is not None for seq in seqs] == [False] * 5 + [True] * 3
    assert rig.content(seqs[0]) == b"content"
    assert [rig.store.content_now(seq) is not None for seq in seqs] == [True] + [False] * 5 + [True] * 2


def test_counters() -> None:
    """Items and parts are counted as they come and go."""
    rig = Rig()
    first, second = rig.put(parts=3), rig.put(parts=2)
    assert (rig.store.items, rig.store.parts_living) == (2, 5)

    rig.store.finish(first, (0, 1), b"")
    rig.store.finish(second, (0, 1), b"")

    assert (rig.store.items, rig.store.parts_living) == (1, 1)
    assert rig.store.living_parts(first) == (2,)
    assert (rig.store.is_living(second), rig.store.living_parts(second), rig.store.content_size(second)) == (
        False,
        (),
        0,
    )


def test_fates_of_the_dead() -> None:
    """A fate of something that does not live changes nothing, and who waits for it is told all the same."""
    rig = Rig()
    seq = rig.put(parts=2)
    rig.store.finish(seq, (0,), b"first")
    position = rig.store.mark_position()
    told: list[str] = []

    rig.store.finish(seq, (0,), b"again")
    rig.store.finish(777, (0,), b"", lambda: told.append("finished"))
    rig.store.finish(seq, (0,), b"again", lambda: told.append("finished"))
    rig.store.postpone(seq, (0,), 9.0, b"")
    rig.store.arrive(777)
    rig.store.arrive(seq)
    rig.store.forget(777)
    rig.store.move_out(777, (0,), lambda: told.append("moved"))
    rig.store.move_out(seq, (0,), lambda: told.append("moved"))
    rig.store.forget(777, lambda: told.append("forgotten"))
    rig.loop.settle()

    assert rig.store.mark_position() == position
    assert rig.store.living_parts(seq) == (1,)
    assert told == ["finished", "finished", "moved", "moved", "forgotten"]


def test_what_waits_is_known_without_the_disk() -> None:
    """Each living part with its time and note; nothing of what is not durable yet, arriving or dead."""
    rig = Rig()
    first, arriving = rig.put(parts=3, due_s=7.0), rig.put(origin=Origin(1, 2))
    rig.store.postpone(first, (2,), 9.0, b"note")
    rig.store.finish(first, (1,), b"")
    fresh = rig.store.append("id", b"", 1, b"", lambda seq: None, _fail)

    assert list(rig.store.seqs()) == [first, arriving, fresh]
    assert rig.store.dues(first) == [(0, 7.0), (2, 9.0)]
    assert [rig.store.dues(seq) for seq in (arriving, fresh, 777)] == [[], [], []]
    loaded = rig.store.load(first)
    assert loaded is not None
    assert loaded.parts == [PartState(0, 7.0, b""), PartState(2, 9.0, b"note")]


def test_who_waits_for_a_fate_hears_when_it_is_safe() -> None:
    """`on_durable` of `finish`: not before a power loss can take nothing back; without it nothing is synced for it."""
    rig = Rig()
    first, second = rig.put(), rig.put()
    syncs = rig.store.syncs
    rig.store.finish(first, (0,), b"nobody waits")
    rig.loop.settle()
    assert rig.store.syncs == syncs
    told: list[str] = []

    rig.store.finish(second, (0,), b"note", lambda: told.append("safe"))
    assert told == []
    rig.loop.settle()

    assert told == ["safe"]
    assert rig.store.syncs == syncs + 1
    rig.disk.lose_power()
    assert list(Rig(rig.disk).recovered.waiting) == []


def test_fate_of_dead_and_living_parts() -> None:
    """Of several parts only the living ones get the fate."""
    rig = Rig()
    seq = rig.put(parts=3)
    rig.store.finish(seq, (1,), b"first")
    rig.store.finish(seq, (0, 1), b"second")

    untold = rig.again().recovered.untold

    assert [(one.kind, one.parts, one.note) for one in untold] == [
        ("item", (0, 1, 2), b""),
        ("finished", (1,), b"first"),
        ("finished", (0,), b"second"),
    ]


def test_fate_before_durable_is_a_bug() -> None:
    """Nobody can have delivered what was not acknowledged."""
    rig = Rig()
    seq = rig.store.append("id", b"", 1, b"", lambda seq: None, _fail)

    with pytest.raises(AssertionError):
        rig.store.finish(seq, (0,), b"")


def test_forget_before_durable() -> None:
    """An item may be forgotten before it is durable: it is never found, and both callbacks are called."""
    rig = Rig()
    told: list[str] = []
    seq = rig.store.append("id", b"", 1, b"", lambda seq: told.append("durable"), _fail)

    rig.store.forget(seq, lambda: told.append("forgotten"))
    rig.loop.settle()

    assert told == ["durable", "forgotten"]
    assert not rig.store.is_living(seq)
    assert list(rig.again().recovered.waiting) == []


def test_forget_of_what_then_fails() -> None:
    """Who forgets an item whose append fails is told that it is gone."""
    rig = Rig()
    told: list[str] = []

    def on_call(operation: str, path: Path) -> None:
        if operation == "append" and not told:
            raise OSError(5, "made up")

    rig.disk.on_call = on_call
    seq = rig.store.append("id", b"", 1, b"", lambda seq: told.append("durable"), lambda error: told.append("failed"))
    rig.store.forget(seq, lambda: told.append("forgotten"))
    rig.loop.settle()
    rig.loop.wait(1.1)

    assert told == ["failed", "forgotten"]


def test_arriving() -> None:
    """An item from another log is told apart after a crash until it was released."""
    rig = Rig()
    first = rig.put("first", origin=Origin(7, 70))
    second = rig.put("second", origin=Origin(7, 71), due_s=5.0)

    rig.store.arrive(second)
    recovered = rig.again().recovered

    assert recovered.arriving == [(first, "first", Origin(7, 70))]
    assert list(recovered.waiting) == [(second, ((0, 5.0),))]


def test_untold_until_told() -> None:
    """What was not told comes again at the next start, and nothing of it once it was told."""
    rig = Rig()
    seq = rig.put("one")
    position = rig.store.mark_position()
    rig.store.postpone(seq, (0,), 8.0, b"note")

    rig.store.told(position)
    rig = rig.again()
    assert [(one.kind, one.meta, one.note, one.due_s) for one in rig.recovered.untold] == [
        ("postponed", b"meta of one", b"note", 8.0)
    ]
    rig.tell_all()
    assert rig.again().recovered.untold == []


def test_idle_telling_writes_nothing() -> None:
    """A caller may say "told" twice a second for ever: an idle log stays as it is."""
    rig = Rig()
    rig.put()
    rig.tell_all()
    rig.disk.calls.clear()

    for _ in range(10):
        rig.tell_all()

    assert rig.disk.calls["append"] == 0


def test_segments_are_deleted() -> None:
    """A segment goes when its last item is finished and told, and the numbers go on behind it."""
    rig = Rig(segment_bytes_max=10)
    seqs = [rig.put(f"id-{number}") for number in range(6)]
    assert rig.store.segments == 6

    for seq in seqs[:3]:
        rig.store.finish(seq, (0,), b"")
    rig.tell_all()
    rig.put()
    rig.tell_all()

    # 7 held nothing but the fates of 1 to 3, and went when they were gone.
    assert segment.numbers(rig.disk.names(DIRECTORY)) == [4, 5, 6, 8, 9]
    assert rig.store.segments_removed == 4
    assert rig.again().put() > seqs[-1]


def test_deletion_that_fails_is_tried_again() -> None:
    """A segment that could not be deleted is deleted with the next telling."""
    rig = Rig(segment_bytes_max=10)
    first = rig.put("first")
    rig.put("second")
    rig.store.finish(first, (0,), b"")
    failures = iter([OSError(5, "made up")])

    def on_call(operation: str, path: Path) -> None:
        if operation == "unlink" and path.suffix == ".seg" and (error := next(failures, None)) is not None:
            raise error

    rig.disk.on_call = on_call

    rig.tell_all()
    assert rig.store.segments_removed == 0
    rig.tell_all()
    assert rig.store.segments_removed == 1


def test_what_a_start_acted_on_stays() -> None:
    """Fates whose sync failed before a kill were readable at the start, and still are after a power loss: they were
    written again."""
    for seed in range(20):
        rig = Rig(MemoryDisk(seed))
        seq = rig.put()
        rig.disk.on_call = _fail_sync
        rig.store.finish(seq, (0,), b"done", on_durable=lambda: None)
        rig.loop.settle()
        rig = rig.again()
        assert list(rig.recovered.waiting) == []

        rig.disk.lose_power()
        rig = Rig(rig.disk)

        assert list(rig.recovered.waiting) == []


def _fail_sync(operation: str, path: Path) -> None:
    if operation == "sync":
        raise OSError(5, "made up")


def test_lock() -> None:
    """A log is open once; another log beside it is another matter."""
    rig = Rig()

    with pytest.raises(LogLockedError, match="in use"):
        Store(DIRECTORY, disk=rig.disk, jobs=rig.loop.jobs).open()
    Store(DIRECTORY.with_name("5"), disk=rig.disk, jobs=rig.loop.jobs).open()


def test_newer_format_is_refused() -> None:
    """A log that a newer version wrote is not opened, not touched and not left locked."""
    rig = Rig()
    path = DIRECTORY / segment.file_name(1)
    header = record.encode_file_header(FileHeader(record.VERSION + 1, 1, 4, 1, 1, 0))
    rig.disk.change(path, 0, header)
    rig.disk.kill()
    before = rig.disk.contents(path)

    for _ in range(2):
        with pytest.raises(LogFormatError, match="newer"):
            Store(DIRECTORY, disk=rig.disk, jobs=rig.loop.jobs).open()

    assert rig.disk.contents(path) == before


def test_unreadable_file_is_set_aside() -> None:
    """A file in which nothing can be read goes to the quarantine and is reported; its number is not used again."""
    rig = Rig()
    rig.put()
    rig.disk.kill()
    rig.disk.change(DIRECTORY / segment.file_name(1), 0, b"\xff" * 400)

    rig = Rig(rig.disk)

    assert rig.recovered.set_aside == [f"{segment.file_name(1)}: no segment or damaged from its start"]
    assert rig.store.quarantined == 1
    assert [one.name for one in held(rig.disk, DIRECTORY)] == [f"quarantine/{segment.file_name(1)}"]
    assert segment.numbers(rig.disk.names(DIRECTORY)) == [2]
    assert segment.numbers(rig.again().disk.names(DIRECTORY))[-1] == 3


def test_file_that_was_never_begun_is_deleted() -> None:
    """A segment that a crash left without a header goes without a word."""
    rig = Rig()
    rig.put()
    rig.disk.append(rig.disk.create(DIRECTORY / segment.file_name(2)), 0, (bytes(20),))

    rig = rig.again()

    assert rig.recovered.set_aside == []
    assert segment.numbers(rig.disk.names(DIRECTORY)) == [1, 3]


def test_second_start_reads_no_contents() -> None:
    """A segment that a kill left unsealed is checked in full once, and sealed by the start that did."""
    rig = Rig()
    for _ in range(5):
        rig.put(content=b"c" * 100_000)
    rig.disk.kill()

    rig.disk.calls.clear()
    rig = Rig(rig.disk)
    first = rig.disk.calls["bytes read"]
    rig.disk.kill()
    rig.disk.calls.clear()
    rig = Rig(rig.disk)

    assert first > 500_000
    assert rig.disk.calls["bytes read"] < 300_000
    assert len(list(rig.recovered.waiting)) == 5


def test_garbage_collection_is_left_as_it_was() -> None:
    """Opening stops the collector for a while and no longer."""
    Rig()
    assert gc.isenabled()

    gc.disable()
    try:
        Rig()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_directory_names_the_log() -> None:
    """The log's number is its directory's name where that is one."""
    assert Store(Path("/queue/12"), disk=MemoryDisk()).log == 12
    assert Store(Path("/queue/other"), disk=MemoryDisk()).log == 0
