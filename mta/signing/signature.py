"""The signature: the DKIM-Signature fields of a message (RFC 6376 3.5), in two steps around the signing itself.

`prepare` says what each key has to sign, which is 32 bytes whatever the message; `complete` makes the fields of what
the keys answered. Between the two the message need not be at hand, and the signing may happen elsewhere. Pure.
"""

import functools
import hashlib
from binascii import b2a_base64
from collections.abc import Sequence
from typing import NamedTuple

from mta.signing.canonical import give_relaxed_body, unfolded
from mta.signing.keys import SigningKey

SIGNED_FIELDS = (
    # RFC 6376 5.4.1: what the reader sees and what gives an answer its place.
    "From",
    "Sender",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "To",
    "Cc",
    "In-Reply-To",
    "References",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    # RFC 8058 4: a one-click unsubscribe counts only when both of its fields are signed.
    "List-Unsubscribe-Post",
    # What says how the body is to be read.
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Content-ID",
    # RFC 3834 5.2; and what providers read for complaints and logos, where they ask that it be signed.
    "Auto-Submitted",
    "Feedback-ID",
    "BIMI-Selector",
)
"""Fields that are signed where they are present. Not those that are written on the way (Received, Return-Path)."""
FIELD_COUNT_MAX = 20
"""How many of one name are signed, from the last one up: a thousand To fields must not make a h= of thousands."""
LINE_CHARS_MAX = 78  # RFC 5322 2.1.1: what a line should keep within
SIGNATURE_CHARS_PER_LINE = 72
HEADS_KEPT_MAX = 10_000  # beginnings of fields, one a key
NAME_LISTS_KEPT_MAX = 2_000  # h= tags: an application writes its fields in one order

_SPELLINGS = {
    spelling: (name.lower().encode(), name.lower().encode() + b":")
    for name in SIGNED_FIELDS
    for spelling in (name.encode(), name.lower().encode(), name.upper().encode())
}
"""A name as it is usually written -> in the form that is signed, without and with its colon."""
_FROM = b"from"
_FOLD = b"\r\n\t"
_KEPT_LIST_BYTES_MAX = 1_000


class Prepared(NamedTuple):
    """A signature that only needs signing."""

    key: SigningKey
    head: bytes
    """The DKIM-Signature field up to and including `b=`."""
    digest: bytes
    """What the key signs: 32 bytes."""


def prepare(content: bytes, keys: Sequence[SigningKey], now_s: float) -> list[Prepared]:
    """What each key has to sign, in the order of the keys.

    `content` is the message with CRLF line ends and without dot-stuffing: header, empty line, body. `now_s` is Unix
    seconds. The time taken is linear in the length of the content.
    """
    if content.startswith(b"\r\n"):
        header_end, body_start = 0, 2
    else:
        header_end = content.find(b"\r\n\r\n")
        body_start = header_end + 4
        if header_end < 0:
            header_end = body_start = len(content)
    body = hashlib.sha256()
    give_relaxed_body(content, body_start, body.update)
    names, signed = _signed_fields(content[:header_end])
    middle = b"%d;%sbh=%s;\r\n\tb=" % (now_s, _names_tag(names), b2a_base64(body.digest(), newline=False))
    fields = hashlib.sha256(signed)
    prepared: list[Prepared] = []
    for key in keys:
        rest = _head_start(key.domain, key.selector, key.algorithm) + middle
        whole = fields.copy()
        # RFC 6376 3.7: the field itself comes last, with an empty b= and without a line end.
        whole.update(b"dkim-signature:" + rest.replace(_FOLD, b" "))
        prepared.append(Prepared(key, b"DKIM-Signature: " + rest, whole.digest()))
    return prepared


def complete(prepared: Sequence[Prepared], signatures: Sequence[bytes]) -> bytes:
    """The DKIM-Signature fields, ready to be put before the content; one signature for each of `prepared`."""
    parts: list[bytes] = []
    for one, signature in zip(prepared, signatures, strict=True):
        text = b2a_base64(signature, newline=False)
        lines = [text[at : at + SIGNATURE_CHARS_PER_LINE] for at in range(0, len(text), SIGNATURE_CHARS_PER_LINE)]
        parts += (one.head, _FOLD.join(lines), b"\r\n")
    return b"".join(parts)


def _signed_fields(header: bytes) -> tuple[bytes, bytes]:
    """The names for h=, and the fields in relaxed form.

    From the last field up, because that is how a verifier takes several of one name (RFC 6376 5.4.2). From is named
    once more than it is there, so that nobody can put another one on top.
    """
    names: list[bytes] = []
    signed: list[bytes] = []
    counts: dict[bytes, int] = {}
    for line in reversed(unfolded(header).split(b"\r\n")):
        name, _, value = line.partition(b":")
        known = _SPELLINGS.get(name) or _SPELLINGS.get(name.rstrip(b" ").lower())
        if known is None:
            continue
        name, start = known
        count = counts.get(name, 0)
        if count < FIELD_COUNT_MAX:
            counts[name] = count + 1
            names.append(name)
            signed.append(start + value.strip(b" "))
    names.append(_FROM)
    signed.append(b"")
    return b":".join(names), b"\r\n".join(signed)


def _names_tag(names: bytes) -> bytes:
    return _kept_names_tag(names) if len(names) <= _KEPT_LIST_BYTES_MAX else _folded_names_tag(names)


def _folded_names_tag(names: bytes) -> bytes:
    """The h= tag on lines of its own, folded behind colons, with the line end before it and behind it."""
    lines: list[bytes] = []
    line = b"\th="
    for name in names.split(b":"):
        if len(line) + len(name) + 1 > LINE_CHARS_MAX:
            lines.append(line)
            line = b"\t"
        line += name + b":"
    lines.append(line[:-1])
    return b"\r\n" + b"\r\n".join(lines) + b";\r\n\t"


_kept_names_tag = functools.lru_cache(NAME_LISTS_KEPT_MAX)(_folded_names_tag)


@functools.lru_cache(HEADS_KEPT_MAX)
def _head_start(domain: str, selector: str, algorithm: str) -> bytes:
    """The field from behind its name up to and including `t=`, on lines that are not too long."""
    lines: list[str] = []
    line = ""
    width = LINE_CHARS_MAX - len("DKIM-Signature: ")
    for tag in ("v=1;", f"a={algorithm};", "c=relaxed/relaxed;", f"d={domain};", f"s={selector};", "t=1234567890;"):
        if line and len(line) + 1 + len(tag) > width:
            lines.append(line)
            line, width = tag, LINE_CHARS_MAX - 1
        else:
            line = f"{line} {tag}" if line else tag
    lines.append(line)
    return "\r\n\t".join(lines).removesuffix("1234567890;").encode("ascii")
