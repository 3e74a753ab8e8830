"""Moving: how mail leaves a running server in an export, and comes into one in an import.

Each request is for one worker and carries about a megabyte: nobody has memory for a queue of millions. A large content
goes in pieces.
"""

import asyncio
from typing import TypeVar

from aiohttp import web

from mta.admin import gathering, history, selecting
from mta.admin.asker import Asker
from mta.admin.pages import (
    ExportPage,
    ExportWish,
    ImportPage,
    ImportWish,
    KnownPage,
    KnownWish,
    PiecePage,
    RemoveWish,
    UploadWish,
)
from mta.admin.replying import Wrong, fail, page_of
from mta.reporting.moved_mail import Export, Exported, Import, Imported, Known, KnownAre, Piece, PieceOf, Remove, Upload
from mta.reporting.questions import Question

BODY_BYTES_MAX = 8 << 20  # a page of an export, as it is sent back to an import
PIECE_BYTES_MAX = 1 << 20
DIGITS_MAX = 18

T = TypeVar("T")


class Moving:
    """Handlers of `/queue/export` and `/queue/import`. `turn`: shared with all requests that ask workers much."""

    def __init__(self, asker: Asker, hostname: str, turn: asyncio.Semaphore) -> None:
        self._asker = asker
        self._hostname = hostname
        self._turn = turn

    def routes(self) -> list[web.RouteDef]:
        """Their paths."""
        return [
            web.post("/queue/export", self._export),
            web.get("/queue/export/{worker}/{seq}", self._piece),
            web.post("/queue/export/remove", self._remove),
            web.post("/queue/import/known", self._known),
            web.post("/queue/import/piece", self._upload),
            web.post("/queue/import", self._import),
        ]

    async def _export(self, request: web.Request) -> web.Response:
        wish = await _body(request, ExportWish)
        with Wrong():
            selection = selecting.checked(wish.selection)
            if selection.is_empty:
                raise ValueError('nothing is selected: give a criterion, or "all": true')
        found = await self._one(wish.worker, Export(selection, wish.after), Exported)
        return page_of(
            ExportPage(
                found.items, found.next, found.left, found.looked_at, found.of, self._asker.workers, self._hostname
            )
        )

    async def _piece(self, request: web.Request) -> web.Response:
        numbers = [request.match_info["worker"], request.match_info["seq"], request.query.get("offset", "0")]
        if not all(text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX for text in numbers):
            fail(400, "worker, seq and offset are numbers")
        worker, seq, offset = map(int, numbers)
        found = await self._one(worker, Piece(seq, offset, PIECE_BYTES_MAX), PieceOf)
        return page_of(PiecePage(found.data))

    async def _remove(self, request: web.Request) -> web.Response:
        wish = await _body(request, RemoveWish)
        with Wrong():
            by = selecting.who(wish.by)
        self._check(wish.worker)
        async with self._turn:
            raws = await self._asker.ask(Remove(wish.items, by), worker=wish.worker)
        return page_of(gathering.acted(raws, [wish.worker], self._asker.workers))

    async def _known(self, request: web.Request) -> web.Response:
        wish = await _body(request, KnownWish)
        async with self._turn:
            raws = await self._asker.ask(Known(wish.recipients))
        answers, problems = gathering.read(raws, KnownAre)
        if problems:  # what one worker has is perhaps imported a second time
            fail(503, "; ".join(problems))
        numbers = sorted({number for answer in answers for number in answer.numbers})
        return page_of(KnownPage(numbers, self._asker.workers))

    async def _upload(self, request: web.Request) -> web.Response:
        wish = await _body(request, UploadWish)
        await self._one(wish.worker, Upload(wish.id, wish.offset, wish.data), Imported)
        return page_of(ImportPage())

    async def _import(self, request: web.Request) -> web.Response:
        wish = await _body(request, ImportWish)
        for item in wish.items:
            if not history.is_id(item.id):
                fail(400, f'no message can have the id "{item.id[:60]}"')
        found = await self._one(wish.worker, Import(wish.items), Imported)
        return page_of(ImportPage(found.messages, found.recipients))

    async def _one(self, worker: int, question: Question, kind: type[T]) -> T:
        self._check(worker)
        async with self._turn:
            raws = await self._asker.ask(question, worker=worker)
        answers, problems = gathering.read(raws, kind)
        if not answers:
            fail(503, "; ".join(problems).replace("worker 0", f"worker {worker}", 1))
        return answers[0]

    def _check(self, worker: int) -> None:
        if not 0 <= worker < self._asker.workers:
            fail(404, f"there is no worker {worker}")


async def _body(request: web.Request, kind: type[T]) -> T:
    with Wrong():
        return selecting.decoded(await request.clone(client_max_size=BODY_BYTES_MAX).read(), kind)
