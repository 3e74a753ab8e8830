"""Delivery status notifications: the message that tells a sender what could not be delivered, and why. Pure.

Three parts (RFC 6522 3): words for people, fields for programs (RFC 3464), and the header of the message in question.
Peers' texts and addresses may hold anything that a stranger thought of; none of it can begin a line of its own.
The sender is null (RFC 5321 4.5.5), so nobody is ever told of a notification that could not be delivered.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from mta.model.dates import mail_date
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Reply
from mta.reporting import dsn_words
from mta.reporting.dsn_words import CONTROLS, quoted_printable
from mta.smtp.grammar import routing_domain

HEADER_BYTES_MAX = 32 * 1024
"""Of the returned header: more than mail has, and what a notification keeps in memory."""
DIAGNOSTIC_CHARS_MAX = 1_000
"""Of a reply in the fields for programs; a peer may send 32 KB, once a recipient."""
LINE_BYTES_MAX = 998  # RFC 5322 2.1.1

_INTERNET = "rfc" + "822"  # the name of an address type and of a part; in one word it would look like a citation
_ID_TIME_CHARS = 9  # of an id: its milliseconds (mta.model.identity)
_ID_CHARS = 20
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
_FIELD = re.compile(rb"\r\n(?![ \t])")
_FOLDED = re.compile(r"(\S.{0,75}|\S{77,200})(?: |$)|(\S{1,200})")  # of a line; a character may have four bytes
_UNCLEAN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Failure(NamedTuple):
    """One recipient that is given up."""

    recipient: Recipient
    is_expired: bool
    """Its time is over; else it was refused, or can never be delivered."""
    reply: Reply
    """What decided it."""
    from_peer: bool
    """The reply is the words of `host`, not ours."""
    host: str
    """The mail host that was spoken to last; "" where there was none."""
    time_s: float
    """When that was: Unix seconds, as the next."""
    last_reply: Reply | None = None
    """Of one that expired: what was said to the last attempt, where there was an answer."""


def notice_id(message_id: str, recipients: Sequence[str]) -> str:
    """The id of the notification about these recipients of a message: always the same, and it sorts beside the
    message's own."""
    digest = hashlib.sha256("\0".join([message_id, *recipients]).encode("utf-8", "surrogatepass")).digest()
    number = int.from_bytes(digest[:8])
    chars = [_ID_ALPHABET[number >> 5 * place & 31] for place in range(_ID_CHARS - _ID_TIME_CHARS)]
    return message_id[:_ID_TIME_CHARS].rjust(_ID_TIME_CHARS, "0") + "".join(chars)


def can_be_told(envelope: Envelope) -> bool:
    """Whether there is somebody to tell: nobody is told of a notification, or of mail from the null sender
    (RFC 5321 4.5.5)."""
    if not envelope.sender or envelope.cause_id:
        return False
    try:
        routing_domain(envelope.sender.rpartition("@")[2])
    except ValueError:
        return False
    return True


def header_of(content: bytes) -> bytes:
    """A message's header, at most `HEADER_BYTES_MAX` of it and only whole fields, each with its line end."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n", 0, HEADER_BYTES_MAX)
    if end >= 0:
        return content[: end + 2]
    if len(content) <= HEADER_BYTES_MAX and content.endswith(b"\r\n"):
        return content  # it has no body
    cut = content[:HEADER_BYTES_MAX]
    ends = [found.end() for found in _FIELD.finditer(cut, 0, len(cut) - 1)]
    return cut[: ends[-1]] if ends else b""


def notice_envelope(
    cause: Envelope, told_id: str, addresses: Sequence[str], time_s: float, size: int, hostname: str
) -> Envelope:
    """The envelope of the notification about a message; `addresses`: whom it tells about, `time_s`: Unix seconds."""
    is_wide = not cause.sender.isascii()
    return Envelope(
        told_id,
        "",
        [Recipient(cause.sender, routing_domain(cause.sender.rpartition("@")[2]))],
        time_s,
        size,
        body_8bit=is_wide,
        smtputf8=is_wide,
        tenant=cause.tenant,
        pool=cause.pool,
        message_id=f"<{told_id}@{hostname}>",
        from_domain=hostname.lower(),
        cause_id=cause.id,
        cause_recipients=list(addresses),
    )


def compose(
    cause: Envelope, failures: Sequence[Failure], hostname: str, time_s: float, header: bytes
) -> tuple[Envelope, bytes]:
    """The notification to the sender of `cause`: its envelope and its content, CRLF, not dot-stuffed.

    `header`: see `header_of`; b"" where it cannot be had. `time_s` (Unix seconds): when it was given up.
    """
    addresses = [failure.recipient.address for failure in failures]
    told_id = notice_id(cause.id, addresses)
    envelope = notice_envelope(cause, told_id, addresses, time_s, 0, hostname)
    is_wide = envelope.smtputf8
    parts = [
        _text_part(dsn_words.text(cause, failures, hostname, time_s, header)),
        _status_part(cause, failures, hostname, is_wide=is_wide),
    ]
    if header:
        parts.append(_header_part(header, is_wide=is_wide))
    boundary = f"=_{told_id}".encode()
    while any(boundary in part for part in parts):
        boundary += b"x"  # the words of a stranger who knew it
    top = _top(envelope, cause, failures, hostname, boundary)
    middle = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    content = top + b"\r\n" + middle + b"--" + boundary + b"--\r\n"
    envelope.size = len(content)
    return envelope, content


def _top(envelope: Envelope, cause: Envelope, failures: Sequence[Failure], hostname: str, boundary: bytes) -> bytes:
    fields = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{cause.sender}>",
        f"Subject: {dsn_words.subject(failures)}",
        f"Date: {mail_date(envelope.received_s).decode()}",
        f"Message-ID: {envelope.message_id}",
    ]
    if _MESSAGE_ID.fullmatch(cause.message_id):
        fields += [f"In-Reply-To: {cause.message_id}", f"References: {cause.message_id}"]
    fields += [
        "Auto-Submitted: auto-replied",  # RFC 3834 5
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary.decode()}"',
    ]
    if envelope.body_8bit:
        fields.append("Content-Transfer-Encoding: 8bit")
    return "".join(field + "\r\n" for field in fields).encode()


def _text_part(text: str) -> bytes:
    body = text.replace("\n", "\r\n").encode()
    if body.isascii():
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + body
    head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head + quoted_printable(body)


def _header_part(header: bytes, *, is_wide: bool) -> bytes:
    """What it was that could not be delivered: RFC 6522 4, or RFC 6533 6 for one whose sender is not ASCII."""
    long = any(len(line) > LINE_BYTES_MAX for line in header.split(b"\r\n"))
    if not long and not _UNCLEAN.search(header):
        if header.isascii():
            return f"Content-Type: text/{_INTERNET}-headers\r\n\r\n".encode() + header
        if is_wide and _is_utf8(header):
            return b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + header
    head = f"Content-Type: text/{_INTERNET}-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head.encode() + quoted_printable(header)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# the fields for programs


def _status_part(cause: Envelope, failures: Sequence[Failure], hostname: str, *, is_wide: bool) -> bytes:
    """RFC 3464 2: fields about the message, then about each recipient."""
    kind = "global-delivery-status" if is_wide else "delivery-status"
    blocks = [
        [
            f"Reporting-MTA: dns; {hostname}",
            f"X-Queue-ID: {_one_line(cause.id, is_wide=False)}",
            f"Arrival-Date: {mail_date(cause.received_s).decode()}",
        ]
    ]
    for failure in failures:
        block = [
            f"Final-Recipient: {_typed_address(failure.recipient.address, is_wide=is_wide)}",
            "Action: failed",
            f"Status: {_status(failure)}",
        ]
        if failure.host:
            block.append(f"Remote-MTA: dns; {_one_line(failure.host, is_wide=False)}")
        said = failure.last_reply or failure.reply
        kind_of_words = "smtp" if failure.from_peer else "x-mta"
        words = _one_line(str(said), is_wide=is_wide)[:DIAGNOSTIC_CHARS_MAX]
        block.append(_fold(f"Diagnostic-Code: {kind_of_words}; {words}"))
        block.append(f"Last-Attempt-Date: {mail_date(failure.time_s).decode()}")
        blocks.append(block)
    encoding = "Content-Transfer-Encoding: 8bit\r\n" if is_wide else ""
    fields = "\r\n".join("".join(field + "\r\n" for field in block) for block in blocks)
    return f"Content-Type: message/{kind}\r\n{encoding}\r\n{fields}".encode()


def _status(failure: Failure) -> str:
    """RFC 3463 2: always of the class "never", because the action is `failed`."""
    enhanced = failure.reply.enhanced
    if _STATUS.fullmatch(enhanced):
        return "5" + enhanced[1:]
    return "5.0.0"


def _typed_address(address: str, *, is_wide: bool) -> str:
    """RFC 3464 2.3.2; RFC 6533 3 for addresses that are not ASCII."""
    if address.isascii():
        return f"{_INTERNET}; {_one_line(address, is_wide=False)}"
    if is_wide:
        return f"utf-8; {_one_line(address, is_wide=True)}"
    escaped = "".join(
        char if "!" <= char <= "~" and char not in "\\+=" else f"\\x{{{ord(char):02X}}}" for char in address
    )
    return f"utf-8; {escaped}"


def _one_line(text: str, *, is_wide: bool) -> str:
    """Without anything that could end a line, and in ASCII unless the notification is allowed more."""
    text = CONTROLS.sub(" ", text)
    return text if is_wide else text.encode("ascii", "backslashreplace").decode()


def _fold(field: str) -> str:
    """Lines of at most 76 characters where there are blanks to break at, and never one that is too long."""
    return "\r\n ".join(found[1] or found[2] for found in _FOLDED.finditer(" ".join(field.split())))
