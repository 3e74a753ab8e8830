"""Replies: the form of everything we say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.model.outcome import Reply
from mta.smtp import replies

ALL = {name: said for name, said in vars(replies).items() if name.isupper() and isinstance(said, bytes)}


@pytest.mark.parametrize("name", sorted(set(ALL) - {"GO_AHEAD"}))
def test_a_reply_has_an_enhanced_code_of_its_own_class(name):
    """RFC 2034 4: the first digit of both codes is the same; one line of at most 512 bytes."""
    said = ALL[name]

    form = re.fullmatch(rb"([245])\d\d ([245])\.\d{1,3}\.\d{1,3} [ -~]+\r\n", said)

    assert form is not None
    assert form[1] == form[2]
    assert len(said) <= 512


def test_there_are_replies_to_look_at():
    """The table above is not empty by mistake."""
    assert len(ALL) > 30


def test_354_has_no_enhanced_code():
    """RFC 2034 4 has none for it."""
    assert re.fullmatch(rb"354 [A-Z][ -~]+\r\n", replies.GO_AHEAD)


def test_the_answer_to_ehlo_has_a_line_for_each_keyword():
    """Only the last line has a blank behind its code."""
    said = replies.ehlo("mail.example.com", ("PIPELINING", "SIZE 1000"))

    assert said == b"250-mail.example.com\r\n250-PIPELINING\r\n250 SIZE 1000\r\n"


def test_names_are_told():
    """Greeting, HELO, QUIT and the id of a message."""
    assert replies.greeting("m.example") == b"220 m.example ESMTP\r\n"
    assert replies.helo("m.example") == b"250 m.example\r\n"
    assert replies.goodbye("m.example") == b"221 2.0.0 m.example closing\r\n"
    assert replies.queued("abc") == b"250 2.0.0 Ok: queued as abc\r\n"


@given(st.text())
def test_no_text_breaks_the_line(text):
    """Whatever is quoted in a reply, it stays one printable line."""
    said = replies.reply(550, "5.6.0", text)

    assert re.fullmatch(rb"550 5\.6\.0 [ -~]*\r\n", said)
    assert len(said) <= 512


def test_a_reply_is_read_back_as_a_value():
    """For events: code, enhanced code and text."""
    assert replies.as_value(replies.RELAY_DENIED) == Reply(550, "5.7.1", "Relaying denied")
    assert replies.as_value(b"354 Go on\r\n") == Reply(354, "", "Go on")
    assert replies.as_value(b"220 1.2.x ESMTP\r\n") == Reply(220, "", "1.2.x ESMTP")
