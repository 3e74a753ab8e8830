"""`python -m bench.rules` measures what it says."""

import re

import pytest

from bench import rules
from mta_policies import layers


def test_every_policy_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    """With all columns filled."""
    status = rules.main(["--turns", "3", "--rounds", "1"])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert [line.split(",")[0].strip() for line in lines if re.search(r", \d+ rules", line)] == list(rules.NAMES)
    assert any(line.startswith(f"loading {len(layers.shipped_names())} policies: ") for line in lines)


def test_the_answers_find_rules() -> None:
    """Otherwise only the table of categories would be measured."""
    google = layers.load(None).policies["google"]
    judge, subject = rules.judge_of(google)

    found = [judge.judge(answer, subject, rules.NOW_S).rule for answer in rules.ANSWERS]

    assert any(found)
