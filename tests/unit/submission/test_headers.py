"""Headers: what is read of a message's header block, what is taken off it, and what is put on top."""

import email.utils
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.submission import headers
from mta.submission.headers import Prepared, Refused, message_id_header, prepare, received_header

ORDINARY = (
    b"From: Shop <news@shop.example>\r\n"
    b"To: someone@d.example\r\n"
    b"Subject: Hello\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    b"Message-ID: <1@shop.example>\r\n"
    b"\r\n"
    b"X-MTA-Priority: 9 is text here\r\n"
)


def prepared(content: bytes, *, trusted: bool = True) -> Prepared:
    """What `prepare` says of a message that it takes."""
    found = prepare(content, trusted=trusted)
    assert isinstance(found, Prepared), found
    return found


def refusal(content: bytes, *, trusted: bool = True) -> bytes:
    """The reply with which `prepare` refuses."""
    found = prepare(content, trusted=trusted)
    assert isinstance(found, Refused)
    return found.reply


def from_domain(value: str) -> str:
    """The domain read from a From field."""
    return prepared(f"From: {value}\r\n\r\n".encode()).from_domain


# --- what is read


def test_an_ordinary_message_is_not_touched():
    """The very same bytes go on, and the fields are known."""
    found = prepared(ORDINARY)

    assert found.content is ORDINARY
    assert (found.from_domain, found.message_id) == ("shop.example", "<1@shop.example>")
    assert (found.has_from, found.has_date, found.has_message_id, found.received_count) == (True, True, True, 0)
    assert (found.priority, found.tenant, found.send_at_s) == (5, "", 0.0)


def test_what_is_missing_is_told():
    """Date and Message-ID are to be added then."""
    found = prepared(b"Subject: x\r\n\r\nDate: in the body\r\n")

    assert (found.has_from, found.has_date, found.has_message_id) == (False, False, False)
    assert (found.from_domain, found.message_id) == ("", "")


@pytest.mark.parametrize("name", [b"date", b"DATE", b"Date ", b"dAtE\t"])
def test_names_are_read_in_any_case(name):
    """RFC 5322 2.2; blanks before the colon were lawful once (RFC 5322 4.5)."""
    assert prepared(b"Subject: x\r\n" + name + b": y\r\n\r\n").has_date


@pytest.mark.parametrize("line", [b"Dates: x", b"X-Date: x", b"Subject: x\r\n Date: y", b"Resent-Date: x"])
def test_other_names_are_not_mistaken(line):
    """A name is a whole name, at the beginning of a line."""
    assert not prepared(line + b"\r\n\r\n").has_date


def test_a_folded_value_is_read_whole():
    """RFC 5322 2.2.3."""
    found = prepared(b"Message-ID:\r\n <1@\r\n\tb>\r\nFrom:\r\n\ta\r\n\t<a@b.example>\r\n\r\n")

    assert found.message_id == "<1@\tb>"
    assert found.from_domain == "b.example"


def test_the_first_of_two_counts():
    """As for a reader who stops at the first."""
    found = prepared(b"From: a@one.example\r\nFrom: a@two.example\r\nMessage-ID: 1\r\nMessage-ID: 2\r\n\r\n")

    assert (found.from_domain, found.message_id) == ("one.example", "1")


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ("a@B.Example", "b.example"),
        ("<a@b.example>", "b.example"),
        ("Name <a@b.example>", "b.example"),
        ('"Name, with comma" <a@b.example>', "b.example"),
        ('"x@evil.example" <a@b.example>', "b.example"),
        ("x@evil.example <a@b.example>", "b.example"),
        ('"a b"@b.example', "b.example"),
        ('"<x@evil.example>" <a@b.example>', "b.example"),
        ('"quoted \\" <x@evil.example>" <a@b.example>', "b.example"),
        ("a@b.example (Name <x@evil.example>)", "b.example"),
        ("(x@evil.example, (nested) \\) still) a@b.example", "b.example"),
        ("a@(comment)b.example", "b.example"),
        ("=?utf-8?Q?x@evil.example,?= <a@b.example>", "b.example"),
        ("=?utf-8?B?44GC?= <a@b.example>", "b.example"),
        ("a@b.example, c@d.example", "b.example"),
        ("Group: a@b.example, c@d.example;", "b.example"),
        ("Group: Name <a@b.example>;", "b.example"),
        ("Group: a@b.example;", "b.example"),
        ("Empty:;, a@b.example", "b.example"),
        ("<@route.example:a@b.example>", "b.example"),
        ("a@bücher.example", "xn--bcher-kva.example"),
        ("日本 <用戶@例え.jp>", "xn--r8jz45g.jp"),
        ("a@[192.0.2.1]", "[192.0.2.1]"),
        ("", ""),
        ("nobody", ""),
        ("a@", ""),
        ("a@b_c.example", ""),
        ("Name <a@b.example", "b.example"),
        ('"never closed <a@b.example>', ""),
        ("undisclosed:;", ""),
        ("\ufffd@\ufffd", ""),
    ],
)
def test_the_domain_of_the_first_address(value, domain):
    """Names, comments, quotes and groups do not lead astray (RFC 5322 3.4)."""
    assert from_domain(value) == domain


def test_from_that_is_no_utf8_has_no_domain():
    """It is not guessed."""
    assert prepared(b"From: a@\xff.example\r\n\r\n").from_domain == ""
    assert prepared(b"From: \xff <a@b.example>\r\n\r\n").from_domain == "b.example"


@given(st.text(alphabet='ab@.<>"\\(),:; =?Q\r\n\tü', max_size=60))
def test_no_from_field_is_too_strange(value):
    """A domain or none, and never an exception."""
    found = prepare(b"From: " + value.encode() + b"\r\n\r\n", trusted=True)

    assert isinstance(found, Prepared)
    assert found.from_domain.isascii()


# --- where the block ends


@pytest.mark.parametrize(
    "body", [b"Hello\r\n", b" Date: x\r\n", b"Hello world: x\r\n", b": x\r\n", b"caf\xc3\xa9: x\r\n"]
)
def test_a_content_that_begins_with_a_body_is_all_body(body):
    """An empty header block is put before it, so that our lines do not run into its text."""
    found = prepared(body + b"X-MTA-Priority: 1\r\n\r\nDate: x\r\n")

    assert found.content == b"\r\n" + body + b"X-MTA-Priority: 1\r\n\r\nDate: x\r\n"
    assert (found.has_date, found.priority) == (False, 5)


def test_a_content_that_begins_with_the_empty_line_has_no_headers():
    """Nothing is added."""
    content = b"\r\nDate: x\r\n"

    assert prepared(content).content is content
    assert not prepared(content).has_date


def test_an_empty_content_gets_an_empty_header_block():
    """What we put on top is ended by an empty line."""
    assert prepared(b"").content == b"\r\n"


def test_a_message_may_end_with_its_headers():
    """RFC 5322 3.5: the body is optional."""
    content = b"Subject: x\r\nDate: y\r\n"

    found = prepared(content)

    assert found.content is content
    assert found.has_date


# --- what an application asks for


def test_what_an_application_asks_for_is_read_and_taken_off():
    """All six, in any case of letters, folded or not; the rest is byte for byte the same."""
    content = (
        b"X-MTA-Tenant: shop\r\n"
        b"Subject: x\r\n"
        b"x-mta-campaign:\r\n  spring sale\r\n"
        b"X-MTA-PRIORITY: 9\r\n"
        b"To: a@b,\r\n  c@d\r\n"
        b"X-MTA-Send-At: 2026-01-31T09:00:00+09:00\r\n"
        b"X-MTA-Expire: 3d\r\n"
        b"X-MTA-Pool: fast\r\n"
        b"\r\nbody\r\nX-MTA-Pool: body\r\n"
    )

    found = prepared(content)

    assert found.content == b"Subject: x\r\nTo: a@b,\r\n  c@d\r\n\r\nbody\r\nX-MTA-Pool: body\r\n"
    assert (found.tenant, found.campaign, found.pool, found.priority) == ("shop", "spring sale", "fast", 9)
    assert found.send_at_s == datetime(2026, 1, 31, 0, 0, tzinfo=UTC).timestamp()
    assert found.expire_s == 3 * 86_400


def test_a_stranger_asks_in_vain():
    """Taken off, not honoured, and not refused whatever stands there."""
    found = prepared(b"X-MTA-Priority: 9\r\nX-MTA-Expire: nonsense\r\nSubject: x\r\n\r\n", trusted=False)

    assert (found.priority, found.expire_s) == (5, 0.0)
    assert found.content == b"Subject: x\r\n\r\n"


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (b"X-MTA-Tenant: a\r\n\r\nbody\r\n", b"\r\nbody\r\n"),
        (b"X-MTA-Tenant: a\r\n\r\n", b"\r\n"),
        (b"X-MTA-Tenant: a\r\n", b"\r\n"),
        (b"X-MTA-Tenant: a\r\nno field\r\n", b"\r\nno field\r\n"),
        (b"X-MTA-Unknown: a\r\nA: b\r\n\r\n", b"A: b\r\n\r\n"),
        (b"A: b\r\nX-MTA-: a\r\n\r\n", b"A: b\r\n\r\n"),
        (b"A: b\r\nno field\r\nX-MTA-Pool: a\r\n\r\n", b"A: b\r\nno field\r\n\r\n"),
        (b"A: b\r\nX-MTA-Pool : a\r\n\r\n", b"A: b\r\n\r\n"),
        (b"A: b\r\nX-MTA-Tenant: a\r\nX-MTA-Pool: a\r\n", b"A: b\r\n"),
        (b"X-MTA-Pool:\r\nA: b\r\n\r\n", b"A: b\r\n\r\n"),
    ],
)
def test_what_is_left(content, left):
    """Every X-MTA field goes, known or not, wherever it stands in the block."""
    assert prepared(content).content == left


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-MTA-Priority", "10"),
        ("X-MTA-Priority", "-1"),
        ("X-MTA-Priority", "high"),
        ("X-MTA-Priority", "５"),
        ("X-MTA-Expire", "3"),
        ("X-MTA-Expire", "0s"),
        ("X-MTA-Expire", "-3d"),
        ("X-MTA-Send-At", "tomorrow"),
        ("X-MTA-Send-At", "2026-01-31"),
        ("X-MTA-Send-At", "2026-01-31T09:00:00"),
        ("X-MTA-Send-At", "2026-02-30T09:00:00Z"),
        ("X-MTA-Send-At", "2026-01-31T24:00:00Z"),
        ("X-MTA-Send-At", "2026-01-31T09:00:00+24:00"),
        ("X-MTA-Send-At", "1969-12-31T09:00:00Z"),
        ("X-MTA-Send-At", "0000-01-31T09:00:00Z"),
        ("X-MTA-Send-At", "0001-01-01T00:00:00+23:59"),
        ("X-MTA-Campaign", "a" * 129),
        ("X-MTA-Tenant", "a\x07b"),
        ("X-MTA-Pool", "a\x85b"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(name, value):
    """The application wants to know, and is told which field it was."""
    reply = refusal(f"Subject: x\r\n{name}: {value}\r\n\r\n".encode())

    assert reply.startswith(f"550 5.6.0 {name} cannot be understood".encode())
    assert reply.isascii()


def test_a_field_given_twice_is_refused():
    """Which of them is meant is not guessed."""
    reply = refusal(b"X-MTA-Pool: a\r\nX-MTA-POOL: b\r\n\r\n")

    assert reply == b"550 5.6.0 X-MTA-POOL is given twice\r\n"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1970-01-02T00:00:00Z", 86_400.0),
        ("1970-01-02t00:00:00.25z", 86_400.25),
        ("1970-01-02 00:00:00-01:30", 91_800.0),
        ("1970-01-01T23:59:60Z", 86_400.0),
    ],
)
def test_times_as_rfc_3339_writes_them(value, seconds):
    """Small letters, fractions, offsets and leap seconds are lawful."""
    assert prepared(f"X-MTA-Send-At: {value}\r\n\r\n".encode()).send_at_s == seconds


@given(
    st.lists(
        st.sampled_from([b"Subject: x", b"X-MTA-Foo: y", b"x-mta-pool: z\r\n\tfolded", b"To: a\r\n X-MTA-A: b", b"A:"]),
        max_size=8,
    )
)
def test_the_rest_stays_byte_for_byte(fields):
    """Taking off some fields is the same as not having written them."""
    rest = [field for field in fields if not field.lower().startswith(b"x-mta")]
    content = b"".join(field + b"\r\n" for field in fields) + b"\r\nbody"

    found = prepared(content, trusted=False)

    assert found.content == b"".join(field + b"\r\n" for field in rest) + b"\r\nbody"


# --- bombs and loops


def test_more_than_fifty_received_are_a_loop():
    """554 5.4.6; fifty are borne."""
    assert prepared(b"Received: x\r\n" * 50 + b"\r\n").received_count == 50
    assert refusal(b"Received: x\r\n" * 51 + b"\r\n").startswith(b"554 5.4.6 ")


@pytest.mark.parametrize(
    "block",
    [
        b"A: b\r\n" * 100_000,
        b"A: " + b"b" * 1_000_000 + b"\r\n",
        b"A:\r\n" + b" b\r\n" * 200_000,
        b"Received: x\r\n" * 100_000,
        b"X-MTA-Pool: x\r\n" * 100_000,
        b"A:\r\n" * 100_000,
    ],
)
@pytest.mark.parametrize("end", [b"\r\nbody\r\n", b""])
def test_header_bombs_are_refused(block, end):
    """552 5.3.4, whether the block ends or not."""
    assert refusal(block + end).startswith(b"552 5.3.4 ")


@pytest.mark.parametrize(
    "block",
    [
        b"X-MTA-Foo: b\r\n" * 9_000,
        b"A: " + b"b" * 500_000 + b"\r\n",
        b"From: " + b"(<@,=?" * 80_000 + b"\r\n",
        b"From: " + b'"\\' * 200_000 + b"\r\n",
        b"From" + b" " * 500_000 + b"\r\n",
        b"A: b\r\n" + b"X-MTA-" * 80_000 + b"\r\n",
        b"A: b\r\nFrom:" + b"\r\n x" * 9_000 + b"\r\n",
    ],
)
def test_strange_blocks_within_the_limits_are_read(block):
    """Each in one pass: no pattern goes back over what it has seen."""
    assert isinstance(prepare(block + b"\r\n", trusted=True), Prepared)


def test_a_large_body_is_no_large_header():
    """The limit is the block's."""
    assert prepared(b"Subject: x\r\n\r\n" + b"a\r\n" * 400_000).has_date is False


def test_only_the_beginning_of_from_is_looked_at():
    """An address behind four kilobytes of name is not found."""
    assert from_domain("x" * 4000 + " <a@b.example>") == "b.example"
    assert from_domain("x" * 5000 + " <a@b.example>") == ""


def test_a_message_id_is_told_cut():
    """An event line does not grow with it."""
    assert len(prepared(b"Message-ID: " + b"a" * 9000 + b"\r\n\r\n").message_id) == 500


# --- what is put on top


def test_the_trace_line():
    """RFC 5321 4.4: who said what, from where, to whom, when."""
    line = received_header(
        hostname="mail.example.com",
        message_id="abc",
        now_s=1_767_225_600.9,
        helo="app.example",
        client="192.0.2.1",
        recipient="a@b.example",
    )

    assert line == (
        b"Received: from app.example ([192.0.2.1])\r\n"
        b"\tby mail.example.com with ESMTP id abc\r\n"
        b"\tfor <a@b.example>; Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    )


def test_the_trace_line_of_a_listener_that_hides():
    """No inner host is named."""
    line = received_header(
        hostname="m.example", message_id="abc", now_s=0, helo="inner", client="10.0.0.1", hidden=True
    )

    assert line == b"Received: by m.example with ESMTP id abc; Thu, 01 Jan 1970 00:00:00 +0000\r\n"


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({}, b"ESMTP"),
        ({"is_esmtp": False}, b"SMTP"),
        ({"is_tls": True}, b"ESMTPS"),
        ({"is_tls": True, "is_authenticated": True}, b"ESMTPSA"),
        ({"is_authenticated": True}, b"ESMTPA"),
        ({"smtputf8": True}, b"UTF8SMTP"),
        ({"smtputf8": True, "is_tls": True}, b"UTF8SMTPS"),
    ],
)
def test_the_protocol_in_the_trace_line(facts, word):
    """RFC 3848, RFC 6531 3.7.3."""
    line = received_header(hostname="m", message_id="i", now_s=0, helo="h", client="2001:db8::1", **facts)

    assert b" with " + word + b" id " in line
    assert b"([IPv6:2001:db8::1])" in line


@given(st.integers(0, 2**33))
def test_the_trace_lines_date_is_read_back_the_same(second):
    """An independent reader agrees (RFC 5322 3.3)."""
    line = received_header(hostname="m", message_id="i", now_s=second + 0.75, helo="h", client="192.0.2.1")

    date = line.decode().rpartition("; ")[2]
    assert email.utils.parsedate_to_datetime(date.strip()).timestamp() == second


def test_a_message_id_of_ours():
    """In the domain that the message is from."""
    assert message_id_header("abc", "shop.example") == b"Message-ID: <abc@shop.example>\r\n"


def test_the_caches_are_bounded():
    """Whatever comes in."""
    assert headers._domain_of_first.cache_info().maxsize == headers.FROM_CACHE_ENTRIES_MAX
