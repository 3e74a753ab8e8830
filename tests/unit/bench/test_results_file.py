"""Figures are kept with what they were measured on, and the measuring of libraries runs from end to end."""

from pathlib import Path

import msgspec
import pytest

from bench import libraries
from bench.results_file import processor, save
from mta import VERSION


class Row(msgspec.Struct):
    """Any figure."""

    what: str
    cpu_us: float


def test_figures_are_written_with_version_and_machine(tmp_path: Path):
    """One readable JSON file, replaced by the next measurement of that name."""
    save("x", [Row("old", 1.0)], tmp_path / "results")

    path = save("x", [Row("new", 2.5)], tmp_path / "results")

    saved = msgspec.json.decode(path.read_bytes())
    assert path == tmp_path / "results" / "x.json"
    assert saved["rows"] == [{"what": "new", "cpu_us": 2.5}]
    assert saved["version"] == VERSION
    assert saved["processor"] == processor()
    assert saved["cores"] >= 1


def test_every_library_is_measured_beside_our_own_code(monkeypatch: pytest.MonkeyPatch):
    """A row for each, with as many figures as rounds, and none of them nothing."""
    monkeypatch.setattr(libraries, "ROUNDS", 1)
    monkeypatch.setattr(libraries, "SIGNATURES", 2)
    monkeypatch.setattr(libraries, "SIGNATURES_SLOW", 1)

    costs = libraries.measure(messages=200)

    assert [cost.what.split(":")[0] for cost in costs] == ["receive"] * 2 + ["send"] * 2 + ["sign"] * 3
    assert all(len(cost.rounds) == 1 for cost in costs)
    assert all(cost.least_cpu_us > 0 for cost in costs if not cost.what.startswith("receive: own"))
