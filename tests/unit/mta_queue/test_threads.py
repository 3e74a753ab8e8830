"""Threads that run jobs."""

import threading
from functools import partial

from mta_queue.threads import Threads


def test_one_thread_keeps_the_order() -> None:
    """With one thread jobs run in the order in which they were submitted, away from the caller's thread."""
    threads = Threads(1, "test")
    ran: list[int] = []
    names: set[str] = set()

    def note(number: int) -> None:
        ran.append(number)
        names.add(threading.current_thread().name)

    for number in range(100):
        threads.submit(partial(note, number))
    threads.stop()

    assert ran == list(range(100))
    assert names == {"test-0"}


def test_no_job_no_thread() -> None:
    """A store that reads nothing back needs no thread for it."""
    before = threading.active_count()
    threads = Threads(4, "idle")

    threads.stop()

    assert threading.active_count() == before


def test_stop_waits() -> None:
    """When `stop` returns all jobs have run, on however many threads."""
    threads = Threads(3, "test")
    barrier = threading.Barrier(3, timeout=10)
    ran: list[int] = []

    for _ in range(3):
        threads.submit(lambda: ran.append(barrier.wait()))
    threads.stop()

    assert sorted(ran) == [0, 1, 2]
