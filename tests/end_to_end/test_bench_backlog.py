"""The bench's backlog on a real server: small ones, from the command line."""

import json
import subprocess
import sys
from pathlib import Path

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


def test_a_destination_that_is_down(tmp_path: Path):
    """All is accepted meanwhile, and arrives when it is back, each message once."""
    found = backlog("outage", tmp_path)

    assert found["messages"] == MESSAGES
    assert found["waiting_mb"] > 0  # type: ignore[operator]
    assert -1 <= found["order"] <= 1  # type: ignore[operator]
