"""`mta check`."""

import json
from pathlib import Path

import pytest

from mta.cli import main
from mta_policies.layers import shipped_names

Printed = pytest.CaptureFixture[str]
POLICIES = len(shipped_names())


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mta.toml"


def test_a_right_configuration_is_in_order(file: Path, capsys: Printed) -> None:
    """One line says so, with what there is; exit status 0."""
    file.write_text("")

    status = main(["check"])

    assert status == 0
    assert capsys.readouterr().out == f"mta.toml: in order: 1 listener, {POLICIES} policies\n"


def test_every_problem_is_told_with_its_line(file: Path, capsys: Printed) -> None:
    """All at once, also those of included files; exit status 1."""
    file.write_text('workes = 1\n\n[queue]\ndurability = "no"\ninclude = 1\n')
    (file.parent / "conf.d").mkdir()
    (file.parent / "conf.d" / "a.toml").write_text("[dns]\nnameserver = []\n")

    status = main(["check", "--config", "mta.toml"])

    assert status == 1
    assert capsys.readouterr().out.splitlines() == [
        "mta.toml:1: unknown key workes; did you mean workers?",
        'mta.toml:4: durability: expected "fsync" or "os", got "no"',
        "mta.toml:5: unknown key include"
        "; known: directory, disk_free_min, durability, memory_max, message_size_max, recipients_max",
        "conf.d/a.toml:2: unknown key nameserver; did you mean nameservers?",
        "mta.toml: 4 problems",
    ]


def test_what_is_hardly_meant_is_a_warning(file: Path, capsys: Printed) -> None:
    """Told with its line; exit status 0."""
    file.write_text('[signing]\nunsigned = "refuse"\n')

    status = main(["check"])

    assert status == 0
    assert capsys.readouterr().out.splitlines() == [
        'mta.toml:2: warning: unsigned = "refuse" without any key: all mail is refused',
        f"mta.toml: in order: 1 listener, {POLICIES} policies, 1 warning",
    ]


def test_a_listener_with_tls_is_not_in_order(file: Path, capsys: Printed) -> None:
    """It would be served in clear: exit status 1."""
    file.write_text('[[listener]]\ntls = "starttls"\ncertificate = "c.pem"\nkey = "c.pem"\n')
    (file.parent / "c.pem").write_text("")

    status = main(["check"])

    assert status == 1
    assert "has no effect yet, and without it this listener would speak in clear" in capsys.readouterr().out


def test_a_missing_configuration_is_a_problem(file: Path, capsys: Printed) -> None:
    """Not a traceback."""
    status = main(["check", "--config", "none.toml"])

    assert status == 1
    assert capsys.readouterr().out.splitlines()[0] == "none.toml: cannot be read: No such file or directory"


def test_the_answer_may_be_json(file: Path, capsys: Printed) -> None:
    """Problems and warnings as objects with file, line and message."""
    file.write_text('workers = "x"\n[signing]\nunsigned = "refuse"\n')

    status = main(["check", "--json"])

    assert status == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["problems"] == [
        {"file": "mta.toml", "line": 1, "message": 'workers: expected a whole number, got "x"'}
    ]
    assert [(one["line"], one["message"]) for one in answer["warnings"]] == [
        (3, 'unsigned = "refuse" without any key: all mail is refused')
    ]


OWN = (
    'match = { domains = ["acme.example"] }\n'
    '[limits]\nconnections = 20\nmessages_per_connection = 50\nconnection_rate = "none"\nrate = "none"\n'
    "[source_limits]\nconnections = 10\n"
)
TAKEN = "at most, from one source to one site, where a delivery takes 1s and a new connection 0.5s:"


def test_it_says_what_the_limits_of_ones_own_policies_amount_to(file: Path, capsys: Printed) -> None:
    """10 connections, each 50 messages in 50.5 seconds: 594 a minute. Others' are left out."""
    file.write_text("")
    (file.parent / "policies").mkdir()
    (file.parent / "policies" / "acme.toml").write_text(OWN)
    (file.parent / "policies" / "slow.toml").write_text('match = { mx = ["*.slow"] }\n[limits]\nrate = "30/h"\n')

    status = main(["check"])

    assert status == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "",
        TAKEN,
        "policy  connections  messages each  messages a minute  because of",
        "acme             10             50                594  source_limits.connections",
        "slow             10            100                0.5  limits.rate",
    ]


def test_a_policy_without_limits_amounts_to_no_limit(file: Path, capsys: Printed) -> None:
    """Nothing decides; in JSON it is null."""
    file.write_text("")
    (file.parent / "policies").mkdir()
    text = "[limits]\nconnections = 0\nmessages_per_connection = 0\nconnection_rate = 'none'\nrate = 'none'\n"
    (file.parent / "policies" / "acme.toml").write_text(text)

    main(["check"])
    people = capsys.readouterr().out
    main(["check", "--json"])
    (amount,) = json.loads(capsys.readouterr().out)["limits"]

    assert people.splitlines()[-1].split() == ["acme", *("no", "limit") * 3]
    assert amount == {
        "policy": "acme",
        "connections": 0,
        "messages_per_connection": 0,
        "per_minute": None,
        "decides": "",
    }


def test_limits_across_destinations_are_listed(file: Path, capsys: Printed) -> None:
    """Each with all that it says, and its place."""
    file.write_text(
        '[[limit]]\nper = "tenant"\nrate = ["20/s", "40000/h"]\n'
        'quota = { count = 300000, zone = "Asia/Tokyo" }\n[[limit]]\nper = "source"\nwindow = "08:00-22:00"\n'
    )

    status = main(["check"])

    assert status == 0
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[-2:]] == [
        "tenant * 20/s and 40000/h; 300000 per day (Asia/Tokyo) mta.toml:1",
        "source * 08:00-22:00 UTC mta.toml:5",
    ]


def test_the_limits_of_all_policies_are_said_where_asked_for(file: Path, capsys: Printed) -> None:
    """Shipped ones too."""
    file.write_text("")

    main(["check", "--limits"])
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) == 1 + 3 + POLICIES
    assert lines[2] == TAKEN
    assert any(line.startswith("google ") for line in lines)


def test_wrong_usage_is_exit_status_2(file: Path, capsys: Printed) -> None:
    """As everywhere."""
    with pytest.raises(SystemExit) as raised:
        main(["check", "--confg", str(file)])

    assert raised.value.code == 2
    assert "--confg" in capsys.readouterr().err
