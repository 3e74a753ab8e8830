"""Health: what is wrong with a running server, in sentences. Pure.

Only what needs somebody to act counts: mail that waits for a provider is a mail server's ordinary day.
"""

from collections.abc import Sequence

from mta.reporting.worker_counts import WorkerCounts

EVENTS_PENDING_BYTES_MAX = 16 * 1024 * 1024
"""Lines that wait to be written: a disk that is well has none after a second, past 64 MB no more mail is taken."""


def troubles(counts: Sequence[WorkerCounts | None], problems: Sequence[str]) -> list[str]:
    """One sentence a trouble, the worst first; `problems` are those of workers that told nothing."""
    found = list(problems)
    for worker in counts:
        if worker is None:
            continue
        is_stuck = worker.events_pending_bytes > EVENTS_PENDING_BYTES_MAX
        if not worker.is_taking_mail:
            why = "its event log cannot be written" if is_stuck else "too little space is free on the queue's disk"
            found.append(f"worker {worker.worker} takes no mail: {why}")
        elif is_stuck:
            megabytes = worker.events_pending_bytes // 1_000_000
            found.append(f"worker {worker.worker}: {megabytes} MB of events wait because the log cannot be written")
    return found
