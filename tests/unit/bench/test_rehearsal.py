"""The bench of rehearsals: its log is what the server writes, and the same every time."""

from collections import Counter
from pathlib import Path

from bench import rehearsal
from mta.reporting.log_reader import LogReader


def test_the_log_is_a_servers(tmp_path: Path):
    """As many lines as were asked for, each an event; most mail is delivered, some after a deferral."""
    file = tmp_path / "events.jsonl"
    rehearsal.write_log(file, 5_001)

    reader = LogReader([file])
    kinds = Counter(line.event for line in reader)

    assert reader.bad == 0
    assert sum(kinds.values()) == 5_001
    assert set(kinds) == {"received", "delivered", "deferred", "bounced"}
    assert kinds["delivered"] > 0.9 * kinds["received"]


def test_the_log_is_the_same_every_time():
    """Or figures of two days could not be compared."""
    assert list(rehearsal.events(300)) == list(rehearsal.events(300))
