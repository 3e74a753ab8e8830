"""The event log as the demo reads it: while it grows, in any order that two workers write it."""

import json
from pathlib import Path

import msgspec
import pytest

from bench.fates import Fates

PROVIDERS = {"a.test": "alpha", "b.test": "beta", "c.test": "beta"}


class Log:
    """An event log that is written line by line."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.jsonl"
        self.fates = Fates(self.path, PROVIDERS)

    def write(self, *events: dict[str, object]) -> None:
        with self.path.open("a") as file:
            file.writelines(json.dumps({"time": 0.0, "v": 1, **event}) + "\n" for event in events)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def received(message_id: str, at_s: float, *recipients: str) -> dict[str, object]:
    return {"event": "received", "id": message_id, "time": at_s, "recipients": recipients}


def fate(event: str, message_id: str, at_s: float, recipient: str) -> dict[str, object]:
    return {"event": event, "id": message_id, "time": at_s, "recipient": recipient}


def test_a_log_that_is_not_there_yet_holds_nothing(log: Log):
    """The demo looks before the server has written."""
    log.fates.read()

    assert log.fates.ended == 0
    assert set(log.fates.tallies) == {"alpha", "beta"}


def test_recipients_are_counted_at_the_provider_of_their_domain(log: Log):
    """One message may have recipients at several providers, and each has its own fate."""
    log.write(
        received("1", 10.0, "x@a.test", "y@b.test", "z@c.test"),
        fate("delivered", "1", 10.5, "x@a.test"),
        fate("bounced", "1", 11.0, "y@b.test"),
        fate("expired", "1", 12.0, "z@C.test"),
    )

    log.fates.read()

    alpha, beta = log.fates.tallies["alpha"], log.fates.tallies["beta"]
    assert (alpha.accepted, alpha.ended, alpha.latencies_s) == (1, 1, [0.5])
    assert (beta.accepted, beta.ended, beta.counts["bounced"], beta.counts["expired"]) == (2, 2, 1, 1)
    assert log.fates.ended == 3


def test_deferrals_are_attempts_and_not_the_end(log: Log):
    """A recipient deferred twice is one recipient; it ends when it is delivered."""
    log.write(
        received("1", 10.0, "x@a.test"),
        fate("deferred", "1", 11.0, "x@a.test"),
        fate("deferred", "1", 12.0, "x@a.test"),
    )
    log.fates.read()
    ended_before = log.fates.ended
    log.write(fate("delivered", "1", 13.0, "x@a.test"))

    log.fates.read()

    alpha = log.fates.tallies["alpha"]
    assert ended_before == 0
    assert (alpha.counts["deferred"], len(alpha.deferred), log.fates.ended) == (2, 1, 1)
    assert alpha.latencies_s == [3.0]


def test_a_delivery_may_be_told_before_its_acceptance(log: Log):
    """Two workers write the log; the latency is known when both lines are there."""
    log.write(fate("delivered", "1", 12.0, "x@a.test"))
    log.fates.read()
    log.write(received("1", 10.0, "x@a.test"))

    log.fates.read()

    assert log.fates.tallies["alpha"].latencies_s == [2.0]


def test_a_fate_told_twice_counts_once(log: Log):
    """After a crash the same fate may have two lines."""
    log.write(received("1", 10.0, "x@a.test"), *[fate("delivered", "1", 11.0, "x@a.test")] * 2)

    log.fates.read()

    assert (log.fates.ended, log.fates.told_twice) == (1, 1)
    assert log.fates.tallies["alpha"].counts["delivered"] == 1


def test_half_a_line_waits_for_its_other_half(log: Log):
    """What is read while the server writes may end anywhere."""
    log.write(received("1", 10.0, "x@a.test"))
    whole = log.path.read_bytes()
    for at in range(1, len(whole)):
        log.path.write_bytes(whole[:at])
        fates = Fates(log.path, PROVIDERS)
        fates.read()
        log.path.write_bytes(whole)

        fates.read()

        assert fates.tallies["alpha"].accepted == 1


def test_events_that_are_no_fates_are_passed_over(log: Log):
    """Refusals at the door and whatever is added later do not count."""
    log.write({"event": "rejected", "stage": "rcpt", "code": 550}, {"event": "resumed", "site": "mx.a.test"})

    log.fates.read()

    assert log.fates.ended == 0


def test_what_is_no_event_is_an_error(log: Log):
    """The demo does not pass over a broken log."""
    log.path.write_text("not JSON\n")

    with pytest.raises(msgspec.DecodeError):
        log.fates.read()


def test_the_rate_is_that_between_first_and_last(log: Log):
    """Three deliveries in two seconds; of one alone there is no rate."""
    log.write(*(fate("delivered", str(at_s), float(at_s), "x@a.test") for at_s in (10, 11, 12)))
    log.write(fate("delivered", "9", 10.0, "y@b.test"))

    log.fates.read()

    assert log.fates.tallies["alpha"].rate_per_s == 1.5
    assert log.fates.tallies["beta"].rate_per_s == 0.0
