"""Replies: cut out of any split of the stream, bounded, and made fit for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.model.outcome import Reply
from mta.smtp.reply_reader import (
    REPLY_BYTES_MAX,
    REPLY_LINES_MAX,
    TEXT_CHARS_MAX,
    MalformedReplyError,
    ReplyReader,
    reply_of,
)


def read_all(*pieces: bytes) -> list[tuple[int, list[bytes]]]:
    reader, replies = ReplyReader(), []
    for piece in pieces:
        reader.feed(piece)
        while (reply := reader.next()) is not None:
            replies.append(reply)
    return replies


def test_a_reply_is_its_code_and_its_text():
    """A single line is a reply."""
    assert read_all(b"250 2.1.0 ok\r\n") == [(250, [b"2.1.0 ok"])]


def test_a_code_alone_is_a_reply():
    """The text may be missing, with and without the blank."""
    assert read_all(b"250\r\n250 \r\n") == [(250, [b""]), (250, [b""])]


def test_several_lines_are_one_reply():
    """A line with a dash is followed by another of the same reply."""
    assert read_all(b"250-a\r\n250-b\r\n250 c\r\n354 d\r\n") == [(250, [b"a", b"b", b"c"]), (354, [b"d"])]


def test_lf_alone_ends_a_line():
    """Some peers end their lines with LF only and are understood."""
    assert read_all(b"250-a\n250 b\n") == [(250, [b"a", b"b"])]


def test_a_reply_without_its_end_is_none_yet():
    """Nothing is told before the last line's end has come, and the reader knows that it holds something."""
    reader = ReplyReader()

    reader.feed(b"250-a\r\n250 b")

    assert reader.next() is None
    assert not reader.is_between


@pytest.mark.parametrize("stream", [b"250-a\r\n250 b\r\n354 go\r\n", b"220 x\n421-y\n421\n", b"550 5.1.1 no\r\n"])
def test_every_split_reads_the_same(stream: bytes):
    """Wherever the stream is cut in three, the same replies come out; so they do byte by byte."""
    whole = read_all(stream)

    splits = [(stream[:i], stream[i:j], stream[j:]) for i in range(len(stream)) for j in range(i, len(stream))]

    assert all(read_all(*split) == whole for split in splits)
    assert read_all(*[stream[i : i + 1] for i in range(len(stream))]) == whole


@pytest.mark.parametrize(
    "line",
    [b"2 50 ok", b"999 ok", b"199 ok", b"600 ok", b"25", b"", b"ok", b"250ok", b"250_ok", b"\xff50 ok", b"250 a\0b",
     b" 250 ok", b"2500 ok", b"250\tok", b"-250 ok"],
)  # fmt: skip
def test_what_is_no_reply_is_malformed(line: bytes):
    """Codes outside 200 to 599, missing blanks and NUL are no reply."""
    with pytest.raises(MalformedReplyError):
        read_all(line + b"\r\n")


def test_a_code_that_changes_is_malformed():
    """Every line of a reply has the same code."""
    with pytest.raises(MalformedReplyError, match="changes its code"):
        read_all(b"250-a\r\n550 b\r\n")


def test_lines_are_bounded():
    """A reply may have REPLY_LINES_MAX lines and no more."""
    assert len(read_all(b"250-x\r\n" * (REPLY_LINES_MAX - 1) + b"250 x\r\n")[0][1]) == REPLY_LINES_MAX
    with pytest.raises(MalformedReplyError, match="more lines"):
        read_all(b"250-x\r\n" * REPLY_LINES_MAX)


def test_a_line_without_an_end_is_bounded():
    """A peer that never ends its line is stopped, also when it sends a few bytes at a time."""
    with pytest.raises(MalformedReplyError, match="longer"):
        read_all(*[b"250 " + b"x" * 997] + [b"x" * 1000] * (REPLY_BYTES_MAX // 1000 + 1))


def test_bytes_of_all_lines_count_together():
    """Long lines add up."""
    with pytest.raises(MalformedReplyError, match="longer"):
        read_all(b"250-" + b"x" * 20_000 + b"\r\n", b"250-" + b"x" * 20_000 + b"\r\n")


def test_bytes_are_counted_for_each_reply():
    """A long dialogue of short replies has no limit."""
    assert len(read_all(*[b"250 " + b"x" * 1000 + b"\r\n"] * 100)) == 100


@pytest.mark.parametrize(
    ("code", "lines", "expected"),
    [
        (250, [b"2.0.0 queued as 1"], Reply(250, "2.0.0", "queued as 1")),
        (250, [b"ok"], Reply(250, "", "ok")),
        (250, [b"2.0.0"], Reply(250, "2.0.0", "")),
        (550, [b"5.1.1 no such", b"5.1.1 user"], Reply(550, "5.1.1", "no such user")),
        (550, [b"5.1.1 no such", b"user 5.1.1"], Reply(550, "5.1.1", "no such user 5.1.1")),
        (550, [b"4.1.1 class does not fit"], Reply(550, "", "4.1.1 class does not fit")),
        (451, [b"4.7.500 busy"], Reply(451, "4.7.500", "busy")),
        (451, [b"4.7.5000 busy"], Reply(451, "", "4.7.5000 busy")),
        (220, [b"2.0.example ready"], Reply(220, "", "2.0.example ready")),
        (450, [b"a\x1b[31m\rb\tc"], Reply(450, "", "a?[31m?b c")),
        (450, ["住所がありません".encode()], Reply(450, "", "住所がありません")),
        (450, [b"caf\xe9"], Reply(450, "", "caf\ufffd")),
        (450, [b"", b"  a ", b"", b"b"], Reply(450, "", "a b")),
    ],
)
def test_a_reply_for_people(code: int, lines: list[bytes], expected: Reply):
    """The enhanced code is parted from the text when its class fits; the text is one clean line."""
    assert reply_of(code, lines) == expected


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=30))
def test_any_text_becomes_one_bounded_printable_line(lines: list[bytes]):
    """Whatever bytes a peer sends, no control byte and no long text comes out."""
    reply = reply_of(550, lines)

    assert len(reply.text) <= TEXT_CHARS_MAX
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in reply.text)


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_any_stream_is_replies_or_malformed(pieces: list[bytes]):
    """No stream makes the reader fail in another way or keep more than one reply may have."""
    reader = ReplyReader()

    try:
        for piece in pieces:
            reader.feed(piece)
            while reader.next() is not None:
                pass
            assert len(reader.rest) <= REPLY_BYTES_MAX
    except MalformedReplyError:
        pass
