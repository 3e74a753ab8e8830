"""Processes seen from outside: who descends from whom, and what they have used, ended ones too."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench.processes import Memory, MemoryWatch, cpu_s, cpu_s_by_name, memory, name_of, tree

BUSY_S = 0.3
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=subprocess.PIPE)
input()
child.communicate(b"\\n")
print("alone", flush=True)
input()
"""
BUSY_AND_GONE = f"""
import subprocess, sys
work = "import time\\nwhile time.process_time() < {BUSY_S}: pass"
subprocess.run([sys.executable, "-c", work])
print("done", flush=True)
input()
"""
LARGE = """
held = b"x" * 50_000_000
print("large", flush=True)
input()
"""


class Process:
    """A Python that does what it is told, line by line."""

    def __init__(self, text: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[Process]:
    running = Process(request.param)
    yield running
    running.close()


@pytest.mark.parametrize("process", [PARENT], indirect=True)
def test_a_tree_holds_the_living(process: Process):
    """Parent and child, each once; the parent alone when the child has ended."""
    pid = process.process.pid
    assert process.line() == b"up\n"
    with_child = tree([pid])
    twice = tree([pid, *with_child])

    process.go_on()
    assert process.line() == b"alone\n"

    assert len(with_child) == 2
    assert with_child[0] == pid
    assert sorted(twice) == sorted(with_child)
    assert tree([pid]) == [pid]


def test_who_is_gone_has_no_tree_to_speak_of():
    """Only the number that was asked for, and neither time nor memory."""
    nobody = 2**22 + 1

    assert tree([nobody]) == [nobody]
    assert (cpu_s(nobody), memory([nobody])) == (0.0, Memory())


@pytest.mark.parametrize("process", [BUSY_AND_GONE], indirect=True)
def test_time_of_children_that_ended_counts(process: Process):
    """A server that works in short-lived processes does not look idle."""
    assert process.line() == b"done\n"

    assert cpu_s(process.process.pid) >= BUSY_S


@pytest.mark.parametrize("process", [LARGE], indirect=True)
def test_memory_is_what_is_held(process: Process):
    """Fifty megabytes are seen, and shared pages never make PSS the larger one."""
    assert process.line() == b"large\n"

    held = memory([process.process.pid])

    assert held.rss > 50_000_000
    assert 50_000_000 < held.pss <= held.rss


@pytest.mark.parametrize("process", [LARGE], indirect=True)
def test_a_watch_looks_at_least_at_the_end(process: Process):
    """However short the run was."""
    assert process.line() == b"large\n"

    with MemoryWatch(lambda: [process.process.pid], every_s=3600.0) as watch:
        pass

    assert watch.most.pss > 50_000_000


def test_our_own_time_goes_up():
    """This process has worked, or it would not be here."""
    assert cpu_s(os.getpid()) > 0.0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/v/bin/python", "-P", "-m", "mta.worker", "--worker", "1", "--epoch", "3"], "mta.worker 1"),
        (["/v/bin/python", "-m", "mta.signing.helper", "--listen", "/q/links/signer-0.sock"], "mta.signing.helper 0"),
        (["/v/bin/python", "-m", "bench.sink", "--config", "x.json"], "bench.sink"),
        (["/v/bin/python3", "/v/bin/mta", "serve"], "mta"),
        (["/usr/lib/postfix/sbin/qmgr", "-l"], "qmgr"),
        (["smtpd", "-n", "25"], "smtpd"),
        ([""], ""),
    ],
)
def test_a_process_is_called_by_what_it_runs(arguments: list[str], name: str) -> None:
    """Module or program, with its number: what a table of CPU by process needs."""
    assert name_of(arguments) == name


def test_cpu_is_told_by_name() -> None:
    """This process is among its own."""
    used = cpu_s_by_name(os.getpid())

    assert sum(used.values()) > 0
