"""Questions that the admin face asks the workers, and their answers.

A question goes to every worker; each answers for what it owns, and the asker puts the answers together. They cross as
JSON on the line between supervisor and worker; what commands print with `--json` is made of the same structs.
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

Verb = Literal["retry", "hold", "release", "cancel"]


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


class Act(msgspec.Struct, frozen=True, tag="act"):
    """Do something to what waits."""

    verb: Verb
    selection: Selection
    by: str = "admin"
    """Who asked, for the event log."""


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


Question = Metrics | Summary | List | Show | Act | Suspend


# answers


class PolicyCounts(msgspec.Struct):
    """Counters since the worker's start, and gauges, of one policy."""

    delivered: int = 0
    deferred: int = 0
    """Attempts."""
    bounced: int = 0
    expired: int = 0
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
    segments_removed: int = 0
    commits: int = 0
    syncs: int = 0
    queue_failures: int = 0
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


class Acted(msgspec.Struct):
    """Answer to `Act`."""

    touched: int
    """Recipients."""
    messages: int
    sending: int = 0
    """Recipients that match and were left alone, because a transaction with them is under way."""


class Failed(msgspec.Struct):
    """The worker could not answer."""

    error: str


Answer = WorkerCounts | Summarized | Listed | Shown | Acted | Failed | None
