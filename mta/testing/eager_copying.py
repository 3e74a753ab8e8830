"""Eager copying: a queue that copies whatever can be copied, again and again, however little is won by it.

Compaction needs gigabytes and hours to come into its own. With these limits a few hundred items will do, and every step
of it is met in a short run.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

from mta_queue import compaction, compactor, copying

NEVER_S = 1e9

LIMITS: tuple[tuple[ModuleType, dict[str, Any]], ...] = (
    (compaction, {"EARLY": 0, "PRESSING": 0, "PRESSING_COST_MAX": 1, "GAIN_MIN": 0, "YOUNG_SEGMENTS": 1}),
    (compaction, {"FAILED_WAIT_S": 0, "IDLE_BYTES_S": 1 << 40}),
    (copying, {"PRESSING_COST_MAX": 2, "SLICE_ITEMS": 2}),
    (compactor, {"LOOK_S": 0.5, "STUCK_S": 0}),
)


@contextmanager
def copying_all_the_time() -> Iterator[None]:
    """For what is done in the block."""
    with ExitStack() as stack:
        for module, limits in LIMITS:
            for name, value in limits.items():
                stack.enter_context(patch.object(module, name, value))
        yield


def copy_all_the_time(look_s: float) -> None:
    """From now on, in this process, with so long between two looks for something to copy."""
    for module, limits in LIMITS:
        for name, value in limits.items():
            setattr(module, name, value)
    compactor.LOOK_S = compactor.AGAIN_S = look_s


def never_copy() -> None:
    """From now on, in this process: what that costs in space, and what it saves, is seen beside."""
    compactor.LOOK_S = NEVER_S
