"""`mta suspend` against a face over workers that are made up."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mta.cli import suspend, words
from mta.model.selection import Selection
from mta.reporting.questions import Suspend
from mta.testing.admin_rig import FakeAsker, face_in_thread

Run = Callable[..., int]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mta")
    suspend.add(parser.add_subparsers())
    return parser.parse_args(["suspend", *arguments])


@pytest.fixture
def asker() -> FakeAsker:
    return FakeAsker()


@pytest.fixture
def run(asker: FakeAsker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `mta suspend ...` against the face; -> its exit status."""
    monkeypatch.setattr("getpass.getuser", lambda: "kim")
    with face_in_thread(asker, tmp_path) as address:

        def go(*arguments: str) -> int:
            args = parsed(*arguments, "--admin", address)
            return args.run(args)

        yield go


def test_a_suspension_begins_is_listed_and_ends(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step says in a line what it did; the workers hear of it."""
    begun = run("--sender", "*@shop.test", "--policy", "google", "--for", "2h", "--reason", "too many complaints")
    (held,) = asker.of(Suspend)[0].suspensions
    monkeypatch.setattr(words, "now_s", lambda: held.since_s + 61)
    listed = run("list")
    ended = run("resume", held.id)
    empty = run("list")

    out = capsys.readouterr().out.splitlines()
    assert [begun, listed, ended, empty] == [0, 0, 0, 0]
    assert out[0].startswith("suspended --policy google --sender *@shop.test until ")
    assert out[0].endswith(f": mta suspend resume {held.id} ends it")
    assert out[1].split() == ["id", "what", "since", "until", "by", "reason"]
    row = f"{held.id} --policy google --sender *@shop.test 1 min ago in 119 min kim too many complaints"
    assert out[2].split() == row.split()
    assert out[3:] == ["resumed --policy google --sender *@shop.test", "nothing is suspended"]
    assert held.selection == Selection(sender="*@shop.test", policy="google")
    assert held.until_s - held.since_s == 7200
    assert (held.reason, held.by) == ("too many complaints", "kim")
    assert asker.of(Suspend)[-1].suspensions == []
    assert asker.of(Suspend)[-1].ended_by == "kim"


def test_everything_as_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` at each step."""
    run("--all", "--for", "30m", "--json")
    begun = json.loads(capsys.readouterr().out)
    run("list", "--json")
    listed = json.loads(capsys.readouterr().out)
    run("resume", begun["suspension"]["id"], "--json")
    ended = json.loads(capsys.readouterr().out)

    assert begun["suspension"]["selection"] == {"all": True}
    assert listed == {"suspensions": [begun["suspension"]]}
    assert ended == begun


def test_what_does_not_hold_cannot_be_resumed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1."""
    status = run("resume", "s123")

    assert status == 1
    assert (
        capsys.readouterr().err == 'mta suspend: no suspension "s123" holds; `mta suspend list` shows those that do\n'
    )


def test_a_worker_that_is_down_is_named(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """The suspension holds, the worker hears of it later: status 1, because it does not hold everywhere yet."""
    asker.down = {1}

    status = run("--all", "--for", "30m")

    said = capsys.readouterr()
    assert status == 1
    assert said.out.startswith("suspended --all until ")
    assert said.err == "mta suspend: worker 1 does not answer: it hears of this when it is back\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "say which mail to suspend"),
        (["--for", "2h"], "say which mail to suspend"),
        (["--all"], "say for how long"),
        (["--all", "--for", "0s"], "say for how long"),
        (["--all", "--for", "soon"], "not a duration"),
        (["--all", "--for", "2h", "--reason", "x" * 501], "longer than 500"),
        (["resume"], "resume needs the ID"),
        (["list", "s123"], "list takes no ID"),
        (["list", "--all"], "takes no SELECT"),
        (["resume", "s123", "--for", "2h"], "takes no SELECT"),
        (["explode"], "invalid choice"),
    ],
)
def test_wrong_usage(
    run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    """Status 2 and the right usage; nobody hears of it."""
    with pytest.raises(SystemExit) as end:
        run(*options)

    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("usage: mta suspend SELECT --for TIME")
    assert sentence in said
    assert asker.asked == []


def test_too_long_a_time_is_wrong_usage(run: Run, asker: FakeAsker, capsys: pytest.CaptureFixture[str]) -> None:
    """In the words of whoever types, and nobody is asked."""
    with pytest.raises(SystemExit) as end:
        run("--all", "--for", "500d")

    assert end.value.code == 2
    assert "--for is at most 366 d" in capsys.readouterr().err
    assert asker.asked == []


def test_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 69 and one sentence."""
    args = parsed("list", "--admin", f"unix:{tmp_path / 'none.sock'}")

    status = args.run(args)

    assert status == 69
    assert capsys.readouterr().err.startswith("mta suspend: no server answers at unix:")
