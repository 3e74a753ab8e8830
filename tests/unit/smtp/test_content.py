"""Content: where it ends, what is refused in it, and that neither depends on how the network cut it."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mta.smtp import content as content_module
from mta.smtp import replies
from mta.smtp.content import ContentReceiver, has_long_line, stuff
from mta.testing.server_dialogue import FAKE_ENDS

PIECES = [b"\r", b"\n", b".", b"\0", b"a", b"\r\n", b"\r\n.", b"\r\n..", b"\r\n.\r", b"bc", b"x" * 990, b"y" * 12]
streams = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)


def reference(stream: bytes, bytes_max: int, long_lines: str) -> tuple[int, bytes, bytes | None]:
    """The law, read slowly: (index behind the end, content, refusal)."""
    end = (b"\r\n" + stream).index(b"\r\n.\r\n")
    raw = stream[:end]
    lines = raw.split(b"\r\n")
    written = b"\r\n".join(line.removeprefix(b".") for line in lines)
    bare = written.replace(b"\r\n", b"")
    if len(written) > bytes_max:
        return end + 3, b"", replies.TOO_BIG
    if set(bare) & set(b"\r\n\0"):
        return end + 3, written, replies.BAD_LINE_ENDS
    if long_lines == "refuse" and any(len(line) > 998 for line in written.split(b"\r\n")):
        return end + 3, written, replies.LINE_OVER_998
    return end + 3, written, None


def take(receiver: ContentReceiver, stream: bytes, cuts: list[int]) -> int:
    """Feeds `stream` cut at `cuts`; returns how many bytes of it were taken as content with its end."""
    receiver.begin()
    borders = [0, *sorted(cuts), len(stream)]
    for start, stop in itertools.pairwise(borders):
        behind = receiver.feed(stream[start:stop])
        if behind >= 0:
            return start + behind
    return -1


@given(
    streams,
    st.lists(st.integers(0, 3000), max_size=12),
    st.sampled_from([0, 3, 30, 1000, 1500, 10**6]),
    st.sampled_from(["refuse", "pass"]),
    st.sampled_from([4, 16, 300, 262_144]),
)
@example(b".", [], 100, "refuse", 262_144)
@example(b"..a\r\n", [1, 2, 3], 3, "refuse", 4)
@example(b"\n.\r\n", [1, 2, 3], 100, "refuse", 4)
@example(b"ab\r\n.", [5, 6, 7], 4, "refuse", 4)
@example(b"..a\r\n" * 5 + b"..a", list(range(40)), 24, "refuse", 4)
@example(b"a\nb\r\n" + b"x" * 999, [5, 6], 10**6, "refuse", 4)
@example(b"x" * 999 + b"\r\na\nb", [1001, 1002], 10**6, "refuse", 4)
def test_every_cut_and_segment_size_gives_what_the_law_says(stream, cuts, bytes_max, long_lines, segment_bytes):
    """End, content and refusal are those of the slow reading, wherever the stream is cut."""
    whole = stream + b"\r\n.\r\nMAIL FROM:<>\r\n"
    behind, written, refusal = reference(whole, bytes_max, long_lines)
    receiver = ContentReceiver(bytes_max, long_lines)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_module, "SEGMENT_BYTES", segment_bytes)
        taken = take(receiver, whole, [cut % len(whole) for cut in cuts])

    assert taken == behind
    assert receiver.refusal is refusal
    if refusal is None:
        assert receiver.content == written


@pytest.mark.parametrize("fake", FAKE_ENDS)
@pytest.mark.parametrize("before", [b"", b"Subject: x\r\n\r\nbody"])
def test_a_fake_end_stays_inside_at_every_cut(fake, before):
    """What other servers took for an end is content here, and the message is refused after its true end."""
    stream = before + fake + b"MAIL FROM:<evil@example.com>\r\n" + b"\r\n.\r\nQUIT\r\n"

    for cut in range(len(stream)):
        receiver = ContentReceiver(10**6, "refuse")

        behind = take(receiver, stream, [cut])

        assert stream[behind:] == b"QUIT\r\n"
        assert receiver.refusal is replies.BAD_LINE_ENDS


@pytest.mark.parametrize("fake", FAKE_ENDS)
def test_a_fake_end_stays_inside_byte_by_byte(fake):
    """One byte at a time changes nothing."""
    stream = b"a" + fake + b"b\r\n.\r\n"
    receiver = ContentReceiver(10**6, "refuse")

    behind = take(receiver, stream, list(range(len(stream))))

    assert behind == len(stream)
    assert receiver.refusal is replies.BAD_LINE_ENDS


def test_a_lone_dot_at_once_is_an_empty_message():
    """The line before the content ends with CRLF, so the first line may be the end."""
    receiver = ContentReceiver(100, "refuse")

    behind = receiver.feed(b".\r\nNOOP\r\n")

    assert (behind, receiver.content, receiver.refusal) == (3, b"", None)


def test_a_first_line_that_begins_with_a_stuffed_dot_loses_one():
    """RFC 5321 4.5.2 holds for the first line too, which has no CRLF of its own before it."""
    receiver = ContentReceiver(100, "refuse")

    receiver.feed(b"..a\r\n.b\r\n.\r\n")

    assert receiver.content == b".a\r\nb\r\n"


def test_content_may_begin_in_the_middle_of_the_data():
    """`at` says where; what stands before it is not looked at."""
    receiver = ContentReceiver(100, "refuse")

    behind = receiver.feed(b"\r\n.\r\nabc\r\n.\r\n", 5)

    assert (behind, receiver.content) == (13, b"abc\r\n")


@pytest.mark.parametrize("cut", range(1, 12))
def test_size_counts_neither_stuffed_dots_nor_the_end(cut):
    """A message of exactly the allowed size is taken, whatever its dots cost on the wire."""
    stream = b"..a\r\n..b\r\n.\r\n"
    fits, too_small = ContentReceiver(8, "refuse"), ContentReceiver(7, "refuse")

    take(fits, stream, [cut])
    take(too_small, stream, [cut])

    assert (fits.content, fits.refusal) == (b".a\r\n.b\r\n", None)
    assert too_small.refusal is replies.TOO_BIG


@pytest.mark.parametrize("piece", [b"a" * 65_536, b"line\r\n" * 10_000, b"..\r\n" * 16_384, b".\r", b"\r\n.a"])
def test_what_is_too_big_is_swallowed_in_constant_memory(piece):
    """Nothing is kept once the limit is passed, and the end is still found."""
    receiver = ContentReceiver(100_000, "refuse")
    receiver.begin()
    most = 0

    for _ in range(max(50, 400_000 // len(piece))):
        assert receiver.feed(piece) == -1
        most = max(most, receiver.buffered_bytes)
    behind = receiver.feed(b"\r\n.\r\nNOOP\r\n")

    assert most <= 100_000 + len(piece) + 5
    assert receiver.buffered_bytes <= 5
    assert behind == 5
    assert (receiver.refusal, receiver.content) == (replies.TOO_BIG, b"")


def test_a_large_message_comes_through_whole():
    """Segments are put together in order, across the limit where they begin to be cut."""
    message = b"".join(b".%d line\r\n" % number for number in range(100_000))
    receiver = ContentReceiver(10**8, "refuse")
    wire = stuff(message)

    taken = take(receiver, wire, list(range(0, len(wire), 9_973)))

    assert taken == len(wire)
    assert receiver.content == message


def test_a_receiver_takes_one_message_after_another():
    """Nothing of a refused message is left when the next one begins."""
    receiver = ContentReceiver(10, "refuse")
    receiver.feed(b"a\nb")
    receiver.feed(b"c" * 20 + b"\r\n.\r\n")

    receiver.begin()
    behind = receiver.feed(b"fine\r\n.\r\n")

    assert (behind, receiver.content, receiver.refusal) == (9, b"fine\r\n", None)


def test_a_line_of_998_bytes_passes_and_one_of_999_does_not():
    """RFC 5322 2.1.1."""
    allowed, refused, passed = (ContentReceiver(10**6, mode) for mode in ("refuse", "refuse", "pass"))

    allowed.feed(b"s: x\r\n\r\n" + b"a" * 998 + b"\r\n.\r\n")
    refused.feed(b"s: x\r\n\r\n" + b"a" * 999 + b"\r\n.\r\n")
    passed.feed(b"s: x\r\n\r\n" + b"a" * 999 + b"\r\n.\r\n")

    assert allowed.refusal is None
    assert refused.refusal is replies.LINE_OVER_998
    assert passed.refusal is None


@given(st.lists(st.sampled_from([0, 1, 500, 996, 997, 998, 999, 1000, 1999]), max_size=8))
def test_long_lines_are_seen_wherever_they_stand(lengths):
    """The look at one byte in many finds what a look at every line finds."""
    text = b"".join(b"a" * length + b"\r\n" for length in lengths)

    found = has_long_line(text)

    assert found == any(length > 998 for length in lengths)


@given(st.lists(st.sampled_from([b".", b"..", b"a", b".a", b"", b"x.y"]), max_size=10))
def test_what_was_stuffed_comes_back_the_same(lines):
    """The wire shows one end only, and what is un-stuffed is what was to be sent."""
    message = b"".join(line + b"\r\n" for line in lines)
    receiver = ContentReceiver(10**6, "refuse")

    wire = stuff(message)

    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3
    assert receiver.feed(wire) == len(wire)
    assert receiver.content == message


def test_content_without_a_line_end_gets_one_before_the_end_mark():
    """The end mark always stands on a line of its own."""
    wire = stuff(b"no line end")

    assert wire == b"no line end\r\n.\r\n"
