"""Answers: what the admin face says to each request. Asks the workers, gathers, and makes a page of it."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from mta.admin import gathering, health, history, selecting
from mta.admin.access import Access
from mta.admin.asker import Asker
from mta.admin.explaining import Explaining
from mta.admin.moving import Moving
from mta.admin.pages import ActedPage, Cursor, HealthPage, SuspensionPage, SuspensionsPage
from mta.admin.replying import Wrong, fail, page_of
from mta.admin.ruling import Ruling
from mta.admin.suspensions import Suspensions, TooManyError
from mta.model.clock import Clock
from mta.reporting import metrics
from mta.reporting.questions import Act, Question, Verb, Warmups
from mta.reporting.waiting import List, Show, Summary
from mta.reporting.worker_counts import Metrics, WorkerCounts
from mta_policies.located import nearest

ASKED_AT_ONCE_MAX = 8
"""Requests that workers are asked about at a time; more wait for their turn."""
COUNTS_KEPT_S = 0.5  # however often health is asked, workers count at most twice a second
ID_CHARS_SHOWN = 60  # of one that is none

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Answers:
    """One handler a page. `events_path`: the event log's file, None where it goes to standard output."""

    def __init__(
        self,
        asker: Asker,
        suspensions: Suspensions,
        ruling: Ruling,
        access: Access,
        clock: Clock,
        *,
        events_path: Path | None,
        version: str,
        hostname: str,
    ) -> None:
        self._asker = asker
        self._suspensions = suspensions
        self._ruling = ruling
        self._access = access
        self._clock = clock
        self._events_path = events_path
        self._version = version
        self._hostname = hostname
        self._turn = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        self._moving = Moving(asker, hostname, self._turn)
        self._explaining = Explaining(asker, ruling, self._turn)
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
            *self._moving.routes(),
            *self._ruling.routes(),
            *self._explaining.routes(),
            web.get("/warmup", self._warmup),
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
        return page_of(page, 503 if troubles else 200)

    async def _workers(self, request: web.Request) -> web.Response:
        counts, problems = await self._count()
        return page_of({"workers": [each for each in counts if each is not None], "problems": problems})

    # -- the queue --

    async def _ask(self, question: Question) -> list[bytes | None]:
        """What the workers say; 503 where none says anything."""
        async with self._turn:
            raws = await self._asker.ask(question)
        if all(raw is None for raw in raws):
            fail(503, "no worker answers")
        return raws

    async def _summary(self, request: web.Request) -> web.Response:
        with Wrong():
            selection = selecting.selection_of(request.query)
        return page_of(gathering.summary(await self._ask(Summary(selection))))

    async def _list(self, request: web.Request) -> web.Response:
        with Wrong():
            selection = selecting.selection_of(request.query, besides=("limit", "after"))
            paging = selecting.paging_of(request.query)
        raws = await self._ask(List(selection, paging.limit, paging.after))
        return page_of(gathering.listed(raws, paging.limit))

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
        return page_of(page)

    async def _warmup(self, request: web.Request) -> web.Response:
        page = gathering.warmups(await self._ask(Warmups()))
        source = request.query.get("source", "")
        if source:
            known = {row.source for row in page.rows}
            page.rows = [row for row in page.rows if row.source == source]
            if not page.rows:
                shown = source[:ID_CHARS_SHOWN]
                fail(404, f'no [[warmup]] has the source "{shown}"{nearest(source, known)}')
        return page_of(page)

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
        with Wrong():
            acting = selecting.acting_from(await request.read())
            if acting.notify and verb != "cancel":
                raise ValueError("notify is for cancel alone")
        page = await self._act_for_a_while(verb, acting, acting.cursors or [])
        while acting.cursors is None and not page.is_done:
            gathering.go_on(page, await self._act_for_a_while(verb, acting, page.cursors))
        return page_of(page)

    async def _act_for_a_while(self, verb: Verb, acting: selecting.Acting, cursors: Sequence[Cursor]) -> ActedPage:
        """Some seconds' work of every worker that is not done."""
        selection, by, notify = acting.selection(), acting.by, acting.notify
        if not cursors:
            return gathering.acted(await self._ask(Act(verb, selection, by, notify=notify)))
        todo = [number for number, cursor in enumerate(cursors[: self._asker.workers]) if cursor.after]
        questions = [Act(verb, selection, by, cursors[at].after, cursors[at].until, notify) for at in todo]
        async with self._turn:
            raws = await asyncio.gather(
                *(self._asker.ask(each, worker=at) for each, at in zip(questions, todo, strict=True))
            )
        return gathering.acted([raw for (raw,) in raws], todo, self._asker.workers)

    # -- suspensions --

    async def _list_suspensions(self, request: web.Request) -> web.Response:
        return page_of(SuspensionsPage(self._suspensions.current()))

    async def _suspend(self, request: web.Request) -> web.Response:
        with Wrong():
            wish = selecting.wish_from(await request.read())
        try:
            added, problems = await self._suspensions.add(wish.selection, wish.for_s, wish.reason, wish.by)
        except TooManyError as error:
            fail(409, str(error))
        except OSError as error:
            fail(500, f"the suspension cannot be written down: {error.strerror or error}")
        return page_of(SuspensionPage(added, problems), 201)

    async def _resume(self, request: web.Request) -> web.Response:
        with Wrong():
            by = selecting.who(request.query.get("by", ""))
        suspension_id = request.match_info["id"]
        try:
            resumed = await self._suspensions.resume(suspension_id, by)
        except OSError as error:
            fail(500, f"the end of the suspension cannot be written down: {error.strerror or error}")
        if resumed is None:
            fail(404, f'no suspension "{suspension_id[:ID_CHARS_SHOWN]}" holds; `mta suspend list` shows those that do')
        return page_of(SuspensionPage(*resumed))
