"""The asker: how the admin face reaches the workers."""

import asyncio
from typing import Protocol

from mta.admin.gathering import read
from mta.reporting.questions import Question, Rules, Suspend


class Asker(Protocol):
    """The supervisor, or a test."""

    @property
    def workers(self) -> int:
        """How many there are."""
        ...

    async def ask(self, question: Question, *, worker: int | None = None) -> list[bytes | None]:
        """One raw JSON answer a worker, of `worker` alone where it is given; None: it is down or late."""
        ...


async def tell_all(asker: Asker, writing: Rules | Suspend, silent: Rules | Suspend) -> list[str]:
    """Every worker hears of it; one of those that answer, usually the first, is told the one by which it also `tells`
    the event log. -> A sentence about each that was not reached."""
    raws: list[bytes | None] = []
    for number in range(asker.workers):
        raws += await asker.ask(writing, worker=number)
        if raws[-1] is not None:
            break
    others = range(len(raws), asker.workers)
    for answers in await asyncio.gather(*(asker.ask(silent, worker=number) for number in others)):
        raws += answers
    return read(raws, type(None))[1]
