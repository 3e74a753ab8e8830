"""Retelling: what the queue's records say again after a crash."""

import json

from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Reply
from mta.reporting.dsn import Failure, compose
from mta.reporting.events import Events, Fate, encode_note, encode_notes
from mta.reporting.retelling import tell_again
from mta_queue.recovered import Untold

ENVELOPE = Envelope(
    "01jxyz000000000000000",
    "a@shop.test",
    [Recipient("b@x.test", "x.test"), Recipient("c@x.test", "x.test")],
    1_750_000_000.0,
    10,
    tenant="shop",
    pool="bulk",
    told_recipients=[],
)
UNKNOWN = Reply(550, "5.1.1", "unknown")


def told_by(*untold: Untold) -> list[dict[str, object]]:
    lines: list[bytes] = []
    events = Events(lines.append, worker=0, prefix="p")
    for each in untold:
        assert tell_again(events, each, "mail.test")
    return [json.loads(line) for line in lines]


def test_items_and_fates() -> None:
    """`received` where this owner tells it, then each recipient's fate."""
    meta = envelopes.encode(ENVELOPE)
    note = encode_note(Fate("delivered", 1_750_000_001.0, Reply(250, "", "ok"), "content", 1))

    lines = told_by(Untold("item", 1, (0, 1), meta, b""), Untold("finished", 1, (1,), meta, note))

    assert [(line["event"], line.get("recipients") or line["recipient"]) for line in lines] == [
        ("received", ["b@x.test", "c@x.test"]),
        ("delivered", "c@x.test"),
    ]


def test_another_owner_tells() -> None:
    """A share that is not to tell `received` does not tell it again either."""
    silent = Envelope("01j", "a@shop.test", [Recipient("b@x.test", "x.test")], 1.0, 10)

    assert told_by(Untold("item", 1, (0,), envelopes.encode(silent), b"")) == []


def test_a_notification_is_told_once_in_the_same_words() -> None:
    """Before the fates that it tells of: as the worker told it that made it."""
    now_s = 1_750_000_100.5
    failures = [Failure(each, False, UNKNOWN, True, "mx.x.test", now_s) for each in ENVELOPE.recipients]
    notice, _ = compose(ENVELOPE, failures, "mail.test", now_s, b"")
    first: list[bytes] = []
    Events(first.append, worker=0, prefix="p").received(notice)
    fates = [
        ([0], Fate("bounced", now_s, UNKNOWN, "rcpt", dsn=notice.id, dsn_bytes=notice.size)),
        ([1], Fate("bounced", now_s, Reply(552, "5.2.2", "full"), "rcpt", dsn=notice.id, dsn_bytes=notice.size)),
    ]

    lines = told_by(Untold("finished", 1, (0, 1), envelopes.encode(ENVELOPE), encode_notes(fates)))

    assert [(line["event"], line["id"], line.get("dsn"), line.get("enhanced")) for line in lines] == [
        ("received", notice.id, None, None),
        ("bounced", ENVELOPE.id, notice.id, "5.1.1"),
        ("bounced", ENVELOPE.id, notice.id, "5.2.2"),
    ]
    assert lines[0] == json.loads(first[0])


def test_what_an_admin_wrote_down_again() -> None:
    """Held, released or put forward: the last attempt was told when it was made, and no attempt is nothing to tell."""
    meta = envelopes.encode(ENVELOPE)
    note = encode_note(Fate("deferred", 1.0, UNKNOWN, "rcpt", 1, is_repeated=True))

    assert told_by(Untold("postponed", 1, (0,), meta, note), Untold("postponed", 1, (1,), meta, b"")) == []


def test_what_nobody_understands_any_more() -> None:
    """A note or an envelope of a version that is gone is no reason not to start."""
    lines: list[bytes] = []
    events = Events(lines.append, worker=0, prefix="p")

    assert not tell_again(events, Untold("finished", 1, (0,), envelopes.encode(ENVELOPE), b"note"), "mail.test")
    assert not tell_again(events, Untold("item", 1, (0,), b"meta", b""), "mail.test")
    assert lines == []
