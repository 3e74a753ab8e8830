"""`mta policy warmup` against a face over workers that are made up."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from mta.cli import policy_warmup, words
from mta.reporting.questions import WarmedUp, WarmupRow, Warmups
from mta.testing.admin_rig import FakeAsker, face_in_thread

NOW_S = 1_795_348_800.0  # 2026-11-22 12:00 UTC
MIDNIGHT_S = NOW_S + 12 * 3600
PLAN = WarmupRow("out-9", days=7, allowed=50, overflow_pool="warm", origin="mta.toml:41")
GOOGLE = msgspec.structs.replace(
    PLAN,
    provider="google",
    day=2,
    sent=31,
    under_way=2,
    allowed=100,
    missing=19,
    next_day=2,
    next_allowed=100,
    next_s=MIDNIGHT_S,
    last_sent_s=NOW_S - 60,
)
HELD = msgspec.structs.replace(
    GOOGLE, provider="yahoo", missing=0, held_s=NOW_S - 3600, why="3 complaints beside 9 messages taken"
)
OVER = msgspec.structs.replace(GOOGLE, provider="mx.a.test", day=8, allowed=0, sent=4000, missing=0, under_way=0)

Run = Callable[..., int]


@pytest.fixture
def asker() -> FakeAsker:
    return FakeAsker()


@pytest.fixture
def run(asker: FakeAsker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `mta policy warmup ...` against the face; -> its exit status."""
    monkeypatch.setattr(words, "now_s", lambda: NOW_S)
    parser = argparse.ArgumentParser(prog="mta")
    policy_warmup.add(parser.add_subparsers())
    with face_in_thread(asker, tmp_path) as address:

        def go(*arguments: str) -> int:
            args = parser.parse_args(["warmup", *arguments, "--admin", address])
            return args.run(args)

        yield go


def test_the_table(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """The provider to which most was sent is the first; two workers' shares are one row."""
    halves = [msgspec.structs.replace(GOOGLE, index=i, of=2, sent=sent) for i, sent in enumerate((30, 1))]
    other = WarmupRow("out-8", days=3, allowed=20, start_s=NOW_S + 7200)
    asker.answers[Warmups] = [
        WarmedUp([PLAN, other, halves[0], HELD]),
        WarmedUp([PLAN, other, halves[1], OVER]),
    ]

    assert run() == 0

    head, *rows = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    found = [[cell.strip() for cell in row if cell.strip()] for row in (head, *rows)]
    assert found[0] == ["source", "provider", "day", "sent today", "allowed", "over it", "next", "held"]
    assert found[1] == ["out-8", "(nothing sent yet)", "1 of 3", "0", "20", "waits", "starts in 2 h"]
    by_pool = "goes by pool warm"
    assert found[2] == ["out-9", "mx.a.test", "over", "4,000", "no limit", by_pool, "stays so while it is used"]
    step = "100 in 12 h"
    assert found[3] == [
        "out-9", "google", "2 of 7", "31 (+4)", "100", by_pool, f"{step}; more once 38 more are taken",
    ]  # fmt: skip
    held = f"since {words.moment(HELD.held_s)}: {HELD.why}"
    assert found[4] == ["out-9", "yahoo", "2 of 7", "31 (+2)", "100", by_pool, step, held]


def test_one_source_as_json(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """Its rows alone; of two workers that know the same the one that has counted further is believed."""
    before = msgspec.structs.replace(GOOGLE, sent=5, last_sent_s=NOW_S - 90_000)
    asker.answers[Warmups] = [WarmedUp([PLAN, before, WarmupRow("out-8")]), WarmedUp([PLAN, GOOGLE])]

    assert run("out-9", "--json") == 0

    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["source"], row["provider"], row["sent"]) for row in rows] == [
        ("out-9", "", 0),
        ("out-9", "google", 31),
    ]


def test_what_is_not_there(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """No plan at all is no error; a source without one is, with the nearest name; a worker that is down is told."""
    asker.answers[Warmups] = [WarmedUp([]), WarmedUp([])]
    assert run() == 0
    assert capsys.readouterr().out == "no source is being warmed up: no [[warmup]] is configured\n"

    asker.answers[Warmups] = [WarmedUp([PLAN]), WarmedUp([])]
    asker.down.add(1)
    assert run("out-8") == 1
    assert 'no [[warmup]] has the source "out-8"; did you mean out-9?' in capsys.readouterr().err
    assert run() == 1
    assert "worker 1 does not answer" in capsys.readouterr().err


def test_a_source_with_very_many_providers() -> None:
    """The table ends, and says how to see the rest."""
    rows = [PLAN, *(msgspec.structs.replace(GOOGLE, provider=f"mx{at}.test", sent=at) for at in range(100))]

    lines = list(policy_warmup.lines(rows, NOW_S))

    assert len(lines) == 1 + policy_warmup.PROVIDERS_SHOWN + 1
    assert lines[1].split()[1] == "mx99.test"
    assert lines[-1] == "out-9: 70 providers more, to which less was sent; mta policy warmup out-9 --json has all"
