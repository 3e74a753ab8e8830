"""Signing keys: private keys in PEM files, the algorithm that follows from them, and what goes into the DNS.

A key is checked when it is read, by a signature that its own public half must confirm. What stays in memory is the
file's text: only a process that signs makes the key of it, at its first signature, so that a worker may know a
hundred thousand keys.
"""

import base64
import binascii
import hashlib
import stat
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

RSA_BITS_MIN = 1024  # RFC 8301 3.2: a signer must not use less, and no verifier takes it
RSA_BITS_MAX = 4096  # RFC 8301 3.2: a verifier need not check more
RSA_BITS_QUICK = 2048  # a quarter of a millisecond; twice the bits take eight times as long
KEY_FILE_BYTES_MAX = 32_768  # an RSA key of 4096 bits takes 3,300; anything larger is another file by mistake
KEY_ID_BYTES = 16

_PADDING: Final = PKCS1v15()
_PREHASHED: Final = Prehashed(SHA256())
_SAMPLE: Final = bytes(32)  # what a key signs when it is checked


class KeyFileError(Exception):
    """A key that cannot be used; the text says which file, what is wrong, and what to do."""


class SigningKey:
    """A private key and where its public half is published: SELECTOR._domainkey.DOMAIN. Never changes."""

    __slots__ = ("_private", "algorithm", "domain", "is_quick", "key_id", "pem", "selector")

    def __init__(self, domain: str, selector: str, algorithm: Algorithm, pem: bytes, *, is_quick: bool) -> None:
        self.domain: Final = domain
        self.selector: Final = selector
        self.algorithm: Final = algorithm
        self.pem: Final = pem
        self.is_quick: Final = is_quick
        """Signs within half a millisecond, the reading of its PEM included."""
        self.key_id: Final = hashlib.sha256(pem).digest()[:KEY_ID_BYTES]
        """What processes call the key among themselves."""
        self._private: RSAPrivateKey | Ed25519PrivateKey | None = None

    def __repr__(self) -> str:
        return f"SigningKey({self.selector}._domainkey.{self.domain}, {self.algorithm})"  # never the key itself

    def public_record(self) -> str:
        """The text of the TXT record that publishes the key (RFC 6376 3.6.1, RFC 8463 4)."""
        public = self._key().public_key()
        if self.algorithm == "rsa-sha256":
            data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return f"v=DKIM1; k=rsa; p={base64.b64encode(data).decode()}"
        data = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(data).decode()}"

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest: RSA as in RFC 8017 8.2, Ed25519 over the digest's bytes (RFC 8463 3)."""
        private = self._key()
        if isinstance(private, RSAPrivateKey):
            return private.sign(digest, _PADDING, _PREHASHED)
        return private.sign(digest)

    def confirms(self, signature: bytes, digest: bytes) -> bool:
        """Whether the signature is this key's own."""
        private = self._key()
        try:
            if isinstance(private, RSAPrivateKey):
                private.public_key().verify(signature, digest, _PADDING, _PREHASHED)
            else:
                private.public_key().verify(signature, digest)
        except InvalidSignature:
            return False
        return True

    def _key(self) -> RSAPrivateKey | Ed25519PrivateKey:
        if self._private is None:
            self._private = _private_key(self.pem)
        return self._private


def load_key(path: Path, domain: str, selector: str) -> SigningKey:
    """Reads the key and checks it; KeyFileError where the file is missing or is no key to sign mail with."""
    pem = _read(path)
    try:
        key = key_of(pem, domain, selector)
        # A faster proof than OpenSSL's own, which tests the primes for a tenth of a second.
        is_sound = key.confirms(key.sign(_SAMPLE), _SAMPLE)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from None
    if not is_sound:
        raise KeyFileError(f"{path}: the key does not confirm its own signature: it is damaged, fetch it from a backup")
    return SigningKey(domain, selector, key.algorithm, pem, is_quick=key.is_quick)


def key_of(pem: bytes, domain: str = "", selector: str = "") -> SigningKey:
    """The key of a PEM text, not tried out; KeyFileError says what is wrong with it and names no file."""
    private = _private_key(pem)
    if isinstance(private, RSAPrivateKey):
        key = SigningKey(domain, selector, "rsa-sha256", pem, is_quick=private.key_size <= RSA_BITS_QUICK)
    else:
        key = SigningKey(domain, selector, "ed25519-sha256", pem, is_quick=True)
    key._private = private
    return key


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would keep the server waiting
            raise KeyFileError(f"{path}: is not a file; a key is a PEM file, `mta dkim keygen` makes one")
        if status.st_size > KEY_FILE_BYTES_MAX:
            raise KeyFileError(
                f"{path}: is larger than {KEY_FILE_BYTES_MAX} bytes, which no key is; name a PEM file with one key"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise KeyFileError(f"{path}: there is no such file; `mta dkim keygen` makes a key") from None
    except OSError as error:
        raise KeyFileError(
            f"{path}: cannot be read: {error.strerror}; the user that the server runs as must be able to read it"
        ) from None


def _private_key(pem: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    if b"-----BEGIN " not in pem:
        raise KeyFileError("is not a PEM file (no BEGIN line); `mta dkim keygen` makes a key")
    if b" PRIVATE KEY-----" not in pem:
        raise KeyFileError("holds no private key; give the file with PRIVATE KEY in its BEGIN line")
    try:
        # The primes are not tested: `load_key` lets the key prove itself instead.
        private = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise KeyFileError(
            "the key is encrypted, and nobody is there to type its passphrase; "
            "write it without one: openssl pkey -in FILE -out NEW"
        ) from None
    except (ValueError, UnsupportedAlgorithm, binascii.Error):
        raise KeyFileError("the private key in it cannot be understood; it must be PKCS#1 or PKCS#8 in PEM") from None
    if isinstance(private, Ed25519PrivateKey):
        return private
    if not isinstance(private, RSAPrivateKey):
        raise KeyFileError("the key is neither RSA nor Ed25519, and mail is signed with no other; make a new one")
    if not RSA_BITS_MIN <= private.key_size <= RSA_BITS_MAX:
        raise KeyFileError(
            f"an RSA key of {private.key_size} bits is of no use: receivers check {RSA_BITS_MIN} to {RSA_BITS_MAX} "
            "bits; make one of 2048 with `mta dkim keygen`"
        )
    return private
