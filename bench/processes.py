"""Processes seen from outside, through /proc: who descends from whom, what CPU and memory they have used.

What is measured of an engine is its whole tree: whatever processes it starts, and those that have ended.
"""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_EVERY_S = 0.5  # the kernel walks all pages of a process for each look
_STOP_TIMEOUT_S = 10.0
_NUMBER = re.compile(r"^(?:.*-)?([0-9]+)(?:\.[a-z]+)?$")


def tree(pids: Iterable[int]) -> list[int]:
    """These processes and all that descend from them and live, each once."""
    found, todo = dict.fromkeys(pids), list(pids)
    while todo:
        each = todo.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):
                children = [int(child) for child in Path(f"/proc/{each}/task/{task}/children").read_text().split()]
                todo += [child for child in children if child not in found]
                found.update(dict.fromkeys(children))
    return list(found)


def cpu_s(*pids: int) -> float:
    """CPU seconds of these processes and all below them, also of those that have ended and were waited for."""
    ticks = 0
    for each in tree(pids):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS_PER_S


def cpu_s_by_name(*pids: int) -> dict[str, float]:
    """CPU seconds of each of these processes and those below them that live; of several with one name together."""
    used: dict[str, float] = {}
    for each in tree(pids):
        with contextlib.suppress(OSError):
            name = name_of(Path(f"/proc/{each}/cmdline").read_bytes().decode(errors="replace").split("\0"))
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            used[name] = used.get(name, 0.0) + sum(int(field) for field in fields[11:13]) / TICKS_PER_S
    return used


def name_of(arguments: Sequence[str]) -> str:
    """What a process is called: its module or program, and its number where the command line has one.

    `python -m mta.worker --worker 1` is "mta.worker 1", and so is one that listens on `worker-1.sock`.
    """
    if "-m" in arguments[:-1]:
        at = arguments.index("-m") + 1
        number = next(filter(None, map(_NUMBER.search, arguments[at + 1 :])), None)
        return f"{arguments[at]} {number[1]}" if number else arguments[at]
    program = Path(arguments[0]).name if arguments else ""
    if program.startswith("python") and len(arguments) > 1 and arguments[1][:1] not in ("", "-"):
        return Path(arguments[1]).name
    return program


class Memory(NamedTuple):
    """Of several processes together, in bytes."""

    rss: int = 0
    """What each holds in memory; pages that several share count several times."""
    pss: int = 0
    """The same with shared pages divided among those that share them: what the machine really spends."""


def memory(pids: Iterable[int]) -> Memory:
    """Of this moment, of these processes and all below them."""
    rss = pss = 0
    for each in tree(pids):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == "Rss":
                    rss += int(value.split()[0]) * 1024
                elif name == "Pss":
                    pss += int(value.split()[0]) * 1024
    return Memory(rss, pss)


class MemoryWatch:
    """Looks at the memory of a tree now and then, in a thread, and remembers the most.

    with MemoryWatch(engine.pids) as watch:
        ...
    watch.most.pss
    """

    def __init__(self, pids: Callable[[], Iterable[int]], every_s: float = SAMPLE_EVERY_S) -> None:
        self.most = Memory()
        self._pids = pids
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(_STOP_TIMEOUT_S)

    def _watch(self) -> None:
        is_last = False
        while True:
            now = memory(list(self._pids()))
            self.most = Memory(max(self.most.rss, now.rss), max(self.most.pss, now.pss))
            if is_last:
                return
            is_last = self._ended.wait(self._every_s)
