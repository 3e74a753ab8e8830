"""Answers: what the admin face says to each request. Asks the workers, gathers, and makes a page of it."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import msgspec
from aiohttp import web

from mta.admin import gathering, health, history, selecting
from mta.admin.access import Access
from mta.admin.asker import Asker
from mta.admin.pages import ErrorPage, HealthPage, SuspensionPage, SuspensionsPage
from mta.admin.suspensions import Suspensions, TooManyError
from mta.model.clock import Clock
from mta.reporting import metrics
from mta.reporting.questions import Act, List, Metrics, Question, Show, Summary, Verb, WorkerCounts

ASKED_AT_ONCE_MAX = 8
"""Requests that workers are asked about at a time; more wait for their turn."""
COUNTS_KEPT_S = 0.5  # however often health is asked, workers count at most twice a second
ID_CHARS_SHOWN = 60  # of one that is none
JSON = "application/json"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Answers:
    """One handler a page. `events_path`: the event log's file, None where it goes to standard output."""

    def __init__(
        self,
        asker: Asker,
        suspensions: Suspensions,
        access: Access,
        clock: Clock,
        *,
        events_path: Path | None,
        version: str,
        hostname: str,
    ) -> None:
        self._asker = asker
        self._suspensions = suspensions
        self._access = access
        self._clock = clock
        self._events_path = events_path
        self._version = version
        self._hostname = hostname
        self._turn = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        self._searching = asyncio.Lock()
        self._counting = asyncio.Lock()
        self._counts: tuple[list[WorkerCounts | None], list[str]] = ([], [])
        self._counted_s = float("-inf")

    def routes(self) -> list[web.RouteDef]:
        """Every path that there is."""
        acts = [
            web.post(f"/queue/{verb}", functools.partial(self._act, verb))
            for verb in ("retry", "hold", "release", "cancel")
        ]
        return [
            web.get("/metrics", self._metrics),
            web.get("/health", self._health),
            web.get("/workers", self._workers),
            web.get("/queue", self._summary),
            web.get("/queue/messages", self._list),
            web.get("/queue/messages/{id}", self._show),
            *acts,
            web.get("/suspensions", self._list_suspensions),
            web.post("/suspensions", self._suspend),
            web.delete("/suspensions/{id}", self._resume),
        ]

    # -- counters --

    async def _count(self) -> tuple[list[WorkerCounts | None], list[str]]:
        """All workers' counters, at most a moment old; whoever asks meanwhile gets the same."""
        async with self._counting:
            if self._clock.monotonic_s() - self._counted_s >= COUNTS_KEPT_S:
                self._counts = gathering.counts_of(await self._asker.ask(Metrics()))
                self._counted_s = self._clock.monotonic_s()
            return self._counts

    async def _metrics(self, request: web.Request) -> web.Response:
        counts, _ = await self._count()
        text = metrics.render(counts, version=self._version)
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _health(self, request: web.Request) -> web.Response:
        troubles = health.troubles(*await self._count())
        status = "failing" if troubles else "ok"
        page: object = {"status": status}
        if self._access.knows_token(request.headers):
            page = HealthPage(status, self._version, self._hostname, self._asker.workers, troubles)
        return _page(page, 503 if troubles else 200)

    async def _workers(self, request: web.Request) -> web.Response:
        counts, problems = await self._count()
        return _page({"workers": [each for each in counts if each is not None], "problems": problems})

    # -- the queue --

    async def _ask(self, question: Question) -> list[bytes | None]:
        """What the workers say; 503 where none says anything."""
        async with self._turn:
            raws = await self._asker.ask(question)
        if all(raw is None for raw in raws):
            fail(503, "no worker answers")
        return raws

    async def _summary(self, request: web.Request) -> web.Response:
        with _Wrong():
            selection = selecting.selection_of(request.query)
        return _page(gathering.summary(await self._ask(Summary(selection))))

    async def _list(self, request: web.Request) -> web.Response:
        with _Wrong():
            selection = selecting.selection_of(request.query, besides=("limit", "after"))
            paging = selecting.paging_of(request.query)
        raws = await self._ask(List(selection, paging.limit, paging.after))
        return _page(gathering.listed(raws, paging.limit))

    async def _show(self, request: web.Request) -> web.Response:
        message_id = request.match_info["id"]
        if not history.is_id(message_id):
            fail(404, f'no message can have the id "{message_id[:ID_CHARS_SHOWN]}"')
        page = gathering.message(await self._ask(Show(message_id)), message_id)
        past = await self._past(message_id)
        page.history, page.history_is_complete = past.events, past.is_complete
        if not page.rows and not page.history:
            doubts = page.problems + ([] if past.is_complete else ["not all of the event log was read"])
            if doubts:
                fail(404, f"{message_id} not found, but not everything could be looked through: {'; '.join(doubts)}")
            fail(404, f"no message {message_id} waits or is in the event log")
        return _page(page)

    async def _past(self, message_id: str) -> history.History:
        """One search at a time: each reads whole files."""
        if self._events_path is None:
            return history.History([], False)
        search = functools.partial(history.search, self._events_path, message_id, monotonic_s=self._clock.monotonic_s)
        async with self._searching:
            try:
                return await asyncio.get_running_loop().run_in_executor(None, search)
            except OSError:
                return history.History([], False)

    async def _act(self, verb: Verb, request: web.Request) -> web.Response:
        with _Wrong():
            acting = selecting.acting_from(await request.read())
        raws = await self._ask(Act(verb, acting.selection(), acting.by))
        return _page(gathering.acted(raws))

    # -- suspensions --

    async def _list_suspensions(self, request: web.Request) -> web.Response:
        return _page(SuspensionsPage(self._suspensions.current()))

    async def _suspend(self, request: web.Request) -> web.Response:
        with _Wrong():
            wish = selecting.wish_from(await request.read())
        try:
            added, problems = await self._suspensions.add(wish.selection, wish.for_s, wish.reason, wish.by)
        except TooManyError as error:
            fail(409, str(error))
        except OSError as error:
            fail(500, f"the suspension cannot be written down: {error.strerror or error}")
        return _page(SuspensionPage(added, problems), 201)

    async def _resume(self, request: web.Request) -> web.Response:
        with _Wrong():
            by = selecting.who(request.query.get("by", ""))
        suspension_id = request.match_info["id"]
        try:
            resumed = await self._suspensions.resume(suspension_id, by)
        except OSError as error:
            fail(500, f"the end of the suspension cannot be written down: {error.strerror or error}")
        if resumed is None:
            fail(404, f'no suspension "{suspension_id[:ID_CHARS_SHOWN]}" holds; `mta suspend list` shows those that do')
        return _page(SuspensionPage(*resumed))


class _Wrong:
    """What is wrong with a request inside the block is answered with 400 and its sentence."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            fail(400, str(error))


class AnswerError(Exception):
    """Ends a request with a status and a sentence."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


def fail(status: int, error: str) -> NoReturn:
    """End this request with an error."""
    raise AnswerError(status, error)


def _page(page: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(page), status=status, content_type=JSON)


def error_response(status: int, error: str) -> web.Response:
    """An error as every page tells it."""
    return _page(ErrorPage(error), status)
