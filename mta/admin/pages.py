"""Pages: what the admin face answers, as the commands read it back and print it with `--json`.

Every page has `problems`: sentences about workers that did not answer, so that what is missing is never mistaken for
what is not there.
"""

from typing import Any

import msgspec

from mta.model.selection import Selection
from mta.reporting.moved_mail import ExportedItem, MovedItem
from mta.reporting.questions import Suspension, WarmupRow
from mta.reporting.waiting import Outlook, RecipientRow, SiteRow

BY_CHARS_MAX = 100  # of who asked, in the event log
REASON_CHARS_MAX = 500
EXPLAINED_SOURCES_MAX = 100  # that one page is about: more names would not fit into a request's first line


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


class Cursor(msgspec.Struct, frozen=True):
    """How far one worker is with an action."""

    after: int = 0
    """0: it is done."""
    until: int = 0
    looked_at: int = 0
    """Items, since the beginning, of so many."""
    of: int = 0


class ActedPage(msgspec.Struct):
    """`POST /queue/retry` and so on."""

    touched: int = 0
    """Recipients."""
    messages: int = 0
    sending: int = 0
    """Recipients left alone, because a transaction with them or a move to another worker is under way."""
    left: dict[str, int] = {}
    """Why -> how many recipients match and were left alone."""
    workers: int = 0
    """How many answered."""
    cursors: list[Cursor] = []
    """One a worker; where one of them is not done, ask again with them."""
    problems: list[str] = []

    @property
    def is_done(self) -> bool:
        """Everything was looked at."""
        return not any(cursor.after for cursor in self.cursors)


class ExportWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /queue/export`: the next items of one worker, which are held from then on."""

    selection: Selection
    worker: int = 0
    after: int = 0
    """`next` of the page before."""


class ExportPage(msgspec.Struct):
    """`POST /queue/export`."""

    items: list[MovedItem]
    next: int = 0
    """0: this worker has no more."""
    left: dict[str, int] = {}
    looked_at: int = 0
    of: int = 0
    workers: int = 0
    """How many there are, each to be asked."""
    hostname: str = ""


class PiecePage(msgspec.Struct):
    """`GET /queue/export/WORKER/SEQ`: a piece of a large content."""

    data: bytes


class RemoveWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /queue/export/remove`."""

    worker: int
    items: list[ExportedItem]
    by: str = "admin"


class KnownWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /queue/import/known`: message ids and addresses."""

    recipients: list[tuple[str, str]]


class KnownPage(msgspec.Struct):
    """`POST /queue/import/known`."""

    numbers: list[int]
    """Those that wait here or were imported a while ago, counted from 0."""
    workers: int = 0


class UploadWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /queue/import/piece`."""

    worker: int
    id: str
    offset: int
    data: bytes


class ImportWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /queue/import`."""

    worker: int
    items: list[MovedItem]


class ImportPage(msgspec.Struct):
    """`POST /queue/import` and `POST /queue/import/piece`."""

    messages: int = 0
    recipients: int = 0


class SuspensionPage(msgspec.Struct):
    """`POST /suspensions` and `DELETE /suspensions/ID`."""

    suspension: Suspension
    problems: list[str] = []


class SuspensionsPage(msgspec.Struct):
    """`GET /suspensions`."""

    suspensions: list[Suspension]


class RuleRow(msgspec.Struct):
    """What one rule set off and is not over."""

    id: str
    rule: str
    policy: str
    action: str
    scope: str
    key: str
    """Whom it holds for: "source out-1 > google"."""
    does: str
    """In words: "10/min, 1 connection"."""
    since_s: float
    """Unix seconds, as all times."""
    until_s: float
    reply: str = ""
    """The latest that matched."""
    stage: str = ""
    host: str = ""
    hits: int = 1
    last_s: float = 0.0
    """When the rule last matched."""
    by: str = "rule"
    """Who made it, or changed its end last."""
    muted_until_s: float = 0.0
    """It has no effect before; 0: it has."""
    written: str = ""
    """Where the rule is: "policies/google.toml:40"; "" where no policy has it any more."""
    state: dict[str, float] = {}
    """How far a recovery has come."""


class MuteRow(msgspec.Struct):
    """What a rule sets off has no effect for a while."""

    rule: str
    policy: str
    """"" for every policy's."""
    key: str
    """"" for all that it holds for."""
    until_s: float
    by: str


class RulesPage(msgspec.Struct):
    """`GET /rules`."""

    rules: list[RuleRow]
    mutes: list[MuteRow] = []


class RulePage(msgspec.Struct):
    """`GET /rules/ID`, `DELETE /rules/ID`, `POST /rules/ID/extend`."""

    rule: RuleRow
    problems: list[str] = []


class MutePage(msgspec.Struct):
    """`POST /rules/mute`."""

    mute: MuteRow
    problems: list[str] = []


class ExplainPage(msgspec.Struct):
    """`GET /explain`."""

    outlooks: list[Outlook] = []
    """By source and worker."""
    firings: list[RuleRow] = []
    """What rules set off and holds for such mail, muted ones too, also what is for mail of one sender's domain."""
    problems: list[str] = []


class WarmupPage(msgspec.Struct):
    """`GET /warmup`."""

    rows: list[WarmupRow] = []
    """By source and provider; a source's first row, without a provider, says what its plan begins with."""
    problems: list[str] = []


class RuleWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /rules/ID/extend`."""

    for_s: float
    """From now on."""
    reason: str = ""
    by: str = "admin"


class MuteWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /rules/mute`."""

    name: str
    """Of a rule, "POLICY/RULE", or the id of what it set off."""
    for_s: float
    """From now on; 0: it has its effect again."""
    reason: str = ""
    by: str = "admin"


class ReloadPage(msgspec.Struct):
    """`POST /reload`."""

    workers: int = 0
    """That keep to what holds now."""
    wrong: list[str] = []
    """What is wrong with the files, each with its place; then nothing was changed."""
    restart: list[str] = []
    """What is written differently, but holds only after a restart."""
    warnings: list[str] = []
    """What is right but hardly meant, each with its place."""
    problems: list[str] = []
    """A sentence about each worker that did not take it in time."""


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
