"""The client's dialogue with peers out of step, broken connections and content that is stopped."""

import pytest

from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.smtp.client import CONTENT_PIECE_BYTES, CONTENT_WHOLE_BYTES_MAX, ClientSession
from mta.testing.client_dialogue import (
    BYE,
    LATER,
    NO,
    QUEUED,
    QUEUED_REPLY,
    YES_1,
    Recorder,
    mail,
    new,
    ready,
    sending,
    sent,
)

# ---- replies that nobody asked for


@pytest.mark.parametrize(
    "replies",
    [
        YES_1 + b"250 more\r\n",
        YES_1 + b"5",
        b"250 ok\r\n250 ok\r\n250 ok\r\n",
        b"250 ok\r\n250 ok\r\n220 ok\r\n",
        b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n",
        b"250 ok\r\n354 go\r\n",
        b"354 go\r\n",
        b"250 ok\r\n250 ok\r\n334 ?\r\n",
    ],
)
def test_a_shifted_reply_poisons_the_transaction(replies: bytes):
    """Verdicts that may be another's are not believed: all is deferred, nothing is sent any more."""
    session, recorder = sending("b@x")

    session.receive(replies)

    (outcome,) = recorder.outcomes
    assert isinstance(outcome, Deferred)
    assert (outcome.from_peer, outcome.uncertain, outcome.reply.code) == (False, False, 451)
    assert (recorder.usable, session.phase, sent(session)) == (False, "closed", b"")


def test_a_group_with_a_verdict_too_few_is_not_believed():
    """One of three verdicts is missing, and 354 stands in its place."""
    session, recorder = sending("b@x", "c@x", "d@x")

    session.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")

    assert [type(outcome) for outcome in recorder.outcomes] == [Deferred] * 3
    assert session.phase == "closed"


def test_a_poisoned_transaction_does_not_believe_its_refusals_either():
    """The 550 may have been meant for another recipient."""
    session, recorder = sending("b@x", "c@x")

    session.receive(b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go\r\n250 more\r\n")

    assert [type(outcome) for outcome in recorder.outcomes] == [Deferred, Deferred]


@pytest.mark.parametrize("reply", [QUEUED + b"250 more\r\n", QUEUED + b"5", b"354 go\r\n"])
def test_a_shifted_reply_after_the_dot_is_uncertain(reply: bytes):
    """The peer may have the message: the owner is told so."""
    session, recorder = sending("b@x")
    session.receive(YES_1)
    sent(session)

    session.receive(reply)

    assert [outcome.uncertain for outcome in recorder.outcomes if isinstance(outcome, Deferred)] == [True]
    assert not recorder.usable


@pytest.mark.parametrize("data", [b"250 ok\r\n", b"2", b"\r\n"])
def test_anything_said_to_an_idle_connection_loses_it(data: bytes):
    """Its replies could not be told from those to the next message."""
    session, recorder = ready("PIPELINING")

    session.receive(data)

    assert recorder.told == [("lost",)]
    assert session.phase == "closed"


@pytest.mark.parametrize("garbage", [b"2 50 ok\r\n", b"999 ok\r\n", b"250-a\r\n550 b\r\n", b"250 \0\r\n"])
@pytest.mark.parametrize(("said", "uncertain"), [(b"", False), (b"250 ok\r\n", False), (YES_1, True)])
def test_a_malformed_reply_is_a_4xx_and_ends_the_connection(garbage: bytes, said: bytes, uncertain: bool):
    """Nothing behind it can be matched to a command."""
    session, recorder = sending("b@x")
    session.receive(said)
    sent(session)

    session.receive(garbage)

    (outcome,) = recorder.outcomes
    assert isinstance(outcome, Deferred)
    assert (outcome.reply.code, outcome.from_peer, outcome.uncertain) == (451, False, uncertain)
    assert session.phase == "closed"


def test_a_reply_without_end_costs_bounded_memory():
    """A peer that goes on and on is left."""
    session, recorder = sending("b@x")

    for _ in range(100):
        session.receive(b"250-" + b"x" * 996 + b"\r\n")

    assert recorder.names() == ["done"]
    assert session.phase == "closed"


# ---- large content


def large() -> tuple[ClientSession, Recorder, bytes]:
    """A session that has been told to send large content."""
    session, recorder = ready("PIPELINING")
    content = b"x" * 70 + b"\r\n.dot\r\n"
    content *= CONTENT_WHOLE_BYTES_MAX // len(content) + 100
    session.send(mail(content=content))
    sent(session)
    session.receive(YES_1)
    return session, recorder, content


def test_large_content_leaves_in_pieces():
    """The pieces together are the content, dot-stuffed and ended once."""
    session, recorder, content = large()
    pieces = [bytes(session.data_to_send())]

    while session.has_more:
        pieces.append(bytes(session.data_to_send()))
    session.receive(QUEUED)

    assert all(len(piece) <= CONTENT_PIECE_BYTES for piece in pieces)
    assert b"".join(pieces) == content.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    assert recorder.outcomes == [Delivered(QUEUED_REPLY)]


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (b"550 5.1.1 no\r\n", Bounced(NO, "content")),
        (b"450 4.2.1 later\r\n", Deferred(LATER, "content")),
        (b"421 4.7.0 bye\r\n", Deferred(BYE, "content")),
    ],
)
def test_a_refusal_in_the_middle_of_content_stops_it(reply: bytes, outcome: Outcome):
    """Not a byte more is sent, the refusal counts, the connection is gone."""
    session, recorder, _ = large()
    session.data_to_send()

    session.receive(reply)

    assert recorder.told == [("done", [outcome], False)]
    assert (session.phase, session.has_more, sent(session)) == ("closed", False, b"")


def test_a_yes_in_the_middle_of_content_is_not_believed():
    """The end mark was never sent, so the message cannot have been taken."""
    session, recorder, _ = large()
    session.data_to_send()

    session.receive(QUEUED)

    (outcome,) = recorder.outcomes
    assert isinstance(outcome, Deferred)
    assert not outcome.uncertain
    assert session.phase == "closed"


def test_a_connection_lost_in_the_middle_of_content_is_certain():
    """Without the end mark there is no message."""
    session, recorder, _ = large()
    session.data_to_send()

    session.connection_lost()

    assert [o.uncertain for o in recorder.outcomes if isinstance(o, Deferred)] == [False]


# ---- ends


@pytest.mark.parametrize(
    ("said", "stage", "uncertain"),
    [(b"", "mail", False), (b"250 ok\r\n", "rcpt", False), (b"250 ok\r\n250 ok\r\n", "data", False),
     (YES_1, "content", True)],
)  # fmt: skip
def test_a_lost_connection_defers_with_its_stage(said: bytes, stage: str, uncertain: bool):
    """Only after the final dot is it uncertain whether the peer has the message."""
    session, recorder = sending("b@x")
    session.receive(said)
    sent(session)
    reason = Reply(451, "4.4.2", "timed out")

    session.connection_lost(reason)
    session.connection_lost(reason)

    assert recorder.told == [("done", [Deferred(reason, stage, uncertain, False)], False)]


def test_content_that_was_never_written_is_certain():
    """A connection that breaks between the 354 and our write cannot have carried the message."""
    session, recorder = sending("b@x")
    session.receive(YES_1)

    session.connection_lost()

    assert [o.uncertain for o in recorder.outcomes if isinstance(o, Deferred)] == [False]


def test_a_connection_lost_behind_a_lone_dot_leaves_the_fates():
    """They were decided before."""
    session, recorder = sending("b@x")
    session.receive(b"250 ok\r\n550 5.1.1 no\r\n354 go\r\n")
    sent(session)

    session.connection_lost()

    assert recorder.told == [("done", [Bounced(NO, "rcpt")], False)]


@pytest.mark.parametrize(
    ("said", "stage"), [(b"", "greeting"), (b"220 hi\r\n", "ehlo"), (b"220 hi\r\n|500 what\r\n", "ehlo")]
)
def test_a_connection_lost_before_it_was_ready_has_failed(said: bytes, stage: str):
    """It is told with the stage it was in."""
    session, recorder = new()
    for reply in said.split(b"|"):
        session.receive(reply)

    session.connection_lost(BYE)

    assert recorder.told == [("failed", stage, BYE, False)]


def test_quit_is_said_and_not_waited_for():
    """After QUIT nothing is told, whatever comes."""
    session, recorder = ready("PIPELINING")

    session.quit()
    said = sent(session)
    session.receive(b"221 bye\r\n")
    session.receive(b"garbage" * 10_000)
    session.connection_lost()

    assert said == b"QUIT\r\n"
    assert recorder.told == []
    assert sent(session) == b""
