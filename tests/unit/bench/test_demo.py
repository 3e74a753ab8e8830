"""The demo around its run: what it shows, where it writes, and how it ends."""

import fcntl
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.demo import Demo, DemoError, fresh, main, table, to_try, where_next
from bench.demo_cast import PROVIDERS, Mailing, provider_of
from bench.demo_checks import Check, Seen
from bench.demo_screen import Screen
from bench.fates import Fates
from bench.load import Result
from bench.rig import ROOT, Rig, SinkCounts


def seen_by(fates: Fates) -> Seen:
    counts = {
        each.name: SinkCounts(
            address="127.0.0.2", port=25, connections_max=2, connections_over=0, mails_over=0, messages=5,
            recipients=5, duplicates=0, replies={},
        )
        for each in PROVIDERS
    }  # fmt: skip
    return Seen(Mailing(10, 25), Result(), fates, counts, [], [])


@pytest.fixture
def fates() -> Fates:
    """Five messages accepted and four delivered by each provider."""
    fates = Fates(Path("none"), provider_of())
    for tally in fates.tallies.values():
        tally.accepted = 5
        tally.counts.update(delivered=4, bounced=1)
        tally.latencies_s = [0.1] * 4
    return fates


def test_the_table_has_a_line_for_every_provider(fates: Fates):
    """What was told, and on a wide terminal the connections beside those that are allowed."""
    lines = table(fates, seen_by(fates), columns=120).splitlines()

    assert [line.split()[0] for line in lines[2:]] == [each.name for each in PROVIDERS]
    assert re.search(r"strict +5 +4 +0 +1 +0/s +100 ms +100 ms +2 of 3$", lines[-1])


def test_the_table_fits_a_narrow_terminal(fates: Fates):
    """Eighty columns have room for all but the connections, also for thousands of messages."""
    for tally in fates.tallies.values():
        tally.accepted = 99_999
        tally.counts.update(delivered=99_995, bounced=99_999)
        tally.latencies_s = [99.4]

    text = table(fates, seen_by(fates), columns=80)

    assert max(map(len, text.splitlines())) <= 80
    assert "connections" not in text


def test_what_does_not_hold_is_said_and_fails(tmp_path: Path):
    """Every claim that holds has its tick, everything wrong its line, and the demo has failed."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    demo = Demo(Rig(tmp_path), Screen(out, columns=80), messages=10)

    with pytest.raises(DemoError, match="2 of"):
        demo.judge([Check("All is well.", []), Check("None came twice.", ["a came twice", "b came twice"])])

    out.seek(0)
    assert re.findall(r"^  (\S+) (.*)$", out.read(), re.MULTILINE) == [
        ("✓", "All is well."),
        ("✗", "a came twice"),
        ("✗", "b came twice"),
    ]


def test_a_folder_of_an_earlier_demo_is_emptied(tmp_path: Path):
    """What the last one left goes away, folders included."""
    (tmp_path / "demo" / "queue").mkdir(parents=True)
    (tmp_path / "demo" / "sink.json").touch()

    with fresh(tmp_path / "demo"):
        left = list((tmp_path / "demo").iterdir())

    assert left == []


def test_a_demo_that_failed_early_does_not_block_the_next(tmp_path: Path):
    """A folder in which the sink never started is known by the mark that is made first."""
    with fresh(tmp_path / "demo"):
        (tmp_path / "demo" / "shop.test.demo.pem").touch()

    with fresh(tmp_path / "demo"):
        left = list((tmp_path / "demo").iterdir())

    assert left == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path):
    """A folder that no demo made is not emptied."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()

    with pytest.raises(DemoError, match="no demo made"), fresh(tmp_path / "letters"):
        pass

    assert (tmp_path / "letters" / "dear.txt").exists()


def test_two_demos_do_not_share_a_folder(tmp_path: Path):
    """The second one says so."""
    with (tmp_path / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(DemoError, match="another demo"), fresh(tmp_path / "demo"):
            pass


def test_a_demo_that_cannot_begin_fails_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Exit status 1, and the reason on standard error."""
    (tmp_path / "dear.txt").touch()

    status = main(["--folder", str(tmp_path)])

    assert status == 1
    assert "no demo made" in capsys.readouterr().err


@pytest.mark.parametrize("place", [lambda tmp: ROOT / "var" / "demo", lambda tmp: tmp])
def test_the_last_word_names_the_folder(place: Callable[[Path], Path], tmp_path: Path):
    """Relative to the checkout where it is in it."""
    folder = place(tmp_path)

    hints = where_next(folder) + to_try(folder)

    shown = "var/demo" if folder != tmp_path else str(tmp_path)
    assert f"{shown}/events.jsonl" in [what for what, _ in hints]
    assert any(f"--config {shown}/mta.toml" in what for what, _ in hints)


def test_samples_that_there_are_are_named(tmp_path: Path):
    """A run with few messages may have had none that could not be delivered."""
    (tmp_path / "message.eml").touch()

    named = [Path(what).name for what, _ in where_next(tmp_path)]

    assert "message.eml" in named
    assert "notification.eml" not in named


def test_less_than_one_message_is_no_demo(capsys: pytest.CaptureFixture[str]):
    """Wrong usage, said as such."""
    with pytest.raises(SystemExit) as ended:
        main(["--messages", "0"])

    assert ended.value.code == 2
    assert "at least one" in capsys.readouterr().err


def test_what_is_to_be_read_is_there():
    """Every document that the last word names exists."""
    named = [what for what, _ in where_next(ROOT / "var" / "demo") if what.endswith(".md")]

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_what_is_to_be_typed_is_understood(capsys: pytest.CaptureFixture[str]):
    """The mta commands that are suggested exist, with these options: --help after them is no mistake."""
    from mta.cli import main as mta

    hints = where_next(Path("/nowhere")) + to_try(Path("/nowhere"))
    commands = [shlex.split(what)[1:] for what, _ in hints if what.startswith(".venv/bin/mta ")]
    for words in commands:
        with pytest.raises(SystemExit) as ended:
            mta([*words, "--help"])

        assert ended.value.code == 0, words
    assert len(commands) == 4
    assert "usage: mta queue" in capsys.readouterr().out
