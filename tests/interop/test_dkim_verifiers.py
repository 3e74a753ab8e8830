"""Other people's verifiers accept what we sign, and nothing that was changed: dkimpy, and Perl's Mail::DKIM."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dkim
import pytest

from mta.signing.keys import SigningKey, key_of
from mta.signing.signature import complete, prepare
from mta.testing.mail_samples import mail_samples
from mta.testing.signing_keys import ed25519_pem, rsa_pem
from tests.interop.conftest import Tool, unpacked

MESSAGES = 352  # each of the eleven kinds of body thirty-two times
VERIFIER = Path(__file__).with_name("dkim_verifier.pl")
NOW_S = 1_795_316_246


@cache
def keys() -> tuple[SigningKey, SigningKey]:
    return key_of(rsa_pem(), "shop.test", "rsa"), key_of(ed25519_pem(), "shop.test", "ed")


def published(name: bytes, timeout: int = 5) -> bytes:
    """What dkimpy asks instead of the DNS."""
    records = {f"{key.selector}._domainkey.{key.domain}.".encode(): key.public_record().encode() for key in keys()}
    return records[name]


@cache
def signed_messages() -> list[bytes]:
    """Each with both signatures, the RSA one on top."""
    signed = []
    for content in mail_samples(MESSAGES):
        prepared = prepare(content, keys(), NOW_S)
        signed.append(complete(prepared, [one.key.sign(one.digest) for one in prepared]) + content)
    return signed


def tampered() -> Iterator[bytes]:
    """The messages with one word changed: by turns in the body's middle, in Subject, and by a second From on top."""
    for number, message in enumerate(signed_messages()):
        head, _, body = message.partition(b"\r\n\r\n")
        if number % 3 == 0 and body.strip():
            at = len(body.rstrip()) // 2
            while body[at : at + 1].isspace():
                at += 1
            yield head + b"\r\n\r\n" + body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        elif number % 3 == 1:
            yield b"From: Bank <bank@example.test>\r\n" + message
        else:
            at = head.lower().index(b"\r\nmessage-id:")
            at = head.index(b"@", at)
            yield message[:at] + b"x" + message[at:]


def dkimpy_results(messages: list[bytes]) -> list[tuple[bool, bool]]:
    return [(dkimpy_takes(message, 0), dkimpy_takes(message, 1)) for message in messages]


def dkimpy_takes(message: bytes, number: int) -> bool:
    try:
        return dkim.DKIM(message).verify(number, published)
    except dkim.ValidationError:
        return False


def perl() -> Tool:
    """Perl that knows Mail::DKIM: the system's, else Debian's packages unpacked in the cache."""
    found = shutil.which("perl")
    if found is None:
        pytest.fail("Mail::DKIM needs perl, which is not installed: install perl")
    system = Tool([found], os.environ)
    if system.run("-MMail::DKIM::Verifier", "-e", "1").returncode == 0:
        return system
    root = unpacked("libmail-dkim-perl")
    modules = [root / "usr/share/perl5", *sorted(root.glob("usr/lib/*/perl5/*"))]
    libraries = sorted(root.glob("usr/lib/*-linux-gnu*"))
    return Tool(
        [found],
        os.environ | {"PERL5LIB": ":".join(map(str, modules)), "LD_LIBRARY_PATH": ":".join(map(str, libraries))},
    )


def perl_results(messages: list[bytes], folder: Path) -> list[list[str]]:
    """For each message what Mail::DKIM says of each signature; one process for all."""
    mail = folder / "mail"
    mail.mkdir()
    for number, message in enumerate(messages):
        (mail / f"{number:05}").write_bytes(message)
    records = "".join(f"{key.selector}._domainkey.{key.domain}\t{key.public_record()}\n" for key in keys())
    (folder / "keys").write_text(records, "ascii")

    done: subprocess.CompletedProcess[str] = perl().run(str(VERIFIER), str(folder / "keys"), str(mail))

    assert (done.returncode, done.stderr) == (0, "")
    return [line.split("\t")[1:] for line in done.stdout.splitlines()]


def test_dkimpy() -> None:
    """dkimpy finds the RSA and the Ed25519 signature of every message good."""
    assert dkimpy_results(signed_messages()) == [(True, True)] * MESSAGES


def test_dkimpy_tampering() -> None:
    """dkimpy finds neither signature good where a byte of the body, a signed field, or the number of From changed."""
    assert dkimpy_results(list(tampered())) == [(False, False)] * MESSAGES


def test_mail_dkim(tmp_path: Path) -> None:
    """Mail::DKIM finds the RSA signature of every message good; Ed25519, which it does not know, does no harm."""
    results = perl_results(signed_messages(), tmp_path)

    assert [result[0] for result in results] == ["rsa-sha256:pass"] * MESSAGES
    assert all(len(result) == 2 and not result[1].endswith(":fail") for result in results)


def test_mail_dkim_tampering(tmp_path: Path) -> None:
    """Mail::DKIM finds the RSA signature bad after the same changes."""
    results = perl_results(list(tampered()), tmp_path)

    assert [result[0] for result in results] == ["rsa-sha256:fail"] * MESSAGES
