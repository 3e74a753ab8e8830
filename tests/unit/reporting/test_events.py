"""Events: the lines that other programs read."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import STAGES, Reply
from mta.reporting.events import (
    TEXT_CHARS_MAX,
    Events,
    Fate,
    Way,
    decode_note,
    encode_note,
    encode_notes,
    fates_of,
)
from mta_policies.answers import Answer
from mta_policies.warmth import Turn

ALWAYS = {"time", "event", "event_id", "id", "worker", "v"}
RECEIVED_S = 1_750_000_000.123456
OK = Reply(250, "2.0.0", "OK queued")
WAY = Way(
    site="(mx1.|mx2.)shop.test",
    policy="google",
    source="out-1",
    source_address="192.0.2.10",
    host="mx1.shop.test",
    address="192.0.2.1",
    tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
)


class Told:
    """Events that are read back as soon as they are told."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.events = Events(self.lines.append, worker=3, prefix="p")

    def all(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]


def envelope_of(**changes: object) -> Envelope:
    envelope = Envelope(
        id="01jxyz",
        sender="a@shop.test",
        recipients=[Recipient("b@x.test", "x.test"), Recipient("c@y.test", "y.test")],
        received_s=RECEIVED_S,
        size=4_096,
        message_id="<1@shop.test>",
        from_domain="shop.test",
        tenant="shop",
        campaign="spring",
    )
    return msgspec.structs.replace(envelope, **changes)


def test_received_is_one_line_with_all_recipients() -> None:
    """`received` tells the envelope once, with the time of the 250."""
    told = Told()

    told.events.received(envelope_of())

    assert told.all() == [
        {
            "event": "received",
            "time": 1_750_000_000.123,
            "event_id": "p-1",
            "id": "01jxyz",
            "worker": 3,
            "v": 1,
            "sender": "a@shop.test",
            "recipients": ["b@x.test", "c@y.test"],
            "size": 4_096,
            "message_id": "<1@shop.test>",
            "from_domain": "shop.test",
            "tenant": "shop",
            "campaign": "spring",
        }
    ]


def test_received_tells_recipients_of_other_owners() -> None:
    """The owner who tells `received` names the recipients that other workers own, too."""
    told = Told()
    envelope = envelope_of(told_recipients=["b@x.test", "c@y.test", "d@z.test"])

    told.events.received(envelope)

    assert told.all()[0]["recipients"] == ["b@x.test", "c@y.test", "d@z.test"]


def test_fate_tells_the_whole_way() -> None:
    """A recipient's fate has the message's fields, the connection's and the reply's."""
    told = Told()
    envelope = envelope_of()

    told.events.fate(envelope, envelope.recipients[0], Fate("delivered", RECEIVED_S + 1.5, OK, "content", 2, 0.0, WAY))

    assert told.all() == [
        {
            "event": "delivered",
            "time": 1_750_000_001.623,
            "event_id": "p-1",
            "id": "01jxyz",
            "worker": 3,
            "v": 1,
            "sender": "a@shop.test",
            "recipient": "b@x.test",
            "domain": "x.test",
            "size": 4_096,
            "queued_s": 1.5,
            "attempt": 2,
            "stage": "content",
            "message_id": "<1@shop.test>",
            "from_domain": "shop.test",
            "tenant": "shop",
            "campaign": "spring",
            "site": "(mx1.|mx2.)shop.test",
            "policy": "google",
            "source": "out-1",
            "source_address": "192.0.2.10",
            "host": "mx1.shop.test",
            "address": "192.0.2.1",
            "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
            "code": 250,
            "enhanced": "2.0.0",
            "text": "OK queued",
        }
    ]


def test_deferral_tells_the_next_attempt() -> None:
    """A deferral says when it will be tried again; what does not apply is left out."""
    told = Told()
    envelope = envelope_of(tenant="", campaign="")
    busy = Reply(451, "", "busy")

    told.events.fate(envelope, envelope.recipients[1], Fate("deferred", RECEIVED_S, busy, "mail", 1, RECEIVED_S + 300))

    event = told.all()[0]
    assert event["next_attempt"] == 1_750_000_300.123
    assert event["queued_s"] == 0
    assert not {"tenant", "campaign", "enhanced", "host", "tls", "uncertain", "category"} & set(event)


def test_clock_that_went_back_gives_no_negative_time() -> None:
    """Where the clock was set back since the message came, it was queued for no time."""
    told = Told()
    envelope = envelope_of()

    told.events.fate(envelope, envelope.recipients[0], Fate("delivered", RECEIVED_S - 3_600, OK, "content", 1))

    assert told.all()[0]["queued_s"] == 0


def test_rejected_at_the_door() -> None:
    """What was refused has no message yet, but says who was refused, where and why."""
    told = Told()

    told.events.rejected(
        RECEIVED_S, "rcpt", Reply(550, "5.7.1", "no relay"), sender="a@x", recipient="b@y", client="192.0.2.9"
    )

    event = told.all()[0]
    assert event.keys() >= ALWAYS
    assert event["event"] == "rejected"
    assert (event["stage"], event["code"], event["enhanced"]) == ("rcpt", 550, "5.7.1")
    assert (event["sender"], event["recipient"], event["client"], event["id"]) == ("a@x", "b@y", "192.0.2.9", "")


def test_event_ids_are_unique() -> None:
    """No two lines of a process have one event id, whatever they tell."""
    told = Told()
    envelope = envelope_of()

    for _ in range(100):
        told.events.received(envelope)
        told.events.fate(envelope, envelope.recipients[0], Fate("bounced", RECEIVED_S, OK, "rcpt", 1, 0.0, WAY))
        told.events.rejected(RECEIVED_S, "mail", OK)

    assert len({event["event_id"] for event in told.all()}) == 300


def test_fate_is_told_again_from_its_note() -> None:
    """After a crash the queue's note gives the same line under a new event id."""
    told = Told()
    envelope = envelope_of()
    fate = Fate("deferred", RECEIVED_S, Reply(421, "4.7.0", "later"), "greeting", 3, 9e9, WAY, True, "throttled")

    told.events.fate(envelope, envelope.recipients[0], fate)
    told.events.fate(envelope, envelope.recipients[0], decode_note(encode_note(fate)))

    first, again = told.all()
    assert first.pop("event_id") != again.pop("event_id")
    assert first == again


def test_broken_note_is_an_error() -> None:
    """Bytes that are no note are not taken for a fate."""
    with pytest.raises(msgspec.DecodeError):
        decode_note(b"\xc1")


def test_long_texts_are_cut() -> None:
    """A peer's 32 KB of explanation is not repeated for every recipient."""
    told = Told()
    envelope = envelope_of()

    told.events.fate(envelope, envelope.recipients[0], Fate("bounced", 0.0, Reply(550, "", "x" * 32_768), "rcpt", 1))

    assert told.all()[0]["text"] == "x" * TEXT_CHARS_MAX


@pytest.mark.parametrize(
    "nasty", ["a\r\nb", "a\x00b", "\x1b[2J", "\x7f", "\x9b31m", "\u2028", "\u2029", "\x85", '"}\n{"']
)
def test_no_control_reaches_the_log(nasty: str) -> None:
    """Line ends, escapes and C1 controls from a peer or a sender are escaped, and read back as they were."""
    told = Told()
    envelope = envelope_of(sender=nasty, message_id=nasty)

    told.events.fate(envelope, Recipient(nasty, "x.test"), Fate("bounced", 0.0, Reply(550, "", nasty), "rcpt", 1))

    line = told.lines[0].decode()
    assert line.endswith("}\n")
    assert not any(ord(each) < 32 or 0x7F <= ord(each) < 0xA0 or each in "\u2028\u2029" for each in line[:-1])
    assert len(line.splitlines()) == 1
    event = told.all()[0]
    assert event["sender"] == event["recipient"] == event["message_id"] == event["text"] == nasty


def test_half_a_surrogate_pair_does_not_break_the_line() -> None:
    """Text that cannot be UTF-8 is told with question marks in its place."""
    told = Told()
    envelope = envelope_of(sender="a\udc80b")

    told.events.received(envelope)
    told.events.fate(envelope, envelope.recipients[0], Fate("bounced", 0.0, Reply(550, "", "\ud800"), "rcpt", 1))

    received, bounced = told.all()
    assert received["sender"] == "a?b"
    assert bounced["text"] == "?"
    assert bounced.keys() >= ALWAYS


@given(
    st.text(),
    st.text(),
    st.floats(0, 4e9),
    st.sampled_from(STAGES),
    st.integers(200, 599),
    st.sampled_from([WAY, Way()]),
)
def test_every_event_is_one_line_of_json(
    sender: str, text: str, time_s: float, stage: str, code: int, way: Way
) -> None:
    """Whatever is told: one line, valid JSON, with all fields that every event has."""
    told = Told()
    envelope = envelope_of(sender=sender, campaign=text)

    told.events.fate(
        envelope, envelope.recipients[0], Fate("deferred", time_s, Reply(code, "", text), stage, 1, 0.0, way)
    )

    line = told.lines[0]
    assert line.count(b"\n") == 1
    event = json.loads(line)
    assert event.keys() >= ALWAYS
    assert event["text" if text else "code"] == (text[:TEXT_CHARS_MAX] or code)
    assert abs(event["time"] - time_s) < 0.001


def test_who_signed_and_who_was_told() -> None:
    """A fate names the domains that signed and the notification that went to the sender, where there are any."""
    told = Told()
    envelope = envelope_of()
    fate = Fate("bounced", RECEIVED_S, Reply(550, "5.1.1", "unknown"), "rcpt", dkim="shop.test,esp.test", dsn="01jdsn")

    told.events.fate(envelope, envelope.recipients[0], fate)
    told.events.fate(envelope, envelope.recipients[0], Fate("delivered", RECEIVED_S, OK, "content"))

    first, second = told.all()
    assert (first["dkim"], first["dsn"]) == ("shop.test,esp.test", "01jdsn")
    assert not {"dkim", "dsn"} & set(second)


def test_suspensions_are_told() -> None:
    """From when to when, of what, why and by whom; and who ended them, unless their time was over."""
    told = Told()

    told.events.suspended(5.0, "s1", "--domain a.test", 65.5, "they asked us to", "anna")
    told.events.resumed(6.0, "s1", "--domain a.test", "bert")
    told.events.resumed(7.0, "s1", "--domain a.test", "")

    first, second, third = told.all()
    assert all(set(each) >= ALWAYS for each in (first, second, third))
    assert {name: first[name] for name in ("event", "id", "time", "selection", "until", "reason", "by")} == {
        "event": "suspended",
        "id": "s1",
        "time": 5.0,
        "selection": "--domain a.test",
        "until": 65.5,
        "reason": "they asked us to",
        "by": "anna",
    }
    assert (second["event"], second["by"]) == ("resumed", "bert")
    assert "by" not in third


def test_turns_of_a_warm_up_are_told() -> None:
    """Which day of the plan holds and why; what a provider complained with is told with the hold alone."""
    told = Told()
    answer = Answer(451, "4.7.1", "x" * 5000, "mail", "mx.a.test")

    told.events.warmup(Turn("held", "out-9", "policy:google", 5.0, 1, 7, 50, 9, "3 complaints"), "google", answer)
    told.events.warmup(Turn("warm", "out-9", "policy:google", 6.0, 7, 7, 0, 0, "it was used"), "google", None)

    first, second = told.all()
    about = {"event": "warmup", "id": "", "source": "out-9", "provider": "google", "days": 7}
    assert about | {"change": "held", "day": 1, "allowed": 50, "sent": 9, "reason": "3 complaints"} == {
        name: first[name] for name in (*about, "change", "day", "allowed", "sent", "reason")
    }
    assert (first["code"], first["stage"], first["host"], len(str(first["text"]))) == (
        451,
        "mail",
        "mx.a.test",
        TEXT_CHARS_MAX,
    )
    assert (second["change"], second["reason"]) == ("warm", "it was used")
    assert not {"code", "text", "allowed"} & set(second)


def test_one_note_for_several_fates() -> None:
    """Recipients that end together, each with its own fate; a record may be about fewer of them."""
    unknown = Fate("bounced", 1.0, Reply(550, "5.1.1", "unknown"), "rcpt", dsn="d")
    full = Fate("bounced", 1.0, Reply(552, "5.2.2", "full"), "rcpt", dsn="d")

    note = encode_notes([([0, 2], unknown), (range(3, 5), full)])

    assert fates_of(note, [0, 2, 3, 4]) == [(0, unknown), (2, unknown), (3, full), (4, full)]
    assert fates_of(note, (2, 4)) == [(2, unknown), (4, full)]
    with pytest.raises(msgspec.DecodeError):
        decode_note(note)


def test_one_fate_is_the_same_note_as_ever() -> None:
    """A single fate is written as it is for any record, and holds for all that the record is about."""
    fate = Fate("expired", 1.0, Reply(554, "5.4.7", "expired"), "local")

    assert encode_notes([([3, 1], fate)]) == encode_note(fate)
    assert fates_of(encode_note(fate), (3, 1)) == [(3, fate), (1, fate)]
    assert fates_of(b"", (3, 1)) == []


@pytest.mark.parametrize("note", [b"note", b"\x91\x92\x90\x01", b"\xc1"])
def test_what_is_no_note(note: bytes) -> None:
    """One clear exception."""
    with pytest.raises(msgspec.DecodeError):
        fates_of(note, (0,))


def test_notes_of_an_older_version() -> None:
    """What has fewer fields is read; the others have their defaults."""
    fate = Fate("deferred", 2.0, Reply(451, "", "later"), "rcpt", 1, 5.0)
    fields = msgspec.msgpack.decode(encode_note(fate))

    assert decode_note(msgspec.msgpack.encode(fields[:9])) == fate
