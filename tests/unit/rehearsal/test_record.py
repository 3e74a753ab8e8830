"""A record: what the lines of an event log make of mail and of providers, and what these say in a rehearsal."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from mta.testing.rehearsal_rig import START_S, Rig
from mta_policies.answers import Answer
from mta_policies.rehearsal.recorded import NEAR_S, Recorded
from mta_policies.rehearsal.recorder import Line, Recorder
from mta_policies.rehearsal.replay import Assumed, Record, bin_of, delivery_times, recorded, replay
from mta_policies.rehearsal.traffic import NEVER_S, Mail

WAY = {"domain": "acme.test", "site": "mx.acme.test", "policy": "acme", "source": "out-1"}
LATER = {"code": 451, "enhanced": "4.7.1", "text": "rate limited", "stage": "mail"}
FULL = {"code": 452, "enhanced": "4.2.2", "text": "mailbox full", "stage": "rcpt"}
UNKNOWN = {"code": 550, "enhanced": "5.1.1", "text": "no such user", "stage": "rcpt"}
REFUSED = {"code": 451, "enhanced": "4.4.1", "text": "refused", "stage": "connect"}
TAKEN = {"code": 250, "stage": "content"}


def received(number: int, at_s: float, **more: Any) -> Line:
    return Line("received", START_S + at_s, id=f"m{number}", recipients=[f"u{number}@acme.test"], size=5_000, **more)


def fate(event: str, number: int, at_s: float, answer: dict[str, Any], **more: Any) -> Line:
    about = {"id": f"m{number}", "recipient": f"u{number}@acme.test", **WAY, **answer, **more}
    return Line(event, START_S + at_s, **about)


def heard(*lines: Line) -> Record:
    recorder = Recorder()
    for line in lines:
        recorder.hear(line)
    return Record(recorder.traffic(), recorder.books(), recorder.rules)


def said(record: Record, mail: Mail, at_s: float, first_s: float | None = None) -> str:
    answer = Recorded(record.books).answer(mail, START_S + (at_s if first_s is None else first_s), START_S + at_s)
    return answer.text if answer is not None else "taken"


def test_mail_has_what_was_said_about_it():
    """Answers in their order, and the end; a fate that is told twice counts once."""
    record = heard(
        received(1, 0.0),
        fate("deferred", 1, 2.0, LATER),
        fate("deferred", 1, 2.0, LATER),
        fate("delivered", 1, 300.0, TAKEN),
        fate("delivered", 1, 300.0, TAKEN),
    )
    (mail,) = record.traffic.mails

    assert [(each.at_s - START_S, each.answer.code, each.category) for each in mail.said] == [
        (2.0, 451, "policy-related")
    ]
    assert (mail.ended, mail.ended_s - START_S, mail.size) == ("delivered", 300.0, 5_000)
    assert (mail.due_s, mail.stream.site, mail.stream.subject.source) == (START_S, "mx.acme.test", "out-1")


def test_mail_of_before_the_log_is_known_by_its_fate():
    """What was tried before is due when it is tried again; what was not waited from the log's beginning on."""
    record = heard(
        received(1, 0.0),
        fate("delivered", 2, 50.0, TAKEN, attempt=3, queued_s=900.0),
        fate("delivered", 3, 70.0, TAKEN, attempt=1, queued_s=900.0),
    )
    due = {
        mail.recipient: (mail.due_s - START_S, mail.accepted_s - START_S, mail.attempts)
        for mail in record.traffic.mails
    }

    assert due["u2@acme.test"] == (50.0, -850.0, 2)
    assert due["u3@acme.test"] == (0.0, -830.0, 0)


def test_mail_that_was_not_tried_goes_as_others_to_its_domain():
    """Its site and source are those that the domain's mail had."""
    record = heard(received(1, 0.0), received(2, 1.0), fate("delivered", 1, 2.0, TAKEN))

    assert [mail.stream.site for mail in record.traffic.mails] == ["mx.acme.test", "mx.acme.test"]
    assert record.traffic.mails[1].ended_s == NEVER_S


def test_delayed_mail_is_due_when_it_was_to_be_sent():
    """`send_at` of the log."""
    (mail,) = heard(received(1, 0.0, send_at=START_S + 3600.0)).traffic.mails

    assert (mail.due_s, mail.accepted_s) == (START_S + 3600.0, START_S + 3600.0)


def test_what_is_about_the_recipient_is_said_again():
    """A mailbox that was full for so long after the first attempt, whenever that is; one that is unknown for ever."""
    record = heard(
        *(received(number, 0.0) for number in (1, 2)),
        fate("deferred", 1, 10.0, FULL),
        fate("delivered", 1, 610.0, TAKEN),
        fate("bounced", 2, 10.0, UNKNOWN),
    )
    full, unknown = record.traffic.mails

    assert said(record, full, 5000.0, 5000.0) == "mailbox full"
    assert said(record, full, 5200.0, 5000.0) == "mailbox full"
    assert said(record, full, 5400.0, 5000.0) == "taken"
    assert said(record, unknown, 90_000.0, 5.0) == "no such user"


def test_what_is_about_the_sender_holds_at_its_time():
    """Mail that was taken is refused when others were, and the other way round; within a minute its own answer wins."""
    record = heard(
        *(received(number, 0.0) for number in range(1, 5)),
        fate("delivered", 1, 10.0, TAKEN),
        fate("deferred", 2, 500.0, LATER),
        fate("delivered", 3, 505.0, TAKEN),
        fate("deferred", 4, 1000.0, LATER),
        fate("delivered", 4, 1600.0, TAKEN),
    )
    first, second, third, _ = record.traffic.mails

    assert said(record, first, 499.0) == "rate limited"
    assert said(record, second, 20.0) == "taken"
    assert said(record, third, 500.0) == "taken"
    assert said(record, third, 505.0 + NEAR_S + 500.0) == "rate limited"
    assert said(record, first, 1500.0) == "taken"


def test_a_site_is_down_between_failures():
    """Where no message was answered between; a single failure meets one connection."""
    record = heard(
        *(received(number, 0.0) for number in range(1, 6)),
        fate("delivered", 1, 10.0, TAKEN),
        fate("deferred", 2, 100.0, REFUSED),
        fate("deferred", 2, 400.0, REFUSED),
        fate("delivered", 2, 500.0, TAKEN),
        fate("deferred", 3, 600.0, REFUSED),
        fate("delivered", 3, 601.0, TAKEN),
    )
    stream = record.traffic.mails[0].stream
    provider = Recorded(record.books)

    opened = {at_s: provider.opened(stream, START_S + at_s) for at_s in (50.0, 250.0, 450.0, 550.0, 605.0, 606.0)}

    assert {at_s for at_s, answer in opened.items() if answer is not None} == {250.0, 450.0, 605.0}
    assert provider.down_until_s(stream, START_S + 300.0) == START_S + 500.0
    assert provider.down_until_s(stream, START_S + 550.0) == START_S + 550.0


def test_refusals_at_the_end_of_the_record_go_on_for_as_long_as_they_had_lasted():
    """What came of them nobody knows: one that was refused last does not keep all mail for ever."""
    record = heard(
        *(received(number, 0.0) for number in (1, 2, 3)),
        fate("delivered", 1, 10.0, TAKEN),
        fate("deferred", 2, 1000.0, LATER),
        fate("deferred", 2, 1300.0, LATER),
    )
    alone = heard(received(1, 0.0), fate("delivered", 1, 10.0, TAKEN), fate("deferred", 2, 1300.0, LATER))
    down = heard(received(1, 0.0), fate("deferred", 1, 100.0, REFUSED), fate("deferred", 1, 400.0, REFUSED))
    provider, stream = Recorded(down.books), down.traffic.mails[0].stream

    waits = record.traffic.mails[2]
    assert [said(record, waits, at_s) for at_s in (1599.0, 1601.0)] == ["rate limited", "taken"]
    assert [said(alone, alone.traffic.mails[0], at_s) for at_s in (1359.0, 1361.0)] == ["rate limited", "taken"]
    assert provider.down_until_s(stream, START_S + 500.0) == START_S + 700.0
    assert provider.opened(stream, START_S + 699.0) is not None
    assert provider.opened(stream, START_S + 700.0) is None


def test_a_source_that_was_never_there_is_told_what_others_were(tmp_path: Path):
    """Of all sources of that site together."""
    record = heard(received(1, 0.0), fate("deferred", 1, 500.0, LATER))
    stream = Rig(tmp_path, acme="").stream(source="out-9", domain="acme.test")

    answer = Recorded(record.books).answer(Mail("new@acme.test", 9, stream, START_S, START_S), START_S, START_S)

    assert answer == Answer(451, "4.7.1", "rate limited", "mail", "", True)


def test_the_same_policies_give_the_same_counts(tmp_path: Path):
    """Mail that was put off, refused and taken ends as it did, with as many attempts."""
    rig = Rig(tmp_path, acme='[retry]\nschedule = ["5m"]\njitter = "0%"\nexpire = "1h"')
    lines = [received(number, float(number)) for number in range(100)]
    for number in range(100):
        at_s = number + 1.5
        if number % 10 == 3:
            lines.append(fate("bounced", number, at_s, UNKNOWN, attempt=1))
            continue
        for attempt in range(number % 4):
            lines.append(fate("deferred", number, at_s, LATER if number % 2 else FULL, attempt=attempt + 1))
            at_s += 301.0
        lines.append(fate("delivered", number, at_s, TAKEN, attempt=number % 4 + 1))
    record = heard(*lines)
    bin_s = bin_of(record.traffic.end_s - record.traffic.start_s)
    before = recorded(record, rig.place, bin_s)["acme"]

    delivery_s = delivery_times(record.books, rig.place, 1.0)
    after = replay(record, rig.place, rig.place, delivery_s, Assumed(), ZoneInfo, bin_s)["acme"]

    assert (before.delivered, before.bounced, before.deferred) == (90, 10, 130)
    assert (after.delivered, after.bounced, after.deferred) == (before.delivered, before.bounced, before.deferred)
    assert abs(after.drained_s - before.drained_s) < 10.0


def test_a_record_that_shows_more_than_was_assumed_is_believed(tmp_path: Path):
    """600 messages in a minute over two connections: a delivery took a fifth of a second at most."""
    rig = Rig(tmp_path, acme="[limits]\nconnections = 2")
    lines = [fate("delivered", number, number / 10.0, TAKEN, attempt=1) for number in range(600)]
    record = heard(*lines)

    delivery_s = delivery_times(record.books, rig.place, 1.0)(record.traffic.mails[0].stream)

    assert delivery_s == 0.2
