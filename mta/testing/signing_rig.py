"""A rig for signing: keys made once, a helper that is played by hand, a signer that signs when told, and the verifier.

key = ed25519_key("a.test", "s1")
helper = ScriptedHelper(path); await helper.start()      # a signing helper's side of the socket
signer = HandSigner()                                    # in place of a Signer: signer.finish()
assert verify(content, key)                              # as dkimpy sees it
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mta.signing import signing_frames as frames
from mta.signing.keyring import KeyRing
from mta.signing.keys import KeyFileError, SigningKey, key_of
from mta.signing.signature import Prepared
from mta.signing.signer import Signer
from mta.signing.signing_frames import DONE, KEY, SIGN, UNKNOWN, FrameReader


@functools.cache
def ed25519_key(domain: str = "shop.test", selector: str = "ed") -> SigningKey:
    """A key that signs fast; the same one for the same name."""
    private = Ed25519PrivateKey.generate()
    return key_of(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), domain, selector)


@functools.cache
def rsa_key(domain: str = "shop.test", selector: str = "rsa", bits: int = 2048) -> SigningKey:
    """The key that most mail is signed with; the same one for the same name."""
    private = generate_private_key(65537, bits)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return key_of(pem, domain, selector)


def verify(content: bytes, *keys: SigningKey) -> bool:
    """Whether dkimpy accepts the topmost signature, with these keys published."""
    records = {f"{key.selector}._domainkey.{key.domain}.".encode(): key.public_record().encode() for key in keys}

    def ask(name: bytes | str, timeout: float = 5) -> bytes | None:
        return records.get(name.encode() if isinstance(name, str) else name)

    return dkim.verify(content, dnsfunc=ask)


class FakeRing:
    """A KeyRing by hand: From domain -> keys; `broken` are those whose key file cannot be used."""

    def __init__(
        self,
        keys: Mapping[str, Sequence[SigningKey]],
        *,
        unsigned: Literal["send", "refuse"] = "send",
        broken: Sequence[str] = (),
    ) -> None:
        self.keys = keys
        self.unsigned = unsigned
        self.broken = set(broken)
        self.is_empty = not keys and not broken

    def keys_for(self, from_domain: str) -> tuple[SigningKey, ...]:
        if from_domain in self.broken:
            raise KeyFileError(f"keys/{from_domain}.pem: cannot be read")
        return tuple(self.keys.get(from_domain, ()))

    def may_send(self, from_domain: str) -> bool:
        return self.unsigned == "send" or from_domain in self.keys

    def as_ring(self) -> KeyRing:
        """For those who want the real one."""
        return cast(KeyRing, self)


class HandSigner:
    """In place of a Signer: signs what waits when `finish` is called; `max_waiting` is the most that ever waited."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Sequence[Prepared], Callable[[list[bytes] | None], None]]] = deque()
        self.asked = 0
        self.signatures = 0
        self.max_waiting = 0
        self.last_error = ""
        self.is_saturated = False

    @property
    def waiting(self) -> int:
        return len(self.queue)

    def sign(self, prepared: Sequence[Prepared], done: Callable[[list[bytes] | None], None], priority: int = 5) -> None:
        self.asked += 1
        self.queue.append((prepared, done))
        self.max_waiting = max(self.max_waiting, len(self.queue))

    def finish(self, count: int = 1, at: int = 0) -> None:
        """Sign the next so many, or the one that stands there in the queue."""
        for _ in range(count):
            prepared, done = self.queue[at]
            del self.queue[at]
            self.signatures += len(prepared)
            done([each.key.sign(each.digest) for each in prepared])

    def refuse(self, why: str) -> None:
        """The next one's key cannot be used."""
        self.last_error = why
        _, done = self.queue.popleft()
        done(None)

    def as_signer(self) -> Signer:
        """For those who want the real one."""
        return cast(Signer, self)


class PromptSigner(HandSigner):
    """Signs all by itself, `delay_s` after it was asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float = 0.0) -> None:
        super().__init__()
        self._loop = loop
        self.delay_s = delay_s

    def sign(self, prepared: Sequence[Prepared], done: Callable[[list[bytes] | None], None], priority: int = 5) -> None:
        super().sign(prepared, done)
        self._loop.call_later(self.delay_s, self.finish)


class _Wire(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, helper: "ScriptedHelper") -> None:
        self._helper = helper
        self._reader = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._helper.wires.append(self)
        if self._helper.greets:
            self.transport.write(frames.greeting(self._helper.lanes))

    def data_received(self, data: bytes) -> None:
        for kind, payload in self._reader.receive(data):
            self._helper.heard(self, kind, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._helper.wires.remove(self)


class ScriptedHelper:
    """Listens as a helper does; answers when told (`answer`), or by itself (`is_prompt`)."""

    def __init__(self, path: Path, *, is_prompt: bool = False, greets: bool = True, lanes: int = 1) -> None:
        self.path = path
        self.lanes = lanes
        self.is_prompt = is_prompt
        self.greets = greets
        self.keys: dict[bytes, SigningKey] = {}
        self.keys_told = 0
        self.wires: list[_Wire] = []
        self.batches: deque[tuple[_Wire, bytes, list[tuple[bytes, bytes]]]] = deque()
        """What is to be answered."""
        self.sizes: list[int] = []
        """Digests of each batch that came."""
        self.cpu_us = 250
        """What each batch takes, as it says."""
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Wire(self), str(self.path))

    def heard(self, wire: _Wire, kind: int, payload: bytes) -> None:
        if kind == KEY:
            key_id, pem = frames.read_key(payload)
            self.keys[key_id] = key_of(pem)
            self.keys_told += 1
            return
        assert kind == SIGN, kind
        ref, entries = frames.read_sign(payload)
        self.batches.append((wire, ref, entries))
        self.sizes.append(len(entries))
        if self.is_prompt:
            self.answer()

    def answer(self) -> None:
        """Sign the oldest batch."""
        wire, ref, entries = self.batches.popleft()
        answers = [
            (DONE, key.sign(digest)) if (key := self.keys.get(key_id)) is not None else (UNKNOWN, b"")
            for key_id, digest in entries
        ]
        wire.transport.write(frames.signed(ref, self.cpu_us, answers))

    def die(self) -> None:
        """As kill -9: connections break, nobody listens."""
        if self._server is not None:
            self._server.close()
        for wire in self.wires:
            wire.transport.abort()
        self.batches.clear()
        self.keys.clear()
        self.path.unlink(missing_ok=True)
