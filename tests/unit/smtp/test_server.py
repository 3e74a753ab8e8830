"""The server's session: whole dialogues, cut in every way a network may cut them."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.smtp import replies, server
from mta.smtp.server import ServerSession, ServerSettings, Transaction

SETTINGS = ServerSettings(hostname="mail.example.com", size_max=10_000, recipients_max=3, relay=True)
STRANGER = ServerSettings(hostname="mail.example.com", size_max=10_000, recipients_max=3)
STORED = b"250 2.0.0 Stored\r\n"
MESSAGE = b"Subject: x\r\n\r\nHello\r\n"
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
FAKE_ENDS = [
    b"\n.\n",
    b"\n.\r",
    b"\r.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
]


@dataclass
class Handler:
    """Notes everything; answers messages at once unless told to wait."""

    answers_at_once: bool = True
    refuse_mail: bytes | None = None
    session: ServerSession | None = None
    senders: list[tuple[str, int]] = field(default_factory=list)
    messages: list[Transaction] = field(default_factory=list)
    rejections: list[tuple[str, bytes, str, str]] = field(default_factory=list)

    def mail(self, sender: str, size_declared: int) -> bytes | None:
        self.senders.append((sender, size_declared))
        return self.refuse_mail

    def message(self, transaction: Transaction) -> None:
        self.messages.append(transaction)
        if self.answers_at_once:
            assert self.session is not None
            self.session.answer(STORED)

    def rejected(self, stage: str, reply: bytes, sender: str, recipient: str) -> None:
        self.rejections.append((stage, reply, sender, recipient))


def open_session(settings: ServerSettings = SETTINGS, **more) -> tuple[ServerSession, Handler]:
    """A session before its greeting."""
    handler = Handler(**more)
    handler.session = ServerSession(settings, handler)
    return handler.session, handler


def greeted(settings: ServerSettings = SETTINGS, **more) -> tuple[ServerSession, Handler]:
    """A session after EHLO."""
    session, handler = open_session(settings, **more)
    session.greeting()
    say(session, b"EHLO client.example\r\n")
    return session, handler


def say(session: ServerSession, *groups: bytes) -> bytes:
    """Hands in each group and collects what is said to it."""
    said = []
    for group in groups:
        session.receive(group)
        said.append(session.data_to_send())
    return b"".join(said)


def codes(said: bytes) -> list[str]:
    """Code and enhanced code of each reply."""
    return [b" ".join(line.split(b" ")[:2]).decode() for line in said.splitlines() if line[3:4] == b" "]


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
    """452 4.5.3 for each, none is dropped silently, and no error is counted (THREATS row 11)."""
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


# --- THREATS row 1: smuggling


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


# --- THREATS row 3: bad pipelining


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


# --- THREATS rows 5 and 7: long lines, many errors


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


# --- THREATS row 9: open relay

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


# --- cut anywhere

LINES = st.sampled_from(
    [
        b"MAIL FROM:<a@b.example>\r\n",
        b"MAIL FROM:<a@b.example> SIZE=10 BODY=8BITMIME\r\n",
        b'mail from: <"a b"@c.example> SMTPUTF8\r\n',
        b"RCPT TO:<c@d.example>\r\n",
        b"rcpt to:<@x:c@[192.0.2.1]>\r\n",
        b"RCPT TO:<c@>\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"FOO\r\n",
        b"NOOP\n",
        b"\r\n",
        b"VRFY a\r\r\n",
        b"x" * 600 + b"\r\n",
        "RCPT TO:<ü@d.example>\r\n".encode(),
    ]
)
ENDS = st.sampled_from([b"EHLO c.example\r\n", b"HELO c\r\n", b"DATA\r\n", b"QUIT\r\n", b"STARTTLS\r\n"])
CONTENT_PIECES = st.sampled_from([b"a", b".", b"\r\n", b"\r", b"\n", b"\0", b"\r\n.", b"\r\n..", b"x" * 999])


@st.composite
def dialogues(draw) -> list[bytes]:
    """Groups as a client sends them, each waiting for the replies to the one before: in step, if not always wise."""
    groups = []
    for _ in range(draw(st.integers(1, 5))):
        content = b"".join(draw(st.lists(CONTENT_PIECES, max_size=6))) + b"\r\n.\r\n"
        groups += [
            ENVELOPE,
            content + b"".join(draw(st.lists(LINES, max_size=3))) + draw(st.sampled_from([b"", ENVELOPE])),
        ]
        groups.append(b".\r\nRSET\r\n" + b"".join(draw(st.lists(LINES, max_size=6))) + draw(ENDS))
        groups += [b".\r\n", b"RSET\r\n"]
    return groups


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(borders)]


def outcome(session: ServerSession, handler: Handler) -> tuple:
    """What can be seen of a session when its replies are put aside."""
    return (handler.messages, handler.rejections, handler.senders, session.errors, session.wants_close, session.helo)


@given(dialogues(), st.lists(st.integers(0, 5000), max_size=8))
def test_no_cut_changes_a_dialogue(groups, cuts):
    """Replies, transactions and refusals are those of the uncut run, whether replies go out at once or by group."""
    whole, whole_handler = greeted()
    by_group, by_group_handler = greeted()
    at_once, at_once_handler = greeted()

    said = said_by_group = said_at_once = b""
    for group in groups:
        said += say(whole, group)
        for piece in pieces(group, cuts):
            by_group.receive(piece)
            said_at_once += say(at_once, piece)
        said_by_group += by_group.data_to_send()

    assert said_by_group == said
    assert said_at_once == said
    assert outcome(by_group, by_group_handler) == outcome(whole, whole_handler)
    assert outcome(at_once, at_once_handler) == outcome(whole, whole_handler)


@pytest.mark.parametrize("settings", [SETTINGS, STRANGER], ids=["trusted", "stranger"])
def test_no_single_cut_changes_a_message(settings):
    """The plain dialogue, cut at every single byte."""
    groups = [ENVELOPE, MESSAGE + b"..\r\n.\r\n" + ENVELOPE, b".\r\nQUIT\r\n"]
    whole, whole_handler = greeted(settings)
    said = say(whole, *groups)

    for cut in range(sum(map(len, groups))):
        session, handler = greeted(settings)
        parts = [pieces(group, [cut]) for group in groups]

        assert say(session, *itertools.chain.from_iterable(parts)) == said
        assert outcome(session, handler) == outcome(whole, whole_handler)


@given(st.lists(LINES | ENDS | CONTENT_PIECES | st.binary(max_size=8), max_size=30), st.lists(st.integers(0, 9999)))
def test_no_cut_changes_what_becomes_of_rubbish(stream, cuts):
    """Any bytes at all, with the replies fetched at the end: the same words, and never an exception."""
    data = ENVELOPE + b"".join(stream)
    whole, whole_handler = greeted()
    cut_up, cut_up_handler = greeted()

    whole.receive(data)
    for piece in pieces(data, cuts):
        cut_up.receive(piece)

    assert cut_up.data_to_send() == whole.data_to_send()
    assert outcome(cut_up, cut_up_handler) == outcome(whole, whole_handler)


@given(dialogues(), st.lists(st.integers(0, 5000), max_size=4))
def test_late_answers_change_nothing(groups, cuts):
    """Whether the answer comes at once or after all that was sent meanwhile, the same is said."""
    prompt, prompt_handler = greeted()
    late, late_handler = greeted(answers_at_once=False)

    said = said_late = b""
    for group in groups:
        said += say(prompt, group)
        for piece in pieces(group, cuts):
            late.receive(piece)
        while late.waiting:
            late.answer(STORED)
        said_late += late.data_to_send()

    assert said_late == said
    assert outcome(late, late_handler) == outcome(prompt, prompt_handler)
