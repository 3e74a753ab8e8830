"""Tasks that go on by themselves."""

import asyncio
import gc

from mta.tasks import Tasks


async def test_what_nobody_holds_goes_on() -> None:
    """Though the only thing that knows it is what it waits for."""
    tasks, ended = Tasks(), asyncio.Event()

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    async def other() -> None:
        ended.set()

    tasks.start(work())
    tasks.start(other())
    await ended.wait()
    gc.collect()
    before = len(asyncio.all_tasks())
    tasks.cancel()
    await tasks.ended()

    assert (before, len(asyncio.all_tasks())) == (2, 1)
