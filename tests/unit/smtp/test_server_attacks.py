"""The server's session under attack: smuggling, bad pipelining, long lines, many errors, open relay."""

import pytest

from mta.smtp import replies, server
from mta.smtp.server import ServerSettings
from mta.testing.server_dialogue import ENVELOPE, FAKE_ENDS, MESSAGE, STRANGER, codes, greeted, open_session, say

# --- smuggling


@pytest.mark.parametrize("fake", FAKE_ENDS)
@pytest.mark.parametrize("before", [b"", b"Subject: x\r\n\r\nHello"])
def test_nothing_is_smuggled_behind_a_fake_end(fake, before):
    """Cut at every byte: one message, refused after its true end, and the session in step."""
    evil = b"MAIL FROM:<evil@b>\r\nRCPT TO:<victim@d>\r\nDATA\r\nevil"
    content = before + fake + evil + b"\r\n.\r\n"

    for cut in range(1, len(content)):
        session, handler = greeted()
        said = say(session, ENVELOPE, content[:cut], content[cut:], b"NOOP\r\n")

        assert codes(said)[3:] == ["550 5.6.0", "250 2.0.0"]
        assert handler.messages == []
        assert handler.rejections == [("content", replies.BAD_LINE_ENDS, "a@b.example", "")]


def test_refused_content_is_no_error_of_the_dialogue():
    """An application with a hundred bad messages hears so for each of them."""
    session, _ = greeted()

    said = [codes(say(session, ENVELOPE, b"a\nb\r\n.\r\n"))[-1] for _ in range(100)]

    assert said == ["550 5.6.0"] * 100
    assert session.errors == 0


def test_long_lines_are_refused_or_passed():
    """As the listener is set, after the true end."""
    strict, _ = greeted()
    lax, handler = greeted(ServerSettings("h.example", 10_000, 9, long_lines="pass", relay=True))
    content = b"x" * 999 + b"\r\n.\r\n"

    assert codes(say(strict, ENVELOPE, content, b"NOOP\r\n"))[-2:] == ["550 5.6.0", "250 2.0.0"]
    assert codes(say(lax, ENVELOPE, content))[-1] == "250 2.0.0"
    assert handler.messages[0].content == content[:-3]


def test_content_past_the_size_is_swallowed_and_refused_at_its_end():
    """552 5.3.4 though less was declared, in constant memory, and the session goes on."""
    session, handler = greeted()
    say(session, b"MAIL FROM:<a@b> SIZE=5\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    most = 0

    for _ in range(1000):
        session.receive(b"line\r\n" * 1000)
        most = max(most, session.content_bytes)
    said = say(session, b".\r\n", ENVELOPE)

    assert most < 10_000
    assert codes(said) == ["552 5.3.4", "250 2.1.0", "250 2.1.5", "354 End"]
    assert handler.messages == []


# --- bad pipelining


def test_talking_before_the_greeting():
    """554 instead of a greeting, and closed."""
    session, handler = open_session()

    session.receive(b"EHLO early.example\r\n")

    assert session.data_to_send() == replies.OUT_OF_STEP
    assert session.wants_close
    assert session.greeting() == b""
    assert handler.rejections == [("session", replies.OUT_OF_STEP, "", "")]


@pytest.mark.parametrize(
    "ender", [b"EHLO c\r\n", b"HELO c\r\n", b"STARTTLS\r\n", b"AUTH PLAIN\r\n", b"BDAT 5\r\n", b"DATA\r\n"]
)
@pytest.mark.parametrize("together", [True, False])
def test_nothing_may_follow_before_the_reply(ender, together):
    """Whether in one packet or in two that came before the reply was sent: refused, closed, nothing done."""
    session, handler = greeted()
    say(session, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")

    for packet in [ender + b"x\r\n.\r\n"] if together else [ender, b"x\r\n.\r\n"]:
        session.receive(packet)

    assert codes(session.data_to_send())[-1] == "554 5.5.0"
    assert session.wants_close
    assert handler.messages == []


def test_a_refused_data_also_ends_its_group():
    """Whoever sends content without waiting for 354 is out of step, also where there was no 354."""
    session, _ = greeted()

    said = say(session, b"MAIL FROM:<a@b>\r\nDATA\r\nMAIL FROM:<evil@b>\r\n")

    assert codes(said) == ["250 2.1.0", "554 5.5.1", "554 5.5.0"]
    assert session.wants_close


def test_what_follows_quit_is_not_read():
    """The session is over with 221."""
    session, handler = greeted()

    said = say(session, b"QUIT\r\nMAIL FROM:<a@b>\r\n", b"RSET\r\n")

    assert codes(said) == ["221 2.0.0"]
    assert session.wants_close
    assert handler.senders == []


def test_after_the_reply_was_sent_the_next_group_may_come():
    """The same bytes in time are welcome."""
    session, _ = greeted()

    said = say(session, b"EHLO again\r\n", b"NOOP\r\n")

    assert codes(said)[-1] == "250 2.0.0"


# --- long lines, many errors


@pytest.mark.parametrize(("command", "limit"), [(b"NOOP ", 512), (b"FOO ", 512), (b"VRFY ", 512), (b"AUTH ", 12_288)])
def test_a_line_may_be_as_long_as_its_limit(command, limit):
    """With CRLF; one byte more is 500 5.5.6."""
    fits = command + b"a" * (limit - len(command) - 2) + b"\r\n"
    longer = command + b"a" * (limit - len(command) - 1) + b"\r\n"

    first, _ = greeted()
    second, _ = greeted()

    assert codes(say(first, fits)) != ["500 5.5.6"]
    assert codes(say(second, longer)) == ["500 5.5.6"]


def test_mail_may_be_longer_for_its_parameters():
    """A path of 256 bytes and parameters pass; beyond 4,096 bytes no MAIL does."""
    session, _ = greeted()

    said = say(
        session, b"MAIL FROM:<a@b> " + b" " * 3000 + b"SIZE=1\r\nRSET\r\nMAIL FROM:<a@b>" + b" " * 4096 + b"\r\n"
    )

    assert codes(said) == ["250 2.1.0", "250 2.0.0", "500 5.5.6"]


def test_an_endless_line_is_swallowed_in_constant_memory():
    """A hundred megabytes without a line end, then the session goes on."""
    session, _ = greeted()
    most = 0

    for _ in range(1600):
        session.receive(b"x" * 65_536)
        most = max(most, session.buffered_bytes)
    said = say(session, b"\r\nNOOP\r\n")

    assert most <= 12_288
    assert codes(said) == ["500 5.5.6", "250 2.0.0"]


def test_an_unfinished_line_is_kept_up_to_the_longest_limit():
    """However small its pieces are."""
    session, _ = greeted()

    kept = []
    for _ in range(30):
        session.receive(b"x" * 1000)
        kept.append(session.buffered_bytes)

    assert kept[:12] == [1000 * number for number in range(1, 13)]
    assert kept[12:] == [0] * 18


def test_the_end_of_a_swallowed_line_is_no_command():
    """What looks like MAIL behind a bomb is the bomb's tail."""
    session, handler = greeted()
    session.receive(b"x" * 20_000)

    said = say(session, b"MAIL FROM:<a@b>\r\nNOOP\r\n")

    assert codes(said) == ["500 5.5.6", "250 2.0.0"]
    assert handler.senders == []


def test_too_many_errors_end_the_session():
    """Twenty are borne, the next one is answered with 421."""
    session, handler = greeted()

    said = [codes(say(session, b"FOO\r\n")) for _ in range(22)]

    assert said == [["500 5.5.2"]] * 20 + [["421 4.7.0"], []]
    assert session.wants_close
    assert handler.rejections == [("session", replies.TOO_MANY_ERRORS, "", "")]


def test_errors_are_counted_for_the_shell():
    """It is slower after ten; good commands do not count and do not forgive."""
    session, _ = greeted()

    say(session, b"FOO\r\nNOOP\r\nRCPT TO:<a@b>\r\nNOOP \0\r\nEXPN x\r\nNOOP\n" + b"x" * 600 + b"\r\n")

    assert session.errors == 6
    assert server.ERRORS_SLOW == 10


def test_an_accepted_message_forgives():
    """A session that is kept open for a day is not closed for its twentieth slip."""
    session, _ = greeted()
    say(session, b"FOO\r\n" * 15)

    say(session, ENVELOPE, MESSAGE + b".\r\n")

    assert session.errors == 0


def test_bad_recipients_of_a_trusted_client_do_not_count():
    """A mailing with bad addresses in it is no attack."""
    session, _ = greeted()

    said = say(session, b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<bad@>\r\n" * 50, b"RCPT TO:<c@d>\r\n")

    assert codes(said) == ["250 2.1.0", *["501 5.1.3"] * 50, "250 2.1.5"]
    assert session.errors == 0


# --- open relay

RELAY_FORMS = [
    "<a@b.example>",
    "<A@B.EXAMPLE>",
    "<a%b.example@mail.example.com>",
    "<a%b.example@[127.0.0.1]>",
    '<"a@b.example"@mail.example.com>',
    '<"a%b.example"@mail.example.com>',
    "<@mail.example.com:a@b.example>",
    "<@mail.example.com,@c.example:a@b.example>",
    "<@[127.0.0.1]:a@b.example>",
    "<a@[127.0.0.1]>",
    "<a@[192.0.2.1]>",
    "<a@[IPv6:::1]>",
    "<b.example!a>",
    "<b.example!a@mail.example.com>",
    "<mail.example.com!b.example!a>",
    "<a@b.example@mail.example.com>",
    "<a@b.example.>",
    "<a@mail.example.com.>",
    "<a@mail.example.com>",
    "<postmaster>",
    "<postmaster@mail.example.com>",
    "<>",
    "<a>",
    "a@b.example",
    " <a@b.example>",
    "<a@b_c.example>",
    "<a@localhost>",
    "<a@127.0.0.1>",
    "<a@xn--bcher-kva.example>",
    "<a@bücher.example>",
    "<ü@b.example>",
    '<"a"@b.example>',
    '<"a b"@b.example>',
    "<a..b@b.example>",
    "<a@b.example> NOTIFY=NEVER",
    "<a+b@b.example>",
    "<a@sub.mail.example.com>",
    "<a:b@c.example>",
    "<a;b@c.example>",
    "<a,b@c.example>",
]


@pytest.mark.parametrize("form", RELAY_FORMS)
@pytest.mark.parametrize("parameters", ["", " SMTPUTF8"])
def test_a_stranger_relays_nothing(form, parameters):
    """550 5.7.1 whatever the recipient looks like, and no DATA after it."""
    session, handler = greeted(STRANGER)

    said = say(session, f"MAIL FROM:<a@b>{parameters}\r\nRCPT TO:{form}\r\nDATA\r\n".encode())

    assert codes(said) == ["250 2.1.0", "550 5.7.1", "554 5.5.1"]
    assert [reply for _, reply, *_ in handler.rejections] == [replies.RELAY_DENIED, replies.NO_RECIPIENTS]


def test_there_are_forty_forms():
    """As many as the checklist asks for."""
    assert len(set(RELAY_FORMS)) == 40


def test_a_refused_recipient_is_told_as_it_was_given():
    """For the event log: without brackets and cut to a bearable length."""
    session, handler = greeted(STRANGER)

    say(session, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d> X=1\r\nRCPT TO:" + b"x" * 3000 + b"\r\nRCPT zzz\r\n")

    assert [recipient for *_, recipient in handler.rejections] == ["c@d", "x" * 320, ""]


def test_a_trusted_client_relays_the_same_forms_by_their_grammar():
    """A percent sign or a bang is a letter like others; nothing is taken apart behind it."""
    session, handler = greeted()

    say(session, b"MAIL FROM:<>\r\nRCPT TO:<a%b@c>\r\nRCPT TO:<b!a@c>\r\nRCPT TO:<@x:a@c>\r\nDATA\r\n", b"x\r\n.\r\n")

    assert [(r.address, r.domain) for r in handler.messages[0].recipients] == [
        ("a%b@c", "c"),
        ("b!a@c", "c"),
        ("a@c", "c"),
    ]
