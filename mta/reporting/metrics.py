"""Metrics: the workers' counters as Prometheus reads them. Pure; rendered when asked, so counting costs nothing more.

Every name begins with `mta_`, a counter's ends in `_total` and counts since the worker's start. The tables say which
field becomes what; a test keeps them complete.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from mta.reporting.worker_counts import PolicyCounts, WorkerCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """One field of the workers' counters."""

    field: str
    name: str
    kind: Literal["counter", "gauge"]
    help: str


WORKER_METRICS = (
    Metric("started_s", "start_time_seconds", "gauge", "When the worker started, in Unix seconds."),
    Metric("is_taking_mail", "taking_mail", "gauge", "1 where the worker's doors take mail, 0 where they refuse it."),
    Metric("received", "received_total", "counter", "Messages accepted."),
    Metric("rejected", "rejected_total", "counter", "Messages and recipients refused at the door."),
    Metric("delivered", "delivered_total", "counter", "Recipients delivered."),
    Metric("deferred", "deferred_total", "counter", "Attempts after which a recipient waits on."),
    Metric("bounced", "bounced_total", "counter", "Recipients refused for good."),
    Metric("expired", "expired_total", "counter", "Recipients given up because their time was over."),
    Metric("cancelled", "cancelled_total", "counter", "Recipients cancelled by an admin."),
    Metric("uncertain", "uncertain_total", "counter", "Attempts that broke off after the final dot."),
    Metric(
        "after_crash",
        "after_crash_total",
        "counter",
        "Attempts whose predecessor may have been under way when the server died.",
    ),
    Metric("dsn", "dsn_total", "counter", "Delivery status notifications sent to senders."),
    Metric("signatures", "signatures_total", "counter", "DKIM signatures made."),
    Metric("signing", "signing", "gauge", "Messages that wait for their signature."),
    Metric("signing_cpu_s", "signing_cpu_seconds_total", "counter", "CPU time of the signing alone."),
    Metric("signing_lanes", "signing_lanes", "gauge", "Signatures that a helper makes at once; 0: no helper is up."),
    Metric("messages", "queue_messages", "gauge", "Messages in the queue."),
    Metric("recipients", "queue_recipients", "gauge", "Recipients in the queue."),
    Metric("ready", "queue_ready", "gauge", "Jobs in memory: what may go as soon as its turn comes."),
    Metric("held", "queue_held", "gauge", "Recipients held by an admin."),
    Metric("suspended", "queue_suspended", "gauge", "Recipients that wait for the end of a suspension."),
    Metric("resident_bytes", "resident_bytes", "gauge", "Content in memory."),
    Metric("sessions", "sessions", "gauge", "Clients connected."),
    Metric("connections", "connections", "gauge", "Connections to mail hosts."),
    Metric("queue_bytes", "queue_bytes", "gauge", "Bytes of the queue's files."),
    Metric("queue_copied_bytes", "queue_copied_bytes_total", "counter", "Bytes copied to free files mostly done."),
    Metric("segments_removed", "segments_removed_total", "counter", "Queue files removed after all in them was done."),
    Metric("commits", "commits_total", "counter", "Group commits of the queue."),
    Metric("syncs", "syncs_total", "counter", "Times the queue waited for stable storage."),
    Metric("queue_failures", "queue_failures_total", "counter", "Writes of the queue that failed."),
    Metric("quarantined", "queue_quarantined_total", "counter", "What could not be read of the queue's files."),
    Metric("events_pending_bytes", "events_pending_bytes", "gauge", "Event lines that are not in the file yet."),
    Metric("errors", "errors_total", "counter", "Errors of the server's own that stopped a message or a look-up."),
)
"""Label: worker."""

POLICY_METRICS = (
    Metric("delivered", "policy_delivered_total", "counter", "Recipients delivered."),
    Metric("deferred", "policy_deferred_total", "counter", "Attempts after which a recipient waits on."),
    Metric("bounced", "policy_bounced_total", "counter", "Recipients refused for good."),
    Metric("expired", "policy_expired_total", "counter", "Recipients given up because their time was over."),
    Metric(
        "overflowed",
        "policy_overflowed_total",
        "counter",
        "Recipients that took another source, because the plan of a new one allowed no more.",
    ),
    Metric("connections", "policy_connections", "gauge", "Connections to mail hosts."),
    Metric("connections_opened", "policy_connections_opened_total", "counter", "Connections that were established."),
    Metric("connections_failed", "policy_connections_failed_total", "counter", "Connections that were not."),
    Metric("ready", "policy_ready", "gauge", "Jobs in memory: what may go as soon as its turn comes."),
    Metric("sites", "policy_sites", "gauge", "Sites that are known."),
    Metric("sites_down", "policy_sites_down", "gauge", "Sites that are left alone because they do not answer."),
)
"""Labels: worker, policy. Names of their own, so that a sum over one name never counts anything twice."""


def render(workers: Sequence[WorkerCounts | None], *, version: str) -> str:
    """All metrics in the text format 0.0.4; a worker that told nothing (None) has `mta_up` 0 and no more."""
    lines: list[str] = []
    lines += _block("build_info", "gauge", "Always 1; the label is the version.", [(_labels(version=version), 1)])
    up = [(_labels(worker=number), int(counts is not None)) for number, counts in enumerate(workers)]
    lines += _block("up", "gauge", "1 where the worker answers.", up)
    told = [counts for counts in workers if counts is not None]
    for metric in WORKER_METRICS:
        values = [(_labels(worker=counts.worker), getattr(counts, metric.field)) for counts in told]
        lines += _block(metric.name, metric.kind, metric.help, values)
    policies = [
        (_labels(worker=counts.worker, policy=name), counts.policies[name])
        for counts in told
        for name in sorted(counts.policies)
    ]
    for metric in POLICY_METRICS:
        values = [(labels, getattr(counts, metric.field)) for labels, counts in policies]
        lines += _block(metric.name, metric.kind, metric.help, values)
    return "\n".join(lines) + "\n"


def _block(name: str, kind: str, text: str, values: Iterable[tuple[str, float]]) -> list[str]:
    head = [f"# HELP mta_{name} {text}", f"# TYPE mta_{name} {kind}"]
    return head + [f"mta_{name}{labels} {_number(value)}" for labels, value in values]


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(int(value))


def _labels(**labels: object) -> str:
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def fields_of(kind: type[WorkerCounts] | type[PolicyCounts]) -> tuple[str, ...]:
    """The fields that the tables must name."""
    return tuple(name for name in kind.__struct_fields__ if name not in ("worker", "policies"))
