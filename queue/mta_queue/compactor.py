"""The compactor: has the living of nearly empty segments copied into a new one, so that the old ones can go.

It looks every second; `compaction` says whether something is worth copying and how fast. A round takes a number
for its segment from the journal, which ends its own segment at that: so all that a copy includes lies in segments
before it, and every fate given after it was made lies behind it, and reading by number stays the order of things.

A round moves two things: items that live, as they are now, and fates in the old segments that items elsewhere still
need. Only when all of it is on stable storage under its name does the catalog hear of it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from mta_queue import compaction, record
from mta_queue.catalog import Catalog
from mta_queue.compaction import Choice, Chooser, Pace, SegmentFacts
from mta_queue.copies import Copies, LostItemError
from mta_queue.copying import Round
from mta_queue.disk import Disk
from mta_queue.entry import Segment
from mta_queue.journal import Journal
from mta_queue.reader import Reader
from mta_queue.record import FileHeader

LOOK_S = 1.0  # between looks
AGAIN_S = 0.2  # from the end of a round to the next look
STUCK_S = 600.0  # a segment that did not get empty is not tried again for so long
ENOUGH_FREE_BYTES = 16 << 20  # left on the disk, whatever a round takes


class Compactor:
    """Works beside the journal of one log: in the loop, but for what the disk has to do, in the reader's threads."""

    def __init__(
        self,
        directory: Path,
        log: int,
        disk: Disk,
        catalog: Catalog,
        journal: Journal,
        reader: Reader,
        on_done: Callable[[], None],
        *,
        synced: bool,
        segment_bytes_max: int,
    ) -> None:
        """`on_done`: segments may have become removable."""
        self._directory = directory
        self._log = log
        self._disk = disk
        self._catalog = catalog
        self._journal = journal
        self._reader = reader
        self._on_done = on_done
        self._synced = synced
        self._chooser = Chooser(segment_bytes_max)
        self._pace = Pace()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._to_discard: Round | None = None
        self._stuck: dict[int, float] = {}
        self._needed: dict[int, tuple[int, float]] = {}
        """Bytes of fates that were found to be needed, of segments that were given up for it, and until when that is
        believed: what needs them ends some time."""
        self._not_before_s = 0.0
        self.copied_bytes = self.rounds = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Looks from now on."""
        self._loop = loop
        self._timer = loop.call_later(LOOK_S, self._look)

    def stop(self) -> None:
        """Nothing more is begun; what is half done is left, and removed by the next start."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    def _later(self, wait_s: float, call: Callable[[], None]) -> None:
        if self._loop is None:
            return
        if wait_s > 0:
            self._timer = self._loop.call_later(wait_s, lambda: self._go_on(call))
        else:
            self._loop.call_soon(lambda: self._go_on(call))

    def _go_on(self, call: Callable[[], None]) -> None:
        if self._loop is not None:  # else it was stopped in the same turn
            call()

    def _submit(self, job: Callable[[], None], then: Callable[[Exception | None, float], None]) -> None:
        """Runs the job in a thread; `then` gets what it raised and how long it took."""
        loop = self._loop
        if loop is None:
            return

        def run() -> None:
            begun_s = loop.time()
            problem: Exception | None = None
            try:
                job()
            except (OSError, LostItemError, ValueError) as error:
                problem = error
            took_s = loop.time() - begun_s
            self._reader.hand_over(lambda: then(problem, took_s) if self._loop is not None else None)

        self._reader.submit(run)

    @property
    def file_bytes(self) -> int:
        """All segments together."""
        return sum([each.file_bytes for each in self._catalog.segments.values()])

    # Choosing.

    def _look(self) -> None:
        assert self._loop is not None
        now_s = self._loop.time()
        self._pace.note(self._journal.written_bytes, now_s)
        if self._to_discard is not None:
            self._discard(self._to_discard)
            return
        choice = self._chooser.choose(self._facts(now_s), self.file_bytes, self._catalog.living_bytes)
        if choice is None or self._journal.is_failing or now_s < self._not_before_s:
            self._later(LOOK_S, self._look)
        else:
            self._check_space(choice)

    def _facts(self, now_s: float) -> list[SegmentFacts]:
        catalog = self._catalog
        self._needed = {number: one for number, one in self._needed.items() if one[1] > now_s}
        ended = sorted(number for number, each in catalog.segments.items() if not each.is_open)
        facts = []
        for number in ended[: -compaction.YOUNG_SEGMENTS]:
            each = catalog.segments[number]
            if number >= catalog.anchor or each.tell_number > catalog.told or each.damaged:
                continue
            if self._stuck.get(number, 0.0) > now_s:
                continue
            facts.append(
                SegmentFacts(number, each.file_bytes, each.living_bytes, self._needed.get(number, (0, 0.0))[0])
            )
        return facts

    def _check_space(self, choice: Choice) -> None:
        free = 0

        def look() -> None:
            nonlocal free
            free = self._disk.free_bytes(self._directory)

        def then(problem: Exception | None, took_s: float) -> None:
            wanted = compaction.FREE_FACTOR * choice.cost_bytes + ENOUGH_FREE_BYTES
            if problem is not None or free < wanted or self._journal.is_failing:
                self._later(LOOK_S, self._look)
            else:
                self._journal.reserve(lambda number: self._begin(choice, number))

        self._submit(look, then)

    # A round.

    def _begin(self, choice: Choice, number: int) -> None:
        """The journal ended its segment, and `number` is ours; 0: the disk refused."""
        if self._loop is None:
            return
        catalog, journal = self._catalog, self._journal
        victims = [catalog.segments[each] for each in choice.numbers if each in catalog.segments]
        if not number or not victims:
            self._later(LOOK_S, self._look)
            return
        header = FileHeader(record.VERSION, journal.marker, self._log, number, journal.next_number, catalog.told)
        markers = {each.number: each.marker for each in catalog.segments.values()}
        copies = Copies(self._disk, self._directory, header, markers, synced=self._synced)
        current = Round(catalog, victims, copies, journal.draw_number)
        catalog.begin_segment(number, journal.marker)
        current.hold()
        self.rounds += 1
        self._work(current, choice.pressing)

    def _work(self, current: Round, pressing: bool) -> None:
        """The next slice: fates first, all of them, then items."""
        assert self._loop is not None
        if self._journal.is_failing:
            self._failed(current, None)
            return
        self._pace.note(self._journal.written_bytes, self._loop.time())
        fates = current.next_fates() if current.has_found else []
        costly = current.too_costly()
        if costly:
            self._needed[costly] = current.needed_bytes[costly], self._loop.time() + STUCK_S
            self._failed(current, None)
            return
        if current.is_waiting and not fates:
            current.settle()
            self._journal.fate(b"", None, lambda: self._later(0.0, lambda: self._work(current, pressing)))
            return
        items = [] if current.is_scanning or fates else current.next_items()
        if current.is_complete and not fates and not items:
            self._finish(current)
            return
        copied = 0

        def job() -> None:
            nonlocal copied
            if fates or items:
                copied = current.copies.write(fates, items)
            elif current.is_scanning and not current.has_found:
                current.scan()

        def then(problem: Exception | None, took_s: float) -> None:
            if problem is not None:
                self._failed(current, problem)
                return
            self.copied_bytes += copied
            current.written(fates, items)
            rest_s = self._pace.rest_s(copied, took_s, self._journal.commit_s, pressing=pressing)
            self._later(rest_s, lambda: self._work(current, pressing))

        self._submit(job, then)

    def _finish(self, current: Round) -> None:
        """All is written. It may count when the fates are safe that it includes."""
        number = self._journal.draw_number()

        def job() -> None:
            current.copies.finish(number)

        def then(problem: Exception | None, took_s: float) -> None:
            if problem is not None:
                self._failed(current, problem)
            else:
                self._journal.fate(b"", None, lambda: self._publish(current))

        self._submit(job, then)

    def _publish(self, current: Round) -> None:
        home = self._catalog.segments[current.number]

        def then(problem: Exception | None, took_s: float) -> None:
            if problem is not None:
                self._failed(current, problem)
                return
            writer = current.copies.writer
            assert writer is not None
            home.file_bytes = writer.size_bytes
            self._reader.keep_file(current.number, writer.file)
            self._take_place(current, home)

        self._submit(current.copies.publish, then)

    def _take_place(self, current: Round, home: Segment) -> None:
        if self._loop is None:
            return
        if current.take_place(home):
            self._loop.call_soon(self._take_place, current, home)
            return
        self._journal.also_about(current.let_go(home), current.numbers)
        self._catalog.close_segment(home.number)
        again_s = self._loop.time() + STUCK_S
        self._stuck = {number: until_s for number, until_s in self._stuck.items() if number in self._catalog.segments}
        self._stuck.update(dict.fromkeys(current.numbers, again_s))
        self._needed = {number: each for number, each in self._needed.items() if number in self._catalog.segments}
        self._on_done()
        self._later(AGAIN_S, self._look)

    def _failed(self, current: Round, problem: Exception | None) -> None:
        """The round is given up; nothing of it counts."""
        assert self._loop is not None
        now_s = self._loop.time()
        if isinstance(problem, LostItemError):
            self._stuck[problem.segment] = now_s + STUCK_S
        elif problem is not None or self._journal.is_failing:
            self._not_before_s = now_s + compaction.FAILED_WAIT_S
        self._discard(current)

    def _discard(self, current: Round) -> None:
        """Removes what was written; until that is certain the victims stay."""
        self._to_discard = current

        def then(problem: Exception | None, took_s: float) -> None:
            if problem is None:
                self._to_discard = None
                if current.number in self._catalog.segments:
                    self._catalog.close_segment(current.number)
                    self._catalog.remove(current.number)
            self._later(LOOK_S, self._look)

        self._submit(current.copies.discard, then)
