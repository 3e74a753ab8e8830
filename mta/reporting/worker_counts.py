"""Counts: what a worker has counted since its start and what it has now, and the question for it."""

import msgspec


class Metrics(msgspec.Struct, frozen=True, tag="metrics"):
    """All counters and gauges, in no more than a few milliseconds of a worker's time."""


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
