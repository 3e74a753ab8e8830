"""The relaxed form: what of a message is signed, so that changes of blanks on the way do no harm (RFC 6376 3.4).

Everything works on whole stretches with the methods of `bytes`; no line is looked at by itself. A long body is taken
in slices, so that it costs no second copy, and a slice that is in relaxed form already (the usual case) is
handed on as it is.
"""

import re
from collections.abc import Callable

SLICE_BYTES = 65_536  # of a body, brought into its form in one go: fits the processor's cache
_TAIL_BYTES = 256  # looked at in one go for the end of the text

_EIGHT = b" " * 8
_FOUR = b" " * 4
_NOT_BLANK = re.compile(rb"[^ \t]")

Take = Callable[[bytes | memoryview], object]


def relaxed_body(body: bytes) -> bytes:
    """The body as it is hashed: RFC 6376 3.4.4. The line ends must be CRLF."""
    pieces: list[bytes | memoryview] = []
    give_relaxed_body(body, 0, pieces.append)
    return b"".join(pieces)


def give_relaxed_body(content: bytes, start: int, take: Take) -> None:
    """Hands the relaxed form of the body that begins at `start` to `take`, piece by piece (`sha256().update`).

    The work is linear in the body's length, the extra memory a few slices.
    """
    end = _text_end(content, start)
    if end == start:
        return
    view = memoryview(content)
    at = start
    while at < end:
        until = end if end - at <= SLICE_BYTES else _cut(content, at)
        if until == at:  # a line with a whole slice of blanks
            until = _end_of_blanks(content, at)
            if content[until : until + 2] != b"\r\n":
                take(b" ")
        elif (
            content.find(b"\t", at, until) < 0
            and content.find(b"  ", at, until) < 0
            and content.find(b" \r\n", at, until) < 0
        ):
            take(view[at:until])
        else:
            take(_collapsed(content[at:until]).replace(b" \r\n", b"\r\n"))
        at = until
    take(b"\r\n")


def _text_end(content: bytes, start: int) -> int:
    """Where the blanks and empty lines at the body's end begin."""
    end = len(content)
    while end > start:
        tail = content[max(start, end - _TAIL_BYTES) : end]
        text = tail.rstrip(b" \t\r\n")
        end -= len(tail) - len(text)
        if text:
            break
    return end


def _cut(content: bytes, at: int) -> int:
    """Where a slice may end: behind a line, else behind a byte that is no blank; `at` where there is none."""
    line_end = content.rfind(b"\n", at, at + SLICE_BYTES) + 1
    if line_end:
        return line_end
    return at + len(content[at : at + SLICE_BYTES].rstrip(b" \t\r"))


def _end_of_blanks(content: bytes, at: int) -> int:
    found = _NOT_BLANK.search(content, at)
    assert found is not None, "the text ends with a byte that is no blank"
    return found.start()


def _collapsed(text: bytes) -> bytes:
    """Every run of blanks and tabs as one blank."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    text = text.replace(_EIGHT, b" ").replace(_FOUR, b" ")  # what HTML is indented with goes in one pass
    while b"  " in text:  # each pass halves the runs
        text = text.replace(b"  ", b" ")
    return text


def unfolded(header: bytes) -> bytes:
    """A header block, or one field, with every field on one line and every run of blanks as one blank."""
    if b"\t" in header:
        header = header.replace(b"\t", b" ")
    header = header.replace(b"\r\n ", b" ")
    while b"  " in header:
        header = header.replace(b"  ", b" ")
    return header


def relaxed_field(field: bytes) -> bytes:
    """One header field as it is hashed, with its line end: RFC 6376 3.4.2."""
    name, _, value = unfolded(field).partition(b":")
    return name.strip(b" ").lower() + b":" + value.strip(b" \r\n") + b"\r\n"
