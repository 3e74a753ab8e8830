"""Quick answers to plain questions: MX, A and AAAA of a name that has them, from bytes to bytes.

For the toy DNS under load: twenty thousand domains are asked for within seconds, on the cores that are measured.
Whatever is not plain (aliases, names that are not there, long answers, odd questions) gets None, and is left to
the slow way.
"""

import ipaddress
import struct
from typing import NamedTuple

UDP_BYTES_PLAIN = 512  # RFC 1035 4.2.1
OUR_PAYLOAD_BYTES = 1_232
LABEL_BYTES_MAX = 63  # RFC 1035 2.3.4; longer ones are compressed or nonsense
HEADER = struct.Struct("!HHHHHH")  # RFC 1035 4.1.1
_TAIL = struct.Struct("!HH")  # type and class of a question
_OPT = struct.Struct("!BHHIH")  # RFC 6891 6.1.2: root, type, payload, flags, length
_RECORD = struct.Struct("!HHHIH")  # a pointer to the question's name, type, class, TTL, length
_FLAGS_OPCODE = 0xF800  # QR and opcode: 0 in a plain query
_FLAG_RD = 0x0100
_FLAGS_ANSWER = 0x8080  # QR and RA
_CLASS_IN = 1
_TYPE_OPT = 41
_POINTER = 0xC00C  # to byte 12, where the question begins
KINDS = {1: "A", 15: "MX", 28: "AAAA"}
_NUMBERS = {kind: number for number, kind in KINDS.items()}


class Question(NamedTuple):
    """A plain query."""

    number: int
    flags: int
    name: str
    """In small letters, without the final dot."""
    kind: str
    wire: bytes
    """The question as it was asked, to be repeated."""
    payload_bytes: int
    """How long an answer may be."""
    has_edns: bool


def read(wire: bytes) -> Question | None:
    """The question of a query; None where it is not a plain one."""
    if len(wire) < HEADER.size + 5:
        return None
    number, flags, questions, answers, authorities, more = HEADER.unpack_from(wire)
    if flags & _FLAGS_OPCODE or questions != 1 or answers or authorities or more > 1:
        return None
    labels, at = [], HEADER.size
    while (length := wire[at]) != 0:
        if length > LABEL_BYTES_MAX or at + length + 1 >= len(wire):
            return None
        labels.append(wire[at + 1 : at + 1 + length])
        at += length + 1
    end = at + 1 + _TAIL.size
    if not labels or len(wire) < end:
        return None
    kind_number, class_number = _TAIL.unpack_from(wire, at + 1)
    kind = KINDS.get(kind_number)
    name = b".".join(labels)
    if kind is None or class_number != _CLASS_IN or not name.isascii() or b"\\" in name:
        return None
    payload_bytes = UDP_BYTES_PLAIN
    if more:
        if len(wire) < end + _OPT.size:
            return None
        root, opt, payload, _, _ = _OPT.unpack_from(wire, end)
        if root or opt != _TYPE_OPT:
            return None
        payload_bytes = max(payload, UDP_BYTES_PLAIN)
    elif len(wire) > end:
        return None
    question = wire[HEADER.size : end]
    return Question(number, flags, name.decode().lower(), kind, question, payload_bytes, bool(more))


def write(question: Question, data: list[str], ttl_s: int) -> bytes | None:
    """The answer, with the data as in a zone file; None where it is too long or cannot be written."""
    kind = _NUMBERS[question.kind]
    parts = [b"", question.wire]
    for text in data:
        rdata = _rdata(question.kind, text)
        if rdata is None:
            return None
        parts.append(_RECORD.pack(_POINTER, kind, _CLASS_IN, ttl_s, len(rdata)) + rdata)
    if question.has_edns:
        parts.append(_OPT.pack(0, _TYPE_OPT, OUR_PAYLOAD_BYTES, 0, 0))
    flags = _FLAGS_ANSWER | question.flags & _FLAG_RD
    parts[0] = HEADER.pack(question.number, flags, 1, len(data), 0, question.has_edns)
    answer = b"".join(parts)
    return answer if len(answer) <= question.payload_bytes else None


def _rdata(kind: str, text: str) -> bytes | None:
    try:
        if kind != "MX":
            return ipaddress.ip_address(text).packed
        preference, host = text.split()
        return struct.pack("!H", int(preference)) + _name(host)
    except (ValueError, struct.error):
        return None


def _name(host: str) -> bytes:
    if "\\" in host:
        raise ValueError("an escaped name is for the slow way")
    wire = bytearray()
    for label in host.removesuffix(".").split(".") if host != "." else []:
        encoded = label.encode("ascii")
        if not 0 < len(encoded) <= LABEL_BYTES_MAX:
            raise ValueError("not a label")
        wire.append(len(encoded))
        wire += encoded
    return bytes(wire) + b"\0"
