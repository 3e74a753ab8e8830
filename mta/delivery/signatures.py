"""Signatures: how the messages of the way out get their DKIM signatures, before their turn.

A message is signed once, however many recipients, sites and attempts it has: its jobs share a `Signature`, and whoever
comes while it is being made waits with the others. A message that must be signed and cannot be never leaves without:
its jobs are put off, with our own words.
"""

from collections.abc import Callable, Sequence

from mta.delivery.job import Job, Signature
from mta.model.clock import Clock
from mta.model.dates import date_header
from mta.model.outcome import Reply
from mta.signing.keyring import KeyRing
from mta.signing.keys import KeyFileError
from mta.signing.signature import Prepared, complete, prepare
from mta.signing.signer import Signer

Told = Callable[[Reply | None], None]
"""What is called when a message is signed, or with the reason why it cannot be."""


def no_key(from_domain: str) -> Reply:
    """`unsigned = "refuse"`, and the key that was there at the door is gone."""
    return Reply(451, "4.7.20", f"no key signs for {from_domain or 'a message without From'}, and unsigned is refused")


def unusable_key(why: object) -> Reply:
    """A key is there and cannot sign."""
    return Reply(451, "4.3.5", f"the message cannot be signed: {why}")


class Signatures:
    """What a worker signs with. With no keys it is off and costs nothing."""

    def __init__(self, ring: KeyRing | None, signer: Signer | None, clock: Clock) -> None:
        self._ring = ring
        self._signer = signer
        self._clock = clock
        self.is_off = _is_off(ring)
        """Nothing is signed, and nothing is refused for that."""

    def reload(self, ring: KeyRing | None) -> None:
        """Other keys for what is signed from now on; pools look at `is_off` with their next pump."""
        self._ring = ring
        self.is_off = _is_off(ring)

    @property
    def is_saturated(self) -> bool:
        """More messages at once would not be signed sooner."""
        return self._signer is not None and self._signer.is_saturated

    def begin(self, job: Job, done: Told) -> Reply | None:
        """Have a job's message signed; envelope and content are in memory.

        Afterwards `job.signature.fields` are there, or `done` is called later, never from here; or the Reply says why
        it must wait.
        """
        signature = job.signature
        if signature is None:
            signature = job.signature = Signature()
        elif signature.fields is not None:
            return None
        elif signature.waiting is not None:
            signature.waiting.append(done)
            return None
        envelope, content, ring = job.envelope, job.content, self._ring
        assert envelope is not None, "a job that is signed is in memory"
        assert content is not None, "a job that is signed is in memory"
        assert ring is not None, "nothing is signed while it is off"
        from_domain = envelope.from_domain
        try:
            keys = ring.keys_for(from_domain)
        except KeyFileError as error:
            return unusable_key(error)
        # What we tell a sender of his mail is no application's: it must not wait for a key.
        if not envelope.cause_id and not ring.may_send(from_domain):
            return no_key(from_domain)
        if not keys:
            signature.fields = b""
            return None
        if envelope.date_missing:
            content = date_header(job.accepted_s) + content
        assert self._signer is not None, "who has keys has a signer"
        prepared = prepare(content, keys, self._clock.wall_s())
        self._signer.sign(prepared, lambda signatures: self._signed(signature, prepared, signatures), job.priority)
        signature.waiting = [done]
        return None

    def _signed(self, signature: Signature, prepared: Sequence[Prepared], signatures: list[bytes] | None) -> None:
        reply = None
        if signatures is not None:
            signature.fields = complete(prepared, signatures)
            signature.domains = _domains(prepared)
        else:
            assert self._signer is not None, "it answered"
            reply = unusable_key(self._signer.last_error)
        waiting, signature.waiting = signature.waiting, None
        for tell in waiting or ():
            tell(reply)


def _is_off(ring: KeyRing | None) -> bool:
    return ring is None or (ring.is_empty and ring.may_send(""))


def _domains(prepared: Sequence[Prepared]) -> str:
    if len(prepared) == 1:
        return prepared[0].key.domain
    return ",".join(dict.fromkeys(each.key.domain for each in prepared))
