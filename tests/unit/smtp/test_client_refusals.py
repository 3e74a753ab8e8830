"""The client's dialogue where the peer says no: every recipient gets its own fate."""

import pytest

from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.smtp.client import ClientSession
from mta.testing.client_dialogue import (
    BYE,
    CONTENT,
    LATER,
    NO,
    QUEUED,
    QUEUED_REPLY,
    YES_1,
    Recorder,
    ehlo,
    mail,
    new,
    ready,
    sending,
    sent,
)

# ---- refusals


def test_every_recipient_gets_its_own_fate():
    """Accepted, refused and deferred ones stand side by side."""
    session, recorder = sending("b@x", "c@x", "d@x")

    session.receive(b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n450 4.2.1 later\r\n354 go\r\n")
    content = sent(session)
    session.receive(QUEUED)

    assert content == CONTENT + b".\r\n"
    assert recorder.outcomes == [Bounced(NO, "rcpt"), Delivered(QUEUED_REPLY), Deferred(LATER, "rcpt")]
    assert recorder.usable


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (b"550 5.1.1 no\r\n", Bounced(NO, "content")),
        (b"450 4.2.1 later\r\n", Deferred(LATER, "content")),
        (b"250-2.0.0 queued\r\n250 2.0.0 as 1\r\n", Delivered(QUEUED_REPLY)),
    ],
)
def test_the_reply_to_the_dot_is_for_those_who_were_accepted(reply: bytes, outcome: Outcome):
    """Who was refused before keeps that fate."""
    session, recorder = sending("b@x", "c@x")
    session.receive(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n")
    sent(session)

    session.receive(reply)

    assert recorder.outcomes == [outcome, Bounced(NO, "rcpt")]
    assert recorder.usable


@pytest.mark.parametrize("data", [b"503 no mail\r\n", b"554 no valid recipients\r\n"])
def test_mail_refused_is_the_fate_of_all(data: bytes):
    """What the peer then says to RCPT and DATA does not matter."""
    session, recorder = sending("b@x", "c@x")

    session.receive(b"550 5.1.1 no\r\n503 first mail\r\n250 what\r\n" + data)

    assert recorder.told == [("done", [Bounced(NO, "mail")] * 2, True)]


def test_mail_refused_one_at_a_time_ends_at_once():
    """Without PIPELINING nothing but RSET follows a refused MAIL."""
    session, recorder = sending("b@x", "c@x", keywords=())

    session.receive(b"450 4.2.1 later\r\n")
    said = sent(session)
    session.receive(b"250 2.0.0 flushed\r\n")

    assert said == b"RSET\r\n"
    assert recorder.told == [("done", [Deferred(LATER, "mail")] * 2, True)]
    assert sent(session) == b""


def test_data_refused_is_the_fate_of_the_accepted():
    """The refused recipient keeps its own."""
    session, recorder = sending("b@x", "c@x")

    session.receive(b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n450 4.2.1 later\r\n")

    assert recorder.told == [("done", [Bounced(NO, "rcpt"), Deferred(LATER, "data")], True)]


@pytest.mark.parametrize("mail_reply", [b"250 ok\r\n", b"550 5.1.1 no\r\n"])
@pytest.mark.parametrize("dot_reply", [b"250 ok\r\n", b"554 no\r\n", b"450 what\r\n"])
def test_a_lone_dot_answers_354_for_nobody(mail_reply: bytes, dot_reply: bytes):
    """A peer that wants content although it refused everybody gets none, and its reply to that changes nothing."""
    session, recorder = sending("b@x")

    session.receive(mail_reply + b"550 5.1.1 no\r\n354 go\r\n")
    said, told = sent(session), list(recorder.told)
    session.receive(dot_reply)

    assert (said, told) == (b".\r\n", [])
    assert [outcome.reply for outcome in recorder.outcomes] == [NO]
    assert recorder.usable


def test_all_refused_one_at_a_time_needs_no_data():
    """Without PIPELINING DATA is not even said."""
    session, recorder = sending("b@x", "c@x", keywords=())

    session.receive(b"250 ok\r\n")
    sent(session)
    session.receive(b"550 5.1.1 no\r\n")
    sent(session)
    session.receive(b"550 5.1.1 no\r\n")
    said = sent(session)
    session.receive(b"250 2.0.0 flushed\r\n")

    assert said == b"RSET\r\n"
    assert recorder.told == [("done", [Bounced(NO, "rcpt")] * 2, True)]


def test_an_abandoned_transaction_is_reset_before_the_next_one():
    """RSET goes ahead of the next MAIL, in the same write."""
    session, recorder = sending("b@x")
    session.receive(b"250 ok\r\n550 5.1.1 no\r\n503 no\r\n")
    recorder.told.clear()

    session.send(mail("c@y"))
    said = sent(session)
    session.receive(b"250 2.0.0 flushed\r\n" + YES_1)
    said += sent(session)
    session.receive(QUEUED)

    assert said.startswith(b"RSET\r\nMAIL FROM:<a@me.example>\r\nRCPT TO:<c@y>\r\nDATA\r\nSubject")
    assert recorder.told == [("done", [Delivered(QUEUED_REPLY)], True)]


ABANDONED = [
    [b"450 4.2.1 later\r\n"],
    [b"250 ok\r\n", b"450 4.2.1 later\r\n"],
    [b"250 ok\r\n", b"250 ok\r\n", b"450 4.2.1 later\r\n"],
]


def abandoned(replies: list[bytes]) -> tuple[ClientSession, Recorder]:
    """A session whose transaction a peer without PIPELINING ended with the last of these replies."""
    session, recorder = sending("b@x", keywords=())
    for reply in replies:
        sent(session)
        session.receive(reply)
    return session, recorder


@pytest.mark.parametrize("replies", ABANDONED)
def test_without_pipelining_mail_never_waits_for_the_reply_to_rset(replies: list[bytes]):
    """RSET ends the transaction that was abandoned: `send` writes the next MAIL at once, when its turn has come."""
    session, recorder = abandoned(replies)
    said, told = sent(session), recorder.told[:]

    session.receive(b"250 2.0.0 flushed\r\n")
    session.send(mail("c@y"))

    assert (said, told) == (b"RSET\r\n", [])
    assert [told[0] for told in recorder.told] == ["done"]
    assert recorder.usable
    assert sent(session) == b"MAIL FROM:<a@me.example>\r\n"


@pytest.mark.parametrize("end", [b"500 what\r\n", b"421 4.7.0 bye\r\n", b"250 ok\r\n421 4.7.0 bye\r\n", b"x\r\n", None])
@pytest.mark.parametrize("replies", ABANDONED)
def test_whatever_is_said_to_that_rset_the_outcomes_stand(replies: list[bytes], end: bytes | None):
    """A reply or an end of the connection that spoils it only makes the connection unusable."""
    session, recorder = abandoned(replies)

    if end is None:
        session.connection_lost()
    else:
        session.receive(end)

    assert [type(outcome) for outcome in recorder.outcomes] == [Deferred]
    assert recorder.outcomes[0].reply == LATER
    assert not recorder.usable


@pytest.mark.parametrize("reply", [b"550 5.1.1 no\r\n", b"250-2.0.0 queued\r\n250 2.0.0 as 1\r\n"])
def test_a_transaction_that_came_to_its_end_needs_no_reset(reply: bytes):
    """Any reply to the final dot ends it (RFC 5321 4.1.1.4)."""
    session, _ = sending("b@x")
    session.receive(YES_1)
    sent(session)
    session.receive(reply)

    session.send(mail("c@y"))

    assert sent(session).startswith(b"MAIL FROM")


def test_rset_refused_gives_the_connection_up():
    """The message that waited behind it is deferred."""
    session, recorder = sending("b@x")
    session.receive(b"250 ok\r\n550 no\r\n554 no\r\n")
    recorder.told.clear()

    session.send(mail("c@y"))
    session.receive(b"500 what\r\n")

    assert [type(outcome) for outcome in recorder.outcomes] == [Deferred]
    assert (recorder.usable, session.phase) == (False, "quit")


# ---- 421


@pytest.mark.parametrize(
    ("said", "stage"),
    [
        (b"", "mail"),
        (b"250 ok\r\n", "rcpt"),
        (b"250 ok\r\n250 ok\r\n", "rcpt"),
        (b"250 ok\r\n250 ok\r\n250 ok\r\n", "data"),
        (b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", "content"),
    ],
)
@pytest.mark.parametrize("keywords", [(), ("PIPELINING",)])
def test_421_ends_the_connection_and_defers_the_rest(said: bytes, stage: str, keywords: tuple[str, ...]):
    """At each stage: deferred, certain, connection not usable, nothing more is sent but QUIT."""
    session, recorder = sending("b@x", "c@x", keywords=keywords)

    for reply in said.splitlines(keepends=True):
        session.receive(reply)
        sent(session)
    session.receive(b"421 4.7.0 bye\r\n")

    assert recorder.told == [("done", [Deferred(BYE, stage)] * 2, False)]
    assert (session.phase, sent(session)) == ("quit", b"QUIT\r\n")


def test_421_leaves_earlier_verdicts():
    """A recipient that was refused before the 421 stays refused."""
    session, recorder = sending("b@x", "c@x", "d@x")

    session.receive(b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n421 4.7.0 bye\r\n")

    assert recorder.outcomes == [Bounced(NO, "rcpt"), Deferred(BYE, "rcpt"), Deferred(BYE, "rcpt")]


def test_421_to_an_idle_connection_loses_it():
    """The owner is told that it cannot be used any more, once."""
    session, recorder = ready("PIPELINING")

    session.receive(b"421 4.4.2 idle too long\r\n")
    session.connection_lost()

    assert recorder.told == [("lost",)]


@pytest.mark.parametrize("farewell", [b"4", b"421", b"421 4.7.0 bye\r\n", b"421 4.7.0 b"])
def test_421_behind_the_reply_to_the_dot_is_a_farewell(farewell: bytes):
    """The message was taken, and the connection is not used again."""
    session, recorder = sending("b@x")
    session.receive(YES_1)
    sent(session)

    session.receive(QUEUED + farewell)

    assert recorder.told == [("done", [Delivered(QUEUED_REPLY)], False)]
    assert session.phase == "quit"


def test_421_behind_354_keeps_the_content_back():
    """A peer that closes while it asks for content gets none."""
    session, recorder = sending("b@x")

    session.receive(YES_1 + b"421 4.7.0 bye\r\n")

    assert recorder.told == [("done", [Deferred(BYE, "content")], False)]
    assert (session.phase, sent(session)) == ("closed", b"")


@pytest.mark.parametrize(
    ("farewell", "reply", "from_peer", "phase"),
    [(b"421 4.7.0 bye\r\n", BYE, True, "quit"),
     (b"421-4.7.0 b", Reply(451, "4.4.2", "the peer is closing the connection"), False, "closed"),
     (b"421x\r\n", Reply(451, "4.4.2", "the peer is closing the connection"), False, "closed")],
)  # fmt: skip
def test_421_behind_the_reply_to_ehlo_fails_with_its_words(farewell: bytes, reply: Reply, from_peer: bool, phase: str):
    """As far as they have come; `ready` is not told."""
    session, recorder = new()
    session.receive(b"220 hi\r\n")
    sent(session)

    session.receive(ehlo("PIPELINING") + farewell)

    assert recorder.told == [("failed", "ehlo", reply, from_peer)]
    assert session.phase == phase


def test_421_behind_refusals_leaves_them():
    """`Too many errors` behind the last refusal does not turn refusals into deferrals."""
    session, recorder = sending("b@x")

    session.receive(b"250 ok\r\n550 5.1.1 no\r\n503 no\r\n421 4.7.0 bye\r\n")

    assert recorder.told == [("done", [Bounced(NO, "rcpt")], False)]
