"""Multi-buffer: eight RSA-2048 signatures at once, in a third of the time, where library and CPU can.

Intel's crypto_mb computes eight private operations side by side in the lanes of AVX-512 IFMA. It comes with the wheels
of the extra `fast-signing` and is used by itself where they are installed and the CPU has these instructions; anything
else is signed by OpenSSL. The signatures are the same, byte for byte, for PKCS #1 v1.5 leaves nothing to chance.

Each is checked with the public key before it leaves, eight at once as well: a fault in the middle of such a
computation gives a signature from which anybody could work out the private key.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mta.signing.keys import SigningKey

LANES = 8
LANES_MIN = 3  # fewer are signed faster one after another: eight lanes take as long as these, however many are used
KEY_BITS, KEY_BYTES, PRIME_BYTES = 2048, 256, 128
PUBLIC_EXPONENT = 65537  # of every key that anybody makes; the check has a method of its own for it
LANE_KEYS_MAX = 4096  # as many as a helper keeps; 1.5 KB each
SCRATCH_ALIGN_BYTES = 64

_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
_PADDING = b"\x00\x01" + b"\xff" * (KEY_BYTES - 3 - len(_DIGEST_INFO) - 32) + b"\x00" + _DIGEST_INFO
_NEEDED = ("libintlc.so.5", "libimf.so", "libirng.so", "libsvml.so")
"""What crypto_mb links to, in the order in which each finds the others; loaded beforehand, so that nobody has to set
LD_LIBRARY_PATH."""

Eight = ctypes.c_void_p * LANES
Call = Callable[..., int]


def encoded(digest: bytes) -> bytes:
    """A SHA-256 digest as the number that RSA-2048 signs (RFC 8017 9.2)."""
    return _PADDING + digest


def calls_of(count: int) -> list[int]:
    """How many signatures each call makes; what is left over is for OpenSSL."""
    full, rest = divmod(count, LANES)
    return [LANES] * full + ([rest] if rest >= LANES_MIN else [])


class LaneKey:
    """A private key as the lanes want it: little-endian numbers at addresses that stay."""

    __slots__ = ("_numbers", "addresses")

    def __init__(self, private: RSAPrivateKey) -> None:
        numbers = private.private_numbers()
        primes = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
        sized = [(number, PRIME_BYTES) for number in primes] + [(numbers.public_numbers.n, KEY_BYTES)]
        self._numbers = [ctypes.create_string_buffer(number.to_bytes(size, "little"), size) for number, size in sized]
        self.addresses = [ctypes.addressof(number) for number in self._numbers]


def lane_key(key: SigningKey) -> LaneKey | None:
    """The key for the lanes; None where it is of another kind, and OpenSSL signs with it."""
    if key.algorithm != "rsa-sha256":
        return None
    private = load_pem_private_key(key.pem, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(private, RSAPrivateKey) or private.key_size != KEY_BITS:
        return None
    numbers = private.private_numbers()
    if numbers.public_numbers.e != PUBLIC_EXPONENT:
        return None
    if {numbers.p.bit_length(), numbers.q.bit_length()} != {PRIME_BYTES * 8}:
        return None
    return LaneKey(private)


class MultiBuffer:
    """Signs up to eight digests in one call, each with a key of its own."""

    def __init__(self, library: Any) -> None:
        """`library` is crypto_mb; raises AttributeError where a function is missing."""
        self._keys: dict[bytes, LaneKey | None] = {}
        pointer = ctypes.c_void_p
        library.mbx_RSA2K_private_crt_Method.restype = pointer
        library.mbx_RSA2K_pub65537_Method.restype = pointer
        library.mbx_RSA_Method_BufSize.argtypes = [pointer]
        self._private_method = library.mbx_RSA2K_private_crt_Method()
        self._public_method = library.mbx_RSA2K_pub65537_Method()
        sizes = [library.mbx_RSA_Method_BufSize(method) for method in (self._private_method, self._public_method)]
        self._scratch = ctypes.create_string_buffer(max(sizes) + SCRATCH_ALIGN_BYTES)
        self._private: Call = library.mbx_rsa_private_crt_mb8
        self._public: Call = library.mbx_rsa_public_mb8
        library.mbx_rsa_private_crt_mb8.argtypes = [Eight] * 7 + [ctypes.c_int, pointer, pointer]
        library.mbx_rsa_private_crt_mb8.restype = ctypes.c_uint32
        library.mbx_rsa_public_mb8.argtypes = [Eight] * 3 + [ctypes.c_int, pointer, pointer]
        library.mbx_rsa_public_mb8.restype = ctypes.c_uint32
        self._in, self._out, self._back = (ctypes.create_string_buffer(KEY_BYTES * LANES) for _ in range(3))
        self._in_lanes, self._out_lanes, self._back_lanes = (
            Eight(*(ctypes.addressof(block) + KEY_BYTES * lane for lane in range(LANES)))
            for block in (self._in, self._out, self._back)
        )
        self._key_lanes = [Eight() for _ in range(6)]
        self._in_use: list[LaneKey] = []

    def takes(self, key: SigningKey) -> bool:
        """Whether it can sign with this key."""
        if key.key_id not in self._keys:
            if len(self._keys) >= LANE_KEYS_MAX:
                self._keys.clear()
            try:
                self._keys[key.key_id] = lane_key(key)
            except Exception:  # noqa: BLE001 - numbers that do not fit: OpenSSL says whether it can sign with them
                self._keys[key.key_id] = None
        return self._keys[key.key_id] is not None

    def sign(self, digests: Sequence[tuple[SigningKey, bytes]]) -> list[bytes | None]:
        """A signature of each with its key, which it `takes`; None for those that OpenSSL makes faster, or has to."""
        signatures: list[bytes | None] = []
        for count in calls_of(len(digests)):
            signatures += self._sign_eight(digests[len(signatures) : len(signatures) + count])
        return signatures + [None] * (len(digests) - len(signatures))

    def _sign_eight(self, digests: Sequence[tuple[SigningKey, bytes]]) -> list[bytes | None]:
        filled = [*digests, *[digests[-1]] * (LANES - len(digests))]
        keys: list[LaneKey] = []
        for key, _ in filled:
            if not self.takes(key):
                return [None] * len(digests)
            found = self._keys[key.key_id]
            assert found is not None, "it takes it"
            keys.append(found)
        self._use(keys)
        asked = b"".join([encoded(digest) for _, digest in filled])
        ctypes.memmove(self._in, asked, len(asked))
        status = self._private(
            self._in_lanes, self._out_lanes, *self._key_lanes[:5], KEY_BITS, self._private_method, self._scratch
        )
        status |= self._public(
            self._out_lanes, self._back_lanes, self._key_lanes[5], KEY_BITS, self._public_method, self._scratch
        )
        out, back = self._out.raw, self._back.raw
        spans = [slice(lane * KEY_BYTES, (lane + 1) * KEY_BYTES) for lane in range(len(digests))]
        return [
            out[span] if not status >> 4 * lane & 15 and back[span] == asked[span] else None
            for lane, span in enumerate(spans)
        ]

    def _use(self, keys: list[LaneKey]) -> None:
        """Mostly it is the same key, call after call."""
        if keys == self._in_use:
            return
        for lane, key in enumerate(keys):
            for lanes, address in zip(self._key_lanes, key.addresses, strict=True):
                lanes[lane] = address
        self._in_use = keys


def load_multibuffer(folders: Sequence[Path] = (Path(sys.prefix) / "lib",)) -> MultiBuffer | None:
    """What there is in one of these folders, None where library or CPU cannot."""
    for folder in folders:
        try:
            for name in _NEEDED:
                ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
            library = ctypes.CDLL(str(folder / "libcrypto_mb.so"))
            library.mbx_get_cpu_features.restype = ctypes.c_uint64
            library.mbx_is_crypto_mb_applicable.argtypes = [ctypes.c_uint64]
            if library.mbx_is_crypto_mb_applicable(library.mbx_get_cpu_features()):
                return MultiBuffer(library)
        except (OSError, AttributeError):
            continue
    return None
