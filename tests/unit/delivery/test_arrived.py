"""What moved here: only what still lives of it is taken up, and what was signed before is not signed again."""

from pathlib import Path

from bench.sink import Profile, Sink
from mta.delivery.signatures import Signatures
from mta.handoff.mover import PartState
from mta.model import envelope as envelopes
from mta.model.outcome import Reply
from mta.reporting.events import Fate, encode_note
from mta.resolve.errors import no_domain
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.signing_rig import FakeRing, PromptSigner, ed25519_key
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_queue.store import Origin


@swiftly
async def test_the_second_recipient_goes_where_the_first_is_done(loop: SwiftLoop, tmp_path: Path):
    """A power loss may keep the record that one of them is finished and lose the one that the item had arrived."""
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.resolver.found["a.test"] = no_domain("a.test")
    envelope = rig.envelope("done@a.test", "waits@a.test")

    def arrived(seq: int) -> None:
        rig.store.finish(seq, [0], b"")
        rig.store.arrive(seq)
        found = rig.store.load(seq)
        assert found is not None
        rig.dispatcher.arrived(seq, [PartState(part.due_s, part.note) for part in found.parts])

    rig.store.append(
        envelope.id, envelopes.encode(envelope), 2, b"content", arrived, lambda error: None, Origin(1, 1), 0.0
    )
    await rig.until(lambda: rig.finals > 0, 60.0)
    await rig.stop()

    assert rig.fates() == {(envelope.id, "waits@a.test"): ["bounced"]}
    assert rig.store.items == 0


@swiftly
async def test_the_signature_of_one_that_is_not_due(loop: SwiftLoop, tmp_path: Path):
    """One recipient was deferred elsewhere and waits; the other, who was never tried, goes with the same signature."""
    signer = PromptSigner(loop, 0.001)
    ring = FakeRing({"shop.test": [ed25519_key("shop.test")]})
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        signatures = Signatures(ring.as_ring(), signer.as_signer(), loop)
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domains_of(sink.profiles)
        envelope = rig.envelope("later@a.test", "now@a.test", from_domain="shop.test")
        signed = b"DKIM-Signature: v=1; b=x\r\n"
        due_s = loop.wall_s() + 600.0
        fate = Fate("deferred", 0.0, Reply(451, "", "later"), "rcpt", 1, due_s, dkim="shop.test", signature=signed)
        states = [PartState(due_s, encode_note(fate)), PartState(0.0, b"")]

        def arrived(seq: int) -> None:
            rig.store.postpone(seq, [0], *states[0])
            rig.store.arrive(seq)
            rig.dispatcher.arrived(seq, states)

        content = b"From: a@shop.test\r\n\r\nhello\r\n"
        rig.store.append(
            envelope.id, envelopes.encode(envelope), 2, content, arrived, lambda error: None, Origin(1, 1), 0.0
        )
        await rig.until(lambda: rig.finals == 2)
        await rig.stop()

    deliveries = sink.profiles["a"].deliveries
    assert [each.recipients for each in deliveries] == [("now@a.test",), ("later@a.test",)]
    assert [each.content.startswith(signed) for each in deliveries] == [True, True]
    assert signer.asked == 0
