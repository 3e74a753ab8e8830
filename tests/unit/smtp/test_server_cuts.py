"""The server's session: whole dialogues, cut in every way a network may cut them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.smtp.server import ServerSession
from mta.testing.server_dialogue import (
    ENVELOPE,
    MESSAGE,
    SETTINGS,
    STORED,
    STRANGER,
    Handler,
    greeted,
    say,
)

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
