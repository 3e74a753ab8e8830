"""The client's dialogue with every peer: one outcome for each recipient, its own, whatever is said and cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.model.outcome import STAGES
from mta.smtp.outgoing import Outgoing
from mta.testing.client_dialogue import (
    CONTENT,
    QUEUED,
    YES_1,
    YES_3,
    ehlo,
    mail,
    new,
    ready,
    sent,
)

# ---- every split, every peer


DIALOGUES = [
    [b"220-peer\r\n220 hi\r\n", ehlo("PIPELINING", "SIZE 9999"), YES_3, b"250-2.0.0 queued\r\n250 2.0.0 as 1\r\n"],
    [b"220 hi\r\n", b"500 what\r\n", b"250 peer\r\n", b"250 ok\r\n", b"550 5.1.1 no\r\n", b"250 ok\r\n",
     b"450-4.2.1 la\r\n450 4.2.1 ter\r\n", b"354 go\r\n", b"452 4.3.1 full\r\n"],
    [b"220 hi\r\n", ehlo("PIPELINING"), b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n450 4.2.1 later\r\n354 go\r\n", QUEUED],
    [b"220 hi\r\n", ehlo("PIPELINING"), b"250 ok\r\n550 no\r\n550 no\r\n550 no\r\n354 go\r\n", b"250 what\r\n"],
    [b"220 hi\r\n", ehlo("PIPELINING"), b"550 no\r\n503 no\r\n503 no\r\n503 no\r\n503 no\r\n"],
    [b"220 hi\r\n", ehlo("PIPELINING"), b"250 ok\r\n550 no\r\n421 bye\r\n"],
]  # fmt: skip


def play(turns: list[bytes], cut: int | None) -> tuple[list[tuple[object, ...]], bytes]:
    """The whole dialogue with its message; reply bytes cut at `cut`, None for every byte by itself."""
    session, recorder = new()
    said, begun, at = b"", False, 0
    for turn in turns:
        if cut is None:
            pieces = [turn[i : i + 1] for i in range(len(turn))]
        else:
            pieces = [turn[: max(0, cut - at)], turn[max(0, cut - at) :]]
        at += len(turn)
        for piece in pieces:
            session.receive(piece)
        if session.phase == "ready" and not begun:
            begun = True
            session.send(mail("b@x", "c@x", "d@x"))
        said += sent(session)
    return recorder.told, said


@pytest.mark.parametrize("turns", DIALOGUES)
def test_every_split_has_the_same_outcome(turns: list[bytes]):
    """Wherever replies are cut, by one cut or at every byte, the same is said and told."""
    whole = play(turns, 0)

    assert [told[0] for told in whole[0]] == ["ready", "done"]
    assert all(play(turns, cut) == whole for cut in range(sum(map(len, turns)) + 1))
    assert play(turns, None) == whole


codes = st.sampled_from([250, 250, 250, 251, 450, 452, 550, 554])


def fate(code: int, stage: str) -> tuple[str, str, int]:
    return ("Delivered" if code < 300 else "Deferred" if code < 500 else "Bounced", stage, code)


@given(codes, st.lists(codes, min_size=1, max_size=6), st.sampled_from([354, 354, 354, 451, 554]), codes, st.booleans())
def test_every_verdict_is_matched_to_its_recipient(
    mail_code: int, rcpt_codes: list[int], data_code: int, dot_code: int, pipelining: bool
):
    """The outcomes are those that a plain reading of RFC 5321 3.3 gives, with and without PIPELINING."""
    session, recorder = ready(*["PIPELINING"] * pipelining)
    said: list[bytes] = []
    left = {b"MAIL": [mail_code], b"RCPT": list(rcpt_codes), b"DATA": [data_code], b".": [dot_code], b"RSET": [250]}

    session.send(mail(*[f"r{i}@x" for i in range(len(rcpt_codes))]))
    while words := sent(session):
        said.append(words)
        is_body = words.startswith(b"Subject") or words == b".\r\n"
        for line in [b"."] if is_body else words.splitlines():
            session.receive(b"%d x\r\n" % left[line[:4]].pop(0))

    accepted = mail_code < 300 and any(code < 300 for code in rcpt_codes)
    last = fate(data_code, "data") if data_code != 354 else fate(dot_code, "content")
    expected = [
        fate(mail_code, "mail") if mail_code >= 300 else fate(code, "rcpt") if code >= 300 else last
        for code in rcpt_codes
    ]
    assert [(type(o).__name__, o.stage, o.reply.code) for o in recorder.outcomes] == expected
    assert recorder.usable
    assert (CONTENT + b".\r\n" in said) == (accepted and data_code == 354)


peer_words = st.sampled_from(
    [b"250 ok\r\n", b"250-a\r\n250 b\r\n", b"354 go\r\n", b"550 5.1.1 no\r\n", b"450 later\r\n", b"421 bye\r\n",
     b"220 hi\r\n", b"503 bad\r\n", b"x\r\n", b"25", b"250 ", b"\r\n", b"250-", YES_1, YES_3, QUEUED, b"250 ok\r\n" * 3,
     ehlo("PIPELINING", "STARTTLS", "SIZE 50"), b"\0"]
)  # fmt: skip


@given(
    st.lists(peer_words | st.binary(max_size=5), max_size=30),
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_whatever_the_peer_says_every_recipient_gets_one_outcome(
    words: list[bytes], sizes: list[int], pipelining: bool, from_the_start: bool
):
    """Exactly one `done` for each message that was given, never after an unusable one, and stages that exist."""
    session, recorder = new() if from_the_start else ready(*["PIPELINING"] * pipelining)
    messages = [mail(*[f"r{i}@x" for i in range(size)]) for size in sizes]
    given_ones: list[Outgoing] = []

    def give() -> None:
        done = recorder.names().count("done")
        if session.phase == "ready" and messages and done == len(given_ones):
            given_ones.append(messages.pop())
            session.send(given_ones[-1])

    for word in words:
        give()
        session.data_to_send()
        session.receive(word)
    give()
    session.connection_lost()
    session.receive(b"250 ok\r\n")

    done = [told for told in recorder.told if told[0] == "done"]
    assert [len(told[1]) for told in done if isinstance(told[1], list)] == [len(m.recipients) for m in given_ones]
    assert all(told[2] for told in done[:-1])
    assert recorder.names().count("failed") + recorder.names().count("ready") <= 2
    assert recorder.names().count("failed") <= 1
    assert all(o.stage in STAGES for told in done if isinstance(told[1], list) for o in told[1])
    assert session.phase in ("closed", "quit")
