"""The clerk: answers what the admin face asks this worker.

Answers may take many turns of the loop; mail goes on in between. Whatever goes wrong is an answer too. Who asks what
somebody else is being answered hears the same: impatience costs no second walk.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from mta.delivery import gauges
from mta.delivery.acts import Acts, NotWrittenError
from mta.delivery.census import Census
from mta.delivery.exports import Exports
from mta.delivery.foresight import Foresight
from mta.delivery.imports import Bringer, ImportRefusedError, Imports
from mta.delivery.reasons import Reasons
from mta.delivery.standing import Standings
from mta.delivery.walk import StoppingError
from mta.reporting.moved_mail import Export, Import, Known, Piece, Remove, Upload
from mta.reporting.questions import Act, Answer, Failed, Question, Rules, Suspend, Warmups
from mta.reporting.waiting import Explain, List, Show, Summary
from mta.reporting.worker_counts import Metrics

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

WALKS_MAX = 2  # walks over the whole queue at the same time: each takes a share of the loop

STOPPING = Failed("the worker is stopping")


class Clerk:
    """One worker's side of the admin face.

    `is_kept_back` says of an item's seq that its door has not let it go yet: it is no admin's business before.
    `bringer` writes down what is imported, as long as `may_take` says so; without one nothing can be.
    """

    def __init__(
        self,
        engine: "Dispatcher",
        is_kept_back: Callable[[int], bool] = lambda seq: False,
        bringer: Bringer | None = None,
        may_take: Callable[[], bool] = lambda: True,
    ) -> None:
        self._engine = engine
        self._acts = Acts(engine, is_kept_back)
        self._census = Census(engine, is_kept_back)
        self._exports = Exports(engine, self._acts, is_kept_back)
        self._foresight = Foresight(engine, Reasons(engine, Standings(engine)))
        self._imports = Imports(engine, self._acts, is_kept_back, bringer, may_take) if bringer is not None else None
        self._walks = asyncio.Semaphore(WALKS_MAX)
        self._asked: dict[Question, asyncio.Task[Answer]] = {}
        self.is_open = False
        """What waits may be looked at and touched: everything found at the start was taken up. Set by the worker."""

    async def answer(self, question: Question) -> Answer:
        """The answer; `Failed`, with what is wrong, where there is none."""
        try:
            return await self._answer(question)
        except StoppingError:
            return STOPPING
        except (NotWrittenError, ImportRefusedError, LookupError) as error:
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
        if isinstance(question, Rules):
            self._engine.restraints.told(question.changes, question.snapshot, tells=question.tells)
            return None
        if isinstance(question, Warmups):
            return await self._engine.warming.rows()
        if not self.is_open:
            return Failed("the worker has just started and still reads its queue")
        if self._engine.is_stopping:
            return STOPPING
        match question:
            case Summary():
                return await self._once(question, self._census.summary(question))
            case Show():
                return await self._once(question, self._census.show(question))
            case Piece():
                return await self._exports.piece(question)
            case Explain():
                return await self._foresight.explain(question)
            case Upload() | Import() | Known():
                return await self._brought(question)
        async with self._walks:
            match question:
                case List():
                    return await self._census.page(question)
                case Act():
                    return await self._acts.act(question)
                case Remove():
                    return await self._acts.remove(question)
                case Export():
                    return await self._exports.page(question)

    async def _brought(self, question: Upload | Import | Known) -> Answer:
        imports = self._imports
        if imports is None:
            return Failed("nothing can be imported here")
        match question:
            case Upload():
                return imports.upload(question)
            case Import():
                return await imports.take(question.items)
            case Known():
                return await imports.known(question)

    async def _once(self, question: Question, walk: Coroutine[Any, Any, Answer]) -> Answer:
        """One walk for all who ask this at the moment."""
        task = self._asked.get(question)
        if task is None:
            task = self._asked[question] = self._engine.loop.create_task(self._in_turn(walk))
            task.add_done_callback(lambda done: self._asked.pop(question, None))
        else:
            walk.close()
        return await asyncio.shield(task)

    async def _in_turn(self, walk: Coroutine[Any, Any, Answer]) -> Answer:
        async with self._walks:
            return await walk
