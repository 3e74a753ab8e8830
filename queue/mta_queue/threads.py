"""Threads that do nothing but wait for the disk.

A job is a function of no arguments that hands its result back with `loop.call_soon_threadsafe`: no future, no task.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

Job = Callable[[], None]


class Jobs(Protocol):
    """Something that runs jobs elsewhere."""

    def submit(self, job: Job) -> None:
        """Runs the job soon; with a single thread in the order of the calls."""
        ...

    def stop(self) -> None:
        """Returns when all submitted jobs have run; none may be submitted any more."""
        ...


class Threads:
    """`count` threads, started with the first job."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, job: Job) -> None:
        if not self._threads:
            self._start()
        self._jobs.put(job)

    def stop(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self) -> None:
        for number in range(self._count):
            # A daemon: a disk that hangs must not keep the process from ending.
            thread = threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self) -> None:
        take = self._jobs.get
        while (job := take()) is not None:
            job()
            del job  # it may hold a group of messages
