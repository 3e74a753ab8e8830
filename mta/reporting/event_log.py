"""The event log of one worker: lines gather in memory and are appended every half second, off the loop.

`write` is a list's append. A flush takes all lines and writes them in a thread, one flush at a time, so
that their order holds. Nothing is ever thrown away: while the disk is full or the reader of standard output
stands still, lines stay in memory and are tried again; past `PENDING_BYTES_MAX` the log says that it
`is_stuck`, and the worker stops taking mail, because mail whose fate nobody hears of is not worth taking.
The queue's records say what a log may lack after a crash: `mark` is called when lines are taken, and
what it returned is passed to `on_flushed` once these lines are in the file.
"""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mta.reporting.log_file import LineWriter, LogFile, LogPipe

FLUSH_S = 0.5
"""What is promised: a line is in the file half a second after it was told."""
PENDING_BYTES_MAX = 64 * 1024 * 1024
"""Of lines that could not be written; about 100,000 of them."""
LINES_PER_WRITE_MAX = 20_000
"""A write of about 12 MB; what is more waits for the next one, so that other workers' lines get in between."""


class EventLog:
    """Appends lines to a file, or to standard output where the path is "-".

    `mark` and `on_flushed` belong together (see above) and run in the loop, as does `warn`, which gets one
    sentence when writing begins to fail and one when it works again.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        flush_s: float = FLUSH_S,
        mark: Callable[[], object] | None = None,
        on_flushed: Callable[[object], None] | None = None,
        warn: Callable[[str], None] | None = None,
        writer: LineWriter | None = None,
    ) -> None:
        self._path = path
        self._writer = writer or (LogPipe() if str(path) == "-" else LogFile(Path(path)))
        self._flush_s = flush_s
        self._mark = mark
        self._on_flushed = on_flushed
        self._warn = warn or _warn
        self._lines: list[bytes] = []
        self._taken: list[bytes] = []
        self._taken_mark: object = None
        self._taken_bytes = 0
        self._failing = False
        self._wants_reopen = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, "event-log")
        self._in_flight: asyncio.Future[tuple[int, OSError | None]] | None = None
        self.lines_written = 0
        self.is_stuck = False
        """So much waits to be written that no more mail should be taken; looked at with every flush and after it."""
        self.write = self._lines.append
        """Takes one line with its line end; costs nothing but a list's append."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of lines that are not in the file yet."""
        return self._taken_bytes + sum(map(len, self._lines))

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Flushes every `flush_s` seconds from now on."""
        self._loop = loop
        self._timer = loop.call_later(self._flush_s, self._tick)

    def flush(self) -> None:
        """Begins to write what there is, in the thread; while a write is under way it does nothing."""
        if self._in_flight is not None or not self._take():
            return
        loop = self._loop or asyncio.get_running_loop()
        self._in_flight = loop.run_in_executor(self._thread, self._append, self._taken, self._reopen_now())
        self._in_flight.add_done_callback(self._flushed)

    async def drain(self) -> bool:
        """Writes until nothing is left; False: something cannot be written now, and waits for the next flush."""
        while True:
            self.flush()
            if self._in_flight is None:
                return True
            before = self.lines_written
            await asyncio.wait([self._in_flight])
            if self.lines_written == before and self._failing:
                return False

    def reopen(self) -> None:
        """Opens the path anew at the next write (SIGHUP); a rotated file is noticed without it."""
        self._wants_reopen = True

    async def close(self) -> int:
        """Writes the rest and closes the file. Returns how many lines could not be written.

        These are not lost where `on_flushed` leads to the queue's records: they are told at the next start.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.drain()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_writer)
        self._thread.shutdown(wait=False)
        return len(self._taken) + len(self._lines)

    def _tick(self) -> None:
        self.flush()
        self.is_stuck = self.pending_bytes > PENDING_BYTES_MAX
        assert self._loop is not None
        self._timer = self._loop.call_later(self._flush_s, self._tick)

    def _take(self) -> bool:
        """Moves lines from the buffer to the write, unless an earlier write left some; False: nothing to do."""
        if self._taken:
            return True
        if not self._lines:
            return False
        # The buffer stays the same list: `write` is its method. The mark covers only what is taken whole.
        if len(self._lines) <= LINES_PER_WRITE_MAX:
            self._taken = self._lines[:]
            self._lines.clear()
            self._taken_mark = self._mark() if self._mark is not None else None
        else:
            self._taken = self._lines[:LINES_PER_WRITE_MAX]
            del self._lines[:LINES_PER_WRITE_MAX]
            self._taken_mark = None
        self._taken_bytes = sum(map(len, self._taken))
        return True

    def _reopen_now(self) -> bool:
        wanted, self._wants_reopen = self._wants_reopen, False
        return wanted

    def _append(self, lines: list[bytes], reopen: bool) -> tuple[int, OSError | None]:
        """In the thread."""
        try:
            if reopen:
                self._writer.reopen()
            return self._writer.append(lines), None
        except OSError as error:
            return 0, error

    def _close_writer(self) -> None:
        """In the thread."""
        try:
            self._writer.close()
        except OSError:
            pass  # what could not be written has been reported already

    def _flushed(self, future: asyncio.Future[tuple[int, OSError | None]]) -> None:
        self._in_flight = None
        if not future.cancelled():
            self._settle(*future.result())

    def _settle(self, count: int, error: OSError | None) -> None:
        self.lines_written += count
        del self._taken[:count]
        self._taken_bytes = sum(map(len, self._taken))
        self.is_stuck = self.pending_bytes > PENDING_BYTES_MAX
        if self._taken:
            if not self._failing:
                self._failing = True
                why = error.strerror or str(error) if error is not None else "the disk is full"
                self._warn(f"event log {self._path}: cannot be written ({why}); lines wait in memory")
            return
        if self._failing:
            self._failing = False
            self._warn(f"event log {self._path}: written again")
        mark, self._taken_mark = self._taken_mark, None
        if mark is not None and self._on_flushed is not None:
            self._on_flushed(mark)


def _warn(text: str) -> None:
    sys.stderr.write(f"mta: {text}\n")
