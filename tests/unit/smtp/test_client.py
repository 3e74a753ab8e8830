"""The client's dialogue where all goes well, and what is said before the first message."""

import pytest

from mta.model.outcome import Bounced, Delivered, Reply
from mta.smtp.client import ClientSession, TlsMode
from mta.smtp.outgoing import Outgoing
from mta.testing.client_dialogue import (
    CONTENT,
    QUEUED,
    QUEUED_REPLY,
    YES_1,
    Recorder,
    ehlo,
    mail,
    new,
    ready,
    sent,
)

# ---- before the first message


def test_a_session_greets_with_ehlo_and_is_ready():
    """Greeting, EHLO, ready: nothing is said before the greeting."""
    session, recorder = new()

    said = [sent(session)]
    session.receive(b"220-peer\r\n220 welcomes you\r\n")
    said.append(sent(session))
    session.receive(ehlo("PIPELINING", "size 1000", "8bitmime", "SMTPUTF8", "CHUNKING", "X-ODD what"))

    assert said == [b"", b"EHLO me.example\r\n"]
    assert recorder.told == [("ready",)]
    capabilities = session.capabilities
    assert (capabilities.size_max, capabilities.pipelining, capabilities.eight_bit) == (1000, True, True)
    assert (capabilities.smtputf8, capabilities.chunking, capabilities.starttls) == (True, True, False)


@pytest.mark.parametrize(
    ("keyword", "size_max"),
    [("SIZE", 0), ("SIZE 0", 0), ("SIZE x", 0), ("SIZE -5", 0), ("SIZE 5 6", 0), ("SIZE " + "9" * 21, 0),
     ("SIZE 35882577", 35_882_577), ("SIZE  7 ", 7)],
)  # fmt: skip
def test_sizes_that_make_no_sense_are_no_limit(keyword: str, size_max: int):
    """SIZE without a number, or with one that is none, means that no limit was told."""
    session, _ = ready(keyword)

    assert session.capabilities.size
    assert session.capabilities.size_max == size_max


def test_ehlo_refused_falls_back_to_helo():
    """A peer that does not know EHLO is greeted with HELO and offers nothing."""
    session, recorder = new()
    session.receive(b"220 peer\r\n")
    sent(session)

    session.receive(b"502 5.5.1 what\r\n")
    said = sent(session)
    session.receive(b"250 peer\r\n")

    assert said == b"HELO me.example\r\n"
    assert recorder.told == [("ready",)]
    assert not session.capabilities.pipelining


@pytest.mark.parametrize(
    ("replies", "stage", "reply"),
    [
        ([b"554 5.7.1 go away\r\n"], "greeting", Reply(554, "5.7.1", "go away")),
        ([b"421 4.3.2 busy\r\n"], "greeting", Reply(421, "4.3.2", "busy")),
        ([b"450 later\r\n"], "greeting", Reply(450, "", "later")),
        ([b"220 hi\r\n", b"421 busy\r\n"], "ehlo", Reply(421, "", "busy")),
        ([b"220 hi\r\n", b"451 busy\r\n"], "ehlo", Reply(451, "", "busy")),
        ([b"220 hi\r\n", b"500 what\r\n", b"550 no\r\n"], "ehlo", Reply(550, "", "no")),
        ([b"220 hi\r\n", b"500 what\r\n", b"421 no\r\n"], "ehlo", Reply(421, "", "no")),
    ],
)
def test_a_peer_that_does_not_want_us(replies: list[bytes], stage: str, reply: Reply):
    """A refusal before the first message is told with its stage, and QUIT is said."""
    session, recorder = new()

    for piece in replies:
        sent(session)
        session.receive(piece)

    assert recorder.told == [("failed", stage, reply, True)]
    assert (session.phase, sent(session)) == ("quit", b"QUIT\r\n")


@pytest.mark.parametrize("greeting", [b"250 hi\r\n", b"354 go\r\n", b"SSH-2.0-x\r\n", b"220-a\r\n250 b\r\n"])
def test_a_greeting_that_is_none_fails_for_now(greeting: bytes):
    """Something that is no SMTP greeting is a 4xx with our own words."""
    session, recorder = new()

    session.receive(greeting)

    ((_, stage, reply, from_peer),) = recorder.told
    assert (stage, from_peer, session.phase) == ("greeting", False, "closed")
    assert isinstance(reply, Reply)
    assert reply.code == 451


@pytest.mark.parametrize("behind", [b"250 x\r\n", b"2", b"250 peer\r\n250 peer\r\n"])
def test_a_peer_that_answers_before_it_was_asked_is_left(behind: bytes):
    """Anything behind the greeting came before EHLO and cannot be its reply."""
    session, recorder = new()

    session.receive(b"220 hi\r\n" + behind)

    assert recorder.names() == ["failed"]
    assert session.phase == "closed"


# ---- STARTTLS


def secured(tls: TlsMode) -> tuple[ClientSession, Recorder]:
    """A session that has said STARTTLS."""
    session, recorder = new(tls)
    session.receive(b"220 hi\r\n")
    session.receive(ehlo("STARTTLS", "PIPELINING", "SIZE 5"))
    assert sent(session) == b"STARTTLS\r\n"
    return session, recorder


@pytest.mark.parametrize("tls", ["opportunistic", "required", "verify"])
def test_starttls_is_taken_where_offered(tls: TlsMode):
    """After the handshake EHLO is said again, and what the peer offered in clear is forgotten."""
    session, recorder = secured(tls)

    session.receive(b"220 2.0.0 go\r\n")
    session.tls_established()
    said, forgotten = sent(session), session.capabilities
    session.receive(ehlo("8BITMIME", "STARTTLS"))

    assert said == b"EHLO me.example\r\n"
    assert not forgotten.pipelining
    assert forgotten.size_max == 0
    assert recorder.names() == ["start_tls", "ready"]
    assert session.capabilities.eight_bit
    assert not session.capabilities.pipelining


def test_starttls_is_not_said_where_it_is_not_wanted():
    """tls = none stays in clear although the peer offers more."""
    session, recorder = new("none")

    session.receive(b"220 hi\r\n")
    session.receive(ehlo("STARTTLS"))

    assert recorder.names() == ["ready"]


def test_a_peer_without_starttls_is_met_in_clear_when_that_may_be():
    """tls = opportunistic goes on in clear."""
    session, recorder = new("opportunistic")

    session.receive(b"220 hi\r\n")
    session.receive(ehlo("PIPELINING"))

    assert recorder.names() == ["ready"]


@pytest.mark.parametrize("tls", ["required", "verify"])
@pytest.mark.parametrize("hello", [[ehlo("PIPELINING")], [b"500 what\r\n", b"250 peer\r\n"]])
def test_a_peer_without_starttls_is_left_when_tls_must_be(tls: TlsMode, hello: list[bytes]):
    """A stripped STARTTLS defers and never sends in clear."""
    session, recorder = new(tls)

    for piece in [b"220 hi\r\n", *hello]:
        session.receive(piece)

    assert recorder.told == [("failed", "starttls", Reply(451, "4.7.4", "TLS is required but not offered"), False)]
    assert session.phase == "quit"


@pytest.mark.parametrize("refusal", [b"454 4.7.0 not now\r\n", b"501 no\r\n", b"421 bye\r\n"])
def test_starttls_refused_fails(refusal: bytes):
    """Also an opportunistic session does not go on in clear on a connection where STARTTLS failed."""
    session, recorder = secured("opportunistic")

    session.receive(refusal)

    assert recorder.names() == ["failed"]
    assert recorder.told[0][1] == "starttls"
    assert recorder.told[0][3] is True


@pytest.mark.parametrize("behind", [b"2", b"250 injected\r\n", b"421 bye\r\n", b"\x16\x03"])
def test_clear_text_behind_the_220_of_starttls_fails(behind: bytes):
    """What was injected in clear never reaches the encrypted dialogue."""
    session, recorder = secured("opportunistic")

    session.receive(b"220 go\r\n" + behind)

    assert recorder.names() == ["failed"]
    assert recorder.told[0][1] == "starttls"
    assert session.phase == "closed"


def test_a_failed_handshake_is_told_with_its_reason():
    """The shell ends the session with the reason for the failure."""
    session, recorder = secured("required")
    session.receive(b"220 go\r\n")
    reason = Reply(451, "4.7.5", "certificate not accepted")

    session.connection_lost(reason)

    assert recorder.told[1:] == [("failed", "starttls", reason, False)]


# ---- a message that is taken


def test_a_pipelined_transaction_is_one_write():
    """MAIL, every RCPT and DATA leave together; content follows the 354."""
    session, recorder = ready("PIPELINING", "SIZE 1000", "8BITMIME")

    session.send(mail("b@x", "c@y"))
    commands = sent(session)
    session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    content = sent(session)
    session.receive(QUEUED)

    size = len(CONTENT)
    assert commands == b"MAIL FROM:<a@me.example> SIZE=%d\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@y>\r\nDATA\r\n" % size
    assert content == CONTENT + b".\r\n"
    assert recorder.told == [("done", [Delivered(QUEUED_REPLY), Delivered(QUEUED_REPLY)], True)]


def test_without_pipelining_commands_go_one_at_a_time():
    """Each command waits for the reply to the one before."""
    session, recorder = ready()

    session.send(mail("b@x", "c@y", sender=""))
    said = [sent(session)]
    for reply in (b"250 ok\r\n", b"250 ok\r\n", b"251 forwards\r\n", b"354 go\r\n", QUEUED):
        session.receive(reply)
        said.append(sent(session))

    assert said == [
        b"MAIL FROM:<>\r\n", b"RCPT TO:<b@x>\r\n", b"RCPT TO:<c@y>\r\n", b"DATA\r\n", CONTENT + b".\r\n", b"",
    ]  # fmt: skip
    assert recorder.outcomes == [Delivered(QUEUED_REPLY)] * 2


@pytest.mark.parametrize("keywords", [(), ("PIPELINING",)])
def test_messages_follow_one_another(keywords: tuple[str, ...]):
    """The next message may be given in the very call that tells of the last one's end; no RSET is needed."""
    session, recorder = ready(*keywords)
    recorder.next = [mail("c@y"), mail("d@z")]
    said = b""

    session.send(mail("b@x"))
    while (words := sent(session)) != b"":
        said += words
        for line in words.split(b"\r\n") if not words.startswith(b"Subject") else [b"."]:
            replies = {b"MAIL": b"250 ok\r\n", b"RCPT": b"250 ok\r\n", b"DATA": b"354 go\r\n", b".": QUEUED}
            session.receive(replies.get(line[:4], b""))

    assert recorder.names() == ["done"] * 3
    assert b"RSET" not in said
    assert said.count(b"\r\n.\r\n") == 3
    assert (session.messages, session.recipients) == (3, 3)


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"", b".\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b".a\r\n.\r\n..b\r\na.b\r\n", b"..a\r\n..\r\n...b\r\na.b\r\n.\r\n"),
        (b"a\r\n\r\n.\r\n", b"a\r\n\r\n..\r\n.\r\n"),
    ],
)
def test_content_on_the_wire_has_doubled_dots_and_one_end(content: bytes, wire: bytes):
    """Dots at the beginning of lines are doubled, and the end mark comes exactly once."""
    session, _ = ready("PIPELINING")
    session.send(mail(content=content))
    sent(session)

    session.receive(YES_1)

    assert sent(session) == wire


def test_parameters_say_what_the_message_needs():
    """SIZE, BODY and SMTPUTF8 are said where the peer offers them and the message needs them."""
    session, _ = ready("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8")

    session.send(mail("ü@x", content="ü\r\n".encode(), body_8bit=True, smtputf8=True))

    assert sent(session) == (
        b"MAIL FROM:<a@me.example> SIZE=4 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<\xc3\xbc@x>\r\nDATA\r\n"
    )


def test_a_utf8_address_needs_smtputf8_although_nobody_said_so():
    """The parameter follows from the address."""
    session, _ = ready("PIPELINING", "8BITMIME", "SMTPUTF8")

    session.send(mail(sender="ü@me.example"))

    assert b" SMTPUTF8\r\n" in sent(session)


def test_plain_content_goes_to_a_plain_peer():
    """A message that was declared 8-bit and UTF-8 but is all ASCII needs neither."""
    session, recorder = ready("PIPELINING")

    session.send(mail(body_8bit=True, smtputf8=True))

    assert sent(session).startswith(b"MAIL FROM:<a@me.example>\r\n")
    assert recorder.told == []


@pytest.mark.parametrize(
    ("keywords", "outgoing", "code", "enhanced"),
    [
        (("SIZE 10",), mail("b@x", "c@y"), 552, "5.3.4"),
        (("SMTPUTF8",), mail("b@x", "c@y", content=b"\xff\r\n", body_8bit=True), 554, "5.6.3"),
        (("8BITMIME",), mail("b@x", "ü@y"), 554, "5.6.7"),
        (("8BITMIME",), mail("b@x", "c@y", sender="ü@x"), 554, "5.6.7"),
        (("8BITMIME",), mail("b@x", "c@y", content="ü".encode(), body_8bit=True, smtputf8=True), 554, "5.6.7"),
        ((), mail("b@x", "c@y>\r\nRCPT TO:<d@z"), 553, "5.1.3"),
        ((), mail("b@x", "c@y", sender="a\rb@x"), 553, "5.1.3"),
        ((), mail("b@x", "c@y", sender="a\nb@x"), 553, "5.1.3"),
    ],
)
def test_what_the_peer_cannot_take_is_bounced_here(
    keywords: tuple[str, ...], outgoing: Outgoing, code: int, enhanced: str
):
    """Not a byte is sent, and the reply is ours."""
    session, recorder = ready("PIPELINING", *keywords)

    session.send(outgoing)

    assert sent(session) == b""
    assert recorder.usable
    assert session.phase == "ready"
    for outcome in recorder.outcomes:
        assert isinstance(outcome, Bounced)
        assert (outcome.reply.code, outcome.reply.enhanced) == (code, enhanced)
        assert (outcome.stage, outcome.from_peer) == ("local", False)
    assert len(recorder.outcomes) == 2
    assert session.messages == 0


def test_a_message_of_exactly_the_size_goes():
    """SIZE is the largest size that is taken."""
    session, _ = ready("PIPELINING", f"SIZE {len(CONTENT)}")

    session.send(mail())

    assert sent(session).startswith(b"MAIL")


def test_ten_thousand_local_bounces_do_not_pile_up():
    """A handler that gives one impossible message after another is never called on top of itself."""
    session, recorder = ready("SIZE 1")
    recorder.next = [mail()] * 10_000

    session.send(mail())

    assert len(recorder.told) == 10_001
    assert recorder.depth_max == 1


def test_a_local_bounce_in_the_middle_leaves_the_connection_in_use():
    """Message, impossible message, message: all three are told in order and the third one goes out."""
    session, recorder = ready("PIPELINING", "SIZE 100")
    recorder.next = [mail(size=101), mail("c@y")]

    session.send(mail())
    sent(session)
    session.receive(YES_1)
    sent(session)
    session.receive(QUEUED)

    assert recorder.names() == ["done", "done"]
    assert b"RCPT TO:<c@y>" in sent(session)
