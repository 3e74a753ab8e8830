"""Keys for the occasion: a private key in a file, and what the DNS would publish of it."""

import base64
import os
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

RSA_BITS = 2_048  # what Gmail and Yahoo ask of bulk senders
PUBLIC_EXPONENT = 65_537


class KeyFile(msgspec.Struct, frozen=True):
    """A key to sign with."""

    path: Path
    """PEM, PKCS#8, not encrypted."""
    domain: str
    selector: str
    record: str
    """What `name` holds in the DNS."""

    @property
    def name(self) -> str:
        """Where the public key is published (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def zone(self) -> dict[str, dict[str, object]]:
        """The record for `Rig.start_dns`, in pieces that a TXT record can hold."""
        pieces = [self.record[at : at + 255] for at in range(0, len(self.record), 255)]
        return {self.name: {"TXT": [" ".join(f'"{piece}"' for piece in pieces)]}}


def make_key(folder: Path, domain: str, selector: str = "bench", bits: int = RSA_BITS) -> KeyFile:
    """Makes an RSA key in FOLDER/DOMAIN.SELECTOR.pem, which only its owner may read."""
    key = rsa.generate_private_key(public_exponent=PUBLIC_EXPONENT, key_size=bits)
    path = folder / f"{domain}.{selector}.pem"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyFile(path, domain, selector, f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}")
