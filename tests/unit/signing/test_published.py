"""Records in the DNS: which of them a receiver takes for the key, and how the others are told apart."""

import base64
from functools import cache

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from mta.signing.keys import SigningKey, key_of
from mta.signing.published import SHOWN_CHARS_MAX, accepts, faults, read_tags, record_name, shown
from mta.testing.signing_keys import ed25519_pem, rsa_pem


@cache
def key(kind: str = "rsa", number: int = 0) -> SigningKey:
    pem = rsa_pem(number=number) if kind == "rsa" else ed25519_pem()
    return key_of(pem, "shop.test", f"s{number}")


def p_tag(of: SigningKey) -> str:
    return of.public_record().partition("p=")[2]


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_own_record(kind: str) -> None:
    """What `mta dkim txt` shows is right."""
    assert record_name(key(kind)) == "s0._domainkey.shop.test"
    assert faults(key(kind), [key(kind).public_record()]) == []


@pytest.mark.parametrize(
    "form",
    [
        "p={p}",
        "v=DKIM1;p={p};",
        " v = DKIM1 ; k = rsa ; p = {p} ; ",
        "v=DKIM1; h=sha1:sha256; s=email; t=s; n=a note; p={p}",
    ],
)
def test_other_forms(form: str) -> None:
    """What else RFC 6376 3.6.1 allows is right too."""
    assert faults(key(), [form.format(p=p_tag(key()))]) == []


def test_blanks_inside_the_key() -> None:
    """Blanks between the strings of a record do no harm."""
    p = p_tag(key())

    assert faults(key(), [f"v=DKIM1; p={p[:100]} {p[100:]}"]) == []


def test_bare_rsa_key() -> None:
    """The form that RFC 6376 3.6.1 names, a bare RSAPublicKey, is the same key."""
    bare = load_pem_private_key(key().pem, None).public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)

    found = faults(key(), [f"v=DKIM1; p={base64.b64encode(bare).decode()}"])

    assert "another key is published" not in found


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "there is no TXT record; `mta dkim txt` shows what to publish"),
        (
            ["v=DKIM1; p={p}", "v=DKIM1; p={p}"],
            "there are 2 TXT records, and receivers may take any of them: leave one",
        ),
        (["v=spf1 -all"], "the record is no key: 'v=spf1 -all'"),
        (["v=DKIM1; k=rsa"], "the record is no key: 'v=DKIM1; k=rsa'"),
        (["v=DKIM1; p={p}; p={p}"], "the record is no key: "),
        ([""], "the record is no key: ''"),
        (["v=DKIM1; p="], "the key is revoked: p= is empty"),
        (["v=DKIM1; k=ed25519; p={p}"], "k=ed25519 is published, and the key that signs is rsa"),
        (["v=DKIM1; p={other}"], "another key is published"),
        (["v=DKIM1; p={ed25519}"], "another key is published"),
        (["v=DKIM1; p={p}A"], "p= is not base64: was it cut when it was entered?"),
        (["v=DKIM2; p={p}"], "the record must begin with v=DKIM1"),
        (["k=rsa; v=DKIM1; p={p}"], "the record must begin with v=DKIM1"),
        (["v=DKIM1; h=sha1; p={p}"], "h=sha1 forbids SHA-256"),
        (["v=DKIM1; s=tlsrpt; p={p}"], "s=tlsrpt says that the key is not for mail"),
        (["v=DKIM1; t=y; p={p}"], "t=y says that this is a test: receivers treat the mail as unsigned"),
        (["v=DKIM1; t=s:y; p={p}"], "t=y says that this is a test: receivers treat the mail as unsigned"),
    ],
)
def test_faults(records: list[str], said: str) -> None:
    """Each thing that is wrong is told in a sentence."""
    texts = {"p": p_tag(key()), "other": p_tag(key("rsa", 1)), "ed25519": p_tag(key("ed25519"))}

    (found,) = faults(key(), [record.format(**texts) for record in records])

    assert found.startswith(said)


def test_several_faults() -> None:
    """All that is wrong is told at once."""
    found = faults(key(), [f"v=DKIM1; t=y; h=sha1; s=x; p={p_tag(key('rsa', 1))}"])

    assert len(found) == 4


def test_wrong_kind_the_other_way() -> None:
    """A record without k= is an RSA key's."""
    assert faults(key("ed25519"), [f"v=DKIM1; p={p_tag(key('ed25519'))}"]) == [
        "k=rsa is published, and the key that signs is ed25519"
    ]


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_sample(kind: str) -> None:
    """dkimpy takes the sample with the right record only."""
    assert accepts(key(kind), key(kind).public_record())
    assert not accepts(key(kind), key(kind, 1).public_record())


@given(st.text(max_size=60) | st.text("vkptsh=; :DKIM1yA", max_size=60))
def test_any_record(record: str) -> None:
    """Whatever stands in the DNS is a fault that can be told, never an exception."""
    assert faults(key("ed25519"), [record])
    read_tags(record)
    assert isinstance(accepts(key("ed25519"), record), bool)


def test_long_records_are_cut() -> None:
    """A strange record is told as far as it is recognised by."""
    assert len(shown("x" * 1000)) == SHOWN_CHARS_MAX + 3
    assert shown("short") == "short"
