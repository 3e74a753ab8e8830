"""Headers: what the door must know of a message's header block, and the lines that it puts on top of it.

The block is looked through once by a pattern that knows the few names of interest; it is never split into lines.
`prepare` says what it found and gives back the content without the fields that an application set for us
(`X-MTA-...`), byte for byte the same otherwise. Pure: bytes and times come in as arguments.

A content whose first line is no header field is all body: it gets an empty header block, so that the lines which
we put on top do not run into its text.
"""

import functools
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import msgspec

from mta.model.dates import mail_date
from mta.model.envelope import PRIORITY_DEFAULT
from mta.smtp import replies
from mta.smtp.grammar import routing_domain
from mta_policies.units import duration_s

HEADERS_BYTES_MAX = 524_288  # Gmail takes 500 KB; nobody who means well comes near
HEADER_LINES_MAX = 10_000  # a To with a thousand folded addresses fits, a header bomb does not
RECEIVED_MAX = 50  # RFC 5321 6.3 speaks of 100 for relays at large; mail that comes in here is at its beginning
FROM_BYTES_MAX = 4096  # of a From field that is looked at: the first address stands at its beginning
MESSAGE_ID_CHARS_MAX = 500  # of a Message-ID that is told in events
NAME_CHARS_MAX = 128  # of a tenant, campaign or pool
FROM_CACHE_ENTRIES_MAX = 2048  # applications write few different From fields
TRACE_CACHE_ENTRIES_MAX = 512  # clients at a time that hand in much

_FIELD = re.compile(
    rb"\n((?i:from|date|message-id|received|x-mta-[!-9;-~]*+))[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)",
)
_FIRST_FIELD = re.compile(rb"[!-9;-~]++[ \t]*+:")
_FOLD = re.compile(r"\r\n(?=[ \t])")
_ENCODED_WORD = re.compile(r"=\?[^?\s]*\?[BbQq]\?[^?]*\?=")
_ADDRESS_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|\\.|[()]|[^"()\\]+|\\')
_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f](?:[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?")
_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


class Prepared(msgspec.Struct):
    """What the header block says."""

    content: bytes
    """The message without X-MTA fields; begins with a header field or with the empty line before a body."""
    from_domain: str = ""
    """Of the first address in From, as it is routed: lower-case A-labels; "" where there is none that can be read."""
    message_id: str = ""
    """With its angle brackets, "" where it is missing."""
    has_from: bool = False
    has_date: bool = False
    has_message_id: bool = False
    received_count: int = 0
    tenant: str = ""
    campaign: str = ""
    pool: str = ""
    priority: int = PRIORITY_DEFAULT
    send_at_s: float = 0.0
    """Unix seconds, 0 where not asked for."""
    expire_s: float = 0.0
    """Seconds, 0 where not asked for."""


class Refused(msgspec.Struct, frozen=True):
    """A message that cannot be taken as it is."""

    reply: bytes


def prepare(content: bytes, *, trusted: bool) -> Prepared | Refused:
    """Reads the header block. X-MTA fields are taken off in any case, and count only from a `trusted` client.

    Refused is a block beyond its limits, one with too many Received fields, and, of a trusted client, an X-MTA
    field that is given twice or cannot be understood: the application wants to know.
    """
    end = content.find(b"\r\n\r\n", 0, HEADERS_BYTES_MAX + 4)
    if not _FIRST_FIELD.match(content):
        return Prepared(content if content.startswith(b"\r\n") else b"\r\n" + content)
    if end < 0:
        if len(content) > HEADERS_BYTES_MAX:
            return Refused(_TOO_BIG)
        end = len(content) - 2  # no body: the block ends with the content
    block = b"\n" + content[: end + 2]
    if len(block) > 2 * HEADER_LINES_MAX and block.count(b"\n") > HEADER_LINES_MAX:
        return Refused(_TOO_MANY)
    found = Prepared(content)
    taken: list[re.Match[bytes]] = []
    for field in _FIELD.finditer(block):
        match field[1][0] | 0x20:  # the names of interest differ in their first letter
            case 0x66:  # from
                if not found.has_from:
                    found.has_from = True
                    found.from_domain = _domain_of_first(field[2][:FROM_BYTES_MAX])
            case 0x64:  # date
                found.has_date = True
            case 0x6D:  # message-id
                if not found.has_message_id:
                    found.has_message_id = True
                    found.message_id = _text(field[2])[:MESSAGE_ID_CHARS_MAX]
            case 0x72:  # received
                found.received_count += 1
            case _:
                taken.append(field)
    if found.received_count > RECEIVED_MAX:
        return Refused(_LOOP)
    if taken:
        if trusted and (refused := _honour(found, taken)):
            return refused
        found.content = _without(content, taken)
    return found


_TOO_BIG = replies.reply(552, "5.3.4", "Message headers too big")
_TOO_MANY = replies.reply(552, "5.3.4", "Too many header lines")
_LOOP = replies.reply(554, "5.4.6", "Mail loop: too many Received headers")


def _without(content: bytes, taken: list[re.Match[bytes]]) -> bytes:
    """The content without these fields, each with its own line end."""
    pieces: list[bytes | memoryview] = []
    view, at = memoryview(content), 0
    for field in taken:
        # The block has a LF before the content: a field that begins behind the LF at n begins at n in the content.
        pieces.append(view[at : field.start()])
        at = field.end()
    pieces.append(view[at:])
    rest = b"".join(pieces)
    # Where ours were the only fields in front, what is left may be all body.
    return rest if rest.startswith(b"\r\n") or _FIRST_FIELD.match(rest) else b"\r\n" + rest


# --- what an application asks for


def _name(value: str) -> str:
    if len(value) > NAME_CHARS_MAX or not _NAME.fullmatch(value):
        raise ValueError(f"a name of at most {NAME_CHARS_MAX} printable characters")
    return value


def _priority(value: str) -> int:
    if len(value) != 1 or value not in "0123456789":
        raise ValueError("a digit from 0 to 9")
    return int(value)


def _send_at(value: str) -> float:
    """Unix seconds of a time as RFC 3339 5.6 writes it; raises ValueError."""
    if not (found := _RFC_3339.fullmatch(value)):
        raise ValueError("a time like 2026-01-31T09:00:00+09:00")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    offset = timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0))
    if offset >= timedelta(days=1):
        raise ValueError("a time zone of less than 24 hours")
    leap, second = divmod(second, 60) if second == 60 else (0, second)  # RFC 3339 5.7
    if leap:
        second = 59
    zone = timezone(-offset if found[8] == "-" else offset)
    whole = datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp() + leap
    if whole <= 0:
        raise ValueError("a time after 1970")
    return whole + float(found[7] or 0)


def _expire(value: str) -> float:
    seconds = duration_s(value)
    if seconds <= 0:
        raise ValueError("a duration of more than nothing")
    return seconds


_FIELDS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "x-mta-tenant": ("tenant", _name),
    "x-mta-campaign": ("campaign", _name),
    "x-mta-pool": ("pool", _name),
    "x-mta-priority": ("priority", _priority),
    "x-mta-send-at": ("send_at_s", _send_at),
    "x-mta-expire": ("expire_s", _expire),
}


def _honour(found: Prepared, taken: list[re.Match[bytes]]) -> Refused | None:
    """Reads the X-MTA fields into `found`. One whose name we do not know is only taken off; so is an empty one."""
    seen: set[str] = set()
    for field in taken:
        name = field[1].decode("ascii")
        known = _FIELDS.get(name.lower())
        value = _text(field[2])
        if known is None or not value:
            continue
        attribute, read = known
        if attribute in seen:
            return Refused(replies.reply(550, "5.6.0", f"{name} is given twice"))
        seen.add(attribute)
        try:
            setattr(found, attribute, read(value))
        except (ValueError, OverflowError) as wrong:
            return Refused(replies.reply(550, "5.6.0", f"{name} cannot be understood: {wrong}"))
    return None


# --- values of fields


def _text(value: bytes) -> str:
    """A field's value without its folds and the blanks around it (RFC 5322 2.2.3)."""
    text = value.decode("utf-8", "replace")
    if "\n" in text:
        text = _FOLD.sub("", text)
    return text.strip(" \t\r\n")


@functools.lru_cache(maxsize=FROM_CACHE_ENTRIES_MAX)
def _domain_of_first(value: bytes) -> str:
    """The domain of the first address in a From field (RFC 5322 3.4), "" where none can be read."""
    text = _ENCODED_WORD.sub("", _text(value))
    if '"' in text or "(" in text or "\\" in text:
        text = _bare(text)
    for item in text.split(","):
        if "@" not in item:
            continue
        # A name may hold an @ of its own; what stands in angle brackets is the address.
        before, angle, rest = item.partition("<")
        address = rest.partition(">")[0] if angle else before.rpartition(":")[2].partition(";")[0]
        domain = address.rpartition("@")[2].strip()
        try:
            return routing_domain(domain)
        except ValueError:
            return ""
    return ""


def _bare(text: str) -> str:
    """Addresses without comments and with every quoted string emptied, so that only what has meaning is left."""
    kept, depth = [], 0
    for token in _ADDRESS_TOKEN.findall(text):
        if token == "(":
            depth += 1
        elif token == ")":
            depth = max(0, depth - 1)
        elif not depth:
            kept.append('""' if token.startswith('"') else token)
    return "".join(kept)


# --- the lines that we put on top


def message_id_header(unique: str, domain: str) -> bytes:
    """The Message-ID field for a message that came without one (RFC 6409 8.3)."""
    return f"Message-ID: <{unique}@{domain}>\r\n".encode("ascii")


@functools.lru_cache(TRACE_CACHE_ENTRIES_MAX)
def _trace_origin(
    hostname: str,
    helo: str,
    client: str,
    is_esmtp: bool,
    is_tls: bool,
    is_authenticated: bool,
    smtputf8: bool,
    hidden: bool,
) -> str:
    """A trace line up to the id: the same for all messages of a session."""
    protocol = "UTF8SMTP" if smtputf8 else "ESMTP" if is_esmtp else "SMTP"
    if is_esmtp:
        protocol += ("S" if is_tls else "") + ("A" if is_authenticated else "")
    literal = f"IPv6:{client}" if ":" in client else client
    origin = "" if hidden else f"from {helo} ([{literal}])\r\n\t"
    return f"Received: {origin}by {hostname} with {protocol} id "


def received_header(
    *,
    hostname: str,
    message_id: str,
    now_s: float,
    helo: str,
    client: str,
    is_esmtp: bool = True,
    is_tls: bool = False,
    is_authenticated: bool = False,
    smtputf8: bool = False,
    recipient: str = "",
    hidden: bool = False,
) -> bytes:
    """The trace line of this hop (RFC 5321 4.4, RFC 3848, RFC 6531 3.7.3).

    `client` is its IP address; `recipient` is named only where the message has no other; `hidden` leaves out who
    the client is, for listeners inside.
    """
    origin = _trace_origin(hostname, helo, client, is_esmtp, is_tls, is_authenticated, smtputf8, hidden)
    target = f"\r\n\tfor <{recipient}>" if recipient else ""
    line = f"{origin}{message_id}{target}; "
    return line.encode("utf-8") + mail_date(now_s) + b"\r\n"
