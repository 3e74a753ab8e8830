"""What the documentation shows works: commands, targets, modules, links, and examples of TOML."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import mta.config
from mta.cli import build_parser
from mta.testing.config_files import private_key
from mta_policies import cases, layers

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "queue").glob("*.md")])
PAGES += [ROOT / "bench" / "README.md", ROOT / "bench" / "results" / "README.md"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")
MAKE = re.compile(r"(?:^    |`)make ([a-z]+)", re.MULTILINE)
MODULE = re.compile(r"python -m ([\w.]+)")
FILE_NAMED = re.compile(r"`((?:mta|queue|policies|bench|docs|tests)/[\w./-]+\.(?:py|toml|md|json))`")
TEST = re.compile(r"def (test_\w+)")
CLAIM = re.compile(r"`(test_\w+)`")
TOML = re.compile(r"```toml\n# (\S+)\n(.*?)```", re.DOTALL)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands() -> Iterator[tuple[str, str]]:
    """Every `mta` command in a code block, with the page it stands on."""
    for page in PAGES:
        for line in page.read_text("utf-8").splitlines():
            if line.startswith("    .venv/bin/mta "):
                yield name_of(page), line.strip()


def examples() -> Iterator[tuple[str, str, str]]:
    """Every TOML example: page, the file that its first line names, text."""
    for page in PAGES:
        for file, text in TOML.findall(page.read_text("utf-8")):
            yield name_of(page), file, text


COMMANDS = list(commands())
EXAMPLES = list(examples())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path):
    """Every relative link, and every file of ours that is named, is there."""
    text = page.read_text("utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link and "0000" not in link]

    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [named for named in FILE_NAMED.findall(text) if not (ROOT / named).exists()]

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_targets_and_modules_exist(page: Path):
    """`make WORD` is in the Makefile, `python -m MODULE` can be run."""
    text, makefile = page.read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")

    unknown = [target for target in MAKE.findall(text) if not re.search(rf"^{target}:", makefile, re.MULTILINE)]
    unknown += [module for module in MODULE.findall(text) if importlib.util.find_spec(module) is None]

    assert unknown == []


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command}" for page, command in COMMANDS])
def test_commands_are_understood(page: str, command: str):
    """Each can be typed as it stands: command, action and options are known."""
    arguments = shlex.split(command, comments=True)[1:]

    parsed = build_parser(arguments).parse_args(arguments)

    assert callable(parsed.run)


@pytest.mark.parametrize(("page", "file", "text"), EXAMPLES, ids=[f"{page}: {file}" for page, file, _ in EXAMPLES])
def test_examples_are_valid(page: str, file: str, text: str, tmp_path: Path):
    """A TOML block whose first line names its file is accepted as that file."""
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, "utf-8")
    for key_file in re.findall(r'^key += "([^"]+)"', text, re.MULTILINE):
        (tmp_path / key_file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key_file).write_text(private_key())
    for folder in re.findall(r'^\[signing\]\ndirectory += "([^"]+)"', text, re.MULTILINE):
        (tmp_path / folder).mkdir(parents=True)

    folder = Path(file).parts[0]
    if not folder.startswith("policies"):
        mta.config.load(path)
    else:
        policies = layers.load(tmp_path / folder, [])
        assert path.stem in policies.policies
        assert policies.warnings == []
        own = [test for test in policies.tests if not test.is_shipped]
        assert [result.mismatches for result in cases.run(policies, own) if not result.is_good] == []


def test_what_is_claimed_is_tested():
    """Every test that docs/security.md names exists, and every line names one."""
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    tests = {name for path in (ROOT / "tests").rglob("test_*.py") for name in TEST.findall(path.read_text("utf-8"))}

    silent = [row for row in rows if not CLAIM.findall(row)]
    missing = [claim for row in rows for claim in CLAIM.findall(row) if claim not in tests]

    assert len(rows) > 30
    assert silent == []
    assert missing == []


def test_there_is_something_to_check():
    """The patterns still find what they look for."""
    assert len(COMMANDS) > 8
    assert len(EXAMPLES) > 6
    assert all("# " in text or "= " in text for _, _, text in EXAMPLES)


def test_the_readme_begins_with_the_two_commands():
    """Whoever opens it sees what to type."""
    top = (ROOT / "README.md").read_text("utf-8").splitlines()[:6]

    assert any(line.startswith("    make demo") for line in top)
    assert any(line.startswith("    make test") for line in top)
