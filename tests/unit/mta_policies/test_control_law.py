"""The control law: what docs/decisions/0010-the-control-law.md claims is what comes out of the sweep."""

import re
from pathlib import Path

import pytest

from bench.control_law import sweep
from bench.control_law.__main__ import GUIDE, GUIDE_TABLE
from mta_policies.answers import Subject
from mta_policies.provider_model import SILENCE_S, Google, Throttle

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "decisions" / "0010-the-control-law.md").read_text("utf-8")
WAY = Subject(source="out-1")


def _rows(name: str, page: str = PAGE) -> list[list[str]]:
    """A table of the page."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert found is not None, name
    lines = found[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


@pytest.mark.parametrize("severity", list(sweep.SEVERITIES))
def test_the_tables_of_recovery_are_what_comes_out(severity: str):
    """Three rows of each, every cell."""
    page = _rows(f"recovery, {severity}")

    made = sweep.recovery_table(severity, (600, 3600, 86400))

    assert page[0] == made[0]
    assert all(row in page for row in made)


def test_the_guides_table_is_what_comes_out():
    """Three rows of it, every cell; the others say in messages what decision 0010 says in per cent."""
    guide = _rows(GUIDE_TABLE, GUIDE.read_text("utf-8"))
    per_cent = {row[0]: dict(zip(sweep.RECOVERIES, row[1:], strict=True)) for row in _rows("recovery, strict")[1:]}

    made = sweep.guide_table((600, 3600, 86400))

    assert guide[0] == made[0]
    assert len(guide) == 1 + len(sweep.GUIDE_PENALTIES_S)
    assert all(row in guide for row in made)
    for penalty, possible, *cells in guide[1:]:
        for name, cell in zip(sweep.GUIDE_RECOVERIES, cells, strict=True):
            delivered, deferrals = cell.split(" / ")
            share = 100 * int(delivered.replace(",", "")) / int(possible.replace(",", ""))
            assert per_cent[penalty][name] == f"{share:.1f} / {deferrals}"


def test_the_tables_of_rates_are_what_comes_out():
    """A row of each, every cell."""
    made = {
        "rate, blocks for 10 min": sweep.rate_table(600.0, (30,)),
        "rate, blocks for 1 h": sweep.rate_table(3600.0, (30,)),
        "rate, throttles": sweep.throttle_table((30,)),
    }

    assert all(row in _rows(name) for name, rows in made.items() for row in rows)


def test_by_the_letter_only_the_probe_recovers():
    """Strict, for every block that can be made longer: over 99 % against 60 % at most, but a minute's trickle."""
    for _, probe, doubled, _, *others in _rows("recovery, strict")[2:-1]:
        assert min(float(cell.split(" / ")[0]) for cell in (probe, doubled)) > 99
        assert max(float(cell.split(" / ")[0]) for cell in others) <= 60


def test_a_broken_silence_is_punished_and_a_kept_one_is_not():
    """Mail a minute after a refusal makes the block longer; a probe after ten minutes does not."""
    for pause_s, is_longer in ((60.0, True), (SILENCE_S, False)):
        model = Google(1800.0)
        model.block(WAY, 0.0)
        for i in range(1, int(1800 // pause_s)):
            assert model.answer(WAY, i * pause_s) is not None
        assert model.is_blocked(WAY, 1801.0) == is_longer


def test_a_throttle_has_no_grudge():
    """So many in each minute, and the next minute as many again."""
    model = Throttle(3)

    taken = [model.answer(WAY, at_s) is None for at_s in (0, 1, 2, 3, 59, 60, 61)]

    assert taken == [True, True, True, False, False, True, True]
