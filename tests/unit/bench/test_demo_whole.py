"""The demo as a whole, with few messages: what `make demo` does, from the first line to the last."""

import subprocess
import sys
from pathlib import Path

import msgspec

from bench.rig import ROOT

MESSAGES = 400
TIMEOUT_S = 120


def test_the_demo_shows_that_all_is_well(tmp_path: Path):
    """Exit status 0, four things that hold, and files to look at; every event is one line of JSON."""
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "bench.demo", "--messages", str(MESSAGES), "--folder", str(folder)]

    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    claims = [line for line in shown.stdout.splitlines() if line.startswith(("  ✓ ", "  ok "))]
    assert len(claims) == 4
    events = [msgspec.json.decode(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]
    ended = [each["event"] for each in events if each["event"] in ("delivered", "bounced")]
    assert len(ended) == MESSAGES + ended.count("bounced")  # of each bounced one a notification was delivered
    assert (folder / "message.eml").read_bytes().startswith(b"DKIM-Signature: ")
    assert b"multipart/report" in (folder / "notification.eml").read_bytes()
