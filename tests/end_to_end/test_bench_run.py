"""The bench measures a real server: signed, from the command line, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import msgspec

from bench.figures import Figures
from bench.processes import tree

TIMEOUT_S = 120.0
BENCH = [sys.executable, "-m", "bench", "run"]


def bench(*arguments: str) -> Figures:
    """A run's figures; it must end with 0."""
    done = subprocess.run([*BENCH, *arguments, "--json"], capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=list[Figures])[0]


def test_a_signed_run_is_measured(tmp_path: Path):
    """Every message arrives once, with a signature whose cost is known, and those of the sample are good."""
    found = bench("relay", "--signed", "--messages", "600", "--sessions", "10", "--folder", str(tmp_path))

    assert (found.engine, found.signed, found.messages, found.unsigned) == ("mta", True, 600, 0)
    assert found.verified > 0
    assert 0 < found.signature_us < found.cpu_us


def test_the_mix_reaches_everybody(tmp_path: Path):
    """Ten big providers and hosts of the tail; what is deferred comes again, and each message is there once."""
    found = bench("mix", "--messages", "600", "--folder", str(tmp_path))

    assert found.deferred > 10
    assert len(found.providers) == 11
    assert all(provider.messages for provider in found.providers.values())
    assert found.providers["tail"].connections > 50


def test_a_bench_that_is_stopped_leaves_nothing_behind(tmp_path: Path):
    """SIGTERM between two rounds or in the middle of one: status 130, every process has ended, the folder is empty."""
    endless = [*BENCH, "relay", "--messages", "200", "--rounds", "1000", "--folder", str(tmp_path)]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        started = [each for each in tree([process.pid]) if each != process.pid]

        process.terminate()
        _, err = process.communicate(timeout=TIMEOUT_S)

    assert first.startswith(b"  mta: delivered")
    assert process.returncode == 130
    assert b"stopped" in err
    assert [each for each in started if Path(f"/proc/{each}").exists()] == []
    assert list(tmp_path.iterdir()) == []
