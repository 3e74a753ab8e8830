"""Private keys made for a test, as a key file holds them."""

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def rsa_pem(bits: int = 2048, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """A new RSA key; TraditionalOpenSSL is what older tools write (PKCS#1)."""
    return rsa.generate_private_key(65_537, bits).private_bytes(Encoding.PEM, form, NoEncryption())


def ed25519_pem() -> bytes:
    """A new Ed25519 key."""
    return ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
