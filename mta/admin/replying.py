"""Replying: pages and errors as JSON, the same for every path."""

from typing import NoReturn

import msgspec
from aiohttp import web

from mta.admin.pages import ErrorPage

JSON = "application/json"


class Wrong:
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


def page_of(page: object, status: int = 200) -> web.Response:
    """A page as JSON."""
    return web.Response(body=msgspec.json.encode(page), status=status, content_type=JSON)


def error_response(status: int, error: str) -> web.Response:
    """An error as every page tells it."""
    return page_of(ErrorPage(error), status)
