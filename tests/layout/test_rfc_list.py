"""Citations have one form, and docs/rfc.md lists them all."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rfc_list", ROOT / "docs" / "rfc_list.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rfc_list = load()
CODE = [path for place in ("mta", "queue", "policies") for path in (ROOT / place).rglob("*.py")]


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("RFC 5321 4.5.2", {(5321, "4.5.2")}),
        ("(RFC 5321 4.5.2).", {(5321, "4.5.2")}),
        ("see RFC 6409, then RFC 5321 4.1.1.", {(6409, ""), (5321, "4.1.1")}),
        ("RFC 5321 2", {(5321, "2")}),
        ("RFC 5321 D.1", {(5321, "D.1")}),
        ("RFC 1035 A records", {(1035, "")}),
        ("as in 5321", set()),
    ],
)
def test_citations_are_found(text: str, cited: set[tuple[int, str]]):
    """Number and section; a section ends where the sentence does."""
    assert rfc_list.citations(text) == cited


@pytest.mark.parametrize(
    "text", ["rfc 5321", "RFC5321", "RFC-5321 4.5", "RFC 5321, section 4.5", "RFC 5321 section 4", "RFC 5321 §4.5"]
)
def test_other_forms_are_noticed(text: str):
    """A citation that the list would miss, or take for the whole RFC, is malformed."""
    assert rfc_list.malformed(text)
    assert not rfc_list.malformed("RFC 5321 4.5, RFC 6409")


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_code_cites_in_the_one_form(path: Path):
    """`RFC 5321 4.5.2`, nothing else."""
    assert rfc_list.malformed(path.read_text("utf-8")) == []


def test_the_list_is_in_step_with_the_code():
    """`make docs` writes it again."""
    assert (ROOT / "docs" / "rfc.md").read_text("utf-8") == rfc_list.render()
