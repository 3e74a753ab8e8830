"""Content: what lies between 354 and the lone dot, in both directions.

Coming in, only CRLF.CRLF ends it, however the network cut the stream (RFC 5321 4.1.1.4). Everything that other
servers have mistaken for an end stays inside; a bare CR, a bare LF or NUL has the whole message refused after
its true end, so that the dialogue stays in step and nobody behind us can see two messages where we saw one.
Content is never split into lines: most of it is looked at three times by code that runs at the speed of C.

Going out, `stuff` doubles the dots and sets the end.
"""

import re
from typing import Literal

from mta.smtp import replies

TEXT_LINE_BYTES_MAX = 998  # RFC 5322 2.1.1, without CRLF; RFC 5321 4.5.3.1.6 counts CRLF and says 1,000
SEGMENT_BYTES = 262_144  # how much is gathered before it is checked: a large message never holds the loop for long

_END = b"\r\n.\r\n"
_DOT_LINE = b"\r\n."
# Both begin with a plain byte, which the pattern engine seeks at full speed; a class of bytes would be 20 times slower.
_DOT_OR_BARE_LF = re.compile(rb"\n(?:\.|(?<!\r\n))")
_BARE_LF = re.compile(rb"\n(?<!\r\n)")
_BARE_CR = re.compile(rb"\r(?!\n)")


def stuff(content: bytes) -> bytes:
    """The content as it goes on the wire after 354: dots doubled, end mark behind it (RFC 5321 4.5.2).

    Content that does not end with CRLF gets one, so that the end mark stands on a line of its own.
    """
    if _DOT_LINE in content:
        content = content.replace(_DOT_LINE, b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    if content.endswith(b"\r\n") or not content:
        return content + b".\r\n"
    return content + _END


def has_long_line(text: bytes) -> bool:
    """Whether a line of `text` is longer than 998 bytes; needs CRLF line ends. Looks at one byte in many."""
    at, longest = 0, TEXT_LINE_BYTES_MAX + 2
    last = len(text) - longest
    while at <= last:
        # The line that begins at `at` is short enough if any LF is near; the last such LF begins the next look.
        found = text.rfind(b"\n", at, at + longest)
        if found < 0:
            return True
        at = found + 1
    return False


class ContentReceiver:
    """Takes the content of one message after another: `begin`, then `feed` until it says where the content ended.

    Then `refusal` is the reply that the content has earned, or None where it is good; and `content` is what the
    sender wrote: dots taken back, CRLF line ends, ending with CRLF, or empty. Content that grows past
    `bytes_max` is swallowed in constant memory.
    """

    __slots__ = (
        "_bytes_max",
        "_gathered",
        "_looked",
        "_plain",
        "_refuse_long",
        "_segments",
        "_size",
        "_swallowing",
        "content",
        "refusal",
    )

    def __init__(self, bytes_max: int, long_lines: Literal["refuse", "pass"]) -> None:
        self._bytes_max = bytes_max
        self._refuse_long = long_lines == "refuse"
        self._gathered: bytearray | None = None
        self._looked = 1
        self._plain = False
        self._segments: list[bytes] = []
        self._size = 0
        self._swallowing = False
        self.content = b""
        self.refusal: bytes | None = None

    @property
    def buffered_bytes(self) -> int:
        """What is held in memory of the message that is coming in."""
        return self._size + len(self._gathered or b"")

    def begin(self) -> None:
        """Forgets the last message; the next byte is the first of a new one."""
        self._gathered = None
        self._looked = 1
        self._segments = []
        self._size = 0
        self._swallowing = False
        self.content = b""
        self.refusal = None

    def feed(self, data: bytes, at: int = 0) -> int:
        """Takes `data` from `at` on. Returns the index behind the end mark, or -1 where the end has not come."""
        gathered, found = self._gathered, None
        if gathered is None:
            if not data.startswith(b".", at):
                found = _DOT_OR_BARE_LF.search(data, at)
                if found and data.startswith(_END, end := found.start() - 1):
                    # The usual case: it came whole, with no bare LF and no line that begins with a dot.
                    self._check(content := data[at : end + 2])
                    self._complete(content)
                    return end + 5
                self._plain = found is None or _END.startswith(data[max(0, found.start() - 1) :])
                found = None
            else:
                self._plain = False
            # What is gathered begins with the CRLF before it, so that a first line that is a dot is no special case.
            gathered = self._gathered = bytearray(b"\r\n")
            known = 2
            gathered += memoryview(data)[at:]
        else:
            known = len(gathered)
            gathered += memoryview(data)[at:]
            # From a little before the border on: the end mark may lie across it.
            if self._plain and (found := _DOT_OR_BARE_LF.search(gathered, max(0, known - 3))):
                tail = gathered[found.start() - 1 : found.start() + 4]
                self._plain = _END.startswith(tail)
                if len(tail) < len(_END):
                    found = None
        end = -1
        if not self._plain:
            end = gathered.find(_END, max(0, known - 4))
        elif found:
            end = found.start() - 1
        if end < 0:
            self._go_on(gathered)
            return -1
        if not self._swallowing:
            self._put_aside(gathered, end)
            self._complete(self._segments[0] if len(self._segments) == 1 else b"".join(self._segments))
        self._gathered = None
        self._segments = []
        return at + end + 5 - known

    def _go_on(self, gathered: bytearray) -> None:
        """No end yet: puts whole lines aside where there is much, and forgets all where there is too much."""
        if self._swallowing:
            del gathered[:-4]
            return
        too_much = self._size + len(gathered) - 2 > self._bytes_max
        if not too_much and len(gathered) < SEGMENT_BYTES:
            return
        cut = gathered.rfind(b"\r\n", self._looked)
        if cut > 0:
            self._put_aside(gathered, cut)
            del gathered[:cut]
        self._looked = max(1, len(gathered) - 1)
        if too_much:
            # What is left is a line that has just begun: its dot may be stuffing, or the end mark's beginning.
            line = len(gathered) - 2
            if gathered.startswith(_DOT_LINE):
                line = 0 if gathered in (b"\r\n.", b"\r\n.\r") else line - 1
            if self._size + line > self._bytes_max:
                self._swallowing = True
                self._plain = False
                self._segments = []
                self._size = 0
                self.refusal = replies.TOO_BIG
                del gathered[:-4]

    def _put_aside(self, gathered: bytearray, cut: int) -> None:
        """Checks the whole lines before the CRLF at `cut`, and keeps them without their stuffed dots."""
        if self._plain:
            segment = bytes(memoryview(gathered)[2 : cut + 2])
        else:
            lines = bytes(memoryview(gathered)[: cut + 2])
            if _BARE_LF.search(lines):
                self.refusal = replies.BAD_LINE_ENDS
            segment = lines.replace(_DOT_LINE, b"\r\n")[2:]  # RFC 5321 4.5.2: the first dot goes, whatever follows
        self._check(segment)
        self._segments.append(segment)
        self._size += len(segment)

    def _check(self, lines: bytes) -> None:
        """Looks at whole lines for what is left to look for when their LFs are known to be right."""
        if _BARE_CR.search(lines) or b"\0" in lines:
            self.refusal = replies.BAD_LINE_ENDS
        elif self.refusal is None and self._refuse_long and has_long_line(lines):
            self.refusal = replies.LINE_OVER_998

    def _complete(self, content: bytes) -> None:
        if len(content) > self._bytes_max:
            self.refusal = replies.TOO_BIG
        else:
            self.content = content
