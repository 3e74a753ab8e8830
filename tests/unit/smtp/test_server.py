"""The server's session: how a dialogue goes, and what each command gets."""

import pytest

from mta.smtp import replies, server
from mta.smtp.server import ServerSettings
from mta.testing.server_dialogue import ENVELOPE, MESSAGE, STORED, codes, greeted, open_session, say

# --- how a dialogue goes


def test_the_greeting_and_what_ehlo_offers():
    """RFC 5321 4.1.1.1: our name first, a keyword a line."""
    session, _ = open_session()

    greeting = session.greeting()
    said = say(session, b"EHLO client.example\r\n")

    assert greeting == b"220 mail.example.com ESMTP\r\n"
    assert said.splitlines() == [
        b"250-mail.example.com",
        b"250-SIZE 10000",
        b"250-PIPELINING",
        b"250-8BITMIME",
        b"250-SMTPUTF8",
        b"250 ENHANCEDSTATUSCODES",
    ]
    assert (session.helo, session.is_esmtp) == ("client.example", True)


def test_further_keywords_are_offered_when_asked_for():
    """A listener may add its own."""
    session, _ = open_session(ServerSettings("h.example", 1, 1, offers=("XTEST a",)))
    session.greeting()

    said = say(session, b"ehlo c\r\n")

    assert said.endswith(b"250 XTEST a\r\n")


def test_helo_offers_nothing():
    """The old greeting has one line."""
    session, _ = open_session()
    session.greeting()

    said = say(session, b"HELO client.example\r\n")

    assert said == b"250 mail.example.com\r\n"
    assert (session.helo, session.is_esmtp) == ("client.example", False)


def test_a_message_with_one_command_a_packet():
    """Each command has its reply before the next one is sent."""
    session, handler = greeted()

    said = say(
        session,
        b"MAIL FROM:<a@b.example> SIZE=21 BODY=8BITMIME\r\n",
        b"RCPT TO:<c@d.example>\r\n",
        b"DATA\r\n",
        MESSAGE + b".\r\n",
    )

    assert codes(said) == ["250 2.1.0", "250 2.1.5", "354 End", "250 2.0.0"]
    [transaction] = handler.messages
    assert (transaction.sender, [r.address for r in transaction.recipients]) == ("a@b.example", ["c@d.example"])
    assert (transaction.content, transaction.body_8bit, transaction.smtputf8) == (MESSAGE, True, False)
    assert handler.senders == [("a@b.example", 21)]


def test_a_pipelined_group_gets_its_replies_at_once():
    """One group in, one write out (RFC 2920 3.2)."""
    session, _ = greeted()

    session.receive(ENVELOPE)

    assert codes(session.data_to_send()) == ["250 2.1.0", "250 2.1.5", "354 End"]
    assert session.data_to_send() == b""
    assert session.in_content


def test_the_next_transaction_may_stand_behind_the_end_of_content():
    """RFC 2920 3.1: content may be the first command of a group."""
    session, handler = greeted()

    said = say(session, ENVELOPE, MESSAGE + b".\r\n" + ENVELOPE, b"..two\r\n.\r\n")

    assert codes(said)[3:] == ["250 2.0.0", "250 2.1.0", "250 2.1.5", "354 End", "250 2.0.0"]
    assert [transaction.content for transaction in handler.messages] == [MESSAGE, b".two\r\n"]


def test_nothing_is_read_before_the_answer():
    """What comes in while the message is being stored is kept, counted, and read afterwards."""
    session, handler = greeted(answers_at_once=False)
    say(session, ENVELOPE)

    said = say(session, MESSAGE + b".\r\nMAIL FROM:<>\r\n", b"RCPT TO:<x@y.ex", b"ample>\r\n")
    was_waiting, was_kept = session.waiting, session.buffered_bytes
    session.answer(STORED)

    assert said == b""
    assert (was_waiting, was_kept) == (True, 37)
    assert codes(session.data_to_send()) == ["250 2.0.0", "250 2.1.0", "250 2.1.5"]
    assert (session.waiting, session.buffered_bytes) == (False, 0)
    assert [sender for sender, _ in handler.senders] == ["a@b.example", ""]


def test_an_answer_without_a_message_is_a_bug():
    """The shell answers once."""
    session, _ = greeted()

    with pytest.raises(RuntimeError):
        session.answer(STORED)


def test_a_refused_message_leaves_the_session_ready():
    """4xx at the dot: the same client may try again at once."""
    session, _ = greeted(answers_at_once=False)
    say(session, ENVELOPE, MESSAGE + b".\r\n")

    session.answer(replies.NOT_STORED)

    assert codes(session.data_to_send() + say(session, ENVELOPE)) == ["451 4.3.0", "250 2.1.0", "250 2.1.5", "354 End"]


def test_too_much_sent_ahead_ends_the_session_after_the_answer():
    """Memory is bounded; the message that was taken still gets its answer."""
    session, _ = greeted(answers_at_once=False)
    say(session, ENVELOPE, MESSAGE + b".\r\n")

    for _ in range(40):
        session.receive(b"NOOP\r\n" * 10_000)
    kept = session.buffered_bytes
    session.answer(STORED)

    assert kept == server.BUFFERED_BYTES_MAX + 1
    assert codes(session.data_to_send()) == ["250 2.0.0", "421 4.3.2"]
    assert session.wants_close


def test_content_counts_as_8bit_by_what_it_holds():
    """A sender that forgot BODY=8BITMIME does not make us send broken mail on."""
    session, handler = greeted()

    say(session, ENVELOPE, "Grüße\r\n.\r\n".encode())

    assert handler.messages[0].body_8bit


def test_a_message_that_was_handed_over_is_not_kept():
    """What an idle session holds is nothing, however large its last message was."""
    session, handler = greeted()

    say(session, ENVELOPE, MESSAGE + b".\r\n")

    assert handler.messages[0].content == MESSAGE
    assert (session.content_bytes, session._content.content) == (0, b"")


def test_has_transaction_from_mail_to_answer():
    """A server that stops lets it finish."""
    session, _ = greeted(answers_at_once=False)
    seen = [session.has_transaction]

    for group in (b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b>\r\n", b"DATA\r\n", b"x\r\n.\r\n"):
        say(session, group)
        seen.append(session.has_transaction)
    session.answer(STORED)
    seen.append(session.has_transaction)

    assert seen == [False, True, True, True, True, False]


# --- each command


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (b"RSET\r\n", "250 2.0.0"),
        (b"rset  \t\r\n", "250 2.0.0"),
        (b"NOOP\r\n", "250 2.0.0"),
        (b"NOOP whatever\r\n", "250 2.0.0"),
        (b"VRFY someone\r\n", "252 2.0.0"),
        (b"VRFY\r\n", "501 5.5.4"),
        (b"HELP\r\n", "214 2.0.0"),
        (b"HELP MAIL\r\n", "214 2.0.0"),
        (b"EXPN list\r\n", "502 5.5.1"),
        (b"STARTTLS\r\n", "502 5.5.1"),
        (b"AUTH PLAIN AAA=\r\n", "502 5.5.1"),
        (b"BDAT 0 LAST\r\n", "502 5.5.1"),
        (b"QUIT\r\n", "221 2.0.0"),
        (b"QUIT now\r\n", "501 5.5.4"),
        (b"RSET all\r\n", "501 5.5.4"),
        (b"RCPT TO:<a@b>\r\n", "503 5.5.1"),
        (b"DATA\r\n", "503 5.5.1"),
        (b"\r\n", "500 5.5.2"),
        (b" NOOP\r\n", "500 5.5.2"),
        (b"FOO\r\n", "500 5.5.2"),
        (b"NOOP\n", "500 5.5.2"),
        (b"NOOP\rNOOP\r\n", "501 5.5.2"),
        (b"NOOP \0\r\n", "501 5.5.2"),
        (b"NOOP \x7f\r\n", "501 5.5.2"),
        (b"NOOP \xff\r\n", "501 5.5.2"),
        (b"NOOP \xc2\x85\r\n", "501 5.5.2"),
        (b"MAIL FROM:<\x80@b>\r\n", "501 5.5.2"),
        (b"FOO\x80\r\n", "501 5.5.2"),
        ("NOOP ü\r\n".encode(), "250 2.0.0"),
        ("MAIL FROM:<ü@b>\r\n".encode(), "553 5.6.7"),
        ("MAIL FROM:<ü@b> SMTPUTF8\r\n".encode(), "250 2.1.0"),
        ("EHLO ü\r\n".encode(), "501 5.5.2"),
        (b"EHLO\r\n", "501 5.5.2"),
        (b"HELO a b\r\n", "501 5.5.2"),
        (b"MAIL\r\n", "501 5.5.2"),
        (b"MAIL FROM:a@b\r\n", "501 5.5.2"),
        (b"MAIL FROM:<a@>\r\n", "501 5.1.7"),
        (b"MAIL FROM:<a@b> X=1\r\n", "555 5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=1 SIZE=1\r\n", "501 5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=10001\r\n", "552 5.3.4"),
        (b"MAIL FROM:<a@b>  SIZE=10001\r\n", "552 5.3.4"),
        (b"MAIL FROM:<a@b> SIZE=10000\r\n", "250 2.1.0"),
        (b"mAiL fRoM: <a@b>\r\n", "250 2.1.0"),
    ],
)
def test_a_command_and_its_reply(group, expected):
    """After EHLO, outside of a transaction."""
    session, _ = greeted()

    said = say(session, group)

    assert codes(said) == [expected]


@pytest.mark.parametrize("command", [b"MAIL FROM:<>", b"RCPT TO:<a@b>", b"DATA"])
def test_mail_needs_a_greeting_first(command):
    """503 before EHLO or HELO."""
    session, _ = open_session()
    session.greeting()

    assert codes(say(session, command + b"\r\n")) == ["503 5.5.1"]


def test_rset_before_ehlo_does_not_stand_for_it():
    """The client still has to say its name."""
    session, _ = open_session()
    session.greeting()

    assert codes(say(session, b"RSET\r\nMAIL FROM:<>\r\n")) == ["250 2.0.0", "503 5.5.1"]


@pytest.mark.parametrize("command", [b"RSET", b"EHLO again.example", b"HELO again.example"])
def test_a_transaction_is_forgotten(command):
    """RSET and a new greeting leave neither sender nor recipients (RFC 5321 4.1.1.5, 4.1.4)."""
    session, _ = greeted()

    said = say(session, b"MAIL FROM:<a@b> SMTPUTF8\r\nRCPT TO:<c@d>\r\n", command + b"\r\n", b"RCPT TO:<c@d>\r\n")

    assert codes(said)[-1] == "503 5.5.1"


def test_smtputf8_holds_for_one_transaction():
    """RFC 6531 3.4: the next MAIL must say it again."""
    session, handler = greeted()
    with_it = "MAIL FROM:<ü@b> SMTPUTF8\r\nRCPT TO:<ö@例え.jp>\r\nDATA\r\n".encode()
    without = "MAIL FROM:<a@b>\r\nRCPT TO:<ö@b>\r\n".encode()

    said = say(session, with_it, b"x\r\n.\r\n", without)

    assert codes(said) == ["250 2.1.0", "250 2.1.5", "354 End", "250 2.0.0", "250 2.1.0", "553 5.6.7"]
    assert handler.messages[0].smtputf8
    assert handler.messages[0].recipients[0].domain == "xn--r8jz45g.jp"


def test_mail_twice_is_refused():
    """A transaction is open until RSET or its end."""
    session, _ = greeted()

    said = say(session, b"MAIL FROM:<a@b>\r\nMAIL FROM:<c@d>\r\nRCPT TO:<e@f>\r\nMAIL FROM:<g@h>\r\n")

    assert codes(said) == ["250 2.1.0", "503 5.5.1", "250 2.1.5", "503 5.5.1"]


def test_data_without_an_accepted_recipient():
    """554 5.5.1, and the transaction may still get one (RFC 5321 3.3)."""
    session, handler = greeted()

    said = say(session, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@>\r\nDATA\r\n", b"RCPT TO:<c@d>\r\nDATA\r\n")

    assert codes(said) == ["250 2.1.0", "501 5.1.3", "554 5.5.1", "250 2.1.5", "354 End"]
    assert [stage for stage, *_ in handler.rejections] == ["rcpt", "data"]


def test_data_takes_no_argument():
    """RFC 5321 4.1.1.4."""
    session, _ = greeted()

    assert codes(say(session, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA x\r\n"))[-1] == "501 5.5.4"


def test_the_handler_may_refuse_a_sender():
    """452 when the disk is full; the client may try again later, and no error is counted."""
    session, handler = greeted(refuse_mail=replies.NO_SPACE)

    said = say(session, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")

    assert codes(said) == ["452 4.3.1", "503 5.5.1"]
    assert handler.rejections == [("mail", replies.NO_SPACE, "a@b", "")]
    assert session.errors == 1


def test_recipients_beyond_the_limit_are_refused_and_the_others_kept():
    """452 4.5.3 for each, none is dropped silently, and no error is counted."""
    session, handler = greeted()
    many = b"".join(b"RCPT TO:<r%d@d.example>\r\n" % number for number in range(100_000))

    said = say(session, b"MAIL FROM:<>\r\n", many, b"DATA\r\n", b"x\r\n.\r\n")

    assert codes(said) == ["250 2.1.0", *["250 2.1.5"] * 3, *["452 4.5.3"] * 99_997, "354 End", "250 2.0.0"]
    assert [recipient.address[:2] for recipient in handler.messages[0].recipients] == ["r0", "r1", "r2"]
    assert len(handler.rejections) == 99_997


def test_japanese_addresses_where_the_listener_takes_them():
    """`addresses = "japan"`: quoted on their way on; refused elsewhere."""
    session, handler = greeted(ServerSettings("h.example", 10_000, 9, addresses="japan", relay=True))
    strict, _ = greeted()
    group = b"MAIL FROM:<a.@ezweb.ne.jp>\r\nRCPT TO:<a..b@docomo.ne.jp>\r\nDATA\r\n"

    said = say(session, group, b"x\r\n.\r\n")

    assert codes(said) == ["250 2.1.0", "250 2.1.5", "354 End", "250 2.0.0"]
    assert handler.messages[0].sender == '"a."@ezweb.ne.jp'
    assert handler.messages[0].recipients[0].address == '"a..b"@docomo.ne.jp'
    assert codes(say(strict, group))[0] == "501 5.1.7"
