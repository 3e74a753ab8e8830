"""One event loop on one core: where workers run."""

import os
from pathlib import Path

import pytest

from mta.testing.running_server import RunningServer


@pytest.mark.parametrize("more", [0, 1])
async def test_each_worker_keeps_to_its_core_where_there_is_one_for_each(tmp_path: Path, more: int) -> None:
    """As many workers as cores: each has one of its own; with another number the scheduler decides."""
    cores = os.sched_getaffinity(0)
    async with RunningServer(tmp_path, port=1, workers=len(cores) + more) as server:
        kept = {number: os.sched_getaffinity(pid) for number, pid in server.worker_pids().items()}
        status = await server.stop()

    assert status == 0
    if more:
        assert set(map(frozenset, kept.values())) == {frozenset(cores)}
    else:
        assert sorted(map(sorted, kept.values())) == [[core] for core in sorted(cores)]
