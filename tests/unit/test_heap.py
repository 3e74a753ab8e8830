"""The heap: what many bodies leave behind is handed back once, and mail that flows never pays for it."""

import subprocess
import sys

from mta.heap import FREED_BYTES_MIN, PAUSE_S, Heap

BODIES = """
from mta.heap import FREED_BYTES_MIN, Heap
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
heap = Heap()
bodies = [bytes([at % 250]) * 4500 for at in range(12 * FREED_BYTES_MIN // 4500)]
heap.look(12 * FREED_BYTES_MIN, 0.0)
most = resident()
del bodies[::2], bodies[::2], bodies[::2]  # one in eight lives on
heap.look(12 * FREED_BYTES_MIN // 8, 1.0)
print(most - resident())
"""


def looked(*resident_bytes: int, every_s: float = PAUSE_S) -> list[int]:
    """The looks that handed something back."""
    trimmed: list[int] = []
    heap = Heap(lambda pad: trimmed.append(at))
    for at, each in enumerate(resident_bytes):
        heap.look(each, at * every_s)
    return trimmed


def test_what_left_memory_is_handed_back_once():
    """When most of it has gone, at once or bit by bit, and again when so much of the rest has."""
    most = 8 * FREED_BYTES_MIN

    assert looked(0, most, 0, 0, 0) == [2]
    assert looked(0, most, most // 2, most // 4, 0, 0) == [3, 4]
    assert looked(most, 0, most, 0) == [1, 3]


def test_little_is_kept_for_the_next():
    """Mail that flows, and bodies of which as many come as go."""
    assert looked(0, FREED_BYTES_MIN - 1, 0, FREED_BYTES_MIN - 1, 0) == []
    assert looked(*[9 * FREED_BYTES_MIN, 5 * FREED_BYTES_MIN] * 9) == []


def test_not_again_and_again():
    """Bodies that come and go all the time are handed back once in PAUSE_S."""
    assert looked(*[2 * FREED_BYTES_MIN, 0] * 20, every_s=PAUSE_S / 20) == [1, 21]


def test_the_system_has_it_back():
    """Most of what bodies left between those that live on, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", BODIES], capture_output=True, text=True, check=True)

    assert int(done.stdout) * 1024 > 6 * FREED_BYTES_MIN
