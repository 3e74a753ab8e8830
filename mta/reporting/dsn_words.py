"""A notification's words for people: what happened to a message, said so that whoever wrote it understands. Pure."""

import binascii
import re
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.header import decode_header
from functools import lru_cache
from typing import TYPE_CHECKING

from mta.model.dates import mail_date
from mta.model.envelope import Envelope

if TYPE_CHECKING:
    from mta.reporting.dsn import Failure

RECIPIENTS_NAMED_MAX = 100
"""In the words for people; the fields for programs name all."""
REPLY_CHARS_MAX = 500
SUBJECT_CHARS_MAX = 60
"""Of the message's own subject, so that it fits into its line."""
ADDRESS_IN_SUBJECT_CHARS_MAX = 60
WIDTH_CHARS = 72
_LINE = re.compile(
    rf"(\S.{{0,{WIDTH_CHARS - 1}}})(?: |$)|(\S{{{WIDTH_CHARS}}})"
)  # as much as fits, or a piece of a word
_INDENT = " " * 4

# Controls, Unicode's line ends, marks that turn the direction of writing, halves of surrogate pairs.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")

# By the last two numbers of the status (RFC 3463 3), the longest first; what is not here explains itself or cannot be
# explained.
MEANINGS = {
    "1.1": "There is no such mailbox. Please look for a typing error in the address.",
    "1.2": "The part behind the @ receives no mail. Please look for a typing error in it.",
    "1.3": "This is not a valid address. Please look for a typing error in it.",
    "1.6": "The mailbox has moved or was closed.",
    "1.10": "The part behind the @ receives no mail. Please look for a typing error in it.",
    "2.1": "The mailbox is there, but takes no mail at present.",
    "2.2": "The mailbox is full. Its owner would have to make room in it.",
    "2.3": "The message is larger than this mailbox takes.",
    "3.4": "The message is larger than the other mail server takes.",
    "4.4": "The part behind the @ receives no mail. Please look for a typing error in it.",
    "7": "The other mail server refuses this message by its own rules, for example because it takes it for "
    "advertising. Whoever looks after your mail can find out more.",
}


def subject(failures: "Sequence[Failure]") -> str:
    """The notification's own subject, in ASCII."""
    if len(failures) == 1:
        address = failures[0].recipient.address
        if address.isascii() and len(address) <= ADDRESS_IN_SUBJECT_CHARS_MAX and not CONTROLS.search(address):
            return f"Not delivered: {address}"
        return "Not delivered to its recipient"
    return f"Not delivered to {len(failures)} recipients"


def text(cause: Envelope, failures: "Sequence[Failure]", hostname: str, time_s: float, header: bytes) -> str:
    """All of it; `time_s` (Unix seconds): when the message was given up."""
    groups: dict[tuple[object, ...], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.is_expired, failure.reply, failure.last_reply, failure.host), []).append(failure)
    paragraphs = []
    named = 0
    for alike in groups.values():
        if named >= RECIPIENTS_NAMED_MAX:
            break
        shown = alike[: RECIPIENTS_NAMED_MAX - named]
        named += len(shown)
        paragraphs += _group(cause, shown, time_s, is_first=not paragraphs)
    if named < len(failures):
        more = len(failures) - named
        paragraphs.append(f"Nor to {more:,} more; the details that come with this message name them all.")
    paragraphs.append("It will not be tried again. Recipients who are not named here are not affected.")
    paragraphs.append(_about(cause, header))
    paragraphs.append(
        f"This was written by the mail server {hostname}; nobody reads answers to it. If you need help, send this "
        "whole message to whoever looks after your mail."
    )
    return "\n".join(_wrapped(paragraph) for paragraph in paragraphs)


def _group(cause: Envelope, failures: "Sequence[Failure]", time_s: float, *, is_first: bool) -> list[str]:
    one, count = failures[0], len(failures)
    begin = "Your message could not be delivered to" if is_first else "And it could not be delivered to"
    what = "this address" if count == 1 else "these addresses"
    paragraphs = [f"{begin} {what}:", _indented([failure.recipient.address for failure in failures])]
    said = one.last_reply or one.reply
    who = f"The mail server {_clean(one.host)}" if one.host else "The other mail server"
    if one.is_expired:
        tried = duration(time_s - (cause.send_at_s or cause.received_s))
        if one.last_reply is None:
            paragraphs.append(f"It was tried for {tried}. In that time no mail server there could be reached.")
            return paragraphs
        answer = f"{who} last answered" if one.from_peer else "This is what happened the last time"
        paragraphs.append(f"It was tried for {tried}. {answer}:")
    elif one.from_peer:
        paragraphs.append(f"{who} refuses it. Its answer:")
    else:
        paragraphs.append("The reason:")
    paragraphs.append(_indented([str(said)]))
    if not one.is_expired and (meaning := _meaning(said.enhanced)):
        paragraphs.append(meaning)
    return paragraphs


def _meaning(enhanced: str) -> str:
    kind = enhanced.partition(".")[2]
    return MEANINGS.get(kind) or MEANINGS.get(kind.partition(".")[0], "")


def _about(cause: Envelope, header: bytes) -> str:
    lines = ["About your message:", ""]
    if found := _subject_of(header):
        lines.append(f"    Subject: {found}")
    lines.append(f"    Handed in: {mail_date(cause.received_s).decode()}")
    lines.append(f"    Number: {_clean(cause.id)}")
    return "\n".join(lines)


def _subject_of(header: bytes) -> str:
    """The subject as a person wrote it, cut where it is long; "" where there is none to be read."""
    found = re.search(rb"^subject[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", header, re.IGNORECASE | re.MULTILINE)
    if found is None:
        return ""
    raw = found[1][: SUBJECT_CHARS_MAX * 10].decode("utf-8", "replace").replace("\r\n", "")
    try:
        words = decode_header(raw)
        decoded = "".join(
            word if isinstance(word, str) else word.decode(charset or "ascii", "replace") for word, charset in words
        )
    except (HeaderParseError, LookupError, ValueError):
        decoded = raw
    decoded = " ".join(_clean(decoded or raw).split())
    return decoded if len(decoded) <= SUBJECT_CHARS_MAX else decoded[:SUBJECT_CHARS_MAX] + "..."


def duration(seconds: float) -> str:
    """Roughly, in words."""
    for unit, length_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length_s or (seconds >= length_s and unit != "minute"):
            count = int(seconds // length_s)
            return f"{count} {unit}" + ("s" if count > 1 else "")
    return "a minute" if seconds >= 60 else "less than a minute"


def _clean(words: str) -> str:
    """Nothing of it can begin a line of its own, or turn what stands beside it around."""
    return CONTROLS.sub(" ", words)


def wrapped(words: str) -> list[str]:
    """Lines of at most 72 characters, at least one; words that are longer are cut."""
    return [found[1] or found[2] for found in _LINE.finditer(" ".join(words.split()))] or [""]


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(_INDENT + line for each in lines for line in wrapped(_clean(each)[:REPLY_CHARS_MAX]))


@lru_cache(maxsize=256)
def _filled(paragraph: str) -> str:
    """A paragraph of ours: there are few of them."""
    return "\n".join(wrapped(paragraph)) + "\n"


def _wrapped(paragraph: str) -> str:
    return paragraph + "\n" if _INDENT in paragraph else _filled(paragraph)


def quoted_printable(data: bytes) -> bytes:
    """Text with CRLF line ends in RFC 2045 6.7, whatever bytes and however long lines it has."""
    lines = data.split(b"\r\n")
    return b"\r\n".join(_quoted_line(line) for line in lines)


def _quoted_line(line: bytes) -> bytes:
    return binascii.b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n").replace(b"\r\r\n", b"\r\n")
