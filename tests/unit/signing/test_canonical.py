"""The relaxed form, against the RFC's own example and against dkimpy."""

import re
import tracemalloc

import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from mta.signing import canonical
from mta.signing.canonical import relaxed_body, relaxed_field

BLANKS = [b" ", b"\t", b"  ", b" \t ", b" " * 7, b" " * 8, b" " * 33]
TEXT = st.binary(max_size=12).map(lambda text: text.translate(None, b"\r\n\0"))
BODIES = st.lists(st.sampled_from([b"a", b"bc.", b"\r\n", b"\r\n", *BLANKS]) | TEXT, max_size=40).map(b"".join)
VALUES = st.lists(st.sampled_from([b"a", b":", b"\r\n ", b"\r\n\t", *BLANKS]), max_size=20).map(b"".join)


def dkimpy_body(body: bytes) -> bytes:
    """As dkimpy hashes it; a last line without an end gets one first, as it does on the wire."""
    return Relaxed.canonicalize_body(body if body.endswith(b"\r\n") or not body else body + b"\r\n")


def line_by_line(body: bytes) -> bytes:
    """RFC 6376 3.4.4 as it is written."""
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "SLICE_BYTES", 8)
    monkeypatch.setattr(canonical, "_TAIL_BYTES", 3)


def test_the_law_s_example() -> None:
    """The example of RFC 6376 3.4.5 comes out as it stands there."""
    assert relaxed_field(b"A: X\r\n") == b"a:X\r\n"
    assert relaxed_field(b"B : Y\t\r\n\tZ  \r\n") == b"b:Y Z\r\n"
    assert relaxed_body(b" C \r\nD \t E\r\n\r\n\r\n") == b" C\r\nD E\r\n"


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n" * 1000, b" ", b" \t\r\n", b" \r\n" * 1000, b" " * 200_000])
def test_no_text(body: bytes) -> None:
    """A body without a visible byte is hashed as an empty one."""
    assert relaxed_body(body) == b""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"a", b"a\r\n"),
        (b"a  ", b"a\r\n"),
        (b"a\r\n \t\r\n\r\n  ", b"a\r\n"),
        (b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
        (b"  a\r\n", b" a\r\n"),
        (b"a\r\n \r\nb\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\xa0\xe3\x80\x80\r\n", b"a\xa0\xe3\x80\x80\r\n"),
        (b"a\x0b\x0c\r\n", b"a\x0b\x0c\r\n"),
    ],
)
def test_bodies(body: bytes, expected: bytes) -> None:
    """Only blanks and tabs are blanks; what is at the end goes; a missing last line end is added."""
    assert relaxed_body(body) == expected


@given(BODIES)
def test_bodies_as_dkimpy(body: bytes) -> None:
    """Any body is hashed as dkimpy hashes it."""
    assert relaxed_body(body) == dkimpy_body(body)


@pytest.mark.usefixtures("small_slices")
def test_slices() -> None:
    """Where a slice ends does not show, whatever stands there."""

    @given(BODIES)
    def check(body: bytes) -> None:
        assert relaxed_body(body) == dkimpy_body(body)

    check()


@pytest.mark.parametrize(
    "body",
    [
        b" " * 200_000 + b"x",
        b"x" + b"\t" * 200_000 + b"\r\nx",
        b"x" + b" " * 200_000 + b"y" * 200_000 + b" \r\n",
        (b" " * 40_000 + b"x" * 40_000) * 5,
        b"\r\n" * 100_000 + b"x",
        b" \r\n" * 100_000 + b"x \r\n",
        b"x" * 65_535 + b"\r\nx",
        b"x" * 65_535 + b" \r\n\tx",
        b"x" * 65_536 + b"  x" + b"\r\n" * 70_000,
    ],
)
def test_long_bodies(body: bytes) -> None:
    """Bodies of several slices, each made of one thing, come out as if they were read line by line."""
    assert relaxed_body(body) == line_by_line(body)


@given(BODIES)
def test_line_by_line(body: bytes) -> None:
    """What the long bodies are compared with agrees with dkimpy, which takes minutes for a line of blanks."""
    assert line_by_line(body) == dkimpy_body(body)


@pytest.mark.parametrize(
    "piece", [b"word and word\r\n", b"  word\tword \r\n", b" ", b"\r\n", b" \r\n", b"x", b" x", b"    " * 9000 + b"x"]
)
def test_memory(piece: bytes) -> None:
    """A body of megabytes is handed on in slices; no copy of it is made."""
    body = piece * (8_000_000 // len(piece)) + b"x"
    given_bytes = 0

    def take(part: bytes | memoryview) -> None:
        nonlocal given_bytes
        given_bytes += len(part)

    tracemalloc.start()
    canonical.give_relaxed_body(body, 0, take)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert given_bytes > 0
    assert peak_bytes < 8 * canonical.SLICE_BYTES


def test_body_behind_a_header() -> None:
    """A body is read from where it begins; what stands before it is left alone."""
    pieces: list[bytes] = []

    canonical.give_relaxed_body(b"From: a \r\n\r\n\r\n b  c\r\n\r\n", 12, lambda piece: pieces.append(bytes(piece)))

    assert b"".join(pieces) == b"\r\n b c\r\n"


@given(st.sampled_from([b"Subject", b"X-A", b"TO"]), st.sampled_from([b"", b" ", b"\t ", b"  "]), VALUES)
def test_fields_as_dkimpy(name: bytes, blank: bytes, value: bytes) -> None:
    """Any header field is hashed as dkimpy hashes it."""
    ((expected_name, expected_value),) = Relaxed.canonicalize_headers([(name + blank, value + b"\r\n")])

    assert relaxed_field(name + blank + b":" + value + b"\r\n") == expected_name + b":" + expected_value


def test_huge_field() -> None:
    """A field of a megabyte of folds becomes one line."""
    field = b"Subject: " + b"x\r\n \t" * 200_000 + b"y\r\n"

    assert relaxed_field(field) == b"subject:" + b"x " * 200_000 + b"y\r\n"
