"""Pages: what the admin face answers, as the commands read it back and print it with `--json`.

Every page has `problems`: sentences about workers that did not answer, so that what is missing is never mistaken for
what is not there.
"""

from typing import Any

import msgspec

from mta.model.selection import Selection
from mta.reporting.questions import RecipientRow, SiteRow, Suspension

BY_CHARS_MAX = 100  # of who asked, in the event log
REASON_CHARS_MAX = 500


class SummaryPage(msgspec.Struct):
    """`GET /queue`."""

    rows: list[SiteRow]
    """The most recipients first."""
    messages: int = 0
    """Of each worker by itself: a message that waits at two workers counts twice."""
    problems: list[str] = []


class ListPage(msgspec.Struct):
    """`GET /queue/messages`."""

    rows: list[RecipientRow]
    """By message id, so the oldest message first."""
    more: bool = False
    """Ask again with `after`, the last id of this page."""
    problems: list[str] = []


class MessagePage(msgspec.Struct):
    """`GET /queue/messages/ID`."""

    id: str
    message_id: str = ""
    from_domain: str = ""
    client: str = ""
    rows: list[RecipientRow] = []
    """What waits."""
    history: list[dict[str, Any]] = []
    """Lines of the event log, the oldest first."""
    history_is_complete: bool = True
    """False: the log was too large to look through in time, or is not in a file."""
    problems: list[str] = []


class ActedPage(msgspec.Struct):
    """`POST /queue/retry` and so on."""

    touched: int = 0
    """Recipients."""
    messages: int = 0
    sending: int = 0
    """Recipients left alone, because a transaction with them is under way."""
    problems: list[str] = []


class SuspensionPage(msgspec.Struct):
    """`POST /suspensions` and `DELETE /suspensions/ID`."""

    suspension: Suspension
    problems: list[str] = []


class SuspensionsPage(msgspec.Struct):
    """`GET /suspensions`."""

    suspensions: list[Suspension]


class HealthPage(msgspec.Struct):
    """`GET /health`."""

    status: str
    """ok | failing"""
    version: str = ""
    hostname: str = ""
    workers: int = 0
    problems: list[str] = []


class ErrorPage(msgspec.Struct):
    """Any answer with a status from 400 on, but that of `/health`."""

    error: str


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /suspensions`."""

    selection: Selection
    for_s: float
    reason: str = ""
    by: str = "admin"
