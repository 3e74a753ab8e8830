"""Private keys made for a test, as a key file holds them."""

from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def rsa_pem(bits: int = 2048, form: PrivateFormat = PrivateFormat.PKCS8, number: int = 0) -> bytes:
    """An RSA key, within a process the same one for the same size and number: a new one takes a tenth of a second and
    more. TraditionalOpenSSL is what older tools write (PKCS#1)."""
    return _rsa(bits, number).private_bytes(Encoding.PEM, form, NoEncryption())


@cache
def _rsa(bits: int, number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, bits)


def ed25519_pem() -> bytes:
    """A new Ed25519 key."""
    return ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
