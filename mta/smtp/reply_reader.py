"""Replies: what the other side says, cut out of its stream and bounded. Pure: bytes in, values out.

A reply is a code and its lines (RFC 5321 4.2). The reader takes any split of the stream, refuses what is no
reply and never keeps more than one reply's worth of bytes. Texts become a `model.Reply` only where somebody
will read them: the reply to an accepted RCPT never does.
"""

import re

from mta.model.outcome import Reply

REPLY_LINES_MAX = 128  # the longest honest EHLO replies have about 30
REPLY_BYTES_MAX = 32 * 1024  # the same in bytes; a reply that never ends costs us no more than this
TEXT_CHARS_MAX = 1000  # what events, bounces and people are shown of a reply

_line_of = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\0]*))?", re.DOTALL).fullmatch  # RFC 5321 4.2
_enhanced_of = re.compile(rb"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?=[ \t]|$)").match  # RFC 2034 4
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class MalformedReplyError(Exception):
    """What came is no SMTP reply, or more than one may be; nothing behind it can be trusted."""


class ReplyReader:
    """Cuts a stream into replies. After a MalformedReplyError it must not be used again."""

    __slots__ = ("_bytes", "_code", "lines", "rest")

    def __init__(self) -> None:
        self.rest = b""
        """Bytes that came behind the last reply taken, or the beginning of a line."""
        self.lines: list[bytes] = []
        """Lines of a reply whose last line has not come yet."""
        self._code = b""
        self._bytes = 0

    @property
    def is_between(self) -> bool:
        """Whether nothing is kept: the next byte begins a reply."""
        return not (self.rest or self.lines)

    def feed(self, data: bytes) -> None:
        """Takes what the peer sent, split anywhere."""
        self.rest = self.rest + data if self.rest else data

    def next(self) -> tuple[int, list[bytes]] | None:
        """The next complete reply as its code and the texts of its lines, or None when more must come first.

        Raises MalformedReplyError for bytes that are no reply, a code that changes between lines and for replies
        over REPLY_LINES_MAX or REPLY_BYTES_MAX. A line may end in LF alone, as some peers do.
        """
        rest, at = self.rest, 0
        while (end := rest.find(b"\n", at)) >= 0:
            self._bytes += end + 1 - at
            if self._bytes > REPLY_BYTES_MAX:
                raise MalformedReplyError("the reply is longer than any reply may be")
            line = rest[at : end - 1] if rest[end - 1 : end] == b"\r" and end > at else rest[at:end]
            at = end + 1
            match = _line_of(line)
            if match is None:
                raise MalformedReplyError("what came is not an SMTP reply: " + _clean(line[:80]))
            code, mark, text = match.groups()
            if self.lines and code != self._code:
                raise MalformedReplyError("the reply changes its code from line to line")
            self.lines.append(text or b"")
            if mark == b"-":
                if len(self.lines) >= REPLY_LINES_MAX:
                    raise MalformedReplyError("the reply has more lines than any reply may have")
                self._code = code
                continue
            lines = self.lines
            self.lines, self._bytes, self.rest = [], 0, rest[at:]
            return int(code), lines
        self.rest = rest[at:]
        if self._bytes + len(self.rest) > REPLY_BYTES_MAX:
            raise MalformedReplyError("the reply is longer than any reply may be")
        return None


def reply_of(code: int, lines: list[bytes]) -> Reply:
    """A reply for people, rules and events: one line of bounded length without control bytes.

    The enhanced code is taken off every line that repeats it, and only believed when its class is that of the
    code (RFC 2034 4); bytes over 127 are read as UTF-8 (RFC 6531 3.7.4.2), others become U+FFFD.
    """
    enhanced = b""
    first = _enhanced_of(lines[0])
    if first is not None and int(first[1]) == code // 100:
        enhanced = first[0]
        lines = [_without(enhanced, line) for line in lines]
    text = " ".join(filter(None, [_clean(line).strip() for line in lines]))
    return Reply(code, enhanced.decode(), text[:TEXT_CHARS_MAX])


def _without(enhanced: bytes, line: bytes) -> bytes:
    match = _enhanced_of(line)
    return line[match.end() :] if match is not None and match[0] == enhanced else line


def _clean(text: bytes) -> str:
    return _CONTROL.sub("?", text.replace(b"\t", b" ").decode("utf-8", "replace"))
