"""Which segments are copied, and how fast: the bound holds, and copying ends."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_queue import compaction
from mta_queue.compaction import IDLE_BYTES_S, Chooser, Pace, SegmentFacts, bound_bytes

SEGMENT = 1_000_000
ITEM = 4_000
FATE = 60


class Log:
    """Segments as numbers: what lives in each, and what it cost to keep the promise."""

    def __init__(self, segment_bytes: int = SEGMENT) -> None:
        self.segment_bytes = segment_bytes
        self.files: dict[int, int] = {}
        self.living: dict[int, int] = {}
        self.last = 0
        self.chooser = Chooser(segment_bytes)
        self.written = self.copied = self.rounds = 0

    def write(self, file_bytes: int, living_bytes: int) -> int:
        """A segment of its own."""
        self.last += 1
        self.files[self.last], self.living[self.last] = file_bytes, living_bytes
        self.written += file_bytes
        self.sweep()
        return self.last

    def sweep(self) -> None:
        for number in [each for each in self.files if not self.living[each] and each < self.last]:
            del self.files[number], self.living[number]

    @property
    def file_bytes(self) -> int:
        return sum(self.files.values())

    @property
    def living_bytes(self) -> int:
        return sum(self.living.values())

    def compact(self) -> bool:
        """One round; whether there was one."""
        ended = [each for each in sorted(self.files) if each <= self.last - compaction.YOUNG_SEGMENTS]
        facts = [SegmentFacts(each, self.files[each], self.living[each], 0) for each in ended]
        choice = self.chooser.choose(facts, self.file_bytes, self.living_bytes)
        if choice is None:
            return False
        copied = sum(self.living[each] for each in choice.numbers)
        assert copied == choice.cost_bytes
        freed = sum(self.files[each] for each in choice.numbers)
        assert copied <= freed / 2
        for each in choice.numbers:
            self.living[each] = 0
        self.copied += copied
        self.rounds += 1
        if copied:
            self.last += 1
            self.files[self.last] = self.living[self.last] = copied
        self.sweep()
        return True


@given(
    segments=st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), max_size=60),
    deaths=st.lists(st.tuples(st.integers(0, 200), st.floats(0, 1)), max_size=60),
)
def test_bound_is_reached_from_any_history(
    segments: list[tuple[float, float]], deaths: list[tuple[int, float]]
) -> None:
    """Whatever was written and whatever died of it: rounds end, and then the files are within the bound."""
    log = Log()
    for size, living in segments:
        log.write(int(size * SEGMENT), int(size * living * SEGMENT))
    for at, share in deaths:
        if log.files:
            number = sorted(log.files)[at % len(log.files)]
            log.living[number] = int(log.living[number] * share)
    log.sweep()

    while log.compact():
        assert log.rounds <= 200
    log.compact()  # the second look knows what is calm

    assert log.file_bytes <= bound_bytes(log.living_bytes, SEGMENT)
    assert log.copied <= log.written


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_no_more_is_copied_than_was_written(seed: int) -> None:
    """Over a long life of any kind copies are never more than what was appended."""
    random = Random(seed)
    log = Log()
    for _ in range(300):
        log.write(SEGMENT, int(SEGMENT * random.choice((0, 0.01, 0.5, 1))))
        for number in list(log.living):
            if random.random() < 0.2:
                log.living[number] = int(log.living[number] * random.random())
        log.sweep()
        log.compact()

    assert log.copied <= log.written


@pytest.mark.parametrize("waits_segments", [30, 300])
def test_days_of_mail_of_which_a_hundredth_waits(waits_segments: int) -> None:
    """While 99 % goes at once and 1 % waits, the bound holds all the time, for a twentieth of what mail writes."""
    random = Random(7)
    log = Log()
    for _ in range(min(4 * waits_segments, 2000)):
        log.write(SEGMENT, SEGMENT // 100)
        for number, living in log.living.items():
            gone = living / ITEM / waits_segments
            log.living[number] = max(0, living - ITEM * (int(gone) + (random.random() < gone % 1)))
        log.compact()
        assert log.file_bytes <= bound_bytes(log.living_bytes, SEGMENT)

    assert log.copied <= log.written / 20


def test_a_backlog_is_left_where_it_is() -> None:
    """Segments full of what waits are not copied because mail flows past them."""
    log = Log()
    for _ in range(60):
        log.write(SEGMENT, SEGMENT)
    for _ in range(200):
        log.write(SEGMENT, SEGMENT // 200)
        log.compact()

    assert log.copied <= 200 * SEGMENT // 200


def test_fates_that_are_needed_count() -> None:
    """A segment that is full of fates which others need gives nothing back and is left alone."""
    chooser = Chooser(SEGMENT)
    needed = [SegmentFacts(each, SEGMENT, 0, SEGMENT) for each in range(1, 20)]
    free = SegmentFacts(20, SEGMENT, 0, FATE)

    choice = chooser.choose([*needed, free], 20 * SEGMENT, 0)

    assert choice is not None
    assert choice.numbers == (20,)


def test_what_empties_by_itself_is_left_alone() -> None:
    """A segment that lost living bytes since the last look is not copied before it presses, nor one that is new."""
    chooser = Chooser(SEGMENT)

    def look(living_bytes: int, files: int) -> bool:
        facts = [SegmentFacts(each, SEGMENT, living_bytes, 0) for each in range(files)]
        return chooser.choose(facts, files * SEGMENT, files * living_bytes) is not None

    assert not look(200_000, 7)
    assert not look(150_000, 7)
    assert look(149_000, 7)
    assert look(50_000, 9), "it presses: nobody waits for what may happen"


def test_nothing_is_chosen_within_the_bound() -> None:
    """Where space is not short nothing is copied, however empty a segment is."""
    chooser = Chooser(SEGMENT)
    facts = [SegmentFacts(each, SEGMENT, 10, 0) for each in range(1, 5)]

    assert [chooser.choose(facts, 4 * SEGMENT, 40) for _ in range(3)] == [None] * 3


def test_a_round_is_at_most_a_segment() -> None:
    """One round copies into one segment."""
    chooser = Chooser(SEGMENT)
    facts = [SegmentFacts(each, SEGMENT, 400_000, 0) for each in range(1, 100)]

    choice = chooser.choose(facts, 99 * SEGMENT, 4 * SEGMENT)

    assert choice is not None
    assert choice.cost_bytes <= SEGMENT


@given(st.integers(1, 1 << 19), st.floats(0, 30), st.floats(0, 30), st.integers(0, 10**9))
def test_pace_leaves_the_disk_to_new_mail(copied: int, took_s: float, commit_s: float, written: int) -> None:
    """Copying takes a tenth of the disk's time and of what mail writes, more only where it presses or all is idle."""
    pace = Pace()
    for second in range(1, 60):
        pace.note(written * second, float(second))

    rest_s = pace.rest_s(copied, took_s, commit_s, pressing=False)
    pressed_s = pace.rest_s(copied, took_s, commit_s, pressing=True)

    assert took_s <= 0.1001 * (took_s + rest_s)
    assert copied / rest_s <= max(0.101 * written, IDLE_BYTES_S) * 1.01
    assert pressed_s <= rest_s
    assert copied / pressed_s <= max(written, IDLE_BYTES_S) * 1.01
    if commit_s > 0.25:
        assert rest_s >= 2.5


def test_idle_disk_is_used() -> None:
    """With nothing else to write four megabytes a second are copied, and a mail server in its stride leaves a tenth."""
    pace = Pace()
    assert pace.rest_s(IDLE_BYTES_S, 0.0, 0.0, pressing=False) == pytest.approx(1.0)

    for second in range(1, 100):
        pace.note(80_000_000 * second, float(second))

    assert pace.rest_s(8_000_000, 0.0, 0.0, pressing=False) == pytest.approx(1.0, rel=0.01)
