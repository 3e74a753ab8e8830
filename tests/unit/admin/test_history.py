"""What the event log says of one message."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mta.admin import history
from mta.model.identity import IdMaker
from mta.reporting.rotate import Rotator
from mta.testing.fake_clock import FakeClock

ID = "01jdabcdefghjkmnpqrs"
OTHER = "01jdabcdefghjkmnpqrt"


def line(message_id: str = ID, event: str = "delivered", time: float = 1.0, **more: Any) -> bytes:
    values = {"event": event, "time": time, "event_id": "e-1", "id": message_id, "worker": 0, "v": 1, **more}
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def search(log: Path, message_id: str = ID, **more: Any) -> history.History:
    return history.search(log, message_id, monotonic_s=more.pop("monotonic_s", lambda: 0.0), **more)


def times(found: history.History) -> list[float]:
    return [event["time"] for event in found.events]


def test_all_lines_of_a_message_are_found_by_time(log: Path) -> None:
    """And none of another."""
    log.write_bytes(line(time=3.0) + line(OTHER) + line(event="received", time=1.0) + line(OTHER) + line(time=2.0))

    found = search(log)

    assert times(found) == [1.0, 2.0, 3.0]
    assert {event["id"] for event in found.events} == {ID}
    assert found.is_complete


def test_no_log_and_an_empty_one_say_nothing(log: Path) -> None:
    """Which is all that there is."""
    missing = search(log)
    log.touch()

    assert missing == search(log) == history.History([], True)


def test_a_line_that_is_being_written_is_left_out(log: Path) -> None:
    """Only whole lines count."""
    log.write_bytes(line(time=1.0) + line(time=2.0)[:-5])

    assert times(search(log)) == [1.0]


def test_what_only_looks_like_the_id_is_not_taken(log: Path) -> None:
    """A text with the same bytes, an event id, damage: none of these is an event of the message."""
    log.write_bytes(
        line(OTHER, event_id=ID)
        + line(OTHER, inner={"id": ID})
        + b'{"id":"%s", torn\n' % ID.encode()
        + b'[{"id":"%s"}]\n' % ID.encode()
        + b'{"id":"%s"}\n' % ID.encode()
        + b'{"id":"%s","x":%s\n' % (ID.encode(), b"[" * 100_000)
        + line(time=7.0)
    )

    assert times(search(log)) == [7.0]


def test_lines_across_blocks_are_found(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a block ends."""
    monkeypatch.setattr(history, "BLOCK_BYTES", 7)
    log.write_bytes(b"".join(line(time=float(number)) + line(OTHER) for number in range(20)))

    assert times(search(log)) == [float(number) for number in range(20)]


def test_older_files_are_searched_compressed_or_not(log: Path) -> None:
    """As rotation leaves them."""
    log.write_bytes(line(time=4.0))
    log.with_name("events.jsonl.1").write_bytes(line(time=3.0))
    log.with_name("events.jsonl.2.gz").write_bytes(gzip.compress(line(time=2.0)))
    log.with_name("events.jsonl.3.gz").write_bytes(gzip.compress(line(time=1.0) + line(OTHER)))

    assert times(search(log)) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("compress", [True, False])
def test_what_rotation_does_is_found_again(log: Path, compress: bool) -> None:
    """Each line once, after every rotation."""
    rotator = Rotator(log, size_bytes_max=1, keep=5, compress=compress)

    for number in range(4):
        log.write_bytes(line(time=float(number)))
        rotator.rotate()
    log.write_bytes(line(time=4.0))

    assert times(search(log)) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_file_that_has_two_names_for_a_moment_is_read_once(log: Path) -> None:
    """As while rotation goes on; a plain file counts more than the compressed one beside it."""
    log.write_bytes(line(time=2.0))
    os.link(log, log.with_name("events.jsonl.1"))
    log.with_name("events.jsonl.2").write_bytes(line(time=1.0))
    log.with_name("events.jsonl.2.gz").write_bytes(gzip.compress(line(time=1.0)))

    assert times(search(log)) == [1.0, 2.0]


def test_gaps_between_numbers_are_passed(log: Path) -> None:
    """While files are shifted one number is missing."""
    log.write_bytes(line(time=2.0))
    log.with_name("events.jsonl.2.gz").write_bytes(gzip.compress(line(time=1.0)))

    assert times(search(log)) == [1.0, 2.0]


def test_damage_in_a_compressed_file_costs_only_what_follows(log: Path) -> None:
    """The rest is still told."""
    packed = gzip.compress(line(time=1.0) + os.urandom(100_000).hex().encode() + b"\n")
    log.write_bytes(line(time=2.0))
    log.with_name("events.jsonl.1.gz").write_bytes(packed[:-50_000])
    log.with_name("events.jsonl.2.gz").write_bytes(b"not gzip at all")

    assert times(search(log)) == [1.0, 2.0]


def test_files_finished_before_the_message_came_are_not_read(log: Path) -> None:
    """The id says when it came."""
    message_id = IdMaker(1).make(1_750_000_000.0)
    log.write_bytes(line(message_id, time=2.0))
    old, recent = log.with_name("events.jsonl.2"), log.with_name("events.jsonl.1")
    for file, age_s in ((old, 3600.0), (recent, 10.0)):
        file.write_bytes(line(message_id, time=1.0))
        os.utime(file, (1_750_000_000.0 - age_s, 1_750_000_000.0 - age_s))

    found = search(log, message_id)

    assert times(found) == [1.0, 2.0]
    assert found.is_complete


def test_ids_tell_their_time() -> None:
    """To the millisecond; what is no id of ours tells none."""
    made = IdMaker(7).make(1_750_000_000.125)

    assert history.began_s(made) == pytest.approx(1_750_000_000.125, abs=0.002)
    assert [history.began_s(text) for text in ("", "abc", "uuuuuuuuuuuuuuuuuuuu")] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("text", ["", "x" * 65, 'a"b', "a b", "../../etc", "ID", "a\n", "é"])
def test_what_can_be_no_id_is_known(text: str) -> None:
    """Nothing else is looked for in files."""
    assert not history.is_id(text)
    assert history.is_id(ID)


def ticking(step_s: float) -> Callable[[], float]:
    clock = FakeClock()

    def tell() -> float:
        clock.advance(step_s)
        return clock.monotonic_s()

    return tell


def test_a_search_that_takes_too_long_is_broken_off(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is told, the newest files first, and that it is not all."""
    monkeypatch.setattr(history, "BLOCK_BYTES", 1000)
    log.write_bytes(line(time=9.0) + line(OTHER) * 1000)
    log.with_name("events.jsonl.1").write_bytes(line(time=1.0))

    found = search(log, monotonic_s=ticking(1.0), within_s=10.0)

    assert times(found) == [9.0]
    assert not found.is_complete


def test_a_message_of_endless_events_is_cut(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer stays one."""
    monkeypatch.setattr(history, "EVENTS_MAX", 10)
    log.write_bytes(b"".join(line(time=float(number)) for number in range(50)))

    found = search(log)

    assert len(found.events) == 10
    assert not found.is_complete


def test_a_file_without_line_ends_takes_no_memory(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no event log; the search goes through it and finds what has line ends."""
    monkeypatch.setattr(history, "BLOCK_BYTES", 100)
    monkeypatch.setattr(history, "LINE_BYTES_MAX", 1000)
    log.write_bytes(b"x" * 5000 + b"\n" + line(time=1.0))

    assert times(search(log)) == [1.0]
