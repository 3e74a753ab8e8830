"""The key ring: which keys sign mail with a given From domain.

Keys come from `[[dkim]]` and from a directory with a folder a domain (`DOMAIN/SELECTOR.pem`). Mail is signed by the
keys of its From domain, else of the nearest parent that has some, and by every key that always signs. The directory
is asked when a domain is first met, and the answer is kept for as long as the ring lives: a reload makes a new ring.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from mta.signing.keys import KeyFileError, SigningKey, key_of, load_key

ANSWERS_KEPT_MAX = 100_000
"""Domains whose keys are remembered, whether they have some or not: From domains are a stranger's choice."""
DOMAIN_CHARS_MAX = 253  # RFC 1035 2.3.4, without the root's dot
KEYS_PER_DOMAIN_MAX = 10
"""In the directory; every one signs every message, and more are a folder of something else."""
KEY_SUFFIX = ".pem"

_DOMAIN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_SELECTOR = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")

Unsigned = Literal["send", "refuse"]
"""What becomes of mail whose From domain has no key."""

_Value = TypeVar("_Value")


class KeyPlace(NamedTuple):
    """A key as the configuration names it: one `[[dkim]]`."""

    domain: str
    selector: str
    path: Path
    always: bool
    """It signs every message, whoever it is from."""
    pem: bytes = b""
    """What the file held when the configuration was accepted; b"": it is read now."""


class KeyRing:
    """All keys of a server.

    Reads the keys of `places` at once and those of `directory` (None: there is none) when they are first needed.
    Raises KeyFileError where one of `places` cannot be used.
    """

    def __init__(self, places: Sequence[KeyPlace], directory: Path | None, unsigned: Unsigned) -> None:
        self.is_empty = not places and directory is None
        """Nothing is ever signed."""
        self._directory = directory
        self._refuses = unsigned == "refuse"
        self._always: tuple[SigningKey, ...] = ()
        self._listed: dict[str, tuple[SigningKey, ...]] = {}
        self._answers: _Answers[tuple[SigningKey, ...]] = _Answers()
        self._folders: _Answers[tuple[SigningKey, ...]] = _Answers()
        for place in places:
            if place.pem:
                key = key_of(place.pem, place.domain.lower(), place.selector)
            else:
                key = load_key(place.path, place.domain.lower(), place.selector)
            if place.always:
                self._always = (*self._always, key)
            else:
                self._listed[key.domain] = (*self._listed.get(key.domain, ()), key)

    def keys_for(self, from_domain: str) -> tuple[SigningKey, ...]:
        """The keys that sign mail from this domain (lower-case A-labels, "": unknown), those of the domain first.

        Raises KeyFileError where the directory has a key for it that cannot be used: the mail should wait. That is not
        remembered, so a file that is put right counts at once.
        """
        keys = self._answers.get(from_domain)
        if keys is None:
            keys = _once((*self._keys_of_from(from_domain), *self._always))
            self._answers.put(from_domain, keys)
        return keys

    def may_send(self, from_domain: str) -> bool:
        """Whether mail from this domain is taken: False where `unsigned` is "refuse" and no key of it, or of a
        domain above it, signs. A key that is there and cannot be used counts: mail is taken and waits for it."""
        if not self._refuses:
            return True
        try:
            keys = self.keys_for(from_domain)
        except KeyFileError:
            return True
        return any(key.domain in _lineage(from_domain) for key in keys)

    def every_key(self) -> Iterator[SigningKey]:
        """All keys, the directory's too; for tools that look through them. Raises KeyFileError as it goes."""
        for keys in self._listed.values():
            yield from keys
        yield from self._always
        if self._directory is None:
            return
        listed = {(key.domain, key.selector) for key in self._always}
        listed.update((key.domain, key.selector) for keys in self._listed.values() for key in keys)
        try:
            names = sorted(os.listdir(self._directory))
        except OSError as error:
            raise _unreadable(self._directory, error) from None
        for name in names:
            if _is_safe(name):
                for key in self._keys_in_folder(name):
                    if (key.domain, key.selector) not in listed:
                        yield key

    def _keys_of_from(self, from_domain: str) -> tuple[SigningKey, ...]:
        for domain in _lineage(from_domain):
            keys = (*self._listed.get(domain, ()), *self._keys_in_folder(domain))
            if keys:
                return keys
        return ()

    def _keys_in_folder(self, domain: str) -> tuple[SigningKey, ...]:
        if self._directory is None or not _is_safe(domain):
            return ()
        keys = self._folders.get(domain)
        if keys is None:
            keys = tuple(_read_folder(self._directory, domain))
            self._folders.put(domain, keys)
        return keys


class _Answers(Generic[_Value]):
    """Remembered answers by domain. Two halves: when the younger is full the older one is forgotten."""

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[str, _Value] = {}
        self._old: dict[str, _Value] = {}

    def get(self, domain: str) -> _Value | None:
        found = self._young.get(domain)
        if found is None:
            found = self._old.get(domain)
            if found is not None:
                self.put(domain, found)
        return found

    def put(self, domain: str, value: _Value) -> None:
        if len(self._young) >= ANSWERS_KEPT_MAX // 2:
            self._old = self._young
            self._young = {}
        self._young[domain] = value


def _lineage(domain: str) -> Iterator[str]:
    """The domain and those above it, the nearest first; a top-level domain only where it is the domain itself."""
    if domain:
        yield domain
    _, dot, parent = domain.partition(".")
    while dot and "." in parent:
        yield parent
        _, dot, parent = parent.partition(".")


def _is_safe(domain: str) -> bool:
    """Whether it may be part of a path: the domain comes out of a message."""
    return len(domain) <= DOMAIN_CHARS_MAX and _DOMAIN.fullmatch(domain) is not None


def _once(keys: Sequence[SigningKey]) -> tuple[SigningKey, ...]:
    """One key a record name: two signatures by one name would be looked up in the same record."""
    return tuple({(key.domain, key.selector): key for key in reversed(keys)}.values())[::-1]


def _read_folder(directory: Path, domain: str) -> Iterator[SigningKey]:
    folder = directory / domain
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(KEY_SUFFIX) and not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        if not directory.is_dir():  # a file system that is gone must not let mail out unsigned
            raise KeyFileError(f"{directory}: the folder is gone; put it back or change [signing] directory") from None
        return
    except OSError as error:
        raise _unreadable(folder, error) from None
    if len(names) > KEYS_PER_DOMAIN_MAX:
        raise KeyFileError(
            f"{folder}: holds {len(names)} keys, and each would sign; leave {KEYS_PER_DOMAIN_MAX} at most"
        )
    for name in names:
        selector = name.removesuffix(KEY_SUFFIX)
        if _SELECTOR.fullmatch(selector) is None:
            raise KeyFileError(
                f"{folder / name}: {selector!r} cannot be a selector; name the file SELECTOR{KEY_SUFFIX}"
            )
        yield load_key(folder / name, domain, selector)


def _unreadable(folder: Path, error: OSError) -> KeyFileError:
    return KeyFileError(
        f"{folder}: cannot be read: {error.strerror}; the user that the server runs as must be able to read it"
    )
