"""`mta policy test`: which tests of policy files come out otherwise, in a table or as JSON."""

import json
import re
import textwrap
from pathlib import Path

import pytest

from mta.cli import EXIT_DONE, EXIT_USAGE, EXIT_WRONG, main

Printed = pytest.CaptureFixture[str]

GOOD = """\
[[rule]]
name = "own"
when = { code = "550", text = "wait a bit" }
then = [{ action = "defer", after = "10m" }]
[[test]]
reply = "550 please wait a bit"
rule = "own"
action = "defer"
after = "10m"
"""
WRONG = GOOD + '[[test]]\nreply = "550 no"\nrule = "own"\ncategory = "other"\naction = "defer"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "mta.toml").write_text('[policies]\ndirectory = "policies"\n')
    return tmp_path


def test_all_tests_of_a_file_that_are_right(folder: Path, capsys: Printed) -> None:
    """Say so in a line."""
    (folder / "policies" / "google.toml").write_text(GOOD)

    status = main(["policy", "test", "policies/google.toml"])

    assert status == EXIT_DONE
    assert capsys.readouterr().out == "1 test, all as expected\n"


def test_what_came_out_otherwise_stands_in_a_table(folder: Path, capsys: Printed) -> None:
    """File and line of the test, what was expected, what came."""
    (folder / "policies" / "google.toml").write_text(WRONG)

    status = main(["policy", "test", "policies/google.toml"])

    assert status == EXIT_WRONG
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["test", "reply", "what", "expected", "came"],
        ["policies/google.toml:10", "550", "no", "rule", "own", "none"],
        ["action", "defer", "none"],
        [],
        ["2", "tests,", "1", "failed"],
    ]


def test_a_draft_is_tried_before_it_is_put_there(folder: Path, capsys: Printed) -> None:
    """As the admin's file of its name, over the shipped one."""
    (folder / "policies" / "google.toml").write_text(WRONG)
    (folder / "draft").mkdir()
    (folder / "draft" / "google.toml").write_text(GOOD)

    status = main(["policy", "test", "draft/google.toml"])

    assert status == EXIT_DONE
    assert capsys.readouterr().out == "1 test, all as expected\n"


def test_all_are_the_shipped_ones_too(folder: Path, capsys: Printed) -> None:
    """And those of tenants; shipped tests do not mind what the admin's files say."""
    shop = folder / "policies" / "tenants" / "shop"
    shop.mkdir(parents=True)
    (shop / "google.toml").write_text(WRONG)
    (folder / "policies" / "google.toml").write_text('[[rule]]\nname = "everything"\n')

    status = main(["policy", "test", "--all", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert status == EXIT_WRONG
    assert told["tests"] > 100
    assert [(one["file"], one["line"], one["policy"], one["tenant"]) for one in told["failed"]] == [
        ("policies/tenants/shop/google.toml", 10, "google", "shop")
    ]
    assert [wrong["what"] for wrong in told["failed"][0]["mismatches"]] == ["rule", "action"]


def test_mistakes_of_a_file_come_before_its_tests(folder: Path, capsys: Printed) -> None:
    """All of them, one a line."""
    (folder / "policies" / "google.toml").write_text('[[rule]]\nname = "a"\nwhn = 1\n')

    status = main(["policy", "test", "policies/google.toml"])

    assert status == EXIT_WRONG
    assert capsys.readouterr().err == "policies/google.toml:3: unknown key whn; did you mean when?\n"


@pytest.mark.parametrize("arguments", [[], ["policies/google.toml", "--all"]])
def test_one_must_say_which(folder: Path, capsys: Printed, arguments: list[str]) -> None:
    """A file or all."""
    (folder / "policies" / "google.toml").write_text(GOOD)

    assert main(["policy", "test", *arguments]) == EXIT_USAGE
    assert "--all" in capsys.readouterr().err


def test_a_file_that_is_not_there(folder: Path, capsys: Printed) -> None:
    """Is named."""
    del folder

    assert main(["policy", "test", "policies/none.toml"]) == EXIT_WRONG
    assert capsys.readouterr().err == "there is no file policies/none.toml\n"


def test_a_file_without_tests_has_none(folder: Path, capsys: Printed) -> None:
    """Nothing is wrong with it."""
    (folder / "policies" / "google.toml").write_text("")

    assert main(["policy", "test", "policies/google.toml"]) == EXIT_DONE
    assert capsys.readouterr().out == "no tests\n"


def test_the_guide_shows_what_is_printed(folder: Path, capsys: Printed) -> None:
    """Its example is right as it stands; with the slip that it tells of, the table is the one it shows."""
    page = (Path(__file__).parents[3] / "docs" / "guide" / "policy-files.md").read_text()
    example = next(
        text
        for text in re.findall(r"```toml\n# policies/example-isp.toml\n(.*?)```", page, re.DOTALL)
        if "[[test]]" in text
    )
    shown = re.search(r"^    test +reply.*?^    2 tests, 1 failed$", page, re.DOTALL | re.MULTILINE)
    assert shown is not None
    file = folder / "policies" / "example-isp.toml"
    file.write_text(example)
    status = main(["policy", "test", "policies/example-isp.toml"])
    right = capsys.readouterr().out

    file.write_text(example.replace("count = 2, in", "count = 3, in"))
    wrong = main(["policy", "test", "policies/example-isp.toml"])

    assert (status, right) == (EXIT_DONE, "2 tests, all as expected\n")
    assert (wrong, capsys.readouterr().out) == (EXIT_WRONG, textwrap.dedent(shown[0]) + "\n")
