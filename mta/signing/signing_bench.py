"""Where signatures are made: the keys that a process holds in memory, and the bench where they sign digests.

A signing helper has one, and a worker has one for the signatures that it makes itself.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from mta.signing import signing_frames as frames
from mta.signing.keys import SigningKey, key_of
from mta.signing.multibuffer import LANES, MultiBuffer
from mta.signing.signing_frames import DONE, REFUSED, UNKNOWN, Answer


class Key(Protocol):
    """What signs."""

    def sign(self, digest: bytes) -> bytes:
        """-> the signature."""
        ...


class Keys:
    """Keys that the process was told: those used last."""

    def __init__(self, keys_max: int) -> None:
        self._keys: OrderedDict[bytes, SigningKey | str] = OrderedDict()
        self._keys_max = keys_max

    def __len__(self) -> int:
        return len(self._keys)

    def learn(self, key_id: bytes, pem: bytes) -> None:
        """Read a key; what cannot be read is remembered with the reason."""
        if key_id in self._keys:
            self._keys.move_to_end(key_id)
            return
        try:
            found: SigningKey | str = key_of(pem)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a key, its mail must be told
            found = str(error) or type(error).__name__
        self._keys[key_id] = found
        if len(self._keys) > self._keys_max:
            self._keys.popitem(last=False)

    def get(self, key_id: bytes) -> SigningKey | str | None:
        """A key, why it cannot be used, or None where it is not known."""
        found = self._keys.get(key_id)
        if found is not None:
            self._keys.move_to_end(key_id)
        return found


class Bench:
    """Where signatures are made: eight at once where library and CPU can, else one after another."""

    def __init__(self, keys: Keys, multibuffer: MultiBuffer | None) -> None:
        self._keys = keys
        self._multibuffer = multibuffer
        self.lanes = LANES if multibuffer is not None else 1
        """How many signatures are made at once."""

    def sign(self, entries: Sequence[tuple[bytes, bytes]]) -> list[Answer]:
        """(key id, digest) of each -> what becomes of each."""
        answers: list[Answer] = []
        eights: list[tuple[int, SigningKey]] = []
        multibuffer = self._multibuffer
        last_id, key = b"", None
        for key_id, digest in entries:
            if key_id != last_id:
                last_id, key = key_id, self._keys.get(key_id)
            if key is None:
                answers.append((UNKNOWN, b""))
            elif isinstance(key, str):
                answers.append((REFUSED, key.encode()[: frames.TEXT_BYTES_MAX]))
            elif multibuffer is not None and multibuffer.takes(key):
                eights.append((len(answers), key))
                answers.append((UNKNOWN, b""))
            else:
                answers.append(_sign_one(key, digest))
        if multibuffer is not None and eights:
            digests = [(key, entries[at][1]) for at, key in eights]
            for (at, key), signature in zip(eights, multibuffer.sign(digests), strict=True):
                answers[at] = (DONE, signature) if signature else _sign_one(key, entries[at][1])
        return answers


def _sign_one(key: Key, digest: bytes) -> Answer:
    try:
        return DONE, key.sign(digest)
    except Exception as error:  # noqa: BLE001 - one key must not stop the others
        return REFUSED, f"{type(error).__name__}: {error}".encode()[: frames.TEXT_BYTES_MAX]
