"""Tools of other projects, from Debian's packages: unpacked into a cache folder, nothing is installed, no root needed.

A tool that is installed is used as it is. Otherwise its package and the libraries that it needs and that are not
installed are fetched with apt-get, with package lists of our own beside the cache where the system has none.
"""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mta-interop"
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
FETCH_TIMEOUT_S = 300


class Tool(NamedTuple):
    """How a tool is started."""

    command: list[str]
    environment: Mapping[str, str]

    def run(self, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs it to its end; the caller looks at status and output."""
        return subprocess.run(
            [*self.command, *arguments],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def installed(name: str) -> str:
    """Where the system has the tool, or ""."""
    return shutil.which(name) or shutil.which(name, path=":".join(SYSTEM_FOLDERS)) or ""


def unpacked(package: str) -> Path:
    """The folder that holds the package's files; a test that needs it fails where it cannot be had."""
    folder = CACHE / f"{package}-{platform.machine()}"
    if folder.exists():
        return folder
    for needed in ("apt-get", "apt-cache", "dpkg", "dpkg-query"):
        if shutil.which(needed) is None:
            pytest.fail(f"{package} is not installed, and without {needed} it cannot be fetched: install {package}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        _download(package, Path(work))
        files = Path(work) / "files"
        files.mkdir()
        for each in sorted(Path(work).glob("*.deb")):
            _command(["dpkg", "-x", str(each), str(files)], work)
        try:
            files.rename(folder)  # whole or not at all: another test run may be doing the same
        except OSError:
            if not folder.exists():
                raise
    return folder


def _download(package: str, work: Path) -> None:
    options: list[str] = []
    if not _known(package, options, work):
        lists, archives = work / "lists", work / "archives"
        for each in (lists / "partial", archives / "partial"):
            each.mkdir(parents=True)
        options = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={archives}", "-o", "APT::Sandbox::User=root"]
        _command(["apt-get", *options, "update"], str(work))
        if not _known(package, options, work):
            pytest.fail(f"{package} is not installed, and apt-get knows of no such package: install it")
    wanted = [package, *_missing_libraries(package, options, work)]
    _command(["apt-get", *options, "download", *wanted], str(work))


def _known(package: str, options: Sequence[str], work: Path) -> bool:
    said = subprocess.run(
        ["apt-cache", *options, "show", "--no-all-versions", package], cwd=work, capture_output=True, check=False
    )
    return said.returncode == 0 and bool(said.stdout)


def _missing_libraries(package: str, options: Sequence[str], work: Path) -> list[str]:
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    tree = _command(
        ["apt-cache", *options, "depends", "--recurse", *(f"--no-{kind}" for kind in kinds), package], str(work)
    )
    have = _command(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n"], str(work))
    present = {line.split()[0] for line in have.splitlines() if line.endswith(" installed")}
    wanted = re.findall(r"^(lib[a-z0-9.+-]+)$", tree, re.MULTILINE)
    return [name for name in dict.fromkeys(wanted) if name not in present and _known(name, options, work)]


def _command(command: list[str], folder: str) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{' '.join(command)}: not within {FETCH_TIMEOUT_S} s")
    if done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


@pytest.fixture(scope="session")
def smtp_source() -> Tool:
    """Postfix's load generator."""
    found = installed("smtp-source")
    if found:
        return Tool([found], os.environ)
    root = unpacked("postfix")
    folders = [root / "usr/lib/postfix", *sorted(root.glob("usr/lib/*-linux-gnu*")), *sorted(root.glob("lib/*-gnu*"))]
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(str(folder) for folder in folders)}
    return Tool([str(root / "usr/sbin/smtp-source")], environment)


@pytest.fixture(scope="session")
def swaks() -> Tool:
    """The Swiss Army Knife for SMTP."""
    found = installed("swaks")
    if found:
        return Tool([found], os.environ)
    perl = shutil.which("perl")
    if perl is None:
        pytest.fail("swaks needs perl, which is not installed: install perl")
    return Tool([perl, str(unpacked("swaks") / "usr/bin/swaks")], os.environ)
