"""Notifications: well formed whatever strangers wrote, and plain to read."""

import email
import re
from email import policy
from email.message import EmailMessage, Message
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.model.envelope import Envelope, Recipient
from mta.model.identity import IdMaker
from mta.model.outcome import Reply
from mta.reporting import dsn, dsn_words
from mta.reporting.dsn import Failure, can_be_told, compose, header_of, notice_id
from mta.smtp.grammar import parse_mail

ACCEPTED_S = 1_795_000_000.0
NOW_S = ACCEPTED_S + 100.0
ID = "01kf3a8zc0abcde00001"
UNKNOWN = Reply(550, "5.1.1", "<bob@x.test>: no such user here")
EXPIRED = Reply(554, "5.4.7", "Could not be delivered before it expired")
HEADER = b"Received: by us\r\nSubject: Your order 1234\r\nFrom: shop@shop.test\r\n"


def cause_of(sender: str = "anna@shop.test", **changes: Any) -> Envelope:
    fields: dict[str, Any] = {
        "recipients": [Recipient("bob@x.test", "x.test")],
        "received_s": ACCEPTED_S,
        "size": 100,
        "message_id": "<order-1234@shop.test>",
        "tenant": "shop",
        "campaign": "spring",
        "pool": "bulk",
    }
    return Envelope(ID, sender, **(fields | changes))


def failure_of(address: str = "bob@x.test", **changes: Any) -> Failure:
    failure = Failure(Recipient(address, "x.test"), False, UNKNOWN, True, "mx.x.test", NOW_S)
    return failure._replace(**changes)


def parsed(content: bytes) -> tuple[EmailMessage, list[Message]]:
    message = cast(EmailMessage, email.message_from_bytes(content, policy=policy.SMTPUTF8))
    assert message.get_content_type() == "multipart/report"
    assert not message.defects
    return message, cast(list[Message], message.get_payload())


def words(content: bytes) -> str:
    """The part for people."""
    part = parsed(content)[1][0]
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


def fields(content: bytes) -> list[Message]:
    """The blocks for programs."""
    boundary = parsed(content)[0].get_boundary()
    part = content.split(f"--{boundary}\r\n".encode())[2]
    _, *blocks = part.split(b"\r\n\r\n")
    return [email.message_from_bytes(block + b"\r\n", policy=policy.SMTPUTF8) for block in blocks if block.strip()]


def test_the_message() -> None:
    """From the mailer daemon to the sender, from the null sender, marked as automatic, in the thread of its cause."""
    envelope, content = compose(cause_of(), [failure_of()], "mail.test", NOW_S, HEADER)

    message, parts = parsed(content)
    assert (envelope.sender, envelope.recipients) == ("", [Recipient("anna@shop.test", "shop.test")])
    assert (envelope.tenant, envelope.pool, envelope.campaign, envelope.priority) == ("shop", "bulk", "", 5)
    assert (envelope.cause_id, envelope.cause_recipients) == (ID, ["bob@x.test"])
    assert (envelope.size, envelope.body_8bit, envelope.smtputf8) == (len(content), False, False)
    assert (envelope.received_s, envelope.from_domain, envelope.told_recipients) == (NOW_S, "mail.test", None)
    assert message["from"] == "Mail Delivery System <MAILER-DAEMON@mail.test>"
    assert b"\r\nTo: <anna@shop.test>\r\n" in content
    assert message["subject"] == "Not delivered: bob@x.test"
    assert message["auto-submitted"] == "auto-replied"
    assert message["message-id"] == envelope.message_id == f"<{envelope.id}@mail.test>"
    assert message["in-reply-to"] == message["references"] == "<order-1234@shop.test>"
    assert message["date"] == "Wed, 18 Nov 2026 11:08:20 +0000"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in parts] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]


def test_the_words_for_people() -> None:
    """To whom, who said no, what that means, which message it was, and whom to ask."""
    _, content = compose(cause_of(), [failure_of()], "mail.test", NOW_S, HEADER)

    assert words(content) == (
        "Your message could not be delivered to this address:\n"
        "\n"
        "    bob@x.test\n"
        "\n"
        "The mail server mx.x.test refuses it. Its answer:\n"
        "\n"
        "    550 5.1.1 <bob@x.test>: no such user here\n"
        "\n"
        "There is no such mailbox. Please look for a typing error in the address.\n"
        "\n"
        "It will not be tried again. Recipients who are not named here are not\n"
        "affected.\n"
        "\n"
        "About your message:\n"
        "\n"
        "    Subject: Your order 1234\n"
        "    Handed in: Wed, 18 Nov 2026 11:06:40 +0000\n"
        f"    Number: {ID}\n"
        "\n"
        "This was written by the mail server mail.test; nobody reads answers to\n"
        "it. If you need help, send this whole message to whoever looks after\n"
        "your mail.\n"
    )


def test_the_fields_for_programs() -> None:
    """RFC 3464: about the message, then about each recipient in order."""
    failures = [failure_of(), failure_of("carl@x.test", reply=Reply(552, "5.2.2", "full"))]
    _, content = compose(cause_of(), failures, "mail.test", NOW_S, HEADER)

    about, first, second = fields(content)
    assert (about["reporting-mta"], about["arrival-date"]) == ("dns; mail.test", "Wed, 18 Nov 2026 11:06:40 +0000")
    assert dict(first.items()) == {
        "Final-Recipient": "rfc822; bob@x.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.x.test",
        "Diagnostic-Code": "smtp; 550 5.1.1 <bob@x.test>: no such user here",
        "Last-Attempt-Date": "Wed, 18 Nov 2026 11:08:20 +0000",
    }
    assert (second["final-recipient"], second["status"]) == ("rfc822; carl@x.test", "5.2.2")
    assert parsed(content)[0]["subject"] == "Not delivered to 2 recipients"


def test_expired_with_an_answer() -> None:
    """The last answer is told, how long it was tried, and a status that says so."""
    last = failure_of(is_expired=True, reply=EXPIRED, last_reply=Reply(421, "4.7.0", "busy"), time_s=ACCEPTED_S + 60)
    _, content = compose(cause_of(), [last], "mail.test", ACCEPTED_S + 3 * 86_400, HEADER)

    assert "It was tried for 3 days. The mail server mx.x.test last answered:\n\n    421 4.7.0 busy\n" in words(content)
    recipient = fields(content)[1]
    assert (recipient["status"], recipient["diagnostic-code"]) == ("5.4.7", "smtp; 421 4.7.0 busy")
    assert recipient["last-attempt-date"] == "Wed, 18 Nov 2026 11:07:40 +0000"


def test_expired_without_an_answer() -> None:
    """Nobody was reached; the time counts from when it was due."""
    cause = cause_of(send_at_s=ACCEPTED_S + 86_400)
    silent = failure_of(is_expired=True, reply=EXPIRED, from_peer=False, host="")
    _, content = compose(cause, [silent], "mail.test", ACCEPTED_S + 2 * 86_400, b"")

    assert "It was tried for 1 day. In that time no mail server there could be\nreached.\n" in words(content)
    recipient = fields(content)[1]
    assert recipient["remote-mta"] is None
    assert recipient["diagnostic-code"] == f"x-mta; {EXPIRED}"
    assert len(parsed(content)[1]) == 2


def test_our_own_reason() -> None:
    """What no peer said is not put into a peer's mouth."""
    ours = failure_of(reply=Reply(556, "5.1.10", "x.test takes no mail"), from_peer=False, host="")
    _, content = compose(cause_of(), [ours], "mail.test", NOW_S, b"")

    assert "The reason:\n\n    556 5.1.10 x.test takes no mail\n\nThe part behind the @ receives" in words(content)
    assert fields(content)[1]["diagnostic-code"] == "x-mta; 556 5.1.10 x.test takes no mail"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(550, "", "no"), "5.0.0"),
        (Reply(550, "4.2.1", "odd"), "5.2.1"),
        (Reply(550, "5.1.1\r\nX: y", "odd"), "5.0.0"),
        (Reply(550, "5.999.999", "odd"), "5.999.999"),
        (Reply(550, "5.1", "odd"), "5.0.0"),
    ],
)
def test_status(reply: Reply, status: str) -> None:
    """Three numbers, of the class that means never."""
    _, content = compose(cause_of(), [failure_of(reply=reply)], "mail.test", NOW_S, b"")

    assert fields(content)[1]["status"] == status


def test_who_failed_alike_is_named_together() -> None:
    """And of very many the first hundred, in the part for people; programs get all."""
    failures = [failure_of(f"r{number}@x.test") for number in range(150)]
    failures.append(failure_of("z@x.test", reply=Reply(552, "5.2.2", "full")))
    _, content = compose(cause_of(), failures, "mail.test", NOW_S, HEADER)

    text = words(content)
    assert text.count("no such user here") == 1
    assert "    r99@x.test\n" in text
    assert "r100@x.test" not in text
    assert "Nor to 51 more; the details that come with this message name them all.\n" in text
    assert len(fields(content)) == 1 + 151


def test_addresses_beyond_ascii() -> None:
    """RFC 6533: to a sender who has such an address himself, as it is; to others in an escaped form."""
    to_ascii, content = compose(cause_of(), [failure_of("dörte+1@x.test")], "mail.test", NOW_S, HEADER)
    assert not to_ascii.smtputf8
    assert content.isascii()
    assert fields(content)[1]["final-recipient"] == r"utf-8; d\x{F6}rte\x{2B}1@x.test"
    assert "    dörte+1@x.test\n" in words(content)
    assert parsed(content)[0]["subject"] == "Not delivered to its recipient"

    to_wide, content = compose(
        cause_of("änne@bücher.test"), [failure_of("dörte@x.test")], "mail.test", NOW_S, "Subject: für\r\n".encode()
    )
    assert (to_wide.smtputf8, to_wide.body_8bit) == (True, True)
    assert to_wide.recipients == [Recipient("änne@bücher.test", "xn--bcher-kva.test")]
    assert "To: <änne@bücher.test>\r\n".encode() in content
    assert b"Content-Type: message/global-delivery-status\r\n" in content
    assert "Final-Recipient: utf-8; dörte@x.test\r\n".encode() in content
    assert (
        "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: für".encode()
        in content
    )


@pytest.mark.parametrize(
    "header",
    [b"Subject: caf\xe9\r\n", b"X: " + b"y" * 2000 + b"\r\n", b"X: \x1b[31m\r\n", b"X: \x80\xff\r\n Y\r\n"],
)
@pytest.mark.parametrize("sender", ["anna@shop.test", "änne@shop.test"])
def test_headers_that_are_not_clean(header: bytes, sender: str) -> None:
    """8-bit bytes, controls and lines over the limit travel encoded, and come out as they were."""
    _, content = compose(cause_of(sender), [failure_of()], "mail.test", NOW_S, header)

    part = parsed(content)[1][2]
    assert part["content-transfer-encoding"] == "quoted-printable"
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.rstrip(b"\r\n") == header.rstrip(b"\r\n")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"Subject: =?utf-8?q?F=C3=BCr?= Sie\r\n", "Für Sie"),
        (b"Subject: =?utf-8?b?%%%?=\r\n", "=?utf-8?b?%%%?="),
        (b"Subject: =?no-such?q?x?=\r\n", "=?no-such?q?x?="),
        (b"subject:=?iso-2022-jp?b?GyRCJCIbKEI=?=\r\n", "あ"),
        (b"Subject: =?utf-8?q?a=0D=0AEvil:_b?=\r\n", "a Evil: b"),
        ("Subject: \u202eabc\r\n".encode(), "abc"),
        (b"X: a\r\nSubject: one\r\n two\r\n", "one two"),
    ],
)
def test_the_subject_is_readable(raw: bytes, shown: str) -> None:
    """Decoded where that is possible, without anything that acts on a reader's screen."""
    _, content = compose(cause_of(), [failure_of()], "mail.test", NOW_S, raw)

    assert f"    Subject: {shown}\n" in words(content)


def test_a_long_subject_is_cut() -> None:
    """It stays in its line."""
    _, content = compose(cause_of(), [failure_of()], "mail.test", NOW_S, b"Subject: " + b"word " * 300 + b"\r\n")

    lines = words(content).split("\n")
    [line] = [line for line in lines if line.startswith("    Subject: ")]
    assert line.endswith("word ...")
    assert max(map(len, lines)) <= 78


STRANGE = st.text(st.characters() | st.sampled_from("\r\n\t\x00.-: \x85\u2028"), max_size=3000)
ADDRESSES = st.from_regex(r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~ü-]{1,64}@[a-z0-9.-]{1,100}", fullmatch=True)


@given(STRANGE, STRANGE, STRANGE, ADDRESSES, st.sampled_from(["anna@shop.test", "änne@shop.test"]), st.booleans())
def test_nothing_that_a_stranger_wrote_gets_out_of_its_place(
    text: str, enhanced: str, host: str, address: str, sender: str, is_expired: bool
) -> None:
    """Whatever is in a reply, a host's name or an address: the same fields, no line too long, no bare line end."""
    reply = Reply(550, enhanced, text)
    last = reply if is_expired else None
    failure = Failure(Recipient(address, "x.test"), is_expired, reply, True, host, NOW_S, last)
    envelope, content = compose(cause_of(sender, message_id=text), [failure], "mail.test", NOW_S, HEADER)

    message, parts = parsed(content)
    assert len(parts) == 3
    about, recipient = fields(content)
    assert set(about.keys()) == {"Reporting-MTA", "X-Queue-ID", "Arrival-Date"}
    assert set(recipient.keys()) <= {
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
    }
    assert set(message.keys()) <= {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "In-Reply-To",
        "References",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    }
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert max(map(len, content.split(b"\r\n"))) <= dsn.LINE_BYTES_MAX
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", content)
    assert envelope.size == len(content)
    assert envelope.smtputf8 or content.isascii()


@given(st.binary(max_size=300).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b"\r\n")))
def test_any_header_comes_back(header: bytes) -> None:
    """As it was, up to line ends at its end."""
    _, content = compose(cause_of(), [failure_of()], "mail.test", NOW_S, header)

    parts = parsed(content)[1]
    if not header:
        assert len(parts) == 2
        return
    part = parts[2]
    payload = part.get_payload(decode=True) or b""
    assert isinstance(payload, bytes)
    assert payload.rstrip(b"\r\n") == header.rstrip(b"\r\n")


def test_a_boundary_that_is_in_the_header() -> None:
    """A sender who knew it gets another one."""
    told = notice_id(ID, ["bob@x.test"])
    header = HEADER + f"--=_{told}--: x\r\n".encode()
    _, content = compose(cause_of(), [failure_of()], "mail.test", NOW_S, header)

    message, parts = parsed(content)
    assert message.get_boundary() == f"=_{told}x"
    assert len(parts) == 3


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"A: b\r\nC: d\r\n\r\nbody\r\n\r\nmore", b"A: b\r\nC: d\r\n"),
        (b"\r\nbody", b""),
        (b"", b""),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"A: b\r\n\r\n", b"A: b\r\n"),
        (b"A: b\r\nB: " + b"y" * dsn.HEADER_BYTES_MAX + b"\r\n\r\n", b"A: b\r\n"),
        (b"A: b\r\n C\r\n" + b"B: x\r\n\ty" * dsn.HEADER_BYTES_MAX, None),
        (b"x" * 100_000, b""),
    ],
)
def test_header_of(content: bytes, header: bytes | None) -> None:
    """Up to the blank line; of one that is too long, whole fields."""
    found = header_of(content)

    assert header is None or found == header
    assert len(found) <= dsn.HEADER_BYTES_MAX
    assert content.startswith(found)
    assert not found or found.endswith(b"\r\n")
    assert content[len(found) : len(found) + 1] not in (b" ", b"\t")


def test_ids() -> None:
    """The same for the same recipients of the same message, of the form of all ids, and beside its cause in order."""
    maker = IdMaker(5)
    cause, later = maker.make(ACCEPTED_S), maker.make(ACCEPTED_S + 0.002)

    first, second = notice_id(cause, ["b@x.test"]), notice_id(cause, ["b@x.test", "c@x.test"])

    assert first == notice_id(cause, ["b@x.test"]) != second
    assert len(first) == len(cause) == 20
    assert set(first) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert first[:9] == cause[:9]
    assert first < later
    assert len(notice_id("m1", ["b@x.test"])) == 20
    assert len({notice_id(cause, [f"r{number}@x.test"]) for number in range(5000)}) == 5000


@pytest.mark.parametrize(
    ("sender", "cause", "is_told"),
    [("a@shop.test", "", True), ("", "", False), ("a@shop.test", "01j", False), ("a@b c", "", False)],
)
def test_who_is_told(sender: str, cause: str, is_told: bool) -> None:
    """Whoever has an address and is not told of a notification."""
    assert can_be_told(cause_of(sender, cause_id=cause)) is is_told


@pytest.mark.parametrize("path", [b'FROM:<"a b"@shop.test>', b"FROM:<a@[192.0.2.1]>", b"FROM:<a@SHOP.Test>"])
def test_every_sender_that_is_taken_can_be_told(path: bytes) -> None:
    """Quoted, at an address literal, in capital letters."""
    sender = parse_mail(path).sender
    envelope, content = compose(cause_of(sender), [failure_of()], "mail.test", NOW_S, HEADER)

    assert can_be_told(cause_of(sender))
    assert envelope.recipients[0].address == sender
    assert envelope.recipients[0].domain in ("shop.test", "[192.0.2.1]")
    assert f"To: <{sender}>\r\n".encode() in content


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (60, "a minute"),
        (150, "2 minutes"),
        (3600, "1 hour"),
        (7300, "2 hours"),
        (86_400 * 1.5, "1 day"),
        (86_400 * 5, "5 days"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    """Roughly, in words."""
    assert dsn_words.duration(seconds) == words
