"""Reloading: the page by which configuration and policies are read again, as with SIGHUP, but with an answer."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from mta.admin.pages import ReloadPage
from mta.admin.replying import page_of

Reload = Callable[[], Awaitable[ReloadPage]]
"""Reads them, and returns when all workers keep to them, or with what is wrong."""


def routes(reload: Reload) -> list[web.RouteDef]:
    """The one path that there is."""

    async def answer(request: web.Request) -> web.Response:
        del request
        return page_of(await reload())

    return [web.post("/reload", answer)]
