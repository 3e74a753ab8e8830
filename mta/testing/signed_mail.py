"""Signed mail: which keys a simulation signs with, and whether what left carries their signatures.

Every message whose From domain has a key carries its signature, whatever happened to helpers and key files, and every
message that of a key that always signs. A verifier that is not ours accepts all of them. One process signs what it
has of a message once: recipients, sites and attempts share the signature, unless an admin or a reload took some of them
out of their way in between; what a rule or a limit keeps back keeps it. (Recipients of several domains may have come to
it by several ways; and so may those of one domain with several owners, of whom one gave his away: each item that came
is signed once.)
"""

import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Literal
from unittest import mock

import dkim
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mta.handoff.frames import Move
from mta.model import envelope as envelopes
from mta.signing.keys import SigningKey, key_of
from mta.testing.scripted_provider import Taken
from mta.testing.simulated_loop import SimulatedLoop
from mta_queue.store import Origin

OURS = "sender.test"
"""The From domain that has a key."""
PLAIN = "plain.test"
"""The one that has none."""
ESP = "esp.test"
"""The domain whose key always signs."""

_SIGNATURE = re.compile(rb"^DKIM-Signature: [^\r\n]*\bd=(\S+); s=(\S+);(?:[^\r\n]|\r\n[ \t])*\r\n", re.MULTILINE)


class Keys(msgspec.Struct):
    """What this machine signs with; drawn from a seed."""

    folder: Path
    random: Random
    kind: Literal["none", "from", "always", "directory"] = "none"
    unsigned: Literal["send", "refuse"] = "send"
    known: dict[tuple[str, str], SigningKey] = {}
    """(Domain, selector) of all there ever were."""
    is_hidden: bool = False
    """Nobody could reload."""
    was_hidden: bool = False
    _now: dict[str, str] = {}

    @classmethod
    def draw(cls, folder: Path, random: Random) -> "Keys":
        """None in a third of the seeds."""
        keys = cls(folder, random, random.choice(["none", "from", "always", "directory"]), known={}, _now={})
        if keys.kind != "none":
            keys.unsigned = random.choice(["send", "send", "refuse"])
            keys.renew()
        return keys

    @property
    def domains(self) -> tuple[str, ...]:
        """Those with a key."""
        return {"none": (), "always": (OURS, ESP)}.get(self.kind, (OURS,))

    def signs(self, from_domain: str) -> tuple[str, ...]:
        """The domains that sign mail from this domain, its own first."""
        return tuple(domain for domain in self.domains if domain in (from_domain, ESP))

    def renew(self) -> None:
        """New keys under new names; with the next reload."""
        for domain in self.domains:
            selector = f"s{len(self.known)}"
            private = Ed25519PrivateKey.from_private_bytes(self.random.randbytes(32))
            pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self.known[domain, selector] = key_of(pem, domain, selector)
            folder = self.folder / "keys" / domain
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{selector}.pem").write_bytes(pem)
            if domain in self._now and self.kind == "directory":
                (folder / f"{self._now[domain]}.pem").unlink()
            self._now[domain] = selector

    @property
    def tables(self) -> str:
        """Of mta.toml."""
        if self.kind == "none":
            return ""
        directory = f'directory = "{self.folder / "keys"}"\n' if self.kind == "directory" else ""
        tables = f'[signing]\nunsigned = "{self.unsigned}"\n{directory}'
        for domain, selector in self._now.items() if not directory else ():
            path = self.folder / "keys" / domain / f"{selector}.pem"
            sign = "always" if domain == ESP else "from"
            tables += f'[[dkim]]\ndomain = "{domain}"\nselector = "{selector}"\nkey = "{path}"\nsign = "{sign}"\n'
        return tables

    def refuses(self, from_domain: str) -> bool:
        """Mail of this From domain never goes; it is taken only while nobody can say whether it has a key."""
        return self.unsigned == "refuse" and from_domain == PLAIN

    def hide(self) -> None:
        """The folder of the keys is gone; found out where a domain is first met."""
        if self.kind == "directory" and not self.is_hidden:
            self.is_hidden = self.was_hidden = True
            (self.folder / "keys").rename(self.folder / "elsewhere")

    def show(self) -> None:
        """It is back."""
        if self.is_hidden:
            self.is_hidden = False
            (self.folder / "elsewhere").rename(self.folder / "keys")


class SignedMail:
    """What left."""

    def __init__(self, keys: Keys, wall_s: Callable[[], float]) -> None:
        self.verified = 0
        self._keys = keys
        self._wall_s = wall_s
        self._seen: set[bytes] = set()
        self._made: dict[tuple[str, str, Origin | None, SimulatedLoop], dict[bytes, float]] = {}
        """Message, domain, where it was moved from and process -> signatures, and when each was first seen."""
        self._origins: dict[str, Origin] = {}

    def moved(self, frame: Move) -> None:
        """A worker gives recipients of a message away: their item is another one than that of those who were there."""
        envelope = envelopes.decode(frame.meta)
        if not envelope.cause_id:  # a notification has one recipient, and he is that of others too
            self._origins.update((each.address, Origin(frame.log, frame.seq)) for each in envelope.recipients)

    def withholds(self, from_domain: str) -> bool:
        """Whether mail may have been taken while the keys were gone that no key signs: it waits till it expires."""
        return self._keys.was_hidden and self._keys.refuses(from_domain)

    def looked_at(self, name: str, from_domain: str, taken: Taken, disturbed_s: float) -> str:
        """What is wrong with a message that was taken, "" nothing; the last disturbance came at `disturbed_s`."""
        head = taken.content.partition(b"\r\n\r\n")[0] + b"\r\n"
        found = {match[1].decode(): match for match in _SIGNATURE.finditer(head)}
        wanted = set(self._keys.signs(from_domain))
        if self._keys.refuses(from_domain):
            return "goes, though no key signs it and unsigned is refused"
        if set(found) != wanted:
            return f"is signed by {sorted(found)}, and should be by {sorted(wanted)}"
        if not found:
            return ""
        whole = b"".join(match[0] for match in found.values())
        if whole not in self._seen:
            self._seen.add(whole)
            self.verified += 1
            for domain, match in found.items():
                key = self._keys.known.get((domain, match[2].decode()))
                if key is None or not self._verifies(match[0] + _SIGNATURE.sub(b"", taken.content), key):
                    return f"has a signature of {domain} that is not good"
        client = taken.transaction.client
        for domain, origin in {(each.partition("@")[2], self._origins.get(each)) for each in taken.addresses}:
            made = self._made.setdefault((name, domain, origin, client), {})
            first_s = min(made.values(), default=0.0)
            made.setdefault(whole, taken.at_s)
            if len(made) > 1 and disturbed_s < first_s:
                return f"was signed {len(made)} times by {client.name}"
        return ""

    def _verifies(self, content: bytes, key: SigningKey) -> bool:
        name = f"{key.selector}._domainkey.{key.domain}.".encode()

        def ask(asked: bytes, timeout: float = 5) -> bytes | None:
            return key.public_record().encode() if asked == name else None

        with mock.patch.object(dkim, "time", SimpleNamespace(time=self._wall_s)):
            return dkim.verify(content, dnsfunc=ask)
