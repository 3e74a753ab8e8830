"""Published keys: does what stands in the DNS fit the key that signs? Pure: the records come in as text.

A receiver that finds anything wrong with the record treats the mail as unsigned, so nearly right is wrong.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

import dkim
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mta.signing.keys import SigningKey
from mta.signing.signature import complete, prepare

SHOWN_CHARS_MAX = 60  # of a strange record: enough to recognise it by
_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*([^;]*?)\s*", re.DOTALL)
_SAMPLE_TIME_S = 0
_SAMPLE = b"From: postmaster@%s\r\nSubject: a sample\r\n\r\nIs this  signature good?\r\n"


def record_name(key: SigningKey) -> str:
    """Where the key's record is, without a dot at the end (RFC 6376 3.6.2.1)."""
    return f"{key.selector}._domainkey.{key.domain}"


def faults(key: SigningKey, records: Sequence[str]) -> list[str]:
    """What is wrong with the TXT records that were found for the key, each with its strings joined; [] for nothing."""
    if not records:
        return ["there is no TXT record; `mta dkim txt` shows what to publish"]
    if len(records) > 1:
        return [
            f"there are {len(records)} TXT records, and receivers may take any of them: leave one"
        ]  # RFC 6376 3.6.2.2
    (record,) = records
    tags = read_tags(record)
    if tags is None or "p" not in tags:
        return [f"the record is no key: {shown(record)!r}"]
    found = [*_key_faults(key, tags), *_flag_faults(record, tags)]
    if not found and not accepts(key, record):
        found.append("dkimpy does not accept a sample that the key signed")
    return found


def read_tags(record: str) -> dict[str, str] | None:
    """The tags of a record (RFC 6376 3.2); None where it is no list of tags, or has one of them twice."""
    tags: dict[str, str] = {}
    for part in record.strip().removesuffix(";").split(";"):
        match = _TAG.fullmatch(part)
        if match is None or match[1] in tags:
            return None
        tags[match[1]] = match[2]
    return tags


def accepts(key: SigningKey, record: str) -> bool:
    """Whether dkimpy, with this record, finds a sample good that the key signs."""
    content = _SAMPLE % key.domain.encode("ascii")
    prepared = prepare(content, [key], _SAMPLE_TIME_S)
    message = complete(prepared, [key.sign(prepared[0].digest)]) + content

    def published(name: bytes, timeout: int = 5) -> bytes:
        return record.encode("utf-8")

    try:
        return dkim.verify(message, dnsfunc=published)
    except Exception:  # noqa: BLE001 - a strange record must not end the look at the others
        return False


def shown(record: str) -> str:
    """A record as far as it is told."""
    return record if len(record) <= SHOWN_CHARS_MAX else record[:SHOWN_CHARS_MAX] + "..."


def _key_faults(key: SigningKey, tags: Mapping[str, str]) -> list[str]:
    kind, data = tags.get("k", "rsa"), re.sub(r"\s+", "", tags["p"])
    expected_kind = "rsa" if key.algorithm == "rsa-sha256" else "ed25519"
    if not data:
        return ["the key is revoked: p= is empty"]
    if kind != expected_kind:
        return [f"k={kind} is published, and the key that signs is {expected_kind}"]
    try:
        public = base64.b64decode(data, validate=True)
    except binascii.Error:
        return ["p= is not base64: was it cut when it was entered?"]
    own = read_tags(key.public_record()) or {}
    if public == base64.b64decode(own["p"]) or _same_rsa_key(public, base64.b64decode(own["p"])):
        return []
    return ["another key is published"]


def _same_rsa_key(one: bytes, other: bytes) -> bool:
    """Whether both are the same key; RFC 6376 3.6.1 allows a bare RSAPublicKey, which few publish."""
    try:
        first, second = load_der_public_key(one), load_der_public_key(other)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return (
        isinstance(first, RSAPublicKey)
        and isinstance(second, RSAPublicKey)
        and first.public_numbers() == second.public_numbers()
    )


def _flag_faults(record: str, tags: Mapping[str, str]) -> list[str]:
    """What the other tags of RFC 6376 3.6.1 forbid."""
    found: list[str] = []
    if "v" in tags and (tags["v"] != "DKIM1" or not re.match(r"\s*v\s*=", record)):
        found.append("the record must begin with v=DKIM1")
    if "h" in tags and "sha256" not in _listed(tags["h"]):
        found.append(f"h={tags['h']} forbids SHA-256")
    if "s" in tags and not {"*", "email"} & set(_listed(tags["s"])):
        found.append(f"s={tags['s']} says that the key is not for mail")
    if "y" in _listed(tags.get("t", "")):
        found.append("t=y says that this is a test: receivers treat the mail as unsigned")
    return found


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(":")]
