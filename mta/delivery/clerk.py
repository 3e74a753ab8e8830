"""The clerk: answers what the admin face asks this worker.

Answers may take many turns of the loop; mail goes on in between. Whatever goes wrong is an answer too.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from mta.delivery import gauges
from mta.delivery.acts import Acts, NotWrittenError
from mta.delivery.census import Census
from mta.delivery.walk import StoppingError
from mta.reporting.questions import Act, Answer, Failed, List, Metrics, Question, Show, Summary, Suspend

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

WALKS_MAX = 2  # walks over the whole queue at the same time: each takes a share of the loop

STOPPING = Failed("the worker is stopping")


class Clerk:
    """One worker's side of the admin face.

    `is_kept_back` says of an item's seq that its door has not let it go yet: it is no admin's business before.
    """

    def __init__(self, engine: "Dispatcher", is_kept_back: Callable[[int], bool] = lambda seq: False) -> None:
        self._engine = engine
        self._acts = Acts(engine, is_kept_back)
        self._census = Census(engine, is_kept_back)
        self._walks = asyncio.Semaphore(WALKS_MAX)
        self.is_open = False
        """What waits may be looked at and touched: everything found at the start was taken up. Set by the worker."""

    async def answer(self, question: Question) -> Answer:
        """The answer; `Failed`, with what is wrong, where there is none."""
        try:
            return await self._answer(question)
        except StoppingError:
            return STOPPING
        except NotWrittenError as error:
            return Failed(str(error))
        except Exception as error:  # noqa: BLE001 - one question that fails must not stop the worker
            self._engine.report(error)
            return Failed(f"an error of ours: {type(error).__name__}: {error}")

    async def _answer(self, question: Question) -> Answer:
        if isinstance(question, Metrics):
            return await gauges.counts(self._engine)
        if isinstance(question, Suspend):
            suspensions = self._engine.suspensions
            suspensions.replace(question.suspensions, tells=question.tells, ended_by=question.ended_by)
            return None
        if not self.is_open:
            return Failed("the worker has just started and still reads its queue")
        if self._engine.is_stopping:
            return STOPPING
        async with self._walks:
            match question:
                case Summary():
                    return await self._census.summary(question)
                case List():
                    return await self._census.page(question)
                case Show():
                    return await self._census.show(question)
                case Act():
                    return await self._acts.act(question)
