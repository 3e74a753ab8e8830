"""Questions that the admin face asks the workers, and their answers.

A question goes to every worker; each answers for what it owns, and the asker puts the answers together. They cross as
JSON on the line between supervisor and worker; what commands print with `--json` is made of the same structs. Here are
all of them by name, and those of what is done to mail, of what holds for it, and of warm-ups.
"""

from typing import Literal

import msgspec

from mta.model.selection import Selection
from mta.reporting.moved_mail import Export, Exported, Import, Imported, Known, KnownAre, Piece, PieceOf, Remove, Upload
from mta.reporting.waiting import Explain, Explained, List, Listed, Show, Shown, Summarized, Summary
from mta.reporting.worker_counts import Metrics, WorkerCounts
from mta_policies.firings import Change, Snapshot

Verb = Literal["retry", "hold", "release", "cancel"]


# questions


class Warmups(msgspec.Struct, frozen=True, tag="warmups"):
    """How do sources stand that have a plan?"""


class Act(msgspec.Struct, frozen=True, tag="act"):
    """Do something to what waits, for some seconds; the answer says where to go on."""

    verb: Verb
    selection: Selection
    by: str = "admin"
    """Who asked, for the event log."""
    after: int = 0
    """Only items behind this one: `next` of the answer before."""
    until: int = 0
    """Only items up to this one: `until` of the answer before; 0: all that there are now."""
    notify: bool = False
    """Of `cancel`: tell the senders."""


class Suspension(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nothing that matches goes out until then, mail to come included."""

    id: str
    selection: Selection
    since_s: float
    """Unix seconds, as the next."""
    until_s: float
    reason: str = ""
    by: str = "admin"


class Suspend(msgspec.Struct, frozen=True, tag="suspend"):
    """These suspensions hold from now on, and no others; those that are new and those that are gone are told."""

    suspensions: list[Suspension]
    tells: bool = False
    """This worker writes `suspended` and `resumed` to the event log: one of all does."""
    ended_by: str = ""
    """Who resumed what is gone; "": its time was over."""


class Rules(msgspec.Struct, frozen=True, tag="rules"):
    """This was done to what rules set off, at another worker or by a command; or all that there is."""

    changes: list[Change] = []
    snapshot: Snapshot | None = None
    """For a worker that has just started."""
    tells: bool = False
    """This worker writes the changes to the event log: one of all does."""


Question = (
    Metrics
    | Summary
    | List
    | Show
    | Explain
    | Warmups
    | Act
    | Suspend
    | Rules
    | Remove
    | Export
    | Piece
    | Upload
    | Import
    | Known
)


# answers


class WarmupRow(msgspec.Struct):
    """How a source stands at a provider; with no provider, what its plan begins with."""

    source: str
    provider: str = ""
    """A policy's name, a site or a route."""
    day: int = 1
    """Of the plan, that says what today allows; one more than it has: it is over."""
    days: int = 0
    sent: int = 0
    """Today, taken by the provider."""
    allowed: int = 0
    """Today; 0: no limit."""
    under_way: int = 0
    held_s: float = 0.0
    """Since when it is a day back, because the provider complained: Unix seconds, as all times here; 0: it is not."""
    why: str = ""
    """Of that."""
    missing: int = 0
    """So many more have to be taken today for the day to count; 0: it does, or cannot."""
    next_day: int = 1
    """Of the plan, as it stands now."""
    next_allowed: int = 0
    next_s: float = 0.0
    """When it begins; 0: it is not known."""
    start_s: float = 0.0
    """Nothing goes before."""
    overflow_pool: str = ""
    origin: str = ""
    """Where the plan is written."""
    last_sent_s: float = 0.0
    index: int = 0
    """Of the share of the destination that was counted by, as the next."""
    of: int = 1


class WarmedUp(msgspec.Struct):
    """Answer to `Warmups`."""

    rows: list[WarmupRow]


class Acted(msgspec.Struct):
    """Answer to `Act`."""

    touched: int
    """Recipients."""
    messages: int
    sending: int = 0
    """Recipients that match and were left alone, because a transaction with them is under way."""
    left: dict[str, int] = {}
    """Why -> how many recipients match and were left alone, those being sent among them."""
    next: int = 0
    """Go on `after` this item; 0: all was looked at."""
    until: int = 0
    looked_at: int = 0
    """Items, since the beginning."""
    of: int = 0


class Failed(msgspec.Struct):
    """The worker could not answer."""

    error: str


Answer = (
    WorkerCounts
    | Summarized
    | WarmedUp
    | Listed
    | Shown
    | Explained
    | Acted
    | Exported
    | PieceOf
    | Imported
    | KnownAre
    | Failed
    | None
)
