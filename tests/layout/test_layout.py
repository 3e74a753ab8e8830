"""The repository keeps its own manners: names, sizes, docstrings, and nothing of anybody's machine."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("mta", "queue", "policies", "bench", "tests", "docs")
LINES_MAX = 600  # 100 to 450 is what a file of one noun takes; above 600 it holds two
MODULES = sorted(path for place in PLACES for path in (ROOT / place).rglob("*.py"))
TEXTS = sorted(
    [path for place in PLACES for kind in ("*.py", "*.toml", "*.md", "*.json") for path in (ROOT / place).rglob(kind)]
    + [path for path in ROOT.glob("*") if path.suffix in {".toml", ".md"} or path.name in {"Makefile", ".gitignore"}]
    + [ROOT / ".ci" / "run"]
)
MACHINE_PATH = re.compile(r"(?<![\w.:$*{}/-])/(?:home|Users|root|work)/\w+")
HOLE = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_guard_sees_the_code():
    """A guard that looks at an empty folder would always be content."""
    assert len(MODULES) > 30
    assert ROOT / "mta" / "model" / "envelope.py" in MODULES
    assert ROOT / "README.md" in TEXTS


def test_queue_is_no_package():
    """`queue/__init__.py` would hide the standard library's `queue`, and fail late."""
    assert not (ROOT / "queue" / "__init__.py").exists()


def test_no_file_or_folder_has_a_name_of_the_standard_library():
    """Such a name hides a module somewhere; only the source root `queue` has one, and it is no package."""
    folders = {parent for path in MODULES for parent in path.relative_to(ROOT).parents if parent.name}
    names = {path.relative_to(ROOT) for path in MODULES if path.stem != "__init__"} | folders

    taken = sorted(str(path) for path in names if path.stem in sys.stdlib_module_names)

    assert taken == ["queue"]


def test_folders_of_tests_are_no_packages():
    """Their names may be those of the rooms they test."""
    assert [name_of(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_opens_with_its_story(path: Path):
    """A file is one noun: its docstring says which, and its length shows it."""
    text = path.read_text("utf-8")

    docstring, lines = ast.get_docstring(ast.parse(text)), text.count("\n")

    assert docstring, "a docstring at the top is missing"
    assert lines <= LINES_MAX, "two nouns: take them apart"


@pytest.mark.parametrize("path", [path for path in MODULES if path.name.startswith("test_")], ids=name_of)
def test_the_docstring_of_a_test_is_a_fact(path: Path):
    """Every test says in a sentence what holds."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]

    silent = [function.name for function in functions if not ast.get_docstring(function)]

    assert functions
    assert silent == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_no_machine_and_no_hole_is_left_in_a_file(path: Path):
    """Neither a path of somebody's machine nor a note of work not done."""
    text = path.read_text("utf-8")

    assert MACHINE_PATH.findall(text) == []
    assert HOLE.findall(text) == []
