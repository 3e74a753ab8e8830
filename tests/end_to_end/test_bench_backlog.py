"""The bench's backlog on a real server: small ones, from the command line."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.backlog import space

TIMEOUT_S = 120.0
MESSAGES = 300


def backlog(part: str, folder: Path) -> dict[str, object]:
    """A run's figures; it must end with 0."""
    command = [sys.executable, "-m", "bench.backlog", part, "--messages", str(MESSAGES), "--idle", "0.2"]
    done = subprocess.run(
        [*command, "--folder", str(folder), "--json"], capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


def test_mail_that_was_deferred(tmp_path: Path):
    """It waits, is held and released, survives a restart and arrives, each message once."""
    found = backlog("deferred", tmp_path)

    commands = {str(each["words"]).split()[0]: each for each in found["commands"]}  # type: ignore[union-attr]
    assert commands["hold"]["touched"] == commands["release"]["touched"] == MESSAGES // 10
    assert found["disk_mb"] > MESSAGES * 4_096 / 1e6  # type: ignore[operator]
    assert found["start_s"] <= found["start_known_s"]  # type: ignore[operator]


def test_a_little_that_waits_among_much_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same load goes through a server that copies and one that never does; what waits is there in the end."""
    monkeypatch.setattr(space, "REST_S", 0.5)

    found = asyncio.run(space.space(tmp_path, MESSAGES, pairs=1))

    assert space.FIRST < found.waiting < space.FIRST + MESSAGES / 5
    assert found.waiting * space.SIZE / 1e6 <= found.living_mb <= found.used_mb <= found.used_most_mb
    assert found.copied_mb == found.over_bound_s == 0  # a few segments are below any bound


def test_a_destination_that_is_down(tmp_path: Path):
    """All is accepted meanwhile, and arrives when it is back, each message once."""
    found = backlog("outage", tmp_path)

    assert found["messages"] == MESSAGES
    assert found["waiting_mb"] > 0  # type: ignore[operator]
    assert -1 <= found["order"] <= 1  # type: ignore[operator]
