"""Eight signatures at once: the padding, the lanes, what is left to OpenSSL, and the library itself where there is one.

The library is played by one that computes with Python's numbers what crypto_mb does with AVX-512, from the same
addresses, and that makes mistakes when asked.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mta.signing.keys import SigningKey, key_of
from mta.signing.multibuffer import (
    KEY_BYTES,
    LANES,
    LANES_MIN,
    PRIME_BYTES,
    MultiBuffer,
    calls_of,
    encoded,
    lane_key,
    load_multibuffer,
)
from mta.signing.signing_bench import Bench, Keys
from mta.signing.signing_frames import DONE, UNKNOWN
from mta.testing.signing_rig import ed25519_key, rsa_key

KEYS = [rsa_key("shop.test", f"s{number}") for number in range(3)]


class Function:
    """Something that ctypes could call."""

    argtypes: Any = None
    restype: Any = None

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


def number_at(address: int | None, size: int, order: Any = "little") -> int:
    assert address is not None
    return int.from_bytes(ctypes.string_at(address, size), order)


class FakeLibrary:
    """crypto_mb, slow; `breaks` are lanes that compute nonsense, `fails` those that say so."""

    def __init__(self) -> None:
        self.calls: list[set[int]] = []
        """Moduli of each call."""
        self.breaks: set[int] = set()
        self.fails: set[int] = set()
        self.mbx_RSA2K_private_crt_Method = Function(lambda: 1)
        self.mbx_RSA2K_pub65537_Method = Function(lambda: 2)
        self.mbx_RSA_Method_BufSize = Function(lambda method: 1000 * method)
        self.mbx_rsa_private_crt_mb8 = Function(self._private)
        self.mbx_rsa_public_mb8 = Function(self._public)

    def _private(self, *args: Any) -> int:
        source, target, p, q, dp, dq, inverse, bits, method, _ = args
        assert (bits, method) == (2048, 1)
        self.calls.append(set())
        status = 0
        for lane in range(LANES):
            message = number_at(source[lane], KEY_BYTES, "big")
            first, second = number_at(p[lane], PRIME_BYTES), number_at(q[lane], PRIME_BYTES)
            low = pow(message, number_at(dq[lane], PRIME_BYTES), second)
            high = pow(message, number_at(dp[lane], PRIME_BYTES), first)
            signature = low + second * ((high - low) * number_at(inverse[lane], PRIME_BYTES) % first)
            if lane in self.breaks:
                signature ^= 1 << 77
            if lane in self.fails:
                status |= 1 << 4 * lane
            ctypes.memmove(target[lane], signature.to_bytes(KEY_BYTES, "big"), KEY_BYTES)
            self.calls[-1].add(first * second)
        return status

    def _public(self, *args: Any) -> int:
        source, target, modulus, bits, method, _ = args
        assert (bits, method) == (2048, 2)
        for lane in range(LANES):
            value = pow(number_at(source[lane], KEY_BYTES, "big"), 65537, number_at(modulus[lane], KEY_BYTES))
            ctypes.memmove(target[lane], value.to_bytes(KEY_BYTES, "big"), KEY_BYTES)
        return 0


def digests(count: int, keys: Sequence[SigningKey] = KEYS) -> list[tuple[SigningKey, bytes]]:
    return [(keys[number % len(keys)], bytes([number]) * 32) for number in range(count)]


def test_encoded():
    """The number that is signed has the key's length, begins with zero and ends with the digest."""
    digest = bytes(range(32))
    number = encoded(digest)

    assert len(number) == KEY_BYTES
    assert number.startswith(b"\x00\x01\xff\xff")
    assert number.endswith(b"\xff\x00" + bytes.fromhex("3031300d060960864801650304020105000420") + digest)


@pytest.mark.parametrize(
    ("count", "calls"),
    [
        (0, []),
        (1, []),
        (2, []),
        (3, [3]),
        (7, [7]),
        (8, [8]),
        (10, [8]),
        (11, [8, 3]),
        (16, [8, 8]),
        (27, [8, 8, 8, 3]),
    ],
)
def test_calls(count: int, calls: list[int]):
    """Full calls first; a rest that would cost more than one after another is left to OpenSSL."""
    assert calls_of(count) == calls
    assert count - sum(calls) < LANES_MIN


@pytest.mark.parametrize("count", [3, 8, 11, 20])
def test_signs_as_openssl(count: int):
    """The same bytes as OpenSSL's, with keys that differ from lane to lane; the rest is not signed."""
    asked = digests(count)
    signed = MultiBuffer(FakeLibrary()).sign(asked)

    assert len(signed) == count
    done = sum(calls_of(count))
    assert signed[:done] == [key.sign(digest) for key, digest in asked[:done]]
    assert signed[done:] == [None] * (count - done)


def test_keys_change_between_calls():
    """Each call has its own keys in its lanes."""
    library = FakeLibrary()
    multibuffer = MultiBuffer(library)
    for keys in ([KEYS[0]], [KEYS[0]], [KEYS[1], KEYS[2]], [KEYS[0]]):
        asked = digests(8, keys)
        assert multibuffer.sign(asked) == [key.sign(digest) for key, digest in asked]

    assert [len(moduli) for moduli in library.calls] == [1, 1, 2, 1]


@pytest.mark.parametrize("kind", ["breaks", "fails"])
def test_a_fault_never_leaves(kind: str):
    """A wrong signature would give the key away: that lane's is thrown away, the others are good."""
    library = FakeLibrary()
    getattr(library, kind).update({1, 6})
    asked = digests(8)

    signed = MultiBuffer(library).sign(asked)

    for lane, (key, digest) in enumerate(asked):
        assert signed[lane] == (None if lane in (1, 6) else key.sign(digest))


def other_exponent() -> SigningKey:
    private = generate_private_key(3, 2048)
    return key_of(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    "make",
    [ed25519_key, lambda: rsa_key(bits=1024), lambda: rsa_key(bits=3072), other_exponent],
    ids=["ed25519", "rsa 1024", "rsa 3072", "exponent 3"],
)
def test_other_keys_are_for_openssl(make: Any):
    """The lanes are made for RSA of 2048 bits with the usual exponent."""
    key = make()

    assert lane_key(key) is None
    assert not MultiBuffer(FakeLibrary()).takes(key)


def test_numbers_that_do_not_fit_are_for_openssl():
    """A key whose numbers are damaged, with which OpenSSL signs by the others, does not stop a helper."""
    numbers = generate_private_key(65537, 2048).private_numbers()
    damaged = RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d, numbers.dmp1 << 40 | 1, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    key = key_of(damaged.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))

    assert not MultiBuffer(FakeLibrary()).takes(key)


@pytest.mark.parametrize("count", [1, 2, 5, 16, 33])
def test_bench_puts_all_in_place(count: int):
    """Beside keys of other kinds, keys that are unknown, and lanes that fail, each digest gets its own answer."""
    library = FakeLibrary()
    library.breaks.add(2)
    keys = Keys(keys_max=100)
    edwards = ed25519_key()
    for key in (*KEYS, edwards):
        keys.learn(key.key_id, key.pem)
    mixed = [KEYS[0], edwards, KEYS[1], rsa_key("nobody.test"), KEYS[2], KEYS[0], KEYS[0]]
    asked = digests(count, mixed)

    answers = Bench(keys, MultiBuffer(library)).sign([(key.key_id, digest) for key, digest in asked])

    assert answers == [
        (UNKNOWN, b"") if key.domain == "nobody.test" else (DONE, key.sign(digest)) for key, digest in asked
    ]


def test_no_library(tmp_path: Path):
    """Where there is none, or something else of its name, OpenSSL signs."""
    (tmp_path / "libintlc.so.5").write_bytes(b"no library")

    assert load_multibuffer([tmp_path]) is None
    assert load_multibuffer([]) is None


def test_real_library_or_none():
    """Where wheels and CPU allow it the real library signs as OpenSSL does; elsewhere nothing is different."""
    multibuffer = load_multibuffer()
    keys = Keys(keys_max=100)
    for key in KEYS:
        keys.learn(key.key_id, key.pem)
    asked = [(KEYS[number % 3], os.urandom(32)) for number in range(40)]

    answers = Bench(keys, multibuffer).sign([(key.key_id, digest) for key, digest in asked])

    assert answers == [(DONE, key.sign(digest)) for key, digest in asked]
    if multibuffer is not None:
        assert multibuffer.sign(asked) == [key.sign(digest) for key, digest in asked]
