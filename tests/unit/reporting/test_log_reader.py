"""Reading an event log: what the server writes is what is read, as far as a file is good."""

import gzip
from pathlib import Path
from typing import get_type_hints

from mta.reporting.event_lines import FateLine, ReceivedLine, RuleLine
from mta.reporting.log_reader import LogReader
from mta_policies.rehearsal.recorder import Line


def test_what_is_read_is_what_is_written():
    """By name and type: a field of another name would be read as its default, and nobody would notice."""
    kinds = (ReceivedLine, FateLine, RuleLine)
    written = {name: kind_of for kind in kinds for name, kind_of in get_type_hints(kind).items()}

    assert get_type_hints(Line).items() <= written.items()


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
    assert [(each.file, each.line) for each in reader.mistakes] == [(str(file), len(times) + 1)] * len(reader.mistakes)


GOOD = b'{"event":"received","time":1,"id":"m1"}'
BAD = {
    2: b'{"event":"deliv',
    3: b"[]",
    5: b'{"event":"received","time":"now"}',
    6: b'{"event":"received","time":1e300}',
}


def test_a_line_that_is_no_event_is_told_with_its_place(tmp_path: Path):
    """File, line and what is wrong, in a compressed file too; the lines around it are read."""
    text = b"\n".join(BAD.get(number, GOOD) for number in range(1, 9))
    plain, packed = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1.gz"
    plain.write_bytes(text)
    packed.write_bytes(gzip.compress(text))

    reader = LogReader([packed, plain])
    lines = list(reader)

    assert (len(lines), reader.bad) == (8, 8)
    places = [(str(file), number) for file in (packed, plain) for number in BAD]
    assert [(each.file, each.line) for each in reader.mistakes] == places[:5]
    assert "`$.time`" in str(reader.mistakes[2])
    assert str(reader.mistakes[4]).startswith(f"{plain}:2: no event: ")
