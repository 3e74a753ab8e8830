"""Questions that the admin face asks the workers, and their answers.

A question goes to every worker; each answers for what it owns, and the asker puts the answers together. They cross as
JSON on the line between supervisor and worker; what commands print with `--json` is made of the same structs.
"""

from typing import Literal

import msgspec

from mta.model.selection import Selection
from mta_policies.firings import Change, Snapshot

LIST_MAX = 1_000
"""Recipients that one `List` may ask for: an answer is one line and stays under a megabyte."""

State = Literal["ready", "scheduled", "held", "suspended", "sending"]
"""Of a recipient that waits: its turn may come now (or what `waits_for` says) | for its next attempt | until an admin
releases it | for the end of a suspension | a transaction is under way."""

OTHER_SITES = "*"
"""`site` of the row that stands for all that a summary has no row of its own for."""

Verb = Literal["retry", "hold", "release", "cancel"]

ReasonKind = Literal[
    "schedule",
    "delayed",
    "held",
    "exported",
    "suspended",
    "rule",
    "sending",
    "moving",
    "lookup",
    "down",
    "claim",
    "rate",
    "quota",
    "window",
    "warmup",
    "connections",
    "connection_rate",
    "connecting",
    "signature",
    "content",
    "turn",
]
"""What a recipient waits for: its next attempt | the time that its sender asked for | an admin | an export |
the end of a suspension | what a rule set off | the end of its transaction | its way to another worker | its mail
hosts | a site that does not take mail | other workers' connections | a rate | the next period of a quota | a window
to open | the plan of a new source | connections | the rate of new
connections | a connection that is being opened | its signature | its content | its turn."""


# questions


class Metrics(msgspec.Struct, frozen=True, tag="metrics"):
    """All counters and gauges, in no more than a few milliseconds of a worker's time."""


class Summary(msgspec.Struct, frozen=True, tag="summary"):
    """What waits, by destination and site."""

    selection: Selection = Selection(all=True)


class List(msgspec.Struct, frozen=True, tag="list"):
    """Recipients that wait, oldest message first."""

    selection: Selection
    limit: int = 100
    after: str = ""
    """Only messages whose id sorts behind this one: the last id of the page before."""


class Show(msgspec.Struct, frozen=True, tag="show"):
    """All that is known of one message."""

    id: str


class Explain(msgspec.Struct, frozen=True, tag="explain"):
    """What would the next message to this address wait for, from each of these sources?"""

    address: str
    domain: str
    """What it is routed by."""
    sources: list[str]
    """Names; "" for the system's own address."""
    tenant: str = ""
    campaign: str = ""


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


class ExportedItem(msgspec.Struct, frozen=True, array_like=True):
    """What an export has of one item: enough to know it again."""

    seq: int
    id: str
    parts: list[int]


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Cancel silently what was exported and is held still."""

    items: list[ExportedItem]
    by: str = "admin"


class Export(msgspec.Struct, frozen=True, tag="export"):
    """Hold what matches and hand it out, one page after the other."""

    selection: Selection
    after: int = 0
    """Only items behind this one: `next` of the answer before."""
    budget_bytes: int = 1 << 20
    """Of content and all: a page has no more, but for one large item."""


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """A piece of the content of a large item that an export named."""

    seq: int
    offset: int
    length: int


class Upload(msgspec.Struct, frozen=True, tag="upload"):
    """A piece of the content of a large item that is to be imported; the one at 0 begins it anew."""

    id: str
    offset: int
    data: bytes


class Import(msgspec.Struct, frozen=True, tag="import"):
    """Items for this queue: answered when all are on stable storage."""

    items: list["MovedItem"]


class Known(msgspec.Struct, frozen=True, tag="known"):
    """Which of these recipients wait here, or were imported a while ago?"""

    recipients: list[tuple[str, str]]
    """Message id and address."""


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


class MovedRecipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recipient that is exported or imported."""

    address: str
    domain: str
    due_s: float = 0.0
    """When it may be tried: Unix seconds."""
    held: bool = False
    """An admin holds it; an export alone does not count."""
    attempts: int = 0
    """How often the other side answered about it."""
    last: str = ""
    """What was said the last time."""
    part: int = 0
    """Its number in the item that it was exported from."""
    note: bytes = b""
    """What the queue keeps of the last attempt (msgpack of `mta.reporting.events.Fate`)."""


class MovedItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item that is exported or imported, with the recipients that wait."""

    id: str
    sender: str
    recipients: list[MovedRecipient]
    received_s: float
    envelope: bytes
    """All of the envelope (msgpack of `mta.model.envelope.Envelope`), with these recipients."""
    size: int
    """Bytes of content."""
    content: bytes = b""
    """The first so many of them; an import takes the rest from what was uploaded under this id."""
    seq: int = 0
    worker: int = 0


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


class PolicyCounts(msgspec.Struct):
    """Counters since the worker's start, and gauges, of one policy."""

    delivered: int = 0
    deferred: int = 0
    """Attempts."""
    bounced: int = 0
    expired: int = 0
    overflowed: int = 0
    """Recipients that took another source, because the plan of a new one allowed no more."""
    connections: int = 0
    """Open now."""
    connections_opened: int = 0
    connections_failed: int = 0
    ready: int = 0
    """Jobs in lanes: recipients of one message that go together count once."""
    sites: int = 0
    sites_down: int = 0


class WorkerCounts(msgspec.Struct):
    """One worker's counters since its start, and gauges."""

    worker: int
    started_s: float
    received: int = 0
    """Messages accepted at this door."""
    rejected: int = 0
    delivered: int = 0
    """Recipients, as the four below."""
    deferred: int = 0
    bounced: int = 0
    expired: int = 0
    cancelled: int = 0
    uncertain: int = 0
    after_crash: int = 0
    """Recipients that were due at a start after a crash, at their next attempt."""
    dsn: int = 0
    """Delivery status notifications sent to senders."""
    signatures: int = 0
    signing: int = 0
    """Messages that wait for their signature now."""
    signing_cpu_s: float = 0.0
    """Of the signing alone, in helpers and here."""
    signing_lanes: int = 0
    """Signatures that a helper makes at once; 0: no helper is up."""
    messages: int = 0
    """In the queue now."""
    recipients: int = 0
    ready: int = 0
    """Jobs in memory; what is scheduled has none."""
    held: int = 0
    """Recipients."""
    suspended: int = 0
    resident_bytes: int = 0
    """Content in memory."""
    sessions: int = 0
    """Clients connected."""
    connections: int = 0
    queue_bytes: int = 0
    """Of the files of its log."""
    queue_copied_bytes: int = 0
    """Copied out of files most of which was done, so that they could be removed."""
    segments_removed: int = 0
    commits: int = 0
    syncs: int = 0
    queue_failures: int = 0
    quarantined: int = 0
    events_pending_bytes: int = 0
    errors: int = 0
    """Errors of ours that stopped a message or a look-up."""
    is_taking_mail: bool = True
    policies: dict[str, PolicyCounts] = {}


class SiteRow(msgspec.Struct):
    """What waits for one site, or for the domains that have none yet (`site` is "" then)."""

    policy: str
    site: str
    domains: int = 0
    """How many of them have something waiting."""
    ready: int = 0
    """Recipients, as the four below."""
    scheduled: int = 0
    held: int = 0
    suspended: int = 0
    sending: int = 0
    oldest_s: float = 0.0
    """When the oldest message of it was accepted: Unix seconds."""
    next_s: float = 0.0
    """When the next scheduled attempt is due: Unix seconds, 0: none."""
    connections: int = 0
    waits_for: str = ""
    """Why what is ready does not go at once: one sentence, "" where it goes."""
    last_reply: str = ""
    """Of the latest deferral that was seen."""


class Reason(msgspec.Struct, omit_defaults=True):
    """What a recipient waits for, as well as it can be known."""

    kind: ReasonKind
    limit: str = ""
    """The value that keeps it: "limits.rate", "retry.schedule"."""
    value: str = ""
    """As one writes it: "20/s"."""
    origin: str = ""
    """Where it is written: "policies/google.toml:12"; "built in"."""
    owners: int = 1
    """Workers that share the limit."""
    before: int = 0
    """Jobs that have their turn before it, about."""
    next_s: float = 0.0
    """When it is tried next, at the earliest: Unix seconds, 0: that cannot be known."""
    per_s: float = 0.0
    """How many go a second at most, where a rate says so."""
    firing: str = ""
    """The id of what a rule set off and keeps it: `mta rule show`."""


class RecipientRow(msgspec.Struct):
    """One recipient that waits."""

    id: str
    recipient: str
    sender: str
    domain: str
    state: State
    policy: str = ""
    site: str = ""
    source: str = ""
    tenant: str = ""
    campaign: str = ""
    priority: int = 5
    size: int = 0
    accepted_s: float = 0.0
    """Unix seconds, as the two below."""
    next_s: float = 0.0
    """The earliest time of the next attempt; 0: at once, or when what it waits for is over."""
    expires_s: float = 0.0
    attempts: int = 0
    waits_for: str = ""
    """One sentence."""
    last_reply: str = ""
    last_host: str = ""
    last_s: float = 0.0
    worker: int = 0
    reason: Reason | None = None
    """Of a message that is shown; lists have none."""
    expires_from: str = ""
    """What `expires_s` comes from, where the message is shown: file and line, or the sender's own wish."""


class Summarized(msgspec.Struct):
    """Answer to `Summary`."""

    rows: list[SiteRow]
    messages: int = 0


class Listed(msgspec.Struct):
    """Answer to `List`; of a message that is listed all recipients are, so a page may be longer than its limit."""

    rows: list[RecipientRow]
    more: bool = False


class Shown(msgspec.Struct):
    """Answer to `Show`: what waits here of it, and the envelope; `rows` is empty where nothing does."""

    rows: list[RecipientRow]
    message_id: str = ""
    from_domain: str = ""
    client: str = ""


class Wait(msgspec.Struct):
    """One thing that the next message would wait for."""

    words: str
    """To be read behind "waits for"."""
    reason: Reason


class Outlook(msgspec.Struct):
    """What the next message would meet, from one source at one of the workers that own its destination."""

    source: str
    worker: int
    policy: str
    site: str = ""
    waits: list[Wait] = []
    """Empty: it goes at once."""
    waiting: int = 0
    """Messages that wait for this site from this source already."""
    firings: list[str] = []
    """Ids of what rules set off and holds for it, muted ones too; with them what holds for mail of one domain there."""


class Explained(msgspec.Struct):
    """Answer to `Explain`; empty where the mail is another worker's."""

    outlooks: list[Outlook]


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


class Exported(msgspec.Struct):
    """Answer to `Export`."""

    items: list[MovedItem]
    next: int = 0
    """Go on `after` this item; 0: all was looked at."""
    left: dict[str, int] = {}
    looked_at: int = 0
    of: int = 0


class PieceOf(msgspec.Struct):
    """Answer to `Piece`."""

    data: bytes


class Imported(msgspec.Struct):
    """Answer to `Import` and `Upload`."""

    messages: int
    recipients: int


class KnownAre(msgspec.Struct):
    """Answer to `Known`."""

    numbers: list[int]
    """Of the question's recipients, counted from 0."""


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
