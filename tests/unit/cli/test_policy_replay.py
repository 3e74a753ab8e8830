"""`mta policy replay`: an event log as the server writes and rotates it, by the policies that are and by others."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mta.cli import main
from mta.reporting.log_reader import parts_of

Printed = pytest.CaptureFixture[str]

START_S = 1_763_769_600.0


def lines(first: int, count: int) -> bytes:
    """Messages that come four a second and are taken two seconds later."""
    found: list[dict[str, Any]] = []
    for number in range(first, first + count):
        message = {"id": f"m{number}", "worker": 0, "v": 1, "sender": "news@shop.test", "size": 900}
        recipient, at_s = f"u{number}@acme.test", START_S + number / 4
        way = {"domain": "acme.test", "site": "mx.acme.test", "policy": "acme", "source": "out-1"}
        reply = {"stage": "content", "code": 250, "text": "taken", "attempt": 1, "queued_s": 2.0}
        found.append({"event": "received", "time": at_s, "recipients": [recipient], **message})
        found.append({"event": "delivered", "time": at_s + 2.0, "recipient": recipient, **message, **way, **reply})
    return b"".join(json.dumps(line).encode() + b"\n" for line in found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, a log of 1,200 messages in three files, and a slower policy beside."""
    monkeypatch.chdir(tmp_path)
    for name, rate in (("policies", "10/s"), ("slower", "2/s")):
        (tmp_path / name).mkdir()
        text = f'match = {{ domains = ["acme.test"] }}\n[limits]\nrate = "{rate}"\n'
        (tmp_path / name / "acme.toml").write_text(text)
    (tmp_path / "mta.toml").write_text('[log]\nevents = "events.jsonl"\n')
    (tmp_path / "events.jsonl.2.gz").write_bytes(gzip.compress(lines(0, 400)))
    (tmp_path / "events.jsonl.1").write_bytes(lines(400, 400) + b'{"event": "deliv')
    (tmp_path / "events.jsonl").write_bytes(lines(800, 400))
    return tmp_path


def test_a_log_is_all_of_its_files(folder: Path):
    """Those that were put aside come first, the oldest at the head."""
    names = [path.name for path in parts_of(folder / "events.jsonl")]

    assert names == ["events.jsonl.2.gz", "events.jsonl.1", "events.jsonl"]


@pytest.mark.usefixtures("folder")
def test_a_change_is_compared(capsys: Printed):
    """At two a second what came in five minutes takes ten."""
    status = main(["policy", "replay", "--policies", "slower", "--json"])
    answer = json.loads(capsys.readouterr().out)
    (acme,) = answer["providers"]

    assert status == 0
    assert (answer["events"], answer["bad_lines"]) == (2400, 1)
    assert acme["name"] == "acme"
    assert {run: acme[run]["delivered"] for run in ("recorded", "now", "new")} == dict.fromkeys(
        ("recorded", "now", "new"), 1200
    )
    assert acme["now"]["drained_s"] == pytest.approx(300.0, abs=5.0)
    assert acme["new"]["drained_s"] == pytest.approx(600.0, abs=5.0)
    assert acme["new"]["bound"][0]["limit"] == "limits.rate"
    assert acme["new"]["backlog_max"] == pytest.approx(600, abs=20)


@pytest.mark.usefixtures("folder")
def test_people_read_a_table(capsys: Printed):
    """A row for the record and for each rehearsal, and below what bound."""
    status = main(["policy", "replay", "--policies", "slower"])
    out = capsys.readouterr().out

    assert status == 0
    assert "2,400 events" in out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith("acme ")] == [
        ["acme", "recorded", "1,200"]
    ]
    assert "10 min" in out
    assert "waited for limits.rate" in out


@pytest.mark.usefixtures("folder")
def test_providers_may_answer_as_a_model(capsys: Printed):
    """One that takes 120 a minute puts off half of 240; in the record nothing was put off."""
    status = main(["policy", "replay", "--provider-model", "throttle:per_minute=120", "--json"])
    answer = json.loads(capsys.readouterr().out)
    (acme,) = answer["providers"]

    assert status == 0
    assert answer["provider_model"] == "throttle:per_minute=120"
    assert (acme["recorded"]["deferred"], acme["recorded"]["delivered"]) == (0, 1200)
    assert acme["now"]["deferred"] > 0
    assert acme["now"]["rules"][0]["rule"] == "any-throttled"
    assert acme["now"]["drained_s"] > acme["recorded"]["drained_s"] + 60


@pytest.mark.usefixtures("folder")
def test_a_model_that_is_not_there_is_told(capsys: Printed):
    """With those that are, before any log is read."""
    assert main(["policy", "replay", "--provider-model", "gogle"]) == 1
    assert capsys.readouterr().err == "there is no provider model gogle; did you mean google?\n"


@pytest.mark.usefixtures("folder")
def test_a_folder_that_is_not_there_is_told(capsys: Printed):
    """It would else be one without any policy of the admin's."""
    assert main(["policy", "replay", "--policies", "slwoer"]) == 1
    assert "slwoer: there is no such folder" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_log_that_is_not_there_is_told(capsys: Printed):
    """By its name, and nothing is printed."""
    assert main(["policy", "replay", "--events", "nothing.jsonl"]) == 1
    assert capsys.readouterr().err == "there is no file nothing.jsonl\n"


@pytest.mark.usefixtures("folder")
def test_a_log_without_mail_is_told(folder: Path, capsys: Printed):
    """Rather than a table of nothing."""
    (folder / "empty.jsonl").write_text("")

    assert main(["policy", "replay", "--events", "empty.jsonl"]) == 1
    assert "no mail in 1 file" in capsys.readouterr().err
