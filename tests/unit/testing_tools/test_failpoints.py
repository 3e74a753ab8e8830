"""Failpoints: what the table names is there, and a process that is armed dies where it says, once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mta.testing.failpoints import FAILPOINTS, Failpoint, arm, environment, hits, seam_of

WRITE = """
import sys
from pathlib import Path
from mta_queue.disk import OsDisk
disk = OsDisk()
for number in range(3):
    disk.append(disk.create(Path(sys.argv[1]) / str(number)), 0, [b"one ", b"group"])
print("all written")
"""


def run(folder: Path, *armed: str) -> subprocess.CompletedProcess[str]:
    """A process like a worker that writes three files of nine bytes, with these failpoints armed."""
    script = folder / "mta.worker"  # what a worker is told by
    script.write_text(WRITE)
    env = {**os.environ, **environment(folder, armed)}
    command = [sys.executable, "mta.worker", "."]
    return subprocess.run(command, env=env, cwd=folder, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("failpoint", FAILPOINTS.values(), ids=list(FAILPOINTS))
def test_every_seam_is_there(failpoint: Failpoint) -> None:
    """A method that was renamed is noticed here, not by a crash that never comes."""
    home, name = seam_of(failpoint)

    assert callable(getattr(home, name))


def test_the_process_dies_at_the_time_that_was_said(tmp_path: Path) -> None:
    """SIGKILL before the second write: the first file is whole, the second empty, the third not there."""
    ended = run(tmp_path, "group.before_write:2")

    assert ended.returncode == -signal.SIGKILL
    assert hits(tmp_path) == {"group.before_write"}
    assert [(tmp_path / each).stat().st_size for each in "01"] == [9, 0]
    assert not (tmp_path / "2").exists()


def test_a_torn_write_is_half_there(tmp_path: Path) -> None:
    """Of nine bytes four are."""
    ended = run(tmp_path, "group.torn:1")

    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "0").read_bytes() == b"one "


def test_it_strikes_once(tmp_path: Path) -> None:
    """The successor of the process that died goes on."""
    run(tmp_path, "group.before_write:1")
    (tmp_path / "0").unlink()

    again = run(tmp_path, "group.before_write:1")

    assert again.stdout == "all written\n"
    assert again.returncode == 0


def test_calls_about_other_files_do_not_count(tmp_path: Path) -> None:
    """Where a failpoint is about segments, lists and marks are made as ever."""
    ended = run(tmp_path, "segment.created:1")

    assert ended.stdout == "all written\n"
    assert hits(tmp_path) == set()


def test_what_is_not_armed_is_not_touched(tmp_path: Path) -> None:
    """The methods of a process that no failpoint is armed in are its own."""
    before = {name: getattr(*seam_of(failpoint)) for name, failpoint in FAILPOINTS.items()}

    arm(environment(tmp_path, []))

    assert {name: getattr(*seam_of(failpoint)) for name, failpoint in FAILPOINTS.items()} == before
    assert run(tmp_path).stdout == "all written\n"


def test_a_failpoint_that_there_is_not(tmp_path: Path) -> None:
    """A slip of the pen is an error, not a crash that never comes."""
    with pytest.raises(KeyError, match="never"):
        arm(environment(tmp_path, ["group.never:1"]))
