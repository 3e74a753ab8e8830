"""docs/guide/policy-reference.md says what the server reads."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("policy_reference", ROOT / "docs" / "policy_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load()


def test_the_page_is_up_to_date() -> None:
    """`make docs` writes it from the tables."""
    assert reference.PAGE.read_text("utf-8") == reference.render()


def test_every_table_row_is_one_line_of_as_many_cells_as_its_head() -> None:
    """A stroke in a text would shift all that follows."""
    cells = 0
    for line in reference.render().splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        count = line.replace("\\|", "").count("|")
        cells = cells or count
        assert count == cells, line
