"""The DKIM-Signature field: what is named in it, how it is written, and that it verifies."""

import hashlib
import re
from base64 import b64encode
from functools import cache

import dkim
import pytest

from mta.signing.keys import SigningKey, key_of
from mta.signing.signature import FIELD_COUNT_MAX, SIGNED_FIELDS, complete, prepare
from mta.testing.mail_samples import mail_samples
from mta.testing.signing_keys import ed25519_pem, rsa_pem

NOW_S = 1_795_316_246.9
MAIL = (
    b"Received: from a by b; now\r\n"
    b"From: Shop <news@shop.test>\r\n"
    b"To: reader@example.test\r\n"
    b"Subject: one\r\n two\r\n"
    b"Message-ID: <1@shop.test>\r\n"
    b"X-Mailer: hand\r\n"
    b"\r\n"
    b"Hello,  reader\r\n\r\n"
)


@cache
def rsa_key() -> SigningKey:
    return key_of(rsa_pem(), "shop.test", "r1")


@cache
def ed25519_key(domain: str = "shop.test", selector: str = "e1") -> SigningKey:
    return key_of(ed25519_pem(), domain, selector)


def signed(content: bytes, *keys: SigningKey) -> bytes:
    prepared = prepare(content, keys, NOW_S)
    return complete(prepared, [one.key.sign(one.digest) for one in prepared])


def verifies(message: bytes, *keys: SigningKey, number: int = 0) -> bool:
    records = {f"{key.selector}._domainkey.{key.domain}.".encode(): key.public_record().encode() for key in keys}
    try:
        return dkim.DKIM(message).verify(number, lambda name, timeout=5: records.get(name))
    except dkim.DKIMException:
        return False


def tags(field: bytes) -> dict[str, str]:
    """The tag list of one DKIM-Signature field, without blanks."""
    value = re.sub(r"\s+", "", field.decode("ascii").partition(":")[2])
    return {name: text for name, _, text in (part.partition("=") for part in value.split(";"))}


def h_tag(content: bytes) -> list[str]:
    return tags(signed(content, ed25519_key()))["h"].split(":")


def test_tags() -> None:
    """The field has the tags of RFC 6376 3.5 that are needed, and neither l= nor x=."""
    field = signed(MAIL, ed25519_key())

    found = tags(field)
    assert list(found) == ["v", "a", "c", "d", "s", "t", "h", "bh", "b"]
    assert found | {"b": "", "bh": ""} == {
        "v": "1",
        "a": "ed25519-sha256",
        "c": "relaxed/relaxed",
        "d": "shop.test",
        "s": "e1",
        "t": "1795316246",
        "h": "message-id:subject:to:from:from",
        "bh": "",
        "b": "",
    }
    assert found["bh"] == b64encode(hashlib.sha256(b"Hello, reader\r\n").digest()).decode()


def test_what_is_hashed() -> None:
    """The key signs the named fields and then the field itself with an empty b= (RFC 6376 3.7)."""
    (prepared,) = prepare(MAIL, [ed25519_key()], NOW_S)

    own = prepared.head.partition(b": ")[2].replace(b"\r\n\t", b" ")
    text = (
        b"message-id:<1@shop.test>\r\nsubject:one two\r\nto:reader@example.test\r\n"
        b"from:Shop <news@shop.test>\r\ndkim-signature:" + own
    )
    assert prepared.head.endswith(b"b=")
    assert prepared.digest == hashlib.sha256(text).digest()


def test_several_keys() -> None:
    """Every key makes a field, in the order of the keys, and all of them verify."""
    keys = rsa_key(), ed25519_key(), ed25519_key("esp.test", "e2")

    message = signed(MAIL, *keys) + MAIL

    assert [tags(field)["s"] for field in re.split(rb"\r\n(?=\S)", message)[:3]] == ["r1", "e1", "e2"]
    assert [verifies(message, *keys, number=number) for number in range(3)] == [True, True, True]


def test_no_key() -> None:
    """Without a key there is nothing to sign and nothing to put on top."""
    assert prepare(MAIL, [], NOW_S) == []
    assert complete([], []) == b""


def test_a_signature_short() -> None:
    """A missing signature is a bug, not a message with one field less."""
    prepared = prepare(MAIL, [ed25519_key()], NOW_S)

    with pytest.raises(ValueError):
        complete(prepared, [])


@pytest.mark.parametrize("content", mail_samples(60, seed=2), ids=range(60))
def test_samples(content: bytes) -> None:
    """Whatever an application writes verifies, and the field keeps to 78 characters a line."""
    field = signed(content, ed25519_key())

    assert verifies(field + content, ed25519_key())
    assert max(len(line) for line in field.split(b"\r\n")) <= 78
    assert field.isascii()
    assert field.endswith(b"\r\n")


@pytest.mark.parametrize(
    "content",
    [
        b"From: a@shop.test\r\n",
        b"From: a@shop.test\r\n\r\n",
        b"From: a@shop.test\r\n\r\n\r\n\r\n",
        b"From: a@shop.test\r\n\r\nno end",
        b"From: a@shop.test\r\nSubject: \r\n\r\nx\r\n",
        b"From: a@shop.test\r\nSubject:\r\n \r\n\t\r\n\r\nx\r\n",
        b"From:a@shop.test\r\nFROM:\tb@shop.test\r\n\r\nx\r\n",
        b"From: a@shop.test\r\nSubject: " + b"x \r\n " * 2_000 + b"\r\n\r\nx\r\n",
        b"From: a@shop.test\r\n" + b"To: a@b.test\r\n" * 200 + b"\r\nx\r\n",
        b"From: a@shop.test\r\nDKIM-Signature: v=1; a=rsa-sha256; b=; bh=\r\n\r\nx\r\n",
    ],
    ids=lambda content: repr(content[:60]),
)
def test_odd_messages(content: bytes) -> None:
    """Messages at the edge of what a message is verify too."""
    assert verifies(signed(content, ed25519_key()) + content, ed25519_key())


@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"\r\nbody", b"no header at all", b"Subject: x\r\n\r\n", b"x\r\n\r\n"]
)
def test_no_from(content: bytes) -> None:
    """Without a From its absence is signed: one that is added later breaks the signature."""
    assert h_tag(content)[-1] == "from"
    assert h_tag(content).count("from") == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Hello", b"Hallo"),
        (b"reader\r\n\r\n", b"reader\r\nx\r\n"),
        (b"From:", b"From: other@evil.test\r\nFrom:"),
        (b"X-Mailer:", b"From: other@evil.test\r\nX-Mailer:"),
        (b"one\r\n two", b"one\r\n two\r\n three"),
        (b"<1@", b"<2@"),
        (b"t=1795316246", b"t=1795316247"),
        (b"d=shop.test", b"d=esp.test"),
    ],
)
def test_a_change_is_noticed(before: bytes, after: bytes) -> None:
    """What is changed in body, signed fields or the field itself breaks the signature."""
    message = signed(MAIL, ed25519_key()) + MAIL
    assert verifies(message, ed25519_key())
    assert before in message

    assert not verifies(message.replace(before, after, 1), ed25519_key())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Subject: one\r\n two", b"SUBJECT:  one two "),
        (b"Hello,  reader\r\n\r\n", b"Hello, reader  \r\n \r\n\r\n"),
        (b"Received:", b"Received: from b by c; later\r\nReceived:"),
        (b"X-Mailer: hand", b"X-Mailer: machine"),
    ],
)
def test_a_harmless_change(before: bytes, after: bytes) -> None:
    """Blanks, folds, case of names and fields that are not signed may change on the way."""
    message = signed(MAIL, ed25519_key()) + MAIL
    assert before in message

    assert verifies(message.replace(before, after, 1), ed25519_key())


@pytest.mark.parametrize("name", SIGNED_FIELDS)
def test_signed_fields(name: str) -> None:
    """Each field on the list is signed, in any spelling and also with a blank before its colon."""
    for spelling in (name, name.lower(), name.upper(), name.swapcase(), name + " ", name + "\t"):
        assert name.lower() in h_tag(f"{spelling}: x\r\n\r\n".encode())


@pytest.mark.parametrize(
    "name", ["Received", "Return-Path", "Bcc", "X-Mailer", "DKIM-Signature", "Delivered-To", "", "From x"]
)
def test_fields_left_out(name: str) -> None:
    """What is written on the way, and what nobody reads, is not signed."""
    assert h_tag(f"Subject: x\r\n{name}: x\r\n\r\n".encode()) == ["subject", "from"]


def test_what_providers_ask() -> None:
    """One-click unsubscribe counts at Gmail and Yahoo only when both of its fields are signed (RFC 8058 4)."""
    assert {"List-Unsubscribe", "List-Unsubscribe-Post", "Feedback-ID"} <= set(SIGNED_FIELDS)


def test_many_of_one_name() -> None:
    """Of a field that comes a thousand times the last ones are signed."""
    content = b"From: a@shop.test\r\n" + b"".join(b"To: r%d@b.test\r\n" % each for each in range(1000)) + b"\r\nx\r\n"
    message = signed(content, ed25519_key()) + content

    assert h_tag(content).count("to") == FIELD_COUNT_MAX
    assert verifies(message.replace(b"r0@", b"r9@", 1), ed25519_key())
    assert not verifies(message.replace(b"r999@", b"r9@", 1), ed25519_key())


def test_long_names() -> None:
    """A domain and a selector of full length fit: a tag that is longer than a line gets a line of its own."""
    key = ed25519_key(".".join(["d" * 60] * 4), ".".join(["s" * 60] * 3))
    field = signed(MAIL, key)

    assert [line.partition(b"=")[0] for line in field.split(b"\r\n") if len(line) > 78] == [b"\td", b"\ts"]
    assert tags(field)["d"] == key.domain
    assert verifies(field + MAIL, key)
