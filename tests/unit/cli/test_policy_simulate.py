"""`mta policy simulate`: how long a campaign takes, what binds and where that is written."""

import json
from pathlib import Path

import pytest

from mta.cli import main

Printed = pytest.CaptureFixture[str]

SIMULATE = ["policy", "simulate", "--provider", "acme", "--start", "2026-12-01T08:00+00:00", "--delivery-time", "500ms"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sources, a tenant with a pool of its own, a provider, and a slower policy beside."""
    monkeypatch.chdir(tmp_path)
    for name, rate in (("policies", "10/s"), ("slower", "2/s")):
        (tmp_path / name).mkdir()
        rule = '[[rule]]\nname = "acme-too-fast"\nwhen = { code = "451" }\n'
        rule += 'then = [{ action = "slow", rate = "1/s", for = "10m" }]\n'
        text = f'match = {{ domains = ["acme.test"] }}\n\n[limits]\nrate = "{rate}"\nmessage_size_max = "1MB"\n{rule}'
        (tmp_path / name / "acme.toml").write_text(text)
    (tmp_path / "mta.toml").write_text(
        '[[source]]\nname = "out-1"\nipv4 = "192.0.2.1"\n[[source]]\nname = "out-2"\nipv4 = "192.0.2.2"\n'
        '[[pool]]\nname = "default"\nsources = { out-1 = 3, out-2 = 1 }\n'
        '[[pool]]\nname = "shop"\nsources = { out-2 = 1 }\n[[tenant]]\nname = "shop"\npool = "shop"\n'
    )
    return tmp_path


def test_what_binds_is_named_with_its_line(capsys: Printed):
    """A rate of ten a second for each source: 1,200 messages from one take two minutes, at half of it ten."""
    status = main([*SIMULATE, "--messages", "1,200", "--source", "out-1", "--policies", "slower", "--json"])
    answer = json.loads(capsys.readouterr().out)

    assert status == 0
    assert (answer["provider"], answer["messages"], answer["sources"]) == ("acme", 1200, {"out-1": 3})
    assert {run: answer[run]["delivered"] for run in ("now", "new")} == {"now": 1200, "new": 1200}
    assert answer["now"]["drained_s"] == pytest.approx(120.0, abs=3.0)
    assert answer["new"]["drained_s"] == pytest.approx(600.0, abs=3.0)
    bound = answer["new"]["bound"][0]
    assert (bound["limit"], bound["value"]) == ("limits.rate", "2/s")
    assert bound["origin"].endswith("slower/acme.toml:4")


def test_people_read_what_it_comes_to(capsys: Printed):
    """How long, how fast, what binds, which rules, and in one line what the others change."""
    model = "throttle:per_minute=300"
    status = main(
        [*SIMULATE, "--messages", "2000", "--source", "out-1", "--provider-model", model, "--policies", "slower"]
    )
    out = capsys.readouterr().out

    assert status == 0
    assert "2,000 messages to acme from out-1" in out
    assert f"the provider answers as {model}" in out
    assert "now: 2,000 delivered after " in out
    assert "waited for limits.rate = 2/s (slower/acme.toml:4)" in out
    assert "rule acme-too-fast (policies/acme.toml:6) matched " in out
    assert ", first after " in out
    assert "\nnew against now: the last is delivered " in out


def test_mail_leaves_from_the_pool(capsys: Printed):
    """Of everybody or of the tenant; a domain stands for the policy that names it."""
    found = []
    for whose in ([], ["--tenant", "shop"]):
        assert main(["policy", "simulate", "--provider", "acme.test", "--messages", "8", "--json", *whose]) == 0
        answer = json.loads(capsys.readouterr().out)
        found.append((answer["provider"], answer["sources"]))

    assert found == [("acme", {"out-1": 3, "out-2": 1}), ("acme", {"out-2": 1})]


def test_what_is_too_large_never_goes(capsys: Printed):
    """It is refused at once, and the limit says why."""
    status = main([*SIMULATE, "--messages", "10", "--size", "2MB"])

    assert status == 0
    assert "0 delivered; 10 bounced" in (out := capsys.readouterr().out)
    assert "limits.message_size_max = 1MB (policies/acme.toml:5): the message is larger" in out


def test_it_ends_when_told_to(capsys: Printed):
    """After a minute at ten a second about six hundred are out."""
    status = main([*SIMULATE, "--messages", "5000", "--source", "out-1", "--for", "1m", "--json"])
    now = json.loads(capsys.readouterr().out)["now"]

    assert status == 0
    assert now["delivered"] == pytest.approx(595, abs=10)
    assert now["waiting"] == 5000 - now["delivered"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--provider", "acne"], "there is no policy acne, and none names such a domain; did you mean acme?"),
        (["--source", "out-3"], "there is no source out-3; did you mean out-"),
        (["--tenant", "shoe"], "there is no tenant shoe; did you mean shop?"),
        (["--rate", "fast"], 'not a rate: "fast"'),
        (["--start", "tomorrow"], '--start: not a date: tomorrow; write "2026-12-01T08:00"'),
        (["--policies", "nowhere"], "nowhere: there is no such folder"),
        (["--provider-model", "gogle"], "did you mean google?"),
        (["--html", "nowhere/at/all.html"], "nowhere/at/all.html: No such file or directory"),
    ],
)
def test_what_is_not_there_is_told(capsys: Printed, arguments: list[str], told: str):
    """On standard error, with the nearest name, and status 1."""
    assert main([*SIMULATE, "--messages", "10", *arguments]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("count", ["1k", "0", "-5", "2,000,000,000", "1.5"])
def test_a_number_of_messages(capsys: Printed, count: str):
    """What is none is wrong usage."""
    with pytest.raises(SystemExit) as left:
        main([*SIMULATE, f"--messages={count}"])

    assert left.value.code == 2
    assert f"not a number from 1 to 1,000,000,000: {count}" in capsys.readouterr().err


def test_a_picture_is_drawn(folder: Path, capsys: Printed):
    """Beside what is printed; its times are what has gone by."""
    assert main([*SIMULATE, "--messages", "3000", "--policies", "slower", "--html", "campaign.html"]) == 0

    page = (folder / "campaign.html").read_text("utf-8")
    assert "3,000 messages to acme" in page
    assert "written: campaign.html" in capsys.readouterr().err
    assert ">10 min</span>" in page
