"""Explaining: the page that says what the next message to an address would wait for, and what rules hold for it."""

import asyncio

from aiohttp import web

from mta.admin import gathering, selecting
from mta.admin.asker import Asker
from mta.admin.pages import EXPLAINED_SOURCES_MAX, ExplainPage
from mta.admin.replying import Wrong, fail, page_of
from mta.admin.ruling import Ruling
from mta.reporting.waiting import Explain, Explained
from mta.smtp.grammar import routing_domain
from mta_policies.located import nearest

_KEYS = ("address", "source", "tenant", "campaign")


class Explaining:
    """One handler. `turn`: shared with all requests that ask workers much."""

    def __init__(self, asker: Asker, ruling: Ruling, turn: asyncio.Semaphore) -> None:
        self._asker = asker
        self._ruling = ruling
        self._turn = turn

    def routes(self) -> list[web.RouteDef]:
        """Its path."""
        return [web.get("/explain", self._explain)]

    async def _explain(self, request: web.Request) -> web.Response:
        with Wrong():
            question = _question(request)
        async with self._turn:
            raws = await self._asker.ask(question)
        if all(raw is None for raw in raws):
            fail(503, "no worker answers")
        answers, problems = gathering.read(raws, Explained)
        outlooks = [outlook for answer in answers for outlook in answer.outlooks]
        outlooks.sort(key=lambda outlook: (outlook.source, outlook.worker))
        ids = [name for outlook in outlooks for name in outlook.firings]
        return page_of(ExplainPage(outlooks, self._ruling.rows(ids), problems))


def _question(request: web.Request) -> Explain:
    """Raises ValueError with a sentence."""
    query = request.query
    for key, value in query.items():
        if key not in _KEYS:
            raise ValueError(f"there is no {key[:60]} to ask for{nearest(key, _KEYS)}")
        if len(value) > selecting.CRITERION_CHARS_MAX:
            raise ValueError(f"{key} is longer than {selecting.CRITERION_CHARS_MAX} characters")
    address = query.get("address", "")
    try:
        domain = routing_domain(address.rpartition("@")[2])
    except ValueError:
        raise ValueError(f"{address or 'an empty address'} has no domain that mail could go to") from None
    sources = list(dict.fromkeys(query.getall("source", [""])))
    if len(sources) > EXPLAINED_SOURCES_MAX:
        raise ValueError(f"more than {EXPLAINED_SOURCES_MAX:,} sources at once")
    return Explain(address, domain, sources, query.get("tenant", ""), query.get("campaign", ""))
