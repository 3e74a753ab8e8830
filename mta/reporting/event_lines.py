"""Lines: the fields of every kind of event, in the order in which they are written.

Programs read these names: fields are added at the end, never renamed. Those that have a default are left out where they
have that value.
"""

import msgspec

NO_TIME_S = 0.0
"""The one object that is left out as a time: equal ones are told."""


class _Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every line begins with, behind its `event`; a fate's `event` is a value, so that its line has its own."""

    time: float
    event_id: str
    id: str
    worker: int
    v: int


class ReceivedLine(_Head, frozen=True, omit_defaults=True, tag_field="event", tag="received"):
    """A message was accepted."""

    sender: str
    recipients: list[str]
    size: int
    message_id: str = ""
    from_domain: str = ""
    dkim: str = ""
    tenant: str = ""
    campaign: str = ""
    pool: str = ""
    client: str = ""
    queued_s: float = 0.0
    send_at: float = NO_TIME_S


class FateLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of an attempt, for one recipient."""

    event: str
    time: float
    event_id: str
    id: str
    worker: int
    v: int
    sender: str
    recipient: str
    domain: str
    size: int
    queued_s: float
    attempt: int
    stage: str
    message_id: str = ""
    from_domain: str = ""
    dkim: str = ""
    tenant: str = ""
    campaign: str = ""
    pool: str = ""
    site: str = ""
    policy: str = ""
    source: str = ""
    source_address: str = ""
    host: str = ""
    address: str = ""
    tls: str = ""
    code: int = 0
    enhanced: str = ""
    text: str = ""
    next_attempt: float = NO_TIME_S
    uncertain: bool = False
    category: str = ""
    dsn: str = ""
    after_crash: bool = False
    rule: str = ""
    hard: bool = False
    from_peer: bool = True


class RejectedLine(_Head, frozen=True, omit_defaults=True, tag_field="event", tag="rejected"):
    """Something was refused at the door."""

    stage: str
    sender: str = ""
    recipient: str = ""
    tenant: str = ""
    client: str = ""
    code: int = 0
    enhanced: str = ""
    text: str = ""


class SuspendedLine(_Head, frozen=True, omit_defaults=True, tag_field="event", tag="suspended"):
    """Nothing that matches goes out for a while."""

    selection: str
    until: float
    reason: str = ""
    by: str = ""


class ResumedLine(_Head, frozen=True, omit_defaults=True, tag_field="event", tag="resumed"):
    """That is over."""

    selection: str
    by: str = ""


class WarmupLine(_Head, frozen=True, omit_defaults=True, tag_field="event", tag="warmup"):
    """A new source is on another day of its plan at a provider: `change` says how."""

    change: str
    source: str
    provider: str
    day: int
    days: int
    allowed: int = 0
    sent: int = 0
    reason: str = ""
    code: int = 0
    enhanced: str = ""
    text: str = ""
    stage: str = ""
    host: str = ""


class RuleLine(_Head, frozen=True, omit_defaults=True, tag_field="event", tag="rule"):
    """Something was done to what a rule set off: `change` says what."""

    change: str
    rule: str
    policy: str = ""
    action: str = ""
    scope: str = ""
    key: str = ""
    until: float = 0.0
    hits: int = 0
    reason: str = ""
    by: str = ""
    rate: list[str] = []
    connections: int = 0
    code: int = 0
    enhanced: str = ""
    text: str = ""
    stage: str = ""
    host: str = ""
