"""What is wrong with a server, in sentences."""

from mta.admin.health import EVENTS_PENDING_BYTES_MAX, troubles
from mta.reporting.worker_counts import PolicyCounts, WorkerCounts


def test_a_busy_server_is_well() -> None:
    """Mail that waits, deferrals, sites that are down: a mail server's ordinary day."""
    busy = WorkerCounts(
        0, 1.0, deferred=9_000, recipients=5_000_000, held=3, errors=2, policies={"x": PolicyCounts(sites_down=4)}
    )

    assert troubles([busy, WorkerCounts(1, 1.0)], []) == []


def test_workers_that_told_nothing_come_first() -> None:
    """Their sentences are handed on."""
    found = troubles([None, WorkerCounts(1, 1.0, is_taking_mail=False)], ["worker 0 does not answer"])

    assert found[0] == "worker 0 does not answer"
    assert found[1].startswith("worker 1 takes no mail: too little space")


def test_closed_doors_have_their_reason() -> None:
    """An event log that cannot be written closes them as well as a full disk."""
    stuck = WorkerCounts(0, 1.0, is_taking_mail=False, events_pending_bytes=EVENTS_PENDING_BYTES_MAX + 1)

    assert troubles([stuck], []) == ["worker 0 takes no mail: its event log cannot be written"]


def test_an_event_log_that_falls_behind_is_told_before_doors_close() -> None:
    """Megabytes of lines wait in memory."""
    behind = WorkerCounts(0, 1.0, events_pending_bytes=EVENTS_PENDING_BYTES_MAX + 1)

    assert troubles([behind], []) == ["worker 0: 16 MB of events wait because the log cannot be written"]
