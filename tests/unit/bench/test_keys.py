"""Keys for the occasion: a file that others cannot read, and the record that fits it."""

from pathlib import Path

import dkim
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from bench.keys import make_key

CONTENT = b"From: <a@load.test>\r\nSubject: x\r\n\r\nbody\r\n"


def test_a_signature_of_the_key_fits_its_record(tmp_path: Path):
    """An independent verifier takes what an independent signer made with it."""
    key = make_key(tmp_path, "load.test", "s1")
    signature = dkim.sign(CONTENT, b"s1", b"load.test", key.path.read_bytes())

    assert dkim.verify(signature + CONTENT, dnsfunc=lambda name, timeout=5: key.record.encode())


def test_nobody_else_may_read_it(tmp_path: Path):
    """And a key that is there is not written over."""
    key = make_key(tmp_path, "load.test", bits=1_024)

    assert key.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        make_key(tmp_path, "load.test")


def test_the_zone_holds_the_record_in_pieces(tmp_path: Path):
    """A TXT record is made of strings of at most 255 bytes; together they are the record."""
    key = make_key(tmp_path, "load.test", "s1")

    (name, records), *others = key.zone.items()
    texts = records["TXT"]
    assert isinstance(texts, list)
    rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, texts[0])

    assert not others
    assert name == "s1._domainkey.load.test"
    assert b"".join(rdata.strings).decode() == key.record  # pyright: ignore[reportAttributeAccessIssue] - a TXT's
    assert key.record.startswith("v=DKIM1; k=rsa; p=MII")
