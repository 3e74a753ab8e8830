"""Reading an event log: what the server writes is what is read, as far as a file is good."""

import gzip
from pathlib import Path

import msgspec

from mta.reporting.event_lines import FateLine, ReceivedLine, RuleLine
from mta.reporting.log_reader import LogReader
from mta_policies.rehearsal.recorder import Line


def test_what_is_read_is_what_is_written():
    """By name and type: a field of another name would be read as its default, and nobody would notice."""
    kinds = (ReceivedLine, FateLine, RuleLine)
    written = {field.name: field.type for kind in kinds for field in msgspec.structs.fields(kind)}
    read = {field.name: field.type for field in msgspec.structs.fields(Line)}

    assert read.items() <= written.items()


def test_a_compressed_file_that_was_cut_off(tmp_path: Path):
    """What stands before the cut is read, and the cut is counted."""
    lines = [
        b'{"event":"received","time":%d,"id":"m%d"}\n' % (number, number * 7919 % 10007) for number in range(20_000)
    ]
    packed = gzip.compress(b"".join(lines))
    file = tmp_path / "events.jsonl.1.gz"
    file.write_bytes(packed[: len(packed) * 3 // 4])

    reader = LogReader([file])
    times = [line.time for line in reader]

    assert times == list(range(len(times)))
    assert len(lines) / 2 < len(times) < len(lines)
    assert reader.bad > 0
