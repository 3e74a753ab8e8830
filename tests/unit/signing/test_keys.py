"""Key files: what is read, what is refused and how that is said, and that a key signs what others can check."""

import base64
import hashlib
import os
from pathlib import Path

import dkim.crypto
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from mta.signing.keys import KEY_FILE_BYTES_MAX, KeyFileError, SigningKey, key_of, load_key
from mta.testing.signing_keys import ed25519_pem, rsa_pem

DIGEST = hashlib.sha256(b"a message").digest()
PKCS8 = Encoding.PEM, PrivateFormat.PKCS8


def loaded(folder: Path, pem: bytes) -> SigningKey:
    path = folder / "key.pem"
    path.write_bytes(pem)
    return load_key(path, "shop.test", "s1")


def refusal(folder: Path, pem: bytes) -> str:
    with pytest.raises(KeyFileError) as refused:
        loaded(folder, pem)
    return str(refused.value)


def p_tag(key: SigningKey) -> bytes:
    return base64.b64decode(key.public_record().partition("p=")[2])


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("bits", [1024, 2048])
def test_rsa(tmp_path: Path, bits: int, form: PrivateFormat) -> None:
    """An RSA key in either form is read, and its published half confirms what it signs."""
    key = loaded(tmp_path, rsa_pem(bits, form))

    signature = key.sign(DIGEST)

    assert (key.domain, key.selector, key.algorithm) == ("shop.test", "s1", "rsa-sha256")
    assert key.public_record().startswith("v=DKIM1; k=rsa; p=")
    public = dkim.crypto.parse_public_key(p_tag(key))
    assert dkim.crypto.RSASSA_PKCS1_v1_5_verify(hashlib.sha256(b"a message"), signature, public)
    assert key.confirms(signature, DIGEST)
    assert not key.confirms(signature, bytes(32))


def test_quick_keys(tmp_path: Path) -> None:
    """What signs in half a millisecond: Ed25519, and RSA up to 2048 bits."""
    quick = [loaded(tmp_path, pem).is_quick for pem in (ed25519_pem(), rsa_pem(1024), rsa_pem(2048), rsa_pem(3072))]

    assert quick == [True, True, True, False]


def test_ed25519(tmp_path: Path) -> None:
    """An Ed25519 key publishes its 32 bytes and signs the digest itself (RFC 8463)."""
    key = loaded(tmp_path, ed25519_pem())

    signature = key.sign(DIGEST)

    assert key.algorithm == "ed25519-sha256"
    assert key.public_record().startswith("v=DKIM1; k=ed25519; p=")
    Ed25519PublicKey.from_public_bytes(p_tag(key)).verify(signature, DIGEST)
    assert key.confirms(signature, DIGEST)
    assert not key.confirms(signature, bytes(32))


def test_the_law_s_key() -> None:
    """The key of RFC 8463 A.2 has the record of RFC 8463 A.2."""
    seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    der = bytes.fromhex("302e020100300506032b657004220420") + seed
    pem = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END PRIVATE KEY-----\n"

    record = key_of(pem).public_record()

    assert record == "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def test_record_fits_openssl() -> None:
    """An RSA record holds the key as `openssl pkey -pubout` writes it (RFC 6376 3.6.1)."""
    key = key_of(rsa_pem())

    public = load_der_public_key(p_tag(key))

    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 2048


def test_key_id() -> None:
    """The id follows from the file's text alone."""
    pem, other = ed25519_pem(), ed25519_pem()

    assert key_of(pem, "a.test", "s").key_id == key_of(pem, "b.test", "t").key_id == hashlib.sha256(pem).digest()[:16]
    assert key_of(pem).key_id != key_of(other).key_id


def test_key_is_not_shown() -> None:
    """What a traceback prints of a key holds nothing secret."""
    pem = ed25519_pem()

    assert repr(key_of(pem, "shop.test", "s1")) == "SigningKey(s1._domainkey.shop.test, ed25519-sha256)"


def test_read_key_signs_without_its_file(tmp_path: Path) -> None:
    """A key that was read keeps its text and needs the file no more."""
    key = loaded(tmp_path, rsa_pem(1024))
    (tmp_path / "key.pem").unlink()

    assert key_of(key.pem).confirms(key.sign(DIGEST), DIGEST)


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (b"", "is not a PEM file"),
        (b"\x00\xff" * 100, "is not a PEM file"),
        (b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n", "cannot be understood"),
        (b"-----BEGIN PRIVATE KEY-----\n", "cannot be understood"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nMA==\n-----END RSA PRIVATE KEY-----\n", "cannot be understood"),
    ],
)
def test_no_key(tmp_path: Path, pem: bytes, said: str) -> None:
    """A file that holds no private key is refused, with its name and what is wrong."""
    text = refusal(tmp_path, pem)

    assert text.startswith(f"{tmp_path / 'key.pem'}: ")
    assert said in text


def test_public_key(tmp_path: Path) -> None:
    """The public half by mistake is told as that."""
    private = load_pem_private_key(rsa_pem(1024), None)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    assert "holds no private key" in refusal(tmp_path, pem)


def test_encrypted_key(tmp_path: Path) -> None:
    """An encrypted key is refused with the command that takes its passphrase off."""
    private = load_pem_private_key(rsa_pem(1024), None)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        pem = private.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))  # pyright: ignore

        text = refusal(tmp_path, pem)

        assert "encrypted" in text
        assert "openssl pkey" in text


def test_other_kinds(tmp_path: Path) -> None:
    """Keys that mail is not signed with are refused."""
    for private in (ec.generate_private_key(ec.SECP256R1()), dsa.generate_private_key(1024)):
        assert "neither RSA nor Ed25519" in refusal(tmp_path, private.private_bytes(*PKCS8, NoEncryption()))


WEAK = b"""-----BEGIN RSA PRIVATE KEY-----
MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu
KUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQJAIJLixBy2qpFoS4DSmoEm
o3qGy0t6z09AIJtH+5OeRV1be+N4cDYJKffGzDa88vQENZiRm0GRq6a+HPGQMd2k
TQIhAKMSvzIBnni7ot/OSie2TmJLY4SwTQAevXysE2RbFDYdAiEBCUEaRQnMnbp7
9mxDXDf6AU0cN/RPBjb9qSHDcWZHGzUCIG2Es59z8ugGrDY+pxLQnwfotadxd+Uy
v/Ow5T0q5gIJAiEAyS4RaI9YG8EWx/2w0T67ZUVAw8eOMB6BIUg0Xcu+3okCIBOs
/5OiPgoTdSy7bcF9IGpSE8ZgGKzgYQVZeN97YE00
-----END RSA PRIVATE KEY-----
"""
"""512 bits."""


def test_weak_key(tmp_path: Path) -> None:
    """An RSA key below 1024 bits is refused, as every receiver would (RFC 8301 3.2)."""
    assert "512 bits" in refusal(tmp_path, WEAK)


def test_huge_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An RSA key that receivers need not check is refused (RFC 8301 3.2)."""
    monkeypatch.setattr("mta.signing.keys.RSA_BITS_MAX", 1024)

    assert "2048 bits" in refusal(tmp_path, rsa_pem(2048))


def test_damaged_key(tmp_path: Path) -> None:
    """A key whose numbers do not belong together is found out before it signs mail."""
    private = load_pem_private_key(rsa_pem(1024), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    good = private.private_numbers()
    mixed = rsa.RSAPrivateNumbers(
        good.p, good.q, good.d + 2, good.dmp1 + 2, good.dmq1, good.iqmp, good.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)

    text = refusal(tmp_path, mixed.private_bytes(*PKCS8, NoEncryption()))

    assert "damaged" in text or "cannot be understood" in text


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is told, with how to make one."""
    with pytest.raises(KeyFileError, match=r"absent\.pem: there is no such file; `mta dkim keygen` makes a key"):
        load_key(tmp_path / "absent.pem", "shop.test", "s1")


def test_not_a_file(tmp_path: Path) -> None:
    """A folder or a pipe is refused at once; a pipe would keep the server waiting."""
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(KeyFileError, match="is not a file"):
            load_key(path, "shop.test", "s1")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the server's user may not read is told as that."""

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)

    assert "cannot be read: Permission denied" in refusal(tmp_path, rsa_pem(1024))


def test_large_file(tmp_path: Path) -> None:
    """Another file by mistake is not read whole."""
    assert "no key is" in refusal(tmp_path, b"-----BEGIN PRIVATE KEY-----\n" + b"x" * KEY_FILE_BYTES_MAX)


def test_key_of_nonsense() -> None:
    """Of a text that is no key it is told what is wrong, without a file."""
    with pytest.raises(KeyFileError, match=r"^holds no private key"):
        key_of(b"-----BEGIN CERTIFICATE-----")
