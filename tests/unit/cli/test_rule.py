"""`mta rule` against a face over workers that are made up: what is in force, and what an admin does about it."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mta.admin import kept_file, rules_file
from mta.cli import rule, words
from mta.clock import SystemClock
from mta.reporting.questions import Rules
from mta.testing.admin_rig import FakeAsker, face_in_thread
from mta_policies import layers
from mta_policies.answers import Answer
from mta_policies.firing import Change
from mta_policies.firings import Firings
from mta_policies.rulebook import Action

Printed = pytest.CaptureFixture[str]
KEY = "source out-1 > google"
SHIPPED = 'match = { domains = ["gmail.test"] }\n[[rule]]\nname = "too-fast"\nthen = [{ action = "bounce" }]\n'


class Server(NamedTuple):
    """A face with one firing of two hours that began a minute ago."""

    run: Callable[..., int]
    asker: FakeAsker
    since_s: float

    @property
    def told(self) -> list[Change]:
        """What the worker that tells the event log was told to tell."""
        return [change for asked in self.asker.of(Rules) if asked.tells for change in asked.changes]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mta")
    rule.add(parser.add_subparsers())
    return parser.parse_args(["rule", *arguments])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    since_s = SystemClock().wall_s()
    asker, firings = FakeAsker(), Firings()
    answer = Answer(421, "4.7.0", "too fast", "mail", "mx.gmail.test")
    firings.fire("google", "too-fast", Action("suspend", for_s=7200.0), KEY, answer, since_s, "f1", scope="source")
    kept_file.save(tmp_path / rules_file.NAME, firings.dump())
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "default.toml").write_text("")
    (shipped / "google.toml").write_text(SHIPPED)
    monkeypatch.chdir(tmp_path)
    policies = layers.load(None, shipped=shipped)
    monkeypatch.setattr("getpass.getuser", lambda: "kim")
    monkeypatch.setattr(words, "now_s", lambda: since_s + 60)
    with face_in_thread(asker, tmp_path, policies=lambda: policies) as address:

        def run(*arguments: str) -> int:
            args = parsed(*arguments, "--admin", address)
            return args.run(args)

        yield Server(run, asker, since_s)


def test_what_is_in_force_is_listed(server: Server, capsys: Printed) -> None:
    """For people, and as JSON."""
    assert server.run("list") == 0
    table = capsys.readouterr().out.splitlines()
    assert server.run("list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rules"]

    assert table[0].split() == ["id", "rule", "for", "does", "since", "until", "hits", "last", "reply"]
    assert " ".join(table[1].split()) == (
        f"f1 too-fast {KEY} suspend: nothing goes 1 min ago in 119 min 1 421 4.7.0 too fast"
    )
    assert (row["id"], row["key"], row["until_s"] - row["since_s"]) == ("f1", KEY, 7200.0)


def test_all_about_one_of_it(server: Server, capsys: Printed) -> None:
    """With the file and line of its rule, and what was said last and where."""
    assert server.run("show", "f1") == 0
    pairs = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "last reply" not in line)

    assert pairs["rule"] == "too-fast of the policy google, shipped/google.toml:2"
    assert pairs["for"] == KEY
    assert pairs["until"].endswith(", in 119 min")
    assert pairs["by"] == "rule"
    assert server.run("show", "f1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rule"]["stage"] == "mail"


def test_it_is_ended(server: Server, capsys: Printed) -> None:
    """One worker tells the event log who did it and why; afterwards nothing is in force."""
    done = server.run("cancel", "f1", "--reason", "they called")
    listed = server.run("list")

    assert (done, listed) == (0, 0)
    assert capsys.readouterr().out.splitlines() == [f"cancelled f1: too-fast for {KEY}", "no rule is in force"]
    assert [(each.what, each.by, each.why) for each in server.told] == [("cancelled", "command: kim", "they called")]


def test_its_end_is_set_anew(server: Server, capsys: Printed) -> None:
    """From now on, earlier as well as later."""
    assert server.run("extend", "f1", "--for", "10m", "--reason", "less will do") == 0

    assert capsys.readouterr().out.startswith(f"f1 (too-fast for {KEY}) ends 20")
    ((what, by, why, firing),) = [(each.what, each.by, each.why, each.firing) for each in server.told]
    assert (what, by, why) == ("extended", "command: kim", "less will do")
    assert firing is not None
    assert 0 <= firing.until_s - server.since_s - 600 < 60


@pytest.mark.parametrize("name", ["too-fast", "google/too-fast", "f1"])
def test_a_rule_is_muted_and_has_its_effect_again(server: Server, capsys: Printed, name: str) -> None:
    """By its name, with its policy's, or what it set off alone; it is listed all the while."""
    muted = server.run("mute", name, "--for", "1h", "--reason", "false alarm")
    listed = server.run("list")
    again = server.run("mute", name, "--off")

    lines = capsys.readouterr().out.splitlines()
    assert (muted, listed, again) == (0, 0, 0)
    assert "has no effect until 20" in lines[0]
    assert "suspend: nothing goes (muted)" in lines[2]
    assert lines[3].endswith("is muted, its effect comes back in 59 min (command: kim)")
    assert lines[4].endswith("has its effect again")
    assert [(each.what, each.by) for each in server.told] == [("muted", "command: kim"), ("unmuted", "command: kim")]


UNKNOWN = 'nothing of the id "f2" is in force; `mta rule list` shows what is'


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "f2"], UNKNOWN),
        (["cancel", "f2"], UNKNOWN),
        (["extend", "f2", "--for", "1h"], UNKNOWN),
        (["mute", "too-fats", "--for", "1h"], 'there is no rule "too-fats", and nothing of that id in force; did you'),
        (["mute", "goggle/too-fast", "--for", "1h"], 'there is no policy "goggle"; did you mean google?'),
        (["mute", "default/too-fast", "--for", "1h"], 'there is no rule "too-fast", and nothing of that id in force'),
    ],
)
def test_what_is_not_there_is_told(server: Server, capsys: Printed, arguments: list[str], told: str) -> None:
    """With the nearest name and status 1; nothing is done."""
    assert server.run(*arguments) == 1

    assert told in capsys.readouterr().err
    assert server.told == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mute", "too-fast"], "one of the arguments --for --off is required"),
        (["mute", "too-fast", "--for", "1h", "--off"], "not allowed with argument"),
        (["extend", "f1"], "--for"),
        (["extend", "f1", "--for", "0s"], "say how long: 30m, 2h, 1d"),
        (["extend", "f1", "--for", "2"], 'not a duration: "2"; write "30s"'),
        (["extend", "f1", "--for", "1000d"], "--for is at most"),
    ],
)
def test_wrong_usage(server: Server, capsys: Printed, arguments: list[str], told: str) -> None:
    """Status 2, and what would be right."""
    with pytest.raises(SystemExit) as left:
        server.run(*arguments)

    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert server.told == []


def test_a_worker_that_did_not_hear_of_it_is_told(server: Server, capsys: Printed) -> None:
    """It holds at the others, and the status says that something is missing."""
    server.asker.down = {1}

    assert server.run("cancel", "f1") == 1

    printed = capsys.readouterr()
    assert printed.out == f"cancelled f1: too-fast for {KEY}\n"
    assert "worker 1" in printed.err
