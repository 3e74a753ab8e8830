"""What waits, and for what: the questions that look it up, and the rows that answer them.

A recipient that waits has a state and a reason; sites are summed up; and of the next message to an address one may ask
what it would wait for.
"""

from typing import Literal

import msgspec

from mta.model.selection import Selection

LIST_MAX = 1_000
"""Recipients that one `List` may ask for: an answer is one line and stays under a megabyte."""

State = Literal["ready", "scheduled", "held", "suspended", "sending"]
"""Of a recipient that waits: its turn may come now (or what `waits_for` says) | for its next attempt | until an admin
releases it | for the end of a suspension | a transaction is under way."""

OTHER_SITES = "*"
"""`site` of the row that stands for all that a summary has no row of its own for."""

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
to open | the plan of a new source | connections | the rate of new connections | a connection that is being opened |
its signature | its content | its turn."""


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
