"""The event log: nothing lost, order kept, and told to whom it matters."""

import asyncio
import errno
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mta.reporting import event_log
from mta.reporting.event_log import EventLog


class Paper:
    """A writer that takes all, some or nothing, and can be held up."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.takes: int | None = None
        self.error: OSError | None = None
        self.go = threading.Event()
        self.go.set()
        self.appends = 0
        self.reopens = 0
        self.closed = False

    def append(self, lines: Sequence[bytes]) -> int:
        self.appends += 1
        self.go.wait()
        if self.error is not None:
            raise self.error
        taken = list(lines)[: self.takes]
        self.lines += taken
        return len(taken)

    def reopen(self) -> None:
        self.reopens += 1

    def close(self) -> None:
        self.closed = True


def lines_of(*numbers: int) -> list[bytes]:
    return [b"%d\n" % number for number in numbers]


async def test_lines_are_written_in_order(tmp_path: Path) -> None:
    """What was told is in the file when the log is closed, in the order of telling."""
    log = EventLog(tmp_path / "log" / "events.jsonl")
    for number in range(1_000):
        log.write(b"%d\n" % number)

    left = await log.close()

    assert left == 0
    assert (tmp_path / "log" / "events.jsonl").read_bytes() == b"".join(lines_of(*range(1_000)))
    assert log.lines_written == 1_000


async def test_timer_flushes(tmp_path: Path) -> None:
    """Once started the log writes by itself."""
    flushed = asyncio.Event()
    log = EventLog(tmp_path / "e", flush_s=0.001, mark=lambda: 1, on_flushed=lambda _: flushed.set())
    log.start(asyncio.get_running_loop())

    log.write(b"a\n")
    await flushed.wait()

    assert (tmp_path / "e").read_bytes() == b"a\n"
    await log.close()


async def test_mark_is_taken_with_the_lines_and_told_after_them() -> None:
    """What was marked when lines were taken is passed on when these lines are written, and not before."""
    paper = Paper()
    positions = iter([10, 20])
    told: list[tuple[object, list[bytes]]] = []
    log = EventLog(
        "-", writer=paper, mark=lambda: next(positions), on_flushed=lambda mark: told.append((mark, paper.lines[:]))
    )
    paper.go.clear()
    log.write(b"1\n")
    log.flush()
    log.write(b"2\n")
    log.flush()

    before = list(told)
    paper.go.set()
    await log.close()

    assert before == []
    assert told == [(10, lines_of(1)), (20, lines_of(1, 2))]


async def test_one_write_at_a_time() -> None:
    """While a write is under way another flush waits for its turn, so that the order holds."""
    paper = Paper()
    paper.go.clear()
    log = EventLog("-", writer=paper)
    log.write(b"1\n")
    log.flush()
    log.write(b"2\n")

    log.flush()
    log.flush()
    pending = log.pending_bytes
    paper.go.set()
    await log.close()

    assert pending == 4
    assert paper.appends == 2
    assert paper.lines == lines_of(1, 2)


async def test_failed_write_is_tried_again() -> None:
    """A full disk loses nothing: lines wait, one warning says so, and one that it is over."""
    paper = Paper()
    warnings: list[str] = []
    told: list[object] = []
    log = EventLog("events.jsonl", writer=paper, warn=warnings.append, mark=lambda: "here", on_flushed=told.append)
    paper.error = OSError(errno.ENOSPC, "No space left on device")
    log.write(b"1\n")

    tries = [await log.drain() for _ in range(3)]
    told_before = list(told)
    paper.error = None
    log.write(b"2\n")
    drained = await log.drain()
    await log.close()

    assert tries == [False] * 3
    assert told_before == []
    assert drained
    assert paper.lines == lines_of(1, 2)
    assert told[-1] == "here"
    assert len(warnings) == 2
    assert "No space left on device" in warnings[0]
    assert warnings[1].endswith("written again")


async def test_partial_write_goes_on_where_it_stopped() -> None:
    """Lines that were written are not written again; the mark is passed on when the last one is."""
    paper = Paper()
    told: list[object] = []
    warned = asyncio.Event()
    log = EventLog("-", writer=paper, warn=lambda _: warned.set(), mark=lambda: "here", on_flushed=told.append)
    for line in lines_of(1, 2, 3):
        log.write(line)
    paper.takes = 2

    log.flush()
    await warned.wait()
    told_before = list(told)
    paper.takes = None
    await log.close()

    assert told_before == []
    assert paper.lines == lines_of(1, 2, 3)
    assert told == ["here"]


async def test_what_cannot_be_written_is_counted_at_the_end() -> None:
    """A log that is closed while its disk is full says how many lines it kept."""
    paper = Paper()
    paper.error = OSError(errno.EIO, "Input/output error")
    log = EventLog("-", writer=paper, warn=lambda _: None)
    for line in lines_of(1, 2, 3):
        log.write(line)

    left = await log.close()

    assert left == 3
    assert paper.closed


async def test_long_backlog_is_written_in_several_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog goes out in bounded writes; only the last one carries the mark."""
    monkeypatch.setattr(event_log, "LINES_PER_WRITE_MAX", 10)
    paper = Paper()
    told: list[object] = []
    log = EventLog("-", writer=paper, mark=lambda: len(paper.lines), on_flushed=told.append)
    for line in lines_of(*range(25)):
        log.write(line)

    drained = await log.drain()
    await log.close()

    assert drained
    assert paper.appends == 3
    assert paper.lines == lines_of(*range(25))
    assert told == [20]


async def test_stuck_log_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """When too much waits to be written the worker is told to take no more mail, and when it is over, too."""
    monkeypatch.setattr(event_log, "PENDING_BYTES_MAX", 10)
    paper = Paper()
    paper.error = OSError(errno.ENOSPC, "No space left on device")
    log = EventLog("-", writer=paper, warn=lambda _: None)

    log.write(b"0123456789\n")
    await log.drain()
    stuck = log.is_stuck
    paper.error = None
    await log.drain()

    assert stuck
    assert not log.is_stuck
    assert await log.close() == 0


async def test_reopen_comes_before_the_next_write() -> None:
    """SIGHUP makes the next write, and only that one, open the path anew."""
    paper = Paper()
    log = EventLog("-", writer=paper)
    log.reopen()
    log.write(b"1\n")
    await log.drain()
    reopens = paper.reopens

    log.write(b"2\n")
    await log.close()

    assert reopens == paper.reopens == 1


async def test_nothing_to_write_costs_nothing() -> None:
    """A flush without lines writes nothing and marks nothing."""
    paper = Paper()
    log = EventLog("-", writer=paper, mark=lambda: pytest.fail("marked"))

    log.flush()

    assert await log.drain()
    assert await log.close() == 0
    assert paper.appends == 0
